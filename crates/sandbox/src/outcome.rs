//! The outcome of a request: it applies faults to the answer and builds the HTTP response.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use crate::api::answer::ApiAnswer;
use crate::clock::moved;
use crate::faults::{Ending, FaultEffect, Fired, milliseconds};
use crate::request::Request;
use crate::wire::ConnectionHandle;

mod bomb;

/// The body of a response.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// The start of a list. White space may follow it without end, because JSON allows that.
const LIST_START: &[u8] =
    br#"{"resource":"customer_list","total":1,"page":1,"per_page":1,"last_page":1,"data":["#;
/// HUGE_PIECE controls the bytes in each piece of a huge body.
const HUGE_PIECE: usize = 64 * 1024;

/// The outcome of a request.
#[derive(Debug, Clone)]
pub(crate) enum RequestOutcome {
    /// An answer. `date` is the time of its `Date` header.
    Answer { answer: ApiAnswer, delivery: Delivery, date: Timestamp },
    /// The connection ends without an answer.
    Hangup(Ending),
}

/// How an answer reaches the client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delivery {
    cut: Option<(usize, Ending)>,
    drip: Option<(Duration, usize)>,
    flood: Option<Flood>,
}

/// A body far larger than any answer.
#[derive(Debug, Clone, Copy)]
enum Flood {
    Plain { bytes: u64 },
    Gzip { bytes: u64 },
}

impl RequestOutcome {
    /// Applies faults to an answer. Without an answer of the API, a fault replaces it.
    pub(crate) fn new(
        answer: Option<ApiAnswer>,
        request: &Request,
        date: Timestamp,
        fired: &[Fired],
    ) -> Self {
        let mut answer = answer.unwrap_or_else(|| ApiAnswer::plain_error(StatusCode::INTERNAL_SERVER_ERROR));
        let mut delivery = Delivery::default();
        let mut date = date;
        for Fired { effect, .. } in fired {
            match effect {
                FaultEffect::Date { ahead_s } => date = moved(date, SignedDuration::from_secs(*ahead_s)),
                FaultEffect::Reset { .. } => return Self::Hangup(Ending::Reset),
                FaultEffect::Close { .. } => return Self::Hangup(Ending::Close),
                FaultEffect::HugeHeader { bytes } => {
                    answer = answer.with_header("X-Padding", "x".repeat(*bytes))
                }
                FaultEffect::Cut { after, ending } => delivery.cut = Some((*after, *ending)),
                FaultEffect::Drip { every_ms, bytes } => {
                    delivery.drip = Some((milliseconds(*every_ms), (*bytes).max(1)))
                }
                FaultEffect::Rewrite { find, with } => {
                    let with = with.answer(answer.status).body;
                    answer.body = rewritten(&answer.body, find.as_bytes(), &with);
                }
                FaultEffect::HugeBody { bytes } => delivery.flood = Some(Flood::Plain { bytes: *bytes }),
                FaultEffect::GzipBomb { bytes } => delivery.flood = Some(Flood::Gzip { bytes: *bytes }),
                _ => {}
            }
            if let Some(replacement) = effect.replacement(Some(request)) {
                answer = replacement;
            }
        }
        Self::Answer { answer, delivery, date }
    }

    /// Returns an answer without faults.
    pub(crate) fn plain(answer: ApiAnswer, date: Timestamp) -> Self {
        Self::Answer { answer, delivery: Delivery::default(), date }
    }

    /// Returns the outcome that a handler has returned through the router.
    pub(crate) fn of(mut response: axum::response::Response) -> Self {
        response.extensions_mut().remove().unwrap_or(Self::Hangup(Ending::Close))
    }

    /// Returns the status of the answer.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answer { answer, .. } => Some(answer.status),
            Self::Hangup(_) => None,
        }
    }

    /// Builds the response for hyper.
    ///
    /// # Errors
    /// The connection must end without an answer; `line` knows how.
    pub(crate) fn respond(self, line: &Arc<ConnectionHandle>) -> Result<Response<ResponseBody>, Hangup> {
        let (answer, delivery, date) = match self {
            Self::Answer { answer, delivery, date } => (answer, delivery, date),
            Self::Hangup(ending) => {
                line.end(ending);
                return Err(Hangup);
            }
        };
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.extend(http_date(date).map(|date| (DATE, date)));
        headers.extend(answer.content_type.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))));
        for (name, value) in &answer.headers {
            // A fault may contain a header that HTTP does not allow. It is left out.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        if matches!(delivery.flood, Some(Flood::Gzip { .. })) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let length = answer.body.len();
        if delivery.cut.is_some() || delivery.drip.is_some() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = delivery.body(answer.body, Arc::clone(line));
        Ok(response)
    }
}

