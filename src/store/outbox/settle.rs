//! Applies a settlement, so that intent, attempt, change log and mirror agree after one
//! transaction. Decides nothing.

use super::{attempts, engine};
use crate::store::log::changes::{self, Cause};
use crate::store::log::mirror::Stored;
use crate::store::log::unreadable::{self, UnreadableOccurrence};
use crate::store::log::{lag, passes};
use crate::store::{StoreError, Tx};
use komoju_core::open_intent::OpenIntent;
use komoju_core::plan::settle::{CustomerChange, IntentUpdate, Recheck, Settlement};
use komoju_core::{Origin, Tally, time};

/// Writes a settlement at the time `at`, and returns what it recorded in the change log. `stored`
/// is the mirror's row of the customer.
pub fn apply(
    tx: &Tx<'_>,
    open: &OpenIntent,
    stored: Option<Stored>,
    settlement: &Settlement,
    at: &str,
) -> Result<Tally, StoreError> {
    if settlement.is_key_refused {
        passes::note_refused(tx, at)?;
    }
    if let Some(until) = settlement.throttled_until {
        passes::note_throttled(tx, Some(&time::written(until)))?;
    }
    if let Some((bad, reason)) = &settlement.unreadable {
        unreadable::note(
            tx,
            bad,
            reason,
            &UnreadableOccurrence { place: None, at: at.to_owned(), pass: None },
        )?;
    }
    let mut update = settlement.update.clone();
    let recorded = match &settlement.change {
        Some(change) => record(tx, open, stored, change, at)?,
        None => Tally::default(),
    };
    if recorded.changes() > 0 {
        update.change_seq = Some(changes::head(tx)?.seq);
    }
    if let Some(Recheck { customer, at }) = &settlement.recheck {
        lag::schedule(tx, customer, *at, None)?;
    }
    write(tx, open, settlement, update, at)?;
    Ok(recorded)
}

fn record(
    tx: &Tx<'_>,
    open: &OpenIntent,
    stored: Option<Stored>,
    change: &CustomerChange,
    at: &str,
) -> Result<Tally, StoreError> {
    let cause = Cause {
        observed_at: at.to_owned(),
        origin: Origin::Intent,
        pass_id: None,
        intent_id: Some(open.id.clone()),
    };
    let ((), recorded) = changes::recording(tx, cause, |recorder| match change {
        CustomerChange::Put(kind, after) => recorder.record(*kind, after, stored).map(drop),
        CustomerChange::Deleted(id) => recorder.record_deleted(id),
    })?;
    Ok(recorded)
}

fn write(
    tx: &Tx<'_>,
    open: &OpenIntent,
    settlement: &Settlement,
    update: IntentUpdate,
    at: &str,
) -> Result<(), StoreError> {
    let life = settlement.life;
    engine::own(tx, || {
        if let Some(end) = &settlement.attempt {
            attempts::end_attempt(tx, open, life, at, end)?;
        }
        engine::write(tx, open.position, life, update)
    })
}
