//! Push: from the outbox to the remote, each intent once, one customer's in order.
//!
//! ```text
//!   turn ─▶ settles what ended, holds deletes, claims what is due     one transaction
//!    ▲            │ claimed
//!    │            ▼
//!    └── ended ◀─ attempt ─▶ may it be repeated? as expected? ─▶ one call
//! ```
//!
//! A turn is the only writer: what ended and what begins next commit together, so an attempt in a row of many costs one commit, and
//! as many as are under way share it when the database is slower than the API. Nothing leaves before its claim is committed.
//!
//! What cannot be known is not guessed: it is looked for at the remote, and parked for a person where that is no proof.

mod attempt;
mod claim;
mod drained;
mod ended;
mod forbidden;
mod reconciliation;
mod settle;
mod turn;
mod upkeep;
mod window;

pub use drained::Drained;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use ended::Ended;

use super::Echoes;
use crate::clock::Clock;
use crate::heartbeat;
use crate::remote::{PushRemote, Remote};
use crate::secret::SecretKey;
use crate::store::outbox::engine::{self, Open};
use crate::store::{Store, StoreError};
use komoju_core::plan::lag::Consistency;
use komoju_core::time;
use komoju_core::words::count;

/// How long a stop waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(1000);

/// What is due by the wall clock is looked for at least so often, for that clock can be set.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a stop wipes what is left of tokens and erased data; with the last answers that is within two seconds.
const LAST_WIPE: Duration = Duration::from_millis(700);

/// How long pushing pauses when somebody else keeps the database locked.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// How often in a row a drain meets a locked database before it gives up; each takes as long as the store waits for the lock.
const MOST_BUSY: u32 = 5;

/// What the pusher is told once.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// Whether anything is pushed.
    pub enabled: bool,
    /// How many intents may be under way at once.
    pub max_concurrent_requests: usize,
    /// How many customers a page should hold where the list is read.
    pub per_page: u32,
    /// How many deletes may be open, or sent within an hour, before further ones wait for an operator.
    pub hold_deletes_over: u64,
    /// How long after its first attempt an unsettled intent parks.
    pub park_after: SignedDuration,
    /// The metadata key by which creates carry their intent's id.
    pub reconcile_tag: Option<String>,
    /// How long KOMOJU's reads may lag behind its writes.
    pub consistency: Consistency,
    /// Where chance starts (jitter; keys come from elsewhere).
    pub seed: u64,
}

/// Wakes the pusher, and tells what it found out.
#[derive(Debug, Default)]
pub struct Signals {
    /// Somebody committed something, or what stood in the way is gone.
    pub wake: Notify,
    /// The key was refused.
    pub refused: Notify,
    /// A customer that we meant to change is not there: the mirror should look.
    pub look: Notify,
    /// Intents were settled.
    pub settled: Notify,
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

/// How long [`Pusher::work`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Until each due intent was attempted once.
    Drained,
    /// Until told to stop.
    Stopped,
}

/// What one run knows besides the database.
#[derive(Debug)]
struct Run {
    until: Until,
    /// Attempted by this drain.
    tried: HashSet<i64>,
    /// Up to which position it was said what queued intents wait for.
    explained: i64,
    wiping: upkeep::Schedule,
    drained: Drained,
}

type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, Result<Finished, StoreError>>>;

impl Run {
    fn new(until: Until, now: Duration) -> Self {
        let wiping = upkeep::Schedule::new(now);
        Self { until, tried: HashSet::new(), explained: 0, wiping, drained: Drained::default() }
    }

    /// Whether nothing more makes sense: what comes next would meet the same refusal.
    fn is_turned_away(&self) -> bool {
        self.until == Until::Drained && self.drained.key_refused
    }

    fn not_again(&self) -> Option<&HashSet<i64>> {
        (self.until == Until::Drained).then_some(&self.tried)
    }
}

/// An attempt that is over.
#[derive(Clone)]
struct Finished {
    open: Open,
    ended: Ended,
}

