//! Walks through a list that may be imprecise: where it ends, whether it is read again, and what is
//! reported about it.
//!
//! ```text
//!   page ─▶ add_page ─▶ Read(next page) … ─▶ End ─▶ round over ─▶ read_again ─▶ the next round, or none
//! ```
//!
//! Every number of an envelope is a hint ([`Hints`]). Hints decide which page is requested next,
//! and never whether a page is used. A page is *barren* if it shows no customer that is new to the
//! round. Absence from the list proves nothing. It only selects the customers that are requested
//! one by one (see [`super::absence`]).

use std::fmt;

use crate::Hints;

/// BARREN_PAGES controls how many barren pages in a row end a walk.
pub const BARREN_PAGES: u32 = 3;

/// ROUNDS limits the rounds of a sweep.
pub const ROUNDS: u32 = 3;

/// FRUITLESS_SWEEPS controls after how many sweeps in a row further rounds become rare. Only sweeps
/// count whose further rounds showed no new customer.
const FRUITLESS_SWEEPS: u64 = 2;

/// FURTHER_ROUNDS_EVERY controls which sweeps have further rounds even then, because the list may
/// behave differently by now. With 10, unchanged sweeps would cost over a tenth more than those of
/// an exact list.
const FURTHER_ROUNDS_EVERY: u64 = 12;

/// ERRATIC controls how many changes of direction within a round make a `total` unusable.
const ERRATIC: u32 = 3;

/// MOST_PAGES limits the pages of a list that gives no length.
const MOST_PAGES: u64 = 1_000_000;

/// PAGES_OF_GROWTH limits the growth of a list during a walk: a walk reads at most twice the
/// promised pages plus this number.
const PAGES_OF_GROWTH: u64 = 20;

/// Returns the maximum number of pages to read, from the hints of the first answer and the number
/// of `expected` pages.
pub fn most_pages(hints: Hints, expected: u64) -> u64 {
    let pages = hints.promised_pages().map(|promised| promised.max(expected));
    let with_growth = pages.map(|pages| pages.saturating_mul(2).saturating_add(PAGES_OF_GROWTH));
    with_growth.map_or(MOST_PAGES, |pages| pages.min(MOST_PAGES))
}

/// A page that was applied, with the counts of its round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedPage {
    /// The page number, from 1.
    pub number: u64,
    /// The numbers of its envelope.
    pub hints: Hints,
    /// The number of its rows.
    pub rows: u64,
    /// The number of its customers that are new to the round.
    pub new: u64,
    /// The number of customers that the round has seen so far.
    pub seen: u64,
    /// Whether the round has seen every live customer of the mirror. Only used for a barren page.
    pub all_live_seen: bool,
}

/// The next step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkStep {
    /// Read this page.
    Read(u64),
    /// The walk has ended.
    End(WalkEnd),
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// All hints agree that this was the last page.
    LastPage,
    /// The API says that the page does not exist.
    NoSuchPage,
    /// The page is barren, no hint promises another one, and every live customer was seen.
    Barren,
    /// Several pages in a row were barren.
    BarrenPages,
    /// The list grows faster than it is read.
    Growing,
}

impl fmt::Display for WalkStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(page) => write!(f, "read page {page}"),
            Self::End(end) => write!(f, "end of the list: {end}"),
        }
    }
}

impl fmt::Display for WalkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastPage => "all hints say that this is the last page",
            Self::NoSuchPage => "the API has no such page",
            Self::Barren => "the page shows no new customer, and every live customer was seen",
            Self::BarrenPages => "several pages in a row show no new customer",
            Self::Growing => "it grows faster than it is read",
        })
    }
}

/// One round through the list.
#[derive(Clone, Debug, Default)]
pub struct ListWalk {
    barren: u32,
    /// The maximum number of pages to read; 0 until the first answer.
    most_pages: u64,
    live_pages: u64,
    report: ListReport,
}

/// What a round found out about the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListReport {
    /// The last `total`.
    pub total: Option<u64>,
    /// Whether `total` changed during the round: the list moved.
    pub total_moved: bool,
    /// How often `total` changed its direction: rose after a fall, or fell after a rise.
    pub total_turns: u32,
    total_rose: Option<bool>,
    /// Whether a page had no `total`, or no `last_page`.
    lacks_total: bool,
    lacks_last_page: bool,
    /// The last `last_page` that differs from the number of pages by `total`, with that number.
    contradiction: Option<(u64, u64)>,
    /// The last `last_page`.
    pub last_page: Option<u64>,
    /// The number of pages with new customers.
    pub pages: u64,
    /// How many of these pages, except the last, were not full.
    pub short_pages: u64,
    /// The number of customers seen.
    pub seen: u64,
    /// Whether page 2 repeated a full page 1 although `total` promises more: the API may ignore
    /// `page`.
    pub ignores_page: bool,
    /// Whether the walk ended at [`WalkEnd::Growing`].
    pub grows: bool,
    /// Whether the last page with new customers was short. It counts once another one follows.
    last_was_short: bool,
}

impl ListWalk {
    /// Starts a walk. The mirror has `live` customers, and a page should hold `per_page`.
    pub fn new(live: u64, per_page: u64) -> Self {
        Self { live_pages: live.div_ceil(per_page.max(1)), ..Self::default() }
    }

