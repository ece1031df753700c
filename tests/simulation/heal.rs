//! The end of a seed: the faults end, every intent settles that can, and then both sides are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use komoju_core::time;
use komoju_sync::clock::Clock as _;
use komoju_sync::store::log::holds::Decision;
use serde_json::Value;

use crate::log::{self, Log};
use crate::ops::Op;
use crate::world::{Checked, World, must};

/// The number of retries of what waits, and the time before each.
const ROUNDS: (u32, Duration) = (12, Duration::from_secs(20 * 60));

/// Longer than any `not_before` is ahead.
const LONG: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// The intents that are not settled and wait for no operator, neither themselves nor behind another
/// intent.
const STUCK: &str =
    "SELECT id || ' ' || state || ' ' || coalesce(reason, '') FROM intents JOIN outbox USING (position)
     WHERE state IN ('queued', 'sending', 'waiting')
       AND NOT EXISTS (SELECT 1 FROM outbox AS ahead JOIN intents AS first USING (position)
           WHERE ahead.lane = outbox.lane AND ahead.position < outbox.position AND first.state = 'parked')";

/// The hints that wait for a request while hints are not paused.
const OPEN_HINTS: &str =
    "SELECT customer_id FROM hint, event_state WHERE due_at IS NOT NULL AND paused_until IS NULL";

