//! What stands on the wire: from bytes to the model's words, and nothing believed that does not say so itself.
//!
//! Only form is judged here. Unknown fields are kept, the envelope's `resource` is not looked at (it has changed its name
//! before), repeated keys in an error are tolerated (they occur).

mod lenient;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{ApiError, Beginning};
use komoju_core::json::{self, scan};
use komoju_core::{BadCustomer, Customer, Hints, Listed, Page, Unreadable};

/// Reads a page of the list; the error is a sentence. Its customers are told apart and not read: one that cannot be read does not
/// cost the others. Only `data` must be what it should be.
pub(super) fn page(bytes: &[u8]) -> Result<Page, String> {
    let (envelope, data) = list(bytes)?;
    let hints = Hints {
        page: hint(envelope.page.as_deref()),
        per_page: hint(envelope.per_page.as_deref()).filter(|per_page| *per_page > 0),
        total: hint(envelope.total.as_deref()),
        last_page: hint(envelope.last_page.as_deref()),
    };
    let mut page = Page { hints, customers: Vec::with_capacity(data.len()), ..Page::default() };
    for (position, item) in (1..).zip(data) {
        match item.take(position) {
            Ok(listed) if listed.is_deleted() => page.deleted.push(listed),
            Ok(listed) => page.customers.push(listed),
            Err(bad) => page.unreadable.push(bad),
        }
    }
    Ok(page)
}

/// The largest number that is taken for a hint: larger ones are mistakes, such as a negative number without its sign.
const LARGEST_HINT: u64 = 1 << 53;

/// A whole number, as a number or as text.
fn hint(value: Option<&RawValue>) -> Option<u64> {
    let text = value?.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    text.parse().ok().filter(|number| *number <= LARGEST_HINT)
}

/// Reads the envelope of a list, and takes the list out of it.
fn list(bytes: &[u8]) -> Result<(Envelope, Vec<Item>), String> {
    let mut envelope: Envelope = match serde_json::from_slice(bytes) {
        Ok(envelope) => envelope,
        // Perhaps only a customer in it is not JSON. What it is instead is said as everywhere.
        Err(why) => match lenient::envelope(bytes) {
            Some(envelope) => envelope,
            None => {
                return Err(object(bytes).err().unwrap_or_else(|| format!("the answer is not JSON ({why})")));
            }
        },
    };
    match envelope.data.take() {
        Some(Data::List(data)) => Ok((envelope, data.into_iter().map(Item::Json).collect())),
        Some(Data::Mixed(data)) => Ok((envelope, data)),
        Some(Data::Other) => Err("the answer's \"data\" is not a list".to_owned()),
        None => Err("the answer is not a page of a list: it has no \"data\"".to_owned()),
    }
}

#[derive(Default)]
struct Envelope {
    page: Option<Box<RawValue>>,
    per_page: Option<Box<RawValue>>,
    total: Option<Box<RawValue>>,
    last_page: Option<Box<RawValue>>,
    data: Option<Data>,
}

enum Data {
    List(Vec<Box<RawValue>>),
    /// A list of which some items are not JSON.
    Mixed(Vec<Item>),
    Other,
}

/// One item of a list.
enum Item {
    Json(Box<RawValue>),
    /// Bytes that are not JSON, and why.
    NotJson {
        bytes: Vec<u8>,
        why: String,
    },
}

