//! Cron expressions that are checked as the scheduler reads them.
//!
//! They are parsed with the parser and the settings of tokio-cron-scheduler (seconds required), in
//! UTC. Three more mistakes are errors, because the daemon would seem to run and do nothing:
//! - a year field: the schedule would end;
//! - an empty item in a list;
//! - a date that no calendar has.
//!
//! Only this file names chrono, the time type of the cron parser.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;

/// The fields of an expression, in order, with the values they take.
const FIELDS: [(&str, &str); 6] = [
    ("seconds", "0-59"),
    ("minutes", "0-59"),
    ("hours", "0-23"),
    ("day of the month", "1-31, `L` for the last"),
    ("month", "1-12 or JAN-DEC"),
    ("day of the week", "0-7 or SUN-SAT"),
];

/// SOME_TIME controls from when the first tick of an expression is searched. The value does not
/// matter: without a year field, a schedule that has one tick has more.
const SOME_TIME: Timestamp = Timestamp::constant(1_735_689_600, 0);

/// A checked cron expression in UTC: six fields, seconds first, or a nickname such as `@hourly`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cadence {
    text: String,
    cron: Cron,
}

impl Cadence {
    /// Checks an expression.
    ///
    /// # Errors
    /// The scheduler would not understand the expression, or it would never be due.
    pub fn parse(text: &str) -> Result<Self, CadenceError> {
        let text = text.trim();
        let fields: Vec<&str> = text.split_whitespace().collect();
        match fields[..] {
            [] => return Err(CadenceError::Empty),
            [name] if name.starts_with('@') => {}
            _ => match fields.len() {
                5 => return Err(CadenceError::NoSeconds { with: format!("0 {text}") }),
                6 => {}
                7 => return Err(CadenceError::Year),
                count => return Err(CadenceError::Fields(count)),
            },
        }
        let cron = parse(text).filter(|_| !has_empty_item(&fields)).ok_or_else(|| culprit(&fields))?;
        let cadence = Self { text: text.to_owned(), cron };
        cadence.nth_after(SOME_TIME, 1).ok_or(CadenceError::Never)?;
        Ok(cadence)
    }

    /// Returns a default of the program.
    pub(super) fn built_in(text: &str) -> Self {
        Self::parse(text).expect("a test parses the defaults")
    }

    /// Returns the expression for the scheduler.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the `n`th tick after `at` (1 is the next one, 0 is `at` itself), or none at the far
    /// end of the calendar.
    ///
    /// What is due at each tick is three periods late at `nth_after(last, 3)`.
    pub fn nth_after(&self, at: Timestamp, n: usize) -> Option<Timestamp> {
        if n == 0 {
            return Some(at);
        }
        // The parser copies fractions of a second into its results, so it gets none.
        let mut tick = chrono::DateTime::from_timestamp(at.as_second(), 0)?;
        if at.subsec_nanosecond() < 0 {
            tick -= chrono::TimeDelta::seconds(1);
        }
        for _ in 0..n {
            tick = self.cron.find_next_occurrence(&tick, false).ok()?;
        }
        Timestamp::from_second(tick.timestamp()).ok()
    }

    /// Returns the time from `at` to the next tick, or none at the far end of the calendar.
    pub fn wait_from(&self, at: Timestamp) -> Option<Duration> {
        Duration::try_from(self.nth_after(at, 1)?.duration_since(at)).ok()
    }

    /// Returns the time between the next two ticks after `at`, or none at the far end of the
    /// calendar.
    pub fn period_from(&self, at: Timestamp) -> Option<Duration> {
        let (next, second) = (self.nth_after(at, 1)?, self.nth_after(at, 2)?);
        Duration::try_from(second.duration_since(next)).ok()
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// Only white space.
    #[error("is empty; every quarter of an hour, for example, is `0 */15 * * * *`")]
    Empty,
    /// The five fields of a crontab.
    #[error("has five fields; put the seconds first: `{with}`")]
    NoSeconds {
        /// The expression after a zero.
        with: String,
    },
    /// A seventh field.
    #[error("has a seventh field, a year, after which it would never be due again; leave it out")]
    Year,
    /// Any other number of fields.
    #[error(
        "needs six fields: seconds, minutes, hours, day of the month, month, day of the week; \
         this has {0}"
    )]
    Fields(usize),
    /// A nickname that the parser does not know.
    #[error("is no known name; use @hourly, @daily, @weekly, @monthly or @yearly")]
    Name,
    /// One field cannot be read.
    #[error(
        "has `{text}` for the {field}, which takes {takes}, `*`, steps such as `*/15`, ranges and \
         lists"
    )]
    Field {
        /// The field's text.
        text: String,
        /// The field's name.
        field: &'static str,
        /// The values it takes.
        takes: &'static str,
    },
    /// Each field is valid, and no date has all of them.
    #[error("is never due: no date matches it")]
    Never,
}

