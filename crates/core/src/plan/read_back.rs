//! Decides whether an update took effect, by the customer as it is now.
//!
//! An update takes effect as a whole or not at all, so one field that differs between before and
//! after is enough.

use serde_json::{Map, Value};

use crate::intent::IntentBody;

/// What the customer shows about the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateEffect {
    /// It took effect.
    Applied,
    /// It did not take effect, so its token is unused.
    NotApplied,
    /// The fields do not show it.
    Unclear,
}

/// Compares a customer before the update with the customer now.
pub fn compare(
    requested: &IntentBody,
    before: Option<&Map<String, Value>>,
    now: &Map<String, Value>,
) -> UpdateEffect {
    let Some(before) = before else { return UpdateEffect::Unclear };
    let null = Value::Null;
    let of = |fields: &Map<String, Value>, name: &str| fields.get(name).unwrap_or(&null).clone();
    let key = |fields: &Map<String, Value>, key: &str| {
        of(fields, "metadata").as_object().map_or(Value::Null, |metadata| of(metadata, key))
    };
    let mut requested_before_now: Vec<(Value, Value, Value)> = Vec::new();
    if let Some(email) = requested.fields().get("email") {
        requested_before_now.push((email.clone(), of(before, "email"), of(now, "email")));
    }
    for (name, value) in requested.fields().get("metadata").and_then(Value::as_object).into_iter().flatten() {
        requested_before_now.push((value.clone(), key(before, name), key(now, name)));
    }
    let differing: Vec<_> =
        requested_before_now.into_iter().filter(|(requested, before, _)| requested != before).collect();
    // The API may show a source or hide it. Only a source that is shown both times and differs is
    // evidence.
    let (source_before, source_now) = (of(before, "source"), of(now, "source"));
    let new_source = !source_now.is_null() && !source_before.is_null() && source_before != source_now;
    if differing.iter().any(|(requested, _, now)| requested == now) || (differing.is_empty() && new_source) {
        return UpdateEffect::Applied;
    }
    let is_unchanged = differing.iter().all(|(_, before, now)| before == now);
    if is_unchanged && !differing.is_empty() && !new_source {
        UpdateEffect::NotApplied
    } else {
        UpdateEffect::Unclear
    }
}

/// Returns the requested values that the customer does not show, by field, such as `email` or
/// `metadata.order_id`.
pub fn not_applied(requested: &IntentBody, now: &Map<String, Value>) -> Map<String, Value> {
    let null = Value::Null;
    let mut missing = Map::new();
    if let Some(email) =
        requested.fields().get("email").filter(|email| now.get("email").unwrap_or(&null) != *email)
    {
        missing.insert("email".to_owned(), email.clone());
    }
    let theirs = now.get("metadata").and_then(Value::as_object);
    for (key, value) in requested.fields().get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if theirs.and_then(|theirs| theirs.get(key)).unwrap_or(&null) != value {
            missing.insert(format!("metadata.{key}"), value.clone());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn effect(requested: Value, before: Value, now: Value) -> UpdateEffect {
        let Value::Object(now) = now else { panic!("an object") };
        compare(&IntentBody::new(requested).unwrap(), before.as_object(), &now)
    }

    #[test]
    fn one_changed_field_proves_an_update() {
        let visa = json!({"brand": "visa"});
        let master = json!({"brand": "master"});
        let cases = [
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "b"}), UpdateEffect::Applied),
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "a"}), UpdateEffect::NotApplied),
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "c"}), UpdateEffect::Unclear),
            (json!({"email": "a"}), json!({"email": "a"}), json!({"email": "a"}), UpdateEffect::Unclear),
            (
                json!({"metadata": {"k": "2"}}),
                json!({"metadata": {"k": "1"}}),
                json!({"metadata": {"k": "2"}}),
                UpdateEffect::Applied,
            ),
            (
                json!({"metadata": {"k": "2"}}),
                json!({}),
                json!({"metadata": {"j": "1"}}),
                UpdateEffect::NotApplied,
            ),
            (json!({}), json!({"source": visa}), json!({"source": master}), UpdateEffect::Applied),
            (json!({}), json!({"source": visa}), json!({"source": visa}), UpdateEffect::Unclear),
            (json!({}), json!({"source": null}), json!({"source": master}), UpdateEffect::Unclear),
            (
                json!({"email": "b"}),
                json!({"email": "a", "source": visa}),
                json!({"email": "a", "source": master}),
                UpdateEffect::Unclear,
            ),
        ];
        for (mut requested, before, now, expected) in cases {
            requested["payment_details"] = json!("tok_1");
            let got = effect(requested.clone(), before.clone(), now.clone());
            assert_eq!(got, expected, "{requested} {before} {now}");
        }
        let unknown_before = compare(
            &IntentBody::new(json!({"email": "b"})).unwrap(),
            None,
            json!({"email": "b"}).as_object().unwrap(),
        );
        assert_eq!(unknown_before, UpdateEffect::Unclear);
    }

    #[test]
    fn fields_that_the_customer_does_not_show_are_named() {
        let requested =
            json!({"email": "b", "metadata": {"k": "1", "gone": null}, "payment_details": "tok_1"});
        let cases = [
            (json!({"email": "b", "metadata": {"k": "1"}}), json!({})),
            (
                json!({"email": "a", "metadata": {"k": "1", "gone": "2"}}),
                json!({"email": "b", "metadata.gone": null}),
            ),
            (json!({"metadata": null}), json!({"email": "b", "metadata.k": "1"})),
        ];
        for (now, missing) in cases {
            let body = IntentBody::new(requested.clone()).unwrap();
            assert_eq!(Value::Object(not_applied(&body, now.as_object().unwrap())), missing, "{now}");
        }
    }
}
