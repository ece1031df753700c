//! A remote without HTTP: the reading half of the API, with faults on request.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use komoju_core::{Customer, CustomerId, Hints, Page, PageQuery, RawCustomer};
use komoju_sync::clock::ManualClock;
use komoju_sync::remote::error::ApiError;
use komoju_sync::remote::{ApiCall, CustomerAnswer, ErrorCause, Remote, RemoteError, RequestStage};
use komoju_sync::store::log::holds;
use komoju_sync::store::{Reader, write_as_operator};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::server::{Server, is_since};

/// The faults of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Unreachable,
    Throttled,
    Rejected,
    KeyRefused,
    Unusable,
    LyingTotal,
    TotalTooHigh,
    NoHints,
    RepeatedRow,
    SamePage,
    ShortList,
    EmptyList,
    Hidden,
    Endless,
}

impl Trouble {
    pub const ALL: [Self; 14] = [
        Self::Unreachable,
        Self::Throttled,
        Self::Rejected,
        Self::KeyRefused,
        Self::Unusable,
        Self::LyingTotal,
        Self::TotalTooHigh,
        Self::NoHints,
        Self::RepeatedRow,
        Self::SamePage,
        Self::ShortList,
        Self::EmptyList,
        Self::Hidden,
        Self::Endless,
    ];

    pub fn any(dice: &mut StdRng) -> Self {
        // The endless list continues until another fault replaces it, and counts once.
        match dice.random_ratio(1, 10) {
            true => Self::Endless,
            false => *Self::ALL.choose(dice).unwrap(),
        }
    }
}

impl Server {
    /// Returns the fault of this request, if there is one.
    fn strikes(&mut self, on_list: bool, for_pushes: bool) -> Option<Trouble> {
        let (trouble, left) = self.trouble?;
        use Trouble::{EmptyList, Endless, Hidden, ShortList};
        use Trouble::{KeyRefused, Rejected, Throttled, Unreachable, Unusable};
        if !on_list && !matches!(trouble, Unreachable | Throttled | Rejected | KeyRefused | Unusable) {
            return None;
        }
        // If a list leaves out a customer twice and its total counts that customer, the outcome of
        // a create cannot be determined.
        if for_pushes && matches!(trouble, ShortList | EmptyList | Hidden) {
            return None;
        }
        // The endless list does not end by itself.
        if trouble != Endless {
            self.trouble = (left > 1).then_some((trouble, left - 1));
        } else if left > 0 {
            self.trouble = Some((trouble, 0));
        }
        if left > 0 {
            self.count(format!("Trouble::{trouble:?}"));
        }
        Some(trouble)
    }
}

/// A shared connection that reads the database; `None` while no connection may be open.
pub type SharedReader = Arc<Mutex<Option<Reader>>>;

/// The remote for one key.
pub struct Fake {
    pub server: Arc<Mutex<Server>>,
    pub account: usize,
    /// Whether a page past the end is answered 404, or else is empty.
    pub refuses_past_end: bool,
    /// The database in which the operator decides during a pass.
    pub database: PathBuf,
    /// Reads the state of the intent when a push arrives.
    pub reader: SharedReader,
    /// Whether this process has had an answer, and so knows the server's time.
    pub has_answered: Arc<AtomicBool>,
    /// Whether the pusher uses it.
    pub for_pushes: bool,
    pub clock: Arc<ManualClock>,
}

