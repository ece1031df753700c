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
use komoju_core::json::scan;
use komoju_core::{BadCustomer, Customer, Hints, Listed, Page, Unreadable, json};

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
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_whatever_else_the_envelope_holds() {
        let bytes =
            br#"{"resource":"anything","total":1,"page":1,"per_page":10,"last_page":1,"start_time":null,
            "data":[{"id":"a","resource":"customer","new":1.0}]}"#;
        let page = page(bytes).unwrap();
        let hints = Hints { page: Some(1), per_page: Some(10), total: Some(1), last_page: Some(1) };
        assert_eq!(page.hints, hints);
        assert_eq!(page.customers[0].read().unwrap().body(), r#"{"id":"a","new":1.0,"resource":"customer"}"#);
    }

    #[test]
    fn a_page_of_another_form_is_refused_with_its_reason() {
        let cases: [(&[u8], &str); 11] = [
            (b"", "not JSON"),
            (b"<html>", "web page"),
            (b"[]", "not an object"),
            (b"{}", "no \"data\""),
            (br#"{"data":{"a":[1]}}"#, "\"data\" is not a list"),
            (br#"{"data":7}"#, "\"data\" is not a list"),
            (br#"{"data":null}"#, "\"data\" is not a list"),
            (br#"{"data":"x"}"#, "\"data\" is not a list"),
            (br#"{"data":true}"#, "\"data\" is not a list"),
            (br#"{"data":[],"page":1,"per_page":1,"total":0,"last_page":0} x"#, "trailing"),
            (b"{\"data\":[{\"id\":\"\xff\"}]", "not JSON"),
        ];
        for (bytes, part) in cases {
            let why = page(bytes).unwrap_err();
            assert!(why.contains(part), "{why} should say {part}");
        }
    }

    #[test]
    fn hints_are_read_as_far_as_they_are_whole_numbers() {
        let hints = |envelope: &str| page(format!(r#"{{"data":[],{envelope}}}"#).as_bytes()).unwrap().hints;
        let number = |value: &str| hints(&format!(r#""total":{value}"#)).total;
        assert_eq!(["7", "\"7\"", "0"].map(number), [Some(7), Some(7), Some(0)]);
        for other in [
            "18446744073709551615",
            "-1",
            "1.5",
            "null",
            "\"\"",
            "\"many\"",
            "[7]",
            r#"{"$serde_json::private::Number":"1"}"#,
        ] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(page(br#"{"data":[]}"#).unwrap().hints, Hints::default());
        assert_eq!(hints(r#""per_page":0,"page":2,"last_page":3"#).per_page, None, "a page of no customers");
        assert_eq!(hints(r#""per_page":"10","page":2,"last_page":3"#).last_page, Some(3));
    }

    #[test]
    fn customer_that_is_listed_as_deleted_is_set_apart() {
        let page =
            page(br#"{"data":[{"id":"a"},{"id":"b","deleted":true},{"id":"c","deleted":false}]}"#).unwrap();
        let ids = |listed: &[Listed]| listed.iter().map(|one| one.id().to_string()).collect::<Vec<_>>();
        assert_eq!(
            (ids(&page.customers), ids(&page.deleted)),
            (vec!["a".into(), "c".into()], vec!["b".into()])
        );
        assert_eq!(page.len(), 3);
    }

    #[test]
    fn an_error_keeps_its_status_whatever_its_body() {
        let (told, ours) = error(
            404,
            br#"{"error":{"code":"x","code":"not_found","message":"no","param":null,"extra":[]}}"#,
        );
        assert_eq!((told.status, told.code.as_deref(), ours), (404, Some("not_found"), IsOurs::Yes));
        for bytes in [&b""[..], b"<h1>", b"{", b"{}", b"[1]", b"\xff"] {
            let (told, ours) = error(503, bytes);
            assert_eq!((told.status, told.code, ours), (503, None, IsOurs::No), "{bytes:?}");
        }
    }

    #[test]
    fn unreadable_customer_does_not_cost_the_others_on_its_page() {
        let nested = ["[".repeat(130), "]".repeat(130)].concat();
        let bad: [(Vec<u8>, Option<&str>, &str); 9] = [
            (b"null".to_vec(), None, "not an object"),
            (b"{}".to_vec(), None, "no id"),
            (br#"{"id":7}"#.to_vec(), None, "not a string"),
            (br#"{"id":"b","email":"\ud800"}"#.to_vec(), Some("b"), "hex escape"),
            (format!(r#"{{"id":"b","x":{nested}}}"#).into_bytes(), Some("b"), "recursion limit"),
            (b"{\"id\":\"b\",\"email\":\"\xff\"}".to_vec(), Some("b"), "not JSON"),
            (b"{\"id\":\"b\",\"email\":\"\x01\"}".to_vec(), Some("b"), "not JSON"),
            (br#"{"id":"b","x":NaN}"#.to_vec(), Some("b"), "not JSON"),
            (br#"{"id":"b","resource":"payment"}"#.to_vec(), Some("b"), "resource"),
        ];
        for (text, id, reason) in bad {
            let mut bytes = br#"{"total":3,"page":1,"per_page":3,"last_page":1,"data":[{"id":"a"},"#.to_vec();
            bytes.extend_from_slice(&text);
            bytes.extend_from_slice(br#",{"id":"c"}]}"#);
            let page = page(&bytes).unwrap();
            let ids: Vec<&str> = page.customers.iter().map(|listed| listed.id().as_str()).collect();
            assert_eq!((ids, page.len()), (vec!["a", "c"], 3), "{reason}");
            let named = &page.unreadable[0];
            assert_eq!((named.id.as_ref().map(|id| id.as_str()), named.position), (id, Some(2)), "{reason}");
            assert!(named.reason.to_string().contains(reason), "{}", named.reason);
        }
    }

    #[test]
    fn customer_that_cannot_be_read_is_told_from_another_answer() {
        let shown = |bytes: &[u8]| match one_customer(bytes, true) {
            Answered::Customer(customer) => customer.id().to_string(),
            Answered::Unreadable(bad) => format!("{:?}", bad.id),
            Answered::Other(why) => why,
        };
        assert_eq!(shown(br#"{"id":"a"}"#), "a");
        assert_eq!(shown(br#"{"id":"a","x":"\ud800"}"#), "Some(\"a\")");
        assert_eq!(shown(b"{\"id\":\"a\",\"x\":\"\xff\"}"), "Some(\"a\")");
        assert_eq!(shown(br#"{"id":7}"#), "None");
        assert_eq!(shown(b"{}"), "None");
        assert_eq!([shown(b"null"), shown(b" [] ")], ["None", "None"]);
        for (bytes, part) in [(&b"<html>"[..], "web page"), (br#"{"id":"a""#, "not JSON"), (b"", "not JSON")]
        {
            assert!(shown(bytes).contains(part), "{}", shown(bytes));
        }
        let cut = one_customer(br#"{"id":"a","x":"aaa"#, false);
        assert!(matches!(cut, Answered::Unreadable(bad) if bad.id.is_some()), "the beginning of a long one");
        assert!(matches!(one_customer(b"\x1f\x8b", false), Answered::Other(_)));
    }

    #[test]
    fn beginning_of_a_long_page_tells_its_numbers_and_its_first_customer() {
        let begun = beginning(br#"{"total":9,"per_page":1,"last_page":9,"data":[{"id":"a","x":"aa"#).unwrap();
        assert_eq!((begun.per_page, begun.last_page), (Some(1), Some(9)));
        assert_eq!(begun.first.unwrap().id.unwrap().as_str(), "a");
        assert!(beginning(br#"{"data":[   "#).unwrap().first.is_none());
        assert!(beginning(b"<html>").is_none() && beginning(br#"{"error":{"code":"#).is_none());
    }
}
