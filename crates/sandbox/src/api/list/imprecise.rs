//! Owns inexact lists: which rows a page shows, and what its envelope says of the total.

use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::account::{State, View};
use crate::api::list::query::Window;
use crate::random;
use crate::readings::{LastPage, Order, Readings, Repeated, Ties, Total};

/// What one request draws at random. Each [`Draw`] has numbers of its own, so that one reading does not change what
/// another one draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    seed: u64,
    request: u64,
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Lag = 1,
    Total,
    Ties,
    Repeated,
}

impl Draws {
    /// `request` is the request's number.
    pub(crate) fn new(seed: u64, request: u64) -> Self {
        Self { seed, request }
    }

    /// Whether a read meets a state that is behind.
    pub(crate) fn is_lagging(self, readings: &Readings) -> bool {
        self.of(Draw::Lag, self.request, 0).random_range(0..100) < readings.lag_percent
    }

    fn of(self, draw: Draw, which: u64, second: u64) -> ChaCha8Rng {
        random::seeded([self.seed, draw as u64, which, second])
    }
}

/// The rows of a page.
pub(crate) fn rows(
    state: &State,
    view: &View,
    window: &Window,
    readings: &Readings,
    draws: Draws,
) -> Vec<u32> {
    let positions = window.positions.clone();
    let mut rows = match readings.ties {
        Ties::Unstable if readings.order != Order::ById => untied(state, view, positions, draws),
        Ties::Stable | Ties::Unstable => state.rows(view, positions),
    };
    if let Some(every) = readings.filtered_every {
        rows.retain(|&row| row % every != 0);
    }
    // By the page and not by the request: a list that shows a customer twice does so each time it is asked.
    let mut rng = draws.of(Draw::Repeated, window.page, 0);
    match readings.repeated {
        Repeated::Never => {}
        Repeated::Added => {
            if let Some(index) = some_index(&mut rng, rows.len()) {
                rows.insert(index, rows[index]);
            }
        }
        Repeated::Displacing => {
            if let Some(index) = some_index(&mut rng, rows.len().saturating_sub(1)) {
                rows[index + 1] = rows[index];
            }
        }
    }
    rows
}

/// What the envelope says in `total` and `last_page`.
pub(crate) fn envelope(
    envelope: &mut Map<String, Value>,
    window: &Window,
    readings: &Readings,
    draws: Draws,
) {
    let exact = window.total as u64;
    let total: Option<Value> = match readings.total {
        Total::Exact => Some(exact.into()),
        Total::Off(by) => Some(exact.saturating_add_signed(by).into()),
        Total::Random(percent) => {
            let most = exact.saturating_mul(percent.into()) / 100;
            let drawn = draws.of(Draw::Total, draws.request, 0).random_range(0..=most.saturating_mul(2));
            Some((exact + drawn).saturating_sub(most).into())
        }
        Total::Missing => None,
        Total::Text => Some(exact.to_string().into()),
    };
    let last_page: Option<Value> = match readings.last_page {
        LastPage::Exact => Some(window.last_page.into()),
        LastPage::Divisor(per_page) => Some(exact.div_ceil(per_page.get()).into()),
        LastPage::Floor => Some((exact / window.per_page).into()),
        LastPage::Missing => None,
        LastPage::Null => Some(Value::Null),
        LastPage::Zero => Some(0.into()),
    };
    for (field, value) in [("total", total), ("last_page", last_page)] {
        match value {
            Some(value) => envelope.insert(field.to_owned(), value),
            None => envelope.remove(field),
        };
    }
}

/// The rows at these positions once the customers of each second are in another order. Only the seconds that the page
/// shows are looked at.
fn untied(state: &State, view: &View, positions: Range<usize>, draws: Draws) -> Vec<u32> {
    let shown = state.rows(view, positions.clone());
    let (Some(&first), Some(&last)) = (shown.first(), shown.last()) else {
        return shown;
    };
    let second = |row: u32| state.created_s(row);
    let mut before = Vec::new();
    for step in doubling() {
        let end = positions.start - before.len();
        let block = state.rows(view, end.saturating_sub(step)..end);
        let tied = block.iter().rev().take_while(|&&row| second(row) == second(first));
        let count = tied.map(|&row| before.push(row)).count();
        if count < step {
            break;
        }
    }
    let mut after = Vec::new();
    for step in doubling() {
        let start = positions.end + after.len();
        let block = state.rows(view, start..start + step);
        let tied = block.iter().take_while(|&&row| second(row) == second(last));
        let count = tied.map(|&row| after.push(row)).count();
        if count < step {
            break;
        }
    }
    let skipped = before.len();
    let mut all: Vec<u32> = before.into_iter().rev().chain(shown).chain(after).collect();
    for tied in all.chunk_by_mut(|&one, &next| second(one) == second(next)) {
        // By the second too, so that each page a request could ask for agrees about the order.
        tied.shuffle(&mut draws.of(Draw::Ties, draws.request, second(tied[0]) as u64));
    }
    all.drain(skipped..skipped + positions.len()).collect()
}

fn doubling() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(16_usize), |step| step.checked_mul(2))
}

fn some_index(rng: &mut impl Rng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}
