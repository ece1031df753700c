//! What a sweep concludes from a list that it has read to its end: which customers are missing, and what is proven about them.
//!
//! ```text
//!   mirror − listed ─▶ suspects ─▶ each, or a sample ─▶ alive: updated, verified ─▶ one closing transaction:
//!                      (and held ones)                 ─▶ gone: recorded, or held     holds, sources, what was learnt
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::inquest::{Canaries, Warrant};
use super::marks::Marks;
use super::pages::Rounds;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::file::indexes;
use crate::store::log::changes::{self, Recorder};
use crate::store::log::holds::{self, Because};
use crate::store::log::unlisted::{self, RESTS_FOR};
use crate::store::log::{busy_fields, mirror, unreadable};
use crate::store::{StoreError, Tx};
use crate::tasks::echoes::Asked;
use komoju_core::plan::evidence::{self, Course, Licence, Sampled};
use komoju_core::plan::lag::Consistency;
use komoju_core::plan::rows::RowSet;
use komoju_core::plan::sighting;
use komoju_core::{CustomerId, Kind, Origin, Outcome, PassId, time};

/// The customers that a sweep misses.
struct Missing {
    /// Live since before the sweep and not listed by it.
    suspects: RowSet,
    /// How many more are missing, and are left to our own open push of them: they count towards the limit.
    pushed: u64,
    /// Held for an operator, live and not listed.
    held: RowSet,
    /// Whether deletions may be recorded.
    licence: Licence,
    /// When customers that were not listed answered last: by their rows, the number of the sweep.
    verified: HashMap<i64, i64>,
}

/// What became of the suspects.
#[derive(Default)]
struct Findings {
    /// To be held, and why.
    held: Vec<(RowSet, Because)>,
    /// Neither verified nor held nor recorded.
    unverified: RowSet,
}

/// What a sweep concludes.
struct Concluded {
    /// Whose deletion is to be held, and why.
    to_hold: Vec<(RowSet, Because)>,
    /// Whether the list was read to its end, and every live customer listed, verified or held.
    is_whole: bool,
    /// Whether no customer was left to our own push besides.
    knows_all: bool,
}

impl<R: Remote> Pull<R> {
    /// What follows from a list that was read to its end.
    pub(super) async fn conclude(
        &self,
        pass: &mut Pass,
        marks: Marks,
        rounds: Rounds,
    ) -> Result<Outcome, Failure> {
        pass.limit_questions();
        let limit = evidence::limit(
            pass.live_before,
            self.settings.max_delete_count,
            self.settings.max_delete_percent,
        );
        let (missing, mut marks) = self.find_missing(pass, marks).await?;
        let canaries = Canaries::Among(std::mem::take(&mut marks.canaries));
        let findings = self.inquire(pass, &missing, &canaries, limit).await?;
        self.ask_held(pass, &missing.held).await?;
        // Before the sweep is called complete: readers may count on them from then on.
        for index in indexes::ALL {
            let made = self.store.make_index_unless(self.stop.cancelled(), index);
            made.await?.ok_or(Failure::Stopped)?;
        }
        pass.tally.unverified = findings.unverified.len();
        let is_whole = findings.unverified.is_empty() && !rounds.report.grows;
        let concluded =
            Concluded { to_hold: findings.held, is_whole, knows_all: is_whole && missing.pushed == 0 };
        let held = self.apply_conclusions(pass, marks, concluded, rounds).await?;
        Ok(match (is_whole, held) {
            (true, 0) => Outcome::Complete,
            (true, _) => Outcome::Held,
            (false, _) => Outcome::Partial,
        })
    }

