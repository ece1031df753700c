//! One switch for each thing about KOMOJU's API that is not known.
//!
//! The daemon must work under every reading, so each can be played here. The defaults are the likeliest guesses. What is
//! documented is no switch.

use serde::{Deserialize, Serialize};

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
        }
    }
}

macro_rules! reading {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }
    };
}

reading! {
    /// How the customer list is sorted.
    Order {
        /// By `created_at`, the newest first.
        NewestFirst,
        /// By `created_at`, the oldest first.
        OldestFirst,
        /// By id.
        ById,
    }
}

reading! {
    /// What becomes of a request for more customers a page than the maximum.
    PerPageOver {
        /// It is answered with the maximum.
        Clamped,
        /// It is refused with 422.
        Refused,
    }
}

reading! {
    /// Whether an answer reveals the saved payment details.
    Source {
        /// As it is.
        Shown,
        /// Always null.
        Hidden,
    }
}

reading! {
    /// What PATCH does with the metadata it does not name.
    Metadata {
        /// Keys that are not named stay.
        Merged,
        /// The new object takes the place of the old.
        Replaced,
    }
}

reading! {
    /// What PATCH does with `"email": null`.
    NullEmail {
        /// The customer has no email afterwards.
        Clears,
        /// As if it were absent.
        Ignored,
        /// 422.
        Refused,
    }
}

reading! {
    /// Whether a create needs `payment_details`.
    PaymentDetails {
        /// It may be left out.
        Optional,
        /// Without it: 422 `missing_parameter`.
        Required,
    }
}

reading! {
    /// Whether an answer of 500 and above is kept under its idempotency key.
    ServerErrors {
        /// A retry does the work again.
        Forgotten,
        /// A retry gets the same error for a day.
        Stored,
    }
}

reading! {
    /// What a page past the end answers.
    PastEnd {
        /// 200 with no data.
        Empty,
        /// 404.
        NotFound,
        /// 200 with the last page, which also says so in `page`.
        LastPage,
    }
}

reading! {
    /// Whether a bound of time is part of its range.
    Edge {
        /// It is.
        Inclusive,
        /// It is not.
        Exclusive,
    }
}

reading! {
    /// Whether events are kept.
    Events {
        /// Every change is recorded.
        Kept,
        /// The list of events stays empty.
        Dropped,
    }
}

reading! {
    /// What delete answers.
    Delete {
        /// 200 with the deleted customer.
        Customer,
        /// 204 without a body.
        NoContent,
    }
}

reading! {
    /// Whether customers show their `locale`.
    Locale {
        /// Always, where they have one.
        Shown,
        /// Never, as with the older API.
        Hidden,
        /// Where `X-KOMOJU-API-VERSION` is 2025-01-28 or later.
        ByVersion,
    }
}

reading! {
    /// What the list's envelope calls itself in `resource`.
    Envelope {
        /// `customer_list`, as the SDKs say.
        CustomerList,
        /// `list`, as the older documents say.
        List,
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
    fn an_unknown_reading_is_refused_by_name() {
        let error = serde_json::from_str::<Readings>(r#"{"ordre": "by_id"}"#).unwrap_err();
        assert!(error.to_string().contains("ordre"), "{error}");
    }
}
