//! Hints: when a customer that an event names is requested, and what follows from the answer.
//!
//! The first hint of a customer is due at once. Hints that arrive while it is requested, or within
//! [`MERGE_WITHIN`] after, are merged into one more request. A request that shows nothing new is
//! repeated once after `consistency_s`, because the read may lag behind the event.

use std::collections::VecDeque;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::lag::Consistency;

/// MERGE_WITHIN controls for how long after a request further hints of the customer are merged.
pub const MERGE_WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// MOST_OPEN controls how many hints may wait for their first request. If there are more, all of
/// them are dropped and one sweep starts, because it reads a hundred customers a request.
pub const MOST_OPEN: u32 = 500;

/// MOST_SECOND_READS controls how many customers may wait for their second request.
pub const MOST_SECOND_READS: u32 = 500;

/// AGAIN_AFTER controls when a customer without a usable answer is requested again.
pub const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// GIVE_UP_AFTER controls for how long a customer without a usable answer is requested again. After
/// that only sweeps read it.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// PAUSE_FOR controls for how long hints pause where too many customers are not found.
pub const PAUSE_FOR: SignedDuration = SignedDuration::from_mins(15);

/// RECENT controls how many of the newest answers [`MissingRate`] counts.
const RECENT: usize = 50;

/// MOST_GONE_PERCENT controls how many of these answers may find no customer. More pause the hints.
const MOST_GONE_PERCENT: usize = 20;

/// The answer to the request of a hinted customer, compared with the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintAnswer {
    /// A change, which is recorded.
    Recorded,
    /// The state that the mirror has.
    Unchanged,
    /// A state that may be older than the log, and is not applied. At this time a read is certain
    /// to be newer.
    LeftOut(Timestamp),
    /// No customer, and the mirror has none or it is too young for a conclusion.
    NotFound,
    /// Nothing that a second request would improve. The deletion of the customer is held, or left
    /// to a push of our own. Or the mirror has no complete sweep yet. Or the customer is
    /// unreadable.
    NothingMore,
    /// A state that something else replaced in the log while it was requested.
    Overtaken,
    /// Nothing that could be used.
    Unclear,
}

/// What follows for the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintStep {
    /// The hint is closed: nothing more is requested for it.
    Close,
    /// The customer is requested again.
    ReadAt {
        /// The time of the request.
        at: Timestamp,
        /// Whether the request repeats one that showed nothing new.
        is_second: bool,
    },
}

impl fmt::Display for HintStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_str("close the hint"),
            Self::ReadAt { at, .. } => write!(f, "request the customer again at {at:.0}"),
        }
    }
}

/// One request of a hinted customer.
#[derive(Clone, Copy, Debug)]
pub struct HintedRead {
    /// When the first open hint arrived.
    pub first_at: Timestamp,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// Whether it was the second request of an answered hint.
    pub is_second: bool,
    /// Whether another hint of the customer arrived meanwhile.
    pub is_hinted_again: bool,
}

impl HintedRead {
    /// Returns what follows from the answer, which arrived at `now`.
    pub fn next(self, answer: HintAnswer, now: Timestamp, consistency: Consistency) -> HintStep {
        let later = |from: Timestamp, by| from.checked_add(by).unwrap_or(from);
        if self.is_hinted_again {
            return HintStep::ReadAt { at: later(self.requested_at, MERGE_WITHIN), is_second: false };
        }
        match answer {
            HintAnswer::Recorded | HintAnswer::NothingMore => HintStep::Close,
            // The second request of a second request would never end.
            HintAnswer::LeftOut(_) if self.is_second => HintStep::Close,
            HintAnswer::LeftOut(until) => HintStep::ReadAt { at: until.max(now), is_second: true },
            HintAnswer::Unchanged | HintAnswer::NotFound => {
                if self.is_second || consistency.0.is_zero() {
                    HintStep::Close
                } else {
                    HintStep::ReadAt { at: consistency.after(self.requested_at), is_second: true }
                }
            }
            HintAnswer::Overtaken => HintStep::ReadAt { at: now, is_second: self.is_second },
            // A time in the future was written by a clock that was wrong.
            HintAnswer::Unclear if now.duration_since(self.first_at).abs() >= GIVE_UP_AFTER => {
                HintStep::Close
            }
            HintAnswer::Unclear => {
                HintStep::ReadAt { at: later(now, AGAIN_AFTER), is_second: self.is_second }
            }
        }
    }
}

/// Returns when a customer is requested that is hinted at `now` and was last requested at
/// `requested_at`.
pub fn due_at(now: Timestamp, requested_at: Option<Timestamp>) -> Timestamp {
    // A request in the future was written by a clock that was wrong.
    let requested_at = requested_at.filter(|at| *at <= now);
    requested_at.and_then(|at| at.checked_add(MERGE_WITHIN).ok()).map_or(now, |at| at.max(now))
}