    /// Compares what the mirror holds with what the sweep has listed.
    async fn find_missing(&self, pass: &Pass, marks: Marks) -> Result<(Missing, Marks), StoreError> {
        let (head_before, asked, sweep) = (pass.head_before, Arc::clone(&pass.asked), pass.sweep());
        let (now, server_now) = self.times();
        let consistency = self.settings.consistency;
        let live_before = pass.live_before;
        let found = self.store.read(move |conn| {
            let licence = if holds::holds_all(conn)? { Licence::Hold } else { Licence::Record };
            let verified = unlisted::verified(conn)?;
            let (mut suspects, mut held, mut pushed) = (RowSet::default(), RowSet::default(), 0);
            holds::each_held_row(conn, &Because::AN_OPERATORS, |row| {
                held.insert(row);
            })?;
            // Most sweeps list every live customer: then none is looked for. Of those that were listed, some were deleted since.
            let listed = marks.seen.len().saturating_sub(changes::deletions_after(conn, head_before)?);
            if live_before == 0 || mirror::live_count(conn)? <= listed {
                let held = RowSet::default();
                return Ok((Missing { suspects, pushed, held, licence, verified }, marks));
            }
            let mut young = RowSet::default();
            unlisted::each_young(conn, consistency, now, server_now, |row| {
                young.insert(row);
            })?;
            let rests = |row| verified.get(&row).is_some_and(|verified| sweep - verified <= RESTS_FOR);
            mirror::each_live_before(conn, head_before, |row, id| {
                let is_missing = !marks.seen.contains(row) && id.can_be_asked();
                if is_missing && !held.contains(row) && !young.contains(row) && !rests(row) {
                    // Our own push is newer than this sweep, or is about to be.
                    let is_pushed =
                        asked.is_before_push_of(&id) || unlisted::has_push_open(conn, id.as_str())?;
                    match is_pushed {
                        true => pushed += 1,
                        false => {
                            suspects.insert(row);
                        }
                    }
                }
                Ok(())
            })?;
            let missing: Vec<i64> = held.iter().filter(|row| marks.seen.contains(*row)).collect();
            missing.into_iter().for_each(|row| held.remove(row));
            Ok((Missing { suspects, pushed, held, licence, verified }, marks))
        });
        found.await
    }

    /// Requests the suspects, each or a sample, and records what is proven.
    async fn inquire(
        &self,
        pass: &mut Pass,
        missing: &Missing,
        canaries: &Canaries,
        limit: u64,
    ) -> Result<Findings, Failure> {
        let mut findings = Findings { held: Vec::new(), unverified: missing.suspects.clone() };
        let mut first = Vec::new();
        if evidence::course(missing.suspects.len() + missing.pushed, limit) == Course::AskSample {
            let (sampled, gone) = self.ask_sample(pass, &mut findings.unverified).await?;
            match sampled {
                Sampled::Gone => {
                    let because = match missing.licence {
                        Licence::Hold => Because::Restored,
                        Licence::Record => Because::TooMany,
                    };
                    findings.held.push((std::mem::take(&mut findings.unverified), because));
                    return Ok(findings);
                }
                Sampled::Unknown => return Ok(findings),
                Sampled::Imprecise => {
                    let (suspects, live) = (missing.suspects.len(), pass.live_before);
                    tracing::warn!(
                        suspects,
                        live,
                        "the list leaves out {suspects} of {live} customers, and at least one of them exists: they are verified \
                         by single requests"
                    );
                    // At once: a stop must not lose it, because deletions are recorded before the sweep ends.
                    let now = self.clock.now();
                    pass.learnt.above_limit_at = Some(now);
                    self.store.write(move |tx| unlisted::note_above_limit(tx, now)).await?;
                    first = gone;
                }
            }
        }
        let room = self.room(pass, missing.licence, limit).await?;
        let order = self.in_order(&findings.unverified, &missing.verified, first);
        let most = usize::try_from(pass.budget).unwrap_or(usize::MAX);
        let named = self.named(order.into_iter().take(most).collect()).await?;
        let rows: HashMap<CustomerId, i64> = named.iter().map(|(row, id)| (id.clone(), *row)).collect();
        let suspects = named.into_iter().map(|(_, id)| id).collect();
        let verdict = self.hold_inquest(pass, suspects, canaries, Warrant::OwnSuspicion { room }).await?;
        let rows_of = |ids: &[CustomerId]| {
            let mut set = RowSet::default();
            ids.iter().filter_map(|id| rows.get(id)).for_each(|row| {
                set.insert(*row);
            });
            set
        };
        // What was requested is settled, but for these.
        let mut unverified = std::mem::take(&mut findings.unverified);
        rows.values().for_each(|row| unverified.remove(*row));
        rows_of(&verdict.unknown).iter().for_each(|row| {
            unverified.insert(row);
        });
        findings.unverified = unverified;
        let (over, unproven) = match missing.licence {
            Licence::Hold => (Because::Restored, Because::Restored),
            Licence::Record => (Because::TooMany, Because::Unproven),
        };
        for (ids, because) in [(&verdict.unproven, unproven), (&verdict.over, over)] {
            if !ids.is_empty() {
                findings.held.push((rows_of(ids), because));
            }
        }
        Ok(findings)
    }

