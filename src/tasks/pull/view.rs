//! The mirror as a planner reads it: the rows of the database, changed by the writes that are planned
//! and not applied.
//!
//! A step plans against a [`View`] whose [`Overlay`] is empty at first, so that a customer that occurs
//! twice in one step is planned the second time against the state that the first plan leaves. A dry run
//! applies nothing and keeps one overlay for the whole pass.

mod noted;
mod overlay;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::store::log::changes::{self, Cause};
use crate::store::log::mirror::{self, Stored};
use crate::store::log::unchanged::{Known, Unchanged};
use crate::store::log::{lag, unlisted};
use crate::store::state::account::{self, Account};
use crate::store::{Conn, StoreError};
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::lag::{Consistency, RecentChange};
use komoju_core::plan::writes::{Write, WritePlan};
use komoju_core::{
    ChangeEntry, ChangeKind, Customer, CustomerId, MirrorRow, Origin, RawCustomer, Source, time,
};

pub(super) use overlay::Overlay;
use overlay::{PlannedCustomer, digest};

/// The mirror with an overlay, and the writes that a planner adds to both.
pub(super) struct View<'a> {
    conn: &'a Conn,
    cause: &'a Cause,
    overlay: &'a mut Overlay,
    writes: Vec<Write>,
}

impl<'a> View<'a> {
    /// The mirror under this overlay; what is planned is seen for the reason and at the time of `cause`.
    pub(super) fn new(conn: &'a Conn, cause: &'a Cause, overlay: &'a mut Overlay) -> Self {
        Self { conn, cause, overlay, writes: Vec::new() }
    }

    /// The database itself, for what no plan changes.
    pub(super) fn conn(&self) -> &'a Conn {
        self.conn
    }

    /// The writes that were planned.
    pub(super) fn into_plan(self) -> WritePlan {
        WritePlan(self.writes)
    }

    /// Returns the customer with this id, live or deleted.
    pub(super) fn find(&self, id: &CustomerId) -> Result<Option<Stored>, StoreError> {
        match self.overlay.kept.get(id) {
            Some(planned) => Ok(Some(planned.stored.clone())),
            None => mirror::find(self.conn, id),
        }
    }

    /// Returns the id in this row of the mirror.
    pub(super) fn id_of(&self, row: i64) -> Result<Option<CustomerId>, StoreError> {
        if let Some(id) = mirror::id_of(self.conn, row)? {
            return Ok(Some(id));
        }
        let planned = self.overlay.kept.iter().find(|(_, planned)| planned.stored.row == row);
        Ok(planned.map(|(id, _)| id.clone()))
    }

    /// Returns the id in this row of the mirror, where its customer is live.
    pub(super) fn live_id_of(&self, row: i64) -> Result<Option<CustomerId>, StoreError> {
        let id = mirror::live_id_of(self.conn, row)?;
        Ok(id.filter(|id| !self.is_planned_deleted(id)))
    }

    /// Returns whether a deletion of this customer is planned and not applied.
    pub(super) fn is_planned_deleted(&self, id: &CustomerId) -> bool {
        self.overlay.kept.get(id).is_some_and(|planned| !planned.stored.standing.is_live())
    }

    /// Returns how many customers are live.
    pub(super) fn live_count(&self) -> Result<u64, StoreError> {
        Ok(mirror::live_count(self.conn)?.saturating_add_signed(self.overlay.live))
    }

    /// Returns up to `count` live customers from about this row on.
    pub(super) fn live_from(
        &self,
        row: i64,
        count: usize,
        among: mirror::Among,
    ) -> Result<Vec<CustomerId>, StoreError> {
        let mut ids = mirror::live_from(self.conn, row, count, among)?;
        ids.retain(|id| !self.is_planned_deleted(id));
        Ok(ids)
    }

    /// Returns the largest row number, planned customers included.
    pub(super) fn last_row(&self) -> Result<i64, StoreError> {
        Ok(mirror::last_row(self.conn)? + self.overlay.created)
    }

    /// Recognises a listed customer, or not.
    pub(super) fn recognise(
        &self,
        unchanged: &mut Unchanged,
        listed: &RawCustomer,
    ) -> Result<Option<Known>, StoreError> {
        if let Some(planned) = self.overlay.kept.get(listed.id()) {
            let known = planned.listed.filter(|(fingerprint, _)| *fingerprint == listed.fingerprint());
            return Ok(known.map(|(_, source)| Known { row: planned.stored.row, source }));
        }
        // It was planned before, and its content is not kept: it cannot be compared once more.
        if !self.overlay.dropped.is_empty()
            && let Some(dropped) = self.overlay.dropped.get(&digest(listed.id()))
        {
            return Ok(Some(*dropped));
        }
        unchanged.known(self.conn, listed)
    }

    /// Returns the customer's newest entries, at least those that a read requested at `requested_at` may be older than.
    pub(super) fn recent(
        &self,
        id: &CustomerId,
        stored: &Stored,
        requested_at: Timestamp,
        consistency: Consistency,
    ) -> Result<Vec<RecentChange>, StoreError> {
        let Some(planned) = self.overlay.kept.get(id) else {
            return lag::recent(self.conn, id, stored, requested_at, consistency);
        };
        let mut recent: Vec<RecentChange> = planned.added.iter().rev().cloned().collect();
        recent.extend(lag::history(self.conn, id, planned.logged_seq)?);
        Ok(recent)
    }

    /// Returns whether a sweep recorded this entry of this customer from what the list showed.
    pub(super) fn is_by_list(&self, id: &CustomerId, seq: i64) -> Result<bool, StoreError> {
        match self.overlay.kept.get(id) {
            Some(planned) => Ok(planned.added.last().is_some_and(|last| last.origin == Origin::Sweep)),
            None => changes::is_by_list(self.conn, seq),
        }
    }

    /// Returns how many deletions the log records after this entry.
    pub(super) fn deletions_after(&self, seq: i64) -> Result<u64, StoreError> {
        Ok(changes::deletions_after(self.conn, seq)? + self.overlay.deleted)
    }

    /// Returns how many deletions sweeps have recorded since this time.
    pub(super) fn deletions_since(&self, since: Timestamp) -> Result<u64, StoreError> {
        Ok(unlisted::deletions_since(self.conn, since)? + self.overlay.deleted_by_sweep)
    }

    /// Returns the rows of customers that answered while they were not listed, each with the sweep in which it did last.
    pub(super) fn verified(&self) -> Result<HashMap<i64, i64>, StoreError> {
        let mut verified = unlisted::verified(self.conn)?;
        verified.extend(&self.overlay.verified);
        Ok(verified)
    }

    /// Returns the account, once a key is bound.
    pub(super) fn account(&self) -> Result<Option<Account>, StoreError> {
        match &self.overlay.account {
            Some(planned) => Ok(Some(planned.clone())),
            None => account::load(self.conn),
        }
    }
}