/// How many of the newest requests of hinted customers found no customer.
#[derive(Clone, Debug, Default)]
pub struct MissingRate(VecDeque<bool>);

impl MissingRate {
    /// Adds an answer. `is_missing` says that there is no such customer, and that this is not
    /// proven to be a deletion.
    pub fn add(&mut self, is_missing: bool) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(is_missing);
    }

    /// Returns how many of the newest answers found no customer, if these are too many, and then
    /// forgets all answers. Otherwise returns `None`.
    pub fn take_excess(&mut self) -> Option<usize> {
        let missing = self.0.iter().filter(|is_missing| **is_missing).count();
        if self.0.len() < RECENT || missing * 100 <= RECENT * MOST_GONE_PERCENT {
            return None;
        }
        self.0.clear();
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Consistency = Consistency(SignedDuration::from_secs(120));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn read() -> HintedRead {
        HintedRead { first_at: at(1000), requested_at: at(1000), is_second: false, is_hinted_again: false }
    }

    fn again(second: i64, is_second: bool) -> HintStep {
        HintStep::ReadAt { at: at(second), is_second }
    }

    #[test]
    fn each_answer_has_its_next_step() {
        use HintAnswer::{LeftOut, NotFound, NothingMore, Overtaken, Recorded, Unchanged, Unclear};
        let until = at(1060);
        for (answer, first, second) in [
            (Recorded, HintStep::Close, HintStep::Close),
            (LeftOut(until), again(1060, true), HintStep::Close),
            (NothingMore, HintStep::Close, HintStep::Close),
            (Unchanged, again(1120, true), HintStep::Close),
            (NotFound, again(1120, true), HintStep::Close),
            (Overtaken, again(1003, false), again(1003, true)),
            (Unclear, again(1033, false), again(1033, true)),
        ] {
            assert_eq!(read().next(answer, at(1003), LAG), first, "{answer:?}");
            let repeated = HintedRead { is_second: true, ..read() };
            assert_eq!(repeated.next(answer, at(1003), LAG), second, "{answer:?}, second");
        }
    }

    #[test]
    fn read_that_cannot_lag_is_not_repeated() {
        assert_eq!(read().next(HintAnswer::Unchanged, at(1001), Consistency::seconds(0)), HintStep::Close);
    }

    #[test]
    fn hint_during_its_own_request_stays_whatever_the_answer() {
        let read = HintedRead { is_hinted_again: true, is_second: true, ..read() };
        for answer in [HintAnswer::Recorded, HintAnswer::Unchanged, HintAnswer::Unclear] {
            assert_eq!(read.next(answer, at(1001), LAG), again(1002, false), "{answer:?}");
        }
    }

    #[test]
    fn customer_without_a_usable_answer_is_given_up_after_an_hour() {
        let read = HintedRead { requested_at: at(4600), ..read() };
        assert_eq!(read.next(HintAnswer::Unclear, at(4599), LAG), again(4629, false));
        assert_eq!(read.next(HintAnswer::Unclear, at(4600), LAG), HintStep::Close);
    }

    #[test]
    fn first_hint_is_due_at_once_and_later_ones_are_merged_for_two_seconds() {
        assert_eq!(due_at(at(1000), None), at(1000));
        assert_eq!(due_at(at(1000), Some(at(999))), at(1001));
        assert_eq!(due_at(at(1000), Some(at(998))), at(1000));
        assert_eq!(due_at(at(1000), Some(at(5000))), at(1000), "written by a clock that was wrong");
    }

    #[test]
    fn more_than_a_fifth_of_fifty_answers_without_a_customer_is_an_excess() {
        let mut missing_rate = MissingRate::default();
        (0..49).for_each(|_| missing_rate.add(true));
        assert_eq!(missing_rate.take_excess(), None, "fewer than fifty say nothing");
        let mut missing_rate = MissingRate::default();
        (0..40).for_each(|_| missing_rate.add(false));
        (0..10).for_each(|_| missing_rate.add(true));
        assert_eq!(missing_rate.take_excess(), None, "a fifth");
        missing_rate.add(true);
        assert_eq!(missing_rate.take_excess(), Some(11));
        assert_eq!(missing_rate.take_excess(), None, "the answers are forgotten");
    }

    #[test]
    fn step_is_one_phrase() {
        assert_eq!(HintStep::Close.to_string(), "close the hint");
        assert_eq!(again(1060, true).to_string(), "request the customer again at 1970-01-01T00:17:40Z");
    }
}
