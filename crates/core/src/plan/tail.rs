//! The events tail: which page of the event list is read next, and how often the list is read.
//!
//! The list is newest first, as far as is known. It is read from the cursor minus [`OVERLAP`]. So
//! an event that appears late, twice, or out of order is read all the same. Its `total` and
//! `last_page` are not trusted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// OVERLAP controls how far before the cursor the event list is read.
pub const OVERLAP: SignedDuration = SignedDuration::from_secs(300);

/// MOST_PAGES controls how many pages of the event list are read at once. If more pages are new, a
/// sweep is started, because it reads the customers faster.
pub const MOST_PAGES: u64 = 20;

/// QUIET_AFTER controls how long after the last event the list is read at the slower pace.
pub const QUIET_AFTER: Duration = Duration::from_secs(600);

/// NEAR_CURSOR controls how far before the cursor a short reading goes. An event may be stamped
/// some seconds after it happened.
const NEAR_CURSOR: SignedDuration = SignedDuration::from_secs(10);

/// WHOLE_OVERLAP_EVERY controls how often the whole overlap is read while events arrive …
const WHOLE_OVERLAP_EVERY: Duration = Duration::from_secs(60);

/// … and QUIET_OVERLAP_EVERY how often on a quiet list.
const QUIET_OVERLAP_EVERY: Duration = Duration::from_secs(900);

/// How far the overlap is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// To the first page with a known event, or that is older than the cursor.
    FirstKnownEvent,
    /// To its end: an event may have appeared late behind known ones.
    WholeOverlap,
}

/// What one page of the event list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsPageFacts {
    /// How many events, of any type.
    pub events: u64,
    /// How many a full page holds, as the answer says; `None` where it does not.
    pub per_page: Option<u64>,
    /// How many of them were not read before.
    pub new: u64,
    /// How many of them were read before.
    pub known: u64,
    /// The newest time on the page; `None` where no time can be read.
    pub newest: Option<Timestamp>,
}

impl EventsPageFacts {
    /// Returns the facts of the same page, read again.
    fn repeated(self) -> Self {
        Self { new: 0, known: self.known + self.new, ..self }
    }
}

/// What the tail does after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailStep {
    /// Read this page.
    Read(u64),
    /// All new events are read.
    Done,
    /// More events are new than are read at once: a sweep must read the customers.
    Gap,
}

/// One reading of the event list.
#[derive(Clone, Copy, Debug)]
pub struct TailWalk {
    cursor: Timestamp,
    per_page: u32,
    depth: Depth,
    page: u64,
    last: Option<EventsPageFacts>,
}

impl TailWalk {
    /// A reading of the events since the cursor and the overlap before it, `per_page` at a time.
    /// Page 1 is read first.
    pub fn new(cursor: Timestamp, per_page: u32, depth: Depth) -> Self {
        Self { cursor, per_page, depth, page: 1, last: None }
    }

    /// Returns the earliest time that is requested.
    pub fn from(&self) -> Timestamp {
        self.cursor.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN)
    }

    /// Returns what follows after the page that was read last.
    pub fn next(&mut self, facts: EventsPageFacts) -> TailStep {
        let full = facts.per_page.map_or(self.per_page.into(), |said| said.min(self.per_page.into()));
        let is_short = facts.events < full.max(1);
        let oldest_read = match self.depth {
            Depth::FirstKnownEvent => self.cursor.checked_sub(NEAR_CURSOR).unwrap_or(Timestamp::MIN),
            Depth::WholeOverlap => self.from(),
        };
        let is_old = facts.newest.is_some_and(|newest| newest < oldest_read);
        let is_known = self.depth == Depth::FirstKnownEvent && facts.known > 0;
        // A server that ignores `page` shows the first page each time.
        let is_repeated = facts.new == 0 && self.last.is_some_and(|last| last.repeated() == facts);
        if is_short || is_old || is_known || is_repeated {
            return TailStep::Done;
        }
        self.last = Some(facts);
        if self.page >= MOST_PAGES {
            // Only new events are a gap.
            return if facts.new == 0 { TailStep::Done } else { TailStep::Gap };
        }
        self.page += 1;
        TailStep::Read(self.page)
    }
}

/// Returns how long to wait before the event list is read again. `quiet_for` is how long ago the
/// last new event was read.
pub fn wait(quiet_for: Duration, fastest: Duration, slowest: Duration) -> Duration {
    if quiet_for < QUIET_AFTER { fastest } else { slowest.max(fastest) }
}

/// Returns the cursor after all events up to `newest` were read. It does not move back, and is
/// never after the server's time: there it would hide all events. It does not move without events:
/// all of them may be late.
pub fn cursor(before: Timestamp, newest: Option<Timestamp>, server_now: Timestamp) -> Timestamp {
    newest.map_or(before, |newest| newest.max(before)).min(server_now)
}

/// Returns how often the whole overlap is read. `quiet_for` is how long ago the last new event was
/// read: a quiet list is read with one request most of the time.
pub fn whole_overlap_every(quiet_for: Duration) -> Duration {
    if quiet_for < QUIET_AFTER { WHOLE_OVERLAP_EVERY } else { QUIET_OVERLAP_EVERY }
}

