//! What a value may be: one check a kind, each of which says what is allowed and, where the limit
//! is not plain, why.
//!
//! A message never repeats the value, because the source line below it shows it, masked where it
//! must be.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeValue;
use url::{Host, Url};

use super::document::{SECRETS_STAY_OUT, Value, kind, nearest};
use super::error::Wrong;
use super::types::{Listen, Proxy};
use crate::config::cron::Cadence;

/// The most characters of a metadata key at KOMOJU.
const MOST_METADATA_KEY: usize = 30;

/// A whole number within a range; `why` says what is counted, or explains an end.
pub(super) fn whole<T>(range: RangeInclusive<T>, why: &'static str) -> impl Fn(&Value<'_>) -> Result<T, Wrong>
where
    T: Copy + PartialOrd + TryFrom<i128> + std::fmt::Display,
{
    move |value| {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(other_kind(&expected, value));
        };
        // What does not even fit is out of range like everything else.
        let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        number.ok_or_else(|| Wrong::new(expected).help(why))
    }
}

/// Requests a second: zero for no limit, fractions for less than one.
pub(super) fn rate(value: &Value<'_>) -> Result<f64, Wrong> {
    let expected = "expected a number from 0.05 to 1000, or 0 for no limit";
    let number = match value.get_ref() {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(f64::INFINITY, |number| number as f64)
        }
        DeValue::Float(number) => number.as_str().parse().unwrap_or(f64::NAN),
        _ => return Err(other_kind(expected, value)),
    };
    match number {
        0.0 => Ok(0.0),
        0.05..=1000.0 => Ok(number),
        0.0..0.05 => Err(Wrong::new(expected)
            .help("a deletion is proven by two answers within a minute; below one request in 20 seconds none could be")),
        _ => Err(Wrong::new(expected)),
    }
}

/// True or false.
pub(super) fn switch(value: &Value<'_>) -> Result<bool, Wrong> {
    let expected = "expected true or false";
    value.get_ref().as_bool().ok_or_else(|| other_kind(expected, value))
}

/// One of some words.
pub(super) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value<'_>) -> Result<T, Wrong> {
    move |value| {
        let known = || words.iter().map(|(known, _)| *known);
        let quoted: Vec<String> = known().map(|known| format!("\"{known}\"")).collect();
        let expected = format!("expected one of {}", quoted.join(", "));
        let text = string(&expected, value)?;
        match words.iter().find(|(known, _)| *known == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(match nearest(text, known()) {
                Some(near) => Wrong::new(expected).help(format!("did you mean \"{near}\"?")),
                None => Wrong::new(expected),
            }),
        }
    }
}

/// A path from the root: a service has no directory of its own that a relative one could start in.
pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    absolute(string("expected a path", value)?)
}

/// The file of the secret key: a path, and not the key, which people do write here.
pub(super) fn key_file(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    let text = string("expected the path of a file", value)?;
    absolute(text).map_err(|wrong| match text {
        "" => wrong,
        _ => wrong.help(format!("if this is the key itself: {SECRETS_STAY_OUT}")),
    })
}

/// The API's address: what is sent there is worth money, so it must be encrypted, except to this
/// very machine (where the sandbox is).
pub(super) fn base_url(value: &Value<'_>) -> Result<Url, Wrong> {
    let mut url = web_address("expected the API's address, https://…", value)?;
    if has_user(&url) {
        return Err(Wrong::new("must hold no user name or password").help(SECRETS_STAY_OUT));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("must end with its path, without `?` or `#`"));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(Wrong::new("must begin with https://")
            .help("the secret key would travel readably; http:// is for localhost only"));
    }
    let bare = url.path().trim_end_matches('/').to_owned();
    url.set_path(&bare);
    Ok(url)
}

/// A proxy's address.
pub(super) fn proxy(value: &Value<'_>) -> Result<Proxy, Wrong> {
    let url = web_address("expected the proxy's address, http://host:port", value)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("must end with the host or port, without a path, `?` or `#`"));
    }
    Ok(Proxy::new(url))
}

/// The day that names a version of the API.
pub(super) fn api_version(value: &Value<'_>) -> Result<String, Wrong> {
    let expected = "expected the date of an API version, such as \"2025-01-28\"";
    let text = string(expected, value)?;
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    (shape == "0000-00-00").then(|| text.to_owned()).ok_or_else(|| Wrong::new(expected))
}

