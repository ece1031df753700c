//! Asking, and asking again: the only place where a request is repeated.

use std::future::Future;
use std::sync::PoisonError;

use rand::Rng;

use super::{Failure, Pull, Setback};
use crate::metrics;
use crate::remote::{Class, Remote, Shown};
use crate::store::StoreError;
use crate::store::log::mirror::Among;
use crate::store::log::passes;
use komoju_core::plan::retry;
use komoju_core::{Customer, CustomerId, Unreadable, time};

/// What a customer's own GET brought.
pub(super) enum Found {
    /// It is there, as it is now.
    Alive(Customer),
    /// It is there (HTTP 200), and what is shown of it cannot be read.
    Unreadable(Unreadable),
    /// It is gone, as far as this answer says.
    Gone,
    /// Nothing that could be used, and why.
    Unclear(Failure),
}

impl Found {
    /// The result of requesting one customer. That it cannot be had is an answer too: the others are requested all the same.
    pub(super) fn of(shown: Result<Shown, Failure>) -> Result<Self, Failure> {
        match shown {
            Ok(Shown::Found(customer)) => Ok(Self::Alive(customer)),
            Ok(Shown::Unreadable(bad)) => Ok(Self::Unreadable(bad)),
            Ok(Shown::NotFound) => Ok(Self::Gone),
            Err(failure @ Failure::Setback { .. }) => Ok(Self::Unclear(failure)),
            Err(failure) => Err(failure),
        }
    }
}

impl<R: Remote> Pull<R> {
    /// Tries until it succeeds, fails for good, has failed `tries_left` times, or we are told to stop. Stopping drops a request
    /// that is under way: reading has no effect at the remote.
    pub(super) async fn persist<T, F, W>(&self, tries_left: usize, mut once: F) -> Result<T, Failure>
    where
        F: FnMut() -> W + Send,
        W: Future<Output = Result<T, Setback>> + Send,
    {
        let mut waits =
            retry::waits(tries_left, || self.dice.lock().unwrap_or_else(PoisonError::into_inner).random());
        let mut tries = 0;
        loop {
            tries += 1;
            let answered = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Stopped),
                answered = once() => answered,
            };
            let setback = match answered {
                Ok(value) => return Ok(value),
                Err(setback) => setback,
            };
            if let Setback::Remote(e) = &setback {
                if e.class() == Class::Auth {
                    return Err(Failure::KeyRefused(Box::new(e.clone())));
                }
                self.note_throttled(e.retry_after.is_some()).await?;
            }
            let wait = if setback.class() == Class::Rejected { None } else { waits.next() };
            let Some(wait) = wait else { return Err(Failure::after(tries, setback)) };
            metrics::read_again();
            tracing::warn!(tries, wait_ms = wait.as_millis(), "{setback}; asking again (try {tries})");
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Stopped),
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Requests one customer, up to `tries` times.
    pub(super) async fn look_up(&self, id: &CustomerId, tries: usize) -> Result<Found, Failure> {
        let request = || async { self.remote.show(id).await.map_err(Setback::Remote) };
        Found::of(self.persist(tries, request).await)
    }

    /// Up to `count` live customers from anywhere in the mirror; those whose deletion is in doubt only where others lack.
    pub(super) async fn some_live(&self, count: usize, among: Among) -> Result<Vec<CustomerId>, StoreError> {
        let rolls: Vec<u64> = (0..count).map(|_| self.roll()).collect();
        let picked = self.look(move |view| {
            let rows = view.last_row()?.unsigned_abs().max(1);
            let mut picked: Vec<CustomerId> = Vec::with_capacity(count);
            for roll in rolls {
                let from = i64::try_from(1 + roll % rows).unwrap_or(1);
                let near = view.live_from(from, count, among)?;
                picked.extend(near.into_iter().find(|id| !picked.contains(id)));
            }
            Ok(picked)
        });
        picked.await
    }

    /// Leaves word in the database, for `status`, that the remote asked us to wait.
    async fn note_throttled(&self, asked: bool) -> Result<(), Failure> {
        if asked && let Some(until) = self.remote.throttled_until().map(time::written) {
            tracing::warn!(until, "the API asks to wait until {until}");
            self.note(move |tx| passes::note_throttled(tx, Some(&until))).await?;
        }
        Ok(())
    }
}
