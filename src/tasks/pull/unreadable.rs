//! Unreadable customers: each is noted with its id (or page and position) and its reason. Its
//! mirror row is left unchanged. It counts as listed if its id can be read.

use std::collections::HashSet;

use super::answer::PageOffset;
use super::seen_customers::SeenCustomers;
use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::HoldEnd;
use crate::store::log::unreadable::UnreadableOccurrence;
use komoju_core::unreadable::phrase;
use komoju_core::{CustomerId, Origin, PassKind, Unreadable, time};

/// The digests of the different unreadable customers that a pass found.
#[derive(Debug, Default)]
pub(super) struct UnreadableSet {
    all: HashSet<u64>,
    without_id: HashSet<u64>,
}

impl UnreadableSet {
    fn insert(&mut self, bad: &Unreadable) {
        // The list may have shown the same customer before, without a readable id.
        if self.without_id.contains(&Unreadable { id: None, ..bad.clone() }.digest()) {
            return;
        }
        let digest = bad.digest();
        if bad.id.is_none() {
            self.without_id.insert(digest);
        }
        self.all.insert(digest);
    }

    /// Returns the number of different customers.
    pub(super) fn count(&self) -> u64 {
        self.all.len() as u64
    }
}

/// An unreadable customer with everything that is noted of it.
#[derive(Clone, Debug)]
pub(super) struct UnreadableEntry {
    bad: Unreadable,
    /// Its id, masked.
    name: Option<String>,
    reason: String,
    occurrence: UnreadableOccurrence,
}

impl UnreadableEntry {
    fn report(&self) {
        let Self { name, reason, occurrence: UnreadableOccurrence { place, .. }, .. } = self;
        let (page, position) = place.unzip();
        let name = phrase(name.as_deref(), page, position);
        tracing::warn!("{name} is unreadable: {reason}; the mirror keeps the last readable state");
    }
}

impl<R: Remote> Pull<R> {
    /// Counts the unreadable customers of a page, and prepares them for [`plan_unreadable`].
    pub(super) fn count_unreadable(
        &self,
        pass: &mut Pass,
        bad: Vec<Unreadable>,
        offset: &PageOffset,
    ) -> Vec<UnreadableEntry> {
        let at = time::written(self.clock.now());
        let noted = bad.into_iter().map(|bad| {
            pass.unreadable.insert(&bad);
            let occurrence = UnreadableOccurrence {
                place: bad.position.map(|position| offset.position(position)),
                at: at.clone(),
                pass: Some(pass.id),
            };
            let name = bad.id.as_ref().map(|id| self.masker.name(id.as_str()));
            UnreadableEntry { name, reason: self.masker.text(&bad.reason.to_string()), bad, occurrence }
        });
        let noted = noted.collect();
        pass.tally.unreadable = pass.unreadable_before + pass.unreadable.count();
        noted
    }

    /// Notes a customer that is too large even on a page of its own. `bad` is `None` if nothing of
    /// it could be read.
    pub(super) async fn apply_unreadable(
        &self,
        pass: &mut Pass,
        seen_customers: &mut SeenCustomers,
        bad: Option<Unreadable>,
        offset: PageOffset,
    ) -> Result<(), Failure> {
        let noted = self.count_unreadable(pass, bad.into_iter().collect(), &offset);
        let (origin, mut moved) = (pass.kind_origin(), std::mem::take(seen_customers));
        let applied = self.step(pass, origin, move |view, _| {
            let new = plan_unreadable(view, noted, &mut moved)?;
            Ok((moved, new))
        });
        let new;
        (*seen_customers, new) = applied.await?;
        report(&new);
        pass.tally.customers_seen = pass.seen_before + seen_customers.rows.len();
        Ok(())
    }

    /// Notes a customer after an unreadable answer to its own GET: it exists, and nothing else is
    /// known of it.
    pub(super) async fn record_unreadable(
        &self,
        pass: &mut Pass,
        id: &CustomerId,
        mut bad: Unreadable,
    ) -> Result<(), Failure> {
        bad.id = Some(id.clone());
        let noted = self.count_unreadable(pass, vec![bad], &PageOffset::default());
        let id = id.clone();
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        let applied = self.step(pass, Origin::Lookup, move |view, _| {
            view.end_hold(&id, HoldEnd::Alive)?;
            if let Some(sweep) = sweep {
                view.note_verified(&id, sweep)?;
            }
            plan_unreadable(view, noted, &mut SeenCustomers::default())
        });
        report(&applied.await?);
        Ok(())
    }
}

/// Plans to note unreadable customers, and marks those that are listed as seen. Returns those that
/// are new.
pub(super) fn plan_unreadable(
    view: &mut View<'_>,
    noted: Vec<UnreadableEntry>,
    seen_customers: &mut SeenCustomers,
) -> Result<Vec<UnreadableEntry>, StoreError> {
    let mut new = Vec::new();
    for one in noted {
        let is_new = view.note_unreadable(&one.bad, &one.reason, one.occurrence.clone())?;
        if one.occurrence.place.is_some() {
            // A tombstone must not count as seen, because the number of seen customers is compared
            // with the number of live ones.
            let stored = match &one.bad.id {
                Some(id) => view.find(id)?.filter(|stored| stored.mirror_row.is_live()),
                None => None,
            };
            match (&one.bad.id, stored) {
                (Some(id), Some(stored)) => {
                    view.end_hold(id, HoldEnd::Alive)?;
                    seen_customers.see_unread(stored.row);
                }
                _ => seen_customers.see_other(&format!("unreadable {}", one.bad.digest())),
            }
        }
        if is_new {
            new.push(one);
        }
    }
    Ok(new)
}

/// Logs unreadable customers that are new.
pub(super) fn report(new: &[UnreadableEntry]) {
    new.iter().for_each(UnreadableEntry::report);
}
