//! Passes and drains, and what must hold after each.

use std::collections::BTreeSet;

use komoju_core::plan::absence::COUNTED_FOR;
use komoju_core::plan::lookups::budget;
use komoju_core::{PassKind, PassOutcome};
use komoju_sync::clock::Clock as _;
use komoju_sync::secret::SecretKey;
use komoju_sync::store::log::{holds, passes, unlisted};
use komoju_sync::store::outbox::engine;
use komoju_sync::store::read::Record;
use komoju_sync::store::state::account;
use komoju_sync::store::{Reader, read};
use komoju_sync::tasks::pull::Report;
use komoju_sync::tasks::push::Drained;
use tokio_util::sync::CancellationToken;

use crate::log;
use crate::world::{Checked, KEYS, MAX_DELETE_COUNT, MAX_DELETE_PERCENT, Process, World, must};

/// The customers that a query names.
fn named(reader: &Reader, sql: &str) -> BTreeSet<String> {
    let mut statement = reader.prepare_cached(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The customers whose deletion is in this state.
fn states(reader: &Reader, state: &str) -> BTreeSet<String> {
    named(reader, &format!("SELECT customer_id FROM held_deletions WHERE state = '{state}'"))
}

/// Whose deletion only a person lets go.
fn for_a_person(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' AND because <> 'unproven'",
    )
}

/// The customers that the first whole sweep after a restore has held.
fn held_by_restore(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_customer JOIN hold ON hold.id = hold_id, meta
         WHERE state = 'held' AND because = 'restored' AND restored_at IS NULL",
    )
}

/// Whose deletion a person approved, whatever became of it since.
fn approved(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_deletions WHERE state = 'approved' OR (state = 'deleted' AND decided_at IS NOT NULL)",
    )
}

/// Whom these changes record as deleted: by our own push, or by something else.
fn deleted(changes: &[Record], by_us: bool) -> BTreeSet<String> {
    let deletions = changes.iter().filter(|change| change.text("kind") == Some("deleted"));
    let whose = deletions.filter(|change| (change.text("origin") == Some("intent")) == by_us);
    whose.map(|change| change.text("customer_id").unwrap().to_owned()).collect()
}

/// A pass, or nothing of it where it crashed; and the drain beside it.
type Ended = Option<(Option<Report>, Option<Drained>)>;

impl Process {
    async fn pass(&self, kind: PassKind) -> Option<Report> {
        match kind {
            PassKind::Sweep => Some(self.pull.sweep().await.unwrap()),
            PassKind::Probe => self.pull.probe().await.unwrap(),
        }
    }

    /// As `sync` and the daemon do it: files are taken, what is due is attempted, receipts follow.
    async fn drain(&self) -> Drained {
        self.spool.drain(&CancellationToken::new()).await.unwrap();
        let drained = self.pusher.drain().await.unwrap();
        self.spool.tend_receipts().await.unwrap();
        drained
    }
}

