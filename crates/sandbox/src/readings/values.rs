//! The values of each reading.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// `total` of the customer list. In JSON `"exact"`, `{"off": -3}`, `{"random": 5}`, `"missing"` or
/// `"text"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Total {
    /// The number of customers.
    Exact,
    /// The number with this difference; never less than 0.
    Off(i64),
    /// Another number for each request, at most this percentage too high or too low.
    Random(u32),
    /// No `total`.
    Missing,
    /// The number as a string.
    Text,
}

/// `last_page` of the customer list. In JSON `"exact"`, `{"divisor": 25}`, `"floor"`, `"missing"`,
/// `"null"` or `"zero"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastPage {
    /// The number of the last page with customers.
    Exact,
    /// The number for pages of this size.
    Divisor(NonZeroU64),
    /// The number of full pages.
    Floor,
    /// No `last_page`.
    Missing,
    /// Null.
    Null,
    /// Always 0.
    Zero,
}

/// A limit of requests a second for all calls of the API. It counts by the sandbox's clock. With a
/// stopped clock, no more requests are accepted until the clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests are accepted within any second. Refused ones do not count.
    pub per_second: NonZeroU32,
    /// The answer to refused requests.
    #[serde(default)]
    pub refused: Refused,
    /// Whether a refusal has a `Retry-After` with the seconds until a request is accepted again.
    #[serde(default)]
    pub retry_after: bool,
    /// For how many seconds all requests are refused after a refusal. Each of them starts this time
    /// again.
    #[serde(default)]
    pub ban_s: u32,
}

/// The answer to a request over the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// 429 with an error of the API.
    #[default]
    #[serde(rename = "json_429")]
    Json429,
    /// 403 with a page of the firewall.
    #[serde(rename = "html_403")]
    Html403,
    /// 429 with a page of the firewall.
    #[serde(rename = "html_429")]
    Html429,
    /// 503 with a page of the firewall.
    #[serde(rename = "html_503")]
    Html503,
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
    /// The order of the customer list.
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
    /// The answer to a request for a page over the maximum.
    PerPageOver {
        /// A page of the maximum.
        Clamped,
        /// 422.
        Refused,
    }
}

reading! {
    /// Whether an answer shows the saved payment details.
    Source {
        /// `source` has the saved payment details.
        Shown,
        /// `source` is always null.
        Hidden,
    }
}

reading! {
    /// The effect of PATCH on metadata keys that it does not name.
    Metadata {
        /// The other keys are kept.
        Merged,
        /// The other keys are removed.
        Replaced,
    }
}

reading! {
    /// The effect of PATCH with `"email": null`.
    NullEmail {
        /// PATCH removes the email.
        Clears,
        /// PATCH leaves the email unchanged.
        Ignored,
        /// The answer is 422.
        Refused,
    }
}

reading! {
    /// Whether a create needs `payment_details`.
    PaymentDetails {
        /// A create without `payment_details` succeeds.
        Optional,
        /// The answer to a create without `payment_details` is 422 `missing_parameter`.
        Required,
    }
}

reading! {
    /// Whether an answer from 500 on is stored under its idempotency key.
    ServerErrors {
        /// A retry does the work again.
        Forgotten,
        /// A retry gets the same error for a day.
        Stored,
    }
}

reading! {
    /// The answer to a page past the end.
    PastEnd {
        /// 200 without customers.
        Empty,
        /// 404.
        NotFound,
        /// 200 with the last page, also in `page`.
        LastPage,
    }
}

reading! {
    /// Whether a bound of time is part of its range.
    Edge {
        /// A time that equals the bound is in the range.
        Inclusive,
        /// A time that equals the bound is outside the range.
        Exclusive,
    }
}

reading! {
    /// Which events are kept for the list of events.
    Events {
        /// All events are kept.
        Kept,
        /// An event is kept if a webhook subscribes to it when it happens.
        WithWebhook,
        /// No event is kept: the list of events is empty. Webhooks deliver the events.
        Dropped,
    }
}

/// The answer to requests for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventAnswers {
    /// The events.
    Events,
    /// 403 by the API.
    #[serde(rename = "json_403")]
    Json403,
    /// 404 by the API.
    #[serde(rename = "json_404")]
    Json404,
    /// 500 by the API.
    #[serde(rename = "json_500")]
    Json500,
    /// 200 with a web page.
    #[serde(rename = "html_200")]
    Html200,
    /// 403 with a page of the firewall.
    #[serde(rename = "html_403")]
    Html403,
    /// No answer until this reading changes. The connection stays open.
    Hang,
}

reading! {
    /// The `created_at` of an event that lags.
    EventTime {
        /// The time of its change, so that it appears behind events that were listed before it.
        Change,
        /// The time when it appears in the list.
        Appearance,
    }
}

reading! {
    /// The `data` of customers' events.
    EventData {
        /// The customer after the change, or before a delete.
        Customer,
        /// An object with only the customer's id.
        Id,
        /// `{}`.
        Empty,
        /// A customer with another email, the values of another customer under this id, or another
        /// customer.
        Wrong,
    }
}

reading! {
    /// The answer to a delete.
    Delete {
        /// 200 with the deleted customer.
        Customer,
        /// 204 without a body.
        NoContent,
    }
}

reading! {
    /// Whether answers contain the `locale` of customers.
    Locale {
        /// Always, for customers that have one.
        Shown,
        /// Never, as in the older API.
        Hidden,
        /// If `X-KOMOJU-API-VERSION` is 2025-01-28 or later.
        ByVersion,
    }
}

reading! {
    /// The `resource` of the list's envelope.
    Envelope {
        /// `customer_list`, as in the SDKs.
        CustomerList,
        /// `list`, as in the older documentation.
        List,
    }
}

reading! {
    /// `start_time` and `end_time` of an envelope.
    ListTimes {
        /// The requested ones, or null.
        Echoed,
        /// Both members are absent.
        Absent,
        /// Both members are null.
        Null,
        /// The requested ones, or 1970 and now.
        Filled,
    }
}

reading! {
    /// The order of customers that were created within the same second. The order of ids has no
    /// ties.
    Ties {
        /// The order is always the same.
        Stable,
        /// The order differs for each request, as without a second column in `ORDER BY`.
        Unstable,
    }
}

reading! {
    /// Whether each page shows one customer twice. Seed and page decide which one.
    Repeated {
        /// No customer is repeated.
        Never,
        /// The customer is repeated after itself, so the page is one longer.
        Added,
        /// The customer is repeated in place of the next one, which is missing.
        Displacing,
    }
}

reading! {
    /// The answer to show for a deleted customer. Updates and deletes are answered 404 `not_found`.
    Deleted {
        /// 404 `not_found`.
        NotFound,
        /// 404 `customer_deleted`.
        OtherCode,
        /// 410 `gone`.
        Gone,
        /// 200 with its last state and `"deleted": true`.
        Flagged,
    }
}

reading! {
    /// Whether the list contains deleted customers.
    DeletedListed {
        /// Deleted customers are not listed.
        Never,
        /// Deleted customers are listed with `"deleted": true`, and `total` counts them.
        Flagged,
    }
}
