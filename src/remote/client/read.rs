//! Requests for one page of the list, and for one customer.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use url::Url;

use super::{Http, ONE_CUSTOMER, Terms};
use crate::remote::client::classify::too_large;
use crate::remote::error::{ApiCall, ErrorCause, RemoteError};
use crate::remote::limiter::Share;
use crate::remote::meter::Meter;
use crate::remote::wire::{self, CustomerReading};
use crate::remote::{CustomerAnswer, EventRemote, Remote};
use komoju_core::{CustomerId, EventPage, Page, PageQuery};

impl Remote for Http {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        self.listed(query).await
    }

    async fn show(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        self.shown(id, Share::Read).await
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        self.limiter.paused_until()
    }

    fn server_time(&self) -> Option<Timestamp> {
        let (date, at) = (*self.server_date.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(self.clock.elapsed().saturating_sub(at)).ok()
    }
}

impl EventRemote for Http {
    async fn events(&self, query: PageQuery) -> Result<EventPage, RemoteError> {
        let call = ApiCall::Events { page: query.page };
        let terms = Terms { share: Share::Event, limit: self.largest_answer };
        self.page(call, terms, self.page_url("events", query), wire::events).await
    }

    async fn show_hinted(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
        self.shown(id, Share::Hint).await
    }
}

impl Http {
    /// Requests one page of the list and reads it.
    async fn listed(&self, query: PageQuery) -> Result<Page, RemoteError> {
        let call = ApiCall::List { page: query.page };
        let limit = if query.per_page == 1 { ONE_CUSTOMER } else { self.largest_answer };
        let terms = Terms { share: Share::Read, limit };
        self.page(call, terms, self.page_url("customers", query), wire::page).await
    }

    /// Returns the URL of one page of a list.
    fn page_url(&self, list: &str, query: PageQuery) -> Url {
        let mut url = self.url(&[list]);
        let mut pairs = url.query_pairs_mut();
        pairs
            .append_pair("page", &query.page.to_string())
            .append_pair("per_page", &query.per_page.to_string());
        if let Some(from) = query.created_from {
            // Whole seconds, as the API writes them.
            pairs.append_pair("start_time", &format!("{from:.0}"));
        }
        drop(pairs);
        url
    }

    /// Requests one page of a list and reads it with `read`.
    async fn page<T>(
        &self,
        call: ApiCall,
        terms: Terms,
        url: Url,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, RemoteError> {
        let (mut meter, limit) = (Meter::new(&call, &*self.clock), terms.limit);
        let page = match self.get(&call, terms, url, &mut meter).await {
            Ok(answer) if answer.is_whole => read(&answer.body).map_err(|why| {
                let cause = ErrorCause::Unusable(self.masker.text(&why));
                RemoteError { call, cause, retry_after: None }
            }),
            Ok(answer) => {
                let cause = too_large(limit, wire::beginning(&answer.body));
                Err(RemoteError { call, cause, retry_after: None })
            }
            Err(error) => Err(error),
        };
        match &page {
            Ok(_) => meter.answered(true),
            Err(error) => meter.failed(error),
        }
        page
    }

    /// Requests one customer and reads it.
    pub(super) async fn shown(&self, id: &CustomerId, share: Share) -> Result<CustomerAnswer, RemoteError> {
        let call = ApiCall::Show { id: self.masker.name(id.as_str()) };
        let mut meter = Meter::new(&call, &*self.clock);
        let url = self.url(&["customers", id.as_str()]);
        let terms = Terms { share, limit: ONE_CUSTOMER };
        let shown = match self.get(&call, terms, url, &mut meter).await {
            Ok(answer) => match wire::one_customer(&answer.body, answer.is_whole) {
                CustomerReading::Customer(customer) if customer.id() == id => match customer.is_deleted() {
                    true => Ok(CustomerAnswer::NotFound),
                    false => Ok(CustomerAnswer::Found(customer)),
                },
                CustomerReading::Unreadable(bad) if bad.id.as_ref().is_none_or(|shown| shown == id) => {
                    Ok(CustomerAnswer::Unreadable(bad))
                }
                other => {
                    let why = match other {
                        CustomerReading::Other(why) => why,
                        _ => "the answer is about another customer".to_owned(),
                    };
                    let cause = ErrorCause::Unusable(self.masker.text(&why));
                    Err(RemoteError { call, cause, retry_after: None })
                }
            },
            Err(RemoteError { cause: ErrorCause::Rejected(told), .. })
                if matches!(told.status, 404 | 410) =>
            {
                Ok(CustomerAnswer::NotFound)
            }
            Err(other) => Err(other),
        };
        match &shown {
            Ok(CustomerAnswer::Unreadable(_)) => meter.unreadable(),
            Ok(shown) => meter.answered(matches!(shown, CustomerAnswer::Found(_))),
            Err(error) => meter.failed(error),
        }
        shown
    }
}
