//! Finds out what became of a create whose outcome is unknown: by the customers that were created since, and by the mirror.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::Pusher;
use super::claim::freshly_frozen;
use super::ended::{Ended, KeyIs, Obstacle, first_attempt};
use super::window::{Setback, Window};
use crate::heartbeat;
use crate::remote::{PushRemote, PushedCustomer, Remote, Shown};
use crate::store::StoreError;
use crate::store::outbox::attempts;
use crate::store::outbox::candidates::{self, Claims, ENTRIES_AT_ONCE, Entered};
use crate::store::outbox::engine::Open;
use komoju_core::intent::Body;
use komoju_core::intent::lifecycle::Outcome;
use komoju_core::plan::creates::{self, Candidates, Evidence, Finding, Fit, Place, Wanted};
use komoju_core::plan::outcome::attempt_wait;
use komoju_core::{Customer, CustomerId, time};

/// How many candidates are named to the operator.
const MOST_NAMED: usize = 100;

/// A list that keeps moving is no failure that grows rarer with patience: from so many attempts on the wait stays as it is, about a
/// minute …
const LONGEST_WAIT_AT: u32 = 7;

/// … or so many times as long as it took to read: a long window shall not take the requests that everybody else needs …
const REST: u32 = 4;

/// … but no longer than this: what is planned a day ahead counts as planned by a clock that was wrong.
const LONGEST_REST: Duration = Duration::from_secs(12 * 60 * 60);

impl<R: Remote + PushRemote> Pusher<R> {
    /// Finds out what became of the create. `None`: it may be sent, under a key that is good and committed.
    pub(super) async fn reconcile(
        &self,
        open: &mut Open,
        body: &Body,
        key_is: KeyIs,
    ) -> Result<Option<Ended>, StoreError> {
        let Some(from) = first_attempt(open).map(|(ours, server)| creates::window_from(ours, server)) else {
            let reason = "when it was first sent, by KOMOJU's clock, is not known: look for the customer, then cancel this intent, or \
                          retry it with its body (--body @FILE)"
                .to_owned();
            return Ok(Some(Ended::Park { reason, detail: None }));
        };
        // What proves absence must not be older than the last attempt.
        if key_is != KeyIs::Good && self.may_be_before_last_attempt(open, self.clock.now()).await? {
            let why =
                "whether this create took effect is looked for once no read can be older than the attempt";
            return Ok(Some(self.after_lag(why)));
        }
        let fit = if key_is == KeyIs::Past { Fit::Any } else { Fit::All };
        let wanted = Wanted { id: open.id.clone(), body: body.clone(), tag: open.frozen.tag.clone(), fit };
        let begun = self.clock.elapsed();
        // Under a good key it is the same create: a list that moves is not worth more requests.
        let is_patient = key_is != KeyIs::Good;
        let window = match self.read_twice(from, is_patient, |customer| wanted.could_be(customer)).await {
            Ok(window) => window,
            Err(Setback::Remote(error)) => {
                return Ok(Some(self.after_read_error(open, error, Outcome::Known)));
            }
            Err(Setback::Moving(_)) if key_is == KeyIs::Good => return Ok(None),
            Err(Setback::Moving(why)) => {
                let took = self.clock.elapsed().saturating_sub(begun);
                let wait = attempt_wait(open.life.attempts.min(LONGEST_WAIT_AT), self.roll());
                let wait = wait.max(took.saturating_mul(REST).min(LONGEST_REST));
                return Ok(Some(Ended::Later {
                    why,
                    status: None,
                    outcome: Outcome::Unknown,
                    at: self.clock.now().checked_add(wait).ok(),
                    obstacle: Obstacle::None,
                }));
            }
        };
        let (ids, has_twin) = self.candidates(open, &wanted, &window).await?;
        let candidates = match ids.as_slice() {
            [] => Candidates::None,
            [one] => match self.place(open, one, &window, from).await {
                Ok(place) => Candidates::One(one.clone(), place),
                Err(_) if key_is == KeyIs::Good => return Ok(None),
                Err(ended) => return Ok(Some(ended)),
            },
            several => Candidates::Several(several.len()),
        };
        let coverage = window.coverage();
        let park = |why: String| {
            let named: Vec<&str> = ids.iter().take(MOST_NAMED).map(CustomerId::as_str).collect();
            Ended::Park {
                reason: format!(
                    "whether this create took effect is not known, its key may have been forgotten, and {why}: look for the \
                     customer, then cancel this intent, or retry it with its body (--body @FILE)"
                ),
                detail: Some(json!({"window_from": time::written(from), "unclaimed": named})),
            }
        };
        match creates::find(Evidence { wanted: &wanted, candidates: &candidates, coverage, has_twin }) {
            Finding::Made(found) => {
                // The list may hide what it pays with.
                let customer = match self.remote.look(found.id()).await {
                    Ok(Shown::Found(shown)) => shown,
                    // It is listed, so what the list shows counts.
                    _ => found.clone(),
                };
                match key_is == KeyIs::Good && body.token().is_some() && customer.source().is_none() {
                    // Somebody else made that one: ours would have a source.
                    true => Ok(None),
                    false => Ok(Some(Ended::TookEffect {
                        customer: PushedCustomer::Shown(customer),
                        status: None,
                    })),
                }
            }
            // Nothing of it is there: the same request may go out again.
            Finding::Absent if key_is != KeyIs::Past => Ok(None),
            Finding::Unclear(_) if key_is == KeyIs::Good => Ok(None),
            // Under its key it is the same create, unless the API failed and may have forgotten the key.
            Finding::Unproven if key_is != KeyIs::Past && !open.met_server_error => Ok(None),
            Finding::Unclear(why) => Ok(Some(park(why))),
            Finding::Unproven => {
                Ok(Some(park(format!("the list of new customers proves no absence ({})", window.size()))))
            }
            Finding::Absent => {
                let Ok(intent) = &open.intent else { return Ok(None) };
                let frozen = freshly_frozen(intent, &self.settings, &*self.clock, self.remote.server_time());
                tracing::info!(intent = %open.id, "intent {}: the create did not take effect; it is sent anew, with a new key", open.id);
                let (position, fresh) = (open.position, frozen.clone());
                self.store.write(move |tx| attempts::freeze(tx, position, &fresh)).await?;
                open.frozen = frozen;
                Ok(None)
            }
        }
    }

