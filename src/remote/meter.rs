//! Counts each request that was sent, once, by its result.

use std::time::Duration;

use super::error::{ApiCall, ErrorCause, RemoteError};
use crate::clock::Clock;
use crate::metrics;

/// The entry of one request in the metrics. It is recorded when it is dropped, so that a request
/// that is cancelled is counted too.
pub(super) struct Meter<'a> {
    /// A word of [`metrics::CALLS`].
    call: &'static str,
    /// A word of [`metrics::ANSWERS`].
    answer: &'static str,
    clock: &'a dyn Clock,
    /// When the request was sent; an unsent one is not recorded.
    sent_at: Option<Duration>,
}

impl<'a> Meter<'a> {
    /// Returns the entry of a request that is not sent yet.
    pub(super) fn new(call: &ApiCall, clock: &'a dyn Clock) -> Self {
        let call = match call {
            ApiCall::List { .. } => "list",
            ApiCall::Events { .. } => "events",
            ApiCall::Show { .. } => "show",
            ApiCall::Create => "create",
            ApiCall::Update { .. } => "update",
            ApiCall::Delete { .. } => "delete",
        };
        Self { call, answer: "abandoned", clock, sent_at: None }
    }

    /// Records that the request is sent now.
    pub(super) fn sent(&mut self) {
        self.sent_at = Some(self.clock.elapsed());
    }

    /// Records a usable answer: what was requested, or that there is no such customer.
    pub(super) fn answered(&mut self, found: bool) {
        self.answer = if found { "ok" } else { "not_found" };
    }

    /// Records an answer with a customer that cannot be read.
    pub(super) fn unreadable(&mut self) {
        self.answer = "unusable";
    }

    /// Records a failure.
    pub(super) fn failed(&mut self, error: &RemoteError) {
        self.answer = match &error.cause {
            ErrorCause::Unreachable { .. } => "unreachable",
            ErrorCause::KeyRefused(_) => "key_refused",
            ErrorCause::Throttled(_) => "throttled",
            ErrorCause::Rejected(_) => "rejected",
            ErrorCause::Unexpected(_) => "unexpected",
            ErrorCause::Redirected { .. } | ErrorCause::Unusable(_) | ErrorCause::TooLarge { .. } => {
                "unusable"
            }
        };
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if let Some(sent_at) = self.sent_at {
            metrics::request(self.call, self.answer, self.clock.elapsed().saturating_sub(sent_at));
        }
    }
}
