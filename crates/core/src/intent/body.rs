//! The body of a create or an update: parameters of the API.

use std::fmt;

use serde_json::{Map, Value};

use super::rule::{BadIntent, Rule};
use super::{BODY_FIELDS, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE, MASKED_TOKEN, card, check_known};

/// The parameters of a create or an update. `Debug` masks the token.
#[derive(Clone, PartialEq)]
pub struct IntentBody(pub(super) Map<String, Value>);

impl IntentBody {
    /// Checks a JSON object as parameters.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn new(value: Value) -> Result<Self, BadIntent> {
        let Value::Object(fields) = value else { return Err(BadIntent::at("body", Rule::Object)) };
        check_known("body", &fields, &BODY_FIELDS)?;
        for (name, value) in &fields {
            let field = format!("body.{name}");
            match name.as_str() {
                "email" if value.is_string() || value.is_null() => {}
                "email" => return Err(BadIntent::at(field, Rule::TextOrNull)),
                "metadata" => check_metadata(&field, value)?,
                "payment_details" if value.is_object() || value.as_str().is_some_and(card::is_number) => {
                    return Err(BadIntent::at(field, Rule::Card));
                }
                _ if value.is_string() => {}
                _ => return Err(BadIntent::at(field, Rule::Text)),
            }
        }
        Ok(Self(fields))
    }

    /// Returns the parameters by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the payment token, if there is one. KOMOJU accepts a token once, so an attempt with
    /// a token must not be repeated without a check.
    pub fn token(&self) -> Option<&str> {
        self.0.get("payment_details").and_then(Value::as_str)
    }

    /// Returns the parameters without the token.
    pub fn without_token(&self) -> Map<String, Value> {
        let mut fields = self.0.clone();
        fields.remove("payment_details");
        fields
    }

    /// Whether the metadata has this key.
    pub fn has_metadata(&self, key: &str) -> bool {
        self.0.get("metadata").and_then(Value::as_object).is_some_and(|metadata| metadata.contains_key(key))
    }

    /// Returns the same parameters with one more metadata key.
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        let metadata = self.0.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Returns the JSON to send.
    pub fn text(&self) -> String {
        // A map of owned values with string keys always serializes.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for IntentBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| match name.as_str() {
            "payment_details" => (name, MASKED_TOKEN.to_owned()),
            _ => (name, value.to_string()),
        });
        f.debug_map().entries(shown).finish()
    }
}

fn check_metadata(field: &str, value: &Value) -> Result<(), BadIntent> {
    let Value::Object(metadata) = value else { return Err(BadIntent::at(field, Rule::Object)) };
    for (key, value) in metadata {
        if key.chars().count() > LONGEST_METADATA_KEY {
            return Err(BadIntent::at(field, Rule::LongKey));
        }
        let key = format!("{field}.{}", key.escape_debug());
        match value {
            // The API decides whether null removes a key.
            Value::Null => {}
            Value::String(text) if text.chars().count() <= LONGEST_METADATA_VALUE => {}
            Value::String(_) => return Err(BadIntent::at(key, Rule::LongValue)),
            _ => return Err(BadIntent::at(key, Rule::TextOrNull)),
        }
    }
    Ok(())
}
