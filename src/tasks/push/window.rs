//! Reads the window of a create's reconciliation: the customers that the API says were created since a moment.
//!
//! The list may move while it is read, and may be wrong about its own size. So the window is read until two readings in a row show the
//! same, and what it says of its size only decides whether it proves absence ([`Coverage`]).

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use super::Pusher;
use crate::remote::{Cause, PushRemote, Remote, RemoteError};
use komoju_core::plan::creates::Coverage;
use komoju_core::plan::walk;
use komoju_core::{Customer, CustomerId, Page, PageQuery, time};

/// The API's own page size.
const OWN_PER_PAGE: u32 = 10;

/// How often the window is read until two readings in a row agree.
const READINGS: usize = 5;

/// How many pages of one customer each may be too large in one reading.
const MOST_TOO_LARGE: u32 = 100;

/// How many pages are read of a window at most, whatever its hints promise.
const MOST_PAGES: u64 = 10_000;

/// Why a reading of the window cannot be used.
pub(super) enum Setback {
    /// A request failed.
    Remote(RemoteError),
    /// The list changed while it was read.
    Moving(String),
}

/// What a reading of the window showed. It may be long: whole customers are kept only where they could be the create's.
pub(super) struct Window {
    /// Every customer that was listed, as a digest each.
    all: HashSet<u64>,
    /// How many customers of it cannot be read: each could be the create's.
    unreadable: u64,
    /// How many there are, by the list's last `total`.
    total: Option<u64>,
    /// Whether `total` changed while it was read, or from reading to reading.
    total_moves: bool,
    /// The customers that the API says were created in the window, or of which it does not say when, and a digest of each.
    created: BTreeMap<CustomerId, u64>,
    /// Those of them that could be the create's, by their ids.
    pub(super) candidates: Vec<Customer>,
}

impl Window {
    fn new() -> Self {
        Self {
            all: HashSet::new(),
            unreadable: 0,
            total: None,
            total_moves: false,
            created: BTreeMap::new(),
            candidates: Vec::new(),
        }
    }

    /// What this window proves.
    pub(super) fn coverage(&self) -> Coverage {
        let is_exact = self.total == Some(self.all.len() as u64) && !self.total_moves;
        match self.unreadable == 0 && is_exact {
            true => Coverage::Whole,
            false => Coverage::Partial,
        }
    }

    /// The size as text: how many customers are shown, and how many are counted.
    pub(super) fn size(&self) -> String {
        let (shown, unreadable) = (self.all.len(), self.unreadable);
        let unreadable = match unreadable {
            0 => String::new(),
            1 => ", besides 1 that cannot be read,".to_owned(),
            n => format!(", besides {n} that cannot be read,"),
        };
        match self.total {
            Some(_) if self.total_moves => {
                format!("it shows {shown} customers{unreadable} and its total changes from answer to answer")
            }
            Some(total) => format!("it shows {shown} customers{unreadable} where its total says {total}"),
            None => format!("it shows {shown} customers{unreadable} and says no total"),
        }
    }

    /// Whether another reading shows the same customers.
    fn shows_the_same(&self, other: &Self) -> bool {
        self.all == other.all
            && self.unreadable == other.unreadable
            && self.created == other.created
            && self.candidates == other.candidates
    }

    /// Adds the customers of a page. A customer that cannot be read is not counted as shown.
    fn add(&mut self, page: &Page, from: Timestamp, could_be: &impl Fn(&Customer) -> bool) -> Added {
        let (before, mut on_page, mut repeats) = (self.all.len(), HashSet::new(), false);
        self.unreadable += page.unreadable.len() as u64;
        for listed in &page.deleted {
            // A create's customer that was deleted since proves that the create took effect: absence is not proven.
            match listed.read().is_ok_and(|customer| !could_be(&customer)) {
                true => drop(self.all.insert(digest_of(listed.id().as_str()))),
                false => self.unreadable += 1,
            }
        }
        for listed in &page.customers {
            let Ok(customer) = listed.read() else {
                self.unreadable += 1;
                continue;
            };
            // Listed twice, because the list moved: once is enough.
            let id = digest_of(listed.id().as_str());
            let is_first_on_page = on_page.insert(id);
            if !self.all.insert(id) {
                repeats |= is_first_on_page;
                continue;
            }
            let created = customer.created_at().and_then(time::read);
            // The API filters by itself; a server that does not shall not make the window larger than it is.
            if created.is_none_or(|created| created >= from) {
                self.created.insert(customer.id().clone(), digest_of(customer.body()));
                if could_be(&customer) {
                    self.candidates.push(customer);
                }
            }
        }
        Added { shows_new: self.all.len() > before, repeats }
    }

