//! Owns what the calls below `/_sandbox/` share: reading a body, and the common answers.

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::answer::Answer;
use crate::request::Request;
use crate::world::World;

/// Where they begin.
pub(crate) const BASE: &str = "/_sandbox";

/// What a call answers, or how it refuses.
pub(crate) type Answered = Result<Answer, Answer>;

pub(crate) fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Answer> {
    serde_json::from_slice(&request.body).map_err(|error| unreadable(&error))
}

pub(crate) fn unreadable(error: &serde_json::Error) -> Answer {
    Answer::bad_request(&format!("The body cannot be used: {error}. GET {BASE}/ shows examples."))
}

pub(crate) fn done() -> Answer {
    Answer::ok(&json!({"done": true}))
}

pub(crate) fn nothing_here(_: &mut World, _: &Request) -> Answered {
    let message = format!("There is nothing at this address. GET {BASE}/ shows what there is.");
    Err(Answer::error(StatusCode::NOT_FOUND, "not_found", &message))
}
