//! When a failed request is sent again within its pass, and when a failed pass is repeated.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// TRIES controls how often one request is tried within a pass.
pub const TRIES: usize = 10;

/// Returns the waits between this number of tries: 100 ms, doubling to 5 s. `jitter` returns
/// numbers from 0 to 1 and changes each wait by up to a fifth. So many daemons do not send at the
/// same time.
pub fn waits(tries: usize, mut jitter: impl FnMut() -> f64) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_factor(2.0)
        .with_max_times(TRIES)
        .build()
        .take(tries.saturating_sub(1))
        .map(move |wait| wait.mul_f64(0.8 + 0.4 * jitter()))
}

/// Returns the wait after this number of failed passes in a row: 5 s, doubling to 15 minutes.
/// `jitter` from 0 to 1 changes it by up to a fifth.
pub fn pass_wait(failures: u32, jitter: f64) -> Duration {
    let doubled = 5_u64.saturating_mul(1 << failures.saturating_sub(1).min(20));
    Duration::from_secs(doubled.min(15 * 60)).mul_f64(0.8 + 0.4 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_double_their_waits_to_five_seconds() {
        let millis: Vec<u128> = waits(TRIES, || 0.5).map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn failed_pass_waits_longer_with_each_failure() {
        let waits: Vec<u64> = [1, 2, 3, 8, 9, 100].map(|n| pass_wait(n, 0.5).as_secs()).into();
        assert_eq!(waits, [5, 10, 20, 640, 900, 900]);
        assert_eq!(pass_wait(1, 1.0), Duration::from_secs(6));
    }

    #[test]
    fn jitter_spreads_each_wait_by_a_fifth() {
        assert_eq!(waits(2, || 0.0).next(), Some(Duration::from_millis(80)));
        assert_eq!(waits(2, || 1.0).next(), Some(Duration::from_millis(120)));
        assert_eq!(waits(1, || 1.0).next(), None, "one try is not repeated");
    }
}
