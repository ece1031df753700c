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
use komoju_sync::remote::{
    CustomerAnswer, Http, PushAnswer, PushError, PushRemote, PushRequest, Remote, RemoteError,
};
use komoju_testkit::InProcess;
use tokio_util::sync::CancellationToken;

pub(crate) fn lost(call: FaultedCall) -> Fault {
    Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(call).once()
}

pub(crate) fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

/// A point between two commits at which a process may end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    BeforePush(usize),
    AfterPush(usize),
    BeforeList(usize),
}

/// The real remote for a process that ends at one point.
struct InterruptedRemote {
    remote: Http,
    cut: Option<Cut>,
    /// Whether answers have a `Date`.
    sends_date: bool,
    /// How long a list page takes by the harness's clock.
    list_takes: Duration,
    clock: Arc<ManualClock>,
    ended: CancellationToken,
    pushes: std::sync::atomic::AtomicUsize,
    lists: std::sync::atomic::AtomicUsize,
}

impl InterruptedRemote {
    fn of(harness: &InProcess, cut: Option<Cut>) -> Self {
        Self {
            remote: harness.remote_at(&harness.sandbox.base_url()),
            cut,
            sends_date: true,
            list_takes: Duration::ZERO,
            clock: Arc::clone(&harness.clock),
            ended: CancellationToken::new(),
            pushes: Default::default(),
            lists: Default::default(),
        }
    }

    async fn end_if_at(&self, cut: Cut) {
        if Some(cut) == self.cut {
            self.ended.cancel();
            std::future::pending::<()>().await;
        }
    }
}

impl Remote for InterruptedRemote {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        self.end_if_at(Cut::BeforeList(self.lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed))).await;
        self.clock.advance(self.list_takes);
        self.remote.list(query).await
    }

    async fn show(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        self.remote.show(id).await
    }

    fn requests(&self) -> u64 {
        self.remote.requests()
    }

    fn throttled_until(&self) -> Option<jiff::Timestamp> {
        self.remote.throttled_until()
    }

    fn server_time(&self) -> Option<jiff::Timestamp> {
        self.remote.server_time().filter(|_| self.sends_date)
    }
}

impl PushRemote for InterruptedRemote {
    async fn push(&self, push: &PushRequest) -> Result<PushAnswer, PushError> {
        let n = self.pushes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.end_if_at(Cut::BeforePush(n)).await;
        let pushed = self.remote.push(push).await;
        self.end_if_at(Cut::AfterPush(n)).await;
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        self.remote.look(id).await
    }
}

/// Drains the outbox in a process that ends at `cut`, if it reaches that point.
pub async fn end_at(harness: &mut InProcess, cut: Cut) {
    let remote = InterruptedRemote::of(harness, Some(cut));
    drain_until_ended(harness, remote).await;
}

async fn drain_until_ended(harness: &mut InProcess, remote: InterruptedRemote) {
    let ended = remote.ended.clone();
    let pusher = Arc::new(harness.pusher_on(remote, CancellationToken::new()));
    pusher.recover().await.unwrap();
    tokio::select! {
        drained = pusher.drain() => drop(drained.unwrap()),
        () = ended.cancelled() => {}
    }
    drop(pusher);
    harness.restart();
}
