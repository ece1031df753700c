//! Request bodies: JSON, or a form with bracketed names such as `metadata[order_id]=x`.
//!
//! A body without a type is a form: KOMOJU's own Node sample sends one.
//!
//! The brackets are parsed here and not by `serde_qs`. Without types it reads `metadata[0]=x` as a
//! list and refuses `metadata[7]=x`. It makes a list of a repeated field, and reads `email` without
//! `=` as null.

use serde_json::{Map, Value};

/// Reads the parameters of a body.
///
/// # Errors
/// A sentence about what is wrong with the body.
pub(crate) fn parameters(content_type: Option<&str>, body: &[u8]) -> Result<Map<String, Value>, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    if content_type.is_none_or(|kind| kind.to_ascii_lowercase().contains("form-urlencoded")) {
        return form(body);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(parameters)) => Ok(parameters),
        Ok(_) => Err("The body is JSON, but not an object.".to_owned()),
        Err(error) => Err(format!("The body is not valid JSON: {error}.")),
    }
}

/// Reads a form.
fn form(body: &[u8]) -> Result<Map<String, Value>, String> {
    let mut parameters = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        let path = path(&name).ok_or_else(|| format!("The form field {name} has unbalanced brackets."))?;
        put(&mut parameters, &path, &value)
            .ok_or_else(|| format!("The form field {name} contradicts an earlier one."))?;
    }
    Ok(parameters)
}

/// Splits `a[b][c]` into `a`, `b`, `c`.
fn path(name: &str) -> Option<Vec<&str>> {
    let Some((first, rest)) = name.split_once('[') else {
        return Some(vec![name]);
    };
    let inner = rest.strip_suffix(']')?;
    let mut path = vec![first];
    path.extend(inner.split("]["));
    path.iter().all(|part| !part.contains(['[', ']'])).then_some(path)
}

/// Sets a value at a path. Returns none if an earlier field is a value where this one is an object.
fn put(into: &mut Map<String, Value>, path: &[&str], value: &str) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        into.insert((*first).to_owned(), Value::String(value.to_owned()));
        return Some(());
    }
    let inner = into.entry(*first).or_insert_with(|| Value::Object(Map::new()));
    put(inner.as_object_mut()?, rest, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    #[test]
    fn bracketed_names_become_objects() {
        let body = "email=a%40example.jp&metadata[order_id]=x+y&metadata%5B%E6%B0%8F%E5%90%8D%5D=%E5%A4%AA%E9%83%8E\
                    &payment_details[number]=";
        let parameters = parameters(FORM, body.as_bytes()).unwrap();
        assert_eq!(
            Value::Object(parameters),
            json!({
                "email": "a@example.jp",
                "metadata": {"order_id": "x y", "氏名": "太郎"},
                "payment_details": {"number": ""},
            })
        );
    }

    #[test]
    fn body_that_cannot_be_read_is_refused_with_its_reason() {
        for (kind, body, why) in [
            (FORM, "metadata[a=1", "unbalanced"),
            (FORM, "metadata=1&metadata[a]=1", "contradicts"),
            (Some("application/json"), "[]", "not an object"),
            (Some("application/json"), "{", "not valid JSON"),
            (Some("text/plain"), "email=a", "not valid JSON"),
            (None, "metadata[a=1", "unbalanced"),
        ] {
            let error = parameters(kind, body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }

    #[test]
    fn empty_body_has_no_parameters() {
        assert_eq!(parameters(Some("application/json"), b" \n"), Ok(Map::new()));
    }
}
