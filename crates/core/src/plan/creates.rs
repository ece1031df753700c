//! Decides whether a create took effect, if its key is not enough, by the customers created since.
//!
//! The *window* of a create is the list of the API's customers that were created since
//! [`window_from`].
//!
//! A customer is a *candidate* if it matches the create. In addition, no other intent created it,
//! and the mirror did not have it before the first attempt. Other customers do not matter, live or
//! gone. With a tag (a metadata key that carries the intent's id) a customer matches if it carries
//! the id. Without a tag two results are proof. One is that there is no candidate in a window that
//! shows all customers it counts. The other is exactly one candidate that equals the request, if no
//! other open create may have made it. In any other case an operator decides.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::intent::IntentBody;
use crate::{Customer, CustomerId};

/// WINDOW_BEGINS_BEFORE controls how long before the first attempt the window begins.
pub const WINDOW_BEGINS_BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Returns the beginning of the window, from the earlier of our clock (`ours`) and the server's at
/// the first attempt. Either clock may be ahead, and a window that begins too late hides the
/// create's customer.
pub fn window_from(ours: Option<Timestamp>, server: Timestamp) -> Timestamp {
    let first = ours.map_or(server, |ours| ours.min(server));
    first.checked_sub(WINDOW_BEGINS_BEFORE).unwrap_or(Timestamp::MIN)
}

/// Whether the customer has the requested email. Case and surrounding white space are ignored,
/// because the API may change them.
pub fn has_same_email(wanted: &IntentBody, customer: &Customer) -> bool {
    let plain = |email: &str| email.trim().to_lowercase();
    let requested = wanted.fields().get("email").and_then(Value::as_str).map(plain);
    requested == customer.email().map(plain)
}

/// Whether the customer carries this intent's id under the metadata key `tag`.
fn has_tag(tag: &str, id: &str, customer: &Customer) -> bool {
    let metadata = customer.fields().get("metadata").and_then(Value::as_object);
    metadata.and_then(|metadata| metadata.get(tag)).and_then(Value::as_str) == Some(id)
}

/// How much of a customer must match the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchMode {
    /// Email, metadata and source: the create was sent recently.
    All,
    /// Email or metadata: the create was sent long ago, and the customer may have been edited
    /// since.
    Any,
}

/// The criteria by which a create's customer is recognized.
#[derive(Clone, Debug)]
pub struct CreateMatcher {
    /// The intent's id.
    pub id: String,
    /// The requested parameters, without the tag.
    pub body: IntentBody,
    /// The metadata key under which the create carried the id.
    pub tag: Option<String>,
    /// How much must match if there is no tag.
    pub mode: MatchMode,
}

impl CreateMatcher {
    /// Whether the create may have made a customer with this state.
    pub fn could_be(&self, customer: &Customer) -> bool {
        if let Some(tag) = &self.tag {
            return has_tag(tag, &self.id, customer);
        }
        let requested = given_metadata(self.body.fields());
        let theirs = given_metadata(customer.fields());
        let holds_metadata = requested.iter().all(|(key, value)| theirs.get(key) == Some(value));
        match self.mode {
            // A create without payment details makes a customer without a source. With payment
            // details the source proves nothing, because the API may hide it.
            MatchMode::All => {
                let source_fits = self.body.token().is_some() || customer.source().is_none();
                has_same_email(&self.body, customer) && holds_metadata && source_fits
            }
            MatchMode::Any => {
                has_same_email(&self.body, customer) || (!requested.is_empty() && holds_metadata)
            }
        }
    }
}

/// Whether the window shows as many customers as its list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowCoverage {
    /// It does: a customer that it does not show does not exist.
    Whole,
    /// It shows fewer or more, or has no count. It proves presence but not absence.
    Partial,
}

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum CandidateState {
    /// It is in the window.
    Listed(Customer),
    /// It exists, but its creation time is before the window.
    Earlier(Customer),
    /// It no longer exists.
    Gone,
}

/// The candidates.
#[derive(Clone, Debug, PartialEq)]
pub enum Candidates {
    /// There is no candidate.
    None,
    /// There is one candidate.
    One(CustomerId, CandidateState),
    /// There are this many candidates, in any state.
    Several(usize),
}

/// The facts for the decision.
#[derive(Clone, Copy, Debug)]
pub struct CreateEvidence<'a> {
    /// The criteria for the create's customer.
    pub wanted: &'a CreateMatcher,
    /// The candidates.
    pub candidates: &'a Candidates,
    /// What the window proves.
    pub coverage: WindowCoverage,
    /// Whether another open create has the same content, and may have made the candidate.
    pub has_twin: bool,
}

