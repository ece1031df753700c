//! The program as the daemon assembles it, until the power is cut: three doors, the pusher, the
//! spool and sweeps.
//!
//! Longer than 400 lines because it is one life of the program: its steps share all of its state.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use jiff::SignedDuration;
use komoju_core::intent::Intent;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Sandbox};
use komoju_sync::clock::Clock;
use komoju_sync::store::log::changes;
use komoju_sync::store::outbox::accept::{Door, accept};
use komoju_sync::store::{StoreError, write_as_operator};
use komoju_sync::tasks::spool::{Spool, SpoolSettings, waiting_files};
use komoju_testkit::InProcess;
use lossy_vfs::{Disk, Image, Keep, Operation, Synchronous};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::check::{CrashPoint, Queue};
use crate::ledger::{Ledger, Promise, Watermark};

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub synchronous: Synchronous,
    /// The number of images.
    pub points: usize,
    /// The most operations before a power cut; 0: no power cut.
    pub power_cut_within: usize,
    /// One operation in this number is a crash point, besides each acknowledgement.
    pub one_in: u32,
    pub seed: u64,
}

/// Takes the images. It is called after each operation on the disk, on the thread of that
/// operation.
pub struct ImageRecorder {
    plan: Plan,
    sandbox: Arc<Sandbox>,
    pub ledger: Arc<Ledger>,
    points: Arc<Queue>,
    state: Mutex<RecorderState>,
}

struct RecorderState {
    dice: StdRng,
    left: usize,
    operations: usize,
    cut_at: usize,
    last: Option<(Image, Watermark)>,
}

impl ImageRecorder {
    pub fn new(plan: Plan, sandbox: Arc<Sandbox>, ledger: Arc<Ledger>, points: Arc<Queue>) -> Self {
        let state = RecorderState {
            dice: StdRng::seed_from_u64(plan.seed),
            left: plan.points,
            operations: 0,
            cut_at: usize::MAX,
            last: None,
        };
        Self { plan, sandbox, ledger, points, state: Mutex::new(state) }
    }

    /// Turns the power on, and draws the operation at which it is cut.
    fn power_on(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut_at = match self.plan.power_cut_within {
            0 => usize::MAX,
            most => state.operations + state.dice.random_range(most / 4..most),
        };
    }

    pub fn is_over(&self) -> bool {
        self.state.lock().unwrap().left == 0
    }

    pub fn operations(&self) -> usize {
        self.state.lock().unwrap().operations
    }

    /// Takes the image of the disk at the power cut, if there was one.
    fn last(&self) -> Option<(Image, Watermark)> {
        self.state.lock().unwrap().last.take()
    }

    /// Called after an operation.
    fn after(&self, disk: &Disk, _: Operation) {
        let mut state = self.state.lock().unwrap();
        if state.left == 0 || state.last.is_some() {
            return;
        }
        state.operations += 1;
        // Read the watermark before the image, so that the disk must contain everything below it.
        if state.operations >= state.cut_at {
            let known = self.ledger.known(&self.sandbox);
            let image = disk.cut();
            state.last = Some((image.clone(), known));
            self.record(&mut state, image, known, None);
        } else if state.dice.random_ratio(1, self.plan.one_in) {
            let known = self.ledger.known(&self.sandbox);
            self.record(&mut state, disk.image(), known, None);
        }
    }

    /// Called when an intent was acknowledged: from now on the synced data alone must contain it.
    fn acknowledged(&self, disk: &Disk) {
        let mut state = self.state.lock().unwrap();
        if state.left > 0 && !disk.is_cut() {
            let known = self.ledger.known(&self.sandbox);
            self.record(&mut state, disk.image(), known, Some(Keep::Nothing));
        }
    }

