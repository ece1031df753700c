//! `--as-of TIME`: a time that the change log covers.

use jiff::Timestamp;

use super::arguments::parse_moment;
use super::exit::UsageError;
use crate::clock::{Clock as _, SystemClock};
use crate::store::Reader;
use crate::store::log::coverage::{LogCoverage, coverage};
use komoju_core::time;

/// The option of the commands that show an earlier state.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct AsOf {
    /// Show the state at this time (RFC 3339, or a date for its beginning in UTC), which the change
    /// log must cover.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    as_of: Option<Timestamp>,
}

impl AsOf {
    /// Returns the time, if one is given. Refuses a time that the change log does not cover,
    /// because an empty result would look like a state.
    pub(super) fn within(self, reader: &Reader) -> anyhow::Result<Option<Timestamp>> {
        let Some(moment) = self.as_of else { return Ok(None) };
        let covered = reader.query(coverage)?;
        match outside(moment, covered, SystemClock::new().now()) {
            Some(why) => Err(UsageError(format!("--as-of {}: {why}", time::written(moment))).into()),
            None => Ok(Some(moment)),
        }
    }
}

/// Returns why the change log does not cover a time, if it does not.
fn outside(moment: Timestamp, covered: Option<LogCoverage>, now: Timestamp) -> Option<String> {
    let Some(LogCoverage { begin, last }) = covered else {
        return Some("nothing is recorded yet; `komoju-sync sync` makes the first entries".to_owned());
    };
    // The log keeps milliseconds.
    if time::written(moment) < time::written(begin) {
        let begin = time::written(begin);
        return Some(format!("the change log begins at {begin} and does not cover the time before"));
    }
    // Entries are later than now if the clock was set back since.
    let end = last.map_or(now, |last| last.max(now));
    (moment > end).then(|| {
        format!(
            "this is in the future: it is {} now; leave --as-of out for the current state",
            time::written(now)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_outside_of_the_change_log_is_refused() {
        let at = |text: &str| time::read(text).unwrap();
        let (begin, now) = (at("2026-02-01T00:00:00Z"), at("2026-03-01T00:00:00Z"));
        let later = at("2026-04-01T00:00:00Z");
        let log = |last| Some(LogCoverage { begin, last });
        for (moment, covered, expected) in [
            ("2026-01-31T23:59:59.999Z", log(Some(begin)), Some("begins at 2026-02-01T00:00:00.000Z")),
            ("2026-02-01T00:00:00Z", log(Some(begin)), None),
            ("2026-03-01T00:00:00Z", log(Some(begin)), None),
            (
                "2026-03-01T00:00:00.001Z",
                log(Some(begin)),
                Some("in the future: it is 2026-03-01T00:00:00.000Z now"),
            ),
            ("2026-03-15T00:00:00Z", log(Some(later)), None),
            ("2026-04-01T00:00:01Z", log(Some(later)), Some("in the future")),
            ("2026-03-01T00:00:00Z", log(None), None),
            ("2026-03-01T00:00:01Z", log(None), Some("in the future")),
            ("2026-02-15T00:00:00Z", None, Some("nothing is recorded yet")),
        ] {
            let why = outside(at(moment), covered, now);
            match expected {
                None => assert_eq!(why, None, "{moment}"),
                Some(part) => {
                    assert!(why.as_ref().is_some_and(|why| why.contains(part)), "{moment}: {why:?}")
                }
            }
        }
    }
}
