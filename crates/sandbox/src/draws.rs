//! The random numbers by which the readings decide about a request.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::random;
use crate::readings::Readings;

/// The random numbers of one request. Each [`Draw`] has its own numbers, so that a reading does not
/// change the numbers of another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    seed: u64,
    pub(crate) request: u64,
}

/// The purpose of a random number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Draw {
    Lag = 1,
    Total,
    Ties,
    Repeated,
    EventTies,
}

impl Draws {
    /// Returns the random numbers of the request with this number.
    pub(crate) fn new(seed: u64, request: u64) -> Self {
        Self { seed, request }
    }

    /// Whether this read uses the copy that lags.
    pub(crate) fn is_lagging(self, readings: &Readings) -> bool {
        self.of(Draw::Lag, self.request, 0).random_range(0..100) < readings.lag_percent
    }

    /// Returns the generator for one purpose.
    pub(crate) fn of(self, draw: Draw, which: u64, second: u64) -> ChaCha8Rng {
        random::seeded([self.seed, draw as u64, which, second])
    }
}