/// A cron expression.
pub(super) fn cadence(value: &Value<'_>) -> Result<Cadence, Wrong> {
    let text = string("expected a cron expression, seconds first", value)?;
    Cadence::parse(text).map_err(|error| Wrong::new(error.to_string()))
}

/// A metadata key of KOMOJU's.
pub(super) fn metadata_key(value: &Value<'_>) -> Result<String, Wrong> {
    let expected = format!("expected a metadata key of 1 to {MOST_METADATA_KEY} characters");
    let text = string(&expected, value)?;
    let length = text.chars().count();
    if !(1..=MOST_METADATA_KEY).contains(&length) {
        return Err(Wrong::new(expected));
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err(Wrong::new("must have no white space around it and no control characters"));
    }
    Ok(text.to_owned())
}

/// Where to listen.
pub(super) fn listen(value: &Value<'_>) -> Result<Listen, Wrong> {
    let expected = "expected an address and port such as \"127.0.0.1:9187\", or \"unix:/path\"";
    let text = string(expected, value)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return absolute(path).map(Listen::Unix);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(Listen::Tcp(address)),
        Err(_) if text.starts_with("localhost:") => {
            Err(Wrong::new(expected).help("write 127.0.0.1 or [::1] in place of localhost"))
        }
        Err(_) if text.starts_with(':') => {
            Err(Wrong::new(expected).help("put 127.0.0.1 in front, or 0.0.0.0 for everybody"))
        }
        Err(_) => Err(Wrong::new(expected)),
    }
}

/// A program with its arguments, or the path of one without any. No shell takes part.
pub(super) fn command(value: &Value<'_>) -> Result<Vec<String>, Wrong> {
    let expected = "expected a program's path, or a list: the path and its arguments";
    let items = match value.get_ref() {
        DeValue::Array(items) => items,
        _ => {
            let program = string(expected, value)?;
            if program.contains(char::is_whitespace) {
                return Err(Wrong::new(expected)
                    .help("no shell splits it; write [\"/path/of/program\", \"argument\"]"));
            }
            absolute(program)?;
            return Ok(vec![program.to_owned()]);
        }
    };
    let mut words = Vec::with_capacity(items.len());
    for item in items {
        let word = string("expected an argument", item)
            .and_then(|word| match words.is_empty() {
                true => absolute(word).map(|_| word),
                false if word.contains('\0') => Err(Wrong::new("must hold no NUL character")),
                false => Ok(word),
            })
            .map_err(|wrong| wrong.at(item.span()))?;
        words.push(word.to_owned());
    }
    if words.is_empty() {
        return Err(Wrong::new(expected).help("to have no alerts, leave the key out"));
    }
    Ok(words)
}

fn string<'v>(expected: &str, value: &'v Value<'_>) -> Result<&'v str, Wrong> {
    let text = match value.get_ref() {
        DeValue::String(text) => text,
        DeValue::Array(_) | DeValue::Table(_) => return Err(other_kind(expected, value)),
        _ => return Err(other_kind(expected, value).help("put it in quotes")),
    };
    if ["sk_live_", "sk_test_"].iter().any(|prefix| text.contains(prefix)) {
        return Err(Wrong::new("this looks like a secret key").help(SECRETS_STAY_OUT));
    }
    Ok(text)
}

/// A value of another kind, with the commonest ways to come to it.
fn other_kind(expected: &str, value: &Value<'_>) -> Wrong {
    let wrong = Wrong::new(format!("{expected}, found {}", kind(value.get_ref())));
    match value.get_ref() {
        DeValue::String(text) if text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok() => {
            wrong.help("leave out the quotes")
        }
        _ => wrong,
    }
}

fn absolute(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() {
        return Err(Wrong::new("is empty").help("leave the key out to have its default"));
    }
    if text.contains(char::is_control) {
        return Err(Wrong::new("must hold no control characters"));
    }
    if !text.starts_with('/') {
        return Err(Wrong::new("must be an absolute path, one that begins with `/`"));
    }
    Ok(PathBuf::from(text))
}

fn web_address(expected: &str, value: &Value<'_>) -> Result<Url, Wrong> {
    let text = string(expected, value)?;
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Wrong::new(expected))
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
