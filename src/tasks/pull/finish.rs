//! The end of a pass: what a whole sweep concludes, and the row that says how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ask::Found;
use super::inquest::{Canaries, Verdict, Warrant};
use super::marks::Marks;
use super::{Failure, Pass, Phase, Progress, Pull, Report};
use crate::model::{CustomerId, Kind, Origin, Outcome, PassId, PassKind, Tally, time};
use crate::reconcile::evidence::{self, Course, Licence, SAMPLE, Waiting};
use crate::reconcile::rows::RowSet;
use crate::reconcile::sighting;
use crate::remote::Remote;
use crate::store::changes::Recorder;
use crate::store::clock::{self, Confirmed};
use crate::store::holds::Because;
use crate::store::{StoreError, Tx, busy_fields, holds, indexes, mirror, passes, unreadable};
use crate::tasks::echoes::Asked;

/// Passes without an event are kept so long.
const KEEP_UNEVENTFUL: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Up to so many suspects are requested where unreadable customers explain them, however few pages the list has.
const MOST_ASKED: u64 = 100;

/// After so many questions without a usable answer nobody else is asked.
const MOST_UNCLEAR: usize = 20;

/// Whom a sweep misses.
struct Missing {
    /// Who was live before it and was not listed by it, those included to whom we push ourselves: of them this pass has no news that may
    /// be recorded, but they count.
    suspects: RowSet,
    /// Where everybody who waits for a person's word is among them, and up to the limit others: those others.
    added: Option<RowSet>,
    /// What may be done about them without a person.
    licence: Licence,
}

impl<R: Remote> Pull<R> {
    /// What follows from a list that was read whole.
    pub(super) async fn conclude(&self, pass: &mut Pass, marks: Marks) -> Result<Outcome, Failure> {
        let limit = evidence::limit(
            pass.live_before,
            self.settings.max_delete_count,
            self.settings.max_delete_percent,
        );
        let (Missing { mut suspects, added, licence }, mut marks) =
            self.find_missing(pass, marks, limit).await?;
        let unclear = match added {
            Some(added) => {
                let canaries = Canaries::Among(marks.canaries.clone());
                self.ask_the_added(pass, &mut suspects, &added, &canaries, licence).await?
            }
            None => None,
        };
        if self.may_ask_each(pass, suspects.len(), limit) && unclear.is_none() {
            suspects = self.ask_each_to_hold(pass, &suspects).await?;
        }
        let waiting = if unclear.is_some() { Waiting::TheSame } else { Waiting::Others };
        let course = evidence::course(suspects.len(), limit, waiting, licence);
        let others = match course {
            Course::Nothing => RowSet::default(),
            Course::AskEach => self.ask_each(pass, &suspects, &mut marks).await?,
            Course::AskEachAndHold => self.ask_each_to_hold(pass, &suspects).await?,
            Course::KeepHolding => RowSet::default(),
            Course::AskSample => {
                self.ask_sample(pass, &suspects).await?;
                suspects
            }
        };
        // Those who go on waiting for a person's word do so as they are.
        let to_hold = unclear.unwrap_or(others);
        // Before the sweep is called complete: readers may count on them from then on.
        for index in indexes::ALL {
            let made = self.store.make_index_unless(self.stop.cancelled(), index);
            made.await?.ok_or(Failure::Stopped)?;
        }
        match self.apply_conclusions(pass, marks, (to_hold, waiting), limit, licence).await? {
            0 => Ok(Outcome::Complete),
            _ => Ok(Outcome::Held),
        }
    }

    /// Whether there are too many suspects only because customers are listed whose id cannot be read: each of them may be a
    /// suspect. Then those that are alive are told apart first.
    fn may_ask_each(&self, pass: &Pass, suspects: u64, limit: u64) -> bool {
        let unexplained = suspects.saturating_sub(pass.met.nameless());
        suspects > limit && unexplained <= limit && suspects <= pass.tally.pages.max(MOST_ASKED)
    }

