//! The errors of a request. Each message names method, path and page; each text of the API in it is masked.

use std::fmt;
use std::time::Duration;

use crate::Unreadable;

/// Which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// One page of the list.
    List {
        /// Which.
        page: u64,
    },
    /// One page of the event list.
    Events {
        /// Which page.
        page: u64,
    },
    /// One customer.
    Show {
        /// Which; masked, for an id may be anything.
        id: String,
    },
    /// A new customer.
    Create,
    /// Other values for one customer.
    Update {
        /// Which; masked.
        id: String,
    },
    /// One customer's end.
    Delete {
        /// Which; masked.
        id: String,
    },
}

impl fmt::Display for Call {
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

/// The step at which a request without an answer ended: what a person would look at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host's name was not found.
    Name,
    /// There was no connection to the host.
    Connection,
    /// There was none to the proxy, or the proxy did not let us through.
    Proxy,
    /// The host could not prove who it is, or does not speak TLS.
    Tls(Certificate),
    /// There was a connection, and no whole answer on it.
    Answer,
}

/// What was wrong with the host's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// It is not yet or no longer valid, by this machine's clock.
    Untimely,
    /// It is not for this host, or no trusted authority has signed it.
    Untrusted,
    /// TLS failed before or after the certificate was checked.
    Unchecked,
}

/// Why a request gave nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No answer: the name, the connection, TLS, a deadline, a connection that broke.
    #[error("no answer: {why}")]
    Unreachable {
        /// How far it came.
        step: Step,
        /// Why it came no further.
        why: String,
    },
    /// A JSON 401 on any call, or a JSON 403 on a list: the key is refused. A JSON 403 on one customer's GET or on a write is
    /// [`Cause::Rejected`]: the key may still read and write others.
    #[error("the API refused the key: {0}")]
    KeyRefused(ApiError),
    /// HTTP 429, or 503 with a Retry-After.
    #[error("the API asks to wait: {0}")]
    Throttled(ApiError),
    /// A JSON error that the same request would meet again.
    #[error("the API rejected the request: {0}")]
    Rejected(ApiError),
    /// A status that may pass: 5xx, and anything that is not KOMOJU's own JSON.
    #[error("answered {0}")]
    Unexpected(ApiError),
    /// A redirect. None is followed: the request would take the key and its body to another place.
    #[error("answered HTTP {status}, a redirect {}; redirects are not followed, so api.base_url must be the final address", target(.to.as_deref()))]
    Redirected {
        /// The HTTP status.
        status: u16,
        /// Where it leads, masked; `None` where the answer does not say.
        to: Option<String>,
    },
    /// A success whose content cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// A page of the list that is longer than what is read of one.
    #[error("the answer is larger than {limit_kib} KiB (a smaller api.per_page makes it smaller)")]
    TooLarge {
        /// How much is read.
        limit_kib: usize,
        /// What its beginning says.
        begun: Beginning,
    },
}

/// What the beginning of a page says that is too long to be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// How many customers it says a page holds.
    pub per_page: Option<u64>,
    /// How many pages it says there are.
    pub last_page: Option<u64>,
    /// Its first customer, unreadable because its text is cut off.
    pub first: Option<Box<Unreadable>>,
}

/// What an error answer says, masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// KOMOJU's `code`.
    pub code: Option<String>,
    /// KOMOJU's `message`, or what stood there instead.
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

/// What follows from an error, whatever its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same request may well succeed in a moment.
    Transient,
    /// The same request may succeed once the remote's wait is over.
    Throttled,
    /// The same request will fail again.
    Rejected,
    /// No request will succeed with this key.
    Auth,
    /// An answer came and cannot be used; it may be better the next time.
    Corrupt,
}

/// A request that gave nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {cause}{}", hint(call, cause))]
pub struct RemoteError {
    /// Which request.
    pub call: Call,
    /// Why.
    pub cause: Cause,
    /// How long the remote asked us to wait, within bounds; the limiter waits by itself.
    pub retry_after: Option<Duration>,
}

impl RemoteError {
    /// The HTTP status, where there was an answer with an error.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            Cause::KeyRefused(told)
            | Cause::Throttled(told)
            | Cause::Rejected(told)
            | Cause::Unexpected(told) => Some(told.status),
            Cause::Redirected { status, .. } => Some(*status),
            Cause::Unreachable { .. } | Cause::Unusable(_) | Cause::TooLarge { .. } => None,
        }
    }

    /// What follows from it.
    pub fn class(&self) -> Class {
        match &self.cause {
            // The host shows the same certificate the next time, and redirects to the same place.
            Cause::Unreachable {
                step: Step::Tls(Certificate::Untimely | Certificate::Untrusted), ..
            }
            | Cause::Redirected { .. } => Class::Rejected,
            Cause::Unreachable { .. } | Cause::Unexpected(_) => Class::Transient,
            Cause::Throttled(_) => Class::Throttled,
            // The page would be as large the next time.
            Cause::Rejected(_) | Cause::TooLarge { .. } => Class::Rejected,
            Cause::KeyRefused(_) => Class::Auth,
            Cause::Unusable(_) => Class::Corrupt,
        }
    }
}

fn target(to: Option<&str>) -> String {
    to.map_or_else(|| "without a target".to_owned(), |to| format!("to {to}"))
}

/// What to check first, where the list itself is not found.
fn hint(call: &Call, cause: &Cause) -> &'static str {
    match (call, cause) {
        (Call::List { page: 1 }, Cause::Rejected(told) | Cause::Unexpected(told)) if told.status == 404 => {
            "; check that api.base_url is the address of KOMOJU's API"
        }
        _ => "",
    }
}
