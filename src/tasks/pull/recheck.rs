//! Rechecks: requests single customers again. A read of each was not applied, because it may have
//! been older than the log.

use std::time::Duration;

use super::page::{LookupEffect, plan_lookup};
use super::requests::CustomerLookup;
use super::view::View;
use super::{Failure, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::HoldEnd;
use crate::store::log::lag;
use komoju_core::plan::lag::ReadReason;
use komoju_core::{CustomerId, Origin};

/// AT_ONCE limits how many customers are requested before sweeps and probes may run.
const AT_ONCE: u32 = 50;

/// AGAIN_AFTER controls the wait before a customer without a usable answer is requested again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// MOST_UNCLEAR limits the customers without a usable answer. After that the others wait for the
/// next call.
const MOST_UNCLEAR: u32 = 3;

impl<R: Remote> Pull<R> {
    /// Requests up to 50 customers that are due, and applies the answers. Returns how long
    /// to wait before the next one is due; `None` if there is none.
    pub async fn recheck(&self) -> Result<Option<Duration>, StoreError> {
        let (now, consistency) = (self.clock.now(), self.settings.consistency);
        if self.read_mirror(move |view| lag::is_ahead(view.conn(), now)).await? {
            self.note(move |tx| lag::cap_due_times(tx, now, consistency)).await?;
        }
        let due = self.read_mirror(move |view| view.due(now, AT_ONCE)).await?;
        // A new key must pass the account guard before its answers are applied.
        let may_ask = due.is_empty() || self.check_account().await.is_ok();
        let mut unclear = 0;
        for id in due {
            // After several answers that are not usable, let sweeps and probes run.
            if !may_ask || self.stop.is_cancelled() || unclear >= MOST_UNCLEAR {
                return Ok(Some(AGAIN_AFTER));
            }
            match self.recheck_one(&id).await {
                Ok(is_clear) => unclear += u32::from(!is_clear),
                Err(Failure::Store(e)) => return Err(e),
                // The next pass reports a refused key.
                Err(_) => return Ok(Some(AGAIN_AFTER)),
            }
        }
        let next = self.read_mirror(|view| lag::next_due(view.conn())).await?;
        let now = self.clock.now();
        Ok(next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default()))
    }

    /// Requests one customer and applies the answer. Returns whether the answer was usable.
    async fn recheck_one(&self, id: &CustomerId) -> Result<bool, Failure> {
        let request = self.mark_request();
        let found = match id.can_be_requested() {
            true => self.look_up(id, 1).await?,
            false => CustomerLookup::Gone,
        };
        let (now, consistency) = (self.clock.now(), self.settings.consistency);
        let (cause, id) = (self.cause(Origin::Lookup, None), id.clone());
        let customer = match found {
            CustomerLookup::Alive(customer) => Some(customer),
            // Only a sweep proves absence, and an unreadable answer changes nothing.
            CustomerLookup::Gone | CustomerLookup::Unreadable(_) => None,
            CustomerLookup::Unclear(why) => {
                tracing::debug!("{why}; it is requested again");
                let again = now.checked_add(AGAIN_AFTER).unwrap_or(now);
                let plan = move |view: &mut View<'_>| {
                    view.read_again(id, again);
                    Ok(())
                };
                self.plan_and_apply(cause, plan, |_, (), _| Ok(())).await?;
                return Ok(false);
            }
        };
        let plan = move |view: &mut View<'_>| {
            let is_same = view.end_recheck(&id, customer.as_ref())?;
            let Some(customer) = customer else { return Ok(false) };
            view.end_hold(&id, HoldEnd::Alive)?;
            let effect = plan_lookup(view, &request, customer, ReadReason::Recheck, consistency)?;
            // The state that was left out is the current one: reads lag longer than configured.
            let is_exceeded = is_same && effect == LookupEffect::Recorded;
            if is_exceeded {
                view.note_lag_exceeded();
            }
            Ok(is_exceeded)
        };
        let (is_exceeded, _) = self.plan_and_apply(cause, plan, |_, _, _| Ok(())).await?;
        if is_exceeded {
            let lag = consistency.0.as_secs();
            tracing::warn!(
                "a read still shows an earlier state of a customer after {lag} s: reads may lag longer than inbound.consistency_s"
            );
        }
        Ok(true)
    }
}
