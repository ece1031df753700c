//! Customers of which a read was left out, because it may have been older than the log: each is requested again by itself.

use std::time::Duration;

use super::ask::Found;
use super::page::{LookupEffect, plan_lookup};
use super::view::View;
use super::{Failure, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::End;
use crate::store::log::lag;
use komoju_core::plan::lag::Occasion;
use komoju_core::{CustomerId, Origin};

/// How many are requested before other work gets its turn.
const AT_ONCE: u32 = 50;

/// After how long a customer without a usable answer is requested again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// After so many customers without a usable answer the others wait.
const MOST_UNCLEAR: u32 = 3;

impl<R: Remote> Pull<R> {
    /// Requests the customers that are due, some at a time, and applies the answers. Returns how long the next one waits; `None` where
    /// none does.
    pub async fn recheck(&self) -> Result<Option<Duration>, StoreError> {
        let (now, consistency) = (self.clock.now(), self.settings.consistency);
        if self.look(move |view| lag::is_ahead(view.conn(), now)).await? {
            self.note(move |tx| lag::bring_near(tx, now, consistency)).await?;
        }
        let due = self.look(move |view| view.due(now, AT_ONCE)).await?;
        // A new key must know the account's customers before it is believed.
        let may_ask = due.is_empty() || self.check_account().await.is_ok();
        let mut unclear = 0;
        for id in due {
            // Where several give no usable answer, sweeps and probes get their turn.
            if !may_ask || self.stop.is_cancelled() || unclear >= MOST_UNCLEAR {
                return Ok(Some(AGAIN_AFTER));
            }
            match self.recheck_one(&id).await {
                Ok(is_clear) => unclear += u32::from(!is_clear),
                Err(Failure::Store(e)) => return Err(e),
                // A refused key is noticed, and reported, by the next pass.
                Err(_) => return Ok(Some(AGAIN_AFTER)),
            }
        }
        let next = self.look(|view| lag::next_due(view.conn())).await?;
        let now = self.clock.now();
        Ok(next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default()))
    }

    /// Returns whether the answer could be used.
    async fn recheck_one(&self, id: &CustomerId) -> Result<bool, Failure> {
        let asked = self.asking();
        let found = match id.can_be_asked() {
            true => self.look_up(id, 1).await?,
            false => Found::Gone,
        };
        let (now, consistency) = (self.clock.now(), self.settings.consistency);
        let (cause, id) = (self.cause(Origin::Lookup, None), id.clone());
        let customer = match found {
            Found::Alive(customer) => Some(customer),
            // Absence is for the sweep to prove; what cannot be read changes nothing.
            Found::Gone | Found::Unreadable(_) => None,
            Found::Unclear(why) => {
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
            view.end_hold(&id, End::Alive)?;
            let effect = plan_lookup(view, &asked, customer, Occasion::Recheck, consistency)?;
            // The state that was left out is the customer's state after all.
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
