//! The store behind `X-KOMOJU-IDEMPOTENCY`.
//!
//! A key belongs to an account. It is valid for 24 hours after its first use, by the sandbox's
//! clock. After that a request with the same key is a new request, and its work is done again. So a
//! client that retries too late creates a customer twice, which a test can see.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};

use crate::api::answer::ApiAnswer;

/// VALID_FOR controls how long a key is valid after its first use.
const VALID_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How many characters a key may have.
const LENGTH_MOST: usize = 100;

/// The first use of each key, and its answer.
#[derive(Debug, Default)]
pub(crate) struct IdempotencyStore {
    uses: HashMap<Ticket, Use>,
}

/// A key within its account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    account: usize,
    key: String,
}

/// The first use of a key.
#[derive(Debug)]
struct Use {
    first: Timestamp,
    body: Bytes,
    /// None while the first request runs.
    answer: Option<ApiAnswer>,
}

impl IdempotencyStore {
    /// Begins a request.
    ///
    /// # Errors
    /// The answer, if the work must not be done, or not again.
    pub(crate) fn begin(
        &mut self,
        account: usize,
        key: &str,
        body: &Bytes,
        now: Timestamp,
    ) -> Result<Ticket, ApiAnswer> {
        if key.is_empty() || key.len() > LENGTH_MOST || !key.is_ascii() {
            let why = "it must have 1 to 100 ASCII characters";
            return Err(ApiAnswer::invalid("X-KOMOJU-IDEMPOTENCY", why));
        }
        let ticket = Ticket { account, key: key.to_owned() };
        if let Some(earlier) = self.uses.get(&ticket) {
            let age = now.duration_since(earlier.first);
            let good = age < SignedDuration::try_from(VALID_FOR).unwrap_or(SignedDuration::MAX);
            match &earlier.answer {
                None => {
                    let message = "A request with this idempotency key is still running.";
                    return Err(ApiAnswer::error(StatusCode::CONFLICT, "conflict", message));
                }
                Some(_) if good && earlier.body != *body => {
                    let why = "it was used with another body";
                    return Err(ApiAnswer::invalid("X-KOMOJU-IDEMPOTENCY", why));
                }
                Some(answer) if good => return Err(answer.clone()),
                Some(_) => {}
            }
        }
        let fresh = Use { first: now, body: body.clone(), answer: None };
        self.uses.insert(ticket.clone(), fresh);
        Ok(ticket)
    }

    /// Stores the first answer.
    pub(crate) fn finish(&mut self, ticket: &Ticket, answer: &ApiAnswer) {
        if let Some(running) = self.uses.get_mut(ticket) {
            running.answer = Some(answer.clone());
        }
    }

    /// Forgets the use of a key.
    pub(crate) fn forget(&mut self, ticket: &Ticket) {
        self.uses.remove(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn key_is_valid_for_a_day_and_new_after_it() {
        let mut store = IdempotencyStore::default();
        let body = Bytes::from_static(b"{}");
        let first = at("2026-01-01T00:00:00Z");
        let ticket = store.begin(0, "k", &body, first).unwrap();
        assert_eq!(store.begin(0, "k", &body, first).unwrap_err().status, 409);

        store.finish(&ticket, &ApiAnswer::ok(&"created"));
        let replay = store.begin(0, "k", &body, at("2026-01-01T23:59:59Z")).unwrap_err();
        assert_eq!((replay.status.as_u16(), &replay.body[..]), (200, &b"\"created\""[..]));
        let other = store.begin(0, "k", &Bytes::from_static(b"{ }"), first).unwrap_err();
        assert_eq!(other.status, 422);
        assert!(store.begin(1, "k", &body, first).is_ok(), "another account's key");
        assert!(store.begin(0, "k", &body, at("2026-01-02T00:00:00Z")).is_ok());
    }

    #[test]
    fn forgotten_key_is_new() {
        let mut store = IdempotencyStore::default();
        let now = at("2026-01-01T00:00:00Z");
        let ticket = store.begin(0, "k", &Bytes::new(), now).unwrap();
        store.forget(&ticket);
        assert!(store.begin(0, "k", &Bytes::from_static(b"x"), now).is_ok());
    }

    #[test]
    fn key_that_is_too_long_or_not_ascii_is_refused() {
        let mut store = IdempotencyStore::default();
        let now = at("2026-01-01T00:00:00Z");
        assert!(store.begin(0, &"k".repeat(100), &Bytes::new(), now).is_ok());
        for key in ["", &"k".repeat(101), "キー"] {
            assert_eq!(store.begin(0, key, &Bytes::new(), now).unwrap_err().status, 422);
        }
    }
}
