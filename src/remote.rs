//! The remote: KOMOJU's API of customers and events in the types of `komoju_core`.
//!
//! [`Remote`], [`EventRemote`] and [`PushRemote`] are the ports that passes, events and pushes use.
//! [`Http`] implements all of them. One call is one request: it waits for the limiter, sends, reads
//! a bounded answer and returns the result. It never retries, follows no redirect and decides
//! nothing. `komoju_core::plan` decides what an answer means for the mirror, and `tasks` decides
//! when to retry.

pub mod client;
pub mod limiter;
mod meter;
mod pace;
mod retry_after;
mod wire;

use std::future::Future;

use jiff::Timestamp;

use komoju_core::{CustomerId, EventPage, Page, PageQuery};

pub use client::Http;
pub use komoju_core::remote::error::{
    ApiCall, CertificateFault, ErrorCause, ErrorClass, RemoteError, RequestStage, TruncatedPage,
};
pub use komoju_core::remote::{
    BytesSent, CustomerAnswer, PushAnswer, PushError, PushRequest, PushedCustomer, error,
};

/// The reading half of the customers API.
pub trait Remote: Send + Sync + 'static {
    /// Requests one page of the list.
    fn list(&self, query: PageQuery) -> impl Future<Output = Result<Page, RemoteError>> + Send;

    /// Requests one customer. The id must be one that [can be a path
    /// segment](CustomerId::can_be_requested).
    fn show(&self, id: &CustomerId) -> impl Future<Output = Result<CustomerAnswer, RemoteError>> + Send;

    /// Returns how many requests were sent since the start.
    fn requests(&self) -> u64;

    /// Returns until when the remote asked for a wait, if that time is not over.
    fn throttled_until(&self) -> Option<Timestamp>;

    /// Returns the time of the remote's clock, computed from the newest answer.
    fn server_time(&self) -> Option<Timestamp>;
}

/// The events API, and the requests that events cause.
pub trait EventRemote: Remote {
    /// Requests one page of the event list, newest first.
    fn events(&self, query: PageQuery) -> impl Future<Output = Result<EventPage, RemoteError>> + Send;

    /// Requests one customer that an event names: as [`Remote::show`], but in the turn of the
    /// hints.
    fn show_hinted(
        &self,
        id: &CustomerId,
    ) -> impl Future<Output = Result<CustomerAnswer, RemoteError>> + Send;
}

/// The writing half of the customers API.
pub trait PushRemote: Send + Sync + 'static {
    /// Sends one create, update or delete, once.
    fn push(&self, push: &PushRequest) -> impl Future<Output = Result<PushAnswer, PushError>> + Send;

    /// Requests one customer for a push: as [`Remote::show`], but in the turn of the writes.
    fn look(&self, id: &CustomerId) -> impl Future<Output = Result<CustomerAnswer, RemoteError>> + Send;
}
