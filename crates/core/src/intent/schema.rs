//! The JSON Schema (draft 2020-12) of an intent: the rules of [`Intent::parse`], for programs that
//! write intents.
//!
//! Three rules are weaker here. Lengths count characters instead of bytes. The schema does not know
//! which intents `@ID` may name. It cannot detect a repeated key.

use serde_json::{Value, json};

use super::{
    BODY_FIELDS, EXPECT_FIELDS, Intent, IntentId, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE, TIME_PATTERN,
};
use crate::CustomerId;

/// The control characters, for a character class of a regular expression.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";

/// The white space that is not a control character, for a character class.
const WHITE_SPACE: &str = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

/// Returns the pattern for [`super::card::is_number`].
fn card_number() -> String {
    let separators = format!(r"\t-\r\u0085{WHITE_SPACE}\-\u2010-\u2015\u2212\uff0d");
    format!(r"^[{separators}]*([0-9\uff10-\uff19][{separators}]*){{12,19}}$")
}

impl Intent {
    /// Returns the schema, as shipped in `docs/intent.schema.json`.
    pub fn schema() -> Value {
        let id = format!("[^@{CONTROL}][^{CONTROL}]*");
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "An intent: a customer to create, update or delete at KOMOJU",
            "type": "object",
            "required": ["op"],
            "additionalProperties": false,
            "properties": {
                "op": {
                    "description": "The operation.",
                    "enum": ["create", "update", "delete"],
                },
                "customer_id": {
                    "description": "The customer of an update or delete: an id, or @ID for the customer that intent ID creates.",
                    "type": ["string", "null"],
                    "minLength": 1,
                    "maxLength": CustomerId::MAX_BYTES,
                    "not": {"enum": [".", ".."]},
                    "if": {"type": "string", "pattern": "^@"},
                    "then": {"maxLength": IntentId::MAX_BYTES + 1, "pattern": format!("^@{id}$")},
                    "else": {"pattern": format!(r"^[^{CONTROL}{WHITE_SPACE}/\\%?#]*$")},
                },
                "body": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/body"}]},
                "id": {
                    "description": "The submitter's own id. The same id with the same content is the same intent.",
                    "type": ["string", "null"],
                    "minLength": 1,
                    "maxLength": IntentId::MAX_BYTES,
                    "pattern": format!("^{id}$"),
                },
                "expect": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/expect"}]},
                "not_before": {
                    "description": "Nothing is sent before this moment (RFC 3339).",
                    "type": ["string", "null"],
                    "format": "date-time",
                    "pattern": TIME_PATTERN,
                },
            },
            "allOf": rules_by_op(),
            "$defs": {"body": body(), "expect": expect()},
        })
    }
}

/// Returns which fields each operation requires, and which it forbids.
fn rules_by_op() -> Value {
    json!([
        {
            "if": {"properties": {"op": {"const": "create"}}},
            "then": {
                "required": ["body"],
                "properties": {
                    "customer_id": {"type": "null"},
                    "body": {"type": "object", "minProperties": 1},
                    "expect": {"type": "null"},
                },
            },
            "else": {
                "required": ["customer_id"],
                "properties": {"customer_id": {"type": "string"}},
            },
        },
        {
            "if": {"properties": {"op": {"const": "update"}}},
            "then": {
                "required": ["body"],
                "properties": {"body": {"type": "object", "minProperties": 1}},
            },
        },
        {
            "if": {"properties": {"op": {"const": "delete"}}},
            "then": {"properties": {"body": {"type": "null"}}},
        },
    ])
}

/// Returns the schema of the parameters of create and update.
fn body() -> Value {
    json!({
        "description": "KOMOJU's parameters of create and update. Parameters that are not named stay unchanged.",
        "type": "object",
        "additionalProperties": false,
        "properties": of_fields(&BODY_FIELDS, |field| match field {
            "email" => json!({"type": ["string", "null"]}),
            "metadata" => json!({
                "type": "object",
                "propertyNames": {"maxLength": LONGEST_METADATA_KEY},
                "additionalProperties": {
                    "type": ["string", "null"],
                    "maxLength": LONGEST_METADATA_VALUE,
                },
            }),
            "payment_details" => json!({
                "description": "A payment token. Card numbers never enter this system.",
                "type": "string",
                "not": {"pattern": card_number()},
            }),
            _ => json!({"type": "string"}),
        }),
    })
}

/// Returns the schema of the submitter's expectation.
fn expect() -> Value {
    json!({
        "description": "What the submitter last saw of the customer (update, delete). Only the named fields are compared; null \
                        means absent. If a field differs, nothing is sent and the intent is parked.",
        "type": "object",
        "additionalProperties": false,
        "properties": of_fields(&EXPECT_FIELDS, |field| match field {
            "metadata" => json!({"type": "object"}),
            _ => json!({}),
        }),
    })
}

fn of_fields(fields: &[&str], schema: impl Fn(&str) -> Value) -> Value {
    fields.iter().map(|field| ((*field).to_owned(), schema(field))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_names_the_fields_that_the_parser_knows() {
        let schema = Intent::schema();
        let names = |part: &str| -> Vec<String> {
            let fields = schema["$defs"][part]["properties"].as_object().unwrap();
            fields.keys().cloned().collect()
        };
        assert_eq!(
            (names("body"), names("expect")),
            (BODY_FIELDS.map(str::to_owned).into(), EXPECT_FIELDS.map(str::to_owned).into())
        );
    }
}
