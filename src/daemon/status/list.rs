//! What is known of KOMOJU's list and of its reads, and the sentences that say so.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::store::log::unlisted::ListState;
use komoju_core::time;
use komoju_core::words::{count, duration};

/// For how long a lag above `consistency_s` is reported: an operator who has raised the setting must see that it helped.
const LAG_REPORTED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is known of KOMOJU's list and of its reads: `list` in `status --json` (docs/status.md).
#[derive(Clone, Debug, Default, Serialize)]
pub struct List {
    /// What was imprecise about the list in the last sweep that read it to its end, a phrase each.
    pub imprecise: Vec<String>,
    /// Whether page 2 repeated page 1 in that sweep: the API may ignore `page`.
    pub ignores_page: bool,
    /// How many live customers are not listed, and answer when they are requested by themselves.
    pub verified: u64,
    /// When the last of them answered.
    pub verified_at: Option<String>,
    /// How many of them three sweeps in a row did not list.
    pub long_unlisted: u64,
    /// One of these.
    pub long_unlisted_first: Option<String>,
    /// The longest lag of a read that was measured, in seconds.
    pub longest_lag_s: Option<f64>,
    /// When a read last showed a state that was older than `inbound.consistency_s`, within the last seven days.
    pub lag_exceeded_at: Option<String>,
}

impl List {
    /// The state as of `now`.
    pub fn new(state: ListState, now: Timestamp) -> Self {
        let ListState { imprecise, ignores_page, verified, verified_at, long_unlisted, .. } = state;
        let (long_unlisted_first, long_unlisted) = long_unlisted;
        let is_recent =
            |at: &String| time::read(at).is_some_and(|at| now.duration_since(at) <= LAG_REPORTED_FOR);
        Self {
            imprecise,
            ignores_page,
            verified,
            verified_at,
            long_unlisted,
            long_unlisted_first,
            longest_lag_s: state.longest_lag.map(|lag| lag.as_secs_f64()),
            lag_exceeded_at: state.lag_exceeded_at.filter(is_recent),
        }
    }

    /// Whether the list is imprecise. Single customers that are not listed for a sweep or two are not enough: paging skips them when
    /// an exact list moves while it is read.
    pub fn is_imprecise(&self) -> bool {
        !self.imprecise.is_empty() || self.long_unlisted > 0
    }

    /// In what way the list is imprecise, and how many customers it leaves out, as a sentence without its end; `None` for an exact
    /// list.
    pub fn imprecision(&self, now: Timestamp) -> Option<String> {
        let mut parts = Vec::new();
        if !self.imprecise.is_empty() {
            parts.push(self.imprecise.join(", "));
        }
        if self.verified > 0 {
            let ago = self.verified_at.as_deref().and_then(time::read).map(|at| now.duration_since(at));
            let ago = ago.map(|ago| duration(ago.as_secs())).unwrap_or_default();
            parts.push(match self.verified {
                1 => format!("1 customer is verified by a single request, {ago} ago"),
                n => format!("{} are verified by single requests, the last {ago} ago", count(n, "customer")),
            });
        }
        let prefix = if self.is_imprecise() { "imprecise: " } else { "" };
        (!parts.is_empty()).then(|| format!("{prefix}{}", parts.join("; ")))
    }

    /// The customers that answer and that the list leaves out for long, as a sentence without its end.
    pub fn long_unlisted_sentence(&self) -> Option<String> {
        let first = self.long_unlisted_first.as_deref()?;
        Some(match self.long_unlisted {
            0 | 1 => format!("1 customer answers and was not listed for three sweeps: {first}"),
            n => format!(
                "{} answer and were not listed for three sweeps: {first} (and {} more)",
                count(n, "customer"),
                n - 1
            ),
        })
    }

    /// That reads lagged, as a sentence without its end.
    pub fn lag_sentence(&self) -> Option<String> {
        self.longest_lag_s.map(|lag| format!("reads lagged by {lag:.1} s or more"))
    }

    /// That reads may lag longer than this setting, as a sentence without its end.
    pub fn lag_exceeded_sentence(&self, consistency_s: u32) -> Option<String> {
        let at = self.lag_exceeded_at.as_deref()?;
        Some(format!(
            "reads may lag longer than inbound.consistency_s ({consistency_s} s), last seen at {at}: raise it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_list_has_no_sentence_and_an_imprecise_one_names_what_differs() {
        let now: Timestamp = "2026-06-01T12:12:00Z".parse().unwrap();
        let exact = List::new(ListState::default(), now);
        assert_eq!(
            [
                exact.imprecision(now),
                exact.long_unlisted_sentence(),
                exact.lag_sentence(),
                exact.lag_exceeded_sentence(120)
            ],
            [const { None }; 4]
        );
        let state = ListState {
            imprecise: vec!["total says 253, 250 are listed".to_owned(), "last_page is missing".to_owned()],
            verified: 41,
            verified_at: Some("2026-06-01T12:00:00.000Z".to_owned()),
            long_unlisted: (Some("a".to_owned()), 3),
            longest_lag: Some(SignedDuration::from_millis(4210)),
            lag_exceeded_at: Some("2026-06-01T11:00:00.000Z".to_owned()),
            ..ListState::default()
        };
        let list = List::new(state.clone(), now);
        assert_eq!(
            list.imprecision(now).unwrap(),
            "imprecise: total says 253, 250 are listed, last_page is missing; 41 customers are verified by single \
             requests, the last 12 min ago"
        );
        assert_eq!(
            list.long_unlisted_sentence().unwrap(),
            "3 customers answer and were not listed for three sweeps: a (and 2 more)"
        );
        assert_eq!(list.lag_sentence().unwrap(), "reads lagged by 4.2 s or more");
        assert_eq!(
            list.lag_exceeded_sentence(120).unwrap(),
            "reads may lag longer than inbound.consistency_s (120 s), last seen at 2026-06-01T11:00:00.000Z: raise it"
        );
        let moved =
            ListState { imprecise: Vec::new(), long_unlisted: (None, 0), verified: 1, ..state.clone() };
        let moved = List::new(moved, now);
        assert_eq!(
            (moved.is_imprecise(), moved.imprecision(now).unwrap().as_str()),
            (false, "1 customer is verified by a single request, 12 min ago")
        );
        let later = now + SignedDuration::from_hours(8 * 24);
        assert_eq!(List::new(state, later).lag_exceeded_sentence(120), None, "the report ends");
    }
}
