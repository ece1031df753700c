//! Did that create take effect? Asked of the customers that came to be since, when the key is too old to be counted on.
//!
//! With a tag (a metadata key that carries the intent's id) the answer is in the customer. Without, only two findings are proof
//! enough: nobody whom no other intent accounts for came to be in that time, or exactly one did, is what was asked for, and no other
//! create could have made it. Anything else is for a person.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::model::intent::Body;
use crate::model::{Customer, CustomerId};

/// How long before its first attempt the window begins.
pub const WINDOW_BEGINS_BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Where the window begins. `first_attempt` is by the server's clock, as the creation of customers is.
pub fn window_from(first_attempt: Timestamp) -> Timestamp {
    first_attempt.checked_sub(WINDOW_BEGINS_BEFORE).unwrap_or(Timestamp::MIN)
}

/// Whether the customer may be what was asked for, if the API writes emails in a way of its own. One that is not is nobody's business.
pub fn is_alike(wanted: &Body, customer: &Customer) -> bool {
    let plain = |email: &str| email.trim().to_lowercase();
    let asked = wanted.fields().get("email").and_then(Value::as_str).map(plain);
    asked == customer.email().map(plain)
}

/// Whether the customer carries this intent's id under the metadata key `tag`.
fn carries(tag: &str, id: &str, customer: &Customer) -> bool {
    let metadata = customer.fields().get("metadata").and_then(Value::as_object);
    metadata.and_then(|metadata| metadata.get(tag)).and_then(Value::as_str) == Some(id)
}

/// Whether [`find`] has to see this customer: of everybody else in the window it is enough to know who they are.
pub fn may_be_it(id: &str, wanted: &Body, tag: Option<&str>, customer: &Customer) -> bool {
    match tag {
        Some(tag) => carries(tag, id, customer),
        None => is_alike(wanted, customer),
    }
}

/// What is known when the question is put.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The intent's id.
    pub id: &'a str,
    /// What it asked for.
    pub wanted: &'a Body,
    /// The metadata key under which the create carried the id.
    pub tag: Option<&'a str>,
    /// Those whom the remote lists as made within the window and of whom [`may_be_it`] holds.
    pub listed: &'a [Customer],
    /// Everybody listed as made within the window whom neither another intent nor an earlier mirror accounts for.
    pub unclaimed: &'a [CustomerId],
    /// How many others were made within the window, are accounted for by no intent and are gone already.
    pub gone: u64,
    /// With a tag: the customer that carries the id and is gone already.
    pub made_and_gone: Option<&'a CustomerId>,
    /// Whether another create of the same content is open, and might have made the one.
    pub has_twin: bool,
}

/// What became of the create.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding<'a> {
    /// It made this customer.
    Made(&'a Customer),
    /// It made nobody: it may be sent anew, with a new key.
    Absent,
    /// It cannot be told, and why.
    Unclear(String),
}

/// Looks for the create's customer.
pub fn find<'a>(evidence: Evidence<'a>) -> Finding<'a> {
    if let Some(tag) = evidence.tag {
        let mut found = evidence.listed.iter().filter(|customer| carries(tag, evidence.id, customer));
        return match (found.next(), found.next()) {
            (Some(customer), None) => Finding::Made(customer),
            (None, _) => match evidence.made_and_gone {
                Some(gone) => Finding::Unclear(format!(
                    "{gone}, the customer that carries its id in {tag}, is gone already"
                )),
                None => Finding::Absent,
            },
            (Some(_), Some(_)) => Finding::Unclear(format!("several customers carry its id in {tag}")),
        };
    }
    match (evidence.unclaimed, evidence.gone) {
        ([], 0) => Finding::Absent,
        ([one], 0) => {
            let customer = evidence.listed.iter().find(|customer| customer.id() == one);
            match customer.filter(|customer| is_what_was_asked_for(evidence.wanted, customer.fields())) {
                Some(_) if evidence.has_twin => {
                    Finding::Unclear("another open create of the same content may have made it".to_owned())
                }
                Some(customer) => Finding::Made(customer),
                None => Finding::Unclear(
                    "one customer came to be since, and is not what was asked for".to_owned(),
                ),
            }
        }
        (some, gone) => Finding::Unclear(format!(
            "{} customers came to be since whom no intent accounts for{}",
            some.len() as u64 + gone,
            if gone > 0 { ", some of them gone already" } else { "" }
        )),
    }
}

