//! Did that update take effect? Asked of the customer, for an update whose token can be used once and whose answer was lost.
//!
//! An update takes effect whole or not at all, so one field that tells is enough.

use serde_json::{Map, Value};

use crate::intent::Body;

/// What the customer says of the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It took effect.
    Applied,
    /// It did not: the token is unused.
    NotApplied,
    /// It cannot be told.
    Unclear,
}

/// Compares a customer as it was before the update and as it is now.
pub fn read(asked: &Body, before: Option<&Map<String, Value>>, now: &Map<String, Value>) -> Reading {
    let Some(before) = before else { return Reading::Unclear };
    let null = Value::Null;
    let of = |fields: &Map<String, Value>, name: &str| fields.get(name).unwrap_or(&null).clone();
    let key = |fields: &Map<String, Value>, key: &str| {
        of(fields, "metadata").as_object().map_or(Value::Null, |metadata| of(metadata, key))
    };
    let mut asked_before_now: Vec<(Value, Value, Value)> = Vec::new();
    if let Some(email) = asked.fields().get("email") {
        asked_before_now.push((email.clone(), of(before, "email"), of(now, "email")));
    }
    for (name, value) in asked.fields().get("metadata").and_then(Value::as_object).into_iter().flatten() {
        asked_before_now.push((value.clone(), key(before, name), key(now, name)));
    }
    let telling: Vec<_> = asked_before_now.into_iter().filter(|(asked, before, _)| asked != before).collect();
    // A source is shown or not as the API likes: only one that is shown both times and differs tells anything.
    let (source_before, source_now) = (of(before, "source"), of(now, "source"));
    let new_source = !source_now.is_null() && !source_before.is_null() && source_before != source_now;
    if telling.iter().any(|(asked, _, now)| asked == now) || (telling.is_empty() && new_source) {
        return Reading::Applied;
    }
    match telling.iter().all(|(_, before, now)| before == now) && !telling.is_empty() && !new_source {
        true => Reading::NotApplied,
        false => Reading::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(asked: Value, before: Value, now: Value) -> Reading {
        let Value::Object(now) = now else { panic!("an object") };
        read(&Body::new(asked).unwrap(), before.as_object(), &now)
    }

    #[test]
    fn one_field_that_tells_is_enough() {
        let visa = json!({"brand": "visa"});
        let master = json!({"brand": "master"});
        let cases = [
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "b"}), Reading::Applied),
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "a"}), Reading::NotApplied),
            (json!({"email": "b"}), json!({"email": "a"}), json!({"email": "c"}), Reading::Unclear),
            (json!({"email": "a"}), json!({"email": "a"}), json!({"email": "a"}), Reading::Unclear),
            (
                json!({"metadata": {"k": "2"}}),
                json!({"metadata": {"k": "1"}}),
                json!({"metadata": {"k": "2"}}),
                Reading::Applied,
            ),
            (
                json!({"metadata": {"k": "2"}}),
                json!({}),
                json!({"metadata": {"j": "1"}}),
                Reading::NotApplied,
            ),
            (json!({}), json!({"source": visa}), json!({"source": master}), Reading::Applied),
            (json!({}), json!({"source": visa}), json!({"source": visa}), Reading::Unclear),
            (json!({}), json!({"source": null}), json!({"source": master}), Reading::Unclear),
            (
                json!({"email": "b"}),
                json!({"email": "a", "source": visa}),
                json!({"email": "a", "source": master}),
                Reading::Unclear,
            ),
        ];
        for (mut asked, before, now, expected) in cases {
            asked["payment_details"] = json!("tok_1");
            let got = reading(asked.clone(), before.clone(), now.clone());
            assert_eq!(got, expected, "{asked} {before} {now}");
        }
        let unknown_before = read(
            &Body::new(json!({"email": "b"})).unwrap(),
            None,
            json!({"email": "b"}).as_object().unwrap(),
        );
        assert_eq!(unknown_before, Reading::Unclear);
    }
}
