//! The errors of a request. Each message names the method and path, and the page of a list. Text
//! from the API is masked.

use std::fmt;
use std::time::Duration;

use crate::Unreadable;

/// A request, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// A page of the list.
    List {
        /// The page number.
        page: u64,
    },
    /// One page of the event list.
    Events {
        /// Which page.
        page: u64,
    },
    /// One customer.
    Show {
        /// The id, masked, because an id may contain anything.
        id: String,
    },
    /// The creation of a customer.
    Create,
    /// An update of one customer.
    Update {
        /// The id, masked.
        id: String,
    },
    /// A deletion of one customer.
    Delete {
        /// The id, masked.
        id: String,
    },
}

impl fmt::Display for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { page } => write!(f, "GET /customers page {page}"),
            Self::Events { page } => write!(f, "GET /events page {page}"),
            Self::Show { id } => write!(f, "GET /customers/{id}"),
            Self::Create => f.write_str("POST /customers"),
            Self::Update { id } => write!(f, "PATCH /customers/{id}"),
            Self::Delete { id } => write!(f, "DELETE /customers/{id}"),
        }
    }
}

/// The stage at which a request without an answer failed. It tells an operator what to check first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestStage {
    /// Name resolution: the host's name was not found.
    Name,
    /// The connection to the host.
    Connection,
    /// The connection to the proxy, or the proxy's refusal.
    Proxy,
    /// TLS: the host could not prove its identity, or does not speak TLS.
    Tls(CertificateFault),
    /// The answer: the connection worked, but no complete answer arrived.
    Answer,
}

/// The fault of the host's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is not valid yet or no longer valid, by this machine's clock.
    Untimely,
    /// It is not for this host, or no trusted authority has signed it.
    Untrusted,
    /// None is known: TLS failed before or after the check of the certificate.
    Unchecked,
}

/// Why a request had no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorCause {
    /// There was no answer: the name, the connection, TLS or the deadline failed, or the connection
    /// broke.
    #[error("no answer: {why}")]
    Unreachable {
        /// The stage that failed.
        stage: RequestStage,
        /// The reason.
        why: String,
    },
    /// The key is refused: a JSON 401 on any request, or a JSON 403 on a list. A JSON 403 on one
    /// customer's GET or on a write is [`ErrorCause::Rejected`], because the key may still read and
    /// write others.
    #[error("the API refused the key: {0}")]
    KeyRefused(ApiError),
    /// HTTP 429, or 503 with a Retry-After.
    #[error("the API asks to wait: {0}")]
    Throttled(ApiError),
    /// A JSON error that the same request would get again.
    #[error("the API rejected the request: {0}")]
    Rejected(ApiError),
    /// A status that may be temporary: 5xx, or any answer that is not KOMOJU's own JSON.
    #[error("answered {0}")]
    Unexpected(ApiError),
    /// A redirect. Redirects are not followed, because the request would send the key and its body
    /// elsewhere.
    #[error("answered HTTP {status}, a redirect {}; redirects are not followed, so api.base_url must be the final address", target(.to.as_deref()))]
    Redirected {
        /// The HTTP status.
        status: u16,
        /// The target, masked; `None` if the answer gives none.
        to: Option<String>,
    },
    /// A success whose content cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// A page of the list that is larger than the limit.
    #[error("the answer is larger than {limit_kib} KiB (a smaller api.per_page makes it smaller)")]
    TooLarge {
        /// The limit in KiB.
        limit_kib: usize,
        /// What the beginning of the page says.
        page: TruncatedPage,
    },
}

/// The beginning of a page that is too large to be read completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruncatedPage {
    /// The number of customers on a page, by its envelope.
    pub per_page: Option<u64>,
    /// The number of pages, by its envelope.
    pub last_page: Option<u64>,
    /// Its first customer, which is unreadable because its text is truncated.
    pub first: Option<Box<Unreadable>>,
}

/// The content of an error answer, masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// KOMOJU's `code`.
    pub code: Option<String>,
    /// KOMOJU's `message`, or the text that the answer had instead.
    pub message: Option<String>,
    /// KOMOJU's `param`.
    pub param: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        for part in [&self.code, &self.param].into_iter().flatten() {
            write!(f, " {part}")?;
        }
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

/// The class of an error, which decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same request may succeed after a moment.
    Transient,
    /// The same request may succeed when the wait that the remote asked for is over.
    Throttled,
    /// The same request will fail again.
    Rejected,
    /// No request with this key will succeed.
    Auth,
    /// The answer was not usable; the next one may be.
    Corrupt,
}

