//! The mirror of a pass: the database, or a read connection that a dry run never writes to.
//!
//! Each step of a pass plans against a [`View`] of the mirror. A real pass plans and applies in one
//! transaction. A dry run plans on a read connection and sends the plan to its caller.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::apply::apply;
use super::view::{Overlay, View};
use super::{Pass, Pull};
use crate::metrics;
use crate::remote::Remote;
use crate::store::log::changes::{self, ChangeContext};
use crate::store::log::{mirror, passes, recall};
use crate::store::state::account::BoundAccount;
use crate::store::{Conn, Instance, Reader, Store, StoreError, Tx};
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::writes::{Write, WritePlan};
use komoju_core::{CustomerId, Origin, Tally, time};

/// The mirror of a pass.
pub(super) enum Mirror {
    /// The database.
    Store(Arc<Store>),
    /// A read connection and the changes of a dry run.
    DryRun(Box<DryRun>),
}

/// A planned effect and its origin.
pub type PlannedWrite = (Origin, PlannedEffect);

/// An effect that a dry run reports.
#[derive(Clone, Debug, PartialEq)]
pub enum PlannedEffect {
    /// A change that would be recorded: [`Write::Record`] or [`Write::Delete`].
    Change(Write),
    /// A deletion that would be held.
    Hold(CustomerId, HoldReason),
}

/// A dry run: the database, and what the pass would have changed so far.
pub struct DryRun {
    state: Mutex<(Reader, Overlay)>,
    /// Whether another process uses the database.
    is_shared: bool,
    writes: mpsc::Sender<PlannedWrite>,
}

impl DryRun {
    /// Opens the database at `path`, which may be missing. Changes and holds are sent to `writes`
    /// as they are planned.
    ///
    /// # Errors
    /// The database cannot be read, or its schema is of another version.
    pub fn open(path: &Path, writes: mpsc::Sender<PlannedWrite>) -> Result<Self, StoreError> {
        let is_shared = Instance::holder(path)?.is_some();
        let reader = Reader::for_dry_run(path)?;
        Ok(Self { state: Mutex::new((reader, Overlay::of_dry_run())), is_shared, writes })
    }

