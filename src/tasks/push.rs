//! Push: sends the intents of the outbox, each once, those of one customer in order.
//!
//! ```text
//!   commit ─▶ settles finished attempts, holds deletes, claims due intents     one transaction
//!     ▲            │ claimed
//!     │            ▼
//!     └ finished ◀─ attempt ─▶ next_step: read, commit or send, one step after the other
//! ```
//!
//! Nothing is sent before its claim is committed. Attempts that end and attempts that begin share a
//! commit, so many attempts cost few commits where the database is slower than the API. Every
//! decision is made by `komoju_core::plan`: [`attempt`] and [`settle`].
//!
//! [`attempt`]: komoju_core::plan::attempt
//! [`settle`]: komoju_core::plan::settle

mod attempt;
mod commit;
mod report;
mod upkeep;
mod worker;

pub use report::Drained;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use worker::{CommitBatcher, Until};

use super::Echoes;
use crate::clock::Clock;
use crate::remote::{PushRemote, Remote};
use crate::secret::SecretKey;
use crate::store::outbox::engine;
use crate::store::{Store, StoreError};
use komoju_core::patience::Moment;
use komoju_core::plan::lag::Consistency;
use komoju_core::time;
use komoju_core::words::count;

/// AFTER_BUSY controls how long pushing pauses when another program keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// The settings of the pusher.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// Whether anything is pushed.
    pub enabled: bool,
    /// How many intents may be under way at once.
    pub max_concurrent_requests: usize,
    /// How many customers a page should hold where the list is read.
    pub per_page: u32,
    /// How many deletes may be open, or sent within an hour, before further ones wait for an
    /// operator.
    pub hold_deletes_over: u64,
    /// How long after its first attempt an unsettled intent parks.
    pub park_after: SignedDuration,
    /// The metadata key by which creates carry their intent's id.
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
    /// The key was refused.
    pub refused: Notify,
    /// The customer of an update does not exist: a pass should look.
    pub look: Notify,
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
    echoes: Arc<Echoes>,
    signals: Arc<Signals>,
    dice: Mutex<StdRng>,
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// A pusher. It does nothing until one of its methods is called.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own, given once")]
    pub fn new(
        store: Arc<Store>,
        remote: Arc<R>,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        settings: PushSettings,
        stop: CancellationToken,
        echoes: Arc<Echoes>,
        signals: Arc<Signals>,
    ) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(settings.seed));
        Self { store, remote, key, clock, settings, stop, echoes, signals, dice }
    }

    /// Takes over from an earlier process: the intents that it was sending are due at once. Tells
    /// the doors whether pushing is on.
    pub async fn recover(&self) -> Result<(), StoreError> {
        self.echoes.nothing_is_sent();
        let (at, enabled) = (time::written(self.clock.now()), self.settings.enabled);
        let recovered = self.store.write(move |tx| {
            engine::set_enabled(tx, enabled)?;
            Ok((engine::import_untracked(tx)?, engine::interrupt(tx, &at)?))
        });
        let (imported, interrupted) = recovered.await?;
        if imported > 0 {
            tracing::warn!(
                adopted = imported,
                "{} written past the triggers of this database",
                count(imported as u64, "intent")
            );
        }
        if interrupted > 0 {
            tracing::warn!(
                intents = interrupted,
                "the last process ended while it sent {}: tried again",
                count(interrupted as u64, "intent")
            );
        }
        Ok(())
    }

    /// Attempts each due intent once, and those that become due meanwhile.
    pub async fn drain(&self) -> Result<Drained, StoreError> {
        CommitBatcher::new(self, Until::Drained).run().await
    }

    /// Attempts each intent that becomes due, until the stop token is cancelled.
    pub async fn serve(&self) -> Result<Drained, StoreError> {
        CommitBatcher::new(self, Until::Stopped).run().await
    }

    /// Attempts nothing; wipes copies of tokens and erased data.
    pub async fn only_wipe(&self) -> Result<(), StoreError> {
        CommitBatcher::new(self, Until::Drained).end().await
    }

    fn moment(&self) -> Moment {
        commit::moment(&*self.clock)
    }

    /// A random number from 0 to 1.
    fn roll(&self) -> f64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
