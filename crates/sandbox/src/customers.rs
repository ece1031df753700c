//! The calls of the customers API, as KOMOJU's documents and SDKs describe them.

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::account::{Account, Reveal, View, source_value};
use super::answer::Answer;
use super::cards;
use super::fault::Fired;
use super::form;
use super::imprecise::{self, Draws};
use super::listing::{Page, Query};
use super::ordered::Ordered;
use super::readings::{
    Delete, Deleted, DeletedListed, Envelope, Events, Locale, Metadata, NullEmail, PaymentDetails, Readings,
    Source,
};
use super::request::{Request, Route};
use super::world::{Counts, World};
use super::{drift, shape};

const METADATA_KEY_MOST: usize = 30;
const METADATA_VALUE_MOST: usize = 2000;
/// From this version on, customers have a locale.
const LOCALE_SINCE: &str = "2025-01-28";

/// Does what a request asks for, in the account its key opened.
pub(super) fn answer(
    world: &mut World,
    account: usize,
    request: &Request,
    number: u64,
    route: &Route,
    fired: &[Fired],
) -> Answer {
    let now = world.now();
    world.tick(account);
    let desk = Desk {
        now,
        readings: &world.readings,
        account: &mut world.accounts[account],
        counts: &mut world.counts,
        draws: Draws::new(world.readings.seed, number),
        request,
    };
    let answer = match route {
        Route::List => desk.list(fired),
        Route::Create => desk.create(),
        Route::Show(id) => desk.show(id),
        Route::Update(id) => desk.update(id),
        Route::Delete(id) => desk.delete(id),
        Route::Events => desk.events(),
        Route::Event(id) => desk.event(id),
        Route::Nowhere => Err(Answer::not_found("There is nothing at this address.")),
    };
    answer.unwrap_or_else(|refused| refused)
}

/// Everything a call needs.
struct Desk<'a> {
    now: jiff::Timestamp,
    readings: &'a Readings,
    account: &'a mut Account,
    counts: &'a mut Counts,
    request: &'a Request,
    draws: Draws,
}

