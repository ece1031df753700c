//! Owns the readings: one switch for each thing that KOMOJU does not document.
//!
//! The daemon must work under every reading, so each can be played here. The defaults are the
//! likeliest guesses. What is documented is not a switch.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

mod draw;
mod values;

pub use values::*;

/// How this sandbox reads what KOMOJU does not say. In JSON, names and values are in `snake_case`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Readings {
    /// How the customer list is sorted.
    pub order: Order,
    /// The largest page, in customers.
    pub per_page_max: u64,
    /// What becomes of a request for a larger page.
    pub per_page_over: PerPageOver,
    /// Whether lists reveal `source`.
    pub list_source: Source,
    /// Whether show reveals `source`. The answers to create and update always do.
    pub show_source: Source,
    /// What PATCH does with the metadata it does not name.
    pub metadata: Metadata,
    /// What PATCH does with `"email": null`.
    pub null_email: NullEmail,
    /// Whether a create needs `payment_details`.
    pub payment_details: PaymentDetails,
    /// Whether an answer of 500 and above is kept under its idempotency key.
    pub server_errors: ServerErrors,
    /// What a page past the end answers.
    pub past_end: PastEnd,
    /// Whether a customer created at `start_time` is listed.
    pub start_time: Edge,
    /// Whether a customer created at `end_time` is listed.
    pub end_time: Edge,
    /// Whether events are kept when no webhook subscribes to them.
    pub events: Events,
    /// What delete answers.
    pub delete: Delete,
    /// The most metadata keys of a customer; none by default.
    pub metadata_keys_max: Option<usize>,
    /// Whether customers show their `locale`.
    pub locale: Locale,
    /// What the list's envelope calls itself.
    pub envelope: Envelope,
    /// What `start_time` and `end_time` of an envelope say.
    pub list_times: ListTimes,
    /// What `total` of the customer list says.
    pub total: Total,
    /// What `last_page` of the customer list says.
    pub last_page: LastPage,
    /// Leaves customers 0, k, 2k, … (numbered in order of creation) out of each page after paging. The page is short,
    /// `total` counts them, and show answers them.
    pub filtered_every: Option<NonZeroU32>,
    /// The order of customers of the same second.
    pub ties: Ties,
    /// Whether each page of customers has one of them twice.
    pub repeated: Repeated,
    /// How many seconds the state is old from which lists of customers are answered, by the sandbox's clock. The state
    /// is never older than the moment this was set. Writes, their answers and events are not behind.
    pub list_lag_s: u64,
    /// The same for show.
    pub show_lag_s: u64,
    /// How many of a hundred reads meet the state that is behind; the others meet the newest, as with two replicas.
    pub lag_percent: u8,
    /// What show answers for a deleted customer.
    pub deleted: Deleted,
    /// Whether deleted customers stay in the list.
    pub deleted_listed: DeletedListed,
    /// How many requests a second are accepted; all by default.
    pub rate_limit: Option<RateLimit>,
    /// Seeds what is drawn at random: another seed, other totals, ties, repeated rows and reads that are behind.
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
            seed: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_named_in_snake_case_and_default_where_absent() {
        let readings: Readings =
            serde_json::from_str(r#"{"order": "by_id", "past_end": "not_found"}"#).unwrap();
        assert_eq!(readings.order, Order::ById);
        assert_eq!(readings.past_end, PastEnd::NotFound);
        assert_eq!(readings.per_page_max, 100);
    }

    #[test]
    fn readings_with_numbers_are_read_and_written_alike() {
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
    fn an_unknown_reading_is_refused_by_name() {
        let error = serde_json::from_str::<Readings>(r#"{"ordre": "by_id"}"#).unwrap_err();
        assert!(error.to_string().contains("ordre"), "{error}");
    }
}
