//! The end of a pass: what a whole sweep concludes, and the row that says how it ended.

use std::sync::Arc;

use super::ask::Found;
use super::inquest::{Canaries, Verdict, Warrant};
use super::marks::Marks;
use super::{Failure, Pass, Pull, Report};
use crate::model::{CustomerId, Kind, Origin, Outcome, PassId, PassKind, Tally, time};
use crate::reconcile::evidence::{self, Course, SAMPLE, Waiting};
use crate::reconcile::rows::RowSet;
use crate::reconcile::sighting;
use crate::remote::Remote;
use crate::store::changes::Recorder;
use crate::store::holds::Because;
use crate::store::{Conn, StoreError, Tx, holds, indexes, mirror, passes};
use crate::tasks::echoes::Asked;

/// Passes without an event are kept so long.
const KEEP_UNEVENTFUL: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

impl<R: Remote> Pull<R> {
    /// What follows from a list that was read whole.
    pub(super) async fn conclude(&self, pass: &mut Pass, mut marks: Marks) -> Result<Outcome, Failure> {
        let (suspects, waiting, marks_back) = self.find_suspects(pass, marks).await?;
        marks = marks_back;
        let limit = evidence::limit(
            pass.live_before,
            self.settings.max_delete_count,
            self.settings.max_delete_percent,
        );
        let to_hold = match evidence::course(suspects.len(), limit, waiting) {
            Course::Nothing => RowSet::default(),
            Course::AskEach => self.ask_each(pass, &suspects, &mut marks).await?,
            Course::AskSample => {
                self.ask_sample(pass, &suspects).await?;
                suspects
            }
        };
        // Before the sweep is called complete: readers may count on them from then on.
        for index in indexes::ALL {
            let make = move |tx: &Tx<'_>| indexes::ensure(tx, index);
            self.store.write_unless(self.stop.cancelled(), make).await?.ok_or(Failure::Stopped)?;
        }
        match self.apply_conclusions(pass, marks, to_hold, limit).await? {
            0 => Ok(Outcome::Complete),
            _ => Ok(Outcome::Held),
        }
    }

    /// Who was live before the sweep and was not listed by it, and whether exactly these wait for a person already.
    async fn find_suspects(&self, pass: &Pass, marks: Marks) -> Result<(RowSet, Waiting, Marks), StoreError> {
        let (head_before, asked) = (pass.head_before, Arc::clone(&pass.asked));
        let found = self.store.read(move |conn| {
            let mut suspects = RowSet::default();
            // Whoever is listed is live: when as many are live as were listed, nobody is missing.
            if mirror::live_count(conn)? > marks.seen.len() {
                mirror::each_live_before(conn, head_before, |row, id| {
                    if !marks.seen.contains(row) && id.can_be_asked() && !asked.is_before_push_of(&id) {
                        suspects.insert(row);
                    }
                    Ok(())
                })?;
            }
            let waiting = match is_held(conn, &suspects, Some(Because::TooMany))? {
                true => Waiting::TheSame,
                false => Waiting::Others,
            };
            Ok((suspects, waiting, marks))
        });
        found.await
    }

    async fn ids(&self, rows: Vec<i64>) -> Result<Vec<CustomerId>, StoreError> {
        self.store.write(move |tx| rows.into_iter().map(|row| mirror::id_of(tx, row)).collect()).await
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
        to_hold: RowSet,
        limit: u64,
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
                let customer = mirror::id_of(tx, row)?;
                if !holds::is_decided(tx, &customer)? && !asked.is_before_push_of(&customer) {
                    undecided.insert(row);
                }
            }
            hold(tx, id, &at, &undecided, limit)?;
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
        let id = mirror::id_of(tx, row)?;
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

/// Whether exactly these wait for a person, because of this where asked.
fn is_held(conn: &Conn, rows: &RowSet, because: Option<Because>) -> Result<bool, StoreError> {
    if holds::held_count(conn)? != rows.len() {
        return Ok(false);
    }
    for row in rows.iter() {
        match holds::held_because(conn, &mirror::id_of(conn, row)?)? {
            Some(reason) if because.is_none_or(|because| because == reason) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Holds these deletions: keeps the hold where exactly these wait already, otherwise supersedes what waits.
fn hold(tx: &Tx<'_>, pass: PassId, at: &str, rows: &RowSet, limit: u64) -> Result<(), StoreError> {
    let too_many = rows.len() > limit;
    if is_held(tx, rows, None)? {
        // What was too many stays so, even when the limit has grown.
        return if too_many { holds::set_too_many(tx) } else { Ok(()) };
    }
    let because = if too_many { Because::TooMany } else { Because::Unproven };
    holds::supersede(tx)?;
    if !rows.is_empty() {
        let hold = holds::open(tx, pass, at, because)?;
        for row in rows.iter() {
            holds::add(tx, hold, &mirror::id_of(tx, row)?)?;
        }
    }
    Ok(())
}
