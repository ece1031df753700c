//! The report of a drain, and the log lines of settled attempts.

use std::fmt;

use super::Signals;
use crate::metrics;
use komoju_core::intent::lifecycle::{IntentState, Lifecycle};
use komoju_core::open_intent::OpenIntent;
use komoju_core::plan::settle::Settlement;
use komoju_core::{Origin, Tally};

/// What a drain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// How many attempts were made.
    pub attempts: u64,
    /// How many intents are done.
    pub done: u64,
    /// How many were rejected.
    pub rejected: u64,
    /// How many wait for another attempt.
    pub waiting: u64,
    /// How many are parked.
    pub parked: u64,
    /// Whether the key was refused. Then nothing more was tried.
    pub key_refused: bool,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, rejected, waiting, parked, .. } = self;
        write!(f, "{done} done")?;
        for (count, what) in
            [(rejected, "rejected"), (waiting, "wait for another attempt"), (parked, "parked")]
        {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// A settled attempt, for the log, the metrics and the sum of a drain.
#[derive(Debug)]
pub(super) struct AttemptReport {
    pub(super) position: i64,
    id: String,
    summary: String,
    life: Lifecycle,
    reason: Option<String>,
    is_key_refused: bool,
    is_customer_missing: bool,
    recorded: Tally,
}

impl AttemptReport {
    pub(super) fn new(open: &OpenIntent, settlement: &Settlement, recorded: Tally) -> Self {
        Self {
            position: open.position,
            id: open.id.clone(),
            summary: open.summary(),
            life: settlement.life,
            reason: settlement.update.reason.clone(),
            is_key_refused: settlement.is_key_refused,
            is_customer_missing: settlement.is_customer_missing,
            recorded,
        }
    }

    /// Logs and counts it, and signals the tasks that wait for it.
    pub(super) fn report(&self, drained: &mut Drained, signals: &Signals) {
        metrics::attempt(self.life.state);
        metrics::changes(Origin::Intent, &self.recorded);
        drained.attempts += 1;
        drained.key_refused |= self.is_key_refused;
        self.log(drained);
        if self.is_key_refused {
            let why = self.reason.as_deref().unwrap_or_default();
            tracing::error!(
                "the API refused the key for a push: {why}; nothing more is pushed until a key is accepted"
            );
            signals.refused.notify_one();
        }
        if self.is_customer_missing {
            signals.look.notify_one();
        }
        signals.settled.notify_one();
    }

    fn log(&self, drained: &mut Drained) {
        let Self { id, summary, life, .. } = self;
        let why = self.reason.as_deref().unwrap_or_default();
        match life.state {
            IntentState::Done => {
                drained.done += 1;
                tracing::info!(intent = %id, "intent {id}: {summary} is done");
            }
            IntentState::Rejected => {
                drained.rejected += 1;
                tracing::warn!(intent = %id, "intent {id}: {summary} was rejected: {why}");
            }
            IntentState::Parked => {
                drained.parked += 1;
                tracing::warn!(intent = %id, "intent {id}: {summary} is parked and waits for an operator: {why}");
            }
            _ => {
                drained.waiting += 1;
                tracing::warn!(intent = %id, attempts = life.attempts, "intent {id}: {summary} waits for another attempt: {why}");
            }
        }
    }
}
