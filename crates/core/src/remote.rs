//! Requests to KOMOJU's customers API and their outcomes as values. The client that sends them is part of the program.

pub mod error;

use crate::intent::IntentBody;
use crate::{Customer, CustomerId, Unreadable};

use error::{ApiError, RemoteError};

/// What a customer asked for by id turned out to be. That there is none is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerAnswer {
    /// It exists.
    Found(Customer),
    /// It exists (HTTP 200), and what is shown of it cannot be read; the same request would be answered in the same way.
    /// Its id is the requested one, or cannot be read either.
    Unreadable(Unreadable),
    /// There is none, as far as this answer says: HTTP 404 or 410 with a JSON error of the API, or a customer with
    /// `"deleted": true`. A web page never says so.
    NotFound,
}

/// One call that changes something at the remote.
#[derive(Clone, Debug, PartialEq)]
pub enum PushRequest {
    /// A new customer. The same key with the same body is the same create, for 24 hours from its first use.
    Create {
        /// 1 to 100 ASCII characters, used for nothing else, ever.
        key: String,
        /// Its parameters.
        body: IntentBody,
    },
    /// Other values; what is not named stays.
    Update {
        /// Whose. It must be one that [can be asked](CustomerId::can_be_asked).
        id: CustomerId,
        /// Which.
        body: IntentBody,
    },
    /// A customer's end.
    Delete {
        /// Whose. It must be one that [can be asked](CustomerId::can_be_asked).
        id: CustomerId,
    },
}

/// What became of a push that was answered clearly. That there is no such customer is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum PushAnswer {
    /// It took effect (2xx).
    Applied {
        /// The customer as the answer shows it, its payment source included.
        customer: PushedCustomer,
        /// The HTTP status.
        status: u16,
    },
    /// Update or delete: HTTP 404 with a JSON error whose code is `not_found`.
    NotFound {
        /// Its words, masked.
        error: ApiError,
    },
}

/// What the answer to a push shows.
#[derive(Clone, Debug, PartialEq)]
pub enum PushedCustomer {
    /// The customer.
    Shown(Customer),
    /// A customer that cannot be read. Sent again, the request would be answered in the same way.
    Unreadable(Unreadable),
    /// No customer.
    None,
}

/// Whether a byte of a request may have reached the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytesSent {
    /// There was no connection.
    None,
    /// It may have taken effect, whatever came back.
    Maybe,
}

/// A push whose outcome is a refusal, or not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct PushError {
    /// What happened.
    pub error: RemoteError,
    /// Whether it may have taken effect all the same. A refusal in the API's own words has not.
    pub bytes_sent: BytesSent,
}