    /// Compares what the mirror holds with what the sweep has marked.
    async fn find_missing(
        &self,
        pass: &Pass,
        marks: Marks,
        limit: u64,
    ) -> Result<(Missing, Marks), StoreError> {
        let (head_before, asked) = (pass.head_before, Arc::clone(&pass.asked));
        let deleted = pass.tally.deleted;
        let found = self.store.read(move |conn| {
            let licence = if holds::holds_all(conn)? { Licence::Hold } else { Licence::Record };
            // Whoever is listed is live, but for who was deleted since, by this pass or by us: when no more are live than that, nobody
            // is missing.
            let mut gone = deleted;
            for id in asked.pushed_since() {
                let stored = mirror::find(conn, &id)?.filter(|stored| !stored.standing.is_live());
                gone += u64::from(stored.is_some_and(|stored| marks.seen.contains(stored.row)));
            }
            let mut suspects = RowSet::default();
            if mirror::live_count(conn)? + gone > marks.seen.len() {
                mirror::each_live_before(conn, head_before, |row, id| {
                    if !marks.seen.contains(row) && id.can_be_asked() {
                        suspects.insert(row);
                    }
                    Ok(())
                })?;
            }
            // After whom the mirror has: who is decided about meanwhile waits no longer.
            let mut held = RowSet::default();
            holds::each_held_row(conn, &Because::A_PERSONS, |row| {
                held.insert(row);
            })?;
            let mut added = suspects.clone();
            held.iter().for_each(|row| added.remove(row));
            let goes_on = !held.is_empty() && held.is_subset_of(&suspects) && added.len() <= limit;
            Ok((Missing { suspects, added: goes_on.then_some(added), licence }, marks))
        });
        found.await
    }

    /// Whom paging skipped make no other set of those who wait for a person: they are asked, and where none of them is proven to be
    /// gone, only the others stay suspects. Returns those about whom nothing is known even so; `None` where one is gone, and the set
    /// another one.
    async fn ask_the_added(
        &self,
        pass: &mut Pass,
        suspects: &mut RowSet,
        added: &RowSet,
        canaries: &Canaries,
        licence: Licence,
    ) -> Result<Option<RowSet>, Failure> {
        let (mut unclear, mut in_vain) = (RowSet::default(), 0);
        let mut rows: Vec<i64> = added.iter().collect();
        // Not the same ones first each time: where many give no answer, the others would never be asked.
        let first = usize::try_from(self.roll() % added.len().max(1)).unwrap_or(0);
        rows.rotate_left(first);
        for row in rows {
            if in_vain >= MOST_UNCLEAR {
                unclear.insert(row);
                continue;
            }
            let (asked_at, asked) = (self.clock.elapsed(), self.echoes.asking());
            let Some(id) = self.ids(vec![row]).await?.pop() else {
                suspects.remove(row);
                continue;
            };
            let why = match self.look_up(&id, pass.patience()).await? {
                Found::Alive(customer) => {
                    self.record_alive(pass, asked, customer).await?;
                    suspects.remove(row);
                    continue;
                }
                Found::Unreadable(bad) => {
                    self.record_unreadable(pass, &id, bad).await?;
                    suspects.remove(row);
                    continue;
                }
                // Our own delete may have done that.
                Found::Gone if licence == Licence::Record && pass.asked.is_before_push_of(&id) => {
                    suspects.remove(row);
                    continue;
                }
                Found::Gone => match self.ask_canaries(pass, canaries).await? {
                    Some(answered_at) if evidence::is_within(asked_at, answered_at) => return Ok(None),
                    _ => {
                        let id = self.masker.text(id.as_str());
                        format!("GET /customers/{id}: not_found, and no other customer answers in time")
                    }
                },
                Found::Unclear(why) => why.to_string(),
            };
            tracing::warn!("{why}; whether this customer is gone is not known");
            pass.unclear += 1;
            in_vain += 1;
            unclear.insert(row);
        }
        unclear.iter().for_each(|row| suspects.remove(row));
        Ok(Some(unclear))
    }

    /// Those of them who are live.
    async fn ids(&self, rows: Vec<i64>) -> Result<Vec<CustomerId>, StoreError> {
        // Who was deleted by us, or erased, meanwhile is nobody's suspect any more.
        self.store
            .read(move |conn| {
                rows.into_iter().filter_map(|row| mirror::live_id_of(conn, row).transpose()).collect()
            })
            .await
    }

    /// Few enough: each is asked. Returns those that must be held because nothing is proven about them.
    async fn ask_each(
        &self,
        pass: &mut Pass,
        suspects: &RowSet,
        marks: &mut Marks,
    ) -> Result<RowSet, Failure> {
        let ids = self.ids(suspects.iter().collect()).await?;
        let canaries = Canaries::Among(std::mem::take(&mut marks.canaries));
        let unproven = match self.hold_inquest(pass, ids, &canaries, Warrant::OwnSuspicion).await? {
            Verdict::Settled => return Ok(RowSet::default()),
            Verdict::Unproven(unproven) | Verdict::NoCanary(unproven) => unproven,
        };
        let rows = self.store.write(move |tx| {
            let mut rows = RowSet::default();
            for id in &unproven {
                if let Some(stored) = mirror::find(tx, id)? {
                    rows.insert(stored.row);
                }
            }
            Ok::<_, StoreError>(rows)
        });
        Ok(rows.await?)
    }

