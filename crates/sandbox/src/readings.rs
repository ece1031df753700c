//! The readings: one switch for each behaviour that KOMOJU does not document.
//!
//! The daemon must work under every reading. The defaults are the most likely ones. Documented
//! behaviour has no switch.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

mod draw;
mod values;

pub use values::*;

/// The behaviour of a sandbox where KOMOJU's documentation is silent. In JSON, names and values are
/// in `snake_case`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Readings {
    /// The order of the customer list.
    pub order: Order,
    /// The most customers of a page.
    pub per_page_max: u64,
    /// The answer to a request for a larger page.
    pub per_page_over: PerPageOver,
    /// Whether lists show `source`.
    pub list_source: Source,
    /// Whether show shows `source`. The answers to create and update always do.
    pub show_source: Source,
    /// The effect of PATCH on metadata keys that it does not name.
    pub metadata: Metadata,
    /// The effect of PATCH with `"email": null`.
    pub null_email: NullEmail,
    /// Whether a create needs `payment_details`.
    pub payment_details: PaymentDetails,
    /// Whether an answer from 500 on is stored under its idempotency key.
    pub server_errors: ServerErrors,
    /// The answer to a page past the end.
    pub past_end: PastEnd,
    /// Whether a customer created at `start_time` is listed.
    pub start_time: Edge,
    /// Whether a customer created at `end_time` is listed.
    pub end_time: Edge,
    /// Which events are kept for the list of events.
    pub events: Events,
    /// The answer to requests for events.
    pub event_answers: EventAnswers,
    /// How many milliseconds after its change an event appears in the list, by the sandbox's
    /// clock. Webhooks do not wait for it.
    pub event_lag_ms: u64,
    /// The `created_at` of an event that lags.
    pub event_time: EventTime,
    /// The percentage of events that the list never shows. Webhooks deliver them.
    pub event_loss_percent: u8,
    /// The percentage of events that the list shows twice, with the same id.
    pub event_duplicate_percent: u8,
    /// By how many seconds the place of an event in the list differs from its `created_at` at most,
    /// earlier or later.
    pub event_disorder_s: u64,
    /// The order of events that were created within the same second.
    pub event_ties: Ties,
    /// After how many seconds an event is no longer listed; never by default.
    pub event_retention_s: Option<u64>,
    /// The `data` of customers' events, in the list and in webhooks.
    pub event_data: EventData,
    /// The percentage of customers' events that are followed by an event of a payment.
    pub event_other_percent: u8,
    /// Whether an event created at `start_time` is listed.
    pub event_start_time: Edge,
    /// Whether an event created at `end_time` is listed.
    pub event_end_time: Edge,
    /// The answer to a delete.
    pub delete: Delete,
    /// The most metadata keys of a customer; no limit by default.
    pub metadata_keys_max: Option<usize>,
    /// Whether customers have a `locale`.
    pub locale: Locale,
    /// The `resource` of the list's envelope.
    pub envelope: Envelope,
    /// `start_time` and `end_time` of an envelope.
    pub list_times: ListTimes,
    /// `total` of the customer list.
    pub total: Total,
    /// `last_page` of the customer list.
    pub last_page: LastPage,
    /// Leaves customers 0, k, 2k, … (numbered in order of creation) out of each page after paging.
    /// The page is short, `total` counts them, and show answers them.
    pub filtered_every: Option<NonZeroU32>,
    /// The order of customers that were created within the same second.
    pub ties: Ties,
    /// Whether each page shows one customer twice.
    pub repeated: Repeated,
    /// By how many seconds lists of customers lag, by the sandbox's clock. They never show a state
    /// from before this was set. Writes, their answers and events do not lag.
    pub list_lag_s: u64,
    /// By how many seconds show lags.
    pub show_lag_s: u64,
    /// The percentage of reads that lag. The others show the newest state, as with two replicas.
    pub lag_percent: u8,
    /// The answer to show for a deleted customer.
    pub deleted: Deleted,
    /// Whether the list contains deleted customers.
    pub deleted_listed: DeletedListed,
    /// The limit of requests a second; no limit by default.
    pub rate_limit: Option<RateLimit>,
    /// How many milliseconds after its event a delivery of a webhook is sent. This and the other
    /// times of webhooks are real time, not the sandbox's clock.
    pub webhook_delay_ms: u64,
    /// The most milliseconds by which a delivery is sent later still. Each delivery has its own, so
    /// that later events overtake earlier ones.
    pub webhook_disorder_ms: u64,
    /// The percentage of deliveries that are never sent.
    pub webhook_drop_percent: u8,
    /// The percentage of events that are delivered twice.
    pub webhook_duplicate_percent: u8,
    /// The percentage of attempts whose signature is wrong.
    pub webhook_wrong_signature_percent: u8,
    /// How many milliseconds a receiver may take for its answer.
    pub webhook_timeout_ms: u64,
    /// The pause before the second attempt of a delivery, in milliseconds. It doubles for each
    /// further attempt, up to an hour.
    pub webhook_retry_ms: u64,
    /// The most attempts of a delivery. Another attempt follows one that is not answered with 2xx.
    pub webhook_attempts: u32,
    /// The seed of random totals, ties, repeated rows and lagging reads. What is random about
    /// events and webhooks depends on the seed of their account.
    pub seed: u64,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            order: Order::NewestFirst,
            per_page_max: 100,
            per_page_over: PerPageOver::Clamped,
            list_source: Source::Shown,
            show_source: Source::Shown,
            metadata: Metadata::Merged,
            null_email: NullEmail::Clears,
            payment_details: PaymentDetails::Optional,
            server_errors: ServerErrors::Forgotten,
            past_end: PastEnd::Empty,
            start_time: Edge::Inclusive,
            end_time: Edge::Inclusive,
            events: Events::Kept,
            event_answers: EventAnswers::Events,
            event_lag_ms: 0,
            event_time: EventTime::Change,
            event_loss_percent: 0,
            event_duplicate_percent: 0,
            event_disorder_s: 0,
            event_ties: Ties::Stable,
            event_retention_s: None,
            event_data: EventData::Customer,
            event_other_percent: 0,
            event_start_time: Edge::Inclusive,
            event_end_time: Edge::Inclusive,
            delete: Delete::Customer,
            metadata_keys_max: None,
            locale: Locale::Shown,
            envelope: Envelope::CustomerList,
            list_times: ListTimes::Echoed,
            total: Total::Exact,
            last_page: LastPage::Exact,
            filtered_every: None,
            ties: Ties::Stable,
            repeated: Repeated::Never,
            list_lag_s: 0,
            show_lag_s: 0,
            lag_percent: 100,
            deleted: Deleted::NotFound,
            deleted_listed: DeletedListed::Never,
            rate_limit: None,
            webhook_delay_ms: 0,
            webhook_disorder_ms: 0,
            webhook_drop_percent: 0,
            webhook_duplicate_percent: 0,
            webhook_wrong_signature_percent: 0,
            webhook_timeout_ms: 10_000,
            webhook_retry_ms: 1000,
            webhook_attempts: 25,
            seed: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_reading_has_its_default() {
        let readings: Readings =
            serde_json::from_str(r#"{"order": "by_id", "past_end": "not_found"}"#).unwrap();
        assert_eq!(readings.order, Order::ById);
        assert_eq!(readings.past_end, PastEnd::NotFound);
        assert_eq!(readings.per_page_max, 100);
    }

    #[test]
    fn readings_with_numbers_read_back_from_json() {
        let text = r#"{"total": {"off": -3}, "last_page": {"divisor": 25}, "filtered_every": 7, "deleted": "gone",
            "rate_limit": {"per_second": 2, "refused": "html_403", "ban_s": 5}}"#;
        let readings: Readings = serde_json::from_str(text).unwrap();
        assert_eq!(readings.total, Total::Off(-3));
        assert_eq!(readings.last_page, LastPage::Divisor(25.try_into().unwrap()));
        let limit = readings.rate_limit.unwrap();
        assert_eq!((limit.refused, limit.retry_after, limit.ban_s), (Refused::Html403, false, 5));
        let written = serde_json::to_string(&readings).unwrap();
        assert_eq!(serde_json::from_str::<Readings>(&written).unwrap(), readings);
        for zero in [r#"{"filtered_every": 0}"#, r#"{"last_page": {"divisor": 0}}"#] {
            assert!(serde_json::from_str::<Readings>(zero).is_err(), "{zero}");
        }
    }

    #[test]
    fn unknown_reading_is_refused_by_name() {
        let error = serde_json::from_str::<Readings>(r#"{"ordre": "by_id"}"#).unwrap_err();
        assert!(error.to_string().contains("ordre"), "{error}");
    }
}
