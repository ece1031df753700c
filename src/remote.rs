//! The remote: KOMOJU's customers API, in the product's own words.
//!
//! [`Remote`] is what the passes need of it; [`Http`] is the real one. One call is one request: it waits for the limiter, sends,
//! reads at most a bounded answer, and says what came of it. It never repeats by itself, follows no redirect and decides nothing:
//! what an answer means for the mirror is for `komoju_core::plan`, when to ask again for `tasks`.

pub mod client;
pub mod limiter;
mod meter;
mod pace;
mod retry_after;
mod wire;

use std::future::Future;

use jiff::Timestamp;

use komoju_core::{CustomerId, Page, PageQuery};

pub use client::Http;
pub use komoju_core::remote::error::{Beginning, Call, Cause, Certificate, Class, RemoteError, Step};
pub use komoju_core::remote::{Left, Push, PushError, Pushed, PushedCustomer, Shown, error};

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

/// The writing half of the customers API.
pub trait PushRemote: Send + Sync + 'static {
    /// Makes one call, once.
    fn push(&self, push: &Push) -> impl Future<Output = Result<Pushed, PushError>> + Send;

    /// Asks for one customer on behalf of a push: as [`Remote::show`], but in the pushes' turn.
    fn look(&self, id: &CustomerId) -> impl Future<Output = Result<Shown, RemoteError>> + Send;
}
