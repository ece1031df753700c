//! What planned writes change, kept until they are applied; a dry run keeps it for the whole pass.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use crate::store::log::mirror::Stored;
use crate::store::log::unchanged::Known;
use crate::store::log::unreadable;
use crate::store::state::account::Account;
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::lag::RecentChange;
use komoju_core::{ChangeKind, Customer, CustomerId, Origin, Source};

/// KEPT_BYTES controls how much content of planned customers an overlay keeps. A dry run of a first import plans every customer:
/// of those beyond this only an id's digest and a row are kept.
const KEPT_BYTES: usize = 32 << 20;

/// ROW_GAP controls how far the rows of a dry run's new customers are from those of the mirror, to which a daemon may add meanwhile.
const ROW_GAP: i64 = 1 << 20;

/// The state that planned writes leave.
#[derive(Debug, Default)]
pub(in super::super) struct Overlay {
    /// How far its new rows are from those of the mirror.
    pub(super) row_gap: i64,
    /// The row before its first new one.
    pub(super) last_row: Option<i64>,
    /// How many customers it creates.
    pub(super) created: i64,
    /// The last entry of the log before its first one, and how many it adds.
    pub(super) head: Option<i64>,
    pub(super) entries: i64,
    /// How many more customers are live than in the mirror.
    pub(super) live: i64,
    /// How many deletions it records, and how many of them by a sweep.
    pub(super) deleted: u64,
    pub(super) deleted_by_sweep: u64,
    pub(super) kept: HashMap<CustomerId, PlannedCustomer>,
    /// The ids of `kept`, the oldest first, and how many bytes of content they have.
    pub(super) order: VecDeque<CustomerId>,
    pub(super) bytes: usize,
    /// Customers whose content is not kept, by a digest of the id.
    pub(super) dropped: HashMap<u64, Known>,
    pub(super) ended_holds: HashSet<CustomerId>,
    /// The rows that a dry run would hold. A real pass reads them from the database after the step.
    pub(super) held: HashMap<i64, HoldReason>,
    /// In which sweep a customer in this row answered.
    pub(super) verified: HashMap<i64, i64>,
    /// Customers that are to be requested again: when, and the state that was left out.
    pub(super) rechecks: BTreeMap<CustomerId, (Timestamp, Option<Customer>)>,
    pub(super) rechecked: HashSet<CustomerId>,
    pub(super) unreadable: HashSet<unreadable::Row>,
    /// The account that a write would leave.
    pub(in super::super) account: Option<Account>,
}

/// A customer that a planned write changes.
#[derive(Clone, Debug)]
pub(super) struct PlannedCustomer {
    pub(super) stored: Stored,
    /// What the plan adds to its log, the oldest first.
    pub(super) added: Vec<RecentChange>,
    /// The last entry of its log in the database.
    pub(super) logged_seq: i64,
    pub(super) listed: Option<(Fingerprint, Source)>,
}

impl PlannedCustomer {
    fn size(&self) -> usize {
        self.stored.standing.body.as_ref().map_or(0, String::len)
    }
}

impl Overlay {
    /// An overlay for a whole pass that applies nothing.
    pub(in super::super) fn of_dry_run() -> Self {
        Self { row_gap: ROW_GAP, ..Self::default() }
    }

    /// Returns whether nothing is applied.
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

    /// Takes the customer with this id out, to be changed and kept again.
    pub(super) fn take(&mut self, id: &CustomerId) -> Option<PlannedCustomer> {
        let taken = self.kept.remove(id)?;
        self.bytes -= taken.size();
        self.order.retain(|kept| kept != id);
        Some(taken)
    }

    /// Keeps a changed customer. A dry run drops the content of the oldest beyond [`KEPT_BYTES`].
    pub(super) fn keep(&mut self, customer: PlannedCustomer, id: CustomerId) {
        self.bytes += customer.size();
        self.order.push_back(id.clone());
        self.kept.insert(id, customer);
        while self.is_of_dry_run() && self.bytes > KEPT_BYTES {
            let Some(id) = self.order.pop_front() else { break };
            let Some(dropped) = self.kept.remove(&id) else { continue };
            self.bytes -= dropped.size();
            let source = dropped.listed.map_or(Source::Absent, |(_, source)| source);
            self.dropped.insert(digest(&id), Known { row: dropped.stored.row, source });
        }
    }
}

/// Identifies a customer whose content is not kept.
pub(super) fn digest(id: &CustomerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
