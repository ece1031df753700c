//! The mirror as a planner reads it: the rows of the database, changed by the planned writes that
//! are not applied yet.
//!
//! A step plans against a [`View`] with an empty [`Overlay`]. If a customer occurs twice in one
//! step, the second plan uses the state that the first one leaves. A dry run applies nothing and
//! keeps one overlay for the whole pass.

mod notes;
mod overlay;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::store::log::changes::{self, ChangeContext};
use crate::store::log::mirror::{self, StoredCustomer};
use crate::store::log::unchanged::{CacheHit, FingerprintWindow};
use crate::store::log::{lag, unlisted};
use crate::store::state::account::{self, BoundAccount};
use crate::store::{Conn, StoreError};
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::lag::{Consistency, RecentChange};
use komoju_core::plan::writes::{Write, WritePlan};
use komoju_core::{
    ChangeEntry, ChangeKind, Customer, CustomerId, MirrorRow, Origin, RawCustomer, Source, time,
};

pub(super) use overlay::Overlay;
use overlay::{PlannedCustomer, digest};

/// The mirror with an overlay, and the planned writes.
pub(super) struct View<'a> {
    conn: &'a Conn,
    cause: &'a ChangeContext,
    overlay: &'a mut Overlay,
    writes: Vec<Write>,
}

impl<'a> View<'a> {
    /// Returns a view of the mirror with this overlay. Planned changes get the origin and the time
    /// of `cause`.
    pub(super) fn new(conn: &'a Conn, cause: &'a ChangeContext, overlay: &'a mut Overlay) -> Self {
        Self { conn, cause, overlay, writes: Vec::new() }
    }

