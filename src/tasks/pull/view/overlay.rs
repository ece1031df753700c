//! The changes of planned writes, until they are applied. A dry run keeps them for the whole pass.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use crate::store::log::mirror::StoredCustomer;
use crate::store::log::unchanged::CacheHit;
use crate::store::log::unreadable;
use crate::store::state::account::BoundAccount;
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::lag::RecentChange;
use komoju_core::{ChangeKind, Customer, CustomerId, Origin, Source};

/// KEPT_BYTES controls how much content of planned customers a dry run keeps. A first import plans
/// every customer. Of the oldest beyond this limit, only the digest of the id and the row are kept.
const KEPT_BYTES: usize = 32 << 20;

/// ROW_GAP controls the distance of a dry run's new rows from the rows of the mirror, because a
/// daemon may add rows meanwhile.
const ROW_GAP: i64 = 1 << 20;

/// The state that planned writes leave.
#[derive(Debug, Default)]
pub(in super::super) struct Overlay {
    /// The distance of its new rows from the rows of the mirror. 0 in a real pass.
    pub(super) row_gap: i64,
    /// The row before its first new one.
    pub(super) last_row: Option<i64>,
    /// The number of customers that it creates.
    pub(super) created: i64,
    /// The `seq` of the last log entry before its first one.
    pub(super) head: Option<i64>,
    /// The number of log entries that it adds.
    pub(super) entries: i64,
    /// The number of live customers compared with the mirror: positive for more.
    pub(super) live: i64,
    /// The number of deletions that it records.
    pub(super) deleted: u64,
    /// The number of these that a sweep records.
    pub(super) deleted_by_sweep: u64,
    /// The planned customers with their content.
    pub(super) kept: HashMap<CustomerId, PlannedCustomer>,
    /// The ids of `kept`, the oldest first.
    pub(super) order: VecDeque<CustomerId>,
    /// The size of the content in `kept`.
    pub(super) bytes: usize,
    /// The planned customers without their content, by the digest of the id.
    pub(super) dropped: HashMap<u64, CacheHit>,
    pub(super) ended_holds: HashSet<CustomerId>,
    /// The rows that a dry run would hold. A real pass reads these from the database after the
    /// step.
    pub(super) held: HashMap<i64, HoldReason>,
    /// The sweep in which the customer in this row answered.
    pub(super) verified: HashMap<i64, i64>,
    /// The customers to request again: the time, and the state that was left out.
    pub(super) rechecks: BTreeMap<CustomerId, (Timestamp, Option<Customer>)>,
    /// The customers that were requested again.
    pub(super) rechecked: HashSet<CustomerId>,
    pub(super) unreadable: HashSet<unreadable::UnreadableRow>,
    /// The account row after the planned write.
    pub(in super::super) account: Option<BoundAccount>,
}

/// A customer that a planned write changes.
#[derive(Clone, Debug)]
pub(super) struct PlannedCustomer {
    pub(super) stored: StoredCustomer,
    /// The log entries that the plan adds, the oldest first.
    pub(super) added: Vec<RecentChange>,
    /// The `seq` of its last log entry in the database; 0 for none.
    pub(super) logged_seq: i64,
    pub(super) listed: Option<(Fingerprint, Source)>,
}

impl PlannedCustomer {
    fn size(&self) -> usize {
        self.stored.mirror_row.body.as_ref().map_or(0, String::len)
    }
}

impl Overlay {
    /// Returns an overlay for the whole pass of a dry run.
    pub(in super::super) fn of_dry_run() -> Self {
        Self { row_gap: ROW_GAP, ..Self::default() }
    }

    /// Returns whether this is the overlay of a dry run.
    pub(super) fn is_of_dry_run(&self) -> bool {
        self.row_gap > 0
    }

    /// Counts a change.
    pub(super) fn count(&mut self, kind: ChangeKind, origin: Origin) {
        match kind {
            ChangeKind::Created | ChangeKind::Restored => self.live += 1,
            ChangeKind::Deleted => {
                self.live -= 1;
                self.deleted += 1;
                self.deleted_by_sweep += u64::from(origin == Origin::Sweep);
            }
            ChangeKind::Updated | ChangeKind::Erased => {}
        }
    }

    /// Removes and returns the customer with this id. The caller changes it and keeps it again.
    pub(super) fn take(&mut self, id: &CustomerId) -> Option<PlannedCustomer> {
        let taken = self.kept.remove(id)?;
        self.bytes -= taken.size();
        self.order.retain(|kept| kept != id);
        Some(taken)
    }

    /// Adds a changed customer. A dry run drops the oldest content beyond [`KEPT_BYTES`].
    pub(super) fn keep(&mut self, customer: PlannedCustomer, id: CustomerId) {
        self.bytes += customer.size();
        self.order.push_back(id.clone());
        self.kept.insert(id, customer);
        while self.is_of_dry_run() && self.bytes > KEPT_BYTES {
            let Some(id) = self.order.pop_front() else { break };
            let Some(dropped) = self.kept.remove(&id) else { continue };
            self.bytes -= dropped.size();
            let source = dropped.listed.map_or(Source::Absent, |(_, source)| source);
            self.dropped.insert(digest(&id), CacheHit { row: dropped.stored.row, source });
        }
    }
}

/// Returns the digest of an id. It identifies a planned customer without its content.
pub(super) fn digest(id: &CustomerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use komoju_core::MirrorRow;

    use super::*;

    /// How many customers of [`planned`] fit into [`KEPT_BYTES`].
    const FIT: i64 = 32;

    fn id(n: i64) -> CustomerId {
        CustomerId::new(format!("cus_{n}")).unwrap()
    }

    fn planned(n: i64) -> PlannedCustomer {
        let mirror_row = MirrorRow {
            body: Some("x".repeat(KEPT_BYTES / FIT as usize)),
            first_seen_at: String::new(),
            changed_at: String::new(),
            deleted_at: None,
            live_seq: n,
            seq: n,
        };
        PlannedCustomer {
            stored: StoredCustomer { row: n, mirror_row },
            added: Vec::new(),
            logged_seq: 0,
            listed: None,
        }
    }

    #[test]
    fn dry_run_keeps_the_content_of_the_newest_customers_up_to_its_limit() {
        let mut overlay = Overlay::of_dry_run();
        (0..FIT).for_each(|n| overlay.keep(planned(n), id(n)));
        assert!(overlay.dropped.is_empty());
        // The first customer changes again, so it is the newest.
        let again = overlay.take(&id(0)).unwrap();
        overlay.keep(again, id(0));
        (FIT..FIT + 10).for_each(|n| overlay.keep(planned(n), id(n)));
        let mut rows: Vec<i64> = overlay.kept.values().map(|kept| kept.stored.row).collect();
        rows.sort_unstable();
        assert_eq!(rows, [0].into_iter().chain(11..FIT + 10).collect::<Vec<_>>());
        let mut dropped: Vec<i64> = overlay.dropped.values().map(|hit| hit.row).collect();
        dropped.sort_unstable();
        assert_eq!(dropped, (1..=10).collect::<Vec<_>>());
    }
}
