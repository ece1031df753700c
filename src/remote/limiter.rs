//! One limiter for everything that is sent, and the pause that the remote may ask for.
//!
//! The bucket is empty when a process starts: however often it restarts, it never sends more than the limit allows. After
//! that up to `burst` requests may be sent at once after a rest.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;

use crate::clock::Clock;

/// The longest wait that the remote can ask for. A wait until the year 9999 is a mistake, not a wish.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Lets requests through at the configured rate, and none during a pause.
pub struct Limiter {
    bucket: Option<DefaultDirectRateLimiter>,
    bucket_clock: DefaultClock,
    clock: Arc<dyn Clock>,
    pause: Mutex<Option<Pause>>,
}

#[derive(Clone, Copy)]
struct Pause {
    /// By the steady clock: what is obeyed.
    until: Duration,
    /// By the wall clock: what is shown.
    shown: Timestamp,
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
        Self { bucket, bucket_clock: DefaultClock::default(), clock, pause: Mutex::new(None) }
    }

    /// Waits until one request may be sent.
    pub async fn admit(&self) {
        loop {
            if let Some(pause) = self.paused() {
                self.clock.sleep(pause.until.saturating_sub(self.clock.elapsed())).await;
                continue;
            }
            let Some(bucket) = &self.bucket else { return };
            match bucket.check() {
                Ok(()) => return,
                Err(early) => self.clock.sleep(early.wait_time_from(self.bucket_clock.now())).await,
            }
        }
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
            limiter.admit().await;
        }
        // Ten requests at a hundred a second are a tenth of a second apart when nothing was in the bucket.
        assert!(clock.elapsed() >= Duration::from_millis(99), "{:?}", clock.elapsed());
    }

    #[tokio::test]
    async fn zero_means_no_limit() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let limiter = Limiter::new(0.0, 1, clock.clone());
        for _ in 0..1000 {
            limiter.admit().await;
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
        limiter.admit().await;
        assert_eq!(clock.elapsed(), Duration::from_secs(30));
        assert_eq!(limiter.paused_until(), None);
        assert_eq!(limiter.pause(Duration::MAX), LONGEST_PAUSE);
    }
}
