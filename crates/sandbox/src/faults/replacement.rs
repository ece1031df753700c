//! The answers that an effect sends in place of the API's own.

use bytes::Bytes;
use hyper::StatusCode;

use super::effect::FaultEffect;
use super::terms::{FaultedWork, Payload, RedirectTarget};
use crate::api::answer::{ApiAnswer, JSON};
use crate::request::Request;

impl FaultEffect {
    /// Returns whether the request takes effect although this replaces its answer.
    pub(crate) fn work(&self) -> FaultedWork {
        match self {
            Self::Status { work, .. }
            | Self::Reset { work }
            | Self::Close { work }
            | Self::Redirect { work, .. } => *work,
            _ => FaultedWork::Done,
        }
    }

    /// Whether it answers in front of the API, before the key is checked.
    pub(crate) fn stops_in_front(&self) -> bool {
        self.work() == FaultedWork::Skipped && self.server_error().is_none()
    }

    /// Returns the answer, if it is an error of the API itself: 500 and above, in JSON.
    pub(crate) fn server_error(&self) -> Option<ApiAnswer> {
        match self {
            Self::Status { status: 500.., body, .. } if *body != Payload::Html => self.replacement(None),
            _ => None,
        }
    }

    /// Returns the answer that replaces any other one.
    pub(crate) fn replacement(&self, request: Option<&Request>) -> Option<ApiAnswer> {
        match self {
            Self::Status { status, body, retry_after, headers, .. } => {
                let mut answer = body.answer(status_code(*status));
                if let Some(text) = retry_after {
                    answer = answer.with_header("Retry-After", text);
                }
                answer.headers.extend(headers.clone());
                Some(answer)
            }
            Self::Redirect { status, to, .. } => {
                let location = request.map(|request| to.location(request)).unwrap_or_default();
                Some(ApiAnswer::html(status_code(*status)).with_header("Location", location))
            }
            Self::Body { body } => Some(body.answer(StatusCode::OK)),
            Self::HugeBody { .. } | Self::GzipBomb { .. } => Some(ApiAnswer {
                status: StatusCode::OK,
                content_type: Some(JSON),
                ..ApiAnswer::no_content()
            }),
            _ => None,
        }
    }
}

impl Payload {
    /// Returns an answer with this body.
    pub(crate) fn answer(&self, status: StatusCode) -> ApiAnswer {
        let with = |content_type, body: Bytes| ApiAnswer { status, content_type, headers: Vec::new(), body };
        match self {
            Self::Error => ApiAnswer::plain_error(status),
            Self::Code(code) => ApiAnswer::error(status, code, "A fault of the sandbox sends this error."),
            Self::Html => ApiAnswer::html(status),
            Self::Empty => with(None, Bytes::new()),
            Self::Json(value) => ApiAnswer::json(status, value),
            Self::Text(text) => with(Some(JSON), Bytes::from(text.clone())),
            Self::Bytes(bytes) => with(Some(JSON), Bytes::from(bytes.clone())),
        }
    }
}

impl RedirectTarget {
    /// Returns the `Location` header of a redirect.
    fn location(&self, request: &Request) -> String {
        let path = request.path_and_query();
        let host = request.header("host").unwrap_or("localhost");
        match self {
            Self::SameHost => path,
            Self::OtherHost => {
                let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
                let other = if name == "localhost" { "127.0.0.1" } else { "localhost" };
                format!("http://{other}:{port}{path}")
            }
            Self::PlainHttp => format!("http://{host}{path}"),
            Self::Url(url) => url.clone(),
        }
    }
}

/// Returns a status from 200 on; 500 for any other number. A lower status does not end a request.
fn status_code(status: u16) -> StatusCode {
    let code = StatusCode::from_u16(status).ok().filter(|_| status >= 200);
    code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_errors_from_500_on_are_from_the_api_itself() {
        for (status, body, own) in [
            (500, Payload::Error, true),
            (502, Payload::Code("card_declined".to_owned()), true),
            (503, Payload::Html, false),
            (429, Payload::Error, false),
        ] {
            let mut effect = FaultEffect::status(status);
            if let FaultEffect::Status { body: asked, .. } = &mut effect {
                *asked = body;
            }
            assert_eq!(effect.server_error().is_some(), own, "{effect:?}");
            assert_eq!(effect.stops_in_front(), !own, "{effect:?}");
        }
    }
}
