//! `Retry-After`: how long an answer asks us to wait.

use std::time::Duration;

use jiff::Timestamp;

/// The wait that a header of this text asks for, `now` being the server's own time: seconds, or a date. A moment that is past and
/// a text that is neither ask for nothing. Not bounded: the limiter does that.
pub(super) fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than a number holds are as good as for ever.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    until.duration_since(now.try_into().ok()?).ok().filter(|wait| !wait.is_zero())
}
