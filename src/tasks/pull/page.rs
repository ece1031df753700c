//! One page of the list: which of its customers are recognised, and what is planned for the others.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::marks::Marks;
use super::unreadable::{self, Noted, plan_unreadable};
use super::view::View;
use super::{Failure, Pass, Pull, Setback};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::End;
use crate::store::log::mirror::Stored;
use crate::store::log::unchanged::{self, Known as KnownText, Reformatted, Unchanged};
use crate::tasks::echoes::Asked;
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::lag::{Consistency, Occasion};
use komoju_core::plan::observation::{CustomerPlan, Known, Observation, Push, Read, ReadBy};
use komoju_core::plan::rows::RowSet;
use komoju_core::{Customer, CustomerId, Kind, Listed};

/// How often a running pass writes how far it has come when it has nothing else to write.
const POSITION_EVERY: Duration = Duration::from_secs(30);

/// READ_AT_ONCE controls how many bytes of text are read, planned and applied in one step. Read, a text takes many times its size.
const READ_AT_ONCE: usize = 512 << 10;

/// MOST_REFORMATTED limits how many customers with a new format of the same content a sweep notes: an API that formats differently
/// each time must not make an unchanged sweep write.
const MOST_REFORMATTED: usize = 1000;

/// What a pass has learnt of the list while it reads, to read the rest with less work.
#[derive(Debug, Default)]
pub(super) struct Insight {
    unchanged: Unchanged,
    /// Customers whose deletion is held or was decided, perhaps while the pass runs: a hold and a decision end when their customer is
    /// listed.
    unsettled: RowSet,
}

impl Insight {
    pub(super) fn new(unsettled: RowSet) -> Self {
        Self { unsettled, ..Self::default() }
    }
}

/// A part of a page that is planned and applied in one step.
#[derive(Debug, Default)]
struct Chunk {
    /// Known customers whose deletion is held or was decided.
    back: Vec<CustomerId>,
    customers: Vec<(Customer, Fingerprint)>,
    unreadable: Vec<Noted>,
    /// Whether the page ends with it. A resumed sweep reads a page that did not end again, so none of it is counted before.
    is_last: bool,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.back.is_empty() && self.customers.is_empty() && self.unreadable.is_empty()
    }
}

impl<R: Remote> Pull<R> {
    /// Takes a page into the mirror and marks the customers that it shows; returns whether it was mostly news. Nothing is written for
    /// a page that changes nothing.
    pub(super) async fn take_answer(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        insight: &mut Insight,
        answer: Answer,
    ) -> Result<bool, Failure> {
        let Answer { page, asked, read, place, is_page } = answer;
        let unreadable = self.meet(pass, page.unreadable, &place);
        marks.keep_canaries(&page.customers, self.roll());
        page.deleted.iter().for_each(|listed| marks.see_other(listed.id().as_str()));
        let customers = Arc::new(page.customers);
        let recognised = self.recognise(insight, &customers, read.is_some()).await?;
        let back = mark_recognised(marks, insight, &customers, &recognised);
        let unknown = customers.iter().zip(&recognised).filter(|(_, known)| known.is_none());
        let unknown: Vec<&Listed> = unknown.map(|(listed, _)| listed).collect();
        let mut read = read.into_iter().flatten();
        let changes_before = pass.tally.changes();
        let mut chunks = chunks(&unknown).into_iter().peekable();
        let mut chunk = Chunk { back, ..Chunk::default() };
        loop {
            for listed in chunks.next().unwrap_or_default() {
                let customer = read.next().map_or_else(|| self.read_listed(place.page, listed), Ok)?;
                chunk.customers.push((customer, listed.fingerprint()));
            }
            let is_last = chunks.peek().is_none();
            if is_last {
                pass.tally.pages += u64::from(is_page);
                pass.tally.customers_seen = pass.seen_before + marks.seen.len();
                chunk.unreadable.clone_from(&unreadable);
                chunk.is_last = true;
            }
            if !chunk.is_empty() || self.position_is_due(pass) {
                self.take_chunk(pass, marks, insight, &asked, std::mem::take(&mut chunk)).await?;
            }
            if is_last {
                return Ok((pass.tally.changes() - changes_before) * 2 > customers.len() as u64);
            }
        }
    }

