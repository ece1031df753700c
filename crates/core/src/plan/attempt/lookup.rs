//! Decides about a create whose outcome is unknown: send it again, find its customer, use a new
//! key, or park.

use std::time::Duration;

use serde_json::json;

use super::{AttemptFacts, AttemptStep, found, park, retry};
use crate::intent::IntentBody;
use crate::intent::lifecycle::OutcomeStatus;
use crate::plan::create_window::{CreateWindow, WindowError, WindowQuery};
use crate::plan::creates::{
    self, CandidateState, Candidates, CreateConclusion, CreateEvidence, CreateMatcher, MatchMode,
};
use crate::plan::key_age::{KeyTrust, key_trust};
use crate::plan::outcome::{RetryPlan, attempt_wait};
use crate::remote::CustomerAnswer;
use crate::{Customer, CustomerId, time};

/// MOST_NAMED limits the candidates that are named to the operator.
const MOST_NAMED: usize = 100;

/// LONGEST_WAIT_AT controls from which attempt on the wait after a moving list stays at about a
/// minute. A moving list does not become steadier with a longer wait.
const LONGEST_WAIT_AT: u32 = 7;

/// REST controls the wait as a multiple of the time that reading the list took. A long window must
/// leave requests for other work.
const REST: u32 = 4;

/// LONGEST_REST limits that wait: a wait of a day or more counts as planned by a wrong clock.
const LONGEST_REST: Duration = Duration::from_secs(12 * 60 * 60);

/// A search for the customer of a create.
#[derive(Clone, Debug)]
pub struct CreateLookup {
    /// The search criteria.
    pub query: WindowQuery,
    /// The duration of the search.
    pub took: Duration,
    /// The result, or why there is none.
    pub result: Result<LookupResult, WindowError>,
}

/// The result of a search for the customer of a create.
#[derive(Clone, Debug)]
pub struct LookupResult {
    /// The customers created since the first attempt, as the list shows them.
    pub window: CreateWindow,
    /// The customers that the create may have made, from the window and the log. Customers that
    /// another intent created are excluded.
    pub candidates: Vec<CustomerId>,
    /// Whether another open create has the same content.
    pub has_twin: bool,
}

/// Returns the next step for a create whose outcome is unknown; `None` if it may be sent under its
/// key.
pub(super) fn next(facts: &AttemptFacts, body: &IntentBody) -> Option<AttemptStep> {
    if facts.has_new_key {
        return None;
    }
    let Some(CreateLookup { query, took, result }) = &facts.lookup else { return start(facts, body) };
    match result {
        Ok(result) => decide(facts, body, query, result),
        Err(WindowError::Remote(error)) => Some(retry(facts.after_error(error, OutcomeStatus::Known))),
        Err(WindowError::Moving(_)) if query.trust == KeyTrust::Full => None,
        Err(WindowError::Moving(why)) => Some(after_moving_list(facts, why, *took)),
    }
}

fn start(facts: &AttemptFacts, body: &IntentBody) -> Option<AttemptStep> {
    let open = &facts.open;
    let trust = key_trust(open, &facts.now, facts.server_time)?;
    let Some(from) = open.window_from() else {
        return Some(park(
            "the time of its first attempt by KOMOJU's clock is not known: look for the customer, then cancel this intent, or retry it \
             with its body (--body @FILE)",
            None,
        ));
    };
    // Proof of absence must be newer than the last attempt.
    if trust != KeyTrust::Full && facts.may_be_before_last_attempt(facts.now.wall) {
        let why = "whether this create took effect is checked once no read can be older than the attempt";
        return Some(facts.after_lag(why));
    }
    let mode = if trust == KeyTrust::Expired { MatchMode::Any } else { MatchMode::All };
    let wanted =
        CreateMatcher { id: open.id.clone(), body: body.clone(), tag: open.frozen.tag.clone(), mode };
    Some(AttemptStep::LookForCustomer(WindowQuery { from, wanted, trust }))
}

fn after_moving_list(facts: &AttemptFacts, why: &str, took: Duration) -> AttemptStep {
    let wait = attempt_wait(facts.open.life.attempts.min(LONGEST_WAIT_AT), facts.jitter);
    let wait = wait.max(took.saturating_mul(REST).min(LONGEST_REST));
    retry(RetryPlan::at(facts.now.wall.checked_add(wait).ok(), OutcomeStatus::Unknown, why))
}

