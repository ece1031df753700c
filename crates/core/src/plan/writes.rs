//! The writes of one step of a pass: a page of the list, the answer to a lookup, or the end of a
//! sweep.
//!
//! A planner reads the mirror and lists the writes. Applying the list makes no more decisions, and
//! a dry run prints it instead.

use std::fmt;

use jiff::Timestamp;

use super::absence::{HoldEnd, HoldReason};
use crate::fingerprint::Fingerprint;
use crate::format::count;
use crate::lag::DeferredRead;
use crate::unreadable::{UnreadableOccurrence, phrase};
use crate::{ChangeKind, Customer, CustomerId, Source, Tally, Unreadable};

/// One write of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Record a change of a customer that exists.
    Record {
        /// The kind: created, updated or restored.
        kind: ChangeKind,
        /// The customer as it is now.
        customer: Customer,
        /// Its body before the change; `None` if the mirror does not have the customer.
        before: Option<String>,
        /// Its row in the mirror.
        row: i64,
        /// How the list shows it; `None` if another request showed it.
        listed: Option<(Fingerprint, Source)>,
    },
    /// Record the deletion of a customer.
    Delete {
        /// The customer.
        id: CustomerId,
        /// Its last known body.
        before: Option<String>,
    },
    /// Note how the list shows the unchanged customer in this row.
    NoteListed {
        /// Its row in the mirror.
        row: i64,
        /// The fingerprint of its text.
        fingerprint: Fingerprint,
        /// What the text shows of its source.
        source: Source,
    },
    /// Request this customer again, because a read of it may be older than the log.
    Defer(Customer, DeferredRead),
    /// Request this customer again at this time.
    ReadAgain(CustomerId, Timestamp),
    /// End the wait for a recheck of this customer: it was requested again.
    EndRecheck(CustomerId),
    /// Note that reads lag longer than the configured time.
    NoteLagExceeded,
    /// Note that a customer exists although this sweep did not list it.
    NoteVerified {
        /// The customer.
        id: CustomerId,
        /// The number of the sweep.
        sweep: i64,
    },
    /// Note an unreadable customer.
    NoteUnreadable {
        /// The customer.
        bad: Unreadable,
        /// The reason, masked.
        reason: String,
        /// Where and when it was seen.
        occurrence: UnreadableOccurrence,
    },
    /// End the hold of this customer's deletion, or the operator's decision about it.
    EndHold(CustomerId, HoldEnd),
    /// Hold deletions, in a new hold. Rows take a tenth of the memory of ids, and a list that is
    /// empty by mistake holds every customer.
    Hold {
        /// The rows of the customers in the mirror.
        rows: Vec<i64>,
        /// The rows among them that are taken out of an earlier hold.
        superseding: Vec<i64>,
        /// The reason.
        reason: HoldReason,
    },
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { kind, customer, .. } => write!(f, "record {} as {kind}", customer.id()),
            Self::Delete { id, .. } => write!(f, "record {id} as deleted"),
            Self::NoteListed { row, .. } => write!(f, "note how the list shows row {row}"),
            Self::Defer(customer, deferred) => {
                write!(f, "defer {}: request it again at {:.0}", customer.id(), deferred.until)
            }
            Self::ReadAgain(id, at) => write!(f, "request {id} again at {at:.0}"),
            Self::EndRecheck(id) => write!(f, "{id} was requested again"),
            Self::NoteLagExceeded => f.write_str("note that reads lag longer than is configured"),
            Self::NoteVerified { id, .. } => write!(f, "note that {id} exists"),
            Self::NoteUnreadable { bad, reason, occurrence } => {
                let (page, position) = occurrence.place.unzip();
                let id = bad.id.as_ref().map(ToString::to_string);
                write!(f, "note that {} is unreadable: {reason}", phrase(id.as_deref(), page, position))
            }
            Self::EndHold(id, HoldEnd::Alive) => write!(f, "end the hold of {id}: it exists"),
            Self::EndHold(id, HoldEnd::Deleted) => write!(f, "end the hold of {id}: it is deleted"),
            Self::Hold { rows, reason, .. } => {
                write!(f, "hold {}: {}", count(rows.len() as u64, "deletion"), reason.phrase())
            }
        }
    }
}

/// The writes of one step, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WritePlan(pub Vec<Write>);

impl WritePlan {
    /// Returns the number of recorded changes by kind.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for write in &self.0 {
            match write {
                Write::Record { kind: ChangeKind::Created, .. } => tally.created += 1,
                Write::Record { kind: ChangeKind::Updated, .. } => tally.updated += 1,
                Write::Record { kind: ChangeKind::Restored, .. } => tally.restored += 1,
                Write::Delete { .. } => tally.deleted += 1,
                _ => {}
            }
        }
        tally
    }
}

impl fmt::Display for WritePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, write) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            write!(f, "{comma}{write}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plan_is_one_line_and_counts_its_changes() {
        let customer = |id: &str| Customer::from_value(json!({"id": id})).unwrap();
        let record =
            |id, kind| Write::Record { kind, customer: customer(id), before: None, row: 1, listed: None };
        let id = |id: &str| CustomerId::new(id).unwrap();
        let plan = WritePlan(vec![
            record("a", ChangeKind::Created),
            Write::EndHold(id("b"), HoldEnd::Alive),
            record("b", ChangeKind::Updated),
            Write::Delete { id: id("c"), before: None },
            Write::Hold { rows: vec![4, 5], superseding: vec![5], reason: HoldReason::TooMany },
        ]);
        assert_eq!(
            plan.to_string(),
            "record a as created; end the hold of b: it exists; record b as updated; record c as deleted; \
             hold 2 deletions: more customers are missing than a sweep may delete by itself"
        );
        let tally = Tally { created: 1, updated: 1, deleted: 1, ..Tally::default() };
        assert_eq!(plan.tally(), tally);
        let restored = WritePlan(vec![record("a", ChangeKind::Restored), record("b", ChangeKind::Restored)]);
        assert_eq!(restored.tally(), Tally { restored: 2, ..Tally::default() });
    }
}
