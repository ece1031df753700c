//! The end of a list that was read to its end: which customers are missing, and what is proven about them.
//!
//! ```text
//!   mirror − listed ─▶ missing ─▶ plan ─▶ requested, recorded ─▶ one closing transaction: holds, sources, what was learnt
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rand::seq::SliceRandom;

use super::marks::Marks;
use super::mirror::Mirror;
use super::pages::Rounds;
use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::file::indexes;
use crate::store::log::holds;
use crate::store::log::unlisted::{self, RESTS_FOR};
use crate::store::log::{busy_fields, mirror, unreadable};
use crate::tasks::echoes::Asked;
use komoju_core::plan::absence::{AbsenceCheck, AbsencePlan, DeletePolicy, HoldReason};
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::rows::RowSet;
use komoju_core::plan::sighting;
use komoju_core::{CustomerId, Kind, Origin, Outcome, Tally, time};

/// ROWS_AT_ONCE and BYTES_AT_ONCE control how many customers without a source are planned in one step: other writers wait for its end,
/// and an update in a plan takes several times the memory of its body.
const ROWS_AT_ONCE: usize = 10_000;
const BYTES_AT_ONCE: usize = 512 << 10;

/// The customers that a sweep misses, by their rows in the mirror.
struct Missing {
    /// Live since before the sweep and not listed by it.
    suspects: Vec<i64>,
    /// How many more are missing, and are left to our own open push of them: they count towards the limit.
    left_to_push: u64,
    /// Held for an operator, live and not listed.
    held: Vec<i64>,
    /// Whether deletions may be recorded.
    policy: DeletePolicy,
    /// The sweep in which a customer that was not listed answered last.
    verified: HashMap<i64, i64>,
}

/// What a sweep concludes.
struct Concluded {
    /// Whose deletion is to be held, and why.
    to_hold: Vec<(Vec<i64>, HoldReason)>,
    /// Whether the list was read to its end, and every live customer listed, verified or held.
    is_whole: bool,
    /// Whether no customer was left to our own push besides.
    knows_all: bool,
}

impl<R: Remote> Pull<R> {
    /// What follows from a list that was read to its end.
    pub(super) async fn conclude(
        &self,
        pass: &mut Pass,
        marks: Marks,
        rounds: Rounds,
    ) -> Result<Outcome, Failure> {
        pass.budget.limit(pass.tally.pages);
        let (missing, mut marks) = self.find_missing(pass, marks).await?;
        let left_to_push = missing.left_to_push;
        let check = self.plan_absence(pass, missing, std::mem::take(&mut marks.canaries)).await?;
        let findings = self.check_absence(pass, check, Origin::Sweep).await?;
        // Before the sweep is called complete: readers may count on them from then on.
        self.make_indexes().await?;
        pass.tally.unverified = findings.unverified;
        let is_whole = findings.unverified == 0 && !rounds.report.grows;
        let concluded =
            Concluded { to_hold: findings.held, is_whole, knows_all: is_whole && left_to_push == 0 };
        if is_whole {
            self.remove_sources(pass, &mut marks).await?;
        }
        let held = self.apply_conclusions(pass, marks, concluded, rounds).await?;
        Ok(match (is_whole, held) {
            (true, 0) => Outcome::Complete,
            (true, _) => Outcome::Held,
            (false, _) => Outcome::Partial,
        })
    }

    /// Makes the indexes for readers that are missing.
    async fn make_indexes(&self) -> Result<(), Failure> {
        let Mirror::Store(store) = &self.mirror else { return Ok(()) };
        for index in indexes::ALL {
            let made = store.make_index_unless(self.stop.cancelled(), index);
            made.await?.ok_or(Failure::Stopped)?;
        }
        Ok(())
    }

    /// Plans what is requested because of missing customers.
    async fn plan_absence(
        &self,
        pass: &Pass,
        missing: Missing,
        mut canaries: Vec<CustomerId>,
    ) -> Result<AbsenceCheck, Failure> {
        let Missing { mut suspects, left_to_push, mut held, policy, verified } = missing;
        self.with_dice(|dice| {
            suspects.shuffle(dice);
            held.shuffle(dice);
            canaries.shuffle(dice);
        });
        let plan = AbsencePlan::new(suspects.len() as u64, left_to_push, self.limit(pass));
        tracing::debug!(pass = pass.id, "{plan}");
        let mut check = AbsenceCheck::of_sweep(plan, suspects, &verified, held, policy, canaries);
        check.set_room(self.room(pass).await?);
        Ok(check)
    }

