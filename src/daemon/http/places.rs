//! The places for connections: how many are served at once, and which one is closed for a newer
//! one.
//!
//! A client that is slow, or that opens many connections and sends nothing, must not block other
//! clients. So a new connection is accepted even if all places are taken: the oldest connection
//! that has had [`SERVED_FOR`] is closed for it. An answer takes milliseconds, so this closes only
//! clients that do not send a request or do not read the answer.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::AbortHandle;

/// MOST_CONNECTIONS controls how many connections are served at once. A scrape needs one for
/// milliseconds.
const MOST_CONNECTIONS: usize = 32;

/// SERVED_FOR controls for how long a connection keeps its place in any case.
const SERVED_FOR: Duration = Duration::from_millis(100);

/// The open connections, oldest first: since when, and the task that serves it.
#[derive(Debug, Default)]
pub(super) struct Places(VecDeque<(Duration, AbortHandle)>);

impl Places {
    /// Returns the time until a connection can be accepted; zero: at once.
    pub(super) fn wait(&mut self, now: Duration) -> Duration {
        self.0.retain(|(_, task)| !task.is_finished());
        match self.0.front() {
            Some((since, _)) if self.0.len() >= MOST_CONNECTIONS => (*since + SERVED_FOR).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    /// Gives a place to a connection, and closes the oldest one if there is none.
    pub(super) fn take(&mut self, now: Duration, task: AbortHandle) {
        if self.0.len() >= MOST_CONNECTIONS
            && let Some((_, oldest)) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back((now, task));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinSet;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn oldest_connection_is_closed_after_its_guaranteed_time() {
        let (mut places, mut served) = (Places::default(), JoinSet::<()>::new());
        let tasks: Vec<_> = (0..32).map(|_| served.spawn(pending())).collect();
        for (ms, task) in (0..).zip(&tasks) {
            places.take(at(ms), task.clone());
        }
        assert_eq!(places.wait(at(40)), at(60), "the oldest has had 40 ms");
        assert_eq!(places.wait(at(100)), Duration::ZERO);
        places.take(at(100), served.spawn(pending()));
        let closed = served.join_next_with_id().await.unwrap().unwrap_err();
        assert_eq!((closed.is_cancelled(), closed.id()), (true, tasks[0].id()));
        assert_eq!(places.wait(at(100)), at(1), "the next one is a millisecond younger");
        tasks[5].abort();
        let ended = served.join_next_with_id().await.unwrap().unwrap_err();
        assert_eq!((ended.id(), places.wait(at(100))), (tasks[5].id(), Duration::ZERO), "a place is free");
        places.take(at(100), served.spawn(pending()));
        assert!(served.try_join_next().is_none(), "no connection is closed for it");
    }
}
