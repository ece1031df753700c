//! Reads a page of the list on which a customer is not JSON: invalid UTF-8, a control character in
//! a string, or `NaN`.
//!
//! The parser refuses the whole page for such a customer. Here the envelope must still be complete,
//! with nothing after it. Only the bytes of a customer may be anything.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Item, List};
use komoju_core::json::scan::{self, ScanEnd};

/// Reads a page. Returns none if it is not a JSON object with a list in `data`.
pub(super) fn list(bytes: &[u8]) -> Option<List<'_>> {
    if !scan::is_object(bytes) {
        return None;
    }
    let (mut members, mut data) = (BTreeMap::new(), None);
    for part in scan::members(bytes) {
        if scan::key_equals(part.key, "data") {
            data = Some(items(part.value)?);
        } else {
            let value = raw(part.value).ok()?;
            let name = ["page", "per_page", "total", "last_page"];
            if let Some(name) = name.into_iter().find(|name| scan::key_equals(part.key, name)) {
                members.insert(name.to_owned(), value);
            }
        }
    }
    Some(List { members, data: data? })
}

/// Separates the items of a list. Returns none if the list is not closed.
fn items(list: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut walk = scan::items(list);
    let items = walk
        .by_ref()
        .map(|part| raw(part.value).map_or_else(|why| Item::NotJson(part.value, why), Item::Json))
        .collect();
    matches!(walk.end(), Some(ScanEnd::Closed(_))).then_some(items)
}

/// Reads one JSON value.
fn raw(bytes: &[u8]) -> Result<&RawValue, String> {
    serde_json::from_slice(bytes).map_err(|why| why.to_string())
}
