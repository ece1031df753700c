//! A create whose outcome is unknown and whose key is too old: the customers that came to be since are read, twice.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::Pusher;
use super::attempt::{Ended, Obstacle};
use super::claim::freshly_frozen;
use crate::model::intent::Body;
use crate::model::intent::lifecycle::Outcome;
use crate::model::{Customer, CustomerId, PageQuery, time};
use crate::reconcile::creates::{self, Evidence, Finding};
use crate::reconcile::outcome::attempt_wait;
use crate::reconcile::paging;
use crate::remote::{Cause, PushRemote, Remote, RemoteError, Shown};
use crate::store::outbox::{self, Open};
use crate::store::{StoreError, intents};

/// The API's own page size.
const OWN_PER_PAGE: u32 = 10;

/// How often the window is read until two readings in a row agree.
const READINGS: usize = 5;

/// Whether the create may be sent again under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyIs {
    /// Yes: under the same key it is the same create. But the answer that nobody heard may have been a 5xx, which KOMOJU may keep or
    /// not: so it is not sent where its customer is plain to see.
    Good,
    /// Yes, if it is proven not to have taken effect.
    Doubtful,
    /// No: KOMOJU may have forgotten it.
    Past,
}

/// Why a reading of the window cannot be used.
enum Setback {
    Remote(RemoteError),
    Moving(String),
}

/// What a reading of the window showed. It may be long: whole customers are kept only where they matter.
#[derive(PartialEq)]
struct Window {
    /// Everybody whom it listed, as a digest each.
    all: HashSet<u64>,
    /// Those whom the remote says were made in it, or of whom it does not say when; and what they are, as a digest each.
    made: BTreeMap<CustomerId, u64>,
    /// Those of them who may be the create's.
    candidates: Vec<Customer>,
}

