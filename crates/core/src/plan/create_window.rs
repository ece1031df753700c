//! Reads the window of a create: the customers created since a given time, as the API lists them.
//!
//! The list may move during the reading, and its `total` may be wrong. So the window is read until
//! two readings in a row agree. `total` decides only whether the window proves absence
//! ([`WindowCoverage`]). The caller sends the requests: it requests the page of
//! [`WindowReading::query`] and passes the answer to [`WindowReading::take`].

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use crate::format::count;
use crate::plan::creates::{CreateMatcher, WindowCoverage};
use crate::plan::key_age::KeyTrust;
use crate::plan::walk;
use crate::remote::error::{ErrorCause, RemoteError};
use crate::{Customer, CustomerId, Page, PageQuery, time};

/// OWN_PER_PAGE is the API's default page size. It is requested from a server that refuses a larger
/// one.
const OWN_PER_PAGE: u32 = 10;

/// READINGS limits how many times the window is read until two readings in a row agree.
const READINGS: usize = 5;

/// MOST_TOO_LARGE limits how many pages with one customer each may be too large in one reading.
const MOST_TOO_LARGE: u32 = 100;

/// MOST_PAGES limits the pages of one reading, whatever the hints promise.
const MOST_PAGES: u64 = 10_000;

/// The search criteria for a create's customer.
#[derive(Clone, Debug)]
pub struct WindowQuery {
    /// The earliest creation time.
    pub from: Timestamp,
    /// The criteria for a customer of this create.
    pub wanted: CreateMatcher,
    /// How far the create's key was trusted when the reading began.
    pub trust: KeyTrust,
}

/// Why a window has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// A request failed.
    Remote(RemoteError),
    /// The list changed during the reading.
    Moving(String),
}

/// The customers of one reading. A window may be long, so a whole customer is kept only if the
/// create may have made it.
#[derive(Clone, Debug, Default)]
pub struct CreateWindow {
    /// A digest of each listed id.
    all: HashSet<u64>,
    /// The number of unreadable customers. The create may have made any of them.
    unreadable: u64,
    /// The last `total`.
    total: Option<u64>,
    /// Whether `total` changed within this reading or since the previous one.
    total_moves: bool,
    /// The customers that were created in the window or have no creation time, each with a digest
    /// of its body.
    created: BTreeMap<CustomerId, u64>,
    /// The customers of `created` that the create may have made, sorted by id.
    pub candidates: Vec<Customer>,
}

impl CreateWindow {
    /// Returns what this window proves.
    pub fn coverage(&self) -> WindowCoverage {
        let is_exact = self.total == Some(self.all.len() as u64) && !self.total_moves;
        if self.unreadable == 0 && is_exact { WindowCoverage::Whole } else { WindowCoverage::Partial }
    }

    /// Describes the size: the number of customers shown, and the number that the list counts.
    pub fn size(&self) -> String {
        let shown = count(self.all.len(), "customer");
        let unreadable = match self.unreadable {
            0 => String::new(),
            1 => " and 1 unreadable one".to_owned(),
            n => format!(" and {n} unreadable ones"),
        };
        match self.total {
            Some(_) if self.total_moves => {
                format!("it shows {shown}{unreadable}, and its total changes from answer to answer")
            }
            Some(total) => format!("it shows {shown}{unreadable}, and its total is {total}"),
            None => format!("it shows {shown}{unreadable}, and it gives no total"),
        }
    }

    fn has_same_content(&self, other: &Self) -> bool {
        self.all == other.all
            && self.unreadable == other.unreadable
            && self.created == other.created
            && self.candidates == other.candidates
    }