    /// Reads from the database, without the planned changes.
    pub fn read<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.query(work)
    }

    /// Returns whether another process uses the database. Then an open sweep belongs to that
    /// process.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn plan<T>(
        &self,
        cause: &ChangeContext,
        plan: impl FnOnce(&mut View<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, WritePlan), StoreError> {
        let (reader, overlay) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        reader.in_snapshot(|conn| {
            let mut view = View::new(conn, cause, overlay);
            let value = plan(&mut view)?;
            Ok((value, view.into_plan()))
        })
    }

    async fn send(&self, origin: Origin, plan: WritePlan) -> Result<(), StoreError> {
        for write in plan.0 {
            match write {
                Write::Record { .. } | Write::Delete { .. } => {
                    self.send_one(origin, PlannedEffect::Change(write)).await?;
                }
                Write::Hold { rows, reason, .. } => {
                    for row in rows {
                        if let Some(id) = self.read(|conn| mirror::id_of(conn, row))? {
                            self.send_one(origin, PlannedEffect::Hold(id, reason)).await?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn send_one(&self, origin: Origin, planned: PlannedEffect) -> Result<(), StoreError> {
        self.writes.send((origin, planned)).await.map_err(|_| StoreError::Closed)
    }
}

impl<R: Remote> Pull<R> {
    /// Reads the mirror. A dry run sees its planned changes.
    pub(super) async fn read_mirror<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let cause = self.cause(Origin::Lookup, None);
        match &self.mirror {
            Mirror::Store(store) => {
                let look = move |conn: &Conn| work(&View::new(conn, &cause, &mut Overlay::default()));
                store.read(look).await
            }
            Mirror::DryRun(dry) => dry.plan(&cause, |view| work(view)).map(|(value, _)| value),
        }
    }

    /// Plans a step of a pass and applies the plan. If a change was recorded or the position is
    /// due, the same transaction writes the row of the pass. So a change and the count of its pass
    /// commit together.
    pub(super) async fn step<T, F>(&self, pass: &mut Pass, origin: Origin, plan: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut View<'_>, &mut Tally) -> Result<T, StoreError> + Send + 'static,
    {
        self.step_with(pass, origin, plan, |_, _| Ok(())).await
    }

    /// Like [`Self::step`]. `also` writes other tables in the same transaction.
    pub(super) async fn step_with<T, F, A>(
        &self,
        pass: &mut Pass,
        origin: Origin,
        plan: F,
        also: A,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut View<'_>, &mut Tally) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(&Tx<'_>, &T) -> Result<(), StoreError> + Send + 'static,
    {
        let position_due = self.position_is_due(pass);
        pass.tally.requests = pass.requests_made + self.remote.requests() - pass.requests_before;
        let (id, position, mut tally) = (pass.id, pass.position, pass.tally);
        let plan = move |view: &mut View<'_>| Ok((plan(view, &mut tally)?, tally));
        let applied =
            self.plan_and_apply(self.cause(origin, Some(id)), plan, move |tx, planned, recorded| {
                let (value, planned) = planned;
                let mut tally = *planned;
                also(tx, value)?;
                tally.add_changes(recorded);
                match position_due || recorded.changes() > 0 {
                    true => passes::progress(tx, id, &tally, position),
                    false => Ok(()),
                }
            });
        let ((value, tally), recorded) = applied.await?;
        pass.tally = tally;
        pass.tally.add_changes(&recorded);
        if position_due || recorded.changes() > 0 {
            pass.position_at = Some(self.clock.elapsed());
        }
        Ok(value)
    }

    /// Plans a step and applies the plan in one transaction. `also` writes other tables in it. A
    /// dry run only plans.
    pub(super) async fn plan_and_apply<T, F, A>(
        &self,
        cause: ChangeContext,
        plan: F,
        also: A,
    ) -> Result<(T, Tally), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut View<'_>) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(&Tx<'_>, &T, &Tally) -> Result<(), StoreError> + Send + 'static,
    {
        let origin = cause.origin;
        let store = match &self.mirror {
            Mirror::Store(store) => store,
            Mirror::DryRun(dry) => {
                let (value, plan) = dry.plan(&cause, plan)?;
                let recorded = plan.tally();
                dry.send(origin, plan).await?;
                return Ok((value, recorded));
            }
        };
        let applied = store.write_pass(move |tx| {
            let mut overlay = Overlay::default();
            let mut view = View::new(tx, &cause, &mut overlay);
            let value = plan(&mut view)?;
            let plan = view.into_plan();
            // Do not log the plan itself: its ids are not masked.
            tracing::trace!(writes = plan.0.len(), "planned");
            let at = cause.observed_at.clone();
            let applied = changes::recording(tx, cause, |recorder| apply(tx, recorder, plan, &at));
            let ((), recorded) = applied?;
            recall::count(tx, origin, &at, recorded.changes())?;
            also(tx, &value, &recorded)?;
            Ok((value, recorded))
        });
        let (value, recorded) = applied.await?;
        metrics::changes(origin, &recorded);
        Ok((value, recorded))
    }

    /// Writes a note for later passes or for `status`. A dry run writes nothing.
    pub(super) async fn note<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(&Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        match &self.mirror {
            Mirror::Store(store) => store.write(work).await,
            Mirror::DryRun(_) => Ok(()),
        }
    }

    /// Sets the account that a dry run would have written. Does nothing in a real pass.
    pub(super) fn plan_account(&self, account: BoundAccount) {
        if let Mirror::DryRun(dry) = &self.mirror {
            dry.state.lock().unwrap_or_else(PoisonError::into_inner).1.account = Some(account);
        }
    }

    /// Returns the cause of changes that are observed now.
    pub(super) fn cause(&self, origin: Origin, pass_id: Option<i64>) -> ChangeContext {
        ChangeContext { observed_at: time::written(self.clock.now()), origin, pass_id, intent_id: None }
    }
}
