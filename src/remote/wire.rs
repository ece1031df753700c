//! Reads answers: from bytes to the types of `komoju_core`.
//!
//! Only the form is checked here. Unknown fields are kept, the envelope's `resource` is ignored
//! (its value has changed before), and repeated keys are tolerated (they occur).

mod lenient;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{ApiError, TruncatedPage};
use komoju_core::json::{self, scan};
use komoju_core::{BadCustomer, Customer, EventPage, Hints, Page, RawCustomer, Unreadable};

/// Reads a page of the list. Its customers are separated and not read, so that an unreadable one
/// does not cost the others. Only `data` must have the right form.
///
/// # Errors
/// A sentence about what is wrong with the answer.
pub(super) fn page(bytes: &[u8]) -> Result<Page, String> {
    let ListAnswer { members, data } = list(bytes)?;
    let hint = |name: &str| hint(members.get(name)?);
    let hints = Hints {
        page: hint("page"),
        per_page: hint("per_page").filter(|per_page| *per_page > 0),
        total: hint("total"),
        last_page: hint("last_page"),
    };
    let mut page = Page { hints, customers: Vec::with_capacity(data.len()), ..Page::default() };
    for (position, item) in (1..).zip(data) {
        match item.listed(position) {
            Ok(listed) if listed.is_deleted() => page.deleted.push(listed),
            Ok(listed) => page.customers.push(listed),
            Err(bad) => page.unreadable.push(bad),
        }
    }
    Ok(page)
}

/// Reads a page of the event list. Only `data` must have the right form.
///
/// # Errors
/// A sentence about what is wrong with the answer.
pub(super) fn events(bytes: &[u8]) -> Result<EventPage, String> {
    let ListAnswer { members, data } = list(bytes)?;
    let per_page = members.get("per_page").and_then(|value| hint(value)).filter(|per_page| *per_page > 0);
    let mut page = EventPage { per_page, ..EventPage::default() };
    for item in data {
        let value = match item {
            ListItem::Json(text) => serde_json::from_str::<Value>(text.get()).ok(),
            ListItem::NotJson(..) => None,
        };
        page.add(value.as_ref());
    }
    Ok(page)
}

/// LARGEST_HINT controls which numbers are hints. A larger number is a mistake, such as a negative
/// number without its sign.
const LARGEST_HINT: u64 = 1 << 53;

/// Reads a whole number that is written as a number or as a string.
fn hint(value: &RawValue) -> Option<u64> {
    let text = value.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    text.parse().ok().filter(|number| *number <= LARGEST_HINT)
}

/// An answer that is a page of a list.
struct ListAnswer<'a> {
    /// The members of the envelope by name, `data` included where all of it is JSON.
    members: BTreeMap<String, &'a RawValue>,
    /// The items of `data`, in order.
    data: Vec<ListItem<'a>>,
}

/// One item of a list.
enum ListItem<'a> {
    Json(&'a RawValue),
    /// Bytes that are not JSON, and why.
    NotJson(&'a [u8], String),
}

impl ListItem<'_> {
    /// Returns the customer of this item, at this position of its page.
    fn listed(self, position: u64) -> Result<RawCustomer, Unreadable> {
        match self {
            Self::Json(text) => RawCustomer::at(position, text.to_owned()),
            Self::NotJson(bytes, why) => {
                Err(Unreadable::new(bytes, Some(position), BadCustomer::Unreadable(why)))
            }
        }
    }
}

/// Reads the envelope of a list and separates the items.
fn list(bytes: &[u8]) -> Result<ListAnswer<'_>, String> {
    let members: BTreeMap<String, &RawValue> = match serde_json::from_slice(bytes) {
        Ok(members) => members,
        // Perhaps only one customer is not JSON. Otherwise explain what the answer is.
        Err(why) => {
            return lenient::list(bytes).ok_or_else(|| {
                object(bytes).err().unwrap_or_else(|| format!("the answer is not JSON ({why})"))
            });
        }
    };
    let Some(data) = members.get("data") else {
        return Err("the answer is not a page of a list: it has no \"data\"".to_owned());
    };
    let items: Vec<&RawValue> =
        serde_json::from_str(data.get()).map_err(|_| "the answer's \"data\" is not a list".to_owned())?;
    Ok(ListAnswer { data: items.into_iter().map(ListItem::Json).collect(), members })
}

