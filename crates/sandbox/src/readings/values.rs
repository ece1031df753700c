//! Owns the values of each reading.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// What `total` of the customer list says. In JSON `"exact"`, `{"off": -3}`, `{"random": 5}`, `"missing"` or `"text"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Total {
    /// How many customers the list has.
    Exact,
    /// So many more, or fewer where negative; never less than 0.
    Off(i64),
    /// At each request another number, at most so many percent too high or too low.
    Random(u32),
    /// There is no `total`.
    Missing,
    /// The number as a string.
    Text,
}

/// What `last_page` of the customer list says. In JSON `"exact"`, `{"divisor": 25}`, `"floor"`, `"missing"`, `"null"` or
/// `"zero"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastPage {
    /// The number of the last page with customers.
    Exact,
    /// The same, but for pages of another size.
    Divisor(NonZeroU64),
    /// Rounded down: a last page that is not full is not counted.
    Floor,
    /// There is no `last_page`.
    Missing,
    /// Null.
    Null,
    /// Always 0.
    Zero,
}

/// A limit of requests a second, over all calls of the API. It counts by the sandbox's clock, so that with a clock that
/// stands still nothing more is accepted until the clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests are accepted within any second. Refused ones do not count.
    pub per_second: NonZeroU32,
    /// How the others are refused.
    #[serde(default)]
    pub refused: Refused,
    /// Whether a refusal says in `Retry-After` after how many seconds a request is accepted again.
    #[serde(default)]
    pub retry_after: bool,
    /// A refusal refuses everything for so many seconds, and each request during that time starts them again.
    #[serde(default)]
    pub ban_s: u32,
}

/// How a request over the limit is refused.
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

reading! {
    /// What `start_time` and `end_time` of an envelope say.
    ListTimes {
        /// What was asked for; null without it.
        Echoed,
        /// They are not there.
        Absent,
        /// Always null.
        Null,
        /// What was asked for; without it, 1970 and now.
        Filled,
    }
}

reading! {
    /// The order of customers of the same second. By id there are no ties.
    Ties {
        /// Always the same.
        Stable,
        /// Another one at each request, as without a second column in `ORDER BY`.
        Unstable,
    }
}

reading! {
    /// Whether each page of customers has one of them twice. Which one depends on the seed and the page's number.
    Repeated {
        /// It has not.
        Never,
        /// A customer follows itself; the page is one longer.
        Added,
        /// A customer follows itself in the place of the next one, which the page does not show.
        Displacing,
    }
}

reading! {
    /// What show answers for a customer that was deleted. Updates and deletes answer 404 `not_found`.
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
    /// Whether deleted customers stay in the list.
    DeletedListed {
        /// They do not.
        Never,
        /// They do, with `"deleted": true`, and `total` counts them.
        Flagged,
    }
}
