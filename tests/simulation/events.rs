//! The event list with its faults, and the checks after it is followed. Events are lost, repeated,
//! late or out of order, or name another customer or none.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use komoju_core::{CustomerId, Event, EventPage, PageQuery};
use komoju_sync::clock::Clock as _;
use komoju_sync::remote::{ApiCall, CustomerAnswer, EventRemote, RemoteError};
use komoju_sync::store::log::holds;
use komoju_sync::store::read::Record;
use komoju_sync::tasks::events::TailSettings;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::log;
use crate::ops::Op;
use crate::passes::{deleted, needing_operator, states};
use crate::remote::Fake;
use crate::server::{Server, text};
use crate::world::{Checked, MAX_DELETE_COUNT, MAX_DELETE_PERCENT, Process, World, must};

/// The delay of a late event.
const LATE: Duration = Duration::from_secs(20 * 60);

/// The distance between the time of a misplaced event and its position in the list.
const MISPLACED: Duration = Duration::from_secs(200);

/// The most batches of hinted customers in one op.
const MOST_BATCHES: usize = 100;

/// The time for which a hinted deletion counts for the limit, where no sweep is whole.
const COUNTED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The faults of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTrouble {
    Lost,
    Twice,
    Late,
    Misplaced,
    OtherCustomer,
    NoCustomer,
}

impl EventTrouble {
    pub const ALL: [Self; 6] =
        [Self::Lost, Self::Twice, Self::Late, Self::Misplaced, Self::OtherCustomer, Self::NoCustomer];

    pub fn any(dice: &mut StdRng) -> Self {
        *Self::ALL.choose(dice).unwrap()
    }
}

/// An event and its position in the list of its account.
pub struct ListedEvent {
    event: Event,
    account: usize,
    /// The list is sorted by this time. It differs from the event's time if the event is misplaced.
    sorted_at: Timestamp,
    appears_at: Timestamp,
}

/// The deletions that events recorded, and the sweeps that they depend on.
#[derive(Default)]
pub struct HintedDeletions {
    last_whole_sweep: Option<i64>,
    /// Whether a sweep was whole since the account was bound.
    is_swept: bool,
    /// The time of each deletion since the last whole sweep, by the steady clock.
    deleted_at: Vec<Duration>,
}

impl HintedDeletions {
    /// Restarts the count for the limit.
    pub fn forget(&mut self) {
        self.deleted_at.clear();
    }
}

pub fn tail_settings(per_page: u32) -> TailSettings {
    TailSettings { per_page, fastest: Duration::from_secs(10), slowest: Duration::from_secs(60) }
}

impl Server {
    /// Adds an event about a customer to the list.
    pub fn emit(&mut self, customer: &str) {
        let trouble = self.event_trouble.take().map(|(trouble, left)| {
            self.event_trouble = (left > 1).then_some((trouble, left - 1));
            self.count(format!("EventTrouble::{trouble:?}"));
            trouble
        });
        let named = match trouble {
            Some(EventTrouble::Lost) => return,
            Some(EventTrouble::NoCustomer) => None,
            Some(EventTrouble::OtherCustomer) => {
                Some(self.lists[0].first().map_or("none", |other| other["id"].as_str().unwrap()))
            }
            _ => Some(customer),
        };
        let now = self.now();
        let event = Event {
            id: format!("e{}", self.events.len()),
            customer: named.and_then(|id| CustomerId::new(id).ok()),
            // KOMOJU writes whole seconds.
            created_at: Some(Timestamp::from_second(now.as_second()).unwrap()),
        };
        let misplaced = if trouble == Some(EventTrouble::Misplaced) { MISPLACED } else { Duration::ZERO };
        let late = if trouble == Some(EventTrouble::Late) { LATE } else { Duration::ZERO };
        for _ in 0..1 + usize::from(trouble == Some(EventTrouble::Twice)) {
            self.events.push(ListedEvent {
                event: event.clone(),
                account: usize::from(customer.starts_with("c1")),
                sorted_at: now.checked_sub(misplaced).unwrap(),
                appears_at: now.checked_add(late).unwrap(),
            });
        }
    }