/// An answer that should contain one customer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CustomerReading {
    /// A customer.
    Customer(Customer),
    /// A customer that cannot be read. A retry would get the same answer.
    Unreadable(Unreadable),
    /// Something else, described by a sentence.
    Other(String),
}

/// Reads an answer that should contain one customer. `is_whole` says whether `bytes` are complete,
/// or the start of an answer that is too long.
pub(super) fn one_customer(bytes: &[u8], is_whole: bool) -> CustomerReading {
    let reason = match (is_whole, Customer::from_text(bytes)) {
        (true, Ok(customer)) => return CustomerReading::Customer(customer),
        (true, Err(reason)) => reason,
        (false, _) => BadCustomer::TooLarge { bytes: None },
    };
    // A retry may succeed after a web page, or after JSON that was cut off.
    let is_json = match is_whole {
        true => scan::is_object(bytes) || serde_json::from_slice::<IgnoredAny>(bytes).is_ok(),
        false => scan::members(bytes).next().is_some(),
    };
    match (is_json, object(bytes)) {
        (true, _) => CustomerReading::Unreadable(Unreadable::new(bytes, None, reason)),
        (false, Err(why)) => CustomerReading::Other(why),
        (false, Ok(_)) => CustomerReading::Other(format!("the answer cannot be used: {reason}")),
    }
}

/// Reads the start of a page that is too long. Returns none if it is not a list.
pub(super) fn beginning(bytes: &[u8]) -> Option<TruncatedPage> {
    let mut begun = TruncatedPage { per_page: None, last_page: None, first: None };
    let mut is_list = false;
    for part in scan::members(bytes) {
        let number = || std::str::from_utf8(part.value).ok().filter(|_| part.is_whole)?.parse().ok();
        if scan::key_equals(part.key, "per_page") {
            begun.per_page = number();
        } else if scan::key_equals(part.key, "last_page") {
            begun.last_page = number();
        } else if scan::key_equals(part.key, "data") {
            is_list = part.value.starts_with(b"[");
            let first = scan::items(part.value).next();
            begun.first = first.map(|item| {
                Box::new(Unreadable::new(item.value, Some(1), BadCustomer::TooLarge { bytes: None }))
            });
        }
    }
    is_list.then_some(begun)
}

/// Reads a JSON object. The error is a sentence about what the answer is instead.
fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match json::parse(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the answer is JSON, but not an object".to_owned()),
        Err(_) if is_web_page(bytes) => Err("the answer is a web page, not JSON".to_owned()),
        Err(why) => Err(format!("the answer is not JSON ({why})")),
    }
}

/// Reads an error answer, and returns whether it is in KOMOJU's own form. A body that cannot be
/// read does not change the status.
pub(super) fn error(status: u16, bytes: &[u8]) -> (ApiError, ErrorOrigin) {
    let none = |message: Option<String>| ApiError { status, code: None, message, param: None };
    match object(bytes) {
        Ok(mut answer) => match answer.remove("error") {
            Some(Value::Object(error)) => {
                let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
                let told =
                    ApiError { status, code: text("code"), message: text("message"), param: text("param") };
                (told, ErrorOrigin::Api)
            }
            Some(Value::String(message)) => (none(Some(message)), ErrorOrigin::Api),
            _ => (none(Some("an answer without \"error\"".to_owned())), ErrorOrigin::Other),
        },
        Err(_) if bytes.is_empty() => (none(None), ErrorOrigin::Other),
        Err(_) if is_web_page(bytes) => {
            (none(Some("a web page, so not from the API itself".to_owned())), ErrorOrigin::Other)
        }
        Err(_) => (none(Some("an answer that is not JSON".to_owned())), ErrorOrigin::Other),
    }
}

/// Whether an error answer is from the API itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorOrigin {
    /// It has KOMOJU's form, `{"error": …}`.
    Api,
    /// It is from a firewall, a proxy or a maintenance page.
    Other,
}

/// Whether a server in front of the API answered. The API itself always answers with JSON.
pub(super) fn is_web_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests;
