//! Requests to KOMOJU's customers API and their results, as values. The client that sends them is
//! in the main crate.

pub mod error;

use crate::intent::IntentBody;
use crate::{Customer, CustomerId, Unreadable};

use error::{ApiError, RemoteError};

/// The answer to a request for one customer. A missing customer is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerAnswer {
    /// The customer exists.
    Found(Customer),
    /// The customer exists (HTTP 200) but is unreadable. The same request would get the same
    /// answer. Its id is the requested one, or unreadable too.
    Unreadable(Unreadable),
    /// The customer does not exist, according to this answer: HTTP 404 or 410 with a JSON error of
    /// the API, or a customer with `"deleted": true`. An HTML answer never means this.
    NotFound,
}

/// A request that changes something at the remote.
#[derive(Clone, Debug, PartialEq)]
pub enum PushRequest {
    /// Create a customer. The same key with the same body is the same create, for 24 hours from its
    /// first use.
    Create {
        /// The idempotency key: 1 to 100 ASCII characters, never used for another create.
        key: String,
        /// The parameters.
        body: IntentBody,
    },
    /// Set parameters of a customer. Parameters that are not named stay unchanged.
    Update {
        /// The customer. It must be one that [can be requested](CustomerId::can_be_requested).
        id: CustomerId,
        /// The parameters.
        body: IntentBody,
    },
    /// Delete a customer.
    Delete {
        /// The customer. It must be one that [can be requested](CustomerId::can_be_requested).
        id: CustomerId,
    },
}

/// A clear answer to a push. A missing customer is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum PushAnswer {
    /// The push took effect (2xx).
    Applied {
        /// The customer as the answer shows it, including its payment source.
        customer: PushedCustomer,
        /// The HTTP status.
        status: u16,
    },
    /// The customer of an update or delete does not exist: HTTP 404 with a JSON error whose code is
    /// `not_found`.
    NotFound {
        /// The API's error, masked.
        error: ApiError,
    },
}

/// What the answer to a push shows.
#[derive(Clone, Debug, PartialEq)]
pub enum PushedCustomer {
    /// A readable customer.
    Shown(Customer),
    /// An unreadable customer. The same request would get the same answer.
    Unreadable(Unreadable),
    /// No customer.
    None,
}

/// Whether bytes of a request may have reached the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytesSent {
    /// There was no connection, so no byte was sent.
    None,
    /// Bytes may have been sent, and the request may have taken effect, whatever the answer.
    Maybe,
}

/// A push that was refused, or whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct PushError {
    /// The error.
    pub error: RemoteError,
    /// Whether the push may have taken effect anyway. A refusal by the API itself had no effect.
    pub bytes_sent: BytesSent,
}