    /// Recognises the customers of a page. None is looked for where the page was read in advance, because most are news.
    async fn recognise(
        &self,
        insight: &mut Insight,
        customers: &Arc<Vec<Listed>>,
        is_read: bool,
    ) -> Result<Vec<Option<KnownText>>, StoreError> {
        if is_read {
            return Ok(vec![None; customers.len()]);
        }
        let (mut unchanged, customers) = (std::mem::take(&mut insight.unchanged), Arc::clone(customers));
        let looked = self.look(move |view| {
            let recognise = |listed| view.recognise(&mut unchanged, listed);
            let recognised: Result<Vec<_>, _> = customers.iter().map(recognise).collect();
            Ok((recognised?, unchanged))
        });
        let recognised;
        (recognised, insight.unchanged) = looked.await?;
        Ok(recognised)
    }

    /// Plans a part of a page and applies the plan.
    async fn take_chunk(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        insight: &mut Insight,
        asked: &Arc<Asked>,
        chunk: Chunk,
    ) -> Result<(), StoreError> {
        let Chunk { back, customers, unreadable, is_last } = chunk;
        let (seen_before, asked) = (pass.seen_before, Arc::clone(asked));
        let (mut marks_moved, mut unchanged) =
            (std::mem::take(marks), std::mem::take(&mut insight.unchanged));
        let (origin, consistency) = (pass.kind_origin(), self.settings.consistency);
        let taken = self.step(pass, origin, move |view, tally| {
            back.iter().try_for_each(|id| view.end_hold(id, End::Alive))?;
            let mut list =
                List { asked: &asked, consistency, marks: &mut marks_moved, unchanged: &mut unchanged };
            for (customer, fingerprint) in customers {
                list.plan(view, customer, fingerprint)?;
            }
            let new = plan_unreadable(view, unreadable, &mut marks_moved)?;
            if is_last {
                tally.customers_seen = seen_before + marks_moved.seen.len();
            }
            Ok((marks_moved, unchanged, new))
        });
        let new;
        (*marks, insight.unchanged, new) = taken.await?;
        unreadable::report(&new);
        Ok(())
    }

    fn read_listed(&self, page: u64, listed: &Listed) -> Result<Customer, Failure> {
        // It was taken apart before: so this does not happen, and must not cost more than this pass.
        listed.read().map_err(|why| {
            let why = self.masker.text(&format!("customer {} cannot be read: {why}", listed.id()));
            Failure::after(1, Setback::Page { page, why })
        })
    }

    /// Returns whether the pass has not written for a while how far it has come.
    pub(super) fn position_is_due(&self, pass: &Pass) -> bool {
        let since = pass.position_at.map(|at| self.clock.elapsed().saturating_sub(at));
        since.is_none_or(|since| since >= POSITION_EVERY)
    }
}

/// Marks the recognised customers as listed; returns those whose deletion is held or was decided.
fn mark_recognised(
    marks: &mut Marks,
    insight: &Insight,
    customers: &[Listed],
    recognised: &[Option<KnownText>],
) -> Vec<CustomerId> {
    let mut back = Vec::new();
    for (listed, known) in customers.iter().zip(recognised) {
        let Some(known) = known else { continue };
        marks.see(known.row, known.source);
        if insight.unsettled.contains(known.row) {
            back.push(listed.id().clone());
        }
    }
    back
}

/// Whether these may be held read and unread.
pub(super) fn may_be_read_at_once(customers: &[Listed]) -> bool {
    customers.iter().map(Listed::bytes).sum::<usize>() <= READ_AT_ONCE
}

/// Divides the customers of a page into parts that may be read at once, of one customer at least.
fn chunks<'a>(customers: &[&'a Listed]) -> Vec<Vec<&'a Listed>> {
    let (mut chunks, mut bytes): (Vec<Vec<&Listed>>, _) = (Vec::new(), 0);
    for listed in customers {
        match chunks.last_mut() {
            Some(chunk) if bytes + listed.bytes() <= READ_AT_ONCE => chunk.push(listed),
            _ => {
                bytes = 0;
                chunks.push(vec![listed]);
            }
        }
        bytes += listed.bytes();
    }
    chunks
}

/// A page of the list: what a customer on it is compared with besides the mirror, and what a pass remembers of it.
struct List<'a> {
    asked: &'a Asked,
    consistency: Consistency,
    marks: &'a mut Marks,
    unchanged: &'a mut Unchanged,
}

