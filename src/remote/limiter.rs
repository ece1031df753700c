//! One limiter for all requests: the rate, and the pause that the remote may ask for.
//!
//! `Pace` decides how fast requests may be sent, and `Gate` which kind of request is next. The
//! requests wait here.

mod gate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use gate::Gate;
pub use gate::Share;

use super::pace::{Ceiling, Pace, RefusalEffect};
use crate::clock::Clock;
use crate::metrics;
use komoju_core::ReducedRate;
use komoju_core::time::LONGEST_PAUSE;

/// When a request was admitted, by the steady clock.
#[derive(Clone, Copy, Debug)]
pub struct SentAt(Duration);

/// Admits requests at the present rate, and none during a pause.
pub struct Limiter {
    ceiling: Option<Ceiling>,
    pace: Mutex<Pace>,
    /// How often the rate was halved.
    refusals: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    pause: Mutex<Option<Pause>>,
    /// One queue for each share, so that one request of each share is at the gate.
    queues: [tokio::sync::Mutex<()>; 4],
    gate: Mutex<Gate>,
    gate_changed: Notify,
}

/// A pause that the remote asked for.
#[derive(Clone, Copy)]
struct Pause {
    /// The end by the steady clock, which is obeyed.
    until: Duration,
    /// The end by the wall clock, which is shown.
    shown: Timestamp,
}

/// A place at the gate. It is released when it is dropped, whether the request was admitted or not.
struct GatePlace<'a> {
    limiter: &'a Limiter,
    share: Share,
}

impl Drop for GatePlace<'_> {
    fn drop(&mut self) {
        self.limiter.gate().waiting[self.share as usize] = false;
        self.limiter.gate_changed.notify_waiters();
    }
}

impl Limiter {
    /// Returns a limiter with an empty bucket. `requests_per_second` 0 means no limit.
    pub fn new(requests_per_second: f64, burst: u32, clock: Arc<dyn Clock>) -> Self {
        let ceiling =
            (requests_per_second > 0.0).then(|| Ceiling { rate: requests_per_second, burst: burst.max(1) });
        Self {
            ceiling,
            pace: Mutex::new(Pace::new(ceiling, None, clock.elapsed(), clock.now())),
            refusals: watch::Sender::new(0),
            clock,
            pause: Mutex::new(None),
            queues: Default::default(),
            gate: Mutex::new(Gate::new()),
            gate_changed: Notify::new(),
        }
    }

    /// Continues with the rate that an earlier process has learned.
    pub fn learn(&self, slowed: &ReducedRate) {
        *self.pace() = Pace::new(self.ceiling, Some(slowed), self.clock.elapsed(), self.clock.now());
    }

    /// Returns the reduced rate; none at the configured rate.
    pub fn slowed(&self) -> Option<ReducedRate> {
        self.pace().slowed(self.clock.elapsed())
    }