impl Fake {
    fn decide_midway(&self) {
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
            // Without a hold this is refused, as for an operator.
            let _ = write_as_operator(&self.database, |tx| holds::decide(tx, None, decision, "t", "midway"));
        }
    }

    /// Handles the arrival of a request. Returns the server and the fault.
    pub fn arrive(
        &self,
        call: ApiCall,
    ) -> Result<(std::sync::MutexGuard<'_, Server>, Option<Trouble>), RemoteError> {
        let mut server = self.server.lock().unwrap();
        server.requests += 1;
        let is_list = matches!(call, ApiCall::List { .. });
        if is_list {
            // A list long after an interrupted create shows it as done or not at all.
            server.finish_all_running();
        }
        let trouble = server.strikes(is_list, self.for_pushes);
        match trouble.and_then(|trouble| failure(trouble, call)) {
            Some(error) => {
                if error.status().is_some() {
                    self.has_answered.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
            None => {
                self.has_answered.store(true, Ordering::Relaxed);
                Ok((server, trouble))
            }
        }
    }

    pub fn shown(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        let (server, _) = self.arrive(ApiCall::Show { id: id.to_string() })?;
        let found = server.find(self.account, id.as_str()).map(|at| server.lists[self.account][at].clone());
        Ok(found.map_or(CustomerAnswer::NotFound, |found| {
            CustomerAnswer::Found(Customer::from_value(found).unwrap())
        }))
    }
}

pub fn api_error(status: u16, code: Option<&str>) -> ApiError {
    ApiError { status, code: code.map(str::to_owned), message: None, param: None }
}

fn failure(trouble: Trouble, call: ApiCall) -> Option<RemoteError> {
    let cause = match trouble {
        Trouble::Unreachable => ErrorCause::Unreachable { stage: RequestStage::Answer, why: "reset".into() },
        Trouble::Throttled => ErrorCause::Throttled(api_error(429, None)),
        Trouble::Rejected => ErrorCause::Rejected(api_error(400, None)),
        Trouble::KeyRefused => ErrorCause::KeyRefused(api_error(401, None)),
        Trouble::Unusable => ErrorCause::Unusable("not JSON".into()),
        _ => return None,
    };
    let retry_after = (trouble == Trouble::Throttled).then_some(Duration::from_secs(3));
    Some(RemoteError { call, cause, retry_after })
}

impl Remote for Fake {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        // The request is in flight. A later one may be answered earlier.
        for _ in 0..1 + query.page * 7 % 4 {
            tokio::task::yield_now().await;
        }
        self.decide_midway();
        let (mut server, trouble) = self.arrive(ApiCall::List { page: query.page })?;
        let mut list: Vec<&Value> = server.lists[self.account]
            .iter()
            .filter(|customer| is_since(customer, query.created_from))
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
            // Two pages in turns, and the hints promise more.
            Some(Trouble::Endless) if total > per_page => {
                skip = query.page % 2;
                total = (query.page + 2) * per_page;
            }
            _ => {}
        }
        if self.refuses_past_end && query.page > 1 && skip >= total {
            let call = ApiCall::List { page: query.page };
            let cause = ErrorCause::Rejected(api_error(404, Some("not_found")));
            return Err(RemoteError { call, cause, retry_after: None });
        }
        let hide = server.lists_hide_cards;
        let first = list.get(skip as usize).copied();
        let mut customers: Vec<RawCustomer> = list
            .into_iter()
            .skip(skip as usize)
            .take(per_page as usize)
            .map(|customer| Customer::from_value(customer.clone()).unwrap())
            .map(|customer| if hide { customer.with("source", Some(Value::Null)) } else { customer })
            .map(|customer| RawCustomer::from_value(&customer.fields().clone().into()).unwrap())
            .collect();
        // The first row of the page replaces its last.
        if trouble == Some(Trouble::RepeatedRow)
            && let (Some(first), Some(last)) = (first.filter(|_| !hide), customers.last_mut())
        {
            *last = RawCustomer::from_value(first).unwrap();
        }
        total += 3 * u64::from(trouble == Some(Trouble::TotalTooHigh));
        let last_page = total.div_ceil(per_page) + u64::from(trouble == Some(Trouble::LyingTotal));
        server.shift();
        let hints = match trouble {
            Some(Trouble::NoHints) => Hints::default(),
            _ => Hints {
                page: Some(query.page),
                per_page: Some(per_page),
                total: Some(total),
                last_page: Some(last_page),
            },
        };
        Ok(Page { hints, customers, ..Page::default() })
    }

    async fn show(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        tokio::task::yield_now().await;
        self.decide_midway();
        self.shown(id)
    }

    fn requests(&self) -> u64 {
        self.server.lock().unwrap().requests
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        None
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.has_answered.load(Ordering::Relaxed).then(|| self.server.lock().unwrap().now())
    }
}
