//! Unreadable customers: each is noted with its id (or page and position) and its reason, its mirror row stays, and
//! where its id can be read it counts as listed.

use std::collections::HashSet;

use super::answer::Place;
use super::marks::Marks;
use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::End;
use crate::store::log::unreadable::UnreadableOccurrence;
use komoju_core::unreadable::phrase;
use komoju_core::{CustomerId, Origin, PassKind, Unreadable, time};

/// The different unreadable customers that a pass has met, as a digest each.
#[derive(Debug, Default)]
pub(super) struct Met {
    all: HashSet<u64>,
    nameless: HashSet<u64>,
}

impl Met {
    fn insert(&mut self, bad: &Unreadable) {
        // The list may have shown the same text, of which the id cannot be read.
        if self.nameless.contains(&Unreadable { id: None, ..bad.clone() }.digest()) {
            return;
        }
        let digest = bad.digest();
        if bad.id.is_none() {
            self.nameless.insert(digest);
        }
        self.all.insert(digest);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.all.len() as u64
    }
}

/// An unreadable customer, ready to be noted.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    bad: Unreadable,
    /// Its id, masked.
    name: Option<String>,
    reason: String,
    occurrence: UnreadableOccurrence,
}

impl Noted {
    fn report(&self) {
        let Self { name, reason, occurrence: UnreadableOccurrence { place, .. }, .. } = self;
        let (page, position) = place.unzip();
        let name = phrase(name.as_deref(), page, position);
        tracing::warn!("{name} is unreadable: {reason}; the mirror keeps what was last known of it");
    }
}

impl<R: Remote> Pull<R> {
    /// Counts the unreadable customers of a page and prepares them for [`plan_unreadable`].
    pub(super) fn meet(&self, pass: &mut Pass, bad: Vec<Unreadable>, place: &Place) -> Vec<Noted> {
        let at = time::written(self.clock.now());
        let noted = bad.into_iter().map(|bad| {
            pass.met.insert(&bad);
            let occurrence = UnreadableOccurrence {
                place: bad.position.map(|position| place.of(position)),
                at: at.clone(),
                pass: Some(pass.id),
            };
            let name = bad.id.as_ref().map(|id| self.masker.text(id.as_str()));
            Noted { name, reason: self.masker.text(&bad.reason.to_string()), bad, occurrence }
        });
        let noted = noted.collect();
        pass.tally.unreadable = pass.unreadable_before + pass.met.count();
        noted
    }

    /// Notes one customer that is a page of its own and too large.
    pub(super) async fn apply_unreadable(
        &self,
        pass: &mut Pass,
        marks: &mut Marks,
        bad: Option<Unreadable>,
        place: Place,
    ) -> Result<(), Failure> {
        let noted = self.meet(pass, bad.into_iter().collect(), &place);
        let (origin, mut moved) = (pass.kind_origin(), std::mem::take(marks));
        let applied = self.step(pass, origin, move |view, _| {
            let new = plan_unreadable(view, noted, &mut moved)?;
            Ok((moved, new))
        });
        let new;
        (*marks, new) = applied.await?;
        report(&new);
        pass.tally.customers_seen = pass.seen_before + marks.seen.len();
        Ok(())
    }

    /// Notes a customer that answered a request by its id: it is there, and nothing else is known of it.
    pub(super) async fn record_unreadable(
        &self,
        pass: &mut Pass,
        id: &CustomerId,
        mut bad: Unreadable,
    ) -> Result<(), Failure> {
        bad.id = Some(id.clone());
        let noted = self.meet(pass, vec![bad], &Place::default());
        let id = id.clone();
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        let applied = self.step(pass, Origin::Lookup, move |view, _| {
            view.end_hold(&id, End::Alive)?;
            if let Some(sweep) = sweep {
                view.note_verified(&id, sweep)?;
            }
            plan_unreadable(view, noted, &mut Marks::default())
        });
        report(&applied.await?);
        Ok(())
    }
}

/// Plans to note unreadable customers, and marks those as seen that the mirror knows; returns those that are new.
pub(super) fn plan_unreadable(
    view: &mut View<'_>,
    noted: Vec<Noted>,
    marks: &mut Marks,
) -> Result<Vec<Noted>, StoreError> {
    let mut new = Vec::new();
    for one in noted {
        let is_new = view.note_unreadable(&one.bad, &one.reason, one.occurrence.clone())?;
        if one.occurrence.place.is_some() {
            // A tombstone must not count as seen: seen customers are compared with the live ones by number.
            let stored = match &one.bad.id {
                Some(id) => view.find(id)?.filter(|stored| stored.standing.is_live()),
                None => None,
            };
            match (&one.bad.id, stored) {
                (Some(id), Some(stored)) => {
                    view.end_hold(id, End::Alive)?;
                    marks.see_unread(stored.row);
                }
                _ => marks.see_other(&format!("unreadable {}", one.bad.digest())),
            }
        }
        if is_new {
            new.push(one);
        }
    }
    Ok(new)
}

/// Reports unreadable customers that were not known before.
pub(super) fn report(new: &[Noted]) {
    new.iter().for_each(Noted::report);
}
