//! Storing what a webhook says, for the loop that requests hinted customers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::MOST_CONNECTIONS;
use crate::clock::Clock;
use crate::remote::{Http, Remote as _};
use crate::store::log::{hints, recall};
use crate::store::{Instance, Store, StoreError};
use crate::tasks::push::Signals;
use komoju_core::Event;

/// COMMIT_WITHIN controls how long a request waits for the commit of its hint.
const COMMIT_WITHIN: Duration = Duration::from_secs(2);

/// The parts of the work that change with the key.
#[derive(Clone)]
pub struct WorkInUse {
    /// The signals between the loops.
    pub signals: Arc<Signals>,
    /// The remote, whose clock is known.
    pub remote: Arc<Http>,
}

/// Stores hints, also while the work is rebuilt for another key.
pub struct HintSink {
    store: Arc<Store>,
    work: watch::Receiver<WorkInUse>,
    clock: Arc<dyn Clock>,
    /// Limits the writes in the queue: a write stays there after its request has ended.
    queue: Arc<Semaphore>,
    /// The database is locked until the store is closed, so this is the last field.
    _instance: Arc<Instance>,
}

/// Why a hint is not stored now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStored {
    #[error("as many hints as are allowed wait for the database")]
    QueueFull,
    #[error("the database was in use for 2 seconds")]
    Slow,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HintSink {
    /// Returns a sink for the database that `instance` has locked.
    pub fn new(
        store: Arc<Store>,
        instance: Arc<Instance>,
        work: watch::Receiver<WorkInUse>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let queue = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Self { store, work, clock, queue, _instance: instance }
    }

    /// Stores an event and the hint that follows, and wakes the loop that requests the customer.
    ///
    /// # Errors
    /// It may not be committed. It may also be committed later.
    pub(super) async fn store(&self, event: Event) -> Result<(), NotStored> {
        let place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| NotStored::QueueFull)?;
        // What is committed to a file that was moved away is lost.
        self.store.still_in_place()?;
        let WorkInUse { signals, remote } = self.work.borrow().clone();
        let now = self.clock.now();
        let server_now = remote.server_time().unwrap_or(now);
        let write = self.store.write(move |tx| {
            let _place = place;
            let stored = hints::store_events(tx, &[event], (now, server_now))?;
            recall::start(tx, now)?;
            // An event may report a change that a sweep has found before.
            stored.customers.iter().try_for_each(|customer| recall::match_events(tx, customer))?;
            // Here and not after the commit, because this request may have ended by then. The loops
            // read through the same store, which is after the commit.
            if stored.hinted > 0 {
                signals.hinted.notify_one();
            }
            if stored.dropped > 0 {
                signals.extra_sweep.notify_one();
            }
            tracing::debug!(new = stored.new, hinted = stored.hinted, "webhook received");
            Ok(())
        });
        tokio::select! {
            biased;
            written = write => Ok(written?),
            () = self.clock.sleep(COMMIT_WITHIN) => Err(NotStored::Slow),
        }
    }
}