impl World<'_> {
    fn column(&self, sql: &str) -> BTreeSet<String> {
        self.look(|reader| {
            let mut statement = reader.prepare_cached(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        })
    }

    fn truth(&self) -> BTreeMap<String, Value> {
        let server = self.server.lock().unwrap();
        server.lists[0].iter().map(|c| (c["id"].as_str().unwrap().to_owned(), c.clone())).collect()
    }

    /// Returns the customers with an attempt that will be repeated. A sweep leaves them to that
    /// attempt.
    fn pushed(&self) -> BTreeSet<String> {
        self.column("SELECT lane FROM outbox JOIN intents USING (position) WHERE is_open = 1 AND state IN ('sending', 'waiting')")
    }

    /// Checks that the live customers of the mirror equal those at KOMOJU, except those that an
    /// operator's decision or an open push keeps. `with_cards`: cards are compared, too.
    fn is_true(&self, with_cards: bool) -> Checked {
        let truth = self.truth();
        let mut waits =
            self.column("SELECT customer_id FROM held_deletions WHERE state IN ('rejected', 'approved')");
        waits.extend(self.pushed());
        let mut mirror = self.look(log::live);
        mirror.retain(|id, _| truth.contains_key(id) || !waits.contains(id));
        for (id, customer) in mirror.iter_mut().filter(|_| !with_cards) {
            if truth.get(id).is_some_and(|theirs| theirs["source"].is_null()) {
                customer["source"] = Value::Null;
            }
        }
        must!(mirror == truth, "the mirror is not the truth:\n{mirror:?}\n{truth:?}");
        Ok(())
    }

    /// Invariant 5: where no card at all is listed, null may also mean "not revealed", and the
    /// known cards are kept.
    fn shows_cards(&self) -> bool {
        self.truth().values().any(|customer| !customer["source"].is_null())
    }

    fn checked_step(&mut self, op: Op) -> Checked {
        self.step(op).map_err(|why| format!("{op:?}: {why}"))
    }

    pub fn heal(&mut self) -> Checked {
        {
            let mut server = self.server.lock().unwrap();
            server.trouble = None;
            server.push_trouble = None;
            server.event_trouble = None;
            server.midway = None;
            server.shifts.clear();
            server.lists_hide_cards = false;
            let now = server.now();
            drop(server);
            // Correct the clock. It is late enough for each `not_before` that was set while the
            // clock was wrong.
            let dropped = self.accepted.values().map(|known| &known.json);
            let dropped = dropped.chain(self.waiting.iter().flat_map(|file| &file.intents));
            let latest = dropped.filter_map(|intent| time::read(intent["not_before"].as_str()?)).max();
            let latest = latest.unwrap_or(now);
            self.clock.set_wall(now.max(latest).max(self.clock.now()));
        }
        self.crash_at = None;
        self.crash_at_door = None;
        self.account = 0;
        self.checked_step(Op::Switch(true))?;
        self.checked_step(Op::Sweep)?;
        // An empty mirror may have accepted the other key. Then an operator must accept this one.
        self.checked_step(Op::Accept)?;
        self.checked_step(Op::Sweep)?;
        // A customer that answered 200 while it was not listed is not requested for two sweeps. A
        // sweep that crashed after that answer does not count.
        for _ in 0..3 {
            self.checked_step(Op::Sweep)?;
        }
        // A rejected deletion stays rejected until its customer is listed. All others are approved.
        // The next sweep may hold further ones, which exceed the limit of the day: they are
        // approved, too.
        for _ in 0..2 {
            self.decide(Decision::Approve);
            self.checked_step(Op::Sweep)?;
        }
        let shows_cards = self.shows_cards();
        self.is_true(shows_cards)?;
        let is_left_to_a_push = !self.pushed().is_empty();

        self.clock.advance(LONG);
        for _ in 0..ROUNDS.0 {
            self.checked_step(Op::Drain)?;
            if self.column(STUCK).is_empty() && self.waiting.is_empty() {
                break;
            }
            self.approve_deletes();
            self.clock.advance(ROUNDS.1);
        }
        let stuck = self.column(STUCK);
        must!(stuck.is_empty(), "stuck: {stuck:?}");
        must!(self.waiting.is_empty(), "these files are not taken: {:?}", self.waiting);
        if is_left_to_a_push {
            for _ in 0..3 {
                self.checked_step(Op::Sweep)?;
            }
            self.decide(Decision::Approve);
            self.checked_step(Op::Sweep)?;
        }
        // Invariant 6: every push of ours is in the mirror before a pass reads it.
        self.is_true(shows_cards)?;
        self.check_done()?;
        if !shows_cards {
            self.checked_step(Op::Sweep)?;
            self.is_true(self.shows_cards())?;
        }

        // Invariant 11: an unchanged list appends nothing.
        let head = self.log.head.seq;
        self.checked_step(Op::Sweep)?;
        self.checked_step(Op::Probe)?;
        self.checked_step(Op::ReadEvents)?;
        self.checked_step(Op::ReadHinted)?;
        let open = self.column(OPEN_HINTS);
        must!(open.is_empty(), "these hints are still open: {open:?}");
        must!(self.log.head.seq == head, "an unchanged list was recorded as changed");
        self.checked_step(Op::Rebuild)?;
        self.check_traces()
    }

    /// Checks that each done create and update took effect.
    fn check_done(&self) -> Checked {
        let done = self.column("SELECT id FROM intents WHERE state = 'done' AND op = 'create'");
        let server = self.server.lock().unwrap();
        for id in done {
            let was_made = server.effects.iter().any(|effect| effect.is_create && effect.intent == id);
            // Two creates with equal content cannot be distinguished by their customer.
            must!(was_made || self.has_twin(&id), "{id} is done, and no customer was created");
        }
        drop(server);
        let done = self.column("SELECT id FROM intents WHERE state = 'done' AND op = 'update'");
        let server = self.server.lock().unwrap();
        for id in done {
            let has_changed = server.effects.iter().any(|effect| !effect.is_create && effect.intent == id);
            must!(has_changed, "{id} is done, and no customer was changed");
        }
        Ok(())
    }

    fn has_twin(&self, id: &str) -> bool {
        let plain = |body: &Option<Value>| {
            let mut body = body.clone();
            if let Some(Value::Object(fields)) = &mut body {
                fields.remove("payment_details");
            }
            body
        };
        let mine = self.accepted.get(id).map(|known| plain(&known.body));
        self.accepted.iter().any(|(other, known)| other != id && Some(plain(&known.body)) == mine)
    }

    /// Invariant 9: no token of a settled intent is left in free pages or WAL. The connections are
    /// closed, so the files can be read directly.
    fn check_traces(&mut self) -> Checked {
        self.look(Log::check_whole)?;
        let open = self
            .column("SELECT coalesce(body, '') FROM intents JOIN outbox USING (position) WHERE is_open = 1");
        let sent = self
            .accepted
            .values()
            .filter_map(|known| known.body.as_ref()?["payment_details"].as_str().map(str::to_owned));
        let sent: Vec<String> =
            sent.filter(|token| !open.iter().any(|body| body.contains(token.as_str()))).collect();
        self.close_connections();
        let database = self.place.database();
        let wal = fs::read(komoju_sync::store::sibling(&database, "-wal")).unwrap_or_default();
        let file = fs::read(&database).unwrap();
        for (bytes, place) in
            free_pages(&file).into_iter().map(|page| (page, "a free page")).chain([(&wal[..], "the WAL")])
        {
            let found = bytes.windows(4).enumerate().filter(|(_, four)| *four == b"tok_");
            for (at, _) in found {
                let token = sent.iter().find(|token| {
                    bytes[at..].starts_with(token.as_bytes())
                        && !bytes.get(at + token.len()).is_some_and(u8::is_ascii_digit)
                });
                must!(token.is_none(), "{token:?} is left in {place}");
            }
        }
        Ok(())
    }
}

/// Returns the free pages of the database (<https://www.sqlite.org/fileformat.html>, section 1.5).
fn free_pages(file: &[u8]) -> Vec<&[u8]> {
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let size = usize::from(u16::from_be_bytes([file[16], file[17]]));
    let (mut free, mut trunk) = (Vec::new(), number(32));
    while trunk != 0 {
        let from = (trunk - 1) * size;
        free.push(&file[from..from + size]);
        for leaf in 0..number(from + 4) {
            let from = (number(from + 8 + 4 * leaf) - 1) * size;
            free.push(&file[from..from + size]);
        }
        trunk = number(from);
    }
    free
}
