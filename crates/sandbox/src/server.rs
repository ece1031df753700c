//! The state that the tasks of a sandbox share. It runs requests to the API.
//!
//! Each request runs in its own task. So it takes effect after the client has disconnected, as at a
//! real server.

use std::sync::Arc;

use hyper::Method;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::Ending;
use crate::outcome::RequestOutcome;
use crate::readings::EventAnswers;
use crate::request::{Request, Route};
use crate::world::World;

pub(crate) mod connection;
mod frozen;
mod lock;
pub(crate) mod webhooks;

use frozen::FrozenAnswers;
use lock::Lock;
pub use lock::WorldGuard;

/// The state that the tasks of a sandbox share.
#[derive(Debug)]
pub(crate) struct SandboxServer {
    lock: Lock,
    frozen: Option<FrozenAnswers>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl SandboxServer {
    /// Returns the state of a sandbox that has just started.
    pub(crate) fn new(world: World, frozen_lists: bool) -> Self {
        let frozen = frozen_lists.then(|| FrozenAnswers::new(world.latency()));
        Self { lock: Lock::new(world), frozen, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Locks the world.
    #[track_caller]
    pub(crate) fn world(&self) -> WorldGuard<'_> {
        self.lock.lock()
    }

    /// Waits until a condition holds. It is checked after each request, answer, removed fault,
    /// attempt of a delivery, and use of the readings.
    pub(crate) async fn until(&self, mut holds: impl FnMut(&World) -> bool) {
        let mut changes = self.world().changes();
        while !holds(&self.world()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Answers a request to the API with this route.
    pub(crate) async fn answer(self: Arc<Self>, route: Route, request: Request) -> RequestOutcome {
        // The router passes a HEAD to the handler of GET, but the API has no HEAD calls.
        let route = if request.method == Method::HEAD { Route::Nowhere } else { route };
        let frozen = self.frozen.as_ref().filter(|_| route == Route::List);
        let Some(frozen) = frozen else {
            return Arc::clone(&self).work(route, request).await;
        };
        if let Some(outcome) = frozen.thaw(&request.query).await {
            return outcome;
        }
        let query = request.query.clone();
        let outcome = Arc::clone(&self).work(route, request).await;
        frozen.freeze(query, &outcome);
        outcome
    }

    /// Runs a request in its own task.
    async fn work(self: Arc<Self>, route: Route, request: Request) -> RequestOutcome {
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let task = async move { stop.run_until_cancelled(self.take_effect(route, request)).await };
        let outcome = tasks.spawn(task).await.ok().flatten();
        outcome.unwrap_or(RequestOutcome::Hangup(Ending::Close))
    }

    /// Runs a request: its arrival, its waits, and its effect.
    async fn take_effect(&self, route: Route, request: Request) -> RequestOutcome {
        let arrival = self.world().arrive(&request, route);
        if !arrival.wait.is_zero() {
            tokio::time::sleep(arrival.wait).await;
        }
        for &hold in &arrival.holds {
            self.until(|world| !world.is_armed(hold)).await;
        }
        if arrival.is_for_events() {
            self.until(|world| world.readings.event_answers != EventAnswers::Hang).await;
        }
        self.world().complete(&request, arrival)
    }
}
