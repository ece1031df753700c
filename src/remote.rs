//! The remote: KOMOJU's customers API, in the product's own words.
//!
//! [`Remote`] is what the passes need of it; [`Http`] is the real one. One call is one request: it waits for the limiter, sends,
//! reads at most a bounded answer, and says what came of it. It never repeats by itself, follows no redirect and decides nothing:
//! what an answer means for the mirror is for `komoju_core::plan`, when to ask again for `tasks`.

pub mod client;
pub mod error;
pub mod limiter;
mod meter;
mod pace;
mod retry_after;
mod wire;

use std::future::Future;

use jiff::Timestamp;

use error::ApiError;

use komoju_core::intent::Body;
use komoju_core::{Customer, CustomerId, Page, PageQuery, Unreadable};

pub use client::Http;
pub use error::{Beginning, Call, Cause, Certificate, Class, RemoteError, Step};

/// What a customer asked for by id turned out to be. That there is none is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// It exists.
    Found(Customer),
    /// It exists (HTTP 200), and what is shown of it cannot be read; the same request would be answered in the same way.
    /// Its id is the requested one, or cannot be read either.
    Unreadable(Unreadable),
    /// There is none, as far as this answer says: HTTP 404 or 410 with a JSON error of the API, or a customer with
    /// `"deleted": true`. A web page never says so.
    NotFound,
}

/// The reading half of the customers API.
pub trait Remote: Send + Sync + 'static {
    /// Asks for one page of the list.
    fn list(&self, query: PageQuery) -> impl Future<Output = Result<Page, RemoteError>> + Send;

    /// Asks for one customer. The id must be one that [can be asked](CustomerId::can_be_asked).
    fn show(&self, id: &CustomerId) -> impl Future<Output = Result<Shown, RemoteError>> + Send;

    /// How many requests have been sent since the start.
    fn requests(&self) -> u64;

    /// Until when the remote asked us to wait, if that is still to come.
    fn throttled_until(&self) -> Option<Timestamp>;

    /// What the remote's clock says now, by the newest answer and the time since.
    fn server_time(&self) -> Option<Timestamp>;
}

/// One call that changes something at the remote.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// A new customer. The same key with the same body is the same create, for 24 hours from its first use.
    Create {
        /// 1 to 100 ASCII characters, used for nothing else, ever.
        key: String,
        /// Its parameters.
        body: Body,
    },
    /// Other values; what is not named stays.
    Update {
        /// Whose. It must be one that [can be asked](CustomerId::can_be_asked).
        id: CustomerId,
        /// Which.
        body: Body,
    },
    /// A customer's end.
    Delete {
        /// Whose. It must be one that [can be asked](CustomerId::can_be_asked).
        id: CustomerId,
    },
}

/// What became of a push that was answered clearly. That there is no such customer is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Pushed {
    /// It took effect (2xx).
    Took {
        /// The customer as the answer shows it, its payment source included.
        customer: PushedCustomer,
        /// The HTTP status.
        status: u16,
    },
    /// Update or delete: HTTP 404 with a JSON error whose code is `not_found`.
    NotFound {
        /// Its words, masked.
        told: ApiError,
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
pub enum Left {
    /// There was no connection.
    Nothing,
    /// It may have taken effect, whatever came back.
    Perhaps,
}

/// A push whose outcome is a refusal, or not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct PushError {
    /// What happened.
    pub error: RemoteError,
    /// Whether it may have taken effect all the same. A refusal in the API's own words has not.
    pub left: Left,
}

/// The writing half of the customers API.
pub trait PushRemote: Send + Sync + 'static {
    /// Makes one call, once.
    fn push(&self, push: &Push) -> impl Future<Output = Result<Pushed, PushError>> + Send;

    /// Asks for one customer on behalf of a push: as [`Remote::show`], but in the pushes' turn.
    fn look(&self, id: &CustomerId) -> impl Future<Output = Result<Shown, RemoteError>> + Send;
}
