//! What the calls below `/_sandbox/` share: parameters, bodies, and the common answers.

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::account::SandboxAccount;
use crate::api::answer::ApiAnswer;
use crate::request::Request;
use crate::world::World;

/// The path of all calls.
pub(crate) const BASE: &str = "/_sandbox";

/// The answer of a call, or its refusal.
pub(crate) type ControlAnswer = Result<ApiAnswer, ApiAnswer>;

/// Reads the body of a request.
pub(crate) fn body<T: DeserializeOwned>(request: &Request) -> Result<T, ApiAnswer> {
    serde_json::from_slice(&request.body).map_err(|error| unreadable(&error))
}

/// Returns the account that `?key=KEY` selects, or the default one.
pub(crate) fn account<'a>(
    world: &'a mut World,
    request: &Request,
) -> Result<&'a mut SandboxAccount, ApiAnswer> {
    let key = parameter(request, "key").unwrap_or_else(|| world.key().to_owned());
    world.account(&key).ok_or_else(|| ApiAnswer::not_found("There is no account with this key."))
}

/// Returns a parameter of the query string.
pub(crate) fn parameter(request: &Request, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(request.query.as_bytes());
    pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
}

/// Returns the answer to an invalid body.
pub(crate) fn unreadable(error: &serde_json::Error) -> ApiAnswer {
    ApiAnswer::bad_request(&format!("The body is invalid: {error}. GET {BASE}/ shows examples."))
}

/// Returns the answer to a call without a result.
pub(crate) fn done() -> ApiAnswer {
    ApiAnswer::ok(&json!({"done": true}))
}

/// Returns the answer to an unknown path.
pub(crate) fn nothing_here(_: &mut World, _: &Request) -> ControlAnswer {
    let message = format!("There is nothing at this path. GET {BASE}/ lists the calls.");
    Err(ApiAnswer::error(StatusCode::NOT_FOUND, "not_found", &message))
}
