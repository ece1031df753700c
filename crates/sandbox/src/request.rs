//! Requests as the sandbox looks at them: read whole, routed, and remembered.

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

use super::fault::{Asked, Call};
use super::listing::Query;

const BASE: &str = "/api/v1";
/// Older requests are forgotten beyond this, half of them at a time.
const LOGGED_MOST: usize = 10_000;
/// Of a longer body the log keeps the beginning.
const BODY_LOGGED: usize = 64 * 1024;

/// A request with its body.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// As it came, percent-encoded.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn path_and_query(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    pub(super) fn route(&self) -> Route {
        Route::of(&self.method, &self.path)
    }

    /// What faults may ask about it.
    pub(super) fn asked(&self, route: &Route) -> Asked<'_> {
        let call = route.call();
        let page = match call {
            Some(Call::List | Call::Events) => Some(Query::page_of(&self.query).unwrap_or(1)),
            _ => None,
        };
        Asked {
            method: self.method.as_str(),
            path: self.path.strip_prefix(BASE).unwrap_or(&self.path),
            call,
            page,
        }
    }
}

/// Where a request leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    List,
    Create,
    Show(String),
    Update(String),
    Delete(String),
    Events,
    Event(String),
    Nowhere,
}

impl Route {
    fn of(method: &Method, path: &str) -> Self {
        let Some((collection, id)) = path.strip_prefix(BASE).and_then(split) else {
            return Self::Nowhere;
        };
        match (method.as_str(), collection, id) {
            ("GET", "customers", None) => Self::List,
            ("POST", "customers", None) => Self::Create,
            ("GET", "customers", Some(id)) => Self::Show(id),
            ("PATCH", "customers", Some(id)) => Self::Update(id),
            ("DELETE", "customers", Some(id)) => Self::Delete(id),
            ("GET", "events", None) => Self::Events,
            ("GET", "events", Some(id)) => Self::Event(id),
            _ => Self::Nowhere,
        }
    }

    pub(super) fn call(&self) -> Option<Call> {
        Some(match self {
            Self::List => Call::List,
            Self::Create => Call::Create,
            Self::Show(_) => Call::Show,
            Self::Update(_) => Call::Update,
            Self::Delete(_) => Call::Delete,
            Self::Events => Call::Events,
            Self::Event(_) => Call::Event,
            Self::Nowhere => return None,
        })
    }
}

/// `/collection` or `/collection/id`.
pub(super) fn split(path: &str) -> Option<(&str, Option<String>)> {
    let path = path.strip_prefix('/')?;
    let Some((collection, id)) = path.split_once('/') else {
        return Some((path, None));
    };
    if id.is_empty() || id.contains('/') {
        return None;
    }
    let id = percent_decode_str(id).decode_utf8().ok()?;
    Some((collection, Some(id.into_owned())))
}

/// A request that came in.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Counts from 1 and is never used again.
    pub number: u64,
    /// When it came, by the sandbox's clock.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// In upper case.
    pub method: String,
    /// As it came, percent-encoded.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// The page a list was asked for.
    pub page: Option<u64>,
    /// In the order they came, names in lower case, the key included.
    pub headers: Vec<(String, String)>,
    /// The first 64 KiB, with what is no UTF-8 replaced.
    pub body: String,
    /// What was answered. `None` while it runs, and for ever when the connection was closed instead.
    pub status: Option<u16>,
}

impl Seen {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The latest requests.
#[derive(Debug, Default)]
pub(super) struct Log {
    seen: Vec<Seen>,
    count: u64,
}

impl Log {
    /// Remembers a request and gives it its number.
    pub(super) fn add(&mut self, request: &Request, page: Option<u64>, at: Timestamp) -> u64 {
        if self.seen.len() == LOGGED_MOST {
            self.seen.drain(..LOGGED_MOST / 2);
        }
        self.count += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.seen.push(Seen {
            number: self.count,
            at,
            method: request.method.to_string(),
            path: request.path.clone(),
            query: request.query.clone(),
            page,
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            body: text(&request.body[..request.body.len().min(BODY_LOGGED)]),
            status: None,
        });
        self.count
    }

    pub(super) fn answered(&mut self, number: u64, status: u16) {
        let found = self.seen.binary_search_by_key(&number, |seen| seen.number);
        if let Ok(index) = found {
            self.seen[index].status = Some(status);
        }
    }

    pub(super) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// How many there were since the start.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets the requests; their numbers go on.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_calls_and_all_else_nowhere() {
        let id = || "a/b é".to_owned();
        for (method, path, route) in [
            (Method::GET, "/api/v1/customers", Route::List),
            (Method::POST, "/api/v1/customers", Route::Create),
            (Method::GET, "/api/v1/customers/a%2Fb%20%C3%A9", Route::Show(id())),
            (Method::PATCH, "/api/v1/customers/a%2Fb%20%C3%A9", Route::Update(id())),
            (Method::DELETE, "/api/v1/customers/a%2Fb%20%C3%A9", Route::Delete(id())),
            (Method::GET, "/api/v1/events", Route::Events),
            (Method::GET, "/api/v1/events/x", Route::Event("x".to_owned())),
            (Method::PUT, "/api/v1/customers", Route::Nowhere),
            (Method::GET, "/api/v1/customers/", Route::Nowhere),
            (Method::GET, "/api/v1/customers/a/b", Route::Nowhere),
            (Method::GET, "/api/v1/customers/%FF", Route::Nowhere),
            (Method::GET, "/api/v1/payments", Route::Nowhere),
            (Method::GET, "/customers", Route::Nowhere),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }

    #[test]
    fn the_log_is_bounded_and_counts_on() {
        let request = Request {
            method: Method::GET,
            path: "/".to_owned(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let mut log = Log::default();
        for _ in 0..=LOGGED_MOST {
            log.add(&request, None, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(log.count(), LOGGED_MOST as u64 + 1);
        assert_eq!(log.seen().len(), LOGGED_MOST / 2 + 1);
        log.answered(log.count(), 204);
        assert_eq!(log.seen().last().unwrap().status, Some(204));
        log.answered(1, 200);
    }
}
