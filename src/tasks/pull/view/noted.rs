//! What a planner reads and plans besides changes: holds, rechecks and unreadable customers.

use jiff::Timestamp;

use super::View;
use crate::store::StoreError;
use crate::store::log::holds::{self, End};
use crate::store::log::{lag, mirror, unreadable};
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::lag::DeferredRead;
use komoju_core::plan::rows::RowSet;
use komoju_core::plan::writes::Write;
use komoju_core::{Customer, CustomerId, Source, Unreadable};

/// Holds.
impl View<'_> {
    /// Returns whether a deletion of this customer is held, or was decided and has not ended yet.
    pub(in super::super) fn is_unsettled(&self, id: &CustomerId) -> Result<bool, StoreError> {
        Ok(!self.overlay.ended_holds.contains(id) && holds::is_unsettled(self.conn, id)?)
    }

    /// Returns why the deletion of the customer in this row is held, if it is.
    pub(in super::super) fn held_because(
        &self,
        row: i64,
        id: &CustomerId,
    ) -> Result<Option<HoldReason>, StoreError> {
        match self.overlay.held.get(&row) {
            Some(reason) => Ok(Some(*reason)),
            None if self.overlay.ended_holds.contains(id) => Ok(None),
            None => holds::held_because(self.conn, id),
        }
    }

    /// Returns whether an operator has decided about this customer, and that has not ended yet.
    pub(in super::super) fn is_decided(&self, id: &CustomerId) -> Result<bool, StoreError> {
        Ok(!self.overlay.ended_holds.contains(id) && holds::is_decided(self.conn, id)?)
    }

    /// Returns up to `count` customers whose deletion an operator approved and that were not settled since, after `after` by id.
    pub(in super::super) fn approved(&self, after: &str, count: u32) -> Result<Vec<CustomerId>, StoreError> {
        let ended = &self.overlay.ended_holds;
        let most = count.saturating_add(u32::try_from(ended.len()).unwrap_or(u32::MAX));
        let mut approved = holds::approved(self.conn, after, most)?;
        approved.retain(|id| !ended.contains(id));
        approved.truncate(count as usize);
        Ok(approved)
    }

    /// Returns how many customers [`View::approved`] would return.
    pub(in super::super) fn approved_count(&self) -> Result<u64, StoreError> {
        match self.overlay.ended_holds.is_empty() {
            true => holds::approved_count(self.conn),
            false => Ok(self.approved("", u32::MAX)?.len() as u64),
        }
    }

    /// Returns how many customers wait for a decision.
    pub(in super::super) fn held_count(&self) -> Result<u64, StoreError> {
        let mut count = holds::held_count(self.conn)?;
        for id in &self.overlay.ended_holds {
            count -= u64::from(holds::held_because(self.conn, id)?.is_some());
        }
        for row in self.overlay.held.keys() {
            let Some(id) = mirror::id_of(self.conn, *row)? else { continue };
            let is_counted =
                !self.overlay.ended_holds.contains(&id) && holds::held_because(self.conn, &id)?.is_some();
            count += u64::from(!is_counted);
        }
        Ok(count)
    }

    /// Removes the rows of customers whose hold has ended.
    pub(in super::super) fn remove_ended_holds(&self, rows: &mut RowSet) -> Result<(), StoreError> {
        for id in &self.overlay.ended_holds {
            if let Some(stored) = self.find(id)? {
                rows.remove(stored.row);
            }
        }
        Ok(())
    }

    /// Plans to end the hold of this customer, or the decision about it, where there is one.
    pub(in super::super) fn end_hold(&mut self, id: &CustomerId, end: End) -> Result<(), StoreError> {
        if self.is_unsettled(id)? {
            self.overlay.ended_holds.insert(id.clone());
            self.writes.push(Write::EndHold(id.clone(), end));
        }
        Ok(())
    }

    /// Plans to hold the deletions of the customers in these rows, some of which supersede an earlier hold.
    pub(in super::super) fn hold(&mut self, rows: Vec<i64>, superseding: Vec<i64>, reason: HoldReason) {
        if self.overlay.is_of_dry_run() {
            self.overlay.held.extend(rows.iter().map(|row| (*row, reason)));
        }
        self.writes.push(Write::Hold { rows, superseding, reason });
    }
}

