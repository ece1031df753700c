//! The mirror that a pass works on: the database, or a reading of it that a dry run never writes to.
//!
//! Each step of a pass plans against a [`View`] of the mirror. With a database the plan is made and
//! applied in one transaction; a dry run makes it on a read connection and sends it to its caller.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::apply::apply;
use super::view::{Overlay, View};
use super::{Pass, Pull};
use crate::metrics;
use crate::remote::Remote;
use crate::store::log::changes::{self, Cause};
use crate::store::log::{mirror, passes, recall};
use crate::store::state::account::Account;
use crate::store::{Conn, Instance, Reader, Store, StoreError, Tx};
use komoju_core::plan::absence::HoldReason;
use komoju_core::plan::writes::{Write, WritePlan};
use komoju_core::{CustomerId, Origin, Tally, time};

/// What a pass works on.
pub(super) enum Mirror {
    /// The database.
    Store(Arc<Store>),
    /// A reading of it, which is not written to.
    DryRun(Box<DryRun>),
}

/// What a dry run reports, and how the reason for it became known.
pub type PlannedWrite = (Origin, Planned);

/// What a dry run reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// A change that would be recorded: [`Write::Record`] or [`Write::Delete`].
    Change(Write),
    /// A deletion that would be held.
    Hold(CustomerId, HoldReason),
}

/// A dry run: the database as it is, and what the pass would have changed so far.
pub struct DryRun {
    state: Mutex<(Reader, Overlay)>,
    /// Whether another process works on the database.
    is_shared: bool,
    writes: mpsc::Sender<PlannedWrite>,
}

impl DryRun {
    /// Opens the database at `path`, which may be missing. Changes and holds are sent to `writes` as they are planned.
    ///
    /// # Errors
    /// The database cannot be read, or its schema is of another version.
    pub fn open(path: &Path, writes: mpsc::Sender<PlannedWrite>) -> Result<Self, StoreError> {
        let is_shared = Instance::holder(path)?.is_some();
        let reader = Reader::for_dry_run(path)?;
        Ok(Self { state: Mutex::new((reader, Overlay::of_dry_run())), is_shared, writes })
    }

    /// Reads from the database itself.
    pub fn read<T>(&self, work: impl FnOnce(&Conn) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.look(work)
    }

    /// Returns whether another process works on the database, so that an open sweep is that process's.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn plan<T>(
        &self,
        cause: &Cause,
        plan: impl FnOnce(&mut View<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, WritePlan), StoreError> {
        let (reader, overlay) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        reader.in_one_view(|conn| {
            let mut view = View::new(conn, cause, overlay);
            let value = plan(&mut view)?;
            Ok((value, view.into_plan()))
        })
    }

    async fn send(&self, origin: Origin, plan: WritePlan) -> Result<(), StoreError> {
        for write in plan.0 {
            match write {
                Write::Record { .. } | Write::Delete { .. } => {
                    self.send_one(origin, Planned::Change(write)).await?;
                }
                Write::Hold { rows, reason, .. } => {
                    for row in rows {
                        if let Some(id) = self.read(|conn| mirror::id_of(conn, row))? {
                            self.send_one(origin, Planned::Hold(id, reason)).await?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn send_one(&self, origin: Origin, planned: Planned) -> Result<(), StoreError> {
        self.writes.send((origin, planned)).await.map_err(|_| StoreError::Closed)
    }
}

impl<R: Remote> Pull<R> {
    /// Reads the mirror, with what a dry run would have changed.
    pub(super) async fn look<T, F>(&self, work: F) -> Result<T, StoreError>
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

    /// Plans a step of a pass and applies the plan. The pass's row is written in the same transaction where something was recorded
    /// or its position is due, so that a change and the pass that reports it commit together.
    pub(super) async fn step<T, F>(&self, pass: &mut Pass, origin: Origin, plan: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut View<'_>, &mut Tally) -> Result<T, StoreError> + Send + 'static,
    {
        self.step_with(pass, origin, plan, |_, _| Ok(())).await
    }

    /// The same, and writes in the same transaction what concerns no customer.
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

    /// Plans a step and applies the plan, both in one transaction; `also` writes what concerns no customer. A dry run only plans.
    pub(super) async fn plan_and_apply<T, F, A>(
        &self,
        cause: Cause,
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
            // Its text has ids that no masker has seen.
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

    /// Writes what is noted for later passes and for `status`; a dry run notes nothing.
    pub(super) async fn note<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(&Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        match &self.mirror {
            Mirror::Store(store) => store.write(work).await,
            Mirror::DryRun(_) => Ok(()),
        }
    }

    /// The account as a dry run would have written it.
    pub(super) fn plan_account(&self, account: Account) {
        if let Mirror::DryRun(dry) = &self.mirror {
            dry.state.lock().unwrap_or_else(PoisonError::into_inner).1.account = Some(account);
        }
    }

    /// The cause of changes that are seen now.
    pub(super) fn cause(&self, origin: Origin, pass_id: Option<i64>) -> Cause {
        Cause { observed_at: time::written(self.clock.now()), origin, pass_id, intent_id: None }
    }
}
