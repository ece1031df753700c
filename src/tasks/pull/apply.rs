//! Applies a plan: each write, in order. This module decides nothing.

use crate::store::log::changes::Recorder;
use crate::store::log::{holds, lag, mirror, unchanged, unlisted, unreadable};
use crate::store::{StoreError, Tx};
use komoju_core::plan::writes::{Write, WritePlan};
use komoju_core::{ChangeKind, CustomerId};

/// Applies a plan in the caller's transaction. `at` is when its cause was observed.
pub(super) fn apply(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    plan: WritePlan,
    at: &str,
) -> Result<(), StoreError> {
    plan.0.into_iter().try_for_each(|write| apply_one(tx, recorder, write, at))
}

fn apply_one(tx: &Tx<'_>, recorder: &mut Recorder<'_, '_>, write: Write, at: &str) -> Result<(), StoreError> {
    match write {
        Write::Record { kind, customer, row, listed, .. } => {
            // Do not look up a new customer: a first import would be slow.
            let before = match kind {
                ChangeKind::Created => None,
                _ => mirror::find(tx, customer.id())?,
            };
            let recorded = recorder.record(kind, &customer, before)?;
            // What the pass saw is kept by the planned row.
            if recorded != row {
                let id = customer.id();
                let why = format!("customer {id} is in row {recorded}, and was planned for row {row}");
                return Err(StoreError::Impossible(why));
            }
            match listed {
                Some((fingerprint, source)) => unchanged::note(tx, row, &fingerprint, source),
                None => Ok(()),
            }
        }
        Write::Delete { id, .. } => recorder.record_deleted(&id),
        Write::NoteListed { row, fingerprint, source } => unchanged::note(tx, row, &fingerprint, source),
        Write::Defer(shown, left_out) => lag::leave_out(tx, &shown, left_out),
        Write::ReadAgain(id, at) => lag::schedule(tx, &id, at, None),
        Write::EndRecheck(id) => lag::end(tx, &id),
        Write::NoteLagExceeded => lag::note_exceeded(tx, at),
        Write::NoteVerified { id, sweep } => unlisted::note_verified(tx, id.as_str(), sweep, at),
        Write::NoteUnreadable { bad, reason, occurrence } => {
            unreadable::note(tx, &bad, &reason, &occurrence).map(drop)
        }
        Write::EndHold(id, end) => holds::end(tx, &id, end),
        Write::Hold { rows, superseding, reason } => {
            each_id(tx, &superseding, |id| holds::release(tx, id))?;
            let hold = holds::open(tx, recorder.pass_id().unwrap_or_default(), at, reason)?;
            each_id(tx, &rows, |id| holds::add(tx, hold, id))
        }
    }
}

fn each_id(
    tx: &Tx<'_>,
    rows: &[i64],
    work: impl Fn(&CustomerId) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    rows.iter().try_for_each(|row| mirror::id_of(tx, *row)?.map_or(Ok(()), |id| work(&id)))
}
