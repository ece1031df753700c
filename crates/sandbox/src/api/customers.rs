//! The calls that read and write one customer, as KOMOJU's documents and SDKs describe them.

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::answer::ApiAnswer;
use super::context::Context;
use super::{cards, form};
use crate::account::source_value;
use crate::readings::{Delete, Deleted, Metadata, NullEmail, PaymentDetails, Source};

/// How many characters a metadata key may have.
const METADATA_KEY_MOST: usize = 30;

/// How many characters a metadata value may have.
const METADATA_VALUE_MOST: usize = 2000;

impl Context<'_> {
    /// Runs `GET /customers/{id}`.
    pub(crate) fn show(self, id: &str) -> Result<ApiAnswer, ApiAnswer> {
        let readings = self.readings;
        let reveal = self.reveal(readings.show_source);
        let state = self.account.shown(self.draws.is_lagging(readings));
        let row = state.row_ever(id).ok_or_else(no_customer)?;
        if let Some(customer) = state.text(row, reveal) {
            return Ok(ApiAnswer::ok(&customer));
        }
        let message = "This customer was deleted.";
        match readings.deleted {
            Deleted::NotFound => Err(no_customer()),
            Deleted::OtherCode => Err(ApiAnswer::error(StatusCode::NOT_FOUND, "customer_deleted", message)),
            Deleted::Gone => Err(ApiAnswer::error(StatusCode::GONE, "gone", message)),
            Deleted::Flagged => Ok(ApiAnswer::ok(&state.deleted_text(row, reveal))),
        }
    }

    /// Runs `POST /customers`.
    pub(crate) fn create(mut self) -> Result<ApiAnswer, ApiAnswer> {
        let parameters = self.parameters()?;
        let email = match parameters.get("email") {
            None | Some(Value::Null) => Value::Null,
            Some(email @ Value::String(_)) => email.clone(),
            Some(_) => return Err(ApiAnswer::invalid("email", "it is not a text")),
        };
        let metadata = metadata(&parameters)?.unwrap_or_default();
        self.check_metadata_keys(&metadata)?;
        let details = given(&parameters, "payment_details");
        if details.is_none() && self.readings.payment_details == PaymentDetails::Required {
            return Err(ApiAnswer::missing("payment_details"));
        }
        let source = self.source(details)?;
        let fields = Map::from_iter([
            ("email".to_owned(), email),
            ("metadata".to_owned(), Value::Object(metadata)),
            ("source".to_owned(), source.unwrap_or_default()),
        ]);
        let id = self.account.create(self.now, Value::Object(fields));
        self.counts.creates += 1;
        self.written(&id)
    }

    /// Runs `PATCH /customers/{id}`.
    pub(crate) fn update(mut self, id: &str) -> Result<ApiAnswer, ApiAnswer> {
        let Some(Value::Object(mut body)) = self.account.get(id) else {
            return Err(no_customer());
        };
        let parameters = self.parameters()?;
        match (parameters.get("email"), self.readings.null_email) {
            (None, _) | (Some(Value::Null), NullEmail::Ignored) => {}
            (Some(email @ Value::String(_)), _) | (Some(email @ Value::Null), NullEmail::Clears) => {
                body.insert("email".to_owned(), email.clone());
            }
            (Some(_), _) => return Err(ApiAnswer::invalid("email", "it is not a text")),
        }
        if let Some(given) = metadata(&parameters)? {
            let metadata = match (self.readings.metadata, body.remove("metadata")) {
                (Metadata::Merged, Some(Value::Object(mut old))) => {
                    old.extend(given);
                    old
                }
                _ => given,
            };
            self.check_metadata_keys(&metadata)?;
            body.insert("metadata".to_owned(), Value::Object(metadata));
        }
        if let Some(source) = self.source(given(&parameters, "payment_details"))? {
            body.insert("source".to_owned(), source);
        }
        self.account.update(self.now, id, Value::Object(body));
        self.counts.updates += 1;
        self.written(id)
    }

    /// Runs `DELETE /customers/{id}`.
    pub(crate) fn delete(self, id: &str) -> Result<ApiAnswer, ApiAnswer> {
        let reveal = self.reveal(self.readings.show_source);
        let state = self.account.newest();
        let row = state.row(id).ok_or_else(no_customer)?;
        let answer = match self.readings.delete {
            Delete::Customer => ApiAnswer::ok(&state.text(row, reveal)),
            Delete::NoContent => ApiAnswer::no_content(),
        };
        self.account.delete(self.now, id);
        self.counts.deletes += 1;
        Ok(answer)
    }

    /// Returns the answer to a create or update, which always shows `source`.
    fn written(&self, id: &str) -> Result<ApiAnswer, ApiAnswer> {
        let reveal = self.reveal(Source::Shown);
        let state = self.account.newest();
        let customer = state.row(id).and_then(|row| state.text(row, reveal));
        customer.map(|customer| ApiAnswer::ok(&customer)).ok_or_else(no_customer)
    }

    /// Reads the parameters of the body.
    fn parameters(&self) -> Result<Map<String, Value>, ApiAnswer> {
        let parameters = form::parameters(self.request.header("content-type"), &self.request.body)
            .map_err(|why| ApiAnswer::bad_request(&why))?;
        match given(&parameters, "currency") {
            None => {}
            Some(Value::String(code))
                if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) => {}
            Some(_) => return Err(ApiAnswer::invalid("currency", "it is not a code of three letters")),
        }
        Ok(parameters)
    }

    /// Returns the new `source`; none if it is unchanged.
    fn source(&mut self, details: Option<&Value>) -> Result<Option<Value>, ApiAnswer> {
        let Some(details) = details else {
            return Ok(None);
        };
        let card = cards::card(details, &mut self.account.tokens, self.now)?;
        Ok(Some(source_value(&card)))
    }

    /// Checks the number of metadata keys.
    fn check_metadata_keys(&self, metadata: &Map<String, Value>) -> Result<(), ApiAnswer> {
        match self.readings.metadata_keys_max {
            Some(most) if metadata.len() > most => {
                Err(ApiAnswer::invalid("metadata", "it has too many keys"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns a parameter that is present and not null.
fn given<'a>(parameters: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    parameters.get(name).filter(|value| !value.is_null())
}

/// Reads and checks the metadata in the parameters.
fn metadata(parameters: &Map<String, Value>) -> Result<Option<Map<String, Value>>, ApiAnswer> {
    let metadata = match given(parameters, "metadata") {
        None => return Ok(None),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err(ApiAnswer::invalid("metadata", "it is not an object")),
    };
    for (key, value) in metadata {
        if key.chars().count() > METADATA_KEY_MOST {
            return Err(ApiAnswer::invalid("metadata", "a key is longer than 30 characters"));
        }
        match value {
            Value::String(text) if text.chars().count() <= METADATA_VALUE_MOST => {}
            Value::String(_) => {
                return Err(ApiAnswer::invalid("metadata", "a value is longer than 2000 characters"));
            }
            _ => return Err(ApiAnswer::invalid("metadata", "a value is not a text")),
        }
    }
    Ok(Some(metadata.clone()))
}

/// Returns the answer about an unknown customer.
fn no_customer() -> ApiAnswer {
    ApiAnswer::error(StatusCode::NOT_FOUND, "not_found", "There is no such customer.")
}
