//! The answers of the API before they are sent, and KOMOJU's error bodies.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

/// An answer of the API. It is cheap to clone, because the idempotency store keeps it.
#[derive(Debug, Clone)]
pub(crate) struct ApiAnswer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

/// The content type of JSON.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// The content type of HTML.
pub(crate) const HTML: &str = "text/html; charset=utf-8";

impl ApiAnswer {
    /// Returns an answer with a JSON body.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { status, content_type: Some(JSON), headers: Vec::new(), body: body.into() },
            Err(error) => Self::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_server_error",
                &format!("The sandbox could not serialise its answer: {error}"),
            ),
        }
    }

    /// Returns a 200 with a JSON body.
    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// Returns a 204.
    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, headers: Vec::new(), body: Bytes::new() }
    }

    /// Returns an error in KOMOJU's form.
    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::error_about(status, code, message, None)
    }

    /// Returns an error in KOMOJU's form that names a parameter.
    pub(crate) fn error_about(status: StatusCode, code: &str, message: &str, param: Option<&str>) -> Self {
        let body = json!({
            "error": {"code": code, "message": message, "param": param, "details": {}}
        });
        Self::json(status, &body)
    }

    /// Returns the error that KOMOJU sends with this status.
    pub(crate) fn plain_error(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => "bad_request",
            401 => "unauthorized",
            402 => "request_failed",
            403 => "forbidden",
            404 => "not_found",
            422 => "unprocessable_entity",
            429 => "too_many_requests",
            502 => "bad_gateway",
            503 => "service_unavailable",
            504 => "gateway_timeout",
            500.. => "internal_server_error",
            _ => "error",
        };
        let message = status.canonical_reason().unwrap_or("Something went wrong");
        Self::error(status, code, message)
    }

    /// Returns a web page, as the firewall in front of the API sends it.
    pub(crate) fn html(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Error");
        let code = status.as_u16();
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{code} {reason}</title></head>\n\
             <body><h1>{reason}</h1><p>Request blocked.</p></body></html>\n"
        );
        Self { status, content_type: Some(HTML), headers: Vec::new(), body: page.into() }
    }

    /// Returns a 400.
    pub(crate) fn bad_request(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Returns a 404.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// Returns the 422 for a missing parameter.
    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("A required parameter ({param}) is missing.");
        Self::error_about(StatusCode::UNPROCESSABLE_ENTITY, "missing_parameter", &message, Some(param))
    }

    /// Returns the 422 for an invalid parameter.
    pub(crate) fn invalid(param: &str, why: &str) -> Self {
        let message = format!("The value of {param} is invalid: {why}.");
        Self::error_about(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", &message, Some(param))
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
