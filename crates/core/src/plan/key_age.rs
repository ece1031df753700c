//! How far an idempotency key prevents a duplicate customer, by its age.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::open_intent::OpenIntent;
use crate::park_timer::Moment;
use crate::time;

/// KEY_TRUSTED_FOR controls how long after its first attempt a create may be sent again under its
/// key. KOMOJU remembers a key for up to 24 hours.
pub const KEY_TRUSTED_FOR: SignedDuration = SignedDuration::from_hours(20);

/// How far the key of a create prevents a duplicate customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTrust {
    /// A second request under the key is the same create. The answer that was lost may have been a
    /// 5xx, and KOMOJU may or may not store that under the key. So the create is sent again only if
    /// its customer cannot be found.
    Full,
    /// The key is young, but an attempt was answered with a 5xx, or a tag can show the result. The
    /// create is sent again unless the customers since then contradict it.
    Doubtful,
    /// KOMOJU may have forgotten the key.
    Expired,
}

/// A create's first attempt, by several clocks.
#[derive(Clone, Copy, Debug)]
struct FirstAttempt {
    /// When the attempt began, by the wall clock.
    at: Timestamp,
    /// The wall clock now.
    now: Timestamp,
    /// The attempt's age by the server's clock.
    server: Option<SignedDuration>,
    /// The attempt's age by the boot clock, if the boot is the same.
    same_boot: Option<Duration>,
}

/// Returns how far the key of an unanswered create is trusted. `server_time` is the server's clock
/// now. Returns `None` if the key is young and no date of the first attempt is known by which its
/// customer could be found.
pub fn key_trust(open: &OpenIntent, now: &Moment, server_time: Option<Timestamp>) -> Option<KeyTrust> {
    let is_dated = open.frozen.first_server_at.is_some();
    if !is_young(first_attempt(open, now, server_time)) {
        Some(KeyTrust::Expired)
    } else if open.met_server_error || (open.frozen.tag.is_some() && is_dated) {
        Some(KeyTrust::Doubtful)
    } else {
        is_dated.then_some(KeyTrust::Full)
    }
}

fn first_attempt(open: &OpenIntent, now: &Moment, server_time: Option<Timestamp>) -> Option<FirstAttempt> {
    let frozen = &open.frozen;
    let read = |at: &Option<String>| at.as_deref().and_then(time::read);
    let same_boot = frozen.first_boot.as_ref().zip(now.boot.as_ref()).and_then(|((boot, ms), (this, up))| {
        let then = Duration::from_millis(u64::try_from(*ms).ok()?);
        (boot == this).then(|| up.saturating_sub(then))
    });
    let server = read(&frozen.first_server_at).zip(server_time).map(|(then, now)| now.duration_since(then));
    Some(FirstAttempt { at: read(&frozen.first_attempt_at)?, now: now.wall, server, same_boot })
}

/// Whether the key is younger than [`KEY_TRUSTED_FOR`], by the clock that shows the greatest age. A
/// wall clock before the first attempt is wrong. The age is then unknown, and the key counts as
/// old.
fn is_young(first: Option<FirstAttempt>) -> bool {
    let Some(first) = first else { return false };
    let ours = first.now.duration_since(first.at);
    let same_boot = first.same_boot.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
    let oldest = [Some(ours), first.server, same_boot].into_iter().flatten().max().unwrap_or(ours);
    !ours.is_negative() && oldest < KEY_TRUSTED_FOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::lifecycle::{IntentState, Lifecycle, OutcomeStatus};
    use crate::open_intent::FrozenRequest;

    #[test]
    fn key_is_young_for_twenty_hours_by_the_clock_with_the_greatest_age() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = |minutes: i64| at + SignedDuration::from_mins(minutes);
        let boot = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let cases = [
            (later(0), None, None, true),
            (later(19 * 60 + 59), None, None, true),
            (later(20 * 60), None, None, false),
            (later(20 * 60 + 1), None, None, false),
            (later(24 * 60 + 1), None, None, false),
            (later(-1), None, None, false),
            (later(1), Some(SignedDuration::from_mins(20 * 60 + 1)), None, false),
            (later(1), Some(SignedDuration::from_mins(-600)), None, true),
            (later(1), None, boot(20 * 60 + 1), false),
            (later(1), Some(SignedDuration::from_mins(1)), boot(19 * 60), true),
        ];
        for (now, server, same_boot, young) in cases {
            let first = FirstAttempt { at, now, server, same_boot };
            assert_eq!(is_young(Some(first)), young, "{first:?}");
        }
        assert!(!is_young(None), "an unreadable time");
    }

    #[test]
    fn age_by_the_boot_clock_counts_within_the_same_boot_only() {
        let open = |boot: &str| OpenIntent {
            position: 1,
            id: "i".to_owned(),
            intent: Err("not read here".to_owned()),
            life: Lifecycle { state: IntentState::Sending, outcome: OutcomeStatus::Unknown, attempts: 2 },
            customer: None,
            frozen: FrozenRequest {
                first_attempt_at: Some("2026-01-01T00:00:00.000Z".to_owned()),
                first_server_at: Some("2026-01-01T00:00:00.000Z".to_owned()),
                first_boot: Some((boot.to_owned(), 1000)),
                ..FrozenRequest::default()
            },
            park_timer: None,
            met_server_error: false,
            last_attempt_at: None,
        };
        let day = Duration::from_secs(24 * 3600);
        let now = Moment {
            wall: "2026-01-01T00:01:00Z".parse().unwrap(),
            boot: Some(("this".to_owned(), day)),
            is_confirmed: true,
        };
        let trust = |boot| key_trust(&open(boot), &now, Some(now.wall));
        assert_eq!(trust("this"), Some(KeyTrust::Expired), "the wall clock was set back");
        assert_eq!(trust("another"), Some(KeyTrust::Full));
    }
}