    /// Returns the database, for tables that no plan changes.
    pub(super) fn conn(&self) -> &'a Conn {
        self.conn
    }

    /// Returns the planned writes.
    pub(super) fn into_plan(self) -> WritePlan {
        WritePlan(self.writes)
    }

    /// Returns the customer with this id, live or deleted.
    pub(super) fn find(&self, id: &CustomerId) -> Result<Option<StoredCustomer>, StoreError> {
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

    /// Returns the id in this row of the mirror, if its customer is live.
    pub(super) fn live_id_of(&self, row: i64) -> Result<Option<CustomerId>, StoreError> {
        let id = mirror::live_id_of(self.conn, row)?;
        Ok(id.filter(|id| !self.is_planned_deleted(id)))
    }

    /// Returns whether a deletion of this customer is planned and not applied.
    pub(super) fn is_planned_deleted(&self, id: &CustomerId) -> bool {
        self.overlay.kept.get(id).is_some_and(|planned| !planned.stored.mirror_row.is_live())
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
        filter: mirror::LiveFilter,
    ) -> Result<Vec<CustomerId>, StoreError> {
        let mut ids = mirror::live_from(self.conn, row, count, filter)?;
        ids.retain(|id| !self.is_planned_deleted(id));
        Ok(ids)
    }

    /// Returns the largest row number, planned customers included.
    pub(super) fn last_row(&self) -> Result<i64, StoreError> {
        Ok(mirror::last_row(self.conn)? + self.overlay.created)
    }

    /// Returns the row of a listed customer, if its text is unchanged.
    pub(super) fn cache_hit(
        &self,
        unchanged: &mut FingerprintWindow,
        listed: &RawCustomer,
    ) -> Result<Option<CacheHit>, StoreError> {
        if let Some(planned) = self.overlay.kept.get(listed.id()) {
            let known = planned.listed.filter(|(fingerprint, _)| *fingerprint == listed.fingerprint());
            return Ok(known.map(|(_, source)| CacheHit { row: planned.stored.row, source }));
        }
        // The content of this planned customer is not kept, so it cannot be compared again.
        if !self.overlay.dropped.is_empty()
            && let Some(dropped) = self.overlay.dropped.get(&digest(listed.id()))
        {
            return Ok(Some(*dropped));
        }
        unchanged.lookup(self.conn, listed)
    }

    /// Returns the customer's newest log entries: at least all that may be newer than a read that
    /// was requested at `requested_at`.
    pub(super) fn recent(
        &self,
        id: &CustomerId,
        stored: &StoredCustomer,
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

    /// Returns whether a sweep recorded this entry of this customer from the list.
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

    /// Returns the rows of unlisted customers that answered a request, each with the sweep of its
    /// last answer.
    pub(super) fn verified(&self) -> Result<HashMap<i64, i64>, StoreError> {
        let mut verified = unlisted::verified(self.conn)?;
        verified.extend(&self.overlay.verified);
        Ok(verified)
    }

    /// Returns the account, once a key is bound.
    pub(super) fn account(&self) -> Result<Option<BoundAccount>, StoreError> {
        match &self.overlay.account {
            Some(planned) => Ok(Some(planned.clone())),
            None => account::load(self.conn),
        }
    }
}

/// Changes.
impl View<'_> {
    /// Plans to record a change of a customer that exists, and returns its row.
    pub(super) fn record(
        &mut self,
        kind: ChangeKind,
        customer: Customer,
        stored: Option<StoredCustomer>,
        listed: Option<(Fingerprint, Source)>,
    ) -> Result<i64, StoreError> {
        let row = match &stored {
            Some(stored) => stored.row,
            None => self.next_row()?,
        };
        let before = stored.as_ref().and_then(|stored| stored.mirror_row.body.clone());
        self.change(kind, customer.id(), Some(customer.body()), row, stored, listed)?;
        self.writes.push(Write::Record { kind, customer, before, row, listed });
        Ok(row)
    }

    /// Plans to record that a customer is gone.
    pub(super) fn delete(&mut self, id: &CustomerId) -> Result<(), StoreError> {
        let stored = self.find(id)?;
        self.overlay.ended_holds.insert(id.clone());
        if let Some(stored) = stored {
            let before = stored.mirror_row.body.clone();
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
        stored: Option<StoredCustomer>,
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
            None => (Vec::new(), stored.as_ref().map_or(0, |stored| stored.mirror_row.seq)),
        };
        let mirror_row = stored.map(|stored| stored.mirror_row);
        // A tombstone is no state that a read can show.
        let live = mirror_row.as_ref().filter(|mirror_row| mirror_row.is_live());
        let replaced = live.and_then(|mirror_row| mirror_row.body.clone());
        let at = time::read(&entry.observed_at).unwrap_or(Timestamp::MIN);
        added.push(RecentChange { kind, origin: self.cause.origin, at, replaced });
        let Some(mirror_row) = MirrorRow::fold(mirror_row, &entry)? else { return Ok(()) };
        self.overlay.count(kind, self.cause.origin);
        let planned =
            PlannedCustomer { stored: StoredCustomer { row, mirror_row }, added, logged_seq, listed };
        self.overlay.keep(planned, id.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::file::open;

    #[test]
    fn planned_customer_is_unchanged_only_while_its_text_is_the_same() {
        let conn = open::in_memory();
        let cause = ChangeContext {
            observed_at: "2026-06-01T00:00:00.000Z".into(),
            origin: Origin::Sweep,
            pass_id: None,
            intent_id: None,
        };
        let mut overlay = Overlay::default();
        let mut view = View::new(&conn, &cause, &mut overlay);
        let listed = |email: &str| RawCustomer::from_value(&json!({"id": "a", "email": email})).unwrap();
        let first = listed("first@example.com");
        let known = Some((first.fingerprint(), Source::Absent));
        let row = view.record(ChangeKind::Created, first.read().unwrap(), None, known).unwrap();
        let hit = |raw: &RawCustomer| view.cache_hit(&mut FingerprintWindow::default(), raw).unwrap();
        assert_eq!(hit(&first), Some(CacheHit { row, source: Source::Absent }));
        assert_eq!(hit(&listed("second@example.com")), None, "the second change must be planned, too");
    }
}
