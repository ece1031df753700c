//! What is known of KOMOJU's list and of its reads.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::store::log::unlisted::ListState;
use komoju_core::time;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_above_the_setting_is_reported_for_seven_days() {
        let seen: Timestamp = "2026-06-01T11:00:00Z".parse().unwrap();
        let lag_exceeded_at = Some(time::written(seen));
        let state = ListState { lag_exceeded_at: lag_exceeded_at.clone(), ..ListState::default() };
        let reported = |now| List::new(state.clone(), now).lag_exceeded_at;
        assert_eq!(reported(seen + LAG_REPORTED_FOR), lag_exceeded_at);
        assert_eq!(reported(seen + LAG_REPORTED_FOR + SignedDuration::from_secs(1)), None);
    }

    #[test]
    fn customers_that_paging_skips_make_no_list_imprecise() {
        let phrases = vec!["last_page is missing".to_owned()];
        for (imprecise, long_unlisted, expected) in [
            (Vec::new(), (None, 0), false),
            (phrases, (None, 0), true),
            (Vec::new(), (Some("a".to_owned()), 1), true),
        ] {
            let state = ListState { imprecise, long_unlisted, verified: 1, ..ListState::default() };
            assert_eq!(List::new(state.clone(), Timestamp::MIN).is_imprecise(), expected, "{state:?}");
        }
    }
}
