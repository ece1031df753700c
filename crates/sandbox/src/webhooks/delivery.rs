//! The record of one delivery.

use serde::Serialize;

use super::WebhookId;

/// A delivery of an event to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookDelivery {
    /// From 1 in the order of the events; unique within the account.
    pub number: u64,
    /// `X-Komoju-ID`; the deliveries of a duplicate may share it.
    pub id: String,
    /// The receiver.
    pub webhook: WebhookId,
    /// The event's type, or `ping`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The event's id; none for a ping.
    pub event: Option<String>,
    /// What has become of it.
    pub state: DeliveryState,
    /// How often it was sent and answered, or got no answer.
    pub attempts: u32,
    /// How many of the attempts had a wrong signature.
    pub wrong_signatures: u32,
    /// The status of the last answer; none if the last attempt had no answer.
    pub status: Option<u16>,
    /// Why the last attempt had no answer.
    pub error: Option<String>,
    /// The JSON that is sent.
    pub body: String,
}

/// The state of a delivery. It is settled unless it is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// An attempt will follow, or is running.
    Pending,
    /// The receiver answered 2xx.
    Delivered,
    /// No attempt was answered 2xx, and none is left.
    Failed,
    /// A reading dropped it, so it was never sent.
    Dropped,
    /// Its webhook was removed.
    Canceled,
}

impl WebhookDelivery {
    /// Returns a delivery that is not queued yet: without a number, and without an id.
    pub(super) fn new(webhook: WebhookId, kind: &str, event: Option<String>, body: String) -> Self {
        Self {
            number: 0,
            id: String::new(),
            webhook,
            kind: kind.to_owned(),
            event,
            state: DeliveryState::Pending,
            attempts: 0,
            wrong_signatures: 0,
            status: None,
            error: None,
            body,
        }
    }

    /// Records the result of an attempt. The delivery fails with the last of `most` attempts.
    pub(super) fn finish(&mut self, result: Result<u16, String>, most: u32) {
        self.attempts += 1;
        let (status, error) = match result {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        (self.status, self.error) = (status, error);
        if self.state != DeliveryState::Pending {
            return;
        }
        if status.is_some_and(|status| (200..300).contains(&status)) {
            self.state = DeliveryState::Delivered;
        } else if self.attempts >= most {
            self.state = DeliveryState::Failed;
        }
    }

    /// Cancels the delivery if it is pending.
    pub(super) fn cancel(&mut self) {
        if self.state == DeliveryState::Pending {
            self.state = DeliveryState::Canceled;
        }
    }
}