/// What is noted about customers.
impl View<'_> {
    /// Plans to note how the list shows the customer in this row, which is unchanged.
    pub(in super::super) fn note_listed(&mut self, row: i64, fingerprint: Fingerprint, source: Source) {
        self.writes.push(Write::NoteListed { row, fingerprint, source });
    }

    /// Plans to note that a customer, which this sweep did not list, exists.
    pub(in super::super) fn note_verified(&mut self, id: &CustomerId, sweep: i64) -> Result<(), StoreError> {
        if let Some(stored) = self.find(id)? {
            self.overlay.verified.insert(stored.row, sweep);
        }
        self.writes.push(Write::NoteVerified { id: id.clone(), sweep });
        Ok(())
    }

    /// Plans to note an unreadable customer; returns whether it is new.
    pub(in super::super) fn note_unreadable(
        &mut self,
        bad: &Unreadable,
        reason: &str,
        occurrence: unreadable::UnreadableOccurrence,
    ) -> Result<bool, StoreError> {
        let row = unreadable::row_of(self.conn, bad)?;
        let has_room = unreadable::has_room(self.conn)?;
        let is_new = row.sweeps.is_none() && has_room && !self.overlay.unreadable.contains(&row);
        if row.sweeps.is_some() || has_room {
            self.overlay.unreadable.insert(row);
        }
        self.writes.push(Write::NoteUnreadable { bad: bad.clone(), reason: reason.to_owned(), occurrence });
        Ok(is_new)
    }

    /// Returns how many unreadable customers are new after the pass. A dry run counts as its end, which it does not write, would leave
    /// them; `is_whole` says whether that is the end of a whole sweep.
    pub(in super::super) fn new_unreadable(&self, is_whole: bool) -> Result<u64, StoreError> {
        if !self.overlay.is_of_dry_run() {
            return unreadable::count_new(self.conn);
        }
        let met = self.overlay.unreadable.iter();
        let is_new = |row: &&unreadable::Row| match row.sweeps {
            None => true,
            Some(sweeps) => is_whole && sweeps == 0,
        };
        let known = if is_whole { 0 } else { unreadable::count_new(self.conn)? };
        Ok(known + met.filter(is_new).count() as u64)
    }
}

/// Customers that are requested again.
impl View<'_> {
    /// Plans to request a customer again, because a read of it may be older than the log.
    pub(in super::super) fn leave_out(&mut self, shown: Customer, left_out: DeferredRead) {
        let replaced = left_out.is_replaced.then(|| shown.clone());
        self.schedule(shown.id(), left_out.until, replaced);
        self.writes.push(Write::Defer(shown, left_out));
    }

    /// Plans to request a customer again at this time.
    pub(in super::super) fn read_again(&mut self, id: CustomerId, at: Timestamp) {
        self.schedule(&id, at, None);
        self.writes.push(Write::ReadAgain(id, at));
    }

    fn schedule(&mut self, id: &CustomerId, at: Timestamp, shown: Option<Customer>) {
        let rechecks = &mut self.overlay.rechecks;
        if rechecks.len() < lag::MOST_WAITING as usize {
            let known = rechecks.entry(id.clone()).or_insert((at, None));
            known.0 = known.0.max(at);
            known.1 = shown.or_else(|| known.1.take());
        }
    }

    /// Plans that a customer was requested again; returns whether `shown` is the very state that was left out.
    pub(in super::super) fn end_recheck(
        &mut self,
        id: &CustomerId,
        shown: Option<&Customer>,
    ) -> Result<bool, StoreError> {
        let planned = self.overlay.rechecks.remove(id);
        self.overlay.rechecked.insert(id.clone());
        self.writes.push(Write::EndRecheck(id.clone()));
        let Some(shown) = shown else { return Ok(false) };
        let is_planned =
            planned.and_then(|(_, left_out)| left_out).is_some_and(|left_out| left_out == *shown);
        Ok(is_planned || lag::shows_left_out(self.conn, shown)?)
    }

    /// Plans to note that reads lag longer than is configured.
    pub(in super::super) fn note_lag_exceeded(&mut self) {
        self.writes.push(Write::NoteLagExceeded);
    }

    /// Returns up to `count` customers that are due to be requested again.
    pub(in super::super) fn due(&self, now: Timestamp, count: u32) -> Result<Vec<CustomerId>, StoreError> {
        let rechecked = &self.overlay.rechecked;
        let mut due =
            lag::due(self.conn, now, count.saturating_add(u32::try_from(rechecked.len()).unwrap_or(0)))?;
        let rechecks = &self.overlay.rechecks;
        due.retain(|id| !rechecked.contains(id) && !rechecks.contains_key(id));
        let planned = rechecks.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| id);
        due.extend(planned.cloned());
        due.truncate(count as usize);
        Ok(due)
    }
}
