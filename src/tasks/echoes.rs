//! Echoes: what an answer shows of a customer that we pushed to ourselves while it was on its way.
//!
//! An answer that was asked for before our own push of that customer settled may show the customer as it was before, or as we made
//! it: neither is news of anybody else. So whoever asks takes a note of the moment ([`Echoes::asking`]), the pusher says what it
//! sends and when that settled, and whoever applies the answer leaves such customers out; the next pass asks again.
//!
//! Both sides speak within the store's transactions, which run one after the other: so there is no moment between.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use komoju_core::intent::Body;
use komoju_core::plan::creates;
use komoju_core::{Customer, CustomerId, time};

/// What is being pushed, and what was since the oldest request that is still under way. Shared by pull and push.
#[derive(Debug, Default)]
pub struct Echoes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: u64,
    /// Requests under way, by the moment at which they were made.
    asked: BTreeMap<u64, usize>,
    sending: HashMap<CustomerId, usize>,
    /// Creates under way, by the intent's position: whom they make is not known yet.
    creating: HashMap<i64, Making>,
    settled: HashMap<CustomerId, u64>,
}

/// A create under way.
#[derive(Clone, Debug)]
pub(super) struct Making {
    /// As it is sent.
    pub(super) body: Body,
    /// Whom the remote made before this it did not make.
    pub(super) since: Option<Timestamp>,
}

impl Making {
    /// The remote may write an email, or keep metadata, in a way of its own. Who is put off for nothing is seen by the next pass.
    fn may_have_made(&self, customer: &Customer) -> bool {
        let made = customer.created_at().and_then(time::read);
        let is_older = made.zip(self.since).is_some_and(|(made, since)| made < since);
        !is_older && creates::is_alike(&self.body, customer)
    }
}

/// The moment at which something was asked for.
#[derive(Debug)]
pub struct Asked {
    at: u64,
    requested_at: Timestamp,
    echoes: Arc<Echoes>,
}

impl Echoes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something is requested now; as long as the note is kept, settled pushes are remembered.
    pub fn asking(self: &Arc<Self>, now: Timestamp) -> Arc<Asked> {
        let mut state = self.state();
        let at = state.now;
        *state.asked.entry(at).or_default() += 1;
        Arc::new(Asked { at, requested_at: now, echoes: Arc::clone(self) })
    }

    /// A push of this customer, or this create, is about to be sent.
    pub(super) fn sending(&self, position: i64, customer: Option<&CustomerId>, create: Option<Making>) {
        let mut state = self.state();
        if let Some(customer) = customer {
            *state.sending.entry(customer.clone()).or_default() += 1;
        }
        if let Some(create) = create {
            state.creating.insert(position, create);
        }
    }

    /// Nothing is under way any more: what was, nobody waits for.
    pub(super) fn nothing_is_sent(&self) {
        let mut state = self.state();
        state.sending.clear();
        state.creating.clear();
    }

    /// That push is over; `made` is whom a create made.
    pub(super) fn settled(&self, position: i64, customer: Option<&CustomerId>, made: Option<&CustomerId>) {
        let mut state = self.state();
        state.creating.remove(&position);
        state.now += 1;
        let now = state.now;
        if let Some(customer) = customer
            && let Some(count) = state.sending.get_mut(customer)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.sending.remove(customer);
            }
        }
        for customer in customer.into_iter().chain(made) {
            if !state.asked.is_empty() {
                state.settled.insert(customer.clone(), now);
            }
        }
    }
}

impl Echoes {
    /// An answer about this customer alone was applied: answers that were requested before it are older.
    pub(super) fn read_applied(&self, customer: &CustomerId) {
        let mut state = self.state();
        state.now += 1;
        let now = state.now;
        if !state.asked.is_empty() {
            state.settled.insert(customer.clone(), now);
        }
    }
}

impl Asked {
    /// When it was requested, by the clock that stamps the change log.
    pub fn requested_at(&self) -> Timestamp {
        self.requested_at
    }

    /// Whether our own push of this customer is under way, or settled after this was asked for.
    pub fn is_before_push_of(&self, id: &CustomerId) -> bool {
        let state = self.echoes.state();
        state.sending.contains_key(id) || state.settled.get(id).is_some_and(|at| *at > self.at)
    }

    /// Whether a customer that nobody knows yet may be the one that our own create, still under way, has made.
    pub fn may_be_made_by_us(&self, customer: &Customer) -> bool {
        self.echoes.state().creating.values().any(|create| create.may_have_made(customer))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.echoes.state();
        if let Some(count) = state.asked.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                state.asked.remove(&self.at);
            }
        }
        // Nobody asks about anything older.
        match state.asked.keys().next().copied() {
            Some(oldest) => state.settled.retain(|_, at| *at > oldest),
            None => state.settled.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_an_echo_from_the_send_until_what_was_asked_before_it_settled_is_over() {
        let echoes = Arc::new(Echoes::default());
        let id = CustomerId::new("c").unwrap();
        let before = echoes.asking(Timestamp::UNIX_EPOCH);
        assert!(!before.is_before_push_of(&id));
        echoes.sending(1, Some(&id), None);
        let within = echoes.asking(Timestamp::UNIX_EPOCH);
        assert!(before.is_before_push_of(&id) && within.is_before_push_of(&id));
        echoes.settled(1, Some(&id), None);
        let after = echoes.asking(Timestamp::UNIX_EPOCH);
        assert!(before.is_before_push_of(&id) && within.is_before_push_of(&id));
        assert!(!after.is_before_push_of(&id));
        drop((before, within));
        assert!(echoes.state().settled.is_empty(), "what nobody asks about is forgotten");
        drop(after);
        assert!(echoes.state().asked.is_empty());
    }

    #[test]
    fn whom_a_create_makes_is_known_by_its_content_until_it_is_known_by_its_id() {
        let echoes = Arc::new(Echoes::default());
        let made =
            Customer::from_value(json!({"id": "new", "email": "a", "metadata": {"added": "there"}})).unwrap();
        let asked = echoes.asking(Timestamp::UNIX_EPOCH);
        assert!(!asked.may_be_made_by_us(&made));
        let body = Body::new(json!({"email": " A"})).unwrap();
        let since = Some("2026-06-01T00:00:00Z".parse().unwrap());
        echoes.sending(7, None, Some(Making { body, since }));
        assert!(asked.may_be_made_by_us(&made));
        let at = |time: &str| made.clone().with("created_at", Some(json!(time)));
        assert!(asked.may_be_made_by_us(&at("2026-06-01T00:00:00Z")));
        assert!(!asked.may_be_made_by_us(&at("2026-05-31T23:59:59Z")), "it was there before");
        echoes.settled(7, None, Some(made.id()));
        assert!(!asked.may_be_made_by_us(&made) && asked.is_before_push_of(made.id()));
    }
}
