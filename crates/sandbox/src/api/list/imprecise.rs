//! Imprecise lists: the rows of a page, and the totals in its envelope.

use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Map, Value};

use crate::account::{Customers, ListView};
use crate::api::list::query::PageWindow;
use crate::draws::{Draw, Draws};
use crate::readings::{LastPage, Order, Readings, Repeated, Ties, Total};

/// Returns the rows of a page.
pub(crate) fn rows(
    state: &Customers,
    view: &ListView,
    window: &PageWindow,
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
    // Drawn by page and not by request, so that a list that repeats a customer does so each time.
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

/// Sets `total` and `last_page` of the envelope.
pub(crate) fn envelope(
    envelope: &mut Map<String, Value>,
    window: &PageWindow,
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

/// Returns the rows at these positions after the customers of each second were shuffled. Only the
/// seconds that the page shows are read.
fn untied(state: &Customers, view: &ListView, positions: Range<usize>, draws: Draws) -> Vec<u32> {
    let shown = state.rows(view, positions.clone());
    let (Some(&first), Some(&last)) = (shown.first(), shown.last()) else {
        return shown;
    };
    let second = |row: u32| state.created_s(row);
    let before = tied_rows(state, second(first), |found, step| {
        let end = positions.start - found;
        let mut rows = state.rows(view, end.saturating_sub(step)..end);
        rows.reverse();
        rows
    });
    let after = tied_rows(state, second(last), |found, step| {
        let start = positions.end + found;
        state.rows(view, start..start + step)
    });
    let skipped = before.len();
    let mut all: Vec<u32> = before.into_iter().rev().chain(shown).chain(after).collect();
    for tied in all.chunk_by_mut(|&one, &next| second(one) == second(next)) {
        // Drawn by second too, so that all pages of a request agree about the order.
        tied.shuffle(&mut draws.of(Draw::Ties, draws.request, second(tied[0]) as u64));
    }
    all.drain(skipped..skipped + positions.len()).collect()
}

/// Returns the rows of one second next to a page, from the page outwards. `block(found, step)`
/// returns up to `step` rows after the first `found` ones.
fn tied_rows(state: &Customers, second: i64, block: impl Fn(usize, usize) -> Vec<u32>) -> Vec<u32> {
    let mut found = Vec::new();
    for step in std::iter::successors(Some(16_usize), |step| step.checked_mul(2)) {
        let before = found.len();
        found.extend(block(before, step).into_iter().take_while(|&row| state.created_s(row) == second));
        if found.len() - before < step {
            break;
        }
    }
    found
}

/// Draws a position of a list with this length.
fn some_index(rng: &mut impl Rng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}
