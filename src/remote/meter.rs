//! Counting requests: each one that was sent, once, by what came of it.

use std::time::Duration;

use super::error::{Call, Cause, RemoteError};
use crate::clock::Clock;
use crate::metrics;

/// A request's entry in the metrics, made when it is dropped: who gives up on a request drops it with everything else.
pub(super) struct Meter<'a> {
    call: &'static str,
    answer: &'static str,
    clock: &'a dyn Clock,
    sent_at: Option<Duration>,
}

impl<'a> Meter<'a> {
    /// Of a request that is not sent yet.
    pub(super) fn new(call: &Call, clock: &'a dyn Clock) -> Self {
        let call = match call {
            Call::List { .. } => "list",
            Call::Show { .. } => "show",
            Call::Create => "create",
            Call::Update { .. } => "update",
            Call::Delete { .. } => "delete",
        };
        Self { call, answer: "abandoned", clock, sent_at: None }
    }

    /// It leaves now.
    pub(super) fn sent(&mut self) {
        self.sent_at = Some(self.clock.elapsed());
    }

    /// It was answered with what it asked for, or was told that there is no such customer.
    pub(super) fn answered(&mut self, found: bool) {
        self.answer = if found { "ok" } else { "not_found" };
    }

    /// It was answered with a customer that cannot be read.
    pub(super) fn unreadable(&mut self) {
        self.answer = "unusable";
    }

    /// It brought nothing usable.
    pub(super) fn failed(&mut self, error: &RemoteError) {
        self.answer = match &error.cause {
            Cause::Unreachable { .. } => "unreachable",
            Cause::KeyRefused(_) => "key_refused",
            Cause::Throttled(_) => "throttled",
            Cause::Rejected(_) => "rejected",
            Cause::Unexpected(_) => "unexpected",
            Cause::Redirected { .. } | Cause::Unusable(_) | Cause::TooLarge { .. } => "unusable",
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
