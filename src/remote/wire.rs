//! What stands on the wire: from bytes to the model's words, and nothing believed that does not say so itself.
//!
//! Only form is judged here. Unknown fields are kept, the envelope's `resource` is not looked at (it has changed its name
//! before), repeated keys in an error are tolerated (they occur).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::model::{BadCustomer, Customer, CustomerId, Listed, Page, WindowPage, json};

/// Reads a page of the list; the error is a sentence. Its customers are told apart and not read.
pub(super) fn page(bytes: &[u8]) -> Result<Page, String> {
    let (envelope, data) = list(bytes)?;
    let number = |name: &str, value: Option<Box<RawValue>>| match value {
        Some(value) => value.get().parse::<u64>().map_err(|_| {
            let shown: String = value.get().chars().take(40).collect();
            format!("the answer's \"{name}\" is {shown}, not a whole number")
        }),
        None => Err(format!("the answer has no \"{name}\"")),
    };
    Ok(Page {
        page: number("page", envelope.page)?,
        per_page: number("per_page", envelope.per_page)?,
        total: number("total", envelope.total)?,
        last_page: number("last_page", envelope.last_page)?,
        customers: data
            .into_iter()
            .map(|text| Listed::new(text).map_err(unusable))
            .collect::<Result<_, _>>()?,
    })
}

/// Reads a page of which only the customers matter; the error is a sentence.
pub(super) fn window(bytes: &[u8]) -> Result<WindowPage, String> {
    let (envelope, data) = list(bytes)?;
    let number = |value: Option<Box<RawValue>>| value.and_then(|value| value.get().parse().ok());
    Ok(WindowPage {
        total: number(envelope.total),
        last_page: number(envelope.last_page),
        customers: data.into_iter().filter_map(|text| Listed::new(text).ok()).collect(),
    })
}

/// Reads the envelope of a list, and takes the list out of it.
fn list(bytes: &[u8]) -> Result<(Envelope, Vec<Box<RawValue>>), String> {
    let mut envelope: Envelope = match serde_json::from_slice(bytes) {
        Ok(envelope) => envelope,
        // What it is instead is said as everywhere.
        Err(why) => {
            return Err(object(bytes).err().unwrap_or_else(|| format!("the answer is not JSON ({why})")));
        }
    };
    match envelope.data.take() {
        Some(Data::List(data)) => Ok((envelope, data)),
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
    Other,
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

/// Reads a customer that was asked for by its id.
pub(super) fn customer(bytes: &[u8], asked: &CustomerId) -> Result<Customer, String> {
    let customer = customer_in(Value::Object(object(bytes)?))?;
    match customer.id() == asked {
        true => Ok(customer),
        false => Err("the answer is about another customer".to_owned()),
    }
}

/// The customer that an answer shows, if it shows one that can be read.
pub(super) fn any_customer(bytes: &[u8]) -> Option<Customer> {
    customer_in(Value::Object(object(bytes).ok()?)).ok()
}

fn customer_in(value: Value) -> Result<Customer, String> {
    Customer::from_value(value).map_err(unusable)
}

fn unusable(why: BadCustomer) -> String {
    format!("the answer cannot be used: {why}")
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
        assert_eq!((page.page, page.per_page, page.total, page.last_page), (1, 10, 1, 1));
        assert_eq!(page.customers[0].read().unwrap().body(), r#"{"id":"a","new":1.0,"resource":"customer"}"#);
    }

    #[test]
    fn a_page_of_another_form_is_refused_with_its_reason() {
        let cases: [(&[u8], &str); 17] = [
            (b"", "not JSON"),
            (b"<html>", "web page"),
            (b"[]", "not an object"),
            (b"{}", "no \"data\""),
            (br#"{"data":{"a":[1]}}"#, "\"data\" is not a list"),
            (br#"{"data":7}"#, "\"data\" is not a list"),
            (br#"{"data":null}"#, "\"data\" is not a list"),
            (br#"{"data":"x"}"#, "\"data\" is not a list"),
            (br#"{"data":true}"#, "\"data\" is not a list"),
            (br#"{"data":[],"page":1,"per_page":1,"total":-1,"last_page":0}"#, "\"total\" is -1"),
            (br#"{"data":[],"page":1,"per_page":1,"total":0,"last_page":null}"#, "\"last_page\" is null"),
            (br#"{"data":[],"page":1,"per_page":1,"total":"7","last_page":0}"#, "\"total\" is \"7\""),
            (
                br#"{"data":[],"page":{"$serde_json::private::Number":"1"},"per_page":1,"total":0,"last_page":0}"#,
                "\"page\" is {\"$serde",
            ),
            (br#"{"data":[],"page":1.5,"per_page":1,"total":0,"last_page":0}"#, "\"page\" is 1.5"),
            (br#"{"data":[{}],"page":1,"per_page":1,"total":1,"last_page":1}"#, "has no id"),
            (br#"{"data":[],"page":1,"per_page":1,"total":0,"last_page":0} x"#, "trailing"),
            (b"{\"data\":[{\"id\":\"\xff\"}]}", "not JSON"),
        ];
        for (bytes, part) in cases {
            let why = page(bytes).unwrap_err();
            assert!(why.contains(part), "{why} should say {part}");
        }
    }

    #[test]
    fn window_page_is_read_without_numbers_and_without_unreadable_customers() {
        let read = |bytes: &[u8]| {
            let page = window(bytes).unwrap();
            let ids: Vec<String> = page.customers.iter().map(|listed| listed.id().to_string()).collect();
            (page.total, page.last_page, ids)
        };
        let two = vec!["a".to_owned(), "b".to_owned()];
        let whole = br#"{"total":2,"page":1,"per_page":10,"last_page":1,"data":[{"id":"a"},{"id":"b"}]}"#;
        assert_eq!(read(whole), (Some(2), Some(1), two.clone()));
        let other = br#"{"total":"2","page":null,"last_page":-1,"data":[{"id":"a"},{},7,null,{"id":"b"}]}"#;
        assert_eq!(read(other), (None, None, two.clone()));
        assert_eq!(read(br#"{"data":[{"id":"a"},{"id":"b"}]}"#), (None, None, two));
        for bytes in [&b"<html>"[..], b"{}", br#"{"data":{}}"#] {
            assert!(window(bytes).is_err());
        }
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
    fn an_answer_about_somebody_else_is_refused() {
        let asked = CustomerId::new("a").unwrap();
        assert!(customer(br#"{"id":"a"}"#, &asked).is_ok());
        assert_eq!(customer(br#"{"id":"b"}"#, &asked).unwrap_err(), "the answer is about another customer");
    }
}
