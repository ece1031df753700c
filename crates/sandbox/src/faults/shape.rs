//! The faults that change a list: its customers and its pages.

use std::collections::HashSet;

use serde_json::Value;

use crate::account::{Customers, ListView};
use crate::api::list::query::{ListPage, Query};
use crate::faults::{Echo, FaultEffect, Fired};

/// Changes which page is answered.
pub(crate) fn query(query: &mut Query, fired: &[Fired]) {
    for fired in fired {
        if let FaultEffect::SamePage { page, .. } = fired.effect {
            query.page = page.max(1);
        }
    }
}

/// Changes which customers the list has.
pub(crate) fn view(state: &Customers, mut view: ListView, fired: &[Fired]) -> ListView {
    for fired in fired {
        match &fired.effect {
            FaultEffect::EmptyList => view = ListView::of_rows(Vec::new()),
            FaultEffect::ShortList { keep } => view = ListView::of_rows(state.rows(&view, 0..*keep)),
            FaultEffect::Hide { ids, every } => {
                let hidden: HashSet<u32> = ids.iter().filter_map(|id| state.row(id)).collect();
                let mut rows = state.rows(&view, 0..usize::MAX);
                rows.retain(|&row| {
                    !hidden.contains(&row) && every.is_none_or(|every| row % every.max(1) != 0)
                });
                view = ListView::of_rows(rows);
            }
            _ => {}
        }
    }
    view
}

/// Changes the content of a page. `requested` is the number of the requested page.
pub(crate) fn page(page: &mut ListPage, requested: u64, fired: &[Fired]) {
    for fired in fired {
        match &fired.effect {
            FaultEffect::SamePage { echo: Echo::Asked, .. } => {
                page.envelope.insert("page".to_owned(), requested.into());
            }
            FaultEffect::Envelope { fields } => page.envelope.extend(fields.clone()),
            FaultEffect::Twice { change } => {
                let first = page.data.first().and_then(|text| serde_json::from_str(text.get()).ok());
                if let Some(Value::Object(mut again)) = first {
                    again.extend(change.clone());
                    page.data.extend(serde_json::value::to_raw_value(&again));
                }
            }
            FaultEffect::Splice { customer, at } => {
                let at = at.unwrap_or(usize::MAX).min(page.data.len());
                if let Ok(text) = serde_json::value::to_raw_value(customer) {
                    page.data.insert(at, text);
                }
            }
            _ => {}
        }
    }
}
