//! Applies one page of the list: finds the unchanged customers by their fingerprints, and plans
//! what to write about the others.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::answer::PageAnswer;
use super::seen_customers::SeenCustomers;
use super::unreadable::{self, UnreadableEntry, plan_unreadable};
use super::view::View;
use super::{Failure, Pass, Pull, RequestError};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::HoldEnd;
use crate::store::log::mirror::StoredCustomer;
use crate::store::log::unchanged::{self, CacheHit, FingerprintWindow, Reformatted};
use crate::tasks::in_flight::RequestMark;
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::lag::{Consistency, ReadReason};
use komoju_core::plan::observation::{
    CustomerPlan, KnownCustomer, Observation, OwnPush, ReadBy, ReadContext,
};
use komoju_core::plan::rows::RowSet;
use komoju_core::{ChangeKind, Customer, CustomerId, RawCustomer};

/// POSITION_EVERY controls how often a running pass writes its position when it has nothing else to
/// write.
const POSITION_EVERY: Duration = Duration::from_secs(30);

/// READ_AT_ONCE controls how many bytes of JSON are parsed, planned and applied in one step. A
/// parsed text takes many times its size.
const READ_AT_ONCE: usize = 512 << 10;

/// MOST_REFORMATTED limits how many customers with a new format of the same content a sweep notes.
/// An API that formats its JSON differently each time must not make an unchanged sweep write.
const MOST_REFORMATTED: usize = 1000;

/// What a pass keeps in memory to find unchanged and held customers without a query for each.
#[derive(Debug, Default)]
pub(super) struct ListCache {
    unchanged: FingerprintWindow,
    /// The rows of customers with a held or decided deletion when the reading started. A
    /// decision during the pass concerns one of these. A hold and a decision end when their
    /// customer is listed.
    unsettled: RowSet,
}

impl ListCache {
    pub(super) fn new(unsettled: RowSet) -> Self {
        Self { unsettled, ..Self::default() }
    }
}

/// A part of a page that is planned and applied in one step.
#[derive(Debug, Default)]
struct Chunk {
    /// Unchanged customers with a held or decided deletion.
    reappeared: Vec<CustomerId>,
    customers: Vec<(Customer, Fingerprint)>,
    unreadable: Vec<UnreadableEntry>,
    /// Whether it is the last part of the page. Only then the page is counted, because a resumed
    /// sweep reads an unfinished page again.
    is_last: bool,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.reappeared.is_empty() && self.customers.is_empty() && self.unreadable.is_empty()
    }
}

impl<R: Remote> Pull<R> {
    /// Applies a page to the mirror and marks its customers as listed. Returns whether more than
    /// half of them were changes. A page that changes nothing writes nothing, unless the position
    /// is due.
    pub(super) async fn apply_answer(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cache: &mut ListCache,
        answer: PageAnswer,
    ) -> Result<bool, Failure> {
        let PageAnswer { page, request, read, offset, is_page } = answer;
        let unreadable = self.count_unreadable(pass, page.unreadable, &offset);
        seen_customers.keep_canaries(&page.customers, self.roll());
        page.deleted.iter().for_each(|listed| seen_customers.see_other(listed.id().as_str()));
        let customers = Arc::new(page.customers);
        let hits = self.cache_hits(cache, &customers, read.is_some()).await?;
        let reappeared = mark_cache_hits(seen_customers, cache, &customers, &hits);
        let unknown = customers.iter().zip(&hits).filter(|(_, known)| known.is_none());
        let unknown: Vec<&RawCustomer> = unknown.map(|(listed, _)| listed).collect();
        let mut read = read.into_iter().flatten();
        let changes_before = pass.tally.changes();
        let mut chunks = chunks(&unknown).into_iter().peekable();
        let mut chunk = Chunk { reappeared, ..Chunk::default() };
        loop {
            for listed in chunks.next().unwrap_or_default() {
                let customer = read.next().map_or_else(|| self.read_listed(offset.page, listed), Ok)?;
                chunk.customers.push((customer, listed.fingerprint()));
            }
            let is_last = chunks.peek().is_none();
            if is_last {
                pass.tally.pages += u64::from(is_page);
                pass.tally.customers_seen = pass.seen_before + seen_customers.rows.len();
                chunk.unreadable.clone_from(&unreadable);
                chunk.is_last = true;
            }
            if !chunk.is_empty() || self.position_is_due(pass) {
                self.apply_chunk(pass, seen_customers, cache, &request, std::mem::take(&mut chunk)).await?;
            }
            if is_last {
                return Ok((pass.tally.changes() - changes_before) * 2 > customers.len() as u64);
            }
        }
    }

