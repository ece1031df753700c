//! The call that lists customers.

use super::answer::ApiAnswer;
use super::context::Context;
use crate::account::ListView;
use crate::faults::{Fired, drift, shape};
use crate::readings::{DeletedListed, Envelope};

pub(crate) mod imprecise;
pub(crate) mod query;

use query::{ListPage, Query};

impl Context<'_> {
    /// Runs `GET /customers`.
    pub(crate) fn list(self, fired: &[Fired]) -> Result<ApiAnswer, ApiAnswer> {
        let (readings, draws) = (self.readings, self.draws);
        let mut query = Query::parse(&self.request.query, readings)?;
        let asked = query.page;
        shape::query(&mut query, fired);

        let reveal = self.reveal(readings.list_source);
        let state = self.account.listed(draws.is_lagging(readings));
        let with_deleted = readings.deleted_listed == DeletedListed::Flagged;
        let mut view = state.view(readings.order, query.seconds.clone(), with_deleted);
        if let Some(expiration) = query.expiration {
            let mut rows = state.rows(&view, 0..usize::MAX);
            rows.retain(|&row| state.expiry(row) == Some(expiration));
            view = ListView::of_rows(rows);
        }
        let view = shape::view(state, view, fired);
        let window = query.window(state.view_len(&view), readings)?;
        let rows = imprecise::rows(state, &view, &window, readings, draws);
        let text = |&row: &u32| state.text(row, reveal).or_else(|| state.deleted_text(row, reveal));
        let data = rows.iter().filter_map(text).collect();
        let resource = match readings.envelope {
            Envelope::CustomerList => "customer_list",
            Envelope::List => "list",
        };
        let mut page = ListPage::new(resource, &query, &window, data, (readings.list_times, self.now));
        imprecise::envelope(&mut page.envelope, &window, readings, draws);
        shape::page(&mut page, asked, fired);
        let answer = page.answer();

        if drift::is_among(fired) {
            let served = state.rows(&view, 0..usize::MAX);
            drift::after(self.account, self.now, readings.order, &served, window.positions.end, fired);
        }
        Ok(answer)
    }
}