fn digest_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// So many of those whom nobody accounts for are named to a person.
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
        let Some(first) = open.frozen.first_server_at.as_deref().and_then(time::read) else {
            let reason = "when it was first sent, by KOMOJU's clock, is not known: look for the customer, then cancel this intent, or \
                          retry it with its body (--body @FILE)"
                .to_owned();
            return Ok(Some(Ended::Park { reason, detail: None }));
        };
        let from = creates::window_from(first);
        let tag = open.frozen.tag.as_deref();
        let may_be_it = |customer: &Customer| creates::may_be_it(&open.id, body, tag, customer);
        let begun = self.clock.elapsed();
        let window = match self.read_twice(from, may_be_it).await {
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
        let Window { made, candidates, .. } = window;
        let made = made.into_keys().collect();
        let (position, wanted, since) = (open.position, body.clone(), time::written(from));
        let (id, tag) = (open.id.clone(), open.frozen.tag.clone());
        let accounted = self.store.read(move |conn| {
            let made_and_gone = match tag {
                Some(tag) => intents::seen_with_tag(conn, &tag, &id, &since)?,
                None => None,
            };
            Ok((intents::unclaimed(conn, position, &wanted, made, &since)?, made_and_gone))
        });
        let ((mut unclaimed, gone, has_twin), made_and_gone) = accounted.await?;
        if key_is != KeyIs::Past {
            // Nothing has to be made anew: whoever is plainly somebody else stands in nobody's way.
            let alike: HashSet<&CustomerId> = candidates.iter().map(Customer::id).collect();
            unclaimed.retain(|id| alike.contains(id));
        }
        let evidence = Evidence {
            id: &open.id,
            wanted: body,
            tag: open.frozen.tag.as_deref(),
            listed: &candidates,
            unclaimed: &unclaimed,
            gone,
            made_and_gone: made_and_gone.as_ref(),
            has_twin,
        };
        match creates::find(evidence) {
            Finding::Made(listed) => {
                // The list may hide what it pays with.
                let customer = match self.remote.look(listed.id()).await {
                    Ok(Shown::Found(shown)) => shown,
                    _ => listed.clone(),
                };
                let has_source = customer.fields().get("source").is_some_and(|source| !source.is_null());
                match key_is == KeyIs::Good && body.token().is_some() && !has_source {
                    // Somebody else made that one: ours would have a source.
                    true => Ok(None),
                    false => Ok(Some(Ended::TookEffect { customer: Some(customer), status: None })),
                }
            }
            // Nothing of it is there: the same request may go out again.
            Finding::Absent if key_is != KeyIs::Past => Ok(None),
            Finding::Unclear(_) if key_is == KeyIs::Good => Ok(None),
            Finding::Unclear(why) => {
                let named: Vec<&str> = unclaimed.iter().take(MOST_NAMED).map(CustomerId::as_str).collect();
                Ok(Some(Ended::Park {
                    reason: format!(
                        "whether this create took effect is not known, its key may have been forgotten, and {why}: look for the \
                         customer, then cancel this intent, or retry it with its body (--body @FILE)"
                    ),
                    detail: Some(json!({"window_from": time::written(from), "unclaimed": named})),
                }))
            }
            Finding::Absent => {
                let Ok(intent) = &open.intent else { return Ok(None) };
                let frozen = freshly_frozen(intent, &self.settings, &*self.clock, self.remote.server_time());
                tracing::info!(intent = %open.id, "intent {}: the create did not take effect; it is sent anew, with a new key", open.id);
                let (position, fresh) = (open.position, frozen.clone());
                self.store.write(move |tx| outbox::freeze(tx, position, &fresh)).await?;
                open.frozen = frozen;
                Ok(None)
            }
        }
    }

    /// Reads the window until two readings in a row agree.
    async fn read_twice(
        &self,
        from: Timestamp,
        may_be_it: impl Fn(&Customer) -> bool,
    ) -> Result<Window, Setback> {
        let mut last: Option<Window> = None;
        for _ in 0..READINGS {
            let window = match self.read_window(from, &may_be_it).await {
                Ok(window) => window,
                Err(Setback::Moving(_)) => {
                    last = None;
                    continue;
                }
                Err(other) => return Err(other),
            };
            if last.as_ref() == Some(&window) {
                return Ok(window);
            }
            last = Some(window);
        }
        Err(Setback::Moving(format!(
            "the customers made since {from:.0} were read {READINGS} times, and no two readings agreed: the list keeps moving"
        )))
    }

    async fn read_window(
        &self,
        from: Timestamp,
        may_be_it: &impl Fn(&Customer) -> bool,
    ) -> Result<Window, Setback> {
        let mut window = Window { all: HashSet::new(), made: BTreeMap::new(), candidates: Vec::new() };
        let (mut page, mut total, mut per_page) = (1, None, self.settings.per_page);
        loop {
            let query = PageQuery { page, per_page, created_from: Some(from) };
            let answer = match self.remote.list(query).await {
                // A server that refuses a larger page instead of answering with less.
                Err(RemoteError { cause: Cause::Rejected(told), .. })
                    if page == 1 && per_page > OWN_PER_PAGE && told.param.as_deref() == Some("per_page") =>
                {
                    per_page = OWN_PER_PAGE;
                    continue;
                }
                answer => answer.map_err(Setback::Remote)?,
            };
            let moving = |why: String| Setback::Moving(why);
            paging::check(page, &answer).map_err(|fault| moving(fault.to_string()))?;
            if *total.get_or_insert(answer.total) != answer.total {
                return Err(moving("its total changed while it was read".to_owned()));
            }
            for listed in &answer.customers {
                window.all.insert(digest_of(listed.id().as_str()));
                let customer = listed.read().map_err(|why| moving(why.to_string()))?;
                let made = customer.created_at().and_then(time::read);
                // The API filters by itself; a server that does not shall not make the window larger than it is.
                if made.is_none_or(|made| made >= from) {
                    window.made.insert(customer.id().clone(), digest_of(customer.body()));
                    if may_be_it(&customer) {
                        window.candidates.push(customer);
                    }
                }
            }
            if page >= answer.last_page {
                break;
            }
            page += 1;
        }
        match window.all.len() as u64 == total.unwrap_or(0) {
            true => {
                window.candidates.sort_by(|a, b| a.id().cmp(b.id()));
                Ok(window)
            }
            false => Err(Setback::Moving("it showed some customers twice, or left some out".to_owned())),
        }
    }
}