    /// Adds an applied page, and returns the next step.
    pub fn add_page(&mut self, page: AppliedPage) -> WalkStep {
        let AppliedPage { number, hints, rows, new, .. } = page;
        self.barren = if new > 0 { 0 } else { self.barren + 1 };
        self.note(page);
        if self.most_pages == 0 {
            self.most_pages = most_pages(hints, self.live_pages);
        }
        let is_full = hints.per_page.is_none_or(|per_page| rows >= per_page);
        let is_promised = hints.promised_pages().is_some_and(|pages| pages > number);
        if is_last(page) && !is_full {
            WalkStep::End(WalkEnd::LastPage)
        } else if new == 0 && !is_promised && page.all_live_seen {
            WalkStep::End(WalkEnd::Barren)
        } else if self.barren >= BARREN_PAGES {
            WalkStep::End(WalkEnd::BarrenPages)
        } else if number >= self.most_pages {
            self.report.grows = true;
            WalkStep::End(WalkEnd::Growing)
        } else {
            WalkStep::Read(number + 1)
        }
    }

    fn note(&mut self, AppliedPage { number, hints, rows, new, seen, .. }: AppliedPage) {
        let report = &mut self.report;
        report.total_moved |= number > 1 && report.total != hints.total;
        if let (Some(before), Some(total), true) = (report.total, hints.total, number > 1)
            && before != total
        {
            let rose = total > before;
            report.total_turns += u32::from(report.total_rose.is_some_and(|before| before != rose));
            report.total_rose = Some(rose);
        }
        report.lacks_total |= hints.total.is_none();
        report.lacks_last_page |= hints.last_page.is_none();
        let made = hints.last_page.zip(hints.pages_of_total());
        report.contradiction =
            made.filter(|(last, pages)| (*last).max(1) != (*pages).max(1)).or(report.contradiction);
        (report.total, report.last_page, report.seen) = (hints.total, hints.last_page, seen);
        // A page that only repeats customers is after the end of the list.
        if new > 0 {
            report.short_pages += u64::from(report.last_was_short);
            report.pages += 1;
            report.last_was_short = hints.per_page.is_some_and(|per_page| rows < per_page);
        }
        let promises_more = hints.total.is_some_and(|total| total > seen);
        let is_full = hints.per_page.is_some_and(|per_page| rows >= per_page);
        report.ignores_page |= number == 2 && new == 0 && is_full && promises_more;
    }

    /// Returns what the round has found out about the list.
    pub fn report(&self) -> ListReport {
        self.report
    }
}

/// Whether all hints and the customers seen agree that the list ends with this page.
fn is_last(page: AppliedPage) -> bool {
    let Hints { page: page_hint, total, last_page, .. } = page.hints;
    let Some((pages, total, last_page)) = page
        .hints
        .pages_of_total()
        .zip(total)
        .zip(last_page)
        .map(|((pages, total), last)| (pages, total, last))
    else {
        return false;
    };
    // An empty list has either no page or one empty page; servers do both.
    let agree = last_page == pages || (total == 0 && last_page <= 1);
    agree
        && page_hint.is_none_or(|page_hint| page_hint == page.number)
        && page.number >= last_page
        && total == page.seen
}

impl ListReport {
    /// Returns what is imprecise about the list, one phrase each. An exact list has none.
    pub fn phrases(&self) -> Vec<String> {
        let mut phrases = Vec::new();
        let mut add = |is_so: bool, phrase: String| {
            if is_so {
                phrases.push(phrase);
            }
        };
        add(self.lacks_total, "total is missing".to_owned());
        if let Some(total) = self.total {
            let differs = total != self.seen && !self.total_moved;
            add(differs, format!("total says {total}, {} are listed", self.seen));
        }
        add(self.total_turns >= ERRATIC, "total rises and falls from page to page".to_owned());
        add(self.lacks_last_page, "last_page is missing".to_owned());
        let last_page =
            self.last_page.filter(|last| (*last).max(1) != self.pages.max(1) && !self.total_moved);
        match (last_page, self.contradiction) {
            (Some(last), _) => {
                add(true, format!("last_page says {last}, {} pages show customers", self.pages))
            }
            (None, Some((last, pages))) => {
                add(true, format!("last_page says {last} where total makes {pages} pages"));
            }
            (None, None) => {}
        }
        let short = match self.short_pages {
            1 => "1 page before the last one is short".to_owned(),
            n => format!("{n} pages before the last one are short"),
        };
        add(self.short_pages > 0, short);
        add(self.ignores_page, "page 2 repeats page 1: the API may ignore `page`".to_owned());
        add(
            self.grows,
            "the list has far more pages than it promised, and was not read to its end".to_owned(),
        );
        phrases
    }
}

/// The facts at the end of a round.
#[derive(Clone, Copy, Debug)]
pub struct RoundResult {
    /// The number of the round, from 1.
    pub round: u32,
    /// The number of customers that all rounds together have seen.
    pub seen: u64,
    /// How many of them this round was the first to see.
    pub new: u64,
    /// The round's last `total`.
    pub total: Option<u64>,
    /// Whether the round ended at [`WalkEnd::Growing`].
    pub grows: bool,
    /// Whether another round fits into the sweep's period.
    pub fits: bool,
    /// How many sweeps in a row had further rounds without a new customer.
    pub vain_sweeps: u64,
    /// The number of the sweep.
    pub sweep: u64,
}

/// Whether the list is read again in the same sweep, because it showed fewer customers than it
/// counts.
pub fn read_again(result: RoundResult) -> bool {
    let is_short = result.total.is_some_and(|total| result.seen < total);
    let was_useful = result.round == 1 || result.new > 0;
    let may_help = result.vain_sweeps < FRUITLESS_SWEEPS || result.sweep.is_multiple_of(FURTHER_ROUNDS_EVERY);
    is_short && was_useful && may_help && !result.grows && result.fits && result.round < ROUNDS
}

#[cfg(test)]
mod tests;
