//! Applying: what a page or a lookup shows becomes log entries and mirror rows, and the pass's own row says so in the same
//! transaction.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::marks::Marks;
use super::{Failure, Pass, Pull, Setback, unreadable};
use crate::metrics;
use crate::remote::Remote;
use crate::store::log::changes::{self, Cause, Recorder};
use crate::store::log::holds::{self, End};
use crate::store::log::mirror::{self, Stored};
use crate::store::log::unchanged::{Compared, Unchanged};
use crate::store::log::{lag, passes};
use crate::store::{StoreError, Tx};
use crate::tasks::echoes::Asked;
use komoju_core::fingerprint::Fingerprint;
use komoju_core::plan::lag::{Consistency, Occasion};
use komoju_core::plan::observation::{CustomerPlan, Known, Observation, Push, Read, ReadBy};
use komoju_core::plan::rows::RowSet;
use komoju_core::{Customer, Kind, Listed, Origin, Tally, time};

/// How often a running pass writes how far it has come when it has nothing else to write.
const POSITION_EVERY: Duration = Duration::from_secs(30);

/// Up to so many bytes of text, the customers of a page are read before they are applied; of more, one by one.
const READ_AT_ONCE: usize = 512 << 10;

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

impl<R: Remote> Pull<R> {
    /// Applies a page and marks the customers that it shows; returns whether it was mostly news. Nothing is written for a page that
    /// changes nothing.
    pub(super) async fn apply_page(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        insight: &mut Insight,
        answer: Answer,
    ) -> Result<bool, Failure> {
        let Answer { page, asked, read, place: place_on_list, is_page } = answer;
        let noted = self.meet(pass, page.unreadable, &place_on_list);
        marks.keep_canaries(&page.customers, self.roll());
        page.deleted.iter().for_each(|listed| marks.see_other(listed.id().as_str()));
        let mut known = vec![None; page.customers.len()];
        let customers = Arc::new(page.customers);
        // What was read in advance is not looked for among what is known.
        if read.is_none() {
            let (mut unchanged, listed) = (std::mem::take(&mut insight.unchanged), Arc::clone(&customers));
            let looked = self.store.read(move |conn| {
                let known = unchanged.known(conn, &listed)?;
                Ok((unchanged, known))
            });
            (insight.unchanged, known) = looked.await?;
        }
        // Read all at once, a large page would take many times its size.
        let at_once = may_be_read_at_once(&customers);
        let (mut unread, mut back) = (Vec::new(), Vec::new());
        let mut read = read.into_iter().flatten();
        for (place, (listed, known)) in customers.iter().zip(known).enumerate() {
            match known {
                Some(known) => {
                    marks.see(known.row, known.source);
                    if insight.unsettled.contains(known.row) {
                        back.push(listed.id().clone());
                    }
                }
                None if at_once => {
                    let customer =
                        read.next().map_or_else(|| self.read_listed(place_on_list.page, listed), Ok)?;
                    unread.push((place, Some(customer)));
                }
                None => unread.push((place, None)),
            }
        }
        pass.tally.pages += u64::from(is_page);
        pass.tally.customers_seen = pass.seen_before + marks.seen.len();
        if unread.is_empty() && back.is_empty() && noted.is_empty() && !self.position_is_due(pass) {
            return Ok(false);
        }
        let (all, seen_before) = (customers.len() as u64, pass.seen_before);
        let (mut marks_moved, mut unchanged) =
            (std::mem::take(marks), std::mem::take(&mut insight.unchanged));
        let changes_before = pass.tally.changes();
        let (origin, consistency) = (pass.kind_origin(), self.settings.consistency);
        let applied = self.apply(pass, origin, move |tx, recorder, tally| {
            for id in &back {
                holds::end(tx, id, End::Alive)?;
            }
            for (place, customer) in unread {
                let listed = &customers[place];
                let read = || listed.read().map_err(|why| StoreError::Impossible(why.to_string()));
                let customer = customer.map_or_else(read, Ok)?;
                let seen = Seen { customer, asked: &asked, fingerprint: listed.fingerprint(), consistency };
                apply_listed(tx, recorder, &mut marks_moved, &mut unchanged, seen)?;
            }
            let new = unreadable::note(tx, &noted, &mut marks_moved)?;
            tally.customers_seen = seen_before + marks_moved.seen.len();
            Ok((marks_moved, unchanged, new))
        });
        let new;
        (*marks, insight.unchanged, new) = applied.await?;
        unreadable::report(&new);
        Ok((pass.tally.changes() - changes_before) * 2 > all)
    }

    fn read_listed(&self, page: u64, listed: &Listed) -> Result<Customer, Failure> {
        // It was taken apart before: so this does not happen, and must not cost more than this pass.
        listed.read().map_err(|why| {
            let why = self.masker.text(&format!("customer {} cannot be read: {why}", listed.id()));
            Failure::after(1, Setback::Page { page, why })
        })
    }

    fn position_is_due(&self, pass: &Pass) -> bool {
        let since = pass.position_at.map(|at| self.clock.elapsed().saturating_sub(at));
        since.is_none_or(|since| since >= POSITION_EVERY)
    }