/// A request without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {cause}{}", hint(call, cause))]
pub struct RemoteError {
    /// The request.
    pub call: ApiCall,
    /// The cause.
    pub cause: ErrorCause,
    /// How long the remote asked to wait, within limits. The limiter waits by itself.
    pub retry_after: Option<Duration>,
}

impl RemoteError {
    /// Whether the API says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(&self.cause, ErrorCause::Rejected(error) if matches!(error.status, 404 | 410))
    }

    /// Whether the answer is larger than what is read of one.
    pub fn is_too_large(&self) -> bool {
        matches!(self.cause, ErrorCause::TooLarge { .. })
    }

    /// Returns the HTTP status of an error answer.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            ErrorCause::KeyRefused(api_error)
            | ErrorCause::Throttled(api_error)
            | ErrorCause::Rejected(api_error)
            | ErrorCause::Unexpected(api_error) => Some(api_error.status),
            ErrorCause::Redirected { status, .. } => Some(*status),
            ErrorCause::Unreachable { .. } | ErrorCause::Unusable(_) | ErrorCause::TooLarge { .. } => None,
        }
    }

    /// Returns the class of the error.
    pub fn class(&self) -> ErrorClass {
        match &self.cause {
            // The next connection gets the same certificate or redirect.
            ErrorCause::Unreachable {
                stage: RequestStage::Tls(CertificateFault::Untimely | CertificateFault::Untrusted),
                ..
            }
            | ErrorCause::Redirected { .. } => ErrorClass::Rejected,
            ErrorCause::Unreachable { .. } | ErrorCause::Unexpected(_) => ErrorClass::Transient,
            ErrorCause::Throttled(_) => ErrorClass::Throttled,
            // The page would be as large again.
            ErrorCause::Rejected(_) | ErrorCause::TooLarge { .. } => ErrorClass::Rejected,
            ErrorCause::KeyRefused(_) => ErrorClass::Auth,
            ErrorCause::Unusable(_) => ErrorClass::Corrupt,
        }
    }
}

fn target(to: Option<&str>) -> String {
    to.map_or_else(|| "without a target".to_owned(), |to| format!("to {to}"))
}

/// Returns what to check first if the list itself is not found.
fn hint(call: &ApiCall, cause: &ErrorCause) -> &'static str {
    match (call, cause) {
        (ApiCall::List { page: 1 }, ErrorCause::Rejected(api_error) | ErrorCause::Unexpected(api_error))
            if api_error.status == 404 =>
        {
            "; check that api.base_url is the address of KOMOJU's API"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(call: ApiCall, status: u16) -> RemoteError {
        let api_error = ApiError { status, code: None, message: None, param: None };
        RemoteError { call, cause: ErrorCause::Rejected(api_error), retry_after: None }
    }

    #[test]
    fn only_404_and_410_say_that_there_is_no_such_customer() {
        for (status, is_not_found) in [(404, true), (410, true), (400, false), (422, false)] {
            let error = rejected(ApiCall::Show { id: "a".into() }, status);
            assert_eq!((error.is_not_found(), error.status()), (is_not_found, Some(status)));
            assert!(!error.is_too_large());
        }
    }

    #[test]
    fn answer_that_is_too_large_has_no_status() {
        let page = TruncatedPage { per_page: None, last_page: None, first: None };
        let cause = ErrorCause::TooLarge { limit_kib: 1, page };
        let error = RemoteError { call: ApiCall::List { page: 1 }, cause, retry_after: None };
        assert_eq!((error.is_too_large(), error.is_not_found(), error.status()), (true, false, None));
    }

    #[test]
    fn first_page_that_is_not_found_advises_to_check_the_address() {
        let advises = |call, status| rejected(call, status).to_string().contains("check that api.base_url");
        assert!(advises(ApiCall::List { page: 1 }, 404));
        assert!(!advises(ApiCall::List { page: 1 }, 400));
        assert!(!advises(ApiCall::List { page: 2 }, 404));
        assert!(!advises(ApiCall::Show { id: "a".into() }, 404));
    }

    #[test]
    fn redirect_is_described_with_its_target() {
        let shown =
            |to: Option<&str>| ErrorCause::Redirected { status: 301, to: to.map(str::to_owned) }.to_string();
        assert!(
            shown(Some("https://b")).contains("a redirect to https://b;"),
            "{}",
            shown(Some("https://b"))
        );
        assert!(shown(None).contains("a redirect without a target;"), "{}", shown(None));
    }
}
