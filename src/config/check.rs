//! The checks of values: one function a kind. A message says what is allowed and, where a limit
//! needs a reason, why.
//!
//! A message never repeats the value. The source line above it shows the value, masked where
//! necessary.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeValue;
use tracing::Level;
use url::{Host, Url};

use super::cron::Cadence;
use super::document::Value;
use super::error::ValueProblem;
use super::names::{SECRETS_STAY_OUT, WEBHOOK_SECRET_STAYS_OUT, nearest};
use super::types::{Listen, Proxy};

/// MOST_METADATA_KEY controls how many characters a metadata key may have. KOMOJU allows no more.
const MOST_METADATA_KEY: usize = 30;

/// LONGEST_URL_PATH controls how many characters the path of a URL may have.
const LONGEST_URL_PATH: usize = 200;

/// The words of `log.level`.
pub(super) const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// The check of a key that has no default.
pub(super) fn optional<T>(
    check: impl Fn(&Value<'_>) -> Result<T, ValueProblem>,
) -> impl Fn(&Value<'_>) -> Result<Option<T>, ValueProblem> {
    move |value| check(value).map(Some)
}

/// A whole number within a range. `why` says what is counted, or explains a limit.
pub(super) fn whole<T>(
    range: RangeInclusive<T>,
    why: &'static str,
) -> impl Fn(&Value<'_>) -> Result<T, ValueProblem>
where
    T: Copy + PartialOrd + TryFrom<i128> + Display,
{
    move |value| {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(other_kind(&expected, value));
        };
        // A number that does not fit into its type is also out of range.
        let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| ValueProblem::new(expected).help(why))
    }
}

/// Requests a second: 0 for no limit, fractions for less than one.
pub(super) fn rate(value: &Value<'_>) -> Result<f64, ValueProblem> {
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
        0.0..0.05 => Err(ValueProblem::new(expected)
            .help("a deletion needs two answers within a minute, which a rate below one request in 20 seconds prevents")),
        _ => Err(ValueProblem::new(expected)),
    }
}

/// True or false.
pub(super) fn switch(value: &Value<'_>) -> Result<bool, ValueProblem> {
    value.get_ref().as_bool().ok_or_else(|| other_kind("expected true or false", value))
}

/// One of some words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Value<'_>) -> Result<T, ValueProblem> {
    move |value| {
        let quoted: Vec<String> = words.iter().map(|(known, _)| format!("\"{known}\"")).collect();
        let expected = format!("expected one of {}", quoted.join(", "));
        let text = string(&expected, value)?;
        if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == text) {
            return Ok(*meaning);
        }
        let problem = ValueProblem::new(expected);
        Err(match nearest(text, words.iter().map(|(known, _)| *known)) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None => problem,
        })
    }
}

/// An absolute path. A service has no working directory in which a relative one could start.
pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, ValueProblem> {
    absolute(string("expected a path", value)?)
}

/// The absolute path of a file.
pub(super) fn file_path(value: &Value<'_>) -> Result<PathBuf, ValueProblem> {
    let path = path(value)?;
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(ValueProblem::new("must be a file, not a directory").help("add a name: …/komoju.db"));
    }
    Ok(path)
}

/// The file of the secret key: a path, and not the key itself, which is a frequent mistake.
pub(super) fn key_file(value: &Value<'_>) -> Result<PathBuf, ValueProblem> {
    path_of_secret(value, "if this is the key itself", SECRETS_STAY_OUT)
}

/// The file of the webhook's secret, likewise.
pub(super) fn secret_file(value: &Value<'_>) -> Result<PathBuf, ValueProblem> {
    path_of_secret(value, "if this is the secret itself", WEBHOOK_SECRET_STAYS_OUT)
}

fn path_of_secret(value: &Value<'_>, mistake: &str, help: &str) -> Result<PathBuf, ValueProblem> {
    let text = string("expected the path of a file", value)?;
    absolute(text)
        .map_err(|problem| if text.is_empty() { problem } else { problem.help(format!("{mistake}: {help}")) })
}

/// The path of a URL, compared with requests character by character.
pub(super) fn url_path(value: &Value<'_>) -> Result<String, ValueProblem> {
    let expected = format!("expected a path such as \"/komoju\" of at most {LONGEST_URL_PATH} characters");
    let text = string(&expected, value)?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if !text.starts_with('/') || text.len() > LONGEST_URL_PATH {
        return Err(ValueProblem::new(expected));
    }
    if !text.bytes().all(is_allowed) {
        return Err(ValueProblem::new("must consist of ASCII letters, digits, and `/`, `-`, `.`, `_`, `~`"));
    }
    Ok(text.to_owned())
}

/// The API's address. The secret key is sent there, so the connection must be encrypted, except to
/// this machine (where the sandbox listens).
pub(super) fn base_url(value: &Value<'_>) -> Result<Url, ValueProblem> {
    let mut url = web_address("expected the API's address, https://…", value)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ValueProblem::new("must hold no user name or password").help(SECRETS_STAY_OUT));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ValueProblem::new("must end with its path, without `?` or `#`"));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(ValueProblem::new("must begin with https://")
            .help("http:// would send the secret key unencrypted; it is for localhost only"));
    }
    let bare = url.path().trim_end_matches('/').to_owned();
    url.set_path(&bare);
    Ok(url)
}