    fn record(&self, state: &mut RecorderState, image: Image, known: Watermark, keep: Option<Keep>) {
        let by_chance = match state.dice.random_range(0..20) {
            0..4 => Keep::Nothing,
            4..6 => Keep::Everything,
            6..11 => Keep::SomeWrites,
            _ => Keep::SomeSectors,
        };
        let point = CrashPoint { image, known, keep: keep.unwrap_or(by_chance), seed: state.dice.random() };
        self.points.put(point);
        state.left -= 1;
        if state.left == 0 {
            self.points.close();
        }
    }
}

/// The reason why a life ended.
enum LifeEnd {
    Over,
    Failed(StoreError),
}

impl From<StoreError> for LifeEnd {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// The state that all lives share: the remote, the spool directory and the droppers.
pub struct World {
    pub harness: InProcess,
    pub recorder: Arc<ImageRecorder>,
    pub spool: PathBuf,
    plan: Plan,
    dice: StdRng,
    droppers: Vec<Dropper>,
}

impl World {
    /// Takes over a harness and closes its database.
    pub fn new(mut harness: InProcess, recorder: Arc<ImageRecorder>, spool: &Path, plan: Plan) -> Self {
        harness.store = None;
        let mut ids = VecDeque::from(harness.sandbox.world().ids());
        let mut droppers = Vec::new();
        for door in ["sql", "file", "cli"] {
            let to_update = ids.drain(..4).collect();
            let to_delete = ids.drain(..6).collect();
            droppers.push(Dropper {
                door,
                n: 0,
                to_update,
                to_delete,
                dice: StdRng::seed_from_u64(plan.seed + 1),
            });
        }
        let dice = StdRng::seed_from_u64(plan.seed + 2);
        Self { harness, recorder, spool: spool.to_owned(), plan, dice, droppers }
    }

    /// Runs the program until the power is cut or all images are taken. The next life starts with
    /// what the disk kept.
    pub async fn run(&mut self) {
        let disk = Disk::watch(self.harness.directory.path(), self.plan.synchronous);
        self.recorder.power_on();
        let recorder = Arc::clone(&self.recorder);
        disk.observe(move |disk, operation| recorder.after(disk, operation));
        self.harness.restart();
        let (drained, drains) = watch::channel(0_u64);
        let wakeups = Arc::new(Wakeups::default());
        let threads: Vec<JoinHandle<Dropper>> = std::mem::take(&mut self.droppers)
            .into_iter()
            .map(|dropper| {
                let context = DropperContext {
                    disk: Arc::clone(&disk),
                    recorder: Arc::clone(&self.recorder),
                    database: self.harness.database(),
                    spool: self.spool.clone(),
                    sandbox: Arc::clone(&self.harness.sandbox),
                    wakeups: Arc::clone(&wakeups),
                    drains: drains.clone(),
                    runtime: tokio::runtime::Handle::current(),
                };
                std::thread::spawn(move || dropper.drop_until_the_power_is_cut(&context))
            })
            .collect();
        let end = self.work(&disk, &wakeups, drained).await;
        for thread in threads {
            self.droppers.push(tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap());
        }
        if let LifeEnd::Failed(error) = &end {
            assert!(disk.is_cut(), "{error}: {:?}", std::error::Error::source(error));
        }
        self.harness.store = None;
        disk.forget();
        let found = TempDir::new().unwrap();
        match self.recorder.last() {
            Some((image, _)) => {
                let keep = if self.dice.random() { Keep::Nothing } else { Keep::SomeSectors };
                image.write_to(found.path(), keep, self.dice.random()).unwrap();
                self.harness.directory = found;
            }
            None => assert!(self.recorder.is_over()),
        }
        self.harness.store =
            Some(Arc::new(komoju_sync::store::Store::open(&self.harness.database()).unwrap()));
    }

    pub fn spool(&self) -> Spool {
        let settings = SpoolSettings { dir: self.spool.clone(), enabled: true };
        Spool::new(self.harness.store(), None, Arc::clone(&self.harness.clock) as Arc<dyn Clock>, settings)
    }

