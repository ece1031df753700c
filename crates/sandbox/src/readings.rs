//! One switch for each thing about KOMOJU's API that is not known.
//!
//! The daemon must work under every reading, so each can be played here. The defaults are the likeliest guesses. What is
//! documented is no switch.

use std::num::{NonZeroU32, NonZeroU64};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::random::pick;

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

impl Readings {
    /// Draws a combination of everything that is not known about reads: `order`, `past_end`, `total`, `last_page`,
    /// `filtered_every`, `ties`, `repeated`, the lags (each at most `lag_most_s`), `lag_percent`, `deleted`,
    /// `deleted_listed`, `list_times` and `seed`. All else is at its default, `rate_limit` too.
    ///
    /// Each of them is exact in about half of the draws, so that few and many imprecisions meet each other. The same
    /// state of `rng` draws the same readings.
    pub fn random_list(rng: &mut impl Rng, lag_most_s: u64) -> Self {
        let mut drawn = Self { seed: rng.random(), ..Self::default() };
        drawn.order = pick(rng, &[Order::NewestFirst, Order::OldestFirst, Order::ById]);
        drawn.past_end = pick(rng, &[PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage]);
        drawn.list_times =
            pick(rng, &[ListTimes::Echoed, ListTimes::Absent, ListTimes::Null, ListTimes::Filled]);
        if rng.random() {
            drawn.total = match rng.random_range(0..5) {
                0 => Total::Off(rng.random_range(1..=5)),
                1 => Total::Off(-rng.random_range(1..=5)),
                2 => Total::Random(5),
                3 => Total::Missing,
                _ => Total::Text,
            };
        }
        if rng.random() {
            drawn.last_page = match rng.random_range(0..5) {
                0 => LastPage::Divisor(NonZeroU64::MIN.saturating_add(rng.random_range(0..100))),
                1 => LastPage::Floor,
                2 => LastPage::Missing,
                3 => LastPage::Null,
                _ => LastPage::Zero,
            };
        }
        if rng.random() {
            drawn.filtered_every = Some(NonZeroU32::MIN.saturating_add(rng.random_range(1..50)));
        }
        if rng.random() {
            drawn.ties = Ties::Unstable;
        }
        if rng.random() {
            drawn.repeated = pick(rng, &[Repeated::Added, Repeated::Displacing]);
        }
        if rng.random() {
            drawn.list_lag_s = rng.random_range(0..=lag_most_s);
        }
        if rng.random() {
            drawn.show_lag_s = rng.random_range(0..=lag_most_s);
        }
        if rng.random() {
            drawn.lag_percent = rng.random_range(1..100);
        }
        if rng.random() {
            drawn.deleted = pick(rng, &[Deleted::OtherCode, Deleted::Gone, Deleted::Flagged]);
        }
        if rng.random() {
            drawn.deleted_listed = DeletedListed::Flagged;
        }
        drawn
    }
}

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
    fn random_readings_repeat_by_seed_and_reach_every_value() {
        use rand::SeedableRng;
        use rand::rngs::StdRng;

        let draw = |seed| Readings::random_list(&mut StdRng::seed_from_u64(seed), 59);
        assert_eq!(draw(7), draw(7));
        let drawn: Vec<Readings> = (0..500).map(draw).collect();
        let fields = serde_json::to_value(&drawn).unwrap();
        let values = |field: &str| {
            let texts = fields.as_array().unwrap().iter().map(|readings| match &readings[field] {
                serde_json::Value::Object(object) => object.keys().next().unwrap().clone(),
                value => value.to_string(),
            });
            texts.collect::<std::collections::BTreeSet<_>>().len()
        };
        for (field, count) in [
            ("order", 3),
            ("past_end", 3),
            ("list_times", 4),
            ("total", 5),
            ("last_page", 6),
            ("ties", 2),
            ("repeated", 3),
            ("deleted", 4),
            ("deleted_listed", 2),
            ("rate_limit", 1),
            ("events", 1),
        ] {
            assert_eq!(values(field), count, "{field}");
        }
        for field in ["filtered_every", "list_lag_s", "show_lag_s", "lag_percent", "seed"] {
            assert!(values(field) > 20, "{field}");
        }
        assert!(drawn.iter().all(|readings| readings.list_lag_s.max(readings.show_lag_s) <= 59));
        let at_most_2 = drawn.iter().any(|readings| readings.filtered_every.is_some_and(|k| k.get() < 2));
        assert!(!at_most_2, "a list that leaves out everything is none");
    }

    #[test]
    fn an_unknown_reading_is_refused_by_name() {
        let error = serde_json::from_str::<Readings>(r#"{"ordre": "by_id"}"#).unwrap_err();
        assert!(error.to_string().contains("ordre"), "{error}");
    }
}