/// Changes, and what is noted about customers.
impl View<'_> {
    /// Plans to record a change of a customer that exists, and returns its row.
    pub(super) fn record(
        &mut self,
        kind: ChangeKind,
        customer: Customer,
        stored: Option<Stored>,
        listed: Option<(Fingerprint, Source)>,
    ) -> Result<i64, StoreError> {
        let row = match &stored {
            Some(stored) => stored.row,
            None => self.next_row()?,
        };
        let before = stored.as_ref().and_then(|stored| stored.standing.body.clone());
        self.change(kind, customer.id(), Some(customer.body()), row, stored, listed)?;
        self.writes.push(Write::Record { kind, customer, before, row, listed });
        Ok(row)
    }

    /// Plans to record that a customer is gone.
    pub(super) fn delete(&mut self, id: &CustomerId) -> Result<(), StoreError> {
        let stored = self.find(id)?;
        self.overlay.ended_holds.insert(id.clone());
        if let Some(stored) = stored {
            let before = stored.standing.body.clone();
            self.change(ChangeKind::Deleted, id, None, stored.row, Some(stored), None)?;
            self.writes.push(Write::Delete { id: id.clone(), before });
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<i64, StoreError> {
        let last = match self.overlay.last_row {
            Some(last) => last,
            None => mirror::last_row(self.conn)? + self.overlay.row_gap,
        };
        self.overlay.last_row = Some(last);
        self.overlay.created += 1;
        Ok(last + self.overlay.created)
    }

    fn change(
        &mut self,
        kind: ChangeKind,
        id: &CustomerId,
        after: Option<&str>,
        row: i64,
        stored: Option<Stored>,
        listed: Option<(Fingerprint, Source)>,
    ) -> Result<(), StoreError> {
        let head = match self.overlay.head {
            Some(head) => head,
            None => changes::head(self.conn)?.seq,
        };
        self.overlay.head = Some(head);
        self.overlay.entries += 1;
        let entry = ChangeEntry {
            seq: head + self.overlay.entries,
            customer_id: id.clone(),
            kind,
            observed_at: self.cause.observed_at.clone(),
            origin: self.cause.origin,
            pass_id: self.cause.pass_id,
            intent_id: None,
            after: after.map(str::to_owned),
            redacts: None,
        };
        let (mut added, logged_seq) = match self.overlay.take(id) {
            Some(planned) => (planned.added, planned.logged_seq),
            None => (Vec::new(), stored.as_ref().map_or(0, |stored| stored.standing.seq)),
        };
        let standing = stored.map(|stored| stored.standing);
        // What a deletion leaves is no state that a read could show.
        let live = standing.as_ref().filter(|standing| standing.is_live());
        let replaced = live.and_then(|standing| standing.body.clone());
        let at = time::read(&entry.observed_at).unwrap_or(Timestamp::MIN);
        added.push(RecentChange { kind, origin: self.cause.origin, at, replaced });
        let Some(standing) = MirrorRow::fold(standing, &entry)? else { return Ok(()) };
        self.overlay.count(kind, self.cause.origin);
        let planned = PlannedCustomer { stored: Stored { row, standing }, added, logged_seq, listed };
        self.overlay.keep(planned, id.clone());
        Ok(())
    }
}