/// What the evidence says about the create.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateConclusion<'a> {
    /// The create made this customer.
    Made(&'a Customer),
    /// The create made no customer, so it may be sent again.
    Absent,
    /// There is no candidate, but the window does not prove absence.
    Unproven,
    /// The evidence is not sufficient, for this reason.
    Unclear(String),
}

/// Decides what the evidence says about a create.
pub fn conclude<'a>(evidence: CreateEvidence<'a>) -> CreateConclusion<'a> {
    let CreateEvidence { wanted, candidates, coverage, has_twin } = evidence;
    match (&wanted.tag, candidates) {
        (_, Candidates::None) if coverage == WindowCoverage::Whole => CreateConclusion::Absent,
        (_, Candidates::None) => CreateConclusion::Unproven,
        (
            Some(_),
            Candidates::One(_, CandidateState::Listed(customer) | CandidateState::Earlier(customer)),
        ) => CreateConclusion::Made(customer),
        (Some(tag), Candidates::One(id, CandidateState::Gone)) => CreateConclusion::Unclear(format!(
            "{id}, the customer that carries its id in {tag}, no longer exists"
        )),
        (Some(tag), Candidates::Several(_)) => {
            CreateConclusion::Unclear(format!("several customers carry its id in {tag}"))
        }
        (None, Candidates::Several(count)) => {
            CreateConclusion::Unclear(format!("{count} customers that were created since could be it"))
        }
        (None, Candidates::One(id, CandidateState::Gone)) => {
            CreateConclusion::Unclear(format!("{id}, a customer that could be it, no longer exists"))
        }
        (None, Candidates::One(id, CandidateState::Earlier(_))) => CreateConclusion::Unclear(format!(
            "{id} could be it and is new to the mirror, though the API says that it was created before the first attempt"
        )),
        (None, Candidates::One(id, CandidateState::Listed(customer))) => {
            if !equals_request(&wanted.body, customer.fields()) {
                CreateConclusion::Unclear(format!(
                    "{id}, a customer that was created since, differs from the request"
                ))
            } else if has_twin {
                CreateConclusion::Unclear(
                    "another open create of the same content may have made it".to_owned(),
                )
            } else {
                CreateConclusion::Made(customer)
            }
        }
    }
}

/// Whether a customer has exactly the requested email and metadata.
fn equals_request(wanted: &IntentBody, customer: &Map<String, Value>) -> bool {
    let null = Value::Null;
    let email = |fields: &Map<String, Value>| fields.get("email").unwrap_or(&null).clone();
    email(wanted.fields()) == email(customer) && given_metadata(wanted.fields()) == given_metadata(customer)
}

