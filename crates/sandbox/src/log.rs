//! The log of the latest requests.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::request::Request;

/// LOGGED_MOST controls how many requests are kept. The older half is dropped beyond it.
const LOGGED_MOST: usize = 10_000;

/// BODY_LOGGED controls how many bytes of a body are kept.
const BODY_LOGGED: usize = 64 * 1024;

/// A request that arrived.
#[derive(Debug, Clone, Serialize)]
pub struct LoggedRequest {
    /// From 1; unique.
    pub number: u64,
    /// When it arrived, by the sandbox's clock.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// In upper case.
    pub method: String,
    /// As it was sent, percent-encoded.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// The requested page of a list.
    pub page: Option<u64>,
    /// In the order of the request, names in lower case, the key included.
    pub headers: Vec<(String, String)>,
    /// The first 64 KiB; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// The status of the answer. None while the request runs, and if the connection was closed
    /// instead.
    pub status: Option<u16>,
}

impl LoggedRequest {
    /// Returns the first header with this name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Serialises a time as text.
fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The latest requests.
#[derive(Debug, Default)]
pub(crate) struct Log {
    requests: Vec<LoggedRequest>,
    count: u64,
}

impl Log {
    /// Adds a request and returns its number.
    pub(crate) fn add(&mut self, request: &Request, page: Option<u64>, at: Timestamp) -> u64 {
        if self.requests.len() == LOGGED_MOST {
            self.requests.drain(..LOGGED_MOST / 2);
        }
        self.count += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.requests.push(LoggedRequest {
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

    /// Records the status of an answer.
    pub(crate) fn answered(&mut self, number: u64, status: u16) {
        let found = self.requests.binary_search_by_key(&number, |request| request.number);
        if let Ok(index) = found {
            self.requests[index].status = Some(status);
        }
    }

    /// Returns the latest requests.
    pub(crate) fn requests(&self) -> &[LoggedRequest] {
        &self.requests
    }

    /// Returns how many requests arrived since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Drops all requests. The numbers continue.
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, Method};

    use super::*;

    #[test]
    fn log_is_bounded_and_its_count_is_not() {
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
        assert_eq!(log.requests().len(), LOGGED_MOST / 2 + 1);
        log.answered(log.count(), 204);
        assert_eq!(log.requests().last().unwrap().status, Some(204));
        log.answered(1, 200);
    }
}
