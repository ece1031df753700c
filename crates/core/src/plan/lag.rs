//! Decides whether a read may be older than the change log.
//!
//! KOMOJU's reads may come from a replica or a cache that lags behind its writes by up to
//! `consistency_s`. So a read that shows a state which the log replaced within that time is not
//! applied. The customer is requested again by its id when the time has passed.

use jiff::{SignedDuration, Timestamp};

use crate::plan::comparison;
use crate::{ChangeKind, Customer, MirrorRow, Origin};

pub use crate::lag::{Consistency, DeferredRead, RecentChange};

/// A read that differs from the mirror.
#[derive(Clone, Copy, Debug)]
pub struct DifferingRead<'a> {
    /// What the read shows.
    pub shown: &'a Customer,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// Why it was requested.
    pub reason: ReadReason,
}

/// Why a customer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadReason {
    /// A pass reads it.
    Pass,
    /// The same pass has read it before.
    SamePass,
    /// An earlier read of it was deferred, at least `consistency_s` ago.
    Recheck,
}

/// LONGEST_REQUEST controls which entries count as written by a wrong clock: those dated later than
/// this after a request. No request takes so long.
const LONGEST_REQUEST: SignedDuration = SignedDuration::from_hours(1);

/// Checks a read that differs from the mirror. `history` is the customer's log, newest entry first,
/// at least as far back as `consistency` reaches. Returns `None` if the read may be applied.
pub fn check(
    read: DifferingRead<'_>,
    history: &[RecentChange],
    consistency: Consistency,
) -> Option<DeferredRead> {
    // The age of such an entry is unknown, but a recheck happens at least `consistency_s` after it.
    let is_old = |at: Timestamp| {
        read.reason == ReadReason::Recheck && at.duration_since(read.requested_at) > LONGEST_REQUEST
    };
    let recent = history
        .iter()
        .filter(|entry| consistency.may_be_behind(entry.at, read.requested_at) && !is_old(entry.at));
    let mut deferred: Option<DeferredRead> = None;
    let mut note = |at: Timestamp, is_replaced: bool, lag: Option<SignedDuration>| {
        let until = consistency.after(at);
        let known = deferred.unwrap_or(DeferredRead { until, is_replaced, lag });
        deferred = Some(DeferredRead {
            until: known.until.max(until),
            is_replaced: known.is_replaced || is_replaced,
            lag: known.lag.max(lag),
        });
    };
    for entry in recent {
        if shows(read.shown, entry.replaced.as_deref()) {
            let lag = read.requested_at.duration_since(entry.at);
            note(entry.at, true, (!lag.is_negative()).then_some(lag));
        } else if entry.origin == Origin::Intent || entry.kind == ChangeKind::Deleted {
            note(entry.at, false, None);
        }
    }
    // The same pass has already read another state. One of the two is old, but it is not known
    // which.
    if read.reason == ReadReason::SamePass {
        note(read.requested_at, false, None);
    }
    deferred
}