    /// Adds the customers of a page. An unreadable customer does not count as shown.
    fn add(&mut self, page: &Page, query: &WindowQuery) -> Added {
        let (before, mut on_page, mut repeats) = (self.all.len(), HashSet::new(), false);
        self.unreadable += page.unreadable.len() as u64;
        for listed in &page.deleted {
            // If the create's customer was deleted since, the create took effect. So a matching
            // deleted customer leaves absence unproven.
            if listed.read().is_ok_and(|customer| !query.wanted.could_be(&customer)) {
                self.all.insert(digest_of(listed.id().as_str()));
            } else {
                self.unreadable += 1;
            }
        }
        for listed in &page.customers {
            let Ok(customer) = listed.read() else {
                self.unreadable += 1;
                continue;
            };
            // A list that moves may show a customer twice.
            let id = digest_of(listed.id().as_str());
            let is_first_on_page = on_page.insert(id);
            if self.all.insert(id) {
                self.add_created(customer, query);
            } else {
                repeats |= is_first_on_page;
            }
        }
        Added { shows_new: self.all.len() > before, repeats }
    }

    /// Adds a customer that was created in the window. The API filters by creation time itself, but
    /// a server that does not must not make the window longer.
    fn add_created(&mut self, customer: Customer, query: &WindowQuery) {
        let created = customer.created_at().and_then(time::read);
        if created.is_some_and(|created| created < query.from) {
            return;
        }
        self.created.insert(customer.id().clone(), digest_of(customer.body()));
        if query.wanted.could_be(&customer) {
            self.candidates.push(customer);
        }
    }

    /// Whether the list ends with this page. All hints about its size must agree.
    fn ends_with(&self, page: u64, last_page: Option<u64>) -> bool {
        let is_last = last_page.map(|last| page >= last);
        let is_whole = self.total.map(|total| self.all.len() as u64 >= total);
        is_last.or(is_whole).is_some() && is_last != Some(false) && is_whole != Some(false)
    }
}

/// What a page adds to a window.
struct Added {
    /// Whether the page shows a customer that no earlier page showed.
    shows_new: bool,
    /// Whether the page shows a customer that an earlier page showed.
    repeats: bool,
}

fn digest_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// One reading, from the first page to the last.
#[derive(Clone, Debug)]
struct Scan {
    window: CreateWindow,
    page: u64,
    per_page: u32,
    too_large: u32,
    most_pages: Option<u64>,
}

/// What happens after a page.
#[derive(Debug)]
enum AfterPage {
    Next,
    Whole,
    Moved,
    Failed(RemoteError),
}

impl Scan {
    fn new(per_page: u32) -> Self {
        Self { window: CreateWindow::default(), page: 1, per_page, too_large: 0, most_pages: None }
    }

    fn take(&mut self, answer: Result<Page, RemoteError>, query: &WindowQuery) -> AfterPage {
        match answer {
            Ok(page) => self.add(&page, query),
            Err(error) => self.after_error(error),
        }
    }

    fn after_error(&mut self, error: RemoteError) -> AfterPage {
        match &error.cause {
            ErrorCause::Rejected(api_error)
                if self.page == 1
                    && self.per_page > OWN_PER_PAGE
                    && api_error.param.as_deref() == Some("per_page") =>
            {
                self.per_page = OWN_PER_PAGE;
                AfterPage::Next
            }
            // Read the whole window again with smaller pages.
            ErrorCause::TooLarge { .. } if self.per_page > 1 => {
                *self = Self::new(self.per_page / 2);
                AfterPage::Next
            }
            // An unreadable customer does not count as shown, so the window proves no absence.
            ErrorCause::TooLarge { .. } if self.too_large < MOST_TOO_LARGE => {
                self.too_large += 1;
                self.window.unreadable += 1;
                self.page += 1;
                AfterPage::Next
            }
            ErrorCause::TooLarge { .. } => {
                let cause = ErrorCause::Unusable("pages for one customer each are too large".to_owned());
                AfterPage::Failed(RemoteError { cause, retry_after: None, ..error })
            }
            // Some servers answer like this to a page after the last one.
            ErrorCause::Rejected(api_error) if self.page > 1 && api_error.status == 404 => AfterPage::Whole,
            _ => AfterPage::Failed(error),
        }
    }

