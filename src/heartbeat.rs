//! Whether the daemon's loops get on: what feeds the service manager's watchdog.
//!
//! A loop runs within [`Pulse::drive`]. Whatever it does then calls [`beat`], wherever that is in the code; and while there is nothing
//! to do, or somebody else answers for the waiting (the writer, who has a pulse of his own), it is [`resting`]. An outage of the
//! remote is no hang: each request beats when it begins and when it fails. Outside such a loop all of this does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

tokio::task_local! {
    static PULSE: Arc<Pulse>;
}

/// One loop's.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    steps: AtomicU64,
    rests: AtomicU64,
}

/// What a [`Pulse`] shows at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whose it is, as a person would say it.
    pub name: &'static str,
    /// How often it has beaten.
    pub steps: u64,
    /// Whether there is nothing to do.
    pub rests: bool,
    /// How much longer than others it may take without a beat.
    pub grace: Duration,
}

impl Pulse {
    /// Of a loop with this name, as a person would say it.
    pub fn of(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, steps: AtomicU64::new(0), rests: AtomicU64::new(0) })
    }

    /// Runs the loop.
    pub async fn drive<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        PULSE.scope(Arc::clone(self), work).await
    }

    /// It got on.
    pub fn beat(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// It has nothing to do until the value is dropped.
    pub fn resting(self: &Arc<Self>) -> Resting {
        self.rests.fetch_add(1, Ordering::Relaxed);
        Resting(Some(Arc::clone(self)))
    }

    /// How it is.
    pub fn reading(&self) -> Reading {
        Reading {
            name: self.name,
            steps: self.steps.load(Ordering::Relaxed),
            rests: self.rests.load(Ordering::Relaxed) > 0,
            grace: Duration::ZERO,
        }
    }
}

/// A loop that has nothing to do.
#[derive(Debug)]
#[must_use]
pub struct Resting(Option<Arc<Pulse>>);

impl Drop for Resting {
    fn drop(&mut self) {
        if let Some(pulse) = &self.0 {
            pulse.beat();
            pulse.rests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The loop that this is called in got on.
pub fn beat() {
    let _ = PULSE.try_with(|pulse| pulse.beat());
}

/// The loop that this is called in has nothing to do, until the value is dropped.
pub fn resting() -> Resting {
    PULSE.try_with(Pulse::resting).unwrap_or(Resting(None))
}

/// When it was last looked whether each loop gets on, by the steady clock, and which one did not.
pub type Health = (Duration, Option<Stall>);

/// Tells who has stopped getting on.
#[derive(Debug)]
pub struct Vigil {
    patience: Duration,
    last: Vec<(Reading, Duration)>,
}

/// Who has not got on, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} has not got on for {} s", .stalled.as_secs())]
pub struct Stall {
    /// Whose pulse it is.
    pub name: &'static str,
    /// For how long.
    pub stalled: Duration,
}

impl Vigil {
    /// Who works must beat at least so often.
    pub fn new(patience: Duration) -> Self {
        Self { patience, last: Vec::new() }
    }

    /// Looks at all of them; `now` is a steady clock's. With `is_excused` whatever is seen counts as getting on: the remote asked
    /// everybody to wait.
    pub fn look(&mut self, now: Duration, readings: &[Reading], is_excused: bool) -> Result<(), Stall> {
        let mut longest: Option<Stall> = None;
        for reading in readings {
            let known = self.last.iter_mut().find(|(last, _)| last.name == reading.name);
            let since = match known {
                Some((last, since)) => {
                    if last.steps != reading.steps || reading.rests || is_excused {
                        *since = now;
                    }
                    *last = *reading;
                    *since
                }
                None => {
                    self.last.push((*reading, now));
                    now
                }
            };
            let stalled = now.saturating_sub(since);
            if stalled > self.patience + reading.grace
                && longest.is_none_or(|longest| stalled > longest.stalled)
            {
                longest = Some(Stall { name: reading.name, stalled });
            }
        }
        longest.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_works_must_beat_and_who_rests_need_not() {
        let (busy, idle) = (Pulse::of("pushing"), Pulse::of("reading"));
        let rest = idle.resting();
        let mut vigil = Vigil::new(PATIENCE);
        let mut look = |at| vigil.look(after(at), &[busy.reading(), idle.reading()], false);
        assert_eq!(look(0), Ok(()));
        assert_eq!(look(60), Ok(()), "as long as patience lasts");
        assert_eq!(look(61), Err(Stall { name: "pushing", stalled: after(61) }));
        busy.beat();
        assert_eq!(look(62), Ok(()), "it got on after all");
        drop(rest);
        busy.beat();
        assert_eq!(look(100), Ok(()));
        busy.beat();
        assert_eq!(
            look(161),
            Err(Stall { name: "reading", stalled: after(61) }),
            "its rest ended at 62 to 100"
        );
    }

    #[test]
    fn who_works_on_something_large_may_take_longer() {
        let mut vigil = Vigil::new(PATIENCE);
        let reading = Reading { grace: after(100), ..Pulse::of("writing").reading() };
        assert_eq!(vigil.look(after(0), &[reading], false), Ok(()));
        assert_eq!(vigil.look(after(160), &[reading], false), Ok(()));
        assert!(vigil.look(after(161), &[reading], false).is_err());
    }

    #[test]
    fn while_the_remote_asks_to_wait_nobody_stalls() {
        let pulse = Pulse::of("reading");
        let mut vigil = Vigil::new(PATIENCE);
        for at in [0, 100, 200] {
            assert_eq!(vigil.look(after(at), &[pulse.reading()], true), Ok(()));
        }
        assert_eq!(vigil.look(after(260), &[pulse.reading()], false), Ok(()));
        assert!(vigil.look(after(261), &[pulse.reading()], false).is_err());
    }

    #[tokio::test]
    async fn a_beat_is_that_of_the_loop_it_happens_in() {
        let (one, other) = (Pulse::of("one"), Pulse::of("other"));
        tokio::join!(
            one.drive(async {
                beat();
                let _rest = resting();
                tokio::task::yield_now().await;
                assert!(one.reading().rests && !other.reading().rests);
            }),
            other.drive(async { tokio::task::yield_now().await })
        );
        assert_eq!(
            (one.reading().steps, one.reading().rests),
            (2, false),
            "its beat, and the end of its rest"
        );
        assert_eq!(other.reading().steps, 0);
        beat();
        drop(resting());
    }
}