    /// Returns a counter that changes each time the rate is halved.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.refusals.subscribe()
    }

    /// Waits until one request may be sent. Returns the moment at which it is sent.
    pub async fn admit(&self, share: Share) -> SentAt {
        let begun_at = self.clock.elapsed();
        let sent_at = self.wait(share).await;
        metrics::limiter_wait(share.word(), sent_at.0.saturating_sub(begun_at));
        sent_at
    }

    /// Waits in the queue of the share, then at the gate.
    async fn wait(&self, share: Share) -> SentAt {
        if let Some(sent_at) = self.admit_without_limit() {
            return sent_at;
        }
        let _turn = self.queues[share as usize].lock().await;
        self.gate().waiting[share as usize] = true;
        let _place = GatePlace { limiter: self, share };
        loop {
            let changed = self.gate_changed.notified();
            if self.gate().is_others_turn(share) {
                changed.await;
                continue;
            }
            match self.try_admit() {
                Ok(sent_at) => {
                    self.gate().admitted(share);
                    return sent_at;
                }
                // An answer may raise the rate meanwhile.
                Err(wait) => tokio::select! {
                    () = self.clock.sleep(wait) => {}
                    () = changed => {}
                },
            }
        }
    }

    /// Admits a request if there is neither a limit nor a pause.
    fn admit_without_limit(&self) -> Option<SentAt> {
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        let is_free = pace.is_free(now) && self.paused().is_none();
        is_free.then(|| {
            pace.sent(now);
            SentAt(now)
        })
    }

    /// Admits a request, or returns how long it must wait.
    fn try_admit(&self) -> Result<SentAt, Duration> {
        let pause = self.paused();
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        let wait = pace.wait(now).max(pause.map_or(Duration::ZERO, |pause| pause.until.saturating_sub(now)));
        if !wait.is_zero() {
            return Err(wait);
        }
        pace.sent(now);
        Ok(SentAt(now))
    }

    /// Records that a request was answered, and not refused for its speed.
    pub fn answered(&self, sent_at: SentAt) {
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        if pace.answered(sent_at.0, now) {
            drop(pace);
            self.gate_changed.notify_waiters();
        }
    }

    /// Records that a request was refused for its speed.
    pub fn refused(&self, sent_at: SentAt) {
        let (now, wall) = (self.clock.elapsed(), self.clock.now());
        let slowed = {
            let mut pace = self.pace();
            match pace.refused(sent_at.0, now, wall) {
                RefusalEffect::Slowed => pace.slowed(now),
                RefusalEffect::Repeated => None,
            }
        };
        if let Some(slowed) = slowed {
            tracing::warn!("the API refused requests for their speed: {slowed}");
            self.refusals.send_modify(|count| *count += 1);
        }
    }

    /// Locks the pace.
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the gate.
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits nothing for this time, at most [`LONGEST_PAUSE`]. Returns the length of the pause. A
    /// running pause is never shortened.
    pub fn pause(&self, wanted: Duration) -> Duration {
        let length = wanted.min(LONGEST_PAUSE);
        let asked = Pause {
            until: self.clock.elapsed() + length,
            shown: self.clock.now().checked_add(length).unwrap_or(Timestamp::MAX),
        };
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.is_none_or(|running| running.until < asked.until) {
            *pause = Some(asked);
        }
        length
    }

    /// Returns until when the remote asked for a wait, if that time is not over.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.paused().map(|pause| pause.shown)
    }

    /// Whether no request may be sent now, because the remote asked for a wait or refused one.
    pub fn is_paused(&self) -> bool {
        self.paused().is_some() || self.pace().is_paused(self.clock.elapsed())
    }

    /// Returns the pause that is not over.
    fn paused(&self) -> Option<Pause> {
        let pause = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.filter(|pause| pause.until > self.clock.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    #[tokio::test]
    async fn new_process_starts_with_an_empty_bucket_and_keeps_the_rate() {
        let clock = SystemClock::shared();
        let limiter = Limiter::new(100.0, 4, Arc::clone(&clock));
        for _ in 0..10 {
            limiter.admit(Share::Read).await;
        }
        // With an empty bucket, ten requests at a hundred a second take a tenth of a second.
        assert!(clock.elapsed() >= Duration::from_millis(99), "{:?}", clock.elapsed());
    }

    #[tokio::test]
    async fn zero_means_no_limit() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let limiter = Limiter::new(0.0, 1, clock.clone());
        for _ in 0..1000 {
            limiter.admit(Share::Read).await;
        }
        assert_eq!(clock.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn pause_is_obeyed_shown_bounded_and_never_shortened() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let limiter = Limiter::new(0.0, 1, clock.clone());
        assert_eq!(limiter.pause(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(limiter.pause(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(limiter.paused_until(), Some("1970-01-01T00:00:30Z".parse().unwrap()));
        limiter.admit(Share::Read).await;
        assert_eq!(clock.elapsed(), Duration::from_secs(30));
        assert_eq!(limiter.paused_until(), None);
        assert_eq!(limiter.pause(Duration::MAX), LONGEST_PAUSE);
    }

    #[tokio::test]
    async fn request_of_one_share_waits_for_one_request_of_the_other_share_at_most() {
        for (many, few) in [(Share::Read, Share::Write), (Share::Write, Share::Read)] {
            let limiter = Arc::new(Limiter::new(200.0, 1, SystemClock::shared()));
            let admitted = Arc::new(Mutex::new(Vec::new()));
            let crowd = (0..8).map(|_| async {
                for _ in 0..6 {
                    limiter.admit(many).await;
                    admitted.lock().unwrap().push(many);
                }
            });
            let single = async {
                for _ in 0..5 {
                    let before = admitted.lock().unwrap().len();
                    limiter.admit(few).await;
                    let waited_for = admitted.lock().unwrap().len() - before;
                    assert!(waited_for <= 1, "{few:?} waited for {waited_for}");
                    admitted.lock().unwrap().push(few);
                    SystemClock::new().sleep(Duration::from_millis(17)).await;
                }
            };
            tokio::join!(futures_util::future::join_all(crowd), single);
            assert_eq!(admitted.lock().unwrap().len(), 8 * 6 + 5);
        }
    }

    #[tokio::test]
    async fn refusal_slows_every_request_down_also_in_a_later_process() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let limiter = Limiter::new(8.0, 1, clock.clone());
        let mut refusals = limiter.refusals();
        let sent = limiter.admit(Share::Read).await;
        assert!(limiter.slowed().is_none() && !limiter.is_paused());
        limiter.refused(sent);
        assert!(refusals.has_changed().unwrap() && limiter.is_paused());
        refusals.mark_unchanged();
        limiter.refused(sent);
        assert!(!refusals.has_changed().unwrap(), "both refusals are the same event");
        assert_eq!(limiter.paused_until(), None, "the API did not ask for a wait");
        let refused_at = clock.elapsed();
        let sent = limiter.admit(Share::Write).await;
        assert_eq!(clock.elapsed() - refused_at, Duration::from_secs(1));
        limiter.answered(sent);
        let slowed = limiter.slowed().unwrap();
        assert_eq!((slowed.requests_per_second, slowed.refused, slowed.answers), (2.1, 2, 3));

        let next = Limiter::new(8.0, 4, clock.clone());
        next.learn(&slowed);
        let start = clock.elapsed();
        for _ in 0..4 {
            next.admit(Share::Read).await;
        }
        let took = (clock.elapsed() - start).as_secs_f64();
        assert!((took - 4.0 / 2.1).abs() < 1e-6, "{took}");
    }

    #[tokio::test]
    async fn answer_wakes_the_request_that_waits_at_the_old_rate() {
        let clock = SystemClock::shared();
        let (limiter, moment) = (Limiter::new(0.0, 1, Arc::clone(&clock)), clock.now());
        limiter.learn(&ReducedRate {
            requests_per_second: 20.0,
            refused_at: 1000.0,
            in_a_row: 0,
            since: moment,
            last_refusal: moment,
            refused: 1,
            answers: 1,
        });
        let first = limiter.admit(Share::Read).await;
        // At 0.05 requests a second the next one would wait for 20 s.
        limiter.learn(&ReducedRate { requests_per_second: 0.05, ..limiter.slowed().unwrap() });
        let second = limiter.admit(Share::Read);
        let answers = async {
            for _ in 0..30 {
                limiter.answered(first);
                tokio::task::yield_now().await;
            }
        };
        let both = async { tokio::join!(second, answers) };
        assert!(tokio::time::timeout(Duration::from_secs(10), both).await.is_ok());
    }

    #[tokio::test]
    async fn request_dropped_at_the_gate_does_not_block_others() {
        let limiter = Limiter::new(50.0, 1, SystemClock::shared());
        limiter.admit(Share::Read).await;
        {
            let dropped = limiter.admit(Share::Write);
            tokio::select! { biased; _ = dropped => panic!("too early"), () = std::future::ready(()) => {} }
        }
        limiter.admit(Share::Read).await;
        limiter.admit(Share::Read).await;
    }
}
