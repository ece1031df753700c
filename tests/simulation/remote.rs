//! A remote without HTTP: the reading half of the API, with trouble on request.

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
use komoju_sync::store::{Reader, write_beside};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::server::{Server, is_since};

/// What can go wrong with an answer.
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
        // A circle goes on until something else goes wrong, and counts once.
        match dice.random_ratio(1, 10) {
            true => Self::Endless,
            false => *Self::ALL.choose(dice).unwrap(),
        }
    }
}

impl Server {
    /// Whether this trouble strikes now.
    fn strikes(&mut self, on_list: bool, for_pushes: bool) -> Option<Trouble> {
        let (trouble, left) = self.trouble?;
        use Trouble::{EmptyList, Endless, Hidden, ShortList};
        use Trouble::{KeyRefused, Rejected, Throttled, Unreachable, Unusable};
        if !on_list && !matches!(trouble, Unreachable | Throttled | Rejected | KeyRefused | Unusable) {
            return None;
        }
        // A list that leaves somebody out, and its total with him, twice: by that nobody can tell what became of a create.
        if for_pushes && matches!(trouble, ShortList | EmptyList | Hidden) {
            return None;
        }
        // A circle is one only if it goes on.
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

/// A connection that reads the database, shared by whoever checks; none while nobody may have it open.
pub type Eyes = Arc<Mutex<Option<Reader>>>;

/// The remote as one key sees it.
pub struct Fake {
    pub server: Arc<Mutex<Server>>,
    pub account: usize,
    /// What a page past the end answers: nobody, or 404.
    pub refuses_past_end: bool,
    /// Where a person decides midway.
    pub database: PathBuf,
    /// What the database says when a push comes.
    pub eyes: Eyes,
    /// Whether this process has had an answer: by it, it knows what time it is there.
    pub heard: Arc<AtomicBool>,
    /// Whether it is the pusher's.
    pub for_pushes: bool,
    pub clock: Arc<ManualClock>,
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

    /// The request arrives: the server and what goes wrong with it.
    fn arrive(
        &self,
        call: ApiCall,
    ) -> Result<(std::sync::MutexGuard<'_, Server>, Option<Trouble>), RemoteError> {
        let mut server = self.server.lock().unwrap();
        server.requests += 1;
        let is_list = matches!(call, ApiCall::List { .. });
        if is_list {
            // Who reads a list long after a create was cut finds it done or not at all.
            server.finish_all_running();
        }
        let trouble = server.strikes(is_list, self.for_pushes);
        match trouble.and_then(|trouble| failure(trouble, call)) {
            Some(error) => {
                if error.status().is_some() {
                    self.heard.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
            None => {
                self.heard.store(true, Ordering::Relaxed);
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

pub fn told(status: u16, code: Option<&str>) -> ApiError {
    ApiError { status, code: code.map(str::to_owned), message: None, param: None }
}

fn failure(trouble: Trouble, call: ApiCall) -> Option<RemoteError> {
    let cause = match trouble {
        Trouble::Unreachable => ErrorCause::Unreachable { stage: RequestStage::Answer, why: "reset".into() },
        Trouble::Throttled => ErrorCause::Throttled(told(429, None)),
        Trouble::Rejected => ErrorCause::Rejected(told(400, None)),
        Trouble::KeyRefused => ErrorCause::KeyRefused(told(401, None)),
        Trouble::Unusable => ErrorCause::Unusable("not JSON".into()),
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
            // One page and another in turns, with ever more to come.
            Some(Trouble::Endless) if total > per_page => {
                skip = query.page % 2;
                total = (query.page + 2) * per_page;
            }
            _ => {}
        }
        if self.refuses_past_end && query.page > 1 && skip >= total {
            let call = ApiCall::List { page: query.page };
            let cause = ErrorCause::Rejected(told(404, Some("not_found")));
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
        // The page's first row once more, in place of its last.
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
        self.let_a_person_decide();
        self.shown(id)
    }

    fn requests(&self) -> u64 {
        self.server.lock().unwrap().requests
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        None
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.heard.load(Ordering::Relaxed).then(|| self.server.lock().unwrap().now())
    }
}
