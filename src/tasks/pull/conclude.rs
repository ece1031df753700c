//! The conclusions of a sweep: which customers the list did not show, and what is proven about
//! them.
//!
//! ```text
//!   mirror − listed ─▶ missing ─▶ plan ─▶ requests, deletions ─▶ null sources
//!     ─▶ one closing transaction: holds, history of the list
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rand::seq::SliceRandom;

use super::mirror::Mirror;
use super::pages::RoundsSummary;
use super::seen_customers::SeenCustomers;
use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::file::indexes;
use crate::store::log::holds;
use crate::store::log::unlisted::{self, SWEEPS_WITHOUT_REQUEST};
use crate::store::log::{busy_fields, mirror, unreadable};
use crate::tasks::in_flight::RequestMark;
use komoju_core::plan::absence::{AbsenceCheck, AbsencePlan, DeletePolicy, HoldReason};
use komoju_core::plan::comparison;
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::rows::RowSet;
use komoju_core::{ChangeKind, CustomerId, Origin, PassOutcome, Tally, time};

/// ROWS_AT_ONCE limits the customers without a source that are planned in one step, because other
/// writers wait for its end.
const ROWS_AT_ONCE: usize = 10_000;

/// BYTES_AT_ONCE limits their bodies, because an update in a plan takes several times the memory of
/// its body.
const BYTES_AT_ONCE: usize = 512 << 10;

/// The customers that a sweep did not list, by their rows in the mirror.
struct MissingCustomers {
    /// Live since before the sweep, and not listed by it.
    suspects: Vec<i64>,
    /// The number of further missing customers that have an open push of ours. They are not
    /// requested, but count towards the limit.
    left_to_push: u64,
    /// Held for an operator, live, and not listed.
    held: Vec<i64>,
    /// Whether proven deletions are recorded or held.
    policy: DeletePolicy,
    /// The sweep in which an unlisted customer last answered, by row.
    verified: HashMap<i64, i64>,
}

/// The conclusions of a sweep.
struct Conclusions {
    /// The rows of the deletions to hold, with the reason.
    to_hold: Vec<(Vec<i64>, HoldReason)>,
    /// Whether the list was read to its end, and every live customer was listed, verified or held.
    is_whole: bool,
    /// The same, and no customer was skipped because of an open push.
    knows_all: bool,
}

impl<R: Remote> Pull<R> {
    /// Checks the missing customers after the list was read, and closes the sweep. Returns its
    /// outcome.
    pub(super) async fn conclude(
        &self,
        pass: &mut Pass,
        seen_customers: SeenCustomers,
        rounds: RoundsSummary,
    ) -> Result<PassOutcome, Failure> {
        pass.budget.limit(pass.tally.pages);
        let (missing, mut seen_customers) = self.find_missing(pass, seen_customers).await?;
        let left_to_push = missing.left_to_push;
        let check = self.plan_absence(pass, missing, std::mem::take(&mut seen_customers.canaries)).await?;
        let findings = self.check_absence(pass, check, Origin::Sweep).await?;
        // Create the indexes before the sweep is complete, because readers may rely on them from
        // then on.
        self.create_indexes().await?;
        pass.tally.unverified = findings.unverified;
        let is_whole = findings.unverified == 0 && !rounds.report.grows;
        let concluded =
            Conclusions { to_hold: findings.held, is_whole, knows_all: is_whole && left_to_push == 0 };
        if is_whole {
            self.remove_sources(pass, &mut seen_customers).await?;
        }
        let held = self.apply_conclusions(pass, seen_customers, concluded, rounds).await?;
        Ok(match (is_whole, held) {
            (true, 0) => PassOutcome::Complete,
            (true, _) => PassOutcome::Held,
            (false, _) => PassOutcome::Partial,
        })
    }

    /// Creates the indexes for readers, if they are missing.
    async fn create_indexes(&self) -> Result<(), Failure> {
        let Mirror::Store(store) = &self.mirror else { return Ok(()) };
        for index in indexes::ALL {
            let made = store.make_index_unless(self.stop.cancelled(), index);
            made.await?.ok_or(Failure::Stopped)?;
        }
        Ok(())
    }

    /// Plans the requests for the missing customers.
    async fn plan_absence(
        &self,
        pass: &Pass,
        missing: MissingCustomers,
        mut canaries: Vec<CustomerId>,
    ) -> Result<AbsenceCheck, Failure> {
        let MissingCustomers { mut suspects, left_to_push, mut held, policy, verified } = missing;
        self.with_rng(|rng| {
            suspects.shuffle(rng);
            held.shuffle(rng);
            canaries.shuffle(rng);
        });
        let plan = AbsencePlan::new(suspects.len() as u64, left_to_push, self.limit(pass));
        tracing::debug!(pass = pass.id, "{plan}");
        let mut check = AbsenceCheck::of_sweep(plan, suspects, &verified, held, policy, canaries);
        check.set_room(self.room(pass).await?);
        Ok(check)
    }

