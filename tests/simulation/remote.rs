//! A remote without HTTP: a list of customers for each of two accounts, and trouble on request.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use komoju_sync::model::{Customer, CustomerId, Listed, Page, PageQuery, time};
use komoju_sync::remote::error::ApiError;
use komoju_sync::remote::{Call, Cause, Remote, RemoteError, Shown};
use komoju_sync::store::holds::{self, Decision};
use komoju_sync::store::write_beside;
use serde_json::{Value, json};

/// What can go wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Unreachable,
    Throttled,
    Rejected,
    KeyRefused,
    Unusable,
    LyingTotal,
    SamePage,
    ShortList,
    EmptyList,
    Hidden,
    Endless,
}

impl Trouble {
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Throttled,
        Self::Rejected,
        Self::KeyRefused,
        Self::Unusable,
        Self::LyingTotal,
        Self::SamePage,
        Self::ShortList,
        Self::EmptyList,
        Self::Hidden,
        Self::Endless,
    ];
}

/// What happens to the list after one of its pages was answered.
#[derive(Clone, Copy, Debug)]
pub enum Shift {
    Delete,
    Create,
    Edit,
    Move,
}

#[derive(Default)]
pub struct Server {
    /// Newest first.
    pub lists: [Vec<Value>; 2],
    pub gone: Vec<Value>,
    pub trouble: Option<(Trouble, u32)>,
    pub shifts: VecDeque<Shift>,
    pub lists_hide_cards: bool,
    /// A person's word after so many more requests.
    pub midway: Option<(Decision, u64)>,
    pub fired: BTreeMap<String, u64>,
    pub requests: u64,
    made: u64,
}

impl Server {
    pub fn make(&mut self, account: usize, with_card: bool) {
        self.made += 1;
        let card = json!({"brand": "visa", "last_four_digits": format!("{:04}", self.made)});
        let created: Timestamp = Timestamp::from_second(1_767_225_600 + 7 * self.made as i64).unwrap();
        let customer = json!({
            "id": format!("c{account}x{}", self.made * 7919 % 10_007), "resource": "customer", "n": self.made,
            "email": format!("{}@example.com", self.made), "metadata": {},
            "source": if with_card { card } else { Value::Null }, "created_at": time::written(created),
        });
        self.lists[account].insert(0, customer);
    }

    pub fn edit(&mut self, place: usize, field: &str, value: Value) {
        let len = self.lists[0].len();
        if len > 0 {
            self.lists[0][place % len][field] = value;
        }
    }

    pub fn delete(&mut self, place: usize) {
        let len = self.lists[0].len();
        if len > 0 {
            let gone = self.lists[0].remove(place % len);
            self.gone.push(gone);
        }
    }

    fn count(&mut self, name: String) {
        *self.fired.entry(name).or_default() += 1;
    }

    fn shift(&mut self) {
        let Some(shift) = self.shifts.pop_front() else { return };
        self.count(format!("Shift::{shift:?}"));
        match shift {
            Shift::Delete => self.delete(1),
            Shift::Create => self.make(0, true),
            Shift::Edit => self.edit(2, "email", json!(format!("{}@edited.example", self.requests))),
            Shift::Move => {
                if let Some(last) = self.lists[0].pop() {
                    self.lists[0].insert(0, last);
                }
            }
        }
    }

    /// Whether this trouble strikes now.
    fn strikes(&mut self, on_list: bool) -> Option<Trouble> {
        let (trouble, left) = self.trouble?;
        use Trouble::{EmptyList, Endless, Hidden, LyingTotal, SamePage, ShortList};
        if !on_list && matches!(trouble, Endless | LyingTotal | SamePage | ShortList | EmptyList | Hidden) {
            return None;
        }
        // A circle is one only if it goes on.
        let left = if trouble == Endless { left + 1 } else { left };
        self.trouble = (left > 1).then_some((trouble, left - 1));
        self.count(format!("Trouble::{trouble:?}"));
        Some(trouble)
    }
}

/// The remote as one key sees it.
pub struct Fake {
    pub server: Arc<Mutex<Server>>,
    pub account: usize,
    /// What a page past the end answers: nobody, or 404.
    pub refuses_past_end: bool,
    /// Where a person decides midway.
    pub database: PathBuf,
}