    /// Compares what the mirror holds with what the sweep has listed.
    async fn find_missing(&self, pass: &Pass, marks: Marks) -> Result<(Missing, Marks), StoreError> {
        let (head_before, live_before) = (pass.head_before, pass.live_before);
        let (asked, sweep) = (Arc::clone(&pass.asked), pass.sweep());
        let (times, consistency) = (self.times(), self.settings.consistency);
        let found = self.look(move |view| {
            let conn = view.conn();
            let policy = if holds::holds_all(conn)? { DeletePolicy::Hold } else { DeletePolicy::Record };
            let verified = view.verified()?;
            let mut missing =
                Missing { suspects: Vec::new(), left_to_push: 0, held: Vec::new(), policy, verified };
            // Most sweeps list every live customer: then none is looked for. Of those that were listed, some were deleted since.
            let listed = marks.seen.len().saturating_sub(view.deletions_after(head_before)?);
            if live_before == 0 || view.live_count()? <= listed {
                return Ok((missing, marks));
            }
            let mut held = RowSet::default();
            holds::each_held_row(conn, &HoldReason::FOR_AN_OPERATOR, |row| {
                held.insert(row);
            })?;
            view.remove_ended_holds(&mut held)?;
            let young = unlisted::young(conn, consistency, times)?;
            let rests =
                |row| missing.verified.get(&row).is_some_and(|verified| sweep - verified <= RESTS_FOR);
            mirror::each_live_before(conn, head_before, |row, id| {
                let is_missing =
                    !marks.seen.contains(row) && id.can_be_asked() && !view.is_planned_deleted(&id);
                if !is_missing || held.contains(row) || young.contains(row) || rests(row) {
                    return Ok(());
                }
                // Our own push is newer than this sweep, or is about to be.
                if asked.is_before_push_of(&id) || unlisted::has_push_open(conn, id.as_str())? {
                    missing.left_to_push += 1;
                } else {
                    missing.suspects.push(row);
                }
                Ok(())
            })?;
            missing.held = held.iter().filter(|row| !marks.seen.contains(*row)).collect();
            Ok((missing, marks))
        });
        found.await
    }

    /// Takes away the sources of customers that this sweep listed without one, if it showed any at all.
    async fn remove_sources(&self, pass: &mut Pass, marks: &mut Marks) -> Result<(), StoreError> {
        if !sighting::may_be_nulled(true, marks.any_source) {
            return Ok(());
        }
        let rows: Arc<Vec<i64>> = Arc::new(std::mem::take(&mut marks.null_listed).iter().collect());
        let (head_before, consistency) = (pass.head_before, self.settings.consistency);
        let start = SweepStart { head_before, now: self.clock.now(), consistency };
        let mut done = 0;
        while done < rows.len() {
            let (rows, asked) = (Arc::clone(&rows), Arc::clone(&pass.asked));
            let plan = move |view: &mut View<'_>, _: &mut Tally| {
                Ok(done + plan_null_sources(view, &rows[done..], &asked, start)?)
            };
            done = self.step(pass, Origin::Sweep, plan).await?;
        }
        Ok(())
    }

    /// One transaction: deletions that are held, and what was learnt. Returns how many are held.
    async fn apply_conclusions(
        &self,
        pass: &mut Pass,
        marks: Marks,
        concluded: Concluded,
        rounds: Rounds,
    ) -> Result<u64, Failure> {
        let (id, at) = (pass.id, time::written(self.clock.now()));
        let busy = self.busy_fields(&marks);
        let mut learnt = pass.learnt.clone();
        learnt.sweeps = pass.sweep();
        learnt.vain_sweeps = match rounds.in_vain {
            Some(true) => learnt.vain_sweeps + 1,
            Some(false) => 0,
            None => learnt.vain_sweeps,
        };
        let Concluded { to_hold, is_whole, knows_all } = concluded;
        let plan = move |view: &mut View<'_>, _: &mut Tally| {
            for text in &marks.reformatted {
                if text.is_current(view.conn())? {
                    view.note_listed(text.row, text.fingerprint, text.source);
                }
            }
            for (rows, reason) in to_hold {
                plan_hold(view, &rows, reason)?;
            }
            Ok(marks)
        };
        let closed = self.step_with(pass, Origin::Sweep, plan, move |tx, marks| {
            if is_whole {
                unreadable::conclude(tx, id)?;
            }
            // Of a restored database every deletion is held until one sweep knows of each customer.
            if knows_all {
                holds::note_concluded(tx)?;
            }
            busy_fields::replace(tx, busy, marks.seen.len(), &at)?;
            unlisted::forget_listed(tx, |row| marks.seen.contains(row))?;
            unlisted::note_learnt(tx, &learnt, &rounds.report.phrases(), rounds.report.ignores_page)
        });
        closed.await?;
        Ok(self.look(|view| view.held_count()).await?)
    }

    /// The fields that changed in many customers, their names masked; each is logged.
    fn busy_fields(&self, marks: &Marks) -> BTreeMap<String, u64> {
        let seen = marks.seen.len();
        let mut busy = BTreeMap::new();
        for (field, customers) in marks.fields.busy(seen) {
            let field = self.masker.text(field);
            tracing::warn!(
                field,
                customers,
                "the field {field} changed in {customers} of {seen} customers: where it changes on every read, each sweep adds \
                 as many log entries"
            );
            busy.insert(field, customers);
        }
        busy
    }
}