/// Whether a read shows this state. A null `source` may only be hidden, so the read is compared in
/// the same way as with the mirror.
fn shows(shown: &Customer, body: Option<&str>) -> bool {
    let Some(body) = body else { return false };
    let state = MirrorRow {
        body: Some(body.to_owned()),
        first_seen_at: String::new(),
        changed_at: String::new(),
        deleted_at: None,
        live_seq: 0,
        seq: 0,
    };
    comparison::compare(shown.clone(), Some(&state)).change.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const C: Consistency = Consistency(SignedDuration::from_secs(120));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn customer(email: &str) -> Customer {
        Customer::from_value(json!({"id": "c", "email": email, "source": {"brand": "visa"}})).unwrap()
    }

    fn entry(kind: ChangeKind, origin: Origin, second: i64, replaced: Option<&str>) -> RecentChange {
        let replaced = replaced.map(|email| customer(email).body().to_owned());
        RecentChange { kind, origin, at: at(second), replaced }
    }

    fn checked(email: &str, second: i64, history: &[RecentChange]) -> Option<DeferredRead> {
        check(
            DifferingRead { shown: &customer(email), requested_at: at(second), reason: ReadReason::Pass },
            history,
            C,
        )
    }

    #[test]
    fn read_of_a_replaced_state_is_deferred_until_no_read_can_be_so_old() {
        let history = [
            entry(ChangeKind::Updated, Origin::Sweep, 100, Some("two")),
            entry(ChangeKind::Updated, Origin::Sweep, 50, Some("one")),
            entry(ChangeKind::Created, Origin::Sweep, 0, None),
        ];
        let deferred = |until: i64, lag: i64| {
            Some(DeferredRead {
                until: at(until),
                is_replaced: true,
                lag: Some(SignedDuration::from_secs(lag)),
            })
        };
        assert_eq!(checked("two", 104, &history), deferred(220, 4));
        assert_eq!(checked("one", 104, &history), deferred(170, 54));
        assert_eq!(checked("two", 220, &history), deferred(220, 120));
        assert_eq!(checked("two", 221, &history), None, "the time has passed");
        assert_eq!(checked("three", 104, &history), None, "a new state");
        let asked_before = checked("two", 99, &history).unwrap();
        assert_eq!(asked_before, DeferredRead { until: at(220), is_replaced: true, lag: None });
    }

    #[test]
    fn replaced_state_is_recognized_behind_a_newer_push() {
        let history = [
            entry(ChangeKind::Updated, Origin::Intent, 100, Some("two")),
            entry(ChangeKind::Updated, Origin::Sweep, 50, Some("one")),
        ];
        let deferred = checked("one", 104, &history).unwrap();
        assert_eq!((deferred.until, deferred.is_replaced), (at(220), true));
    }

    #[test]
    fn old_state_with_a_hidden_source_is_still_deferred() {
        let history = [entry(ChangeKind::Updated, Origin::Sweep, 100, Some("two"))];
        let hidden = customer("two").with("source", Some(Value::Null));
        let read = DifferingRead { shown: &hidden, requested_at: at(101), reason: ReadReason::Pass };
        assert!(check(read, &history, C).is_some());
    }

    #[test]
    fn read_shortly_after_our_push_or_a_deletion_is_deferred() {
        for history in [
            [entry(ChangeKind::Updated, Origin::Intent, 100, Some("two"))],
            [entry(ChangeKind::Created, Origin::Intent, 100, None)],
            [entry(ChangeKind::Deleted, Origin::Sweep, 100, Some("two"))],
        ] {
            assert_eq!(
                checked("new", 219, &history),
                Some(DeferredRead { until: at(220), is_replaced: false, lag: None }),
                "{history:?}"
            );
            assert_eq!(checked("new", 221, &history), None);
        }
    }

    #[test]
    fn second_different_read_of_one_pass_is_deferred_whatever_the_setting() {
        for consistency in [C, Consistency::default()] {
            let shown = customer("new");
            let read = |reason| DifferingRead { shown: &shown, requested_at: at(101), reason };
            assert_eq!(
                check(read(ReadReason::SamePass), &[], consistency),
                Some(DeferredRead { until: consistency.after(at(101)), is_replaced: false, lag: None })
            );
            assert_eq!(check(read(ReadReason::Pass), &[], consistency), None);
        }
    }

    #[test]
    fn entry_dated_by_a_wrong_clock_defers_a_read_until_its_recheck() {
        let a_year = 365 * 24 * 3600;
        let history = [
            entry(ChangeKind::Updated, Origin::Intent, a_year, Some("two")),
            entry(ChangeKind::Updated, Origin::Sweep, 90, Some("one")),
        ];
        let on = |reason, email: &str| {
            check(DifferingRead { shown: &customer(email), requested_at: at(100), reason }, &history, C)
        };
        assert_eq!(on(ReadReason::Pass, "two").map(|deferred| deferred.until), Some(at(a_year + 120)));
        assert_eq!(on(ReadReason::Recheck, "two"), None);
        assert_eq!(on(ReadReason::Recheck, "one").map(|deferred| deferred.until), Some(at(210)));
    }

    #[test]
    fn reads_that_never_lag_are_applied() {
        let history = [entry(ChangeKind::Updated, Origin::Intent, 100, Some("two"))];
        let read = DifferingRead { shown: &customer("two"), requested_at: at(100), reason: ReadReason::Pass };
        assert_eq!(check(read, &history, Consistency::default()), None);
    }
}