    /// Few enough, and nobody is recorded whatever it answers: returns those that wait for a person, all but who is alive. Where too
    /// many questions bring no usable answer, the rest waits unasked.
    async fn ask_each_to_hold(&self, pass: &mut Pass, suspects: &RowSet) -> Result<RowSet, Failure> {
        let (mut to_hold, mut unclear) = (RowSet::default(), 0);
        for (done, row) in suspects.iter().enumerate() {
            self.progress.send_replace(Progress {
                phase: Phase::Asking,
                done: done as u64,
                of: suspects.len(),
            });
            if unclear >= MOST_UNCLEAR {
                to_hold.insert(row);
                continue;
            }
            let asked = self.echoes.asking();
            for id in self.ids(vec![row]).await? {
                match self.look_up(&id, pass.patience()).await? {
                    Found::Alive(customer) => self.record_alive(pass, Arc::clone(&asked), customer).await?,
                    Found::Unreadable(bad) => self.record_unreadable(pass, &id, bad).await?,
                    Found::Gone => {
                        to_hold.insert(row);
                    }
                    Found::Unclear(why) => {
                        tracing::warn!("{why}; whether this customer is gone is not known");
                        pass.unclear += 1;
                        unclear += 1;
                        to_hold.insert(row);
                    }
                }
            }
        }
        Ok(to_hold)
    }

    /// Too many: some are asked. One that is alive shows that the list was cut short.
    async fn ask_sample(&self, pass: &mut Pass, suspects: &RowSet) -> Result<(), Failure> {
        let picked = {
            let mut dice = self.dice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            rand::seq::IteratorRandom::choose_multiple(suspects.iter(), &mut *dice, SAMPLE)
        };
        for id in self.ids(picked).await? {
            match self.look_up(&id, pass.patience()).await? {
                Found::Alive(_) | Found::Unreadable(_) => {
                    let (suspects, live) = (suspects.len(), pass.live_before);
                    return Err(Failure::ShortList { suspects, live, alive: self.masker.text(id.as_str()) });
                }
                Found::Gone => {}
                // Gone, or the list is short and this cannot be told: both wait for a person.
                Found::Unclear(why) => {
                    tracing::warn!("{why}; whether this customer is gone is not known");
                    pass.unclear += 1;
                }
            }
        }
        Ok(())
    }