    /// Returns a page of the event list, newest first.
    fn event_page(&self, account: usize, query: PageQuery) -> EventPage {
        let now = self.now();
        let mut listed: Vec<&ListedEvent> = self
            .events
            .iter()
            .rev()
            .filter(|listed| listed.account == account && listed.appears_at <= now)
            .filter(|listed| query.created_from.is_none_or(|from| listed.event.created_at >= Some(from)))
            .collect();
        listed.sort_by_key(|listed| std::cmp::Reverse(listed.sorted_at));
        let skip = (query.page - 1) * u64::from(query.per_page);
        let page = listed.into_iter().skip(skip as usize).take(query.per_page as usize);
        let events: Vec<Event> = page.map(|listed| listed.event.clone()).collect();
        let newest = events.iter().filter_map(|event| event.created_at).max();
        EventPage { per_page: Some(query.per_page.into()), events, others: 0, newest }
    }
}

impl EventRemote for Fake {
    async fn events(&self, query: PageQuery) -> Result<EventPage, RemoteError> {
        tokio::task::yield_now().await;
        let (server, _) = self.arrive(ApiCall::Events { page: query.page })?;
        Ok(server.event_page(self.account, query))
    }

    async fn show_hinted(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        tokio::task::yield_now().await;
        self.shown(id)
    }
}

impl Process {
    async fn read_events(&self) {
        let mut memory = *self.tail_memory.lock().unwrap();
        self.tail.read(&mut memory).await.unwrap();
        *self.tail_memory.lock().unwrap() = memory;
    }

    /// Requests the hinted customers until no hint is due.
    async fn read_hinted(&self) {
        for _ in 0..MOST_BATCHES {
            if self.pull.read_hinted().await.unwrap().wait != Some(Duration::ZERO) {
                return;
            }
        }
        panic!("hints are still due after {MOST_BATCHES} batches");
    }

    /// Reads the event list and requests the customers that it names.
    pub async fn follow_events(&self) {
        self.read_events().await;
        self.read_hinted().await;
    }
}

/// Returns the customers that these changes record as deleted because of an event.
pub fn deleted_by_events(changes: &[Record]) -> BTreeSet<String> {
    let by_events = changes.iter().filter(|change| change.text("origin") == Some("event"));
    let deletions = by_events.filter(|change| change.text("kind") == Some("deleted"));
    deletions.map(|change| change.text("customer_id").unwrap().to_owned()).collect()
}

