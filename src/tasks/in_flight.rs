//! Pushes in flight: the customers that an answer may show in a state from before our own push.
//!
//! Each push of a customer settles at some moment. An answer to a request from before that moment
//! may show the customer before or after our push. Neither is a change from elsewhere. So the pull
//! does not apply such an answer to that customer, and the next pass requests it again. The pull
//! marks each request ([`InFlightPushes::mark_request`]). The push registers what it sends and when
//! that settles.
//!
//! The push registers, and the pull checks before it writes, within transactions of the store. The
//! store runs one transaction at a time, so no push settles between a check and its write.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use komoju_core::intent::IntentBody;
use komoju_core::plan::creates;
use komoju_core::{Customer, CustomerId, time};

/// The pushes in flight, and those that settled since the oldest open request. Shared by pull and
/// push.
#[derive(Debug, Default)]
pub struct InFlightPushes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of pushes that have settled: a logical clock.
    now: u64,
    /// How many requests are open, by the logical time at which they were made.
    requests: BTreeMap<u64, usize>,
    /// How many pushes of each customer are in flight.
    sending: HashMap<CustomerId, usize>,
    /// The creates in flight, by the intent's position. The ids of their customers are not known
    /// yet.
    creating: HashMap<i64, PendingCreate>,
    /// When the last push of a customer settled, for pushes that settled after the oldest open
    /// request.
    settled: HashMap<CustomerId, u64>,
}

/// A create in flight.
#[derive(Clone, Debug)]
pub(super) struct PendingCreate {
    /// The body as it is sent.
    pub(super) body: IntentBody,
    /// A customer that the remote created before this time is not the result.
    pub(super) since: Option<Timestamp>,
}

impl PendingCreate {
    /// Returns whether the customer may be the result of this create. The remote may write an email
    /// or keep metadata in its own way, so the comparison is loose. A customer that is left out
    /// without need is applied by the next pass.
    fn may_have_created(&self, customer: &Customer) -> bool {
        let created = customer.created_at().and_then(time::read);
        let is_older = created.zip(self.since).is_some_and(|(created, since)| created < since);
        !is_older && creates::has_same_email(&self.body, customer)
    }
}

/// The moment of a request. Pushes that settle later are remembered until it is dropped.
#[derive(Debug)]
pub struct RequestMark {
    at: u64,
    requested_at: Timestamp,
    in_flight: Arc<InFlightPushes>,
}

impl InFlightPushes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks that a request is made now.
    pub fn mark_request(self: &Arc<Self>, now: Timestamp) -> Arc<RequestMark> {
        let mut state = self.state();
        let at = state.now;
        *state.requests.entry(at).or_default() += 1;
        Arc::new(RequestMark { at, requested_at: now, in_flight: Arc::clone(self) })
    }

    /// Registers a push of this customer, or this create, before it is sent.
    pub(super) fn sending(
        &self,
        position: i64,
        customer: Option<&CustomerId>,
        create: Option<PendingCreate>,
    ) {
        let mut state = self.state();
        if let Some(customer) = customer {
            *state.sending.entry(customer.clone()).or_default() += 1;
        }
        if let Some(create) = create {
            state.creating.insert(position, create);
        }
    }

    /// Forgets all pushes in flight, because none is being sent any more.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.sending.clear();
        state.creating.clear();
    }

    /// Registers that a push settled. `created` is the customer that a create created.
    pub(super) fn settled(&self, position: i64, customer: Option<&CustomerId>, created: Option<&CustomerId>) {
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
        for customer in customer.into_iter().chain(created) {
            if !state.requests.is_empty() {
                state.settled.insert(customer.clone(), now);
            }
        }
    }
}

impl InFlightPushes {
    /// Registers that the answer to a request of this customer alone was applied. Answers to
    /// requests from before this moment may be older, and are not applied to this customer.
    pub(super) fn note_applied_read(&self, customer: &CustomerId) {
        let mut state = self.state();
        state.now += 1;
        let now = state.now;
        if !state.requests.is_empty() {
            state.settled.insert(customer.clone(), now);
        }
    }
}

impl RequestMark {
    /// Returns when the request was made, by the clock that stamps the change log.
    pub fn requested_at(&self) -> Timestamp {
        self.requested_at
    }

    /// Returns whether our own push of this customer is in flight, or settled after the request.
    pub fn is_before_push_of(&self, id: &CustomerId) -> bool {
        let state = self.in_flight.state();
        state.sending.contains_key(id) || state.settled.get(id).is_some_and(|at| *at > self.at)
    }

    /// Returns whether a customer that is new to the mirror may be the result of our own create
    /// that is in flight.
    pub fn may_be_created_by_us(&self, customer: &Customer) -> bool {
        self.in_flight.state().creating.values().any(|create| create.may_have_created(customer))
    }
}

impl Drop for RequestMark {
    fn drop(&mut self) {
        let mut state = self.in_flight.state();
        if let Some(count) = state.requests.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                state.requests.remove(&self.at);
            }
        }
        // No open request needs an older entry.
        match state.requests.keys().next().copied() {
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
    fn push_is_remembered_from_its_send_until_every_earlier_request_is_over() {
        let in_flight = Arc::new(InFlightPushes::default());
        let id = CustomerId::new("c").unwrap();
        let before = in_flight.mark_request(Timestamp::UNIX_EPOCH);
        assert!(!before.is_before_push_of(&id));
        in_flight.sending(1, Some(&id), None);
        let within = in_flight.mark_request(Timestamp::UNIX_EPOCH);
        assert!(before.is_before_push_of(&id) && within.is_before_push_of(&id));
        in_flight.settled(1, Some(&id), None);
        let after = in_flight.mark_request(Timestamp::UNIX_EPOCH);
        assert!(before.is_before_push_of(&id) && within.is_before_push_of(&id));
        assert!(!after.is_before_push_of(&id));
        drop((before, within));
        assert!(in_flight.state().settled.is_empty(), "no open request needs the entry");
        drop(after);
        assert!(in_flight.state().requests.is_empty());
    }

    #[test]
    fn created_customer_is_matched_by_content_until_its_id_is_known() {
        let in_flight = Arc::new(InFlightPushes::default());
        let created =
            Customer::from_value(json!({"id": "new", "email": "a", "metadata": {"added": "there"}})).unwrap();
        let request = in_flight.mark_request(Timestamp::UNIX_EPOCH);
        assert!(!request.may_be_created_by_us(&created));
        let body = IntentBody::new(json!({"email": " A"})).unwrap();
        let since = Some("2026-06-01T00:00:00Z".parse().unwrap());
        in_flight.sending(7, None, Some(PendingCreate { body, since }));
        assert!(request.may_be_created_by_us(&created));
        let at = |time: &str| created.clone().with("created_at", Some(json!(time)));
        assert!(request.may_be_created_by_us(&at("2026-06-01T00:00:00Z")));
        assert!(!request.may_be_created_by_us(&at("2026-05-31T23:59:59Z")), "it existed before the create");
        in_flight.settled(7, None, Some(created.id()));
        assert!(!request.may_be_created_by_us(&created) && request.is_before_push_of(created.id()));
    }
}
