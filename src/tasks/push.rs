//! Push: sends the intents of the outbox. The intents of one customer are sent in order.
//!
//! ```text
//!   commit ─▶ settles finished attempts, holds deletes, claims due intents     one transaction
//!     ▲            │ claimed
//!     │            ▼
//!     └ finished ◀─ attempt ─▶ next_step: read, commit or send, one step at a time
//! ```
//!
//! Nothing is sent before its claim is committed. Attempts that end and attempts that begin share a
//! commit. So many attempts cost few commits if the database is slower than the API.
//! `komoju_core::plan` makes every decision: [`attempt`] and [`settle`].
//!
//! [`attempt`]: komoju_core::plan::attempt
//! [`settle`]: komoju_core::plan::settle

mod attempt;
mod commit;
mod report;
mod upkeep;
mod worker;

pub use report::DrainSummary;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use worker::{CommitBatcher, WorkerMode};

use super::InFlightPushes;
use crate::clock::Clock;
use crate::remote::{PushRemote, Remote};
use crate::secret::SecretKey;
use crate::store::outbox::engine;
use crate::store::{Store, StoreError};
use komoju_core::format::count;
use komoju_core::park_timer::Moment;
use komoju_core::plan::lag::Consistency;
use komoju_core::time;

/// AFTER_BUSY controls how long pushing pauses when another program keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// The settings of the pusher.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// Whether anything is pushed.
    pub enabled: bool,
    /// The largest number of attempts in flight at the same time.
    pub max_concurrent_requests: usize,
    /// The number of customers to request on each page when an attempt reads the list.
    pub per_page: u32,
    /// The number of unapproved deletes, open or sent within the last hour, above which queued
    /// deletes wait for an operator.
    pub hold_deletes_over: u64,
    /// How long after its first attempt an unsettled intent is parked.
    pub park_after: SignedDuration,
    /// The metadata key in which a create sends the id of its intent.
    pub reconcile_tag: Option<String>,
    /// How long KOMOJU's reads may lag behind its writes.
    pub consistency: Consistency,
    /// The seed of the jitter. Keys do not depend on it.
    pub seed: u64,
}

/// Notifications between the pusher and other tasks.
#[derive(Debug, Default)]
pub struct Signals {
    /// Wakes the pusher: another task committed something, or an obstacle is gone.
    pub wake: Notify,
    /// The API refused the key.
    pub refused: Notify,
    /// A sweep is wanted between two ticks.
    pub extra_sweep: Notify,
    /// Intents were settled.
    pub settled: Notify,
    /// Hints were stored: customers are to be requested.
    pub hinted: Notify,
}

/// The push task.
pub struct Pusher<R> {
    store: Arc<Store>,
    remote: Arc<R>,
    key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    settings: PushSettings,
    stop: CancellationToken,
    in_flight: Arc<InFlightPushes>,
    signals: Arc<Signals>,
    rng: Mutex<StdRng>,
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// A pusher. It does nothing until one of its methods is called.
    #[expect(clippy::too_many_arguments, reason = "each argument is an independent dependency")]
    pub fn new(
        store: Arc<Store>,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: PushSettings,
        stop: CancellationToken,
        in_flight: Arc<InFlightPushes>,
        signals: Arc<Signals>,
    ) -> Self {
        let rng = Mutex::new(StdRng::seed_from_u64(settings.seed));
        Self { store, remote, key, clock, settings, stop, in_flight, signals, rng }
    }

    /// Recovers after a crash or a failure: intents that were being sent are due at once. Also
    /// stores whether pushing is enabled, for the doors.
    pub async fn recover(&self) -> Result<(), StoreError> {
        self.in_flight.clear();
        let (at, enabled) = (time::written(self.clock.now()), self.settings.enabled);
        let recovered = self.store.write(move |tx| {
            engine::set_enabled(tx, enabled)?;
            Ok((engine::import_untracked(tx)?, engine::interrupt(tx, &at)?))
        });
        let (imported, interrupted) = recovered.await?;
        if imported > 0 {
            tracing::warn!(
                imported,
                "imported {} that bypassed the triggers of this database",
                count(imported as u64, "intent")
            );
        }
        if interrupted > 0 {
            tracing::warn!(
                intents = interrupted,
                "the last process ended while it sent {}: retrying",
                count(interrupted as u64, "intent")
            );
        }
        Ok(())
    }

    /// Attempts each due intent at most once, including those that become due meanwhile.
    pub async fn drain(&self) -> Result<DrainSummary, StoreError> {
        CommitBatcher::new(self, WorkerMode::Drain).run().await
    }

    /// Attempts each intent that becomes due, until the stop token is cancelled.
    pub async fn serve(&self) -> Result<DrainSummary, StoreError> {
        CommitBatcher::new(self, WorkerMode::Serve).run().await
    }

    /// Wipes copies of tokens and erased data, and attempts nothing.
    pub async fn only_wipe(&self) -> Result<(), StoreError> {
        CommitBatcher::new(self, WorkerMode::Drain).end().await
    }

    fn moment(&self) -> Moment {
        commit::moment(&*self.clock)
    }

    /// Returns a random number from 0 to 1.
    fn roll(&self) -> f64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