impl World<'_> {
    /// Which account the database belongs to, and whether another key stopped everything.
    pub fn bound(&self) -> (Option<usize>, bool) {
        let Some(known) = self.look(|reader| account::load(reader).unwrap()) else { return (None, false) };
        let is_key_of =
            |key: &str| SecretKey::parse(key).unwrap().salted_fingerprint(&known.salt) == known.fingerprint;
        (KEYS.into_iter().position(is_key_of), known.stopped.is_some())
    }

    /// Why nothing may be pushed, if nothing may.
    fn closed(&self, with_pass: bool) -> Option<&'static str> {
        let (refused, enabled) = self.look(|reader| {
            (read::obstacles(reader).unwrap().0.is_some(), engine::is_enabled(reader).unwrap())
        });
        let (bound, stopped) = self.bound();
        match () {
            () if !enabled || !self.enabled => Some("pushing is switched off"),
            // A pass may find that the key, or the account, is right after all.
            () if with_pass => None,
            () if refused => Some("the key is refused"),
            () if stopped => Some("the account is in doubt"),
            () if bound != Some(self.account) => Some("the key is another account's"),
            () => None,
        }
    }

    fn set_closed(&self, with_pass: bool) {
        let closed = self.closed(with_pass);
        let mut server = self.server.lock().unwrap();
        server.closed = closed;
        server.is_quiet = !with_pass && server.shifts.is_empty();
    }

    pub fn drain(&mut self) -> Checked {
        self.set_closed(false);
        let (head, held) = (self.log.head.seq, self.look(|reader| states(reader, "held")));
        let drained = self.run(async |process| process.drain().await);
        if drained.is_none() {
            self.count("Crash in a drain");
        }
        let changes = self.look(|reader| log::changes_after(reader, head));
        must!(deleted(&changes, false).is_empty(), "a drain recorded somebody else's deletion");
        must!(self.look(|reader| states(reader, "held")).is_subset(&held), "a drain held something");
        Ok(())
    }

    /// Who lives in the account that the key reads.
    fn there(&self) -> BTreeSet<String> {
        let server = self.server.lock().unwrap();
        let ids = server.lists[self.account].iter().map(|customer| customer["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    pub fn pass(&mut self, kind: PassKind) -> Checked {
        self.checked_pass(kind, false)
    }

    /// A sweep and a drain at once.
    pub fn together(&mut self) -> Checked {
        self.checked_pass(PassKind::Sweep, true)
    }

    fn checked_pass(&mut self, kind: PassKind, with_drain: bool) -> Checked {
        self.set_closed(true);
        let head = self.log.head.seq;
        let (live_before, there_before) = (self.log.live(), self.there());
        let (holds_all, held_by_restore, held, approved_before, rejected, had_whole) = self.look(|reader| {
            (
                holds::holds_all(reader).unwrap(),
                held_by_restore(reader),
                states(reader, "held"),
                states(reader, "approved"),
                states(reader, "rejected"),
                passes::has_whole_sweep(reader).unwrap(),
            )
        });
        let (bound, _) = self.bound();
        let ended: Ended = match with_drain {
            true => self.run(async |process| {
                let (report, drained) = tokio::join!(process.pass(kind), process.drain());
                (report, Some(drained))
            }),
            false => self.run(async |process| (process.pass(kind).await, None)),
        };
        if ended.is_none() {
            self.count("Crash in a pass");
        }
        let report = ended.and_then(|(report, _)| report);
        let changes = self.look(|reader| log::changes_after(reader, head));
        let (ours, deleted) = (deleted(&changes, true), deleted(&changes, false));

        // 13: a probe rests until one sweep is complete.
        must!(
            self.crashed || report.is_some() == (kind == PassKind::Sweep || had_whole),
            "a probe before the first whole sweep"
        );
        // 8: a key of another account changes nothing (an empty mirror takes any).
        let own = format!("c{}", self.account);
        if bound.is_some_and(|bound| bound != self.account)
            && !live_before.is_empty()
            && !live_before.iter().any(|id| id.starts_with(&own))
        {
            must!(changes.is_empty(), "another account's key recorded {} changes", changes.len());
        }
        // 3: nobody is recorded as deleted who is there. Nothing comes back within a pass here, so its end can be asked.
        let there = self.there();
        let alive: Vec<_> = deleted.intersection(&there).collect();
        must!(alive.is_empty(), "recorded as deleted, and alive: {alive:?}");
        // 4: above the limit only a person's word deletes; a "no" keeps.
        let approved = &approved_before | &self.look(approved);
        let rejected_midway = &self.look(|reader| states(reader, "rejected")) - &rejected;
        let by_itself: BTreeSet<String> = &deleted - &approved;
        // Who waits for a person is let go only where the set is another one: one of them is there again, or somebody else is gone.
        let let_go: BTreeSet<String> = &by_itself & &self.waits_for_a_person;
        // What was there when it was listed may be gone by now.
        let is_another =
            self.waits_for_a_person.iter().any(|id| there.contains(id) || there_before.contains(id))
                || live_before.iter().any(|id| {
                    !(there.contains(id)
                        || self.waits_for_a_person.contains(id)
                        || [&ours, &approved, &rejected].iter().any(|others| others.contains(id)))
                });
        must!(
            let_go.is_empty() || is_another,
            "recorded without a person's word, which they wait for: {let_go:?}"
        );
        let is_decided_midway = approved != approved_before || !rejected_midway.is_empty();
        // All customers that a sweep held after a restore may be listed again: then no deletion waits for an operator any more.
        let is_over = !held_by_restore.is_empty()
            && held_by_restore.is_disjoint(&self.look(|reader| states(reader, "held")))
            && held_by_restore
                .iter()
                .all(|id| there.contains(id) || there_before.contains(id) || ours.contains(id));
        must!(
            !holds_all || is_decided_midway || is_over || by_itself.is_empty(),
            "after a restore, and nobody looked at it: {by_itself:?}"
        );
        let by_itself = by_itself.len() as u64;
        // Who came before the last pass began, by the rest of an interrupted one or by our own pushes, counts too.
        let last = report.as_ref().and_then(|report| report.pass);
        let came = |change: &&Record| {
            matches!(change.text("kind"), Some("created" | "restored"))
                && last.is_none_or(|last| change.get("pass_id").as_i64() != Some(last))
        };
        let came = changes.iter().filter(came).count() as u64;
        let limit_of = |live: u64| MAX_DELETE_COUNT.max(live * u64::from(MAX_DELETE_PERCENT) / 100);
        let limit = limit_of(live_before.len() as u64 + came);
        must!(by_itself <= limit, "{by_itself} deletions by itself, the limit is {limit}");
        must!(deleted.is_disjoint(&rejected), "a rejected deletion was recorded");
        must!(deleted.is_disjoint(&rejected_midway), "a deletion was recorded and rejected");
        let held_now = self.look(|reader| states(reader, "held"));
        let wait = self.look(for_a_person);
        let waited = std::mem::replace(&mut self.waits_for_a_person, wait);
        // They go on waiting, and for a person, until a word is said or it is known what became of them.
        let ended = [&approved, &rejected, &rejected_midway, &there, &deleted, &ours];
        let forgotten = waited
            .difference(&self.waits_for_a_person)
            .filter(|id| live_before.contains(*id))
            .find(|id| held_now.contains(*id) || !ended.iter().any(|ended| ended.contains(*id)));
        must!(is_another || forgotten.is_none(), "{forgotten:?} waits for no person any more");
        let Some(report) = report else { return Ok(()) };
        if report.outcome == PassOutcome::Held {
            let unproven = &held_now - &self.waits_for_a_person;
            let alive: Vec<_> = unproven.intersection(&there).collect();
            must!(alive.is_empty(), "held as unproven, and alive: {alive:?}");
            // Where the list leaves out living customers, more than the limit are requested; what is recorded later is limited by the day.
            let since = self.clock.now().checked_sub(COUNTED_FOR).unwrap();
            let above_limit_at = self.look(|reader| unlisted::learnt(reader).unwrap()).above_limit_at;
            let most = match () {
                () if holds_all && !is_decided_midway && !is_over => 0,
                () if above_limit_at.is_some_and(|at| at > since) => budget(report.tally.pages),
                () => limit,
            };
            let unproven = unproven.len() as u64;
            must!(unproven <= most, "{unproven} wait for no person, and {most} may");
        }
        if report.outcome == PassOutcome::Failed {
            must!(held_now.is_subset(&held), "a failed pass held something");
        }
        // Our own deletes beside it end what was held.
        let told = match with_drain {
            true => held_now.len() as u64 <= report.held,
            false => held_now.len() as u64 == report.held,
        };
        must!(report.pass.is_none() || told, "the hold is not what the report says");
        for word in ["approved", "rejected"] {
            let decided = self.look(|reader| states(reader, word));
            must!(held_now.is_disjoint(&decided), "what a person {word} is held again");
        }
        // 13: a probe concludes nothing from absence.
        if kind == PassKind::Probe {
            must!(deleted.is_subset(&approved), "a probe deleted {deleted:?}");
        }
        // 5: a card is taken away only by a sweep that read the whole list and was shown cards.
        for change in changes.iter().filter(|change| change.text("origin") != Some("intent")) {
            let card = |state: &str| change.get(state).get("source").is_some_and(|source| !source.is_null());
            if change.text("kind") == Some("updated") && card("before") && !card("after") {
                let hidden = self.server.lock().unwrap().lists_hide_cards;
                must!(kind == PassKind::Sweep && !hidden, "a {kind} took a card away: {change:?}");
                must!(report.failure.is_none(), "a failed sweep took a card away");
            }
        }
        Ok(())
    }
}
