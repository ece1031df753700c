//! Owns the answers of the API before they are sent, and KOMOJU's error bodies.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

/// What the API says to a request. Cheap to clone: it is kept under the idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

pub(crate) const JSON: &str = "application/json; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";

impl Answer {
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { status, content_type: Some(JSON), headers: Vec::new(), body: body.into() },
            Err(error) => Self::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_server_error",
                &format!("The sandbox could not write its answer: {error}"),
            ),
        }
    }

    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, headers: Vec::new(), body: Bytes::new() }
    }

    /// An error in KOMOJU's shape.
    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::error_about(status, code, message, None)
    }

    /// An error in KOMOJU's shape that names the parameter at fault.
    pub(crate) fn error_about(status: StatusCode, code: &str, message: &str, param: Option<&str>) -> Self {
        let body = json!({
            "error": {"code": code, "message": message, "param": param, "details": {}}
        });
        Self::json(status, &body)
    }

    /// The error KOMOJU sends with this status when nothing better is known.
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

    /// A page as the firewall in front would send it.
    pub(crate) fn html(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Error");
        let code = status.as_u16();
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{code} {reason}</title></head>\n\
             <body><h1>{reason}</h1><p>Request blocked.</p></body></html>\n"
        );
        Self { status, content_type: Some(HTML), headers: Vec::new(), body: page.into() }
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, "not_found", what)
    }

    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("A required parameter ({param}) is missing.");
        Self::error_about(StatusCode::UNPROCESSABLE_ENTITY, "missing_parameter", &message, Some(param))
    }

    pub(crate) fn invalid(param: &str, why: &str) -> Self {
        let message = format!("The value of {param} is invalid: {why}.");
        Self::error_about(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", &message, Some(param))
    }

    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
