//! Passes and drains, and the checks after each.

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
use komoju_sync::tasks::push::DrainSummary;
use tokio_util::sync::CancellationToken;

use crate::events::deleted_by_events;
use crate::log;
use crate::world::{Checked, KEYS, MAX_DELETE_COUNT, MAX_DELETE_PERCENT, Process, World, must};

/// Returns the customers that a query names.
fn named(reader: &Reader, sql: &str) -> BTreeSet<String> {
    let mut statement = reader.prepare_cached(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Returns the customers with a deletion in this state.
pub fn states(reader: &Reader, state: &str) -> BTreeSet<String> {
    named(reader, &format!("SELECT customer_id FROM held_deletions WHERE state = '{state}'"))
}

/// Returns the customers with a held deletion that only an operator releases.
pub fn needing_operator(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' AND because <> 'unproven'",
    )
}

/// Returns the customers that the first whole sweep after a restore has held.
fn held_by_restore(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_customer JOIN hold ON hold.id = hold_id, meta
         WHERE state = 'held' AND because = 'restored' AND restored_at IS NULL",
    )
}

/// Returns the customers with a deletion that an operator approved, whatever its state now.
fn approved(reader: &Reader) -> BTreeSet<String> {
    named(
        reader,
        "SELECT customer_id FROM held_deletions WHERE state = 'approved' OR (state = 'deleted' AND decided_at IS NOT NULL)",
    )
}

/// Returns the customers that these changes record as deleted: by our own push, or otherwise.
pub fn deleted(changes: &[Record], by_us: bool) -> BTreeSet<String> {
    let deletions = changes.iter().filter(|change| change.text("kind") == Some("deleted"));
    let matching = deletions.filter(|change| (change.text("origin") == Some("intent")) == by_us);
    matching.map(|change| change.text("customer_id").unwrap().to_owned()).collect()
}

/// The work that runs at the same time as a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WithPass {
    Nothing,
    Drain,
    Events,
}

/// The reports of a pass and of a drain that ran with it; `None` if the process crashed.
type PassEnd = Option<(Option<Report>, Option<DrainSummary>)>;

impl Process {
    async fn pass(&self, kind: PassKind) -> Option<Report> {
        match kind {
            PassKind::Sweep => Some(self.pull.sweep().await.unwrap()),
            PassKind::Probe => self.pull.probe().await.unwrap(),
        }
    }

    /// Drains as `sync` and the daemon do: files are taken, due intents are attempted, and receipts
    /// are updated.
    async fn drain(&self) -> DrainSummary {
        self.spool.drain(&CancellationToken::new()).await.unwrap();
        let drained = self.pusher.drain().await.unwrap();
        self.spool.update_receipts().await.unwrap();
        drained
    }
}

