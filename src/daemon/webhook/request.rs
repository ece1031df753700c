//! One request: path, method, size, signature, and what the body says.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::hints::HintSink;
use super::notice::Notice;
use super::secret::SecretInUse;
use crate::clock::Clock;
use crate::metrics;
use crate::metrics::WebhookResult;
use komoju_core::event::EventReading;
use komoju_core::format;

/// LARGEST_BODY controls how many bytes a body may have. An event has a few kilobytes.
pub(super) const LARGEST_BODY: usize = 1 << 20;

/// The header with the signature: HMAC-SHA256 of the body, in hexadecimal digits.
const SIGNATURE: &str = "x-komoju-signature";

/// What all requests share.
pub(super) struct Shared {
    path: String,
    pub(super) secret: Arc<SecretInUse>,
    hints: HintSink,
    pub(super) clock: Arc<dyn Clock>,
    /// Ends the receiver.
    pub(super) quit: CancellationToken,
    refused: Notice,
    busy: Notice,
}

/// Returns the only route: all paths and methods.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let status = tokio::select! {
        biased;
        status = shared.receive(request) => status,
        () = shared.quit.cancelled() => {
            metrics::webhook(WebhookResult::Busy);
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let mut response = status.into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

impl Shared {
    pub(super) fn new(
        path: String,
        secret: SecretInUse,
        hints: HintSink,
        clock: Arc<dyn Clock>,
        quit: CancellationToken,
    ) -> Self {
        let (secret, refused, busy) = (Arc::new(secret), Notice::default(), Notice::default());
        Self { path, secret, hints, clock, quit, refused, busy }
    }

    /// Receives one request, and returns the status of its answer.
    async fn receive(&self, request: Request) -> StatusCode {
        let (head, body) = request.into_parts();
        if head.uri.path() != self.path {
            return StatusCode::NOT_FOUND;
        }
        if head.method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        // The body is read also where the signature is missing: the system would discard an answer
        // to a client that still sends.
        let body = match read(&head.headers, body).await {
            Ok(body) => body,
            Err(status) => return status,
        };
        if !signature(&head.headers).is_some_and(|signature| self.secret.has_signed(&body, &signature)) {
            self.note_refused();
            return StatusCode::UNAUTHORIZED;
        }
        // A ping, an event of another type, or a body that is no event: nothing follows from it,
        // and a repetition would not change that.
        let Some(EventReading::Customer(event)) =
            serde_json::from_slice(&body).ok().map(|value| EventReading::of(&value))
        else {
            metrics::webhook(WebhookResult::Ignored);
            return StatusCode::OK;
        };
        drop(body);
        match self.hints.store(event).await {
            Ok(()) => {
                metrics::webhook(WebhookResult::Received);
                StatusCode::OK
            }
            Err(e) => {
                self.note_busy(&e.to_string());
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Counts a request whose signature is missing or wrong.
    fn note_refused(&self) {
        metrics::webhook(WebhookResult::Refused);
        if let Some(count) = self.refused.count(self.clock.elapsed()) {
            let requests = format::count(count, "request");
            tracing::warn!(
                "webhook.listen refused {requests}: the signature is missing or wrong. If KOMOJU sent one, its dashboard has another secret than this service"
            );
        }
    }

    /// Counts a request that cannot be served now.
    pub(super) fn note_busy(&self, why: &str) {
        metrics::webhook(WebhookResult::Busy);
        if let Some(count) = self.busy.count(self.clock.elapsed()) {
            let requests = format::count(count, "request");
            tracing::warn!("webhook.listen answered {requests} with 503, and KOMOJU delivers again: {why}");
        }
    }
}

/// Reads a body within its limit; an error is the status of the answer.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, StatusCode> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST_BODY as u64) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let (mut bytes, mut pieces) = (Vec::new(), body.into_data_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        if bytes.len() + piece.len() > LARGEST_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Returns the signature, if the head has exactly one that can be read.
fn signature(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut values = headers.get_all(SIGNATURE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    from_hex(value.as_bytes())
}

/// Reads 64 hexadecimal digits of either case.
fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_signature_of_64_digits_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SIGNATURE, value.parse().unwrap());
            }
            signature(&headers)
        };
        let lower = "0f".repeat(32);
        assert_eq!(read(&[&lower]), Some([0x0f; 32]));
        assert_eq!(read(&[&lower.to_uppercase()]), Some([0x0f; 32]));
        let list = format!("{lower},{lower}");
        let refused: [&[&str]; 6] =
            [&[], &[""], &[&lower, &lower], &[&lower[1..]], &[&list], &[&"0g".repeat(32)]];
        for values in refused {
            assert_eq!(read(values), None, "{values:?}");
        }
        assert_eq!(from_hex("０".repeat(22).as_bytes()), None);
    }

    #[tokio::test]
    async fn body_is_read_up_to_its_limit() {
        let read = async |length: usize, headers: &HeaderMap| {
            // A body whose length is not declared.
            let pieces = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(vec![b'x'; length])]);
            super::read(headers, Body::from_stream(pieces)).await.map(|body| body.len())
        };
        let mut headers = HeaderMap::new();
        assert_eq!(read(LARGEST_BODY, &headers).await, Ok(LARGEST_BODY));
        assert_eq!(read(LARGEST_BODY + 1, &headers).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(LARGEST_BODY + 1));
        assert_eq!(read(0, &headers).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