/// What a sweep knew when it began, and the time now.
#[derive(Clone, Copy)]
struct SweepStart {
    head_before: i64,
    now: Timestamp,
    consistency: Consistency,
}

/// Plans to take away the sources of the customers in these rows; returns how many rows it has planned. The plan is small: each update
/// of it takes several times the memory of the customer's body.
fn plan_null_sources(
    view: &mut View<'_>,
    rows: &[i64],
    asked: &Asked,
    start: SweepStart,
) -> Result<usize, StoreError> {
    let (mut planned, mut bytes) = (0, 0);
    for row in rows.iter().take(ROWS_AT_ONCE) {
        planned += 1;
        bytes += plan_null_source(view, *row, asked, start)?;
        if bytes >= BYTES_AT_ONCE {
            break;
        }
    }
    Ok(planned)
}

/// Plans to take away the source of the customer in this row, unless something newer is known of it; returns the size of its body in
/// bytes, 0 where nothing is planned.
fn plan_null_source(
    view: &mut View<'_>,
    row: i64,
    asked: &Asked,
    start: SweepStart,
) -> Result<usize, StoreError> {
    let SweepStart { head_before, now, consistency } = start;
    let Some(id) = view.id_of(row)? else { return Ok(0) };
    if asked.is_before_push_of(&id) {
        return Ok(0);
    }
    let stored = view.find(&id)?.filter(|stored| stored.standing.is_live());
    // The list may have shown it as it was before its last change; the next sweep shows it again.
    let changed_at = stored.as_ref().and_then(|stored| time::read(&stored.standing.changed_at));
    // An entry that is stamped in the future was logged while the clock was wrong.
    let may_be_behind = |at: Timestamp| at <= now && consistency.may_be_behind(at, asked.requested_at());
    let seq = stored.as_ref().map_or(0, |stored| stored.standing.seq);
    let is_newer = seq > head_before && !view.is_by_list(&id, seq)?;
    if is_newer || changed_at.is_some_and(may_be_behind) {
        return Ok(0);
    }
    let without = stored.as_ref().and_then(|stored| sighting::without_source(&stored.standing));
    let Some(customer) = without else { return Ok(0) };
    let bytes = customer.body().len();
    view.record(Kind::Updated, customer, stored, None)?;
    Ok(bytes)
}

/// Plans to hold these deletions, in a hold of their own. Those that an operator has decided about, or that are held already, stay as
/// they are.
pub(super) fn plan_hold(view: &mut View<'_>, rows: &[i64], reason: HoldReason) -> Result<(), StoreError> {
    let (mut held, mut superseding) = (Vec::new(), Vec::new());
    for &row in rows {
        // While the sweep ran, an operator may have decided about it, or our own push may have deleted it.
        let Some(customer) = view.live_id_of(row)? else { continue };
        if view.is_decided(&customer)? {
            continue;
        }
        match view.held_because(row, &customer)? {
            Some(known) if known == reason || reason == HoldReason::Unproven => continue,
            // More than unproven by now: it waits for an operator.
            Some(_) => superseding.push(row),
            None => {}
        }
        held.push(row);
    }
    if !held.is_empty() {
        view.hold(held, superseding, reason);
    }
    Ok(())
}
