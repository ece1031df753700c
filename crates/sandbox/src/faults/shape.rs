//! Owns the faults that change a list: which customers it has, and what its pages say.

use std::collections::HashSet;

use serde_json::Value;

use crate::account::{State, View};
use crate::api::list::query::{Page, Query};
use crate::faults::{Echo, Effect, Fired};

/// Which page is answered.
pub(crate) fn query(query: &mut Query, fired: &[Fired]) {
    for fired in fired {
        if let Effect::SamePage { page, .. } = fired.effect {
            query.page = page.max(1);
        }
    }
}

/// Which customers the list has.
pub(crate) fn view(state: &State, mut view: View, fired: &[Fired]) -> View {
    for fired in fired {
        match &fired.effect {
            Effect::EmptyList => view = View::of_rows(Vec::new()),
            Effect::ShortList { keep } => view = View::of_rows(state.rows(&view, 0..*keep)),
            Effect::Hide { ids, every } => {
                let hidden: HashSet<u32> = ids.iter().filter_map(|id| state.row(id)).collect();
                let mut rows = state.rows(&view, 0..usize::MAX);
                rows.retain(|&row| {
                    !hidden.contains(&row) && every.is_none_or(|every| row % every.max(1) != 0)
                });
                view = View::of_rows(rows);
            }
            _ => {}
        }
    }
    view
}

/// What the page says. `asked` is the page that was asked for.
pub(crate) fn page(page: &mut Page, asked: u64, fired: &[Fired]) {
    for fired in fired {
        match &fired.effect {
            Effect::SamePage { echo: Echo::Asked, .. } => {
                page.envelope.insert("page".to_owned(), asked.into());
            }
            Effect::Envelope { fields } => page.envelope.extend(fields.clone()),
            Effect::Twice { change } => {
                let first = page.data.first().and_then(|text| serde_json::from_str(text.get()).ok());
                if let Some(Value::Object(mut again)) = first {
                    again.extend(change.clone());
                    page.data.extend(serde_json::value::to_raw_value(&again));
                }
            }
            Effect::Splice { customer, at } => {
                let at = at.unwrap_or(usize::MAX).min(page.data.len());
                if let Ok(text) = serde_json::value::to_raw_value(customer) {
                    page.data.insert(at, text);
                }
            }
            _ => {}
        }
    }
}