impl Desk<'_> {
    fn list(self, fired: &[Fired]) -> Result<Answer, Answer> {
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
            view = View::of_rows(rows);
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
        let mut page = Page::new(resource, &query, &window, data, (readings.list_times, self.now));
        imprecise::envelope(&mut page.envelope, &window, readings, draws);
        shape::page(&mut page, asked, fired);
        let answer = page.answer();

        if drift::is_among(fired) {
            let served = state.rows(&view, 0..usize::MAX);
            drift::after(self.account, self.now, readings.order, &served, window.positions.end, fired);
        }
        Ok(answer)
    }

    fn show(self, id: &str) -> Result<Answer, Answer> {
        let readings = self.readings;
        let reveal = self.reveal(readings.show_source);
        let state = self.account.shown(self.draws.is_lagging(readings));
        let row = state.row_ever(id).ok_or_else(no_customer)?;
        if let Some(customer) = state.text(row, reveal) {
            return Ok(Answer::ok(&customer));
        }
        let message = "This customer was deleted.";
        match readings.deleted {
            Deleted::NotFound => Err(no_customer()),
            Deleted::OtherCode => Err(Answer::error(StatusCode::NOT_FOUND, "customer_deleted", message)),
            Deleted::Gone => Err(Answer::error(StatusCode::GONE, "gone", message)),
            Deleted::Flagged => Ok(Answer::ok(&state.deleted_text(row, reveal))),
        }
    }

    fn create(mut self) -> Result<Answer, Answer> {
        let parameters = self.parameters()?;
        let email = match parameters.get("email") {
            None | Some(Value::Null) => Value::Null,
            Some(email @ Value::String(_)) => email.clone(),
            Some(_) => return Err(Answer::invalid("email", "it is not a text")),
        };
        let metadata = metadata(&parameters)?.unwrap_or_default();
        self.check_metadata_keys(&metadata)?;
        let details = given(&parameters, "payment_details");
        if details.is_none() && self.readings.payment_details == PaymentDetails::Required {
            return Err(Answer::missing("payment_details"));
        }
        let source = self.source(details)?;
        let fields = Map::from_iter([
            ("email".to_owned(), email),
            ("metadata".to_owned(), Value::Object(metadata)),
            ("source".to_owned(), source.unwrap_or_default()),
        ]);
        let id = self.account.create(self.now, Value::Object(fields));
        self.counts.creates += 1;
        self.written(&id)
    }

    fn update(mut self, id: &str) -> Result<Answer, Answer> {
        let Some(Value::Object(mut body)) = self.account.get(id) else {
            return Err(no_customer());
        };
        let parameters = self.parameters()?;
        match (parameters.get("email"), self.readings.null_email) {
            (None, _) | (Some(Value::Null), NullEmail::Ignored) => {}
            (Some(email @ Value::String(_)), _) | (Some(email @ Value::Null), NullEmail::Clears) => {
                body.insert("email".to_owned(), email.clone());
            }
            (Some(_), _) => return Err(Answer::invalid("email", "it is not a text")),
        }
        if let Some(given) = metadata(&parameters)? {
            let metadata = match (self.readings.metadata, body.remove("metadata")) {
                (Metadata::Merged, Some(Value::Object(mut old))) => {
                    old.extend(given);
                    old
                }
                _ => given,
            };
            self.check_metadata_keys(&metadata)?;
            body.insert("metadata".to_owned(), Value::Object(metadata));
        }
        if let Some(source) = self.source(given(&parameters, "payment_details"))? {
            body.insert("source".to_owned(), source);
        }
        self.account.update(self.now, id, Value::Object(body));
        self.counts.updates += 1;
        self.written(id)
    }

    fn delete(self, id: &str) -> Result<Answer, Answer> {
        let reveal = self.reveal(self.readings.show_source);
        let state = self.account.newest();
        let row = state.row(id).ok_or_else(no_customer)?;
        let answer = match self.readings.delete {
            Delete::Customer => Answer::ok(&state.text(row, reveal)),
            Delete::NoContent => Answer::no_content(),
        };
        self.account.delete(self.now, id);
        self.counts.deletes += 1;
        Ok(answer)
    }

    fn events(self) -> Result<Answer, Answer> {
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
        Ok(Page::new("list", &query, &window, data, times).answer())
    }

    fn event(self, id: &str) -> Result<Answer, Answer> {
        let kept = self.readings.events == Events::Kept;
        let event = self.account.events.get(id).filter(|_| kept);
        event
            .map(|event| Answer::ok(&Ordered(event)))
            .ok_or_else(|| Answer::not_found("There is no such event."))
    }

    /// The answer to a create or update, which always reveals `source`.
    fn written(&self, id: &str) -> Result<Answer, Answer> {
        let reveal = self.reveal(Source::Shown);
        let state = self.account.newest();
        let customer = state.row(id).and_then(|row| state.text(row, reveal));
        customer.map(|customer| Answer::ok(&customer)).ok_or_else(no_customer)
    }

    fn parameters(&self) -> Result<Map<String, Value>, Answer> {
        let parameters = form::parameters(self.request.header("content-type"), &self.request.body)
            .map_err(|why| Answer::bad_request(&why))?;
        match given(&parameters, "currency") {
            None => {}
            Some(Value::String(code))
                if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) => {}
            Some(_) => return Err(Answer::invalid("currency", "it is not a code of three letters")),
        }
        Ok(parameters)
    }

    /// The new `source`; `None` leaves it as it is.
    fn source(&mut self, details: Option<&Value>) -> Result<Option<Value>, Answer> {
        let Some(details) = details else {
            return Ok(None);
        };
        let card = cards::card(details, &mut self.account.tokens, self.now)?;
        Ok(Some(source_value(&card)))
    }

    fn check_metadata_keys(&self, metadata: &Map<String, Value>) -> Result<(), Answer> {
        match self.readings.metadata_keys_max {
            Some(most) if metadata.len() > most => Err(Answer::invalid("metadata", "it has too many keys")),
            _ => Ok(()),
        }
    }

    fn reveal(&self, source: Source) -> Reveal {
        let locale = match self.readings.locale {
            Locale::Shown => true,
            Locale::Hidden => false,
            // Versions are dates, so that text order is their order.
            Locale::ByVersion => {
                let version = self.request.header("x-komoju-api-version");
                version.is_some_and(|version| version >= LOCALE_SINCE)
            }
        };
        Reveal { source: source == Source::Shown, locale }
    }
}

/// A parameter that is there and not null.
fn given<'a>(parameters: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    parameters.get(name).filter(|value| !value.is_null())
}

fn metadata(parameters: &Map<String, Value>) -> Result<Option<Map<String, Value>>, Answer> {
    let metadata = match given(parameters, "metadata") {
        None => return Ok(None),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err(Answer::invalid("metadata", "it is not an object")),
    };
    for (key, value) in metadata {
        if key.chars().count() > METADATA_KEY_MOST {
            return Err(Answer::invalid("metadata", "a key is longer than 30 characters"));
        }
        match value {
            Value::String(text) if text.chars().count() <= METADATA_VALUE_MOST => {}
            Value::String(_) => {
                return Err(Answer::invalid("metadata", "a value is longer than 2000 characters"));
            }
            _ => return Err(Answer::invalid("metadata", "a value is not a text")),
        }
    }
    Ok(Some(metadata.clone()))
}

fn no_customer() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "not_found", "There is no such customer.")
}
