//! Unreadable customers: each is noted with its id (or page and position) and its reason, its mirror row stays, and
//! where its id can be read it counts as listed.

use std::collections::HashSet;

use super::answer::Place;
use super::marks::Marks;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::log::holds::{self, End};
use crate::store::log::unreadable::{self, Sight};
use crate::store::log::{mirror, unlisted};
use crate::store::{StoreError, Tx};
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
    sight: Sight,
}

impl Noted {
    fn report(&self) {
        let Self { name, reason, sight: Sight { place, .. }, .. } = self;
        let (page, position) = place.unzip();
        let name = phrase(name.as_deref(), page, position);
        tracing::warn!("{name} is unreadable: {reason}; the mirror keeps what was last known of it");
    }
}

impl<R: Remote> Pull<R> {
    /// Counts the unreadable customers of a page and prepares them for [`note`].
    pub(super) fn meet(&self, pass: &mut Pass, bad: Vec<Unreadable>, place: &Place) -> Vec<Noted> {
        let at = time::written(self.clock.now());
        let noted = bad.into_iter().map(|bad| {
            pass.met.insert(&bad);
            let sight = Sight {
                place: bad.position.map(|position| place.of(position)),
                at: at.clone(),
                pass: Some(pass.id),
            };
            let name = bad.id.as_ref().map(|id| self.masker.text(id.as_str()));
            Noted { name, reason: self.masker.text(&bad.reason.to_string()), bad, sight }
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
        let applied = self.apply(pass, origin, move |tx, _, _| {
            let new = note(tx, &noted, &mut moved)?;
            Ok((moved, new))
        });
        let (moved, new) = applied.await?;
        *marks = moved;
        new.iter().for_each(Noted::report);
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
        let (id, at) = (id.clone(), time::written(self.clock.now()));
        let sweep = (pass.kind == PassKind::Sweep).then(|| pass.sweep());
        let applied = self.apply(pass, Origin::Lookup, move |tx, _, _| {
            holds::end(tx, &id, End::Alive)?;
            if let Some(sweep) = sweep {
                unlisted::note_verified(tx, id.as_str(), sweep, &at)?;
            }
            note(tx, &noted, &mut Marks::default())
        });
        applied.await?.iter().for_each(Noted::report);
        Ok(())
    }
}

/// Notes unreadable customers, and marks those as seen that the mirror knows; returns those that are new.
pub(super) fn note(tx: &Tx<'_>, noted: &[Noted], marks: &mut Marks) -> Result<Vec<Noted>, StoreError> {
    let mut new = Vec::new();
    for one in noted {
        if unreadable::note(tx, &one.bad, &one.reason, &one.sight)? {
            new.push(one.clone());
        }
        if one.sight.place.is_none() {
            continue;
        }
        // A tombstone must not count as seen: seen customers are compared with the live ones by number.
        let stored = match &one.bad.id {
            Some(id) => mirror::find(tx, id)?.filter(|stored| stored.standing.is_live()),
            None => None,
        };
        match (&one.bad.id, stored) {
            (Some(id), Some(stored)) => {
                holds::end(tx, id, End::Alive)?;
                marks.see_unread(stored.row);
            }
            _ => marks.see_other(&format!("unreadable {}", one.bad.digest())),
        }
    }
    Ok(new)
}

/// Reports unreadable customers that were not known before.
pub(super) fn report(new: &[Noted]) {
    new.iter().for_each(Noted::report);
}