    /// The customers that could be the create's, and whether it has a twin.
    async fn candidates(
        &self,
        open: &Open,
        wanted: &Wanted,
        window: &Window,
    ) -> Result<(Vec<CustomerId>, bool), StoreError> {
        let listed: Vec<CustomerId> =
            window.candidates.iter().map(|customer| customer.id().clone()).collect();
        let (position, wanted) = (open.position, wanted.clone());
        let claims = if wanted.tag.is_some() { Claims::DoNotCount } else { Claims::Count };
        let (mut entered, mut is_last) = (Entered::default(), false);
        while !is_last {
            let wanted = wanted.clone();
            let read = self.store.read(move |conn| {
                let could_be = |customer: &Customer| wanted.could_be(customer);
                let is_last = entered.read_on(conn, position, ENTRIES_AT_ONCE, could_be)?;
                Ok((entered, is_last))
            });
            (entered, is_last) = read.await?;
            heartbeat::tick();
        }
        let read = self.store.read(move |conn| {
            let could_be = |customer: &Customer| wanted.could_be(customer);
            let ids = candidates::candidates(conn, position, listed, entered, claims, could_be)?;
            Ok((ids, candidates::has_twin(conn, position, &wanted.body)?))
        });
        read.await
    }

    /// Where the only candidate is. One that the window does not show as fitting is requested by itself.
    async fn place(
        &self,
        open: &Open,
        id: &CustomerId,
        window: &Window,
        from: Timestamp,
    ) -> Result<Place, Ended> {
        if let Some(listed) = window.candidates.iter().find(|customer| customer.id() == id) {
            return Ok(Place::Listed(listed.clone()));
        }
        if !id.can_be_asked() {
            return Ok(Place::Gone);
        }
        match self.remote.look(id).await {
            Ok(Shown::NotFound) => Ok(Place::Gone),
            Ok(Shown::Found(shown)) => {
                let created = shown.created_at().and_then(time::read);
                Ok(match created.is_none_or(|created| created >= from) {
                    true => Place::Listed(shown),
                    false => Place::Earlier(shown),
                })
            }
            Ok(Shown::Unreadable(bad)) => Err(self.after_unreadable(open, id, &bad, Outcome::Known)),
            Err(error) => Err(self.after_read_error(open, error, Outcome::Known)),
        }
    }
}
