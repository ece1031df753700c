//! A copy of the customers that lags: it receives each change after a fixed time.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::state::{Change, Customers};
use crate::clock::moved;

/// A copy of an account's customers that lags by some seconds.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) state: Customers,
    lag: SignedDuration,
    /// The changes that it has not received yet, in order.
    pending: VecDeque<(Timestamp, Change)>,
}

impl Replica {
    /// Creates, updates or drops the replica for this lag. A new replica equals `state`.
    pub(crate) fn keep(slot: &mut Option<Box<Self>>, lag_s: u64, state: &Customers, now: Timestamp) {
        if lag_s == 0 {
            *slot = None;
            return;
        }
        let replica = slot.get_or_insert_with(|| {
            let (state, pending) = (state.clone(), VecDeque::new());
            Box::new(Self { state, lag: SignedDuration::ZERO, pending })
        });
        replica.lag = SignedDuration::from_secs(i64::try_from(lag_s).unwrap_or(i64::MAX));
        replica.catch_up(now);
    }

    /// Queues a change that was made at `now`.
    pub(crate) fn record(&mut self, now: Timestamp, change: Change) {
        self.catch_up(now);
        self.pending.push_back((now, change));
    }

    /// Applies the changes that are older than the lag.
    fn catch_up(&mut self, now: Timestamp) {
        // If the clock was set back, a change must not wait until its own time is reached again.
        if self.pending.back().is_some_and(|(at, _)| *at > now) {
            self.pending.iter_mut().for_each(|(at, _)| *at = now.min(*at));
        }
        let seen = moved(now, -self.lag);
        while self.pending.front().is_some_and(|(at, _)| *at <= seen) {
            if let Some((_, change)) = self.pending.pop_front() {
                self.state.apply(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::population::Population;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + second).unwrap()
    }

    fn put(second: i64) -> Change {
        Change::Put { now: at(second), body: json!({"id": format!("c{second}")}) }
    }

    fn replica(lag_s: u64) -> Box<Replica> {
        let state = Customers::new(Population::new(1, 0, 0, at(0)), 0);
        let mut slot = None;
        Replica::keep(&mut slot, lag_s, &state, at(0));
        slot.unwrap()
    }

    #[test]
    fn pending_changes_are_bounded_by_the_lag_without_reads() {
        let mut replica = replica(10);
        for second in 0..1000 {
            replica.record(at(second), put(second));
            assert!(replica.pending.len() <= 10, "{}", replica.pending.len());
        }
        assert_eq!(replica.state.len(), 990);
    }

    #[test]
    fn clock_set_back_does_not_delay_changes_beyond_the_lag() {
        let mut replica = replica(10);
        replica.record(at(5000), put(5000));
        replica.record(at(0), put(0));
        replica.catch_up(at(9));
        assert_eq!(replica.state.len(), 0);
        replica.catch_up(at(10));
        assert_eq!(replica.state.len(), 2);
    }
}