/// Parses an expression exactly as tokio-cron-scheduler 0.15 does.
fn parse(text: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Required).build().parse(text).ok()
}

/// The parser accepts `1,,2` and even `,`, for which it would search all of time.
fn has_empty_item(fields: &[&str]) -> bool {
    fields.iter().any(|field| field.split(',').any(str::is_empty))
}

/// Returns the error of the first field that fails among five that cannot fail.
fn culprit(fields: &[&str]) -> CadenceError {
    if fields.len() == 1 {
        return CadenceError::Name;
    }
    let fails = |(place, text): &(usize, &&str)| {
        let mut alone = ["*"; FIELDS.len()];
        alone[*place] = text;
        has_empty_item(&alone) || parse(&alone.join(" ")).is_none()
    };
    match fields.iter().enumerate().find(fails) {
        Some((place, text)) => {
            let (field, takes) = FIELDS[place];
            CadenceError::Field { text: (*text).to_owned(), field, takes }
        }
        None => CadenceError::Fields(fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn tick_after_a_fraction_of_a_second_is_a_whole_second_in_utc() {
        let table = [
            (" 0 */15 * * * * ", "2026-03-01T10:07:00Z", 1, "2026-03-01T10:15:00Z"),
            ("0 */15 * * * *", "2026-03-01T10:15:00Z", 1, "2026-03-01T10:30:00Z"),
            ("0 */15 * * * *", "2026-03-01T10:14:59.999Z", 3, "2026-03-01T10:45:00Z"),
            ("0 */15 * * * *", "2026-03-01T10:15:00.5Z", 0, "2026-03-01T10:15:00.5Z"),
            ("30 * * * * *", "2026-12-31T23:59:30Z", 1, "2027-01-01T00:00:30Z"),
            ("* * * * * *", "1969-12-31T23:59:58.5Z", 1, "1969-12-31T23:59:59Z"),
            ("@daily", "2026-03-01T10:07:00Z", 3, "2026-03-04T00:00:00Z"),
            ("0 0 0 29 2 *", "2026-03-01T00:00:00Z", 1, "2028-02-29T00:00:00Z"),
            ("0 0 9 * * MON-FRI", "2026-03-06T09:00:00Z", 1, "2026-03-09T09:00:00Z"),
        ];
        for (text, from, n, expected) in table {
            let cadence = Cadence::parse(text).unwrap();
            assert_eq!(cadence.nth_after(at(from), n), Some(at(expected)), "{text} after {from}");
            assert_eq!(cadence.text(), text.trim(), "white space around an expression is dropped");
        }
    }

    #[test]
    fn expression_that_the_scheduler_rejects_is_refused_with_a_correction() {
        let table = [
            ("", "is empty"),
            ("*/15 * * * *", "has five fields; put the seconds first: `0 */15 * * * *`"),
            ("0 0 0 1 1 * 2026", "has a seventh field, a year"),
            ("* *", "needs six fields: seconds, minutes"),
            ("sometimes", "needs six fields"),
            ("@often", "is no known name; use @hourly"),
            ("60 * * * * *", "has `60` for the seconds, which takes 0-59"),
            ("0 */0 * * * *", "has `*/0` for the minutes"),
            ("0 0 25 * * *", "has `25` for the hours, which takes 0-23"),
            ("0 0 0 32 * *", "has `32` for the day of the month"),
            ("0 0 0 1 Foo *", "has `Foo` for the month, which takes 1-12 or JAN-DEC"),
            ("0 0 0 * * 9", "has `9` for the day of the week"),
            ("0 , * * * *", "has `,` for the minutes"),
            ("0 1,,2 * * * *", "has `1,,2` for the minutes"),
            ("0 0 0 30 2 *", "is never due"),
        ];
        for (text, expected) in table {
            let message = Cadence::parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_has_later_ticks_after_any_second(
            text in "([0-9*/,LW#?+-]{1,4} ){5}[0-9*/,L#+-]{1,4}|\\PC{0,20}",
            second in 0i64..4_000_000_000,
        ) {
            super::super::checks::cadence(&text);
            if let Ok(cadence) = Cadence::parse(&text) {
                prop_assert!(parse(cadence.text()).is_some());
                let from = Timestamp::from_second(second).unwrap();
                let tick = cadence.nth_after(from, 1);
                prop_assert!(tick.is_some_and(|tick| tick > from), "{tick:?}");
            }
        }
    }
}