    /// Compares the mirror with the customers that the sweep listed.
    async fn find_missing(
        &self,
        pass: &Pass,
        seen_customers: SeenCustomers,
    ) -> Result<(MissingCustomers, SeenCustomers), StoreError> {
        let (head_before, live_before) = (pass.head_before, pass.live_before);
        let (request, sweep) = (Arc::clone(&pass.started), pass.sweep());
        let (times, consistency) = (self.times(), self.settings.consistency);
        let found = self.read_mirror(move |view| {
            let conn = view.conn();
            let policy = if holds::holds_all(conn)? { DeletePolicy::Hold } else { DeletePolicy::Record };
            let verified = view.verified()?;
            let mut missing = MissingCustomers {
                suspects: Vec::new(),
                left_to_push: 0,
                held: Vec::new(),
                policy,
                verified,
            };
            // Most sweeps list every live customer, and then the mirror is not scanned. Customers
            // that were listed and deleted since do not count as listed.
            let listed = seen_customers.rows.len().saturating_sub(view.deletions_after(head_before)?);
            if live_before == 0 || view.live_count()? <= listed {
                return Ok((missing, seen_customers));
            }
            let mut held = RowSet::default();
            holds::each_held_row(conn, &HoldReason::FOR_AN_OPERATOR, |row| {
                held.insert(row);
            })?;
            view.remove_ended_holds(&mut held)?;
            let young = unlisted::young(conn, consistency, times)?;
            let rests = |row| {
                missing.verified.get(&row).is_some_and(|verified| sweep - verified <= SWEEPS_WITHOUT_REQUEST)
            };
            mirror::each_live_before(conn, head_before, |row, id| {
                let is_missing = !seen_customers.rows.contains(row)
                    && id.can_be_requested()
                    && !view.is_planned_deleted(&id);
                if !is_missing || held.contains(row) || young.contains(row) || rests(row) {
                    return Ok(());
                }
                // Our own push is newer than this sweep, or is still open.
                if request.is_before_push_of(&id) || unlisted::has_push_open(conn, id.as_str())? {
                    missing.left_to_push += 1;
                } else {
                    missing.suspects.push(row);
                }
                Ok(())
            })?;
            missing.held = held.iter().filter(|row| !seen_customers.rows.contains(*row)).collect();
            Ok((missing, seen_customers))
        });
        found.await
    }

    /// Removes the sources of customers that this sweep listed without one, if it showed the source
    /// of any customer.
    async fn remove_sources(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
    ) -> Result<(), StoreError> {
        if !comparison::may_be_nulled(true, seen_customers.any_source) {
            return Ok(());
        }
        let rows: Arc<Vec<i64>> = Arc::new(std::mem::take(&mut seen_customers.null_listed).iter().collect());
        let (head_before, consistency) = (pass.head_before, self.settings.consistency);
        let start = SweepStart { head_before, now: self.clock.now(), consistency };
        let mut done = 0;
        while done < rows.len() {
            let (rows, request) = (Arc::clone(&rows), Arc::clone(&pass.started));
            let plan = move |view: &mut View<'_>, _: &mut Tally| {
                Ok(done + plan_null_sources(view, &rows[done..], &request, start)?)
            };
            done = self.step(pass, Origin::Sweep, plan).await?;
        }
        Ok(())
    }

    /// Writes the holds and the history of the list in one transaction. Returns the number of held
    /// deletions.
    async fn apply_conclusions(
        &self,
        pass: &mut Pass,
        seen_customers: SeenCustomers,
        concluded: Conclusions,
        rounds: RoundsSummary,
    ) -> Result<u64, Failure> {
        let (id, at) = (pass.id, time::written(self.clock.now()));
        let busy = self.busy_fields(&seen_customers);
        let mut list_history = pass.list_history.clone();
        list_history.sweeps = pass.sweep();
        list_history.vain_sweeps = match rounds.in_vain {
            Some(true) => list_history.vain_sweeps + 1,
            Some(false) => 0,
            None => list_history.vain_sweeps,
        };
        let Conclusions { to_hold, is_whole, knows_all } = concluded;
        let plan = move |view: &mut View<'_>, _: &mut Tally| {
            for text in &seen_customers.reformatted {
                if text.is_current(view.conn())? {
                    view.note_listed(text.row, text.fingerprint, text.source);
                }
            }
            for (rows, reason) in to_hold {
                plan_hold(view, &rows, reason)?;
            }
            Ok(seen_customers)
        };
        let closed = self.step_with(pass, Origin::Sweep, plan, move |tx, seen_customers| {
            if is_whole {
                unreadable::conclude(tx, id)?;
            }
            // After a restore every deletion is held until one sweep has accounted for each
            // customer.
            if knows_all {
                holds::note_concluded(tx)?;
            }
            busy_fields::replace(tx, busy, seen_customers.rows.len(), &at)?;
            unlisted::forget_listed(tx, |row| seen_customers.rows.contains(row))?;
            unlisted::note_list_history(
                tx,
                &list_history,
                &rounds.report.phrases(),
                rounds.report.ignores_page,
            )
        });
        closed.await?;
        Ok(self.read_mirror(|view| view.held_count()).await?)
    }

    /// Logs and returns the fields that changed in many customers, with the number of customers.
    /// Their names are masked.
    fn busy_fields(&self, seen_customers: &SeenCustomers) -> BTreeMap<String, u64> {
        let seen = seen_customers.rows.len();
        let mut busy = BTreeMap::new();
        for (field, customers) in seen_customers.fields.busy(seen) {
            let field = self.masker.text(field);
            tracing::warn!(
                field,
                customers,
                "the field {field} changed in {customers} of {seen} customers: if it changes on every read, each sweep adds \
                 as many log entries"
            );
            busy.insert(field, customers);
        }
        busy
    }
}

