//! One limiter for everything that is sent, and the pause that the remote may ask for.
//!
//! The bucket is empty when a process starts: however often it restarts, it never sends more than the limit allows. After
//! that up to `burst` requests may be sent at once after a rest.
//!
//! Reads and writes share it in turns: where both wait, neither is let through twice in a row. So a push never waits behind a
//! sweep for longer than one request of it, and a flood of pushes does not stop the mirror.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::measures;
use crate::model::time::LONGEST_PAUSE;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It changes nothing at the remote.
    Read,
    /// It is a push.
    Write,
}

impl Share {
    /// The word in metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// Lets requests through at the configured rate, and none during a pause.
pub struct Limiter {
    bucket: Option<DefaultDirectRateLimiter>,
    bucket_clock: DefaultClock,
    clock: Arc<dyn Clock>,
    pause: Mutex<Option<Pause>>,
    /// Each share queues here, so that one request of each stands at the gate at most.
    lanes: [tokio::sync::Mutex<()>; 2],
    gate: Mutex<Gate>,
    gate_changed: Notify,
}

/// Who stands at the gate, and who was let through last.
#[derive(Debug)]
struct Gate {
    waiting: [bool; 2],
    last: Share,
}

#[derive(Clone, Copy)]
struct Pause {
    /// By the steady clock: what is obeyed.
    until: Duration,
    /// By the wall clock: what is shown.
    shown: Timestamp,
}

/// A place at the gate; left when dropped, whether let through or not.
struct Place<'a> {
    limiter: &'a Limiter,
    share: Share,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.limiter.gate().waiting[self.share as usize] = false;
        self.limiter.gate_changed.notify_waiters();
    }
}

impl Limiter {
    /// `requests_per_second` 0 means no limit.
    pub fn new(requests_per_second: f64, burst: u32, clock: Arc<dyn Clock>) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let period = Duration::try_from_secs_f64(requests_per_second.recip()).ok();
        let quota = period.and_then(Quota::with_period).map(|quota| quota.allow_burst(burst));
        let bucket = quota.map(RateLimiter::direct);
        if let Some(bucket) = &bucket {
            // The library starts with a full bucket; a burst always fits in it.
            let _ = bucket.check_n(burst);
        }
        Self {
            bucket,
            bucket_clock: DefaultClock::default(),
            clock,
            pause: Mutex::new(None),
            lanes: Default::default(),
            gate: Mutex::new(Gate { waiting: [false; 2], last: Share::Write }),
            gate_changed: Notify::new(),
        }
    }

    /// Waits until one request may be sent.
    pub async fn admit(&self, share: Share) {
        let asked_at = self.clock.elapsed();
        self.wait(share).await;
        measures::limiter_wait(share.word(), self.clock.elapsed().saturating_sub(asked_at));
    }

    async fn wait(&self, share: Share) {
        if self.bucket.is_none() && self.paused().is_none() {
            return;
        }
        let _turn = self.lanes[share as usize].lock().await;
        self.gate().waiting[share as usize] = true;
        let _place = Place { limiter: self, share };
        loop {
            let changed = self.gate_changed.notified();
            let others_turn = {
                let gate = self.gate();
                gate.waiting[share.other() as usize] && gate.last == share
            };
            if others_turn {
                changed.await;
            } else if let Some(pause) = self.paused() {
                self.clock.sleep(pause.until.saturating_sub(self.clock.elapsed())).await;
            } else {
                match self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.check()) {
                    Ok(()) => {
                        self.gate().last = share;
                        return;
                    }
                    Err(early) => self.clock.sleep(early.wait_time_from(self.bucket_clock.now())).await,
                }
            }
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nothing through for so long, at most [`LONGEST_PAUSE`]; returns how long it will be. A pause is never shortened.
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

    /// Until when the remote asked us to wait, if that is still to come.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.paused().map(|pause| pause.shown)
    }

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
    async fn a_new_process_starts_with_an_empty_bucket_and_then_keeps_the_rate() {
        let clock = SystemClock::shared();
        let limiter = Limiter::new(100.0, 4, Arc::clone(&clock));
        for _ in 0..10 {
            limiter.admit(Share::Read).await;
        }
        // Ten requests at a hundred a second are a tenth of a second apart when nothing was in the bucket.
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
    async fn a_pause_is_obeyed_shown_bounded_and_never_shortened() {
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
    async fn a_write_among_many_reads_waits_for_one_of_them_at_most_and_the_other_way_round() {
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
    async fn who_gives_up_at_the_gate_stands_in_nobodys_way() {
        let limiter = Limiter::new(50.0, 1, SystemClock::shared());
        limiter.admit(Share::Read).await;
        {
            let given_up = limiter.admit(Share::Write);
            tokio::select! { biased; () = given_up => panic!("too early"), () = std::future::ready(()) => {} }
        }
        limiter.admit(Share::Read).await;
        limiter.admit(Share::Read).await;
    }
}
