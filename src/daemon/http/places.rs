//! The places for connections: how many are served at once, and which one makes room for a newer one.
//!
//! A client that is slow, or opens many connections and says nothing, must not keep others from an answer. So a new connection
//! is taken even where all places are: the oldest one that has had [`SERVED_FOR`] is closed for it. An answer takes milliseconds, so
//! only those are closed that do not ask or do not read.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// MOST_CONNECTIONS controls how many connections are served at once. A scrape takes one for milliseconds.
const MOST_CONNECTIONS: usize = 32;

/// SERVED_FOR controls for how long a connection keeps its place in any case.
const SERVED_FOR: Duration = Duration::from_millis(100);

/// The connections that are open, oldest first.
#[derive(Debug, Default)]
pub(super) struct Places {
    open: BTreeMap<u64, Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    since: Duration,
    closed: CancellationToken,
}

impl Places {
    /// How long until a place can be given; zero: at once.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        match self.open.first_key_value() {
            Some((_, oldest)) if self.open.len() >= MOST_CONNECTIONS => {
                (oldest.since + SERVED_FOR).saturating_sub(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// Gives a place, closing the oldest connection where there is none: its number, and what closes it.
    pub(super) fn take(&mut self, now: Duration) -> (u64, CancellationToken) {
        if self.open.len() >= MOST_CONNECTIONS
            && let Some((_, oldest)) = self.open.pop_first()
        {
            oldest.closed.cancel();
        }
        let (number, closed) = (self.next, CancellationToken::new());
        self.next += 1;
        self.open.insert(number, Place { since: now, closed: closed.clone() });
        (number, closed)
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, number: u64) {
        self.open.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn oldest_connection_makes_room_once_it_was_served_for_a_moment() {
        let mut places = Places::default();
        let taken: Vec<_> = (0..32).map(|ms| places.take(at(ms))).collect();
        assert_eq!(places.wait(at(40)), at(60), "the oldest has had 40 ms");
        assert_eq!(places.wait(at(100)), Duration::ZERO);
        places.take(at(100));
        assert!(taken[0].1.is_cancelled() && !taken[1].1.is_cancelled());
        assert_eq!(places.wait(at(100)), at(1), "the next one is a millisecond younger");
        places.leave(taken[5].0);
        assert_eq!(places.wait(at(100)), Duration::ZERO, "a place is free");
        places.take(at(100));
        assert!(!taken[1].1.is_cancelled());
    }
}
