//! Invariant 7: a create happens at most once.
//!
//! Promises: invariant 7

mod crashes;
mod cuts;
mod gone;
mod key_age;
mod kills;
mod unknown_outcome;
mod window;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use komoju_core::{CustomerId, Page, PageQuery};
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::clock::ManualClock;
use komoju_sync::remote::{Http, Push, PushError, PushRemote, Pushed, Remote, RemoteError, Shown};
use komoju_testkit::InProcess;
use tokio_util::sync::CancellationToken;

pub(crate) fn lost(call: FaultedCall) -> Fault {
    Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(call).once()
}

pub(crate) fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

/// Where a process may end between two commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    BeforePush(usize),
    AfterPush(usize),
    BeforeList(usize),
}

/// The real remote, and a process that ends at one point of its way.
struct Ending {
    remote: Http,
    cut: Option<Cut>,
    /// Whether the answers say what time it is there.
    tells_time: bool,
    /// How long a page takes, by the harness's clock.
    list_takes: Duration,
    clock: Arc<ManualClock>,
    over: CancellationToken,
    pushes: std::sync::atomic::AtomicUsize,
    lists: std::sync::atomic::AtomicUsize,
}

impl Ending {
    fn of(harness: &InProcess, cut: Option<Cut>) -> Self {
        Self {
            remote: harness.remote_at(&harness.sandbox.base_url()),
            cut,
            tells_time: true,
            list_takes: Duration::ZERO,
            clock: Arc::clone(&harness.clock),
            over: CancellationToken::new(),
            pushes: Default::default(),
            lists: Default::default(),
        }
    }

    async fn here(&self, cut: Cut) {
        if Some(cut) == self.cut {
            self.over.cancel();
            std::future::pending::<()>().await;
        }
    }
}

impl Remote for Ending {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        self.here(Cut::BeforeList(self.lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed))).await;
        self.clock.advance(self.list_takes);
        self.remote.list(query).await
    }

    async fn show(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.remote.show(id).await
    }

    fn requests(&self) -> u64 {
        self.remote.requests()
    }

    fn throttled_until(&self) -> Option<jiff::Timestamp> {
        self.remote.throttled_until()
    }

    fn server_time(&self) -> Option<jiff::Timestamp> {
        self.remote.server_time().filter(|_| self.tells_time)
    }
}

impl PushRemote for Ending {
    async fn push(&self, push: &Push) -> Result<Pushed, PushError> {
        let n = self.pushes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.here(Cut::BeforePush(n)).await;
        let pushed = self.remote.push(push).await;
        self.here(Cut::AfterPush(n)).await;
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.remote.look(id).await
    }
}

/// A process that ends at `cut`, if it comes there.
pub async fn end_at(harness: &mut InProcess, cut: Cut) {
    let remote = Ending::of(harness, Some(cut));
    drain_until_over(harness, remote).await;
}

async fn drain_until_over(harness: &mut InProcess, remote: Ending) {
    let over = remote.over.clone();
    let pusher = Arc::new(harness.pusher_on(remote, CancellationToken::new()));
    pusher.recover().await.unwrap();
    tokio::select! {
        drained = pusher.drain() => drop(drained.unwrap()),
        () = over.cancelled() => {}
    }
    drop(pusher);
    harness.restart();
}
