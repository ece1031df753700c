//! The timer of `park_after_h`: how long an intent has been attempted.
//!
//! The daemon cannot undo parking, so a temporarily wrong wall clock must not cause it. Within one
//! boot only that boot's clock gives the age, and it corrects the stored wall time. Across boots
//! the wall clock gives the age, once it is confirmed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When an intent's timer started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkTimer {
    /// The start by the wall clock.
    pub from: Timestamp,
    /// The start by a boot's clock: the id of the boot and the milliseconds since that boot began.
    /// Negative is before the boot.
    pub boot: Option<(String, i64)>,
}

/// The current time by all clocks.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// The id of the boot, and the time since that boot began.
    pub boot: Option<(String, Duration)>,
    /// Whether the wall clock is confirmed.
    pub is_confirmed: bool,
}

impl Moment {
    fn boot_ms(&self) -> Option<(&String, i64)> {
        self.boot.as_ref().map(|(boot, up)| (boot, i64::try_from(up.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl ParkTimer {
    /// A timer that starts now.
    pub fn start(now: &Moment) -> Self {
        Self { from: now.wall, boot: now.boot_ms().map(|(boot, ms)| (boot.clone(), ms)) }
    }

    /// Returns the timer as it is stored now. This boot's clock corrects the wall time. Once the
    /// wall clock is confirmed, the timer counts in this boot. A start in the future counts as now.
    #[must_use]
    pub fn refreshed(self, now: &Moment) -> Self {
        let age = match self.age_in_this_boot(now) {
            Some(age) => age,
            None if now.is_confirmed => now.wall.duration_since(self.from),
            None => return self,
        };
        if age.is_negative() {
            return Self::start(now);
        }
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Self {
            from: now.wall.checked_sub(age).unwrap_or(Timestamp::MIN),
            boot: now.boot_ms().map(|(boot, ms)| (boot.clone(), ms.saturating_sub(age_ms))),
        }
    }

    /// Whether the timer has run for `after`.
    pub fn is_expired(&self, now: &Moment, after: SignedDuration) -> bool {
        match self.age_in_this_boot(now) {
            Some(age) => age >= after,
            None => now.is_confirmed && now.wall.duration_since(self.from) >= after,
        }
    }

    fn age_in_this_boot(&self, now: &Moment) -> Option<SignedDuration> {
        let ((boot, began), (this, up)) = (self.boot.as_ref()?, now.boot_ms()?);
        (boot == this).then(|| SignedDuration::from_millis(up.saturating_sub(*began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: SignedDuration = SignedDuration::from_hours(72);
    const YEAR: i64 = 365 * 24;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// The time `wall_h` hours after the start by the wall clock, in a boot that began `up_h` hours
    /// ago.
    fn moment(wall_h: i64, boot: &str, up_h: u64, is_confirmed: bool) -> Moment {
        Moment {
            wall: start() + SignedDuration::from_hours(wall_h),
            boot: Some((boot.to_owned(), Duration::from_secs(up_h * 3600))),
            is_confirmed,
        }
    }

    #[test]
    fn boot_clock_alone_counts_within_a_boot() {
        let park_timer = ParkTimer::start(&moment(0, "a", 10, false));
        for wall in [0, YEAR, -YEAR] {
            for is_confirmed in [false, true] {
                assert!(!park_timer.is_expired(&moment(wall, "a", 81, is_confirmed), AFTER), "{wall}");
                assert!(park_timer.is_expired(&moment(wall, "a", 82, is_confirmed), AFTER), "{wall}");
            }
        }
    }

    #[test]
    fn start_by_a_wrong_clock_is_corrected_in_the_boot_and_correct_after_it() {
        for wrong in [-YEAR, YEAR] {
            let park_timer = ParkTimer::start(&moment(wrong, "a", 1, false));
            let corrected = park_timer.refreshed(&moment(5, "a", 6, true));
            assert_eq!(corrected.from, start(), "five hours before now");
            assert!(!corrected.is_expired(&moment(71, "b", 0, true), AFTER));
            assert!(corrected.is_expired(&moment(72, "b", 0, true), AFTER));
        }
    }

    #[test]
    fn unconfirmed_wall_clock_after_a_reboot_expires_no_timer() {
        let park_timer = ParkTimer::start(&moment(0, "a", 1, true));
        assert!(!park_timer.is_expired(&moment(YEAR, "b", 0, false), AFTER));
        assert_eq!(park_timer.clone().refreshed(&moment(YEAR, "b", 0, false)), park_timer);
        assert!(park_timer.is_expired(&moment(72, "b", 0, true), AFTER));
    }

    #[test]
    fn timer_counts_in_the_new_boot_once_the_clock_is_confirmed() {
        let park_timer = ParkTimer::start(&moment(0, "a", 1, true)).refreshed(&moment(60, "b", 2, true));
        assert_eq!(park_timer.boot, Some(("b".to_owned(), -58 * 3_600_000)));
        assert!(!park_timer.is_expired(&moment(YEAR, "b", 13, true), AFTER));
        assert!(park_timer.is_expired(&moment(60, "b", 14, false), AFTER));
    }

    #[test]
    fn start_in_the_future_counts_as_now() {
        let now = moment(0, "b", 3, true);
        assert_eq!(ParkTimer::start(&moment(YEAR, "a", 1, false)).refreshed(&now), ParkTimer::start(&now));
        // A wrong clock shifted it by the time under a refused key.
        let shifted = ParkTimer { from: start(), boot: Some(("b".to_owned(), i64::MAX)) };
        assert_eq!(shifted.refreshed(&now), ParkTimer::start(&now));
    }

    #[test]
    fn confirmed_wall_clock_counts_without_a_boot_clock() {
        let now = |hours, is_confirmed| Moment { boot: None, ..moment(hours, "a", 0, is_confirmed) };
        let park_timer = ParkTimer::start(&now(0, true));
        assert!(!park_timer.is_expired(&now(72, false), AFTER));
        assert!(park_timer.is_expired(&now(72, true), AFTER));
    }
}
