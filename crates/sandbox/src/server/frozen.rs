//! The first answers to lists, which are repeated from memory.
//!
//! Benchmarks use them, so that they measure the client and not the sandbox.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;

use crate::api::answer::ApiAnswer;
use crate::outcome::RequestOutcome;

/// The first answers, by their queries.
#[derive(Debug, Default)]
pub(crate) struct FrozenAnswers {
    answers: Mutex<HashMap<String, (ApiAnswer, Timestamp)>>,
    latency: Duration,
}

impl FrozenAnswers {
    /// Returns an empty store. Each answer takes at least `latency`.
    pub(crate) fn new(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    /// Returns the first answer to a list with this query, if there was one.
    pub(crate) async fn thaw(&self, query: &str) -> Option<RequestOutcome> {
        let found = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.get(query).cloned()
        };
        let (answer, date) = found?;
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        Some(RequestOutcome::plain(answer, date))
    }

    /// Stores an answer, unless it is an error.
    pub(crate) fn freeze(&self, query: String, outcome: &RequestOutcome) {
        if let RequestOutcome::Answer { answer, date, .. } = outcome
            && answer.status == StatusCode::OK
        {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.insert(query, (answer.clone(), *date));
        }
    }
}
