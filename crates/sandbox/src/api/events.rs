//! The calls that list and show events.

use hyper::StatusCode;
use serde_json::Value;

use super::answer::ApiAnswer;
use super::context::Context;
use super::list::query::{ListPage, Query};
use crate::account::ordered::Ordered;
use crate::readings::{EventAnswers, Events, Readings};

impl Context<'_> {
    /// Runs `GET /events`.
    pub(crate) fn events(self) -> Result<ApiAnswer, ApiAnswer> {
        available(self.readings)?;
        let query = Query::parse_events(&self.request.query, self.readings)?;
        let log = &self.account.events;
        let events: Vec<&Value> = match self.readings.events {
            Events::Kept | Events::WithWebhook => {
                log.list(self.now, query.seconds.as_ref(), self.readings, self.draws)
            }
            Events::Dropped => Vec::new(),
        };
        let window = query.window(events.len(), self.readings)?;
        let data = events[window.positions.clone()]
            .iter()
            .filter_map(|event| serde_json::value::to_raw_value(&Ordered(event)).ok())
            .collect();
        let times = (self.readings.list_times, self.now);
        Ok(ListPage::new("list", &query, &window, data, times).answer())
    }

    /// Runs `GET /events/{id}`.
    pub(crate) fn event(self, id: &str) -> Result<ApiAnswer, ApiAnswer> {
        available(self.readings)?;
        let is_listed = self.readings.events != Events::Dropped;
        let event = self.account.events.get(id, self.now, self.readings).filter(|_| is_listed);
        event
            .map(|event| ApiAnswer::ok(&Ordered(event)))
            .ok_or_else(|| ApiAnswer::not_found("There is no such event."))
    }
}

/// Returns the answer of a reading under which no request gets events. `Hang` has delayed the
/// request until the reading changed.
fn available(readings: &Readings) -> Result<(), ApiAnswer> {
    Err(match readings.event_answers {
        EventAnswers::Events | EventAnswers::Hang => return Ok(()),
        EventAnswers::Json403 => ApiAnswer::plain_error(StatusCode::FORBIDDEN),
        EventAnswers::Json404 => ApiAnswer::plain_error(StatusCode::NOT_FOUND),
        EventAnswers::Json500 => ApiAnswer::plain_error(StatusCode::INTERNAL_SERVER_ERROR),
        EventAnswers::Html200 => ApiAnswer::html(StatusCode::OK),
        EventAnswers::Html403 => ApiAnswer::html(StatusCode::FORBIDDEN),
    })
}
