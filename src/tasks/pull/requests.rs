//! Requests with retries. Only this module repeats a request within a pass.

use std::future::Future;
use std::sync::PoisonError;

use rand::Rng;

use super::{Failure, Pull, RequestError};
use crate::metrics;
use crate::remote::{CustomerAnswer, ErrorClass, Remote};
use crate::store::StoreError;
use crate::store::log::mirror::LiveFilter;
use crate::store::log::passes;
use komoju_core::plan::retry;
use komoju_core::{Customer, CustomerId, Unreadable, time};

/// The result of the GET of one customer.
pub(super) enum CustomerLookup {
    /// The customer exists and has this state.
    Alive(Customer),
    /// The customer exists (HTTP 200), but the answer cannot be read as a customer.
    Unreadable(Unreadable),
    /// This answer says that the customer is gone.
    Gone,
    /// No usable answer, for this reason.
    Unclear(Failure),
}

impl CustomerLookup {
    /// Returns the result of requesting one customer. A request that keeps failing is a result and
    /// no error, so that the caller continues with the next customer.
    pub(super) fn of(answer: Result<CustomerAnswer, Failure>) -> Result<Self, Failure> {
        match answer {
            Ok(CustomerAnswer::Found(customer)) => Ok(Self::Alive(customer)),
            Ok(CustomerAnswer::Unreadable(bad)) => Ok(Self::Unreadable(bad)),
            Ok(CustomerAnswer::NotFound) => Ok(Self::Gone),
            Err(failure @ Failure::Request { .. }) => Ok(Self::Unclear(failure)),
            Err(failure) => Err(failure),
        }
    }
}

impl<R: Remote> Pull<R> {
    /// Retries `once` until it succeeds, the API rejects the request, `tries_left` tries have
    /// failed, or the pass is stopped. A stop drops a request in flight, which is safe because a
    /// read has no effect at the remote.
    ///
    /// # Errors
    /// A refused key and a failed write of the throttling note end the retries at once.
    pub(super) async fn with_retries<T, F, W>(&self, tries_left: usize, mut once: F) -> Result<T, Failure>
    where
        F: FnMut() -> W + Send,
        W: Future<Output = Result<T, RequestError>> + Send,
    {
        let mut waits =
            retry::waits(tries_left, || self.rng.lock().unwrap_or_else(PoisonError::into_inner).random());
        let mut tries = 0;
        loop {
            tries += 1;
            let answered = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Stopped),
                answered = once() => answered,
            };
            let error = match answered {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let RequestError::Remote(e) = &error {
                if e.class() == ErrorClass::Auth {
                    return Err(Failure::KeyRefused(Box::new(e.clone())));
                }
                self.note_throttled(e.retry_after.is_some()).await?;
            }
            let wait = if error.class() == ErrorClass::Rejected { None } else { waits.next() };
            let Some(wait) = wait else { return Err(Failure::after(tries, error)) };
            metrics::read_again();
            tracing::warn!(tries, wait_ms = wait.as_millis(), "{error}; retrying (try {tries} failed)");
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failure::Stopped),
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Requests one customer, up to `tries` times.
    pub(super) async fn look_up(&self, id: &CustomerId, tries: usize) -> Result<CustomerLookup, Failure> {
        let request = || async { self.remote.show(id).await.map_err(RequestError::Remote) };
        CustomerLookup::of(self.with_retries(tries, request).await)
    }

    /// Returns up to `count` random live customers of the mirror. A customer with a held, approved
    /// or rejected deletion is returned only if there are not enough others.
    pub(super) async fn random_live(
        &self,
        count: usize,
        filter: LiveFilter,
    ) -> Result<Vec<CustomerId>, StoreError> {
        let rolls: Vec<u64> = (0..count).map(|_| self.roll()).collect();
        let picked = self.read_mirror(move |view| {
            let rows = view.last_row()?.unsigned_abs().max(1);
            let mut picked: Vec<CustomerId> = Vec::with_capacity(count);
            for roll in rolls {
                let from = i64::try_from(1 + roll % rows).unwrap_or(1);
                let near = view.live_from(from, count, filter)?;
                picked.extend(near.into_iter().find(|id| !picked.contains(id)));
            }
            Ok(picked)
        });
        picked.await
    }

    /// Records in the database, for `status`, until when the remote asked us to wait. Does nothing
    /// without `has_retry_after`.
    async fn note_throttled(&self, has_retry_after: bool) -> Result<(), Failure> {
        if has_retry_after && let Some(until) = self.remote.throttled_until().map(time::written) {
            tracing::warn!(until, "the API asks to wait until {until}");
            self.note(move |tx| passes::note_throttled(tx, Some(&until))).await?;
        }
        Ok(())
    }
}
