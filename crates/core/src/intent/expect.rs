//! The submitter's expectation of a customer, and its comparison with the current customer.

use serde_json::{Map, Value};

use super::rule::{BadIntent, Rule};
use super::{EXPECT_FIELDS, check_known};

/// What the submitter last saw of the customer. Only the named fields are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect(Map<String, Value>);

/// A field whose value is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// The name of the field, such as `email` or `metadata.order_id`.
    pub field: String,
    /// The expected value; `null` for absent.
    pub expected: Value,
    /// The current value; `null` for absent.
    pub found: Value,
}

impl Expect {
    /// Checks a JSON object as an expectation.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn new(value: Value) -> Result<Self, BadIntent> {
        let Value::Object(fields) = value else { return Err(BadIntent::at("expect", Rule::Object)) };
        check_known("expect", &fields, &EXPECT_FIELDS)?;
        match fields.get("metadata") {
            None | Some(Value::Object(_)) => Ok(Self(fields)),
            Some(_) => Err(BadIntent::at("expect.metadata", Rule::Object)),
        }
    }

    /// Returns the expected values by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the expectation as JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Returns the fields that are not as expected. In metadata only the named keys are compared.
    pub fn mismatches(&self, theirs: &Map<String, Value>) -> Vec<Mismatch> {
        let null = Value::Null;
        let of = |fields: &Map<String, Value>, name: &str| fields.get(name).unwrap_or(&null).clone();
        let mut mismatches = Vec::new();
        let mut compare = |field: String, expected: &Value, found: Value| {
            if *expected != found {
                mismatches.push(Mismatch { field, expected: expected.clone(), found });
            }
        };
        for (name, expected) in &self.0 {
            match expected {
                Value::Object(keys) if name == "metadata" => {
                    let found =
                        theirs.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
                    for (key, expected) in keys {
                        compare(format!("metadata.{key}"), expected, of(&found, key));
                    }
                }
                expected => compare(name.clone(), expected, of(theirs, name)),
            }
        }
        mismatches
    }
}
