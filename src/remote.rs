//! The remote: KOMOJU's customers API, in the product's own words.
//!
//! [`Remote`] is what the passes need of it; [`Http`] is the real one. One call is one request: it waits for the limiter, sends,
//! reads at most a bounded answer, and says what came of it. It never repeats by itself, follows no redirect and decides nothing:
//! what an answer means for the mirror is for `reconcile`, when to ask again for `tasks`.

pub mod error;
pub mod http;
pub mod limiter;
mod wire;

use std::future::Future;

use jiff::Timestamp;

pub use error::{Call, Cause, Class, RemoteError};
pub use http::Http;

use crate::model::{Customer, CustomerId, Page, PageQuery};

/// What a customer asked for by id turned out to be. That there is none is an answer, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// It exists.
    Found(Customer),
    /// HTTP 404 with a JSON error whose code is `not_found`; nothing less.
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
}
