//! The end of a pass: what a whole sweep concludes, and the row that says how it ended.

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
use crate::store::holds::Because;
use crate::store::{Conn, StoreError, Tx, holds, indexes, mirror, passes};
use crate::tasks::echoes::Asked;

/// Passes without an event are kept so long.
const KEEP_UNEVENTFUL: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// After so many questions without a usable answer nobody else is asked.
const MOST_UNCLEAR: usize = 20;

impl<R: Remote> Pull<R> {
    /// What follows from a list that was read whole.
    pub(super) async fn conclude(&self, pass: &mut Pass, mut marks: Marks) -> Result<Outcome, Failure> {
        let limit = evidence::limit(
            pass.live_before,
            self.settings.max_delete_count,
            self.settings.max_delete_percent,
        );
        let (mut suspects, (added, licence), marks_back) = self.find_suspects(pass, marks, limit).await?;
        marks = marks_back;
        let waiting = match added {
            Some(added) => self.leave_out_the_skipped(pass, &mut suspects, &added).await?,
            None => Waiting::Others,
        };
        let to_hold = match evidence::course(suspects.len(), limit, waiting, licence) {
            Course::Nothing => RowSet::default(),
            Course::AskEach => self.ask_each(pass, &suspects, &mut marks).await?,
            Course::AskEachAndHold => self.ask_each_to_hold(pass, &suspects).await?,
            Course::KeepHolding => suspects,
            Course::AskSample => {
                self.ask_sample(pass, &suspects).await?;
                suspects
            }
        };
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

    /// Who was live before the sweep and was not listed by it; where these are those who wait for a person already, and up to `limit`
    /// others, those others; and what may be done about them without a person.
    async fn find_suspects(
        &self,
        pass: &Pass,
        marks: Marks,
        limit: u64,
    ) -> Result<(RowSet, (Option<RowSet>, Licence), Marks), StoreError> {
        let (head_before, asked) = (pass.head_before, Arc::clone(&pass.asked));
        let found = self.store.read(move |conn| {
            let (mut suspects, mut pushed) = (RowSet::default(), 0);
            // Whoever is listed is live: when as many are live as were listed, nobody is missing.
            if mirror::live_count(conn)? > marks.seen.len() {
                mirror::each_live_before(conn, head_before, |row, id| {
                    match marks.seen.contains(row) || !id.can_be_asked() {
                        true => {}
                        false if asked.is_before_push_of(&id) => {
                            pushed += u64::from(holds::held_because(conn, &id)?.is_some());
                        }
                        false => drop(suspects.insert(row)),
                    }
                    Ok(())
                })?;
            }
            let reasons = [Because::TooMany, Because::Restored];
            let added = added_to_held(conn, &suspects, &reasons, pushed, limit)?;
            let licence = if holds::holds_all(conn)? { Licence::Hold } else { Licence::Record };
            Ok((suspects, (added, licence), marks))
        });
        found.await
    }

    /// Whom paging skipped make no other set of those who wait for a person: they are asked, and where none of them is gone, only the
    /// others are suspects.
    async fn leave_out_the_skipped(
        &self,
        pass: &mut Pass,
        suspects: &mut RowSet,
        added: &RowSet,
    ) -> Result<Waiting, Failure> {
        for row in added.iter() {
            suspects.remove(row);
            if pass.unclear >= MOST_UNCLEAR {
                continue;
            }
            let asked = self.echoes.asking();
            for id in self.ids(vec![row]).await? {
                match self.look_up(&id, pass.patience()).await? {
                    Found::Alive(customer) => self.record_alive(pass, Arc::clone(&asked), customer).await?,
                    // It is asked again, with the others.
                    Found::Gone => {
                        suspects.insert(row);
                        return Ok(Waiting::Others);
                    }
                    // That is no proof of another set: the next sweep asks anew.
                    Found::Unclear(why) => {
                        tracing::warn!("{why}; whether this customer is gone is not known");
                        pass.unclear += 1;
                    }
                }
            }
        }
        Ok(Waiting::TheSame)
    }

    async fn ids(&self, rows: Vec<i64>) -> Result<Vec<CustomerId>, StoreError> {
        // Who was erased meanwhile is nobody's suspect any more.
        self.store
            .write(move |tx| rows.into_iter().filter_map(|row| mirror::id_of(tx, row).transpose()).collect())
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
                Found::Alive(_) => {
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
        let concluded = self.apply(pass, Origin::Sweep, move |tx, recorder, _| {
            for respelled in &marks.respelled {
                respelled.note(tx)?;
            }
            null_sources(tx, recorder, &marks, &asked)?;
            // A person may have decided about some of them while the sweep went on.
            let mut undecided = RowSet::default();
            for row in to_hold.iter() {
                let Some(customer) = mirror::id_of(tx, row)? else { continue };
                if !holds::is_decided(tx, &customer)? && !asked.is_before_push_of(&customer) {
                    undecided.insert(row);
                }
            }
            let because = match licence {
                Licence::Hold => Because::Restored,
                Licence::Record if undecided.len() > limit => Because::TooMany,
                Licence::Record => Because::Unproven,
            };
            hold(tx, id, &at, (&undecided, waiting), because)?;
            holds::note_concluded(tx)?;
            Ok(undecided.len())
        });
        Ok(concluded.await?)
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
        let (id, position) = (pass.id, pass.position);
        let closed = self.store.write(move |tx| {
            passes::progress(tx, id, &tally, position)?;
            passes::finish(tx, id, &at, outcome, error.as_deref())?;
            if refused {
                passes::note_refused(tx, &at)?;
            } else if answered {
                passes::note_accepted(tx, &at)?;
            }
            passes::prune(tx, &cutoff)?;
            holds::held_count(tx)
        });
        let held = closed.await?;
        Ok(Report { pass: Some(pass.id), kind: pass.kind, outcome, tally, held, failure })
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
        Ok(Report { pass: None, kind, outcome, tally: Tally::default(), held: 0, failure: Some(failure) })
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

/// Those of `rows` who do not wait for a person yet, where all who wait, but for `pushed` of them, are in `rows` and do for one of these
/// reasons. `None`: they are others, or more than `most` were added.
fn added_to_held(
    conn: &Conn,
    rows: &RowSet,
    reasons: &[Because],
    pushed: u64,
    most: u64,
) -> Result<Option<RowSet>, StoreError> {
    let held = holds::held_count(conn)?.saturating_sub(pushed);
    if held == 0 || rows.len() < held || rows.len() - held > most {
        return Ok(None);
    }
    let mut added = RowSet::default();
    for row in rows.iter() {
        let Some(id) = mirror::id_of(conn, row)? else { return Ok(None) };
        match holds::held_because(conn, &id)? {
            Some(reason) if reasons.contains(&reason) => {}
            Some(_) => return Ok(None),
            None => drop(added.insert(row)),
        }
    }
    Ok((rows.len() - added.len() == held).then_some(added))
}

/// Whether exactly these wait for a person.
fn is_held(conn: &Conn, rows: &RowSet) -> Result<bool, StoreError> {
    Ok(added_to_held(conn, rows, &Because::ALL, 0, 0)?.is_some())
}

/// Holds these deletions: keeps the hold where exactly these wait already, otherwise supersedes what waits.
fn hold(
    tx: &Tx<'_>,
    pass: PassId,
    at: &str,
    (rows, waiting): (&RowSet, Waiting),
    because: Because,
) -> Result<(), StoreError> {
    if waiting == Waiting::TheSame || is_held(tx, rows)? {
        // What waits for a person goes on doing so, even when the limit has grown.
        return if because == Because::Unproven { Ok(()) } else { holds::set_because(tx, because) };
    }
    holds::supersede(tx)?;
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
