//! The customers API: it dispatches a request to its call.

use crate::faults::Fired;
use crate::request::Route;

pub(crate) mod answer;
mod cards;
mod context;
mod customers;
mod events;
mod form;
pub(crate) mod idempotency;
pub(crate) mod keys;
pub(crate) mod list;

use answer::ApiAnswer;
pub(crate) use context::{Context, Counts};

/// Runs a call and returns its answer.
pub(crate) fn answer(call: Context<'_>, route: &Route, fired: &[Fired]) -> ApiAnswer {
    let answer = match route {
        Route::List => call.list(fired),
        Route::Create => call.create(),
        Route::Show(id) => call.show(id),
        Route::Update(id) => call.update(id),
        Route::Delete(id) => call.delete(id),
        Route::Events => call.events(),
        Route::Event(id) => call.event(id),
        Route::Nowhere => Err(ApiAnswer::not_found("There is nothing at this path.")),
    };
    answer.unwrap_or_else(|refused| refused)
}
