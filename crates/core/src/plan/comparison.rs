//! Compares a customer, as an answer shows it, with its row in the mirror.
//!
//! A null `source` means "none" or "not shown", and a single answer cannot tell which. So a null
//! alone never removes a known source. The recorded change retains the known source, and the end of
//! a sweep decides ([`may_be_nulled`]).

use serde_json::Value;

use crate::{ChangeKind, Customer, MirrorRow, Source};

/// The result of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The change to record, with the customer's new state; `None` if nothing changed.
    pub change: Option<(ChangeKind, Customer)>,
    /// What the answer shows of the source.
    pub source: Source,
}

/// Compares a customer with its row in the mirror. An unreadable body in the mirror is replaced by
/// the customer.
pub fn compare(seen: Customer, stored: Option<&MirrorRow>) -> Comparison {
    let Some(stored) = stored else {
        let source = if seen.source().is_some() { Source::Shown } else { Source::Absent };
        return Comparison { change: Some((ChangeKind::Created, seen)), source };
    };
    let known_body = stored.body.as_deref().unwrap_or_default();
    let (seen, source) = match seen.source() {
        Some(_) => (seen, Source::Shown),
        None => retain_source(seen, known_body),
    };
    let change = match (stored.is_live(), seen.body() == known_body) {
        (true, true) => None,
        (true, false) => Some((ChangeKind::Updated, seen)),
        (false, _) => Some((ChangeKind::Restored, seen)),
    };
    Comparison { change, source }
}

/// Copies the source field of the mirror's body to `seen`: neither a null nor a missing field
/// changes it.
fn retain_source(seen: Customer, known_body: &str) -> (Customer, Source) {
    let Ok(known) = Customer::from_body(known_body) else { return (seen, Source::Absent) };
    let source = match known.source() {
        Some(_) => Source::Retained,
        None => Source::Absent,
    };
    let field = known.fields().get("source").cloned();
    (seen.with("source", field), source)
}

/// Returns the customer without its source, for a whole sweep that showed some sources and null for
/// this customer. Returns `None` if the mirror has no source for it.
pub fn without_source(stored: &MirrorRow) -> Option<Customer> {
    let known = Customer::from_body(stored.body.as_deref()?).ok()?;
    known.source()?;
    Some(known.with("source", Some(Value::Null)))
}

/// Whether a sweep may conclude that a null source means none. It must have read the whole list,
/// and the list must show sources.
pub fn may_be_nulled(read_whole: bool, any_source_shown: bool) -> bool {
    read_whole && any_source_shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn customer(value: Value) -> Customer {
        Customer::from_value(value).unwrap()
    }

    fn live(value: Value) -> MirrorRow {
        MirrorRow {
            body: Some(customer(value).body().to_owned()),
            first_seen_at: "t".into(),
            changed_at: "t".into(),
            deleted_at: None,
            live_seq: 1,
            seq: 1,
        }
    }

    fn gone(value: Value) -> MirrorRow {
        MirrorRow { deleted_at: Some("t".into()), ..live(value) }
    }

    #[test]
    fn new_changed_unchanged_and_restored_customers_are_distinguished() {
        let (seen, other) = (json!({"id": "a", "email": "1"}), json!({"id": "a", "email": "2"}));
        let kind = |stored: Option<MirrorRow>| {
            compare(customer(seen.clone()), stored.as_ref()).change.map(|(kind, _)| kind)
        };
        assert_eq!(kind(None), Some(ChangeKind::Created));
        assert_eq!(kind(Some(live(seen.clone()))), None);
        assert_eq!(kind(Some(live(other.clone()))), Some(ChangeKind::Updated));
        assert_eq!(
            kind(Some(gone(seen.clone()))),
            Some(ChangeKind::Restored),
            "even where nothing else differs"
        );
        assert_eq!(kind(Some(gone(other))), Some(ChangeKind::Restored));
    }

    #[test]
    fn null_source_never_removes_a_known_one() {
        let card = json!({"brand": "visa"});
        for null in [json!({"id": "a", "source": null}), json!({"id": "a"})] {
            let stored = live(json!({"id": "a", "source": card}));
            let comparison = compare(customer(null.clone()), Some(&stored));
            assert_eq!(comparison, Comparison { change: None, source: Source::Retained });

            let with_email = customer(null).with("email", Some(json!("new")));
            let (kind, after) = compare(with_email, Some(&stored)).change.unwrap();
            assert_eq!(
                (kind, after.source()),
                (ChangeKind::Updated, Some(&card)),
                "what is recorded carries it on"
            );
        }
    }

    #[test]
    fn change_between_null_and_absent_source_is_ignored() {
        let (null, absent) = (json!({"id": "a", "source": null}), json!({"id": "a"}));
        for (seen, stored) in [(&null, &absent), (&absent, &null)] {
            let comparison = compare(customer(seen.clone()), Some(&live(stored.clone())));
            assert_eq!(comparison, Comparison { change: None, source: Source::Absent });
        }
    }

    #[test]
    fn shown_source_is_recorded() {
        let seen = customer(json!({"id": "a", "source": {"brand": "jcb"}}));
        let comparison = compare(seen.clone(), Some(&live(json!({"id": "a", "source": {"brand": "visa"}}))));
        assert_eq!(
            comparison,
            Comparison { change: Some((ChangeKind::Updated, seen)), source: Source::Shown }
        );
    }

    #[test]
    fn null_source_means_none_only_in_a_whole_list_that_shows_sources() {
        let results = [(true, true), (true, false), (false, true), (false, false)];
        let results = results.map(|(read_whole, any_shown)| may_be_nulled(read_whole, any_shown));
        assert_eq!(results, [true, false, false, false]);
    }

    #[test]
    fn only_a_known_source_can_be_removed() {
        let with = live(json!({"id": "a", "source": {"brand": "visa"}}));
        assert_eq!(without_source(&with).unwrap().fields().get("source"), Some(&Value::Null));
        assert_eq!(without_source(&live(json!({"id": "a", "source": null}))), None);
    }
}