/// Returns the cursor from which events are read. One in the future was written while a clock was
/// ahead.
pub fn start(cursor: Timestamp, server_now: Timestamp) -> Timestamp {
    cursor.min(server_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn page(events: u64, new: u64, newest: i64) -> EventsPageFacts {
        let known = events - new;
        EventsPageFacts { events, per_page: Some(100), new, known, newest: Some(at(newest)) }
    }

    fn walk(depth: Depth) -> TailWalk {
        TailWalk::new(at(1300), 100, depth)
    }

    #[test]
    fn short_empty_or_old_page_ends_the_reading() {
        for depth in [Depth::FirstKnownEvent, Depth::WholeOverlap] {
            assert_eq!(walk(depth).next(page(99, 99, 2000)), TailStep::Done, "short");
            assert_eq!(walk(depth).next(page(0, 0, 2000)), TailStep::Done, "empty");
            assert_eq!(walk(depth).next(page(100, 100, 999)), TailStep::Done, "older than the overlap");
            assert_eq!(walk(depth).next(page(100, 100, 1300)), TailStep::Read(2));
        }
        // Events of other types are neither new nor known.
        let others = EventsPageFacts { known: 0, ..page(100, 0, 1289) };
        assert_eq!(walk(Depth::FirstKnownEvent).next(others), TailStep::Done, "before the cursor");
        assert_eq!(walk(Depth::WholeOverlap).next(others), TailStep::Read(2));
    }

    #[test]
    fn page_that_repeats_the_last_one_ends_the_reading() {
        let mut walk = walk(Depth::WholeOverlap);
        assert_eq!(walk.next(page(100, 100, 2000)), TailStep::Read(2));
        assert_eq!(walk.next(page(100, 0, 2000)), TailStep::Done);
    }

    #[test]
    fn page_is_full_by_the_smaller_of_what_was_asked_and_what_the_answer_says() {
        let facts = |said| EventsPageFacts { per_page: said, ..page(20, 20, 2000) };
        assert_eq!(
            walk(Depth::WholeOverlap).next(facts(Some(20))),
            TailStep::Read(2),
            "a server with smaller pages"
        );
        assert_eq!(walk(Depth::WholeOverlap).next(facts(Some(1000))), TailStep::Done);
        assert_eq!(walk(Depth::WholeOverlap).next(facts(None)), TailStep::Done);
        let empty = EventsPageFacts { per_page: Some(0), newest: None, ..page(0, 0, 0) };
        assert_eq!(walk(Depth::WholeOverlap).next(empty), TailStep::Done, "an answer that says 0");
    }

    #[test]
    fn known_event_ends_only_the_short_reading() {
        assert_eq!(walk(Depth::FirstKnownEvent).next(page(100, 99, 2000)), TailStep::Done);
        assert_eq!(walk(Depth::FirstKnownEvent).next(page(100, 100, 2000)), TailStep::Read(2));
        assert_eq!(walk(Depth::WholeOverlap).next(page(100, 0, 2000)), TailStep::Read(2));
    }

    #[test]
    fn twentieth_page_with_new_events_is_a_gap() {
        for (depth, new) in [(Depth::FirstKnownEvent, 100), (Depth::WholeOverlap, 1)] {
            let mut walk = walk(depth);
            for n in 2..=MOST_PAGES {
                assert_eq!(walk.next(page(100, new, 2000)), TailStep::Read(n));
            }
            assert_eq!(walk.next(page(100, new, 2000)), TailStep::Gap);
        }
    }

    #[test]
    fn twentieth_page_of_known_events_is_no_gap() {
        let mut walk = walk(Depth::WholeOverlap);
        for n in 2..=MOST_PAGES {
            assert_eq!(walk.next(page(100, 0, 2000 - n as i64)), TailStep::Read(n));
        }
        assert_eq!(walk.next(page(100, 0, 1500)), TailStep::Done);
    }

    #[test]
    fn list_is_read_slowly_after_ten_quiet_minutes() {
        let (fastest, slowest) = (Duration::from_secs(10), Duration::from_secs(60));
        let waits =
            [0, 599, 600, 86_400].map(|quiet| wait(Duration::from_secs(quiet), fastest, slowest).as_secs());
        assert_eq!(waits, [10, 10, 60, 60]);
        assert_eq!(wait(QUIET_AFTER, slowest, fastest), slowest, "never faster than the fastest");
    }

    #[test]
    fn whole_overlap_is_read_each_minute_and_of_a_quiet_list_each_quarter_of_an_hour() {
        let every = [0, 599, 600].map(|quiet| whole_overlap_every(Duration::from_secs(quiet)).as_secs());
        assert_eq!(every, [60, 60, 900]);
    }

    #[test]
    fn cursor_moves_forward_and_not_past_the_servers_time() {
        assert_eq!(cursor(at(100), None, at(500)), at(100));
        assert_eq!(cursor(at(100), Some(at(300)), at(500)), at(300));
        assert_eq!(cursor(at(100), Some(at(50)), at(500)), at(100));
        assert_eq!(cursor(at(100), Some(at(9000)), at(500)), at(500));
        assert_eq!(cursor(at(9000), None, at(500)), at(500), "written while a clock was ahead");
        assert_eq!(cursor(at(100), Some(at(200)), at(5000)), at(200), "all events may be late");
        assert_eq!((start(at(9000), at(500)), start(at(100), at(500))), (at(500), at(100)));
    }
}
