//! Owns a copy of the state that lags: each change reaches it a fixed time after it was made.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::state::{Change, State};
use crate::clock::moved;

/// A copy of an account's customers that is some seconds behind.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) state: State,
    lag: SignedDuration,
    /// What has not reached it yet, in order. Each change and each tick drops what is older than the lag.
    pending: VecDeque<(Timestamp, Change)>,
}

impl Replica {
    /// Makes, keeps, moves on or ends a replica, as a lag of so many seconds asks for. A new one is as `state` is now.
    pub(crate) fn keep(slot: &mut Option<Box<Self>>, lag_s: u64, state: &State, now: Timestamp) {
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

    /// A change was made.
    pub(crate) fn record(&mut self, now: Timestamp, change: Change) {
        self.catch_up(now);
        self.pending.push_back((now, change));
    }

    fn catch_up(&mut self, now: Timestamp) {
        // After the clock was set back, a change must not wait for the time at which it was made to come again.
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
        let state = State::new(Population::new(1, 0, 0, at(0)), 0);
        let mut slot = None;
        Replica::keep(&mut slot, lag_s, &state, at(0));
        slot.unwrap()
    }

    #[test]
    fn what_waits_is_bounded_by_the_lag_though_nothing_is_read() {
        let mut replica = replica(10);
        for second in 0..1000 {
            replica.record(at(second), put(second));
            assert!(replica.pending.len() <= 10, "{}", replica.pending.len());
        }
        assert_eq!(replica.state.len(), 990);
    }

    #[test]
    fn a_clock_set_back_does_not_hold_changes_for_longer_than_the_lag() {
        let mut replica = replica(10);
        replica.record(at(5000), put(5000));
        replica.record(at(0), put(0));
        replica.catch_up(at(9));
        assert_eq!(replica.state.len(), 0);
        replica.catch_up(at(10));
        assert_eq!(replica.state.len(), 2);
    }
}