    async fn work(&mut self, disk: &Disk, wakeups: &Wakeups, drained: watch::Sender<u64>) -> LifeEnd {
        let spool = self.spool();
        let mut dice = StdRng::seed_from_u64(self.dice.random());
        let ended = tokio::try_join!(
            self.push(disk, &spool, &mut dice, &drained),
            self.take_files(&spool, wakeups),
            self.sweep(wakeups)
        );
        match ended {
            Err(end) => end,
            Ok((never, ..)) => match never {},
        }
    }

    async fn push(
        &self,
        disk: &Disk,
        spool: &Spool,
        dice: &mut StdRng,
        drained: &watch::Sender<u64>,
    ) -> Result<Infallible, LifeEnd> {
        let (harness, store) = (&self.harness, self.harness.store());
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), CancellationToken::new());
        pusher.recover().await?;
        loop {
            if dice.random_ratio(1, 6) {
                let work = if dice.random() { FaultedWork::Done } else { FaultedWork::Skipped };
                harness.inject(Fault::new(FaultEffect::Reset { work }).call(FaultedCall::Create).once());
            }
            pusher.drain().await?;
            spool.update_receipts().await?;
            // The log of the control may lose its end, too.
            if self.plan.synchronous == Synchronous::AsAsked {
                self.recorder.ledger.log_is_at(store.read(changes::head).await?);
            }
            // Reads may succeed after the power cut, because pages are cached.
            if self.recorder.is_over() || disk.is_cut() {
                return Err(LifeEnd::Over);
            }
            drained.send_modify(|drains| *drains += 1);
            harness.advance(SignedDuration::from_secs(2));
            harness.signals.wake.notified().await;
        }
    }

    async fn take_files(&self, spool: &Spool, wakeups: &Wakeups) -> Result<Infallible, LifeEnd> {
        loop {
            spool.take(&waiting_files(&self.spool)).await?;
            self.harness.signals.wake.notify_one();
            wakeups.file.notified().await;
        }
    }

    async fn sweep(&self, wakeups: &Wakeups) -> Result<Infallible, LifeEnd> {
        let pull = self.harness.pull();
        loop {
            pull.sweep().await?;
            wakeups.change.notified().await;
        }
    }
}

/// The notifications that a daemon gets from its watches.
#[derive(Default)]
struct Wakeups {
    file: Notify,
    change: Notify,
}

/// The environment of a dropper.
struct DropperContext {
    disk: Arc<Disk>,
    recorder: Arc<ImageRecorder>,
    database: PathBuf,
    spool: PathBuf,
    sandbox: Arc<Sandbox>,
    wakeups: Arc<Wakeups>,
    drains: watch::Receiver<u64>,
    runtime: tokio::runtime::Handle,
}

/// A thread in the place of another program that drops intents.
struct Dropper {
    door: &'static str,
    n: usize,
    /// The customers that it updates, and those that it deletes.
    to_update: Vec<String>,
    to_delete: Vec<String>,
    dice: StdRng,
}

impl Dropper {
    fn drop_until_the_power_is_cut(mut self, context: &DropperContext) -> Self {
        let mut drains = context.drains.clone();
        loop {
            context.recorder.points.wait_until_short();
            drains.borrow_and_update();
            self.n += 1;
            let dropped = match self.door {
                "sql" => self.by_sql(context),
                "file" => self.by_file(context),
                _ => self.by_cli(context),
            };
            match dropped {
                Ok(()) => context.recorder.acknowledged(&context.disk),
                // On a loaded machine the busy timeout can expire. Then nothing was dropped.
                Err(error) if !context.disk.is_cut() && is_busy(&*error) => continue,
                Err(error) => {
                    assert!(context.disk.is_cut(), "{}: {error}", self.door);
                    context.wakeups.file.notify_one();
                    return self;
                }
            }
            if self.n.is_multiple_of(3) {
                let id = &self.to_update[0];
                context.sandbox.world().update(id, json!({"metadata": {"seen": self.n.to_string()}}));
                context.wakeups.change.notify_one();
            }
            context.wakeups.file.notify_one();
            // Wait for a drain. A faster dropper would only make the outbox longer.
            if context.runtime.block_on(drains.changed()).is_err() {
                return self;
            }
        }
    }

