//! Random combinations of readings.

use std::num::{NonZeroU32, NonZeroU64};

use rand::Rng;

use super::Readings;
use super::values::{
    Deleted, DeletedListed, Edge, EventAnswers, EventData, EventTime, Events, LastPage, ListTimes, Order,
    PastEnd, Repeated, Ties, Total,
};
use crate::random::pick;

impl Readings {
    /// Draws a combination of the readings about reads: `order`, `past_end`, `total`, `last_page`,
    /// `filtered_every`, `ties`, `repeated`, the lags (each at most `lag_most_s`), `lag_percent`,
    /// `deleted`, `deleted_listed`, `list_times` and `seed`. All other readings have their default,
    /// also `rate_limit`.
    ///
    /// Each of them is exact in about half of the draws, so that few and many imprecisions are
    /// combined. The same state of `rng` draws the same readings.
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

    /// Draws the readings about events and webhooks, and keeps the others. An event lags at most
    /// `lag_most_ms`, and a delivery is delayed at most twice `delay_most_ms` of real time.
    /// `EventAnswers::Hang` is never drawn, because no request would be answered.
    ///
    /// Each of them is exact in about half of the draws. The same state of `rng` draws the same
    /// readings.
    pub fn with_random_events(mut self, rng: &mut impl Rng, lag_most_ms: u64, delay_most_ms: u64) -> Self {
        let percent = |rng: &mut _| if Rng::random(rng) { Rng::random_range(rng, 1..60) } else { 0 };
        let number = |rng: &mut _, most| if Rng::random(rng) { Rng::random_range(rng, 0..=most) } else { 0 };
        if rng.random() {
            self.events = pick(rng, &[Events::WithWebhook, Events::Dropped]);
        }
        if rng.random_ratio(1, 4) {
            self.event_answers = pick(
                rng,
                &[
                    EventAnswers::Json403,
                    EventAnswers::Json404,
                    EventAnswers::Json500,
                    EventAnswers::Html200,
                    EventAnswers::Html403,
                ],
            );
        }
        self.event_lag_ms = number(rng, lag_most_ms);
        self.event_time = pick(rng, &[EventTime::Change, EventTime::Appearance]);
        self.event_loss_percent = percent(rng);
        self.event_duplicate_percent = percent(rng);
        self.event_disorder_s = number(rng, 10);
        self.event_ties = pick(rng, &[Ties::Stable, Ties::Unstable]);
        self.event_retention_s = rng.random::<bool>().then(|| rng.random_range(1..3600));
        if rng.random() {
            self.event_data = pick(rng, &[EventData::Id, EventData::Empty, EventData::Wrong]);
        }
        self.event_other_percent = percent(rng);
        self.event_start_time = pick(rng, &[Edge::Inclusive, Edge::Exclusive]);
        self.event_end_time = pick(rng, &[Edge::Inclusive, Edge::Exclusive]);
        self.webhook_delay_ms = number(rng, delay_most_ms);
        self.webhook_disorder_ms = number(rng, delay_most_ms);
        self.webhook_drop_percent = percent(rng);
        self.webhook_duplicate_percent = percent(rng);
        self.webhook_wrong_signature_percent = percent(rng);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!at_most_2, "a list that leaves out all customers is no list");
    }

    #[test]
    fn random_events_repeat_by_seed_reach_every_value_and_keep_the_rest() {
        use rand::SeedableRng;
        use rand::rngs::StdRng;

        let list = Readings { order: Order::ById, per_page_max: 7, ..Readings::default() };
        let draw = |seed| list.clone().with_random_events(&mut StdRng::seed_from_u64(seed), 900, 5);
        assert_eq!(draw(7), draw(7));
        let exact = serde_json::to_value(&list).unwrap();
        let drawn: Vec<_> = (0..500).map(|seed| serde_json::to_value(draw(seed)).unwrap()).collect();
        for (field, value) in exact.as_object().unwrap() {
            let values: std::collections::BTreeSet<String> =
                drawn.iter().map(|readings| readings[field].to_string()).collect();
            let is_drawn = field.starts_with("event") || field.starts_with("webhook");
            let is_fixed = ["webhook_timeout_ms", "webhook_retry_ms", "webhook_attempts"];
            let is_drawn = is_drawn && !is_fixed.contains(&field.as_str());
            assert_eq!(values.len() > 1, is_drawn, "{field}");
            assert!(values.contains(&value.to_string()), "{field} is never exact");
            let choices = [("events", 3), ("event_answers", 6), ("event_data", 4), ("event_time", 2)];
            for (_, count) in choices.into_iter().filter(|(choice, _)| choice == field) {
                assert_eq!(values.len(), count, "{field}");
            }
        }
        let most = |field: &str| drawn.iter().map(|readings| readings[field].as_u64().unwrap()).max();
        assert_eq!((most("event_lag_ms") <= Some(900), most("webhook_delay_ms")), (true, Some(5)));
    }
}