    /// Runs `work` in one transaction, and writes the pass's row in it where something was recorded or the position is due: so a
    /// change and the pass that says it commit together.
    pub(super) async fn apply<T, F>(&self, pass: &mut Pass, origin: Origin, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>, &mut Recorder<'_, '_>, &mut Tally) -> Result<T, StoreError> + Send + 'static,
    {
        let observed_at = time::written(self.clock.now());
        let cause = Cause { observed_at, origin, pass_id: Some(pass.id), intent_id: None };
        let position_due = self.position_is_due(pass);
        pass.tally.requests = pass.requests_made + self.remote.requests() - pass.requests_before;
        let (id, position, mut tally) = (pass.id, pass.position, pass.tally);
        let applied = self.store.write_pass(move |tx| {
            let (value, recorded) = changes::recording(tx, cause, |recorder| work(tx, recorder, &mut tally))?;
            tally.add_changes(&recorded);
            let wrote = position_due || recorded.changes() > 0;
            if wrote {
                passes::progress(tx, id, &tally, position)?;
            }
            Ok((value, tally, recorded, wrote))
        });
        let (value, tally, recorded, wrote) = applied.await?;
        metrics::changes(origin, &recorded);
        pass.tally = tally;
        if wrote {
            pass.position_at = Some(self.clock.elapsed());
        }
        Ok(value)
    }
}

/// Whether these may be held read and unread.
pub(super) fn may_be_read_at_once(customers: &[Listed]) -> bool {
    customers.iter().map(Listed::bytes).sum::<usize>() <= READ_AT_ONCE
}

/// A customer as a list showed it.
struct Seen<'a> {
    customer: Customer,
    asked: &'a Asked,
    fingerprint: Fingerprint,
    consistency: Consistency,
}

/// Compares a listed customer with the mirror, records what differs, and remembers its text.
fn apply_listed(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    marks: &mut Marks,
    unchanged: &mut Unchanged,
    seen: Seen<'_>,
) -> Result<(), StoreError> {
    let Seen { customer, asked, fingerprint, consistency } = seen;
    let id = customer.id().clone();
    let stored = mirror::find(tx, &id)?;
    let is_second = stored.as_ref().is_some_and(|stored| marks.seen.contains(stored.row));
    let read = Read {
        by: ReadBy::List,
        requested_at: asked.requested_at(),
        occasion: if is_second { Occasion::SamePass } else { Occasion::Pass },
        consistency,
    };
    let Observation { plan, source } = observe(tx, asked, customer, stored.as_ref(), read)?;
    let is_applied = matches!(plan, CustomerPlan::Keep | CustomerPlan::Record(..));
    if !is_applied {
        apply(tx, recorder, plan, stored.clone())?;
        match stored.filter(|stored| stored.standing.is_live()) {
            Some(stored) => marks.see_unread(stored.row),
            None => marks.see_other(id.as_str()),
        }
        return Ok(());
    }
    if stored.is_some() {
        holds::end(tx, &id, End::Alive)?;
    }
    count_fields(marks, &plan, stored.as_ref());
    let known = stored.as_ref().map(|stored| (stored.row, stored.standing.seq));
    let (row, equals) = match (apply(tx, recorder, plan, stored)?, known) {
        (Some(row), _) => (row, None),
        (None, Some((row, seq))) => (row, Some(seq)),
        (None, None) => return Ok(()),
    };
    let text = Compared { row, fingerprint, source, equals };
    unchanged.remember(tx, text, &mut marks.reformatted)?;
    marks.see(row, source);
    Ok(())
}

/// Counts the fields that an update changes.
fn count_fields(marks: &mut Marks, plan: &CustomerPlan, stored: Option<&Stored>) {
    let before = stored.and_then(|stored| stored.standing.body.as_deref());
    if let (CustomerPlan::Record(Kind::Updated, after), Some(before)) = (plan, before)
        && let Ok(before) = Customer::from_body(before)
    {
        marks.fields.count(before.fields(), after.fields());
    }
}

/// Plans what is done about a read of a customer.
fn observe(
    tx: &Tx<'_>,
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
            lag::recent(tx, shown.id(), stored, read.requested_at, read.consistency)?
        }
        _ => Vec::new(),
    };
    let known = Known { mirror: stored.map(|stored| &stored.standing), recent: &recent, push };
    Ok(Observation::new(shown, known, read))
}

/// Applies a plan; returns the row of the mirror that it changed.
fn apply(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    plan: CustomerPlan,
    stored: Option<Stored>,
) -> Result<Option<i64>, StoreError> {
    match plan {
        CustomerPlan::Record(kind, customer) => return recorder.record(kind, &customer, stored).map(Some),
        CustomerPlan::LeaveOut(shown, left_out) => lag::leave_out(tx, &shown, left_out)?,
        CustomerPlan::ReadAgain(id, at) => lag::schedule(tx, &id, at, None)?,
        CustomerPlan::Keep | CustomerPlan::Ignore(_) => {}
    }
    Ok(None)
}

/// Records what a customer's own GET shows of it, where it may be applied.
pub(super) fn apply_lookup(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    asked: &Asked,
    customer: Customer,
    (occasion, consistency): (Occasion, Consistency),
) -> Result<(), StoreError> {
    let stored = mirror::find(tx, customer.id())?;
    let read = Read { by: ReadBy::Lookup, requested_at: asked.requested_at(), occasion, consistency };
    let observation = observe(tx, asked, customer, stored.as_ref(), read)?;
    apply(tx, recorder, observation.plan, stored).map(drop)
}