/// Passes the outcome through the router in the extensions of an empty response, which is never
/// sent.
impl IntoResponse for RequestOutcome {
    fn into_response(self) -> axum::response::Response {
        Extension(self).into_response()
    }
}

impl Delivery {
    /// Builds the body of a response.
    fn body(self, whole: Bytes, line: Arc<ConnectionHandle>) -> ResponseBody {
        match self.flood {
            Some(Flood::Plain { bytes }) => return streamed(huge(bytes).map(Ok)),
            Some(Flood::Gzip { bytes }) => {
                return streamed(bomb::pieces(LIST_START, bytes).map(Ok));
            }
            None => {}
        }
        let sent = match self.cut {
            Some((after, _)) => whole.slice(..after.min(whole.len().saturating_sub(1))),
            None => whole,
        };
        let pieces = match self.drip {
            Some((every, bytes)) => dripped(sent, every, bytes).boxed(),
            None if self.cut.is_none() => return full(sent),
            None => stream::iter([sent]).boxed(),
        };
        match self.cut {
            Some((_, ending)) => streamed(pieces.map(Ok).chain(cut(line, ending))),
            None => streamed(pieces.map(Ok)),
        }
    }
}

/// Replaces each occurrence of `find` in a body.
fn rewritten(body: &Bytes, find: &[u8], with: &[u8]) -> Bytes {
    if find.is_empty() {
        return body.clone();
    }
    let (mut text, mut at) = (Vec::with_capacity(body.len()), 0);
    while at < body.len() {
        if body[at..].starts_with(find) {
            text.extend_from_slice(with);
            at += find.len();
        } else {
            text.push(body[at]);
            at += 1;
        }
    }
    text.into()
}

/// The error that makes hyper drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("a fault of the sandbox ends the connection")]
pub(crate) struct Hangup;

/// Returns the `Date` header of a time; 1970 for an earlier one, which the format cannot express.
fn http_date(time: Timestamp) -> Option<HeaderValue> {
    let time = SystemTime::try_from(time.max(Timestamp::UNIX_EPOCH)).ok()?;
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

/// Returns a body in one piece.
fn full(body: Bytes) -> ResponseBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Returns a streamed body.
fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> ResponseBody {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Streams a list of this length that consists of white space.
fn huge(bytes: u64) -> impl Stream<Item = Bytes> + Send {
    let spaces = Bytes::from(vec![b' '; HUGE_PIECE]);
    let start = bytes.min(LIST_START.len() as u64) as usize;
    let rest = stream::unfold(bytes - start as u64, move |left| {
        let piece = spaces.slice(..left.min(HUGE_PIECE as u64) as usize);
        async move { (left > 0).then(|| (piece.clone(), left - piece.len() as u64)) }
    });
    stream::iter([Bytes::from_static(&LIST_START[..start])]).chain(rest)
}

/// Streams a body in pieces, with a pause before each.
fn dripped(body: Bytes, every: Duration, bytes: usize) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(body, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(every).await;
        let piece = left.split_to(bytes.min(left.len()));
        Some((piece, left))
    })
}

/// Returns the end of a body that is cut: an error, which makes hyper drop the connection.
fn cut(line: Arc<ConnectionHandle>, ending: Ending) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::once(async move {
        // Hyper drops what it has not written when the body fails. It writes when the body is
        // pending, so be pending once.
        tokio::task::yield_now().await;
        line.end(ending);
        Err(io::Error::other(Hangup))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn huge_body_has_exactly_the_requested_length() {
        for bytes in [0, 10, LIST_START.len() as u64, 3 * HUGE_PIECE as u64 + 1] {
            let sent: usize = huge(bytes).map(|piece| piece.len()).collect::<Vec<_>>().await.iter().sum();
            assert_eq!(sent as u64, bytes);
        }
    }
}