impl World<'_> {
    /// Reads the event list. `check` asserts that this records no change.
    pub fn read_events(&mut self) -> Checked {
        if self.run(async |process| process.read_events().await).is_none() {
            self.count("Crash with events");
        }
        Ok(())
    }

    pub fn read_hinted(&mut self) -> Checked {
        let head = self.log.head.seq;
        let live_before = self.log.live();
        // The operator may have decided since the last pass, so read what waits now.
        let (holds_all, rejected, waited) = self.look(|reader| {
            (holds::holds_all(reader).unwrap(), states(reader, "rejected"), needing_operator(reader))
        });
        if self.run(async |process| process.read_hinted().await).is_none() {
            self.count("Crash with events");
        }
        let changes = self.look(|reader| log::changes_after(reader, head));
        let (gone, there) = (deleted(&changes, false), self.there());
        must!(gone == deleted_by_events(&changes), "a hint recorded a deletion with another origin");
        // Invariant 4: a hinted deletion needs the evidence of a sweep, and obeys its limit and its
        // holds.
        let alive: Vec<_> = gone.intersection(&there).collect();
        must!(alive.is_empty(), "recorded as deleted by an event, and live: {alive:?}");
        must!(!holds_all || gone.is_empty(), "an event deleted {gone:?} after a restore");
        must!(gone.is_disjoint(&rejected), "an event recorded a rejected deletion");
        must!(gone.is_disjoint(&waited), "an event recorded a deletion that waits for the operator");
        let came =
            changes.iter().filter(|change| matches!(change.text("kind"), Some("created" | "restored")));
        let live = (live_before.len() + came.count()) as u64;
        let limit = MAX_DELETE_COUNT.max(live * u64::from(MAX_DELETE_PERCENT) / 100);
        // A live customer leaves its hold when it answers, and the operator may decide meanwhile.
        // All other holds are kept.
        self.needs_operator = self.look(needing_operator);
        let decided = self.look(|reader| &states(reader, "approved") | &states(reader, "rejected"));
        let mut released = waited.difference(&self.needs_operator);
        let released = released.find(|id| !there.contains(*id) && !decided.contains(*id));
        must!(released.is_none(), "an event ended the hold of {released:?}");
        // Invariant 8: a key of another account changes nothing.
        let (bound, _) = self.bound();
        must!(changes.is_empty() || bound == Some(self.account), "followed events of another account");
        self.check_hinted(&changes, limit)
    }

    fn last_whole_sweep(&self) -> Option<i64> {
        let sql = "SELECT max(id) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held')";
        self.look(|reader| reader.query_row(sql, [], |row| row.get(0)).unwrap())
    }

    /// Records after each op whether a sweep was whole, and whether another account is bound.
    pub fn note_whole_sweep(&mut self, op: &Op, is_rebound: bool) {
        let last = self.last_whole_sweep();
        if last != self.hinted.last_whole_sweep {
            self.hinted.last_whole_sweep = last;
            self.hinted.is_swept = last.is_some();
            self.hinted.forget();
        } else if is_rebound {
            self.hinted.is_swept = false;
        }
        if matches!(op, Op::Restore(_)) {
            self.hinted.forget();
        }
    }

    /// Invariant 4: events record deletions only after a whole sweep of the bound account. All
    /// deletions since the last whole sweep, but of at most a day, obey one limit.
    fn check_hinted_deletions(&mut self, deletions: &BTreeSet<String>, limit: u64) -> Checked {
        if deletions.is_empty() {
            return Ok(());
        }
        let count = deletions.len() as u64;
        if self.last_whole_sweep() != self.hinted.last_whole_sweep {
            // The sweep of this op restarts the count when it ends.
            must!(count <= 2 * limit, "events deleted {count}, and the limit is {limit}, twice");
            return Ok(());
        }
        must!(self.hinted.is_swept, "an event deleted {deletions:?} before a whole sweep of the account");
        let now = self.clock.elapsed();
        self.hinted.deleted_at.retain(|at| now - *at < COUNTED_FOR);
        self.hinted.deleted_at.extend(deletions.iter().map(|_| now));
        let count = self.hinted.deleted_at.len() as u64;
        must!(count <= limit, "events deleted {count} since the last sweep, and the limit is {limit}");
        Ok(())
    }

    /// Invariants 5, 6 and 18: a hinted change is a newer state of its customer, and removes no
    /// card.
    pub fn check_hinted(&mut self, changes: &[Record], limit: u64) -> Checked {
        self.check_hinted_deletions(&deleted_by_events(changes), limit)?;
        let server = self.server.lock().unwrap();
        for change in changes.iter().filter(|change| change.text("origin") == Some("event")) {
            let card = |state: &str| change.get(state).get("source").is_some_and(|source| !source.is_null());
            let is_update = change.text("kind") == Some("updated");
            must!(!(is_update && card("before") && !card("after")), "an event removed a card: {change:?}");
            let state = |name: &str| match change.get(name) {
                Value::Null => None,
                state => Some(text(state)),
            };
            let id = change.text("customer_id").unwrap();
            let versions = server.versions.get(id).map_or(&[][..], Vec::as_slice);
            let before = versions.iter().position(|(version, _)| *version == state("before"));
            let after = versions.iter().rposition(|(version, _)| *version == state("after"));
            if let (Some(before), Some(after), true) = (before, after, is_update) {
                must!(before < after, "the log went back: {change:?}");
            }
        }
        Ok(())
    }
}