impl List<'_> {
    /// Compares a listed customer with the mirror and plans what is written about it.
    fn plan(
        &mut self,
        view: &mut View<'_>,
        customer: Customer,
        fingerprint: Fingerprint,
    ) -> Result<(), StoreError> {
        let id = customer.id().clone();
        let stored = view.find(&id)?;
        let is_second = stored.as_ref().is_some_and(|stored| self.marks.seen.contains(stored.row));
        let read = Read {
            by: ReadBy::List,
            requested_at: self.asked.requested_at(),
            occasion: if is_second { Occasion::SamePass } else { Occasion::Pass },
            consistency: self.consistency,
        };
        let Observation { plan, source } = observe(view, self.asked, customer, stored.as_ref(), read)?;
        let row = match (plan, stored) {
            (CustomerPlan::Record(kind, customer), stored) => {
                if let Some(stored) = &stored {
                    view.end_hold(&id, End::Alive)?;
                    self.unchanged.forget(stored.row);
                    count_fields(self.marks, kind, &customer, stored);
                }
                view.record(kind, customer, stored, Some((fingerprint, source)))?
            }
            (CustomerPlan::Keep, Some(stored)) => {
                view.end_hold(&id, End::Alive)?;
                let Stored { row, standing } = stored;
                if !unchanged::is_noted(view.conn(), row)? {
                    view.note_listed(row, fingerprint, source);
                } else if self.marks.reformatted.len() < MOST_REFORMATTED {
                    self.marks.reformatted.push(Reformatted { row, seq: standing.seq, fingerprint, source });
                }
                row
            }
            (plan, stored) => {
                leave_out(view, plan);
                match stored.filter(|stored| stored.standing.is_live()) {
                    Some(stored) => self.marks.see_unread(stored.row),
                    None => self.marks.see_other(id.as_str()),
                }
                return Ok(());
            }
        };
        self.marks.see(row, source);
        Ok(())
    }
}

/// Counts the fields that an update changes.
fn count_fields(marks: &mut Marks, kind: Kind, after: &Customer, stored: &Stored) {
    if let (Kind::Updated, Some(before)) = (kind, stored.standing.body.as_deref())
        && let Ok(before) = Customer::from_body(before)
    {
        marks.fields.count(before.fields(), after.fields());
    }
}

/// Compares a read of a customer with the mirror, the log and our own pushes.
fn observe(
    view: &View<'_>,
    asked: &Asked,
    shown: Customer,
    stored: Option<&Stored>,
    read: Read,
) -> Result<Observation, StoreError> {
    let push = match stored {
        None if asked.may_be_made_by_us(&shown) => Push::MayHaveCreated,
        Some(_) if asked.is_before_push_of(shown.id()) => Push::Newer,
        _ => Push::None,
    };
    let recent = match stored {
        Some(stored)
            if stored.standing.body.as_deref() != Some(shown.body()) || !stored.standing.is_live() =>
        {
            view.recent(shown.id(), stored, read.requested_at, read.consistency)?
        }
        _ => Vec::new(),
    };
    let known = Known { mirror: stored.map(|stored| &stored.standing), recent: &recent, push };
    Ok(Observation::new(shown, known, read))
}

/// Plans what is done about a read that is not applied.
fn leave_out(view: &mut View<'_>, plan: CustomerPlan) {
    match plan {
        CustomerPlan::LeaveOut(shown, left_out) => view.leave_out(shown, left_out),
        CustomerPlan::ReadAgain(id, at) => view.read_again(id, at),
        CustomerPlan::Record(..) | CustomerPlan::Keep | CustomerPlan::Ignore(_) => {}
    }
}

/// What became of a customer's own GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupEffect {
    /// A change is recorded.
    Recorded,
    /// The mirror has this state already.
    Unchanged,
    /// The answer is not applied.
    LeftOut,
}

/// Plans what a customer's own GET changes, where it may be applied.
pub(super) fn plan_lookup(
    view: &mut View<'_>,
    asked: &Asked,
    customer: Customer,
    occasion: Occasion,
    consistency: Consistency,
) -> Result<LookupEffect, StoreError> {
    let stored = view.find(customer.id())?;
    let read = Read { by: ReadBy::Lookup, requested_at: asked.requested_at(), occasion, consistency };
    match observe(view, asked, customer, stored.as_ref(), read)?.plan {
        CustomerPlan::Record(kind, customer) => {
            view.record(kind, customer, stored, None).map(|_| LookupEffect::Recorded)
        }
        CustomerPlan::Keep => Ok(LookupEffect::Unchanged),
        plan => {
            leave_out(view, plan);
            Ok(LookupEffect::LeftOut)
        }
    }
}
