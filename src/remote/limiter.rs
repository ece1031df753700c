//! One limiter for everything that is sent: the pace, and the pause that the remote may ask for.
//!
//! How fast requests may leave is decided by `Pace`; here they wait for it.
//!
//! Reads and writes share it in turns: where both wait, neither is let through twice in a row. So a push never waits behind a
//! sweep for longer than one request of it, and a flood of pushes does not stop the mirror.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::pace::{Ceiling, Pace, Refusal};
use crate::clock::Clock;
use crate::metrics;
use komoju_core::Slowed;
use komoju_core::time::LONGEST_PAUSE;

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

/// When a request was let through, by the steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Sent(Duration);

/// Lets requests through at the pace that holds, and none during a pause.
pub struct Limiter {
    ceiling: Option<Ceiling>,
    pace: Mutex<Pace>,
    /// How often the rate was halved.
    refusals: watch::Sender<u64>,
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
        let ceiling =
            (requests_per_second > 0.0).then(|| Ceiling { rate: requests_per_second, burst: burst.max(1) });
        Self {
            ceiling,
            pace: Mutex::new(Pace::new(ceiling, None, clock.elapsed(), clock.now())),
            refusals: watch::Sender::new(0),
            clock,
            pause: Mutex::new(None),
            lanes: Default::default(),
            gate: Mutex::new(Gate { waiting: [false; 2], last: Share::Write }),
            gate_changed: Notify::new(),
        }
    }

    /// Takes over what an earlier process has learned.
    pub fn learn(&self, slowed: &Slowed) {
        *self.pace() = Pace::new(self.ceiling, Some(slowed), self.clock.elapsed(), self.clock.now());
    }

    /// What was learned; `None` while the configured rate holds.
    pub fn slowed(&self) -> Option<Slowed> {
        self.pace().slowed(self.clock.elapsed())
    }

    /// Changes whenever the rate was halved.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.refusals.subscribe()
    }

    /// Waits until one request may be sent; returns the moment at which it leaves.
    pub async fn admit(&self, share: Share) -> Sent {
        let asked_at = self.clock.elapsed();
        let sent = self.wait(share).await;
        metrics::limiter_wait(share.word(), sent.0.saturating_sub(asked_at));
        sent
    }

    async fn wait(&self, share: Share) -> Sent {
        if let Some(sent) = self.leave_freely() {
            return sent;
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
                continue;
            }
            match self.try_leave() {
                Ok(sent) => {
                    self.gate().last = share;
                    return sent;
                }
                // An answer may change the rate meanwhile.
                Err(wait) => tokio::select! {
                    () = self.clock.sleep(wait) => {}
                    () = changed => {}
                },
            }
        }
    }

    /// Lets a request leave that has nothing to wait for.
    fn leave_freely(&self) -> Option<Sent> {
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        let is_free = pace.is_free(now) && self.paused().is_none();
        is_free.then(|| {
            pace.sent(now);
            Sent(now)
        })
    }

    /// Lets a request leave, or says how long it must wait.
    fn try_leave(&self) -> Result<Sent, Duration> {
        let pause = self.paused();
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        let wait = pace.wait(now).max(pause.map_or(Duration::ZERO, |pause| pause.until.saturating_sub(now)));
        if !wait.is_zero() {
            return Err(wait);
        }
        pace.sent(now);
        Ok(Sent(now))
    }

    /// A request was answered, and not refused for its speed.
    pub fn answered(&self, sent: Sent) {
        let (now, mut pace) = (self.clock.elapsed(), self.pace());
        if pace.answered(sent.0, now) {
            drop(pace);
            self.gate_changed.notify_waiters();
        }
    }

    /// A request was refused because too many came.
    pub fn refused(&self, sent: Sent) {
        let (now, wall) = (self.clock.elapsed(), self.clock.now());
        let slowed = {
            let mut pace = self.pace();
            match pace.refused(sent.0, now, wall) {
                Refusal::Slowed => pace.slowed(now),
                Refusal::Repeated => None,
            }
        };
        if let Some(slowed) = slowed {
            tracing::warn!("the API refuses so many requests: {slowed}");
            self.refusals.send_modify(|count| *count += 1);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether no request may leave now, because the remote asked for that or refused one.
    pub fn is_paused(&self) -> bool {
        self.paused().is_some() || self.pace().is_paused(self.clock.elapsed())
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
    async fn refusal_slows_every_request_down_and_a_later_process_knows() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let limiter = Limiter::new(8.0, 1, clock.clone());
        let mut refusals = limiter.refusals();
        let sent = limiter.admit(Share::Read).await;
        assert!(limiter.slowed().is_none() && !limiter.is_paused());
        limiter.refused(sent);
        assert!(refusals.has_changed().unwrap() && limiter.is_paused());
        refusals.mark_unchanged();
        limiter.refused(sent);
        assert!(!refusals.has_changed().unwrap(), "it is the same event");
        assert_eq!(limiter.paused_until(), None, "the API did not ask for it");
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
        limiter.learn(&Slowed {
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
        limiter.learn(&Slowed { requests_per_second: 0.05, ..limiter.slowed().unwrap() });
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
    async fn who_gives_up_at_the_gate_stands_in_nobodys_way() {
        let limiter = Limiter::new(50.0, 1, SystemClock::shared());
        limiter.admit(Share::Read).await;
        {
            let given_up = limiter.admit(Share::Write);
            tokio::select! { biased; _ = given_up => panic!("too early"), () = std::future::ready(()) => {} }
        }
        limiter.admit(Share::Read).await;
        limiter.admit(Share::Read).await;
    }
}