    /// The same in an order that does not depend on the list's.
    fn sorted(mut self) -> Self {
        self.candidates.sort_by(|a, b| a.id().cmp(b.id()));
        self
    }

    /// Whether the list ends with this page: all that it says of its size agrees.
    fn ends_with(&self, page: u64, last_page: Option<u64>) -> bool {
        let is_last = last_page.map(|last| page >= last);
        let is_whole = self.total.map(|total| self.all.len() as u64 >= total);
        is_last.or(is_whole).is_some() && is_last != Some(false) && is_whole != Some(false)
    }
}

/// What a page has added to a window.
struct Added {
    /// Whether it shows a customer that no page before it showed.
    shows_new: bool,
    /// Whether it shows one that a page before it showed.
    repeats: bool,
}

fn digest_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl<R: Remote + PushRemote> Pusher<R> {
    /// Reads the window until two readings in a row show the same customers. Where they differ about how many there are, it proves no
    /// absence. `is_patient`: whether it is read again where it moves.
    pub(super) async fn read_twice(
        &self,
        from: Timestamp,
        is_patient: bool,
        could_be: impl Fn(&Customer) -> bool,
    ) -> Result<Window, Setback> {
        let mut last: Option<Window> = None;
        for _ in 0..READINGS {
            let Some(window) = self.read_window(from, &could_be).await? else {
                last = None;
                match is_patient {
                    true => continue,
                    false => break,
                }
            };
            if let Some(last) = last.filter(|last| last.shows_the_same(&window)) {
                let total_moves = last.total_moves || window.total_moves || last.total != window.total;
                return Ok(Window { total_moves, ..window });
            }
            last = Some(window);
        }
        Err(Setback::Moving(format!(
            "the customers made since {from:.0} were read again and again, and no two readings agreed: the list keeps moving"
        )))
    }

    /// Reads the window once; `None` where the list moved meanwhile.
    async fn read_window(
        &self,
        from: Timestamp,
        could_be: &impl Fn(&Customer) -> bool,
    ) -> Result<Option<Window>, Setback> {
        let mut window = Window::new();
        let mut per_page = self.settings.per_page;
        let (mut page, mut too_large, mut most_pages) = (1, 0, None);
        while page <= most_pages.unwrap_or(MOST_PAGES) {
            let query = PageQuery { page, per_page, created_from: Some(from) };
            let answer = match self.remote.list(query).await {
                // A server that refuses a larger page instead of answering with less.
                Err(RemoteError { cause: Cause::Rejected(told), .. })
                    if page == 1 && per_page > OWN_PER_PAGE && told.param.as_deref() == Some("per_page") =>
                {
                    per_page = OWN_PER_PAGE;
                    continue;
                }
                // The whole window again, in smaller pages.
                Err(RemoteError { cause: Cause::TooLarge { .. }, .. }) if per_page > 1 => {
                    window = Window::new();
                    (page, per_page, most_pages) = (1, per_page / 2, None);
                    continue;
                }
                // A customer that cannot be read is not counted as shown: the window proves no absence.
                Err(RemoteError { cause: Cause::TooLarge { .. }, .. }) if too_large < MOST_TOO_LARGE => {
                    too_large += 1;
                    window.unreadable += 1;
                    page += 1;
                    continue;
                }
                Err(RemoteError { cause: Cause::TooLarge { .. }, call, .. }) => {
                    let cause = Cause::Unusable("pages for one customer each are too large".to_owned());
                    return Err(Setback::Remote(RemoteError { call, cause, retry_after: None }));
                }
                // A server's way to say that there is no such page.
                Err(RemoteError { cause: Cause::Rejected(told), .. }) if page > 1 && told.status == 404 => {
                    return Ok(Some(window.sorted()));
                }
                answer => answer.map_err(Setback::Remote)?,
            };
            let total = answer.hints.total;
            window.total_moves |= most_pages.is_some() && total != window.total;
            window.total = total;
            most_pages.get_or_insert_with(|| walk::most_pages(answer.hints, 0).min(MOST_PAGES));
            let added = window.add(&answer, from, could_be);
            let shows_more = added.shows_new || !answer.unreadable.is_empty();
            // Behind a full page there may be another one, whatever the numbers say.
            let is_full = answer.len() >= answer.hints.per_page.unwrap_or(per_page.into());
            if !shows_more || (!is_full && window.ends_with(page, answer.hints.last_page)) {
                return Ok(Some(window.sorted()));
            }
            // The page repeats customers of an earlier one, shows new ones, and `total` has changed: the list has moved. A changed
            // `total` alone does not show that.
            if window.total_moves && added.repeats {
                return Ok(None);
            }
            page += 1;
        }
        // It would have even more pages the next time.
        Err(Setback::Moving(format!("the customers made since {from:.0} grow faster than they are read")))
    }
}