    /// Returns, for each customer of a page, its cache hit if it is unchanged. A page that was
    /// parsed in advance is not looked up, because most of its customers are new.
    async fn cache_hits(
        &self,
        cache: &mut ListCache,
        customers: &Arc<Vec<RawCustomer>>,
        is_read: bool,
    ) -> Result<Vec<Option<CacheHit>>, StoreError> {
        if is_read {
            return Ok(vec![None; customers.len()]);
        }
        let (mut unchanged, customers) = (std::mem::take(&mut cache.unchanged), Arc::clone(customers));
        let looked = self.read_mirror(move |view| {
            let find = |listed| view.cache_hit(&mut unchanged, listed);
            let hits: Result<Vec<_>, _> = customers.iter().map(find).collect();
            Ok((hits?, unchanged))
        });
        let hits;
        (hits, cache.unchanged) = looked.await?;
        Ok(hits)
    }

    /// Plans one part of a page and applies the plan.
    async fn apply_chunk(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        cache: &mut ListCache,
        request: &Arc<RequestMark>,
        chunk: Chunk,
    ) -> Result<(), StoreError> {
        let Chunk { reappeared, customers, unreadable, is_last } = chunk;
        let (seen_before, request) = (pass.seen_before, Arc::clone(request));
        let (mut seen_moved, mut unchanged) =
            (std::mem::take(seen_customers), std::mem::take(&mut cache.unchanged));
        let (origin, consistency) = (pass.kind_origin(), self.settings.consistency);
        let taken = self.step(pass, origin, move |view, tally| {
            reappeared.iter().try_for_each(|id| view.end_hold(id, HoldEnd::Alive))?;
            let mut list = ListPlanner {
                request: &request,
                consistency,
                seen_customers: &mut seen_moved,
                unchanged: &mut unchanged,
            };
            for (customer, fingerprint) in customers {
                list.plan(view, customer, fingerprint)?;
            }
            let new = plan_unreadable(view, unreadable, &mut seen_moved)?;
            if is_last {
                tally.customers_seen = seen_before + seen_moved.rows.len();
            }
            Ok((seen_moved, unchanged, new))
        });
        let new;
        (*seen_customers, cache.unchanged, new) = taken.await?;
        unreadable::report(&new);
        Ok(())
    }

    fn read_listed(&self, page: u64, listed: &RawCustomer) -> Result<Customer, Failure> {
        // This cannot fail, because the list parser accepted the customer. If it fails, only this
        // pass fails.
        listed.read().map_err(|why| {
            let why = self.masker.text(&format!("customer {} cannot be read: {why}", listed.id()));
            Failure::after(1, RequestError::Page { page, why })
        })
    }

    /// Returns whether the position of the pass must be written again.
    pub(super) fn position_is_due(&self, pass: &Pass) -> bool {
        let since = pass.position_at.map(|at| self.clock.elapsed().saturating_sub(at));
        since.is_none_or(|since| since >= POSITION_EVERY)
    }
}

/// Marks the unchanged customers as listed. Returns those with a held or decided deletion.
fn mark_cache_hits(
    seen_customers: &mut SeenCustomers,
    cache: &ListCache,
    customers: &[RawCustomer],
    hits: &[Option<CacheHit>],
) -> Vec<CustomerId> {
    let mut reappeared = Vec::new();
    for (listed, known) in customers.iter().zip(hits) {
        let Some(known) = known else { continue };
        seen_customers.see(known.row, known.source);
        if cache.unsettled.contains(known.row) {
            reappeared.push(listed.id().clone());
        }
    }
    reappeared
}

/// Returns whether these customers are small enough to be in memory as text and parsed.
pub(super) fn may_be_read_at_once(customers: &[RawCustomer]) -> bool {
    customers.iter().map(RawCustomer::bytes).sum::<usize>() <= READ_AT_ONCE
}

/// Divides the customers of a page into parts of at most [`READ_AT_ONCE`] bytes, and of at least
/// one customer.
fn chunks<'a>(customers: &[&'a RawCustomer]) -> Vec<Vec<&'a RawCustomer>> {
    let (mut chunks, mut bytes): (Vec<Vec<&RawCustomer>>, _) = (Vec::new(), 0);
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

/// Plans the customers of a page that are not found unchanged.
struct ListPlanner<'a> {
    request: &'a RequestMark,
    consistency: Consistency,
    seen_customers: &'a mut SeenCustomers,
    unchanged: &'a mut FingerprintWindow,
}