    /// One transaction: sources that are gone, deletions that are held or no longer, "no"s that are over. Returns how many are held.
    async fn apply_conclusions(
        &self,
        pass: &mut Pass,
        marks: Marks,
        (to_hold, waiting): (RowSet, Waiting),
        limit: u64,
        licence: Licence,
    ) -> Result<u64, Failure> {
        let (id, at, asked) = (pass.id, time::written(self.clock.now()), Arc::clone(&pass.asked));
        let busy = self.busy_fields(&marks);
        let concluded = self.apply(pass, Origin::Sweep, move |tx, recorder, _| {
            for respelled in &marks.respelled {
                respelled.note(tx)?;
            }
            null_sources(tx, recorder, &marks, &asked)?;
            let mut undecided = RowSet::default();
            for row in to_hold.iter() {
                // While the sweep went on, a person may have decided about some of them, or we have deleted them.
                let Some(customer) = mirror::live_id_of(tx, row)? else { continue };
                if holds::is_decided(tx, &customer)? {
                    continue;
                }
                undecided.insert(row);
            }
            let because = match licence {
                Licence::Hold => Because::Restored,
                Licence::Record if undecided.len() > limit => Because::TooMany,
                Licence::Record => Because::Unproven,
            };
            hold(tx, id, &at, (&undecided, waiting), because)?;
            holds::note_concluded(tx)?;
            unreadable::conclude(tx, id)?;
            busy_fields::replace(tx, busy, marks.seen.len(), &at)?;
            holds::held_count(tx)
        });
        Ok(concluded.await?)
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

    /// Writes how the pass ended.
    pub(super) async fn finish(
        &self,
        pass: Pass,
        ended: Result<Outcome, Failure>,
    ) -> Result<Report, StoreError> {
        let mut tally = pass.tally;
        tally.requests = pass.requests_made + self.remote.requests() - pass.requests_before;
        let (outcome, failure) = match ended {
            Ok(outcome) => (outcome, None),
            Err(Failure::Stopped) => (Outcome::Interrupted, Some(Failure::Stopped)),
            Err(failure) => (Outcome::Failed, Some(failure)),
        };
        let now = self.clock.now();
        let (at, error) = (time::written(now), failure.as_ref().map(ToString::to_string));
        let cutoff = time::written(now.saturating_sub(KEEP_UNEVENTFUL).unwrap_or(jiff::Timestamp::MIN));
        let answered = tally.pages > 0;
        let refused = matches!(failure, Some(Failure::KeyRefused(_)));
        let (id, position, may_expire) = (pass.id, pass.position, self.clock.may_expire());
        let confirmed = self.clock.known().map(|known| Confirmed {
            at: time::written(known.time),
            boot: known.boot,
            boot_ms: i64::try_from(known.up.as_millis()).unwrap_or(i64::MAX),
        });
        let closed = self.store.write(move |tx| {
            passes::progress(tx, id, &tally, position)?;
            passes::finish(tx, id, &at, outcome, error.as_deref())?;
            if refused {
                passes::note_refused(tx, &at)?;
            } else if answered {
                passes::note_accepted(tx, &at)?;
            }
            if let Some(confirmed) = confirmed {
                clock::note_confirmed(tx, &confirmed)?;
            }
            if may_expire {
                passes::prune(tx, &cutoff, &at)?;
            }
            Ok((holds::held_count(tx)?, unreadable::count_new(tx)?))
        });
        let (held, new_unreadable) = closed.await?;
        Ok(Report { pass: Some(pass.id), kind: pass.kind, outcome, tally, held, new_unreadable, failure })
    }

    /// A pass that the account guard did not let begin.
    pub(super) async fn without_pass(&self, kind: PassKind, failure: Failure) -> Result<Report, StoreError> {
        let failure = match failure {
            Failure::Store(e) => return Err(e),
            failure => failure,
        };
        let at = time::written(self.clock.now());
        match failure {
            Failure::KeyRefused(_) => self.store.write(move |tx| passes::note_refused(tx, &at)).await?,
            // Another key, and it was answered.
            Failure::OtherAccount | Failure::AccountUnclear(_) => {
                self.store.write(move |tx| passes::note_accepted(tx, &at)).await?;
            }
            _ => {}
        }
        let outcome =
            if matches!(failure, Failure::Stopped) { Outcome::Interrupted } else { Outcome::Failed };
        let (tally, failure) = (Tally::default(), Some(failure));
        Ok(Report { pass: None, kind, outcome, tally, held: 0, new_unreadable: 0, failure })
    }
}

/// Takes away the sources of customers that this sweep listed without one, if it showed any at all.
fn null_sources(
    tx: &Tx<'_>,
    recorder: &mut Recorder<'_, '_>,
    marks: &Marks,
    asked: &Asked,
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
        let without = stored.as_ref().and_then(|stored| sighting::without_source(&stored.standing));
        if let Some(customer) = without {
            recorder.record(Kind::Updated, &customer, stored)?;
        }
    }
    Ok(())
}

/// Holds these deletions, besides those who go on waiting for a person's word, if such do: keeps the hold where exactly these wait
/// already, otherwise supersedes whatever else waits.
fn hold(
    tx: &Tx<'_>,
    pass: PassId,
    at: &str,
    (rows, waiting): (&RowSet, Waiting),
    because: Because,
) -> Result<(), StoreError> {
    let replaced: &[Because] = match waiting {
        Waiting::TheSame => &[Because::Unproven],
        Waiting::Others => &Because::ALL,
    };
    let mut held = RowSet::default();
    holds::each_held_row(tx, replaced, |row| {
        held.insert(row);
    })?;
    if held.len() == rows.len() && held.is_subset_of(rows) {
        // What waits for a person goes on doing so, whatever could be proven since.
        return if because == Because::Unproven { Ok(()) } else { holds::set_because(tx, replaced, because) };
    }
    holds::supersede(tx, replaced)?;
    if !rows.is_empty() {
        let hold = holds::open(tx, pass, at, because)?;
        for row in rows.iter() {
            if let Some(id) = mirror::id_of(tx, row)? {
                holds::add(tx, hold, &id)?;
            }
        }
    }
    Ok(())
}