/// Returns the metadata without null values. The API decides whether it keeps such a key.
fn given_metadata(fields: &Map<String, Value>) -> Map<String, Value> {
    let given = fields.get("metadata").and_then(Value::as_object);
    let given = given.into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn customer(id: &str, email: &str, metadata: Value) -> Customer {
        Customer::from_value(json!({"id": id, "email": email, "metadata": metadata})).unwrap()
    }

    fn body() -> IntentBody {
        IntentBody::new(json!({"email": "a@example.com", "metadata": {"n": "1", "gone": null}, "payment_details": "tok_1"})).unwrap()
    }

    fn wanted(body: IntentBody, tag: Option<&str>, mode: MatchMode) -> CreateMatcher {
        CreateMatcher { id: "i1".to_owned(), body, tag: tag.map(str::to_owned), mode }
    }

    /// Returns the conclusion as text.
    fn found(tag: Option<&str>, candidates: Candidates, coverage: WindowCoverage, has_twin: bool) -> String {
        let wanted = wanted(body(), tag, MatchMode::All);
        match conclude(CreateEvidence { wanted: &wanted, candidates: &candidates, coverage, has_twin }) {
            CreateConclusion::Made(customer) => customer.id().to_string(),
            CreateConclusion::Absent => "absent".to_owned(),
            CreateConclusion::Unproven => "unproven".to_owned(),
            CreateConclusion::Unclear(why) => why,
        }
    }

    fn one(place: CandidateState) -> Candidates {
        Candidates::One(CustomerId::new("c").unwrap(), place)
    }

    #[test]
    fn tagged_customer_is_proof_wherever_it_is_shown() {
        let edited = customer("c", "edited since", json!({}));
        for coverage in [WindowCoverage::Whole, WindowCoverage::Partial] {
            for place in [CandidateState::Listed(edited.clone()), CandidateState::Earlier(edited.clone())] {
                assert_eq!(found(Some("ref"), one(place), coverage, true), "c");
            }
            assert!(
                found(Some("ref"), one(CandidateState::Gone), coverage, false).contains("no longer exists")
            );
            let several = found(Some("ref"), Candidates::Several(2), coverage, false);
            assert_eq!(several, "several customers carry its id in ref");
        }
    }

    #[test]
    fn absence_is_proven_only_by_a_whole_window() {
        for tag in [None, Some("ref")] {
            for has_twin in [false, true] {
                assert_eq!(found(tag, Candidates::None, WindowCoverage::Whole, has_twin), "absent");
                assert_eq!(found(tag, Candidates::None, WindowCoverage::Partial, has_twin), "unproven");
            }
        }
    }

    #[test]
    fn untagged_customer_is_proof_only_if_it_is_the_only_one_and_equals_the_request() {
        let ours = customer("c", "a@example.com", json!({"n": "1"}));
        for coverage in [WindowCoverage::Whole, WindowCoverage::Partial] {
            let found = |candidates, has_twin| found(None, candidates, coverage, has_twin);
            assert_eq!(found(one(CandidateState::Listed(ours.clone())), false), "c");
            assert!(found(one(CandidateState::Listed(ours.clone())), true).contains("another open create"));
            assert!(
                found(one(CandidateState::Earlier(ours.clone())), false).contains("before the first attempt")
            );
            assert!(found(one(CandidateState::Gone), false).contains("no longer exists"));
            assert!(found(Candidates::Several(2), false).starts_with("2 customers"));
            for other in [
                customer("c", "b@example.com", json!({"n": "1"})),
                customer("c", "a@example.com", json!({"n": "1", "m": "2"})),
            ] {
                assert!(
                    found(one(CandidateState::Listed(other)), false).contains("differs from the request")
                );
            }
        }
    }

    #[test]
    fn recent_create_matches_by_email_metadata_and_source() {
        let with_token = wanted(body(), None, MatchMode::All);
        let plain = IntentBody::new(json!({"email": "a@example.com", "metadata": {"n": "1"}})).unwrap();
        let without_token = wanted(plain, None, MatchMode::All);
        let at = |email, metadata| customer("c", email, metadata);
        let card = at("a@example.com", json!({"n": "1"})).with("source", Some(json!({"brand": "visa"})));
        let cases = [
            (at("a@example.com", json!({"n": "1"})), true, true),
            (at(" A@Example.COM", json!({"n": "1", "added": "there"})), true, true),
            (at("b@example.com", json!({"n": "1"})), false, false),
            (at("a@example.com", json!({"n": "2"})), false, false),
            (at("a@example.com", json!({})), false, false),
            (at("a@example.com", json!({"n": "1"})).with("source", Some(Value::Null)), true, true),
            (card, true, false),
        ];
        for (customer, token, plain) in cases {
            let could_be = (with_token.could_be(&customer), without_token.could_be(&customer));
            assert_eq!(could_be, (token, plain), "{}", customer.body());
        }
    }

    #[test]
    fn old_create_matches_by_email_or_metadata() {
        let old = wanted(body(), None, MatchMode::Any);
        assert!(old.could_be(&customer("c", "b@example.com", json!({"n": "1"}))));
        assert!(old.could_be(&customer("c", "a@example.com", json!({"n": "2"}))));
        assert!(!old.could_be(&customer("c", "b@example.com", json!({"n": "2"}))));
        let bare = wanted(IntentBody::new(json!({"email": "a@example.com"})).unwrap(), None, MatchMode::Any);
        assert!(
            !bare.could_be(&customer("c", "b@example.com", json!({}))),
            "missing metadata is not a match"
        );
        for mode in [MatchMode::All, MatchMode::Any] {
            let tagged = wanted(body(), Some("ref"), mode);
            assert!(tagged.could_be(&customer("c", "x", json!({"ref": "i1"}))));
            assert!(!tagged.could_be(&customer("c", "a@example.com", json!({"n": "1", "ref": "i2"}))));
        }
    }

    #[test]
    fn window_begins_ten_minutes_before_the_first_attempt_by_the_earlier_clock() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let cases = [(Some(100), 100, 90), (Some(100), 130, 90), (Some(100), 40, 30), (None, 100, 90)];
        for (ours, server, from) in cases {
            assert_eq!(window_from(ours.map(at), at(server)), at(from), "{ours:?} {server}");
        }
        assert_eq!(window_from(None, Timestamp::MIN), Timestamp::MIN);
    }

    #[test]
    fn emails_match_without_regard_to_case_and_white_space() {
        assert!(has_same_email(&body(), &customer("c", " A@Example.COM", json!({}))));
        assert!(!has_same_email(&body(), &customer("c", "b@example.com", json!({"n": "1"}))));
        let without_email = Customer::from_value(json!({"id": "c", "email": null})).unwrap();
        assert!(
            has_same_email(&IntentBody::new(json!({})).unwrap(), &without_email)
                && !has_same_email(&body(), &without_email)
        );
    }
}