/// A proxy's address.
pub(super) fn proxy(value: &Value<'_>) -> Result<Proxy, ValueProblem> {
    let url = web_address("expected the proxy's address, http://host:port", value)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(ValueProblem::new("must end with the host or port, without a path, `?` or `#`"));
    }
    Ok(Proxy::new(url))
}

/// The date that names a version of the API.
pub(super) fn api_version(value: &Value<'_>) -> Result<String, ValueProblem> {
    let expected = "expected the date of an API version, such as \"2025-01-28\"";
    let text = string(expected, value)?;
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape == "0000-00-00" { Ok(text.to_owned()) } else { Err(ValueProblem::new(expected)) }
}

/// A cron expression.
pub(super) fn cadence(value: &Value<'_>) -> Result<Cadence, ValueProblem> {
    let text = string("expected a cron expression, seconds first", value)?;
    Cadence::parse(text).map_err(|error| ValueProblem::new(error.to_string()))
}

/// A key of KOMOJU's metadata.
pub(super) fn metadata_key(value: &Value<'_>) -> Result<String, ValueProblem> {
    let expected = format!("expected a metadata key of 1 to {MOST_METADATA_KEY} characters");
    let text = string(&expected, value)?;
    if !(1..=MOST_METADATA_KEY).contains(&text.chars().count()) {
        return Err(ValueProblem::new(expected));
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err(ValueProblem::new("must have no white space around it and no control characters"));
    }
    Ok(text.to_owned())
}

/// An address to listen at.
pub(super) fn listen(value: &Value<'_>) -> Result<Listen, ValueProblem> {
    let expected = "expected an address and port such as \"127.0.0.1:9187\", or \"unix:/path\"";
    let text = string(expected, value)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return absolute(path).map(Listen::Unix);
    }
    text.parse::<SocketAddr>().map(Listen::Tcp).map_err(|_| {
        let problem = ValueProblem::new(expected);
        if text.starts_with("localhost:") {
            problem.help("write 127.0.0.1 or [::1] in place of localhost")
        } else if text.starts_with(':') {
            problem.help("put 127.0.0.1 in front, or 0.0.0.0 for all addresses of this machine")
        } else {
            problem
        }
    })
}

/// A program with its arguments, or the path of a program without any. No shell is used.
pub(super) fn command(value: &Value<'_>) -> Result<Vec<String>, ValueProblem> {
    let expected = "expected a program's path, or a list: the path and its arguments";
    if let DeValue::Array(items) = value.get_ref() {
        let words = items.iter().enumerate();
        let words: Vec<String> = words
            .map(|(place, item)| argument(place, item).map_err(|problem| problem.at(item.span())))
            .collect::<Result<_, _>>()?;
        return match words[..] {
            [] => Err(ValueProblem::new(expected).help("to have no alerts, leave the key out")),
            _ => Ok(words),
        };
    }
    let program = string(expected, value)?;
    if program.contains(char::is_whitespace) {
        return Err(ValueProblem::new(expected)
            .help("no shell splits it; write [\"/path/of/program\", \"argument\"]"));
    }
    absolute(program)?;
    Ok(vec![program.to_owned()])
}

/// The program at place 0 of a command, or an argument of it.
fn argument(place: usize, value: &Value<'_>) -> Result<String, ValueProblem> {
    let word = string("expected an argument", value)?;
    if place == 0 {
        absolute(word)?;
    } else if word.contains('\0') {
        return Err(ValueProblem::new("must hold no NUL character"));
    }
    Ok(word.to_owned())
}

/// Reads a string, and refuses one that looks like a secret key.
fn string<'v>(expected: &str, value: &'v Value<'_>) -> Result<&'v str, ValueProblem> {
    let text = match value.get_ref() {
        DeValue::String(text) => text,
        DeValue::Array(_) | DeValue::Table(_) => return Err(other_kind(expected, value)),
        _ => return Err(other_kind(expected, value).help("put it in quotes")),
    };
    if ["sk_live_", "sk_test_"].iter().any(|prefix| text.contains(prefix)) {
        return Err(ValueProblem::new("this looks like a secret key").help(SECRETS_STAY_OUT));
    }
    Ok(text)
}

/// A value of another kind. The most frequent mistake is a number in quotes.
fn other_kind(expected: &str, value: &Value<'_>) -> ValueProblem {
    let problem = ValueProblem::kind(expected, value.get_ref());
    match value.get_ref() {
        DeValue::String(text) if text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok() => {
            problem.help("leave out the quotes")
        }
        _ => problem,
    }
}

/// Reads an absolute path.
fn absolute(text: &str) -> Result<PathBuf, ValueProblem> {
    if text.is_empty() {
        return Err(ValueProblem::new("is empty").help("leave the key out to use its default"));
    }
    if text.contains(char::is_control) {
        return Err(ValueProblem::new("must hold no control characters"));
    }
    if !text.starts_with('/') {
        return Err(ValueProblem::new("must be an absolute path, one that begins with `/`"));
    }
    Ok(PathBuf::from(text))
}

/// Reads an http or https URL.
fn web_address(expected: &str, value: &Value<'_>) -> Result<Url, ValueProblem> {
    let text = string(expected, value)?;
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| ValueProblem::new(expected))
}

/// Whether a URL names this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