/// The log at the start of a sweep, and the time now.
#[derive(Clone, Copy)]
struct SweepStart {
    head_before: i64,
    now: Timestamp,
    consistency: Consistency,
}

/// Plans to remove the sources of the customers in these rows, up to the limits of one step.
/// Returns the number of rows that are done.
fn plan_null_sources(
    view: &mut View<'_>,
    rows: &[i64],
    request: &RequestMark,
    start: SweepStart,
) -> Result<usize, StoreError> {
    let (mut planned, mut bytes) = (0, 0);
    for row in rows.iter().take(ROWS_AT_ONCE) {
        planned += 1;
        bytes += plan_null_source(view, *row, request, start)?;
        if bytes >= BYTES_AT_ONCE {
            break;
        }
    }
    Ok(planned)
}

/// Plans to remove the source of the customer in this row, unless the log has a newer state of it.
/// Returns the size of its body in bytes; 0 if nothing is planned.
fn plan_null_source(
    view: &mut View<'_>,
    row: i64,
    request: &RequestMark,
    start: SweepStart,
) -> Result<usize, StoreError> {
    let SweepStart { head_before, now, consistency } = start;
    let Some(id) = view.id_of(row)? else { return Ok(0) };
    if request.is_before_push_of(&id) {
        return Ok(0);
    }
    let stored = view.find(&id)?.filter(|stored| stored.mirror_row.is_live());
    // The list may have shown the state before the last change. The next sweep shows it again.
    let changed_at = stored.as_ref().and_then(|stored| time::read(&stored.mirror_row.changed_at));
    // An entry with a time in the future was logged while the clock was wrong.
    let may_be_behind = |at: Timestamp| at <= now && consistency.may_be_behind(at, request.requested_at());
    let seq = stored.as_ref().map_or(0, |stored| stored.mirror_row.seq);
    let is_newer = seq > head_before && !view.is_by_list(&id, seq)?;
    if is_newer || changed_at.is_some_and(may_be_behind) {
        return Ok(0);
    }
    let without = stored.as_ref().and_then(|stored| comparison::without_source(&stored.mirror_row));
    let Some(customer) = without else { return Ok(0) };
    let bytes = customer.body().len();
    view.record(ChangeKind::Updated, customer, stored, None)?;
    Ok(bytes)
}

/// Plans to hold these deletions in a new hold. Deletions that an operator has decided, and
/// existing holds, are left unchanged.
pub(super) fn plan_hold(view: &mut View<'_>, rows: &[i64], reason: HoldReason) -> Result<(), StoreError> {
    let (mut held, mut superseding) = (Vec::new(), Vec::new());
    for &row in rows {
        // During the sweep an operator may have decided the deletion, or our own push may have
        // deleted the customer.
        let Some(customer) = view.live_id_of(row)? else { continue };
        if view.is_decided(&customer)? {
            continue;
        }
        match view.hold_reason(row, &customer)? {
            Some(known) if known == reason || reason == HoldReason::Unproven => continue,
            // An unproven hold becomes one that an operator must decide.
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
