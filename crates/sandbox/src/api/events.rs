//! Owns the calls that list and show events.

use serde_json::Value;

use super::answer::ApiAnswer;
use super::context::Context;
use super::list::query::{ListPage, Query};
use crate::account::ordered::Ordered;
use crate::readings::Events;

impl Context<'_> {
    /// Runs `GET /events`.
    pub(crate) fn events(self) -> Result<ApiAnswer, ApiAnswer> {
        let query = Query::parse(&self.request.query, self.readings)?;
        let events: Vec<&Value> = match self.readings.events {
            Events::Kept => self.account.events.newest_first(query.seconds.clone()).collect(),
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
        let kept = self.readings.events == Events::Kept;
        let event = self.account.events.get(id).filter(|_| kept);
        event
            .map(|event| ApiAnswer::ok(&Ordered(event)))
            .ok_or_else(|| ApiAnswer::not_found("There is no such event."))
    }
}