    fn promise(&mut self) -> Promise {
        let (door, n) = (self.door, self.n);
        let id = format!("{door}-{n}");
        match self.dice.random_range(0..10) {
            0..6 => {
                let mut body =
                    json!({"email": format!("{door}-{n}@example.jp"), "metadata": {"n": n.to_string()}});
                if self.dice.random_ratio(1, 3) {
                    body["payment_details"] = json!(format!("tok_{door}_{n}"));
                }
                Promise { id, op: "create", customer: None, body: Some(body) }
            }
            6 if !self.to_delete.is_empty() => {
                Promise { id, op: "delete", customer: self.to_delete.pop(), body: None }
            }
            _ => {
                let customer = self.to_update[self.dice.random_range(0..self.to_update.len())].clone();
                let body = json!({"metadata": {door: n.to_string()}});
                Promise { id, op: "update", customer: Some(customer), body: Some(body) }
            }
        }
    }

    fn by_sql(&mut self, context: &DropperContext) -> Result<(), Box<dyn std::error::Error>> {
        let promise = self.promise();
        let conn = Connection::open(&context.database)?;
        conn.busy_timeout(std::time::Duration::from_secs(20))?;
        // The default of SQLite, set explicitly so that the control can change it.
        conn.pragma_update(None, "synchronous", "full")?;
        conn.execute(
            "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![
                promise.id,
                promise.op,
                promise.customer,
                promise.body.as_ref().map(Value::to_string)
            ],
        )?;
        context.recorder.ledger.promise(promise);
        Ok(())
    }

    fn by_cli(&mut self, context: &DropperContext) -> Result<(), Box<dyn std::error::Error>> {
        let promise = self.promise();
        let intent = Intent::parse(&line(&promise).to_string())?;
        write_as_operator(&context.database, |tx| accept(tx, &intent, Door::Cli, Some("tester")))?;
        context.recorder.ledger.promise(promise);
        Ok(())
    }

    /// Drops a file with one intent, or with a create and its follower.
    fn by_file(&mut self, context: &DropperContext) -> Result<(), Box<dyn std::error::Error>> {
        let first = self.promise();
        let (file, content, promises) = if first.op == "create" && self.dice.random() {
            let follower = Promise {
                id: format!("{}-next", first.id),
                op: "update",
                customer: Some(format!("@{}", first.id)),
                body: Some(json!({"metadata": {"follows": "yes"}})),
            };
            let content = format!("{}\n{}\n", line(&first), line(&follower));
            (format!("{}.jsonl", first.id), content, vec![first, follower])
        } else {
            let mut content = line(&first);
            content.as_object_mut().ok_or("an object")?.remove("id");
            let (content, name) = (content.to_string(), first.id.clone());
            let digest: String =
                Sha256::digest(&content)[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("{name}.json"), content, vec![Promise { id: format!("{name}@{digest}"), ..first }])
        };
        let hidden = context.spool.join(format!(".{file}"));
        std::fs::write(&hidden, content)?;
        std::fs::rename(hidden, context.spool.join(&file))?;
        context.recorder.ledger.dropped(&file, promises);
        Ok(())
    }
}

fn is_busy(error: &(dyn std::error::Error + 'static)) -> bool {
    match (error.downcast_ref::<StoreError>(), error.downcast_ref::<rusqlite::Error>()) {
        (Some(error), _) => error.is_busy(),
        (_, Some(error)) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy),
        _ => false,
    }
}

fn line(promise: &Promise) -> Value {
    let mut line = json!({"op": promise.op, "id": promise.id});
    if let Some(customer) = &promise.customer {
        line["customer_id"] = json!(customer);
    }
    if let Some(body) = &promise.body {
        line["body"] = body.clone();
    }
    line
}
