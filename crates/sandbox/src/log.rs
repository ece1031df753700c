//! Owns the log of the latest requests.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::request::Request;

/// Older requests are forgotten beyond this, half of them at a time.
const LOGGED_MOST: usize = 10_000;
/// Of a longer body the log keeps the beginning.
const BODY_LOGGED: usize = 64 * 1024;

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
pub(crate) struct Log {
    seen: Vec<Seen>,
    count: u64,
}

impl Log {
    /// Remembers a request and gives it its number.
    pub(crate) fn add(&mut self, request: &Request, page: Option<u64>, at: Timestamp) -> u64 {
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

    pub(crate) fn answered(&mut self, number: u64, status: u16) {
        let found = self.seen.binary_search_by_key(&number, |seen| seen.number);
        if let Ok(index) = found {
            self.seen[index].status = Some(status);
        }
    }

    pub(crate) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// How many there were since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets the requests; their numbers go on.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, Method};

    use super::*;

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