fn decide(
    facts: &AttemptFacts,
    body: &IntentBody,
    query: &WindowQuery,
    result: &LookupResult,
) -> Option<AttemptStep> {
    let candidates = match result.candidates.as_slice() {
        [] => Candidates::None,
        [one] => match candidate_state(facts, query, &result.window, one) {
            Ok(state) => Candidates::One(one.clone(), state),
            Err(AttemptStep::Finish(_)) if query.trust == KeyTrust::Full => return None,
            Err(step) => return Some(step),
        },
        several => Candidates::Several(several.len()),
    };
    let (coverage, has_twin) = (result.window.coverage(), result.has_twin);
    let evidence = CreateEvidence { wanted: &query.wanted, candidates: &candidates, coverage, has_twin };
    match (creates::conclude(evidence), query.trust) {
        (CreateConclusion::Made(customer), trust) => created(facts, body, trust, customer),
        (CreateConclusion::Absent, KeyTrust::Expired) => Some(AttemptStep::FreezeNewKey),
        // The same request may be sent again: its customer is absent, or its key is trusted
        // whatever the list shows.
        (CreateConclusion::Absent, _) | (CreateConclusion::Unclear(_), KeyTrust::Full) => None,
        // Under its key it is the same create, unless the API failed and may have forgotten the
        // key.
        (CreateConclusion::Unproven, KeyTrust::Full | KeyTrust::Doubtful) if !facts.open.met_server_error => {
            None
        }
        (CreateConclusion::Unclear(why), _) => Some(park_unclear(query, result, &why)),
        (CreateConclusion::Unproven, _) => {
            let size = result.window.size();
            let why = format!("the list of new customers proves no absence ({size})");
            Some(park_unclear(query, result, &why))
        }
    }
}

/// Returns the state of the only candidate. A candidate that is not in the window is requested by
/// its id.
fn candidate_state(
    facts: &AttemptFacts,
    query: &WindowQuery,
    window: &CreateWindow,
    id: &CustomerId,
) -> Result<CandidateState, AttemptStep> {
    if let Some(listed) = window.candidates.iter().find(|customer| customer.id() == id) {
        return Ok(CandidateState::Listed(listed.clone()));
    }
    if !id.can_be_requested() {
        return Ok(CandidateState::Gone);
    }
    match super::shown(facts, id) {
        Ok((_, customer)) => {
            let created = customer.created_at().and_then(time::read);
            let is_earlier = created.is_some_and(|created| created < query.from);
            let state = if is_earlier { CandidateState::Earlier } else { CandidateState::Listed };
            Ok(state(customer.clone()))
        }
        Err(None) => Ok(CandidateState::Gone),
        Err(Some(step)) => Err(step),
    }
}

/// Handles a create whose customer was found. The customer is requested once more, because the list
/// may hide its payment source.
fn created(
    facts: &AttemptFacts,
    body: &IntentBody,
    trust: KeyTrust,
    listed: &Customer,
) -> Option<AttemptStep> {
    let customer = match facts.reading_of(listed.id()).map(|reading| &reading.result) {
        None if listed.id().can_be_requested() => {
            return Some(AttemptStep::ReadCustomer(listed.id().clone()));
        }
        Some(Ok(CustomerAnswer::Found(customer))) => customer,
        _ => listed,
    };
    // A create with a token makes a customer with a source, so another program created this one.
    let is_by_another = trust == KeyTrust::Full && body.token().is_some() && customer.source().is_none();
    (!is_by_another).then(|| found(customer.clone()))
}

fn park_unclear(query: &WindowQuery, result: &LookupResult, why: &str) -> AttemptStep {
    let named: Vec<&str> = result.candidates.iter().take(MOST_NAMED).map(CustomerId::as_str).collect();
    park(
        format!(
            "it is not known whether this create took effect, KOMOJU may have forgotten its key, and {why}: look for the customer, then \
             cancel this intent, or retry it with its body (--body @FILE)"
        ),
        Some(json!({"window_from": time::written(query.from), "unclaimed": named})),
    )
}