    /// One transaction: sources that are gone, deletions that are held, and what was learnt. Returns how many are held.
    async fn apply_conclusions(
        &self,
        pass: &mut Pass,
        marks: Marks,
        concluded: Concluded,
        rounds: Rounds,
    ) -> Result<u64, Failure> {
        let (id, head_before, asked) = (pass.id, pass.head_before, Arc::clone(&pass.asked));
        let now = self.clock.now();
        let at = time::written(now);
        let (busy, consistency) = (self.busy_fields(&marks), self.settings.consistency);
        let mut learnt = pass.learnt.clone();
        learnt.sweeps = pass.sweep();
        learnt.vain_sweeps = match rounds.in_vain {
            Some(true) => learnt.vain_sweeps + 1,
            Some(false) => 0,
            None => learnt.vain_sweeps,
        };
        let held = self.apply(pass, Origin::Sweep, move |tx, recorder, _| {
            for respelled in &marks.respelled {
                respelled.note(tx)?;
            }
            if concluded.is_whole {
                null_sources(tx, recorder, &marks, &asked, (head_before, now, consistency))?;
                unreadable::conclude(tx, id)?;
            }
            for (rows, because) in concluded.to_hold {
                hold(tx, id, &at, &rows, because)?;
            }
            // Of a restored database every deletion is held until one sweep knows of each customer.
            if concluded.knows_all {
                holds::note_concluded(tx)?;
            }
            busy_fields::replace(tx, busy, marks.seen.len(), &at)?;
            unlisted::forget_listed(tx, |row| marks.seen.contains(row))?;
            unlisted::note_learnt(tx, &learnt, &rounds.report.phrases(), rounds.report.ignores_page)?;
            holds::held_count(tx)
        });
        Ok(held.await?)
    }

    /// The fields that changed in many customers, their names masked; each is logged.
    fn busy_fields(&self, marks: &Marks) -> BTreeMap<String, u64> {
        let seen = marks.seen.len();
        let mut busy = BTreeMap::new();
        for (field, customers) in marks.fields.busy(seen) {
            let field = self.masker.text(field);
            tracing::warn!(
                field,
                customers,
                "the field {field} changed in {customers} of {seen} customers: where it changes on every read, each sweep adds \
                 as many log entries"
            );
            busy.insert(field, customers);
        }
        busy
    }
}

/// Takes away the sources of customers that this sweep listed without one, if it showed any at all.
fn null_sources(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    marks: &Marks,
    asked: &Asked,
    (head_before, now, consistency): (i64, Timestamp, Consistency),
) -> Result<(), StoreError> {
    if !sighting::may_be_nulled(true, marks.any_source) {
        return Ok(());
    }
    for row in marks.null_listed.iter() {
        let Some(id) = mirror::id_of(tx, row)? else { continue };
        if asked.is_before_push_of(&id) {
            continue;
        }
        let stored = mirror::find(tx, &id)?.filter(|stored| stored.standing.is_live());
        // The list may have shown it as it was before its last change; the next sweep shows it again.
        let changed_at = stored.as_ref().and_then(|stored| time::read(&stored.standing.changed_at));
        // An entry that is stamped in the future was logged while the clock was wrong.
        let may_be_behind = |at: Timestamp| at <= now && consistency.may_be_behind(at, asked.requested_at());
        let seq = stored.as_ref().map_or(0, |stored| stored.standing.seq);
        let is_newer = seq > head_before && !changes::is_by_list(tx, seq)?;
        if is_newer || changed_at.is_some_and(may_be_behind) {
            continue;
        }
        let without = stored.as_ref().and_then(|stored| sighting::without_source(&stored.standing));
        if let Some(customer) = without {
            recorder.record(Kind::Updated, &customer, stored)?;
        }
    }
    Ok(())
}

/// Holds these deletions, in a hold of their own: those that an operator has decided about, or that wait already, stay as they are.
fn hold(tx: &Tx<'_>, pass: PassId, at: &str, rows: &RowSet, because: Because) -> Result<(), StoreError> {
    let mut hold = None;
    for row in rows.iter() {
        // While the sweep ran, an operator may have decided about it, or our own push may have deleted it.
        let Some(customer) = mirror::live_id_of(tx, row)? else { continue };
        if holds::is_decided(tx, &customer)? {
            continue;
        }
        match holds::held_because(tx, &customer)? {
            Some(known) if known == because || because == Because::Unproven => continue,
            // More than unproven by now: it waits for an operator.
            Some(_) => holds::release(tx, &customer)?,
            None => {}
        }
        let hold = match hold {
            Some(hold) => hold,
            None => *hold.insert(holds::open(tx, pass, at, because)?),
        };
        holds::add(tx, hold, &customer)?;
    }
    Ok(())
}