/// Waits for `work` while what is under way goes on: an answer that nobody takes counts as late. Those that come are kept in `finished`.
async fn beside<T>(
    work: impl Future<Output = T>,
    under_way: &mut UnderWay<'_>,
    finished: &mut Vec<Finished>,
) -> Result<T, StoreError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            Some(over) = under_way.next() => finished.push(over?),
        }
    }
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// A pusher; nothing happens yet.
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

    /// Takes up what an earlier process left: intents that it was sending wait, due at once. And tells the doors whether they are
    /// open.
    pub async fn recover(&self) -> Result<(), StoreError> {
        self.echoes.nothing_is_sent();
        let (at, enabled) = (time::written(self.clock.now()), self.settings.enabled);
        let recovered = self.store.write(move |tx| {
            engine::set_enabled(tx, enabled)?;
            Ok((engine::adopt(tx)?, engine::cut_off(tx, &at)?))
        });
        let (adopted, cut) = recovered.await?;
        if adopted > 0 {
            tracing::warn!(
                adopted,
                "{} written past the triggers of this database",
                count(adopted as u64, "intent")
            );
        }
        if cut > 0 {
            tracing::warn!(
                intents = cut,
                "the last process ended while it sent {}: tried again",
                count(cut as u64, "intent")
            );
        }
        Ok(())
    }

    /// Attempts each due intent at most once, those included that become due meanwhile.
    pub async fn drain(&self) -> Result<Drained, StoreError> {
        self.work(Until::Drained).await
    }

    /// Attempts whatever becomes due, until told to stop.
    pub async fn serve(&self) -> Result<Drained, StoreError> {
        self.work(Until::Stopped).await
    }

    /// Attempts nothing; wipes what is left of tokens and erased data.
    pub async fn only_wipe(&self) -> Result<(), StoreError> {
        let mut run = Run::new(Until::Drained, self.clock.elapsed());
        self.end(UnderWay::new(), Vec::new(), &mut run).await
    }

    async fn work(&self, until: Until) -> Result<Drained, StoreError> {
        let mut run = Run::new(until, self.clock.elapsed());
        let mut under_way = UnderWay::new();
        let mut finished = Vec::new();
        let (mut busy, mut given_up) = (0, None);
        loop {
            // Whatever is over by now shares one commit.
            while let Some(Some(over)) = under_way.next().now_or_never() {
                finished.push(over?);
            }
            let room = match self.stop.is_cancelled() || run.is_turned_away() {
                true => 0,
                false => self.settings.max_concurrent_requests.saturating_sub(under_way.len()),
            };
            let is_due = finished.is_empty()
                && room > 0
                && beside(self.is_something_due(&run), &mut under_way, &mut finished).await??;
            if is_due || !finished.is_empty() {
                let answered = std::mem::take(&mut finished);
                let turned = self.turn(&answered, room, &mut run);
                match beside(turned, &mut under_way, &mut finished).await? {
                    Ok(claimed) => {
                        busy = 0;
                        under_way.extend(claimed.into_iter().map(|open| self.attempt(open).boxed()));
                    }
                    // Somebody else keeps the database. What was answered is known to nobody but us: it is kept until it can be written.
                    Err(e)
                        if e.is_busy()
                            && !(answered.is_empty() && finished.is_empty() && under_way.is_empty()) =>
                    {
                        finished.splice(..0, answered);
                        busy += 1;
                        if self.stop.is_cancelled() {
                            break;
                        }
                        if until == Until::Drained && busy >= MOST_BUSY {
                            given_up = Some(e);
                            break;
                        }
                        tracing::error!("pushing paused: {e}; it is tried again");
                        let pause = self.clock.sleep(AFTER_BUSY);
                        tokio::select! {
                            () = self.stop.cancelled() => break,
                            waited = beside(pause, &mut under_way, &mut finished) => waited?,
                        }
                    }
                    Err(e) => return Err(e),
                }
                continue;
            }
            if self.stop.is_cancelled() || (until == Until::Drained && under_way.is_empty()) {
                break;
            }
            let is_quiet = under_way.is_empty();
            let news =
                beside(self.news(&mut run, is_quiet, room > 0), &mut under_way, &mut finished).await??;
            if !finished.is_empty() {
                continue;
            }
            let _idle = under_way.is_empty().then(heartbeat::idle);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(over) = under_way.next() => finished.push(over?),
                () = news => {}
            }
        }
        self.end(under_way, finished, &mut run).await?;
        given_up.map_or(Ok(run.drained), Err)
    }

    /// What a run waits for besides its own attempts: others' commits, and the time.
    async fn news(
        &self,
        run: &mut Run,
        is_quiet: bool,
        has_room: bool,
    ) -> Result<impl Future<Output = ()>, StoreError> {
        let until = run.until;
        let mut again = None;
        if until == Until::Stopped {
            // While every place is taken, nothing new can begin by itself.
            again = if has_room { self.until_due().await? } else { None };
            if run.wiping.is_due(self.clock.elapsed(), is_quiet) {
                self.wipe(run, self.stop.cancelled()).await;
            }
            if let Some(wait) = run.wiping.wait(self.clock.elapsed()) {
                again = Some(again.unwrap_or(LONGEST_WAIT).min(wait));
            }
        }
        Ok(async move {
            match until {
                Until::Drained => std::future::pending().await,
                Until::Stopped => tokio::select! {
                    () = self.signals.wake.notified() => {}
                    () = self.sleep(again) => {}
                },
            }
        })
    }

    /// Gives answers that are on their way a moment; what is still without one then is cut off, and due at once at the next start.
    async fn end(
        &self,
        mut under_way: UnderWay<'_>,
        mut finished: Vec<Finished>,
        run: &mut Run,
    ) -> Result<(), StoreError> {
        let mut last_call = std::pin::pin!(self.clock.sleep(LAST_ANSWERS));
        while !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(over) = under_way.next() => finished.push(over?),
                () = &mut last_call => break,
            }
        }
        while !finished.is_empty() {
            let answered = std::mem::take(&mut finished);
            beside(self.turn(&answered, 0, run), &mut under_way, &mut finished).await??;
        }
        if !under_way.is_empty() {
            let at = time::written(self.clock.now());
            self.store.write(move |tx| engine::cut_off(tx, &at)).await?;
        }
        let until = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_WIPE).await;
        };
        self.wipe(run, until).await;
        Ok(())
    }

    async fn sleep(&self, wait: Option<Duration>) {
        match wait {
            Some(wait) => self.clock.sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    fn roll(&self) -> f64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
