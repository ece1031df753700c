//! The report of a drain, and the log lines of settled attempts.

use std::fmt;

use super::Signals;
use crate::metrics;
use komoju_core::intent::lifecycle::{IntentState, Lifecycle};
use komoju_core::open_intent::OpenIntent;
use komoju_core::plan::settle::Settlement;
use komoju_core::{Origin, Tally};

/// The result of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainSummary {
    /// The number of attempts.
    pub attempts: u64,
    /// The number of intents that are done.
    pub done: u64,
    /// The number of intents that were rejected.
    pub rejected: u64,
    /// The number of intents that wait for another attempt.
    pub waiting: u64,
    /// The number of intents that were parked.
    pub parked: u64,
    /// Whether the API refused the key. No further attempt begins after that.
    pub key_refused: bool,
}

impl fmt::Display for DrainSummary {
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

    /// Logs and counts the attempt, and notifies the tasks that wait for its result.
    pub(super) fn report(&self, totals: &mut DrainSummary, signals: &Signals) {
        metrics::attempt(self.life.state);
        metrics::changes(Origin::Intent, &self.recorded);
        totals.attempts += 1;
        totals.key_refused |= self.is_key_refused;
        self.log(totals);
        if self.is_key_refused {
            let why = self.reason.as_deref().unwrap_or_default();
            tracing::error!(
                "the API refused the key for a push: {why}; nothing more is pushed until a key is accepted"
            );
            signals.refused.notify_one();
        }
        if self.is_customer_missing {
            signals.extra_sweep.notify_one();
        }
        signals.settled.notify_one();
    }

    fn log(&self, totals: &mut DrainSummary) {
        let Self { id, summary, life, .. } = self;
        let why = self.reason.as_deref().unwrap_or_default();
        match life.state {
            IntentState::Done => {
                totals.done += 1;
                tracing::info!(intent = %id, "intent {id}: {summary} is done");
            }
            IntentState::Rejected => {
                totals.rejected += 1;
                tracing::warn!(intent = %id, "intent {id}: {summary} was rejected: {why}");
            }
            IntentState::Parked => {
                totals.parked += 1;
                tracing::warn!(intent = %id, "intent {id}: {summary} is parked and waits for an operator: {why}");
            }
            _ => {
                totals.waiting += 1;
                tracing::warn!(intent = %id, attempts = life.attempts, "intent {id}: {summary} waits for another attempt: {why}");
            }
        }
    }
}
