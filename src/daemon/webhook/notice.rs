//! A log message about something that may happen often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// EVERY controls how often the same message is logged.
const EVERY: Duration = Duration::from_secs(3600);

/// Counts until the next message is due. The first one is due at once.
#[derive(Debug, Default)]
pub(super) struct Notice(Mutex<(u64, Option<Duration>)>);

impl Notice {
    /// Counts one more. Returns how many there were since the last message, if one is due. `now` is
    /// by the steady clock.
    pub(super) fn count(&self, now: Duration) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| now.saturating_sub(last) < EVERY) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_message_is_due_at_once_and_the_next_after_an_hour() {
        let (notice, at) = (Notice::default(), Duration::from_secs);
        assert_eq!(notice.count(at(5)), Some(1));
        assert_eq!(notice.count(at(6)), None);
        assert_eq!(notice.count(at(3604)), None);
        assert_eq!(notice.count(at(3605)), Some(3));
        assert_eq!(notice.count(at(3606)), None);
    }
}