impl World<'_> {
    /// Returns the account of the database, and whether the key of another account stopped
    /// everything.
    pub fn bound(&self) -> (Option<usize>, bool) {
        let Some(known) = self.look(|reader| account::load(reader).unwrap()) else { return (None, false) };
        let is_key_of =
            |key: &str| SecretKey::parse(key).unwrap().salted_fingerprint(&known.salt) == known.fingerprint;
        (KEYS.into_iter().position(is_key_of), known.stopped.is_some())
    }

    /// Returns the reason why nothing may be pushed, if there is one.
    fn closed(&self, with_pass: bool) -> Option<&'static str> {
        let (refused, enabled) = self.look(|reader| {
            (read::obstacles(reader).unwrap().0.is_some(), engine::is_enabled(reader).unwrap())
        });
        let (bound, stopped) = self.bound();
        match () {
            () if !enabled || !self.enabled => Some("pushing is switched off"),
            // A pass may find that the key or the account is right.
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
        must!(deleted(&changes, false).is_empty(), "a drain recorded a deletion by another client");
        must!(self.look(|reader| states(reader, "held")).is_subset(&held), "a drain held something");
        Ok(())
    }

    /// Returns the live customers of the account that the key reads.
    pub fn there(&self) -> BTreeSet<String> {
        let server = self.server.lock().unwrap();
        let ids = server.lists[self.account].iter().map(|customer| customer["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    pub fn pass(&mut self, kind: PassKind) -> Checked {
        self.checked_pass(kind, WithPass::Nothing)
    }

    /// Runs a sweep and a drain at the same time.
    pub fn sweep_and_drain(&mut self) -> Checked {
        self.checked_pass(PassKind::Sweep, WithPass::Drain)
    }

    /// Runs a sweep while events are followed.
    pub fn sweep_with_events(&mut self) -> Checked {
        self.checked_pass(PassKind::Sweep, WithPass::Events)
    }

    fn checked_pass(&mut self, kind: PassKind, with_pass: WithPass) -> Checked {
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
        let unlisted = self.look(|reader| named(reader, "SELECT customer_id FROM unlisted"));
        let with_events = with_pass == WithPass::Events;
        let ended: PassEnd = match with_pass {
            WithPass::Drain => self.run(async |process| {
                let (report, drained) = tokio::join!(process.pass(kind), process.drain());
                (report, Some(drained))
            }),
            WithPass::Events => self.run(async |process| {
                let (report, ()) = tokio::join!(process.pass(kind), process.follow_events());
                (report, None)
            }),
            WithPass::Nothing => self.run(async |process| (process.pass(kind).await, None)),
        };
        if ended.is_none() {
            self.count(if with_events { "Crash with events" } else { "Crash in a pass" });
        }
        let report = ended.and_then(|(report, _)| report);
        let changes = self.look(|reader| log::changes_after(reader, head));
        let (ours, deleted) = (deleted(&changes, true), deleted(&changes, false));

        // Invariant 13: no probe runs before one sweep is complete.
        must!(
            self.crashed || report.is_some() == (kind == PassKind::Sweep || had_whole),
            "a probe before the first whole sweep"
        );
        // Invariant 8: a key of another account changes nothing. An empty mirror accepts any key.
        let own = format!("c{}", self.account);
        if bound.is_some_and(|bound| bound != self.account)
            && !live_before.is_empty()
            && !live_before.iter().any(|id| id.starts_with(&own))
        {
            must!(changes.is_empty(), "another account's key recorded {} changes", changes.len());
        }
        // Invariant 4: no live customer is recorded as deleted. Within a pass no customer is
        // restored here, so the state after the pass can be compared.
        let there = self.there();
        let alive: Vec<_> = deleted.intersection(&there).collect();
        must!(alive.is_empty(), "recorded as deleted, and live: {alive:?}");
        // Invariant 4: above the limit only an operator's approval deletes, and a rejection keeps.
        let approved = &approved_before | &self.look(approved);
        let rejected_midway = &self.look(|reader| states(reader, "rejected")) - &rejected;
        let by_itself: BTreeSet<String> = &deleted - &approved;
        // A hold for an operator is replaced only if the set of missing customers is another one:
        // one of them is back, or another customer is gone.
        let without_decision: BTreeSet<String> = &by_itself & &self.needs_operator;
        // A customer that was listed may be gone by now.
        let is_another = self.needs_operator.iter().any(|id| there.contains(id) || there_before.contains(id))
            || live_before.iter().any(|id| {
                !(there.contains(id)
                    || self.needs_operator.contains(id)
                    || [&ours, &approved, &rejected].iter().any(|others| others.contains(id)))
            });
        must!(
            without_decision.is_empty() || is_another,
            "recorded without the operator's decision: {without_decision:?}"
        );
        let is_decided_midway = approved != approved_before || !rejected_midway.is_empty();
        // All customers that a sweep held after a restore may be listed again. Then no deletion
        // waits for an operator any more.
        let is_over = !held_by_restore.is_empty()
            && held_by_restore.is_disjoint(&self.look(|reader| states(reader, "held")))
            && held_by_restore
                .iter()
                .all(|id| there.contains(id) || there_before.contains(id) || ours.contains(id));
        // A sweep ends the state in which every deletion is held. Then an event may record the
        // deletion of a customer that the sweep listed before it was deleted, or that the sweep did
        // not request again.
        let by_events = deleted_by_events(&changes);
        let is_later = with_events
            && by_itself.is_subset(&by_events)
            && by_itself.is_subset(&(&there_before | &unlisted));
        must!(
            !holds_all || is_decided_midway || is_over || is_later || by_itself.is_empty(),
            "recorded after a restore without the operator's decision: {by_itself:?}"
        );
        must!(with_events || by_events.is_empty(), "events deleted {by_events:?} in a pass without events");
        let by_itself = (&by_itself - &by_events).len() as u64;
        // Customers that were created before the last pass began, by an interrupted pass or by our
        // own pushes, count for the limit, too.
        let last = report.as_ref().and_then(|report| report.pass);
        let came = |change: &&Record| {
            matches!(change.text("kind"), Some("created" | "restored"))
                && last.is_none_or(|last| change.get("pass_id").as_i64() != Some(last))
        };
        let came = changes.iter().filter(came).count() as u64;
        let limit_of = |live: u64| MAX_DELETE_COUNT.max(live * u64::from(MAX_DELETE_PERCENT) / 100);
        let limit = limit_of(live_before.len() as u64 + came);
        self.check_hinted(&changes, limit)?;
        must!(by_itself <= limit, "{by_itself} deletions without a decision, the limit is {limit}");
        must!(deleted.is_disjoint(&rejected), "a rejected deletion was recorded");
        must!(deleted.is_disjoint(&rejected_midway), "a deletion was recorded and rejected");
        let held_now = self.look(|reader| states(reader, "held"));
        let wait = self.look(needing_operator);
        let waited = std::mem::replace(&mut self.needs_operator, wait);
        // They wait for the operator until there is a decision, or until their state is known.
        let ended = [&approved, &rejected, &rejected_midway, &there, &deleted, &ours];
        let forgotten = waited
            .difference(&self.needs_operator)
            .filter(|id| live_before.contains(*id))
            .find(|id| held_now.contains(*id) || !ended.iter().any(|ended| ended.contains(*id)));
        must!(is_another || forgotten.is_none(), "{forgotten:?} waits for no operator any more");
        let Some(report) = report else { return Ok(()) };
        if report.outcome == PassOutcome::Held {
            let unproven = &held_now - &self.needs_operator;
            let alive: Vec<_> = unproven.intersection(&there).collect();
            must!(alive.is_empty(), "held as unproven, and live: {alive:?}");
            // Where the list leaves out living customers, more than the limit are requested. The
            // deletions recorded later are limited per day.
            let since = self.clock.now().checked_sub(COUNTED_FOR).unwrap();
            let above_limit_at = self.look(|reader| unlisted::list_history(reader).unwrap()).above_limit_at;
            let most = match () {
                () if holds_all && !is_decided_midway && !is_over => 0,
                () if above_limit_at.is_some_and(|at| at > since) => budget(report.tally.pages),
                () => limit,
            };
            let unproven = unproven.len() as u64;
            must!(with_events || unproven <= most, "{unproven} are held as unproven, and {most} may be");
        }
        if report.outcome == PassOutcome::Failed {
            must!(with_events || held_now.is_subset(&held), "a failed pass held something");
        }
        // Our own deletes at the same time end holds.
        let agrees = match with_pass {
            // Events may hold a deletion after the report.
            WithPass::Events => true,
            WithPass::Drain => held_now.len() as u64 <= report.held,
            WithPass::Nothing => held_now.len() as u64 == report.held,
        };
        must!(report.pass.is_none() || agrees, "the hold differs from the report");
        for decision in ["approved", "rejected"] {
            let decided = self.look(|reader| states(reader, decision));
            must!(held_now.is_disjoint(&decided), "a deletion that the operator {decision} is held again");
        }
        // Invariant 13: a probe concludes nothing from absence.
        if kind == PassKind::Probe {
            must!(deleted.is_subset(&approved), "a probe deleted {deleted:?}");
        }
        // Invariant 5: only a sweep that read the whole list, and was shown cards, removes a card.
        for change in changes.iter().filter(|change| change.text("origin") != Some("intent")) {
            let card = |state: &str| change.get(state).get("source").is_some_and(|source| !source.is_null());
            if change.text("kind") == Some("updated") && card("before") && !card("after") {
                let hidden = self.server.lock().unwrap().lists_hide_cards;
                must!(kind == PassKind::Sweep && !hidden, "a {kind} removed a card: {change:?}");
                must!(report.failure.is_none(), "a failed sweep removed a card");
            }
        }
        Ok(())
    }
}