impl ListPlanner<'_> {
    /// Compares a listed customer with the mirror, and plans what to write about it.
    fn plan(
        &mut self,
        view: &mut View<'_>,
        customer: Customer,
        fingerprint: Fingerprint,
    ) -> Result<(), StoreError> {
        let id = customer.id().clone();
        let stored = view.find(&id)?;
        let is_second = stored.as_ref().is_some_and(|stored| self.seen_customers.rows.contains(stored.row));
        let read = ReadContext {
            by: ReadBy::List,
            requested_at: self.request.requested_at(),
            reason: if is_second { ReadReason::SamePass } else { ReadReason::Pass },
            consistency: self.consistency,
        };
        let Observation { plan, source } = observe(view, self.request, customer, stored.as_ref(), read)?;
        let row = match (plan, stored) {
            (CustomerPlan::Record(kind, customer), stored) => {
                if let Some(stored) = &stored {
                    view.end_hold(&id, HoldEnd::Alive)?;
                    self.unchanged.forget(stored.row);
                    count_fields(self.seen_customers, kind, &customer, stored);
                }
                view.record(kind, customer, stored, Some((fingerprint, source)))?
            }
            (CustomerPlan::Keep, Some(stored)) => {
                view.end_hold(&id, HoldEnd::Alive)?;
                let StoredCustomer { row, mirror_row } = stored;
                if !unchanged::is_noted(view.conn(), row)? {
                    view.note_listed(row, fingerprint, source);
                } else if self.seen_customers.reformatted.len() < MOST_REFORMATTED {
                    self.seen_customers.reformatted.push(Reformatted {
                        row,
                        seq: mirror_row.seq,
                        fingerprint,
                        source,
                    });
                }
                row
            }
            (plan, stored) => {
                leave_out(view, plan);
                match stored.filter(|stored| stored.mirror_row.is_live()) {
                    Some(stored) => self.seen_customers.see_unread(stored.row),
                    None => self.seen_customers.see_other(id.as_str()),
                }
                return Ok(());
            }
        };
        self.seen_customers.see(row, source);
        Ok(())
    }
}

/// Counts the fields that an update changes.
fn count_fields(
    seen_customers: &mut SeenCustomers,
    kind: ChangeKind,
    after: &Customer,
    stored: &StoredCustomer,
) {
    if let (ChangeKind::Updated, Some(before)) = (kind, stored.mirror_row.body.as_deref())
        && let Ok(before) = Customer::from_body(before)
    {
        seen_customers.fields.count(before.fields(), after.fields());
    }
}

/// Compares a read of a customer with the mirror, the log and our own pushes.
fn observe(
    view: &View<'_>,
    request: &RequestMark,
    shown: Customer,
    stored: Option<&StoredCustomer>,
    read: ReadContext,
) -> Result<Observation, StoreError> {
    let push = match stored {
        None if request.may_be_created_by_us(&shown) => OwnPush::MayHaveCreated,
        Some(_) if request.is_before_push_of(shown.id()) => OwnPush::Newer,
        _ => OwnPush::None,
    };
    let recent = match stored {
        Some(stored)
            if stored.mirror_row.body.as_deref() != Some(shown.body()) || !stored.mirror_row.is_live() =>
        {
            view.recent(shown.id(), stored, read.requested_at, read.consistency)?
        }
        _ => Vec::new(),
    };
    let known = KnownCustomer { mirror: stored.map(|stored| &stored.mirror_row), recent: &recent, push };
    Ok(Observation::new(shown, known, read))
}

/// Plans to request a customer again, if its read is not applied.
fn leave_out(view: &mut View<'_>, plan: CustomerPlan) {
    match plan {
        CustomerPlan::Defer(shown, left_out) => view.leave_out(shown, left_out),
        CustomerPlan::ReadAgain(id, at) => view.read_again(id, at),
        CustomerPlan::Record(..) | CustomerPlan::Keep | CustomerPlan::Ignore(_) => {}
    }
}

/// The effect of the GET of one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupEffect {
    /// A change is recorded.
    Recorded,
    /// The mirror has this state already.
    Unchanged,
    /// The answer is not applied. At this time, if it is known, a read is certain to be newer.
    LeftOut(Option<Timestamp>),
}

/// Plans what the GET of one customer changes, if the answer may be applied.
pub(super) fn plan_lookup(
    view: &mut View<'_>,
    request: &RequestMark,
    customer: Customer,
    reason: ReadReason,
    consistency: Consistency,
) -> Result<LookupEffect, StoreError> {
    let stored = view.find(customer.id())?;
    let read = ReadContext { by: ReadBy::Lookup, requested_at: request.requested_at(), reason, consistency };
    match observe(view, request, customer, stored.as_ref(), read)?.plan {
        CustomerPlan::Record(kind, customer) => {
            view.record(kind, customer, stored, None).map(|_| LookupEffect::Recorded)
        }
        CustomerPlan::Keep => Ok(LookupEffect::Unchanged),
        plan => {
            let until = match &plan {
                CustomerPlan::Defer(_, deferred) => Some(deferred.until),
                CustomerPlan::ReadAgain(_, at) => Some(*at),
                _ => None,
            };
            leave_out(view, plan);
            Ok(LookupEffect::LeftOut(until))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn page_above_the_limit_is_not_parsed_in_advance() {
        let text = "x".repeat(READ_AT_ONCE / 2 - 100);
        let customer = |n: u32| RawCustomer::from_value(&json!({"id": n.to_string(), "x": text})).unwrap();
        let page: Vec<RawCustomer> = (0..3).map(customer).collect();
        assert!(may_be_read_at_once(&page[..2]) && !may_be_read_at_once(&page));
    }
}
