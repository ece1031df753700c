//! The limit of requests a second, as a firewall in front of the API applies it.

use std::collections::VecDeque;

use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};

use crate::api::answer::ApiAnswer;
use crate::clock::moved;
use crate::readings::{RateLimit, Refused};

/// The time in which requests are counted.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The requests of the last second, and the end of a ban.
#[derive(Debug, Default)]
pub(crate) struct FirewallLimiter {
    /// When the requests of the last second were accepted.
    accepted: VecDeque<Timestamp>,
    /// Until when all requests are refused.
    banned_until: Option<Timestamp>,
}

impl FirewallLimiter {
    /// Accepts a request.
    ///
    /// # Errors
    /// The answer to a refused request.
    pub(crate) fn admit(&mut self, limit: &RateLimit, now: Timestamp) -> Result<(), ApiAnswer> {
        let ban = SignedDuration::from_secs(limit.ban_s.into());
        // A time in the future was recorded before the clock was set back.
        let banned = self.banned_until.is_some_and(|until| now < until && until <= moved(now, ban));
        self.accepted.retain(|&at| at <= now && now < moved(at, SECOND));
        if !banned && self.accepted.len() < limit.per_second.get() as usize {
            self.accepted.push_back(now);
            return Ok(());
        }
        self.banned_until = Some(moved(now, ban));
        let answer = match limit.refused {
            Refused::Json429 => ApiAnswer::plain_error(StatusCode::TOO_MANY_REQUESTS),
            Refused::Html403 => ApiAnswer::html(StatusCode::FORBIDDEN),
            Refused::Html429 => ApiAnswer::html(StatusCode::TOO_MANY_REQUESTS),
            Refused::Html503 => ApiAnswer::html(StatusCode::SERVICE_UNAVAILABLE),
        };
        Err(match limit.retry_after {
            true => answer.with_header("Retry-After", limit.ban_s.max(1).to_string()),
            false => answer,
        })
    }
}
