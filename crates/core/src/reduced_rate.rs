//! The request rate that the API accepted, if it is below the configured one. It is kept across
//! restarts and shown in the status.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::time;

/// FORGET_AFTER controls how long after the last refusal the rate is forgotten. A limit that still
/// holds is found again after a few refusals. A limit that was lifted should not slow requests for
/// longer.
pub const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The reduced rate, and the refusals that caused it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReducedRate {
    /// The current rate in requests per second.
    pub requests_per_second: f64,
    /// The rate at the first refusal of the last series of refusals.
    pub refused_at: f64,
    /// The number of refusals in that series, without an answer between them.
    pub in_a_row: u32,
    /// When the reduction began.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// When the last refusal arrived.
    #[serde(with = "moment")]
    pub last_refusal: Timestamp,
    /// How many of the last `answers` answers were refusals.
    pub refused: u32,
    /// How many answers `refused` refers to; at most 20.
    pub answers: u32,
}

/// Serializes times in the format of [`time`].
mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::time;

    pub(super) fn serialize<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time::written(*moment))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        time::read(&text).ok_or_else(|| de::Error::custom("no time"))
    }
}

impl ReducedRate {
    /// Returns the stored form.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses the stored form. Returns `None` for another form, an invalid rate, or a rate that is
    /// to be forgotten.
    pub fn from_text(text: &str, now: Timestamp) -> Option<Self> {
        let slowed: Self = serde_json::from_str(text).ok()?;
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        let holds = is_rate(slowed.requests_per_second) && is_rate(slowed.refused_at);
        (holds && slowed.age(now) < FORGET_AFTER).then_some(slowed)
    }

    /// Returns the time since the last refusal. A refusal in the future was dated by a clock that
    /// was set back since; its age is zero.
    pub fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.last_refusal).max(SignedDuration::ZERO)
    }
}

impl fmt::Display for ReducedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests_per_second, refused, answers, .. } = self;
        let verb = if *refused == 1 { "was" } else { "were" };
        write!(
            f,
            "slowed to {requests_per_second:.2} requests/s since {}: {refused} of the last {answers} {verb} refused",
            time::written(self.since)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowed() -> ReducedRate {
        ReducedRate {
            requests_per_second: 1.9375,
            refused_at: 2.05,
            in_a_row: 1,
            since: "2026-01-31T16:40:00Z".parse().unwrap(),
            last_refusal: "2026-01-31T17:00:00Z".parse().unwrap(),
            refused: 3,
            answers: 20,
        }
    }

    #[test]
    fn stored_form_is_parsed_until_it_is_forgotten() {
        let now = |text: &str| -> Timestamp { text.parse().unwrap() };
        let text = slowed().to_text();
        for (at, holds) in [
            ("2026-01-31T17:00:00Z", true),
            ("2026-01-31T17:59:59Z", true),
            ("2026-01-31T18:00:00Z", false),
            ("2025-01-31T17:00:00Z", true),
        ] {
            assert_eq!(ReducedRate::from_text(&text, now(at)), Some(slowed()).filter(|_| holds), "{at}");
        }
        let now = now("2026-01-31T17:00:00Z");
        for other in [
            "",
            "null",
            "{}",
            &text.replace("1.9375", "0.0"),
            &text.replace("1.9375", "-1"),
            &text.replace("2.05", "1e999"),
        ] {
            assert_eq!(ReducedRate::from_text(other, now), None, "{other}");
        }
    }

    #[test]
    fn sentence_has_rate_begin_and_share_of_refusals() {
        assert_eq!(
            slowed().to_string(),
            "slowed to 1.94 requests/s since 2026-01-31T16:40:00.000Z: 3 of the last 20 were refused"
        );
        let one = ReducedRate { refused: 1, answers: 7, ..slowed() };
        assert!(one.to_string().ends_with(": 1 of the last 7 was refused"));
    }
}