    fn add(&mut self, page: &Page, query: &WindowQuery) -> AfterPage {
        let (hints, is_first) = (page.hints, self.most_pages.is_none());
        self.most_pages.get_or_insert(walk::most_pages(hints, 0).min(MOST_PAGES));
        self.window.total_moves |= !is_first && hints.total != self.window.total;
        self.window.total = hints.total;
        let added = self.window.add(page, query);
        let shows_more = added.shows_new || !page.unreadable.is_empty();
        // A full page may be followed by another one, whatever the hints say.
        let is_full = page.len() >= hints.per_page.unwrap_or(self.per_page.into());
        if !shows_more || (!is_full && self.window.ends_with(self.page, hints.last_page)) {
            return AfterPage::Whole;
        }
        // The list moved if the page repeats earlier customers, shows new ones, and `total`
        // changed. A changed `total` alone does not prove that.
        if self.window.total_moves && added.repeats {
            return AfterPage::Moved;
        }
        self.page = self.page.saturating_add(1);
        AfterPage::Next
    }

    fn is_too_long(&self) -> bool {
        self.page > self.most_pages.unwrap_or(MOST_PAGES)
    }
}

/// The readings of one window.
#[derive(Debug)]
pub struct WindowReading<'a> {
    query: &'a WindowQuery,
    per_page: u32,
    scan: Scan,
    readings: usize,
    last: Option<CreateWindow>,
}

impl<'a> WindowReading<'a> {
    /// A reading that begins with pages of `per_page` customers.
    pub fn new(query: &'a WindowQuery, per_page: u32) -> Self {
        Self { query, per_page, scan: Scan::new(per_page), readings: 0, last: None }
    }

    /// Returns the page to request next.
    pub fn query(&self) -> PageQuery {
        let Scan { page, per_page, .. } = self.scan;
        PageQuery { page, per_page, created_from: Some(self.query.from) }
    }

    /// Takes the answer for [`Self::query`]. Returns the window once two readings in a row agree,
    /// or the error; `None` while more pages are needed.
    pub fn take(&mut self, answer: Result<Page, RemoteError>) -> Option<Result<CreateWindow, WindowError>> {
        match self.scan.take(answer, self.query) {
            // The next reading would have even more pages.
            AfterPage::Next if self.scan.is_too_long() => {
                let from = self.query.from;
                let why =
                    format!("the list of customers created since {from:.0} grows faster than it is read");
                Some(Err(WindowError::Moving(why)))
            }
            AfterPage::Next => None,
            AfterPage::Whole => self.compare(),
            AfterPage::Moved => {
                self.last = None;
                // Under a trusted key the same request is the same create, so more readings are not
                // worth their requests.
                if self.query.trust == KeyTrust::Full {
                    Some(Err(self.gives_up()))
                } else {
                    self.read_again()
                }
            }
            AfterPage::Failed(error) => Some(Err(WindowError::Remote(error))),
        }
    }

    /// Compares this reading with the previous one. If their `total` differs, the window proves no
    /// absence.
    fn compare(&mut self) -> Option<Result<CreateWindow, WindowError>> {
        let mut window = std::mem::take(&mut self.scan.window);
        window.candidates.sort_by(|a, b| a.id().cmp(b.id()));
        if let Some(last) = self.last.take_if(|last| last.has_same_content(&window)) {
            window.total_moves |= last.total_moves || last.total != window.total;
            return Some(Ok(window));
        }
        self.last = Some(window);
        self.read_again()
    }

    fn read_again(&mut self) -> Option<Result<CreateWindow, WindowError>> {
        self.readings += 1;
        self.scan = Scan::new(self.per_page);
        if self.readings < READINGS { None } else { Some(Err(self.gives_up())) }
    }

    fn gives_up(&self) -> WindowError {
        let from = self.query.from;
        WindowError::Moving(format!(
            "the list of customers created since {from:.0} was read repeatedly, and no two readings agreed: the list keeps moving"
        ))
    }
}

#[cfg(test)]
mod tests;
