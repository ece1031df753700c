//! Decides which kind of request is admitted next.
//!
//! Reads and writes take turns: while both wait, neither is admitted twice in a row. So a push
//! waits for one request of a sweep at most, and many pushes do not stop the mirror. Among the
//! reads, those of passes and of hints take turns, so that hints get at most half of what a sweep
//! could use. Turns that hints did not use are credited to them, because hints arrive in bursts. A
//! request for events goes before both, but not twice in a row: there are few.

/// The kinds of requests that share the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A request of a pass.
    Read,
    /// A push.
    Write,
    /// A request for a customer that an event names.
    Hint,
    /// A request for the event list.
    Event,
}

impl Share {
    /// Returns the word in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Hint => "hint",
            Self::Event => "event",
        }
    }
}

/// MOST_CREDIT controls how many turns in a row hints may take: as many as they left to passes
/// before.
const MOST_CREDIT: u32 = 16;

/// The shares that wait at the gate, and those that were admitted last.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) waiting: [bool; 4],
    last: Share,
    /// The last of the three reading shares.
    last_reader: Share,
    /// The last of passes and hints.
    last_customer_reader: Share,
    /// The turns that hints left to passes, and may still take.
    hint_credit: u32,
}

impl Gate {
    pub(super) fn new() -> Self {
        let last_reader = Share::Hint;
        Self {
            waiting: [false; 4],
            last: Share::Write,
            last_reader,
            last_customer_reader: last_reader,
            hint_credit: 0,
        }
    }

    fn waits(&self, share: Share) -> bool {
        self.waiting[share as usize]
    }

    /// Returns the reading share whose turn it is.
    fn next_reader(&self) -> Share {
        let customers = match (self.waits(Share::Read), self.waits(Share::Hint)) {
            (true, true) if self.last_customer_reader == Share::Read || self.hint_credit > 0 => {
                Some(Share::Hint)
            }
            (true, _) => Some(Share::Read),
            (false, true) => Some(Share::Hint),
            (false, false) => None,
        };
        match customers {
            Some(customers) if !self.waits(Share::Event) || self.last_reader == Share::Event => customers,
            _ => Share::Event,
        }
    }

    /// Whether another share that waits is admitted before this one.
    pub(super) fn is_others_turn(&self, share: Share) -> bool {
        let reads_wait = [Share::Read, Share::Hint, Share::Event].into_iter().any(|share| self.waits(share));
        match share {
            Share::Write => reads_wait && self.last == Share::Write,
            _ => (self.waits(Share::Write) && self.last != Share::Write) || self.next_reader() != share,
        }
    }

    /// Records that a request was admitted.
    pub(super) fn admitted(&mut self, share: Share) {
        self.last = share;
        if share != Share::Write {
            self.last_reader = share;
        }
        match share {
            Share::Read if !self.waits(Share::Hint) => {
                self.hint_credit = (self.hint_credit + 1).min(MOST_CREDIT);
            }
            Share::Hint if self.waits(Share::Read) && self.last_customer_reader == Share::Hint => {
                self.hint_credit = self.hint_credit.saturating_sub(1);
            }
            _ => {}
        }
        if matches!(share, Share::Read | Share::Hint) {
            self.last_customer_reader = share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the order in which the gate admits shares that always wait.
    fn admissions(waiting: &[Share], count: usize) -> Vec<Share> {
        let mut gate = Gate::new();
        waiting.iter().for_each(|share| gate.waiting[*share as usize] = true);
        (0..count)
            .map(|_| {
                let mut next = waiting.iter().copied().filter(|share| !gate.is_others_turn(*share));
                let share = next.next().expect("a share that waits is admitted");
                assert_eq!(next.next(), None, "one share is next");
                gate.admitted(share);
                share
            })
            .collect()
    }

    #[test]
    fn hints_get_half_of_the_reads_and_events_go_first() {
        use Share::{Event, Hint, Read, Write};
        assert_eq!(admissions(&[Read, Hint], 4), [Read, Hint, Read, Hint]);
        assert_eq!(admissions(&[Read, Write, Hint], 6), [Read, Write, Hint, Write, Read, Write]);
        assert_eq!(admissions(&[Read, Hint, Event], 6), [Event, Read, Event, Hint, Event, Read]);
        assert_eq!(admissions(&[Write, Event], 4), [Event, Write, Event, Write]);
        assert_eq!(admissions(&[Write], 2), [Write, Write]);
    }

    #[test]
    fn hints_take_the_turns_that_they_did_not_use_and_then_half_again() {
        let mut gate = Gate::new();
        gate.waiting[Share::Read as usize] = true;
        (0..MOST_CREDIT + 9).for_each(|_| gate.admitted(Share::Read));
        gate.waiting[Share::Hint as usize] = true;
        let mut hints = 0;
        for _ in 0..100 {
            let next = if gate.is_others_turn(Share::Hint) { Share::Read } else { Share::Hint };
            assert!(gate.is_others_turn(if next == Share::Hint { Share::Read } else { Share::Hint }));
            gate.admitted(next);
            hints += u32::from(next == Share::Hint);
        }
        assert_eq!(hints, 50 + MOST_CREDIT / 2, "the credit, and half of the rest");
    }
}