impl Fake {
    fn let_a_person_decide(&self) {
        let decision = {
            let mut server = self.server.lock().unwrap();
            match server.midway {
                Some((decision, 0)) => {
                    server.midway = None;
                    Some(decision)
                }
                Some((decision, left)) => {
                    server.midway = Some((decision, left - 1));
                    None
                }
                None => None,
            }
        };
        if let Some(decision) = decision {
            // With nothing to decide this is refused, as it is for a person.
            let _ = write_beside(&self.database, |tx| holds::decide(tx, None, decision, "t", "midway"));
        }
    }
}

fn failure(trouble: Trouble, call: Call) -> Option<RemoteError> {
    let told = |status| ApiError { status, code: None, message: None, param: None };
    let cause = match trouble {
        Trouble::Unreachable => Cause::Unreachable("reset".into()),
        Trouble::Throttled => Cause::Throttled(told(429)),
        Trouble::Rejected => Cause::Rejected(told(400)),
        Trouble::KeyRefused => Cause::KeyRefused(told(401)),
        Trouble::Unusable => Cause::Unusable("not JSON".into()),
        _ => return None,
    };
    let retry_after = (trouble == Trouble::Throttled).then_some(Duration::from_secs(3));
    Some(RemoteError { call, cause, retry_after })
}

impl Remote for Fake {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        // The request is under way; one that was sent later may be answered earlier.
        for _ in 0..1 + query.page * 7 % 4 {
            tokio::task::yield_now().await;
        }
        self.let_a_person_decide();
        let mut server = self.server.lock().unwrap();
        server.requests += 1;
        let trouble = server.strikes(true);
        if let Some(error) = trouble.and_then(|trouble| failure(trouble, Call::List { page: query.page })) {
            return Err(error);
        }
        let from = query.created_from.map(time::written).unwrap_or_default();
        let mut list: Vec<Value> = server.lists[self.account]
            .iter()
            .filter(|customer| customer["created_at"].as_str().unwrap() >= from.as_str())
            .cloned()
            .collect();
        match trouble {
            Some(Trouble::ShortList) => list.truncate(list.len() / 2),
            Some(Trouble::EmptyList) => list.clear(),
            Some(Trouble::Hidden) => {
                let mut place = 0;
                list.retain(|_| {
                    place += 1;
                    place % 3 != 0
                });
            }
            _ => {}
        }
        let (mut total, per_page) = (list.len() as u64, u64::from(query.per_page));
        let mut skip = (query.page - 1) * per_page;
        match trouble {
            Some(Trouble::SamePage) => skip = 0,
            // One page and another in turns, with ever more to come.
            Some(Trouble::Endless) if total > per_page => {
                skip = query.page % 2;
                total = (query.page + 2) * per_page;
            }
            _ => {}
        }
        if self.refuses_past_end && query.page > 1 && skip >= total {
            let told = ApiError { status: 404, code: Some("not_found".into()), message: None, param: None };
            let call = Call::List { page: query.page };
            return Err(RemoteError { call, cause: Cause::Rejected(told), retry_after: None });
        }
        let hide = server.lists_hide_cards;
        let customers = list
            .into_iter()
            .skip(skip as usize)
            .take(per_page as usize)
            .map(|customer| Customer::from_value(customer).unwrap())
            .map(|customer| if hide { customer.with("source", Some(Value::Null)) } else { customer })
            .map(|customer| Listed::from_value(&customer.fields().clone().into()).unwrap())
            .collect();
        let last_page = total.div_ceil(per_page) + u64::from(trouble == Some(Trouble::LyingTotal));
        server.shift();
        Ok(Page { page: query.page, per_page, total, last_page, customers })
    }

    async fn show(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        tokio::task::yield_now().await;
        self.let_a_person_decide();
        let mut server = self.server.lock().unwrap();
        server.requests += 1;
        if let Some(error) = server.strikes(false).and_then(|t| failure(t, Call::Show { id: id.to_string() }))
        {
            return Err(error);
        }
        let found = server.lists[self.account].iter().find(|customer| customer["id"] == id.as_str());
        Ok(found.map_or(Shown::NotFound, |found| Shown::Found(Customer::from_value(found.clone()).unwrap())))
    }

    fn requests(&self) -> u64 {
        self.server.lock().unwrap().requests
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        None
    }

    fn server_time(&self) -> Option<Timestamp> {
        None
    }
}