impl Item {
    /// The customer that it shows at this position of its page.
    fn take(self, position: u64) -> Result<Listed, Unreadable> {
        match self {
            Self::Json(text) => Listed::at(position, text),
            Self::NotJson { bytes, why } => {
                Err(Unreadable::new(&bytes, Some(position), BadCustomer::Unreadable(why)))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Page,
    PerPage,
    Total,
    LastPage,
    Data,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::Page => envelope.page = Some(map.next_value()?),
                Field::PerPage => envelope.per_page = Some(map.next_value()?),
                Field::Total => envelope.total = Some(map.next_value()?),
                Field::LastPage => envelope.last_page = Some(map.next_value()?),
                Field::Data => envelope.data = Some(map.next_value()?),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(envelope)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

/// Takes a list apart, and anything else for what it is not.
struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of customers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element()? {
            texts.push(text);
        }
        Ok(Data::List(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Data::Other)
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Data, E> {
        Ok(Data::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Data, E> {
        Ok(Data::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Data, E> {
        Ok(Data::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Data, E> {
        Ok(Data::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Data, E> {
        Ok(Data::Other)
    }
}

/// What an answer shows that should show one customer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answered {
    /// A customer.
    Customer(Customer),
    /// A customer that cannot be read. The same request would be answered in the same way.
    Unreadable(Unreadable),
    /// Something else, in a sentence.
    Other(String),
}

/// Reads an answer that should show one customer. `is_whole` says whether `bytes` are all of it, or the beginning of an
/// answer that is too long.
pub(super) fn one_customer(bytes: &[u8], is_whole: bool) -> Answered {
    let reason = match (is_whole, Customer::from_text(bytes)) {
        (true, Ok(customer)) => return Answered::Customer(customer),
        (true, Err(reason)) => reason,
        (false, _) => BadCustomer::TooLarge { bytes: None },
    };
    // A web page, or JSON that was cut off, may be better the next time.
    let is_json = match is_whole {
        true => scan::is_object(bytes) || serde_json::from_slice::<IgnoredAny>(bytes).is_ok(),
        false => scan::members(bytes).next().is_some(),
    };
    match (is_json, object(bytes)) {
        (true, _) => Answered::Unreadable(Unreadable::new(bytes, None, reason)),
        (false, Err(why)) => Answered::Other(why),
        (false, Ok(_)) => Answered::Other(format!("the answer cannot be used: {reason}")),
    }
}

/// What the beginning of an answer that is too long for a page says; `None` where it is not a list.
pub(super) fn beginning(bytes: &[u8]) -> Option<Beginning> {
    let mut begun = Beginning { per_page: None, last_page: None, first: None };
    let mut is_list = false;
    for part in scan::members(bytes) {
        let number = || std::str::from_utf8(part.value).ok().filter(|_| part.is_whole)?.parse().ok();
        if scan::spells(part.key, "per_page") {
            begun.per_page = number();
        } else if scan::spells(part.key, "last_page") {
            begun.last_page = number();
        } else if scan::spells(part.key, "data") {
            is_list = part.value.starts_with(b"[");
            let first = scan::items(part.value).next();
            begun.first = first.map(|item| {
                Box::new(Unreadable::new(item.value, Some(1), BadCustomer::TooLarge { bytes: None }))
            });
        }
    }
    is_list.then_some(begun)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match json::parse(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the answer is JSON, but not an object".to_owned()),
        Err(_) if is_web_page(bytes) => Err("the answer is a web page, not JSON".to_owned()),
        Err(why) => Err(format!("the answer is not JSON ({why})")),
    }
}

/// Reads an error answer. What cannot be read never hides the status; `is_ours` says whether it was KOMOJU's own JSON.
pub(super) fn error(status: u16, bytes: &[u8]) -> (ApiError, IsOurs) {
    let none = |message: Option<String>| ApiError { status, code: None, message, param: None };
    match object(bytes) {
        Ok(mut answer) => match answer.remove("error") {
            Some(Value::Object(error)) => {
                let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
                let told =
                    ApiError { status, code: text("code"), message: text("message"), param: text("param") };
                (told, IsOurs::Yes)
            }
            Some(Value::String(message)) => (none(Some(message)), IsOurs::Yes),
            _ => (none(Some("an answer without \"error\"".to_owned())), IsOurs::No),
        },
        Err(_) if bytes.is_empty() => (none(None), IsOurs::No),
        Err(_) if is_web_page(bytes) => {
            (none(Some("a web page, so not from the API itself".to_owned())), IsOurs::No)
        }
        Err(_) => (none(Some("an answer that is not JSON".to_owned())), IsOurs::No),
    }
}

/// Whether an error answer is in KOMOJU's own form, or came from something in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsOurs {
    /// `{"error": …}`.
    Yes,
    /// A firewall, a proxy, a maintenance page.
    No,
}

/// Whether something in front of the API answered, for KOMOJU speaks JSON.
pub(super) fn is_web_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests;