/// Whether a customer has the email and the metadata that a create asked for.
fn is_what_was_asked_for(wanted: &Body, customer: &Map<String, Value>) -> bool {
    let null = Value::Null;
    let email = |fields: &Map<String, Value>| fields.get("email").unwrap_or(&null).clone();
    let metadata = |fields: &Map<String, Value>| {
        let given = fields.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        // Whether a key with null is kept or not, the API says.
        given.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>()
    };
    email(wanted.fields()) == email(customer) && metadata(wanted.fields()) == metadata(customer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn customer(id: &str, email: &str, metadata: Value) -> Customer {
        Customer::from_value(json!({"id": id, "email": email, "metadata": metadata})).unwrap()
    }

    fn body() -> Body {
        Body::new(json!({"email": "a@example.com", "metadata": {"n": "1", "gone": null}, "payment_details": "tok_1"})).unwrap()
    }

    /// The finding in short.
    fn found(
        listed: &[Customer],
        tag: Option<&str>,
        unclaimed: &[&str],
        gone: u64,
        has_twin: bool,
    ) -> String {
        let unclaimed: Vec<CustomerId> = unclaimed.iter().map(|id| CustomerId::new(*id).unwrap()).collect();
        let wanted = body();
        let evidence = Evidence {
            id: "i1",
            wanted: &wanted,
            tag,
            listed,
            unclaimed: &unclaimed,
            gone,
            made_and_gone: None,
            has_twin,
        };
        match find(evidence) {
            Finding::Made(customer) => customer.id().to_string(),
            Finding::Absent => "absent".to_owned(),
            Finding::Unclear(why) => why,
        }
    }

    #[test]
    fn a_tag_is_the_answer_whoever_else_is_there() {
        let others =
            [customer("o", "a@example.com", json!({"n": "1"})), customer("p", "x", json!({"ref": "i2"}))];
        assert_eq!(found(&others, Some("ref"), &["o", "p"], 3, true), "absent");
        let mut with = others.to_vec();
        with.push(customer("ours", "changed since", json!({"ref": "i1"})));
        assert_eq!(found(&with, Some("ref"), &["o", "p", "ours"], 3, true), "ours");
        with.push(customer("again", "a", json!({"ref": "i1"})));
        assert_eq!(found(&with, Some("ref"), &[], 0, false), "several customers carry its id in ref");
    }

    #[test]
    fn without_a_tag_only_one_who_can_be_nobody_elses_is_proof() {
        let ours = customer("c", "a@example.com", json!({"n": "1"}));
        let listed = [ours.clone(), customer("d", "d", json!({}))];
        assert_eq!(found(&listed, None, &["c"], 0, false), "c");
        assert_eq!(found(&listed, None, &[], 0, false), "absent");
        assert!(found(&listed, None, &["c"], 0, true).contains("another open create"));
        assert!(found(&listed, None, &["d"], 0, false).contains("not what was asked for"));
        assert!(found(&listed, None, &["c", "d"], 0, false).starts_with("2 customers"));
        assert!(found(&listed, None, &["c"], 1, false).contains("gone already"));
        assert!(found(&[], None, &[], 1, false).contains("gone already"));
        for other in [
            customer("c", "b@example.com", json!({"n": "1"})),
            customer("c", "a@example.com", json!({"n": "1", "m": "2"})),
        ] {
            assert!(found(&[other], None, &["c"], 0, false).contains("not what was asked for"));
        }
    }

    #[test]
    fn the_window_begins_ten_minutes_before_and_emails_are_compared_as_people_do() {
        let at: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(window_from(at).to_string(), "2026-01-01T11:50:00Z");
        assert!(is_alike(&body(), &customer("c", " A@Example.COM", json!({}))));
        assert!(!is_alike(&body(), &customer("c", "b@example.com", json!({"n": "1"}))));
        let nobody = Customer::from_value(json!({"id": "c", "email": null})).unwrap();
        assert!(is_alike(&Body::new(json!({})).unwrap(), &nobody) && !is_alike(&body(), &nobody));
    }
}
