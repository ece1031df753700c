//! The program at work, as the daemon is put together, until the power goes: three doors, the pusher, files, sweeps.
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
use komoju_sync::store::{StoreError, write_beside};
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

use crate::judge::{Moment, Queue};
use crate::ledger::{Known, Ledger, Promise};

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub synchronous: Synchronous,
    /// How many images are taken.
    pub points: usize,
    /// After how many operations at most the power goes; 0: never.
    pub power_for: usize,
    /// Of how many operations one is a point, besides each acknowledgement.
    pub one_in: u32,
    pub seed: u64,
}

/// Whoever takes the images: called after each operation on the disk, by whichever thread did it.
pub struct Camera {
    plan: Plan,
    sandbox: Arc<Sandbox>,
    pub ledger: Arc<Ledger>,
    moments: Arc<Queue>,
    state: Mutex<Shooting>,
}

struct Shooting {
    dice: StdRng,
    left: usize,
    operations: usize,
    cut_at: usize,
    last: Option<(Image, Known)>,
}

impl Camera {
    pub fn new(plan: Plan, sandbox: Arc<Sandbox>, ledger: Arc<Ledger>, moments: Arc<Queue>) -> Self {
        let state = Shooting {
            dice: StdRng::seed_from_u64(plan.seed),
            left: plan.points,
            operations: 0,
            cut_at: usize::MAX,
            last: None,
        };
        Self { plan, sandbox, ledger, moments, state: Mutex::new(state) }
    }

    /// The power is on, for so long.
    fn power_on(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut_at = match self.plan.power_for {
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

    /// What was on the disk when the power went, if it did.
    fn last(&self) -> Option<(Image, Known)> {
        self.state.lock().unwrap().last.take()
    }

    /// After an operation.
    fn after(&self, disk: &Disk, _: Operation) {
        let mut state = self.state.lock().unwrap();
        if state.left == 0 || state.last.is_some() {
            return;
        }
        state.operations += 1;
        // What is certain comes first: the disk must hold it, whatever happens in between.
        if state.operations >= state.cut_at {
            let known = self.ledger.known(&self.sandbox);
            let image = disk.cut();
            state.last = Some((image.clone(), known));
            self.shoot(&mut state, image, known, None);
        } else if state.dice.random_ratio(1, self.plan.one_in) {
            let known = self.ledger.known(&self.sandbox);
            self.shoot(&mut state, disk.image(), known, None);
        }
    }

    /// Somebody was told that an intent is accepted: now nothing but what was synced may be needed for it.
    fn acknowledged(&self, disk: &Disk) {
        let mut state = self.state.lock().unwrap();
        if state.left > 0 && !disk.is_cut() {
            let known = self.ledger.known(&self.sandbox);
            self.shoot(&mut state, disk.image(), known, Some(Keep::Nothing));
        }
    }

    fn shoot(&self, state: &mut Shooting, image: Image, known: Known, keep: Option<Keep>) {
        let by_chance = match state.dice.random_range(0..20) {
            0..4 => Keep::Nothing,
            4..6 => Keep::Everything,
            6..11 => Keep::SomeWrites,
            _ => Keep::SomeSectors,
        };
        let moment = Moment { image, known, keep: keep.unwrap_or(by_chance), seed: state.dice.random() };
        self.moments.put(moment);
        state.left -= 1;
        if state.left == 0 {
            self.moments.close();
        }
    }
}

/// Why a life ended.
enum End {
    Over,
    Failed(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What all lives share: the remote, the spool directory, and whoever drops.
pub struct World {
    pub harness: InProcess,
    pub camera: Arc<Camera>,
    pub spool: PathBuf,
    plan: Plan,
    dice: StdRng,
    droppers: Vec<Dropper>,
}

impl World {
    /// The first database is one that was closed.
    pub fn new(mut harness: InProcess, camera: Arc<Camera>, spool: &Path, plan: Plan) -> Self {
        harness.store = None;
        let mut ids = VecDeque::from(harness.sandbox.world().ids());
        let mut droppers = Vec::new();
        for door in ["sql", "file", "cli"] {
            let alive = ids.drain(..4).collect();
            let doomed = ids.drain(..6).collect();
            droppers.push(Dropper { door, n: 0, alive, doomed, dice: StdRng::seed_from_u64(plan.seed + 1) });
        }
        let dice = StdRng::seed_from_u64(plan.seed + 2);
        Self { harness, camera, spool: spool.to_owned(), plan, dice, droppers }
    }

    /// Works until the power goes or all images are taken; then the next one begins with what the disk kept.
    pub async fn live(&mut self) {
        let disk = Disk::watch(self.harness.directory.path(), self.plan.synchronous);
        self.camera.power_on();
        let camera = Arc::clone(&self.camera);
        disk.observe(move |disk, operation| camera.after(disk, operation));
        self.harness.restart();
        let (drained, drains) = watch::channel(0_u64);
        let news = Arc::new(News::default());
        let threads: Vec<JoinHandle<Dropper>> = std::mem::take(&mut self.droppers)
            .into_iter()
            .map(|dropper| {
                let doorway = Doorway {
                    disk: Arc::clone(&disk),
                    camera: Arc::clone(&self.camera),
                    database: self.harness.database(),
                    spool: self.spool.clone(),
                    sandbox: Arc::clone(&self.harness.sandbox),
                    news: Arc::clone(&news),
                    drains: drains.clone(),
                    runtime: tokio::runtime::Handle::current(),
                };
                std::thread::spawn(move || dropper.drop_until_the_power_goes(&doorway))
            })
            .collect();
        let end = self.work(&disk, &news, drained).await;
        for thread in threads {
            self.droppers.push(tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap());
        }
        if let End::Failed(error) = &end {
            assert!(disk.is_cut(), "{error}: {:?}", std::error::Error::source(error));
        }
        self.harness.store = None;
        disk.forget();
        let found = TempDir::new().unwrap();
        match self.camera.last() {
            Some((image, _)) => {
                let keep = if self.dice.random() { Keep::Nothing } else { Keep::SomeSectors };
                image.write_to(found.path(), keep, self.dice.random()).unwrap();
                self.harness.directory = found;
            }
            None => assert!(self.camera.is_over()),
        }
        self.harness.store =
            Some(Arc::new(komoju_sync::store::Store::open(&self.harness.database()).unwrap()));
    }

    pub fn door(&self) -> Spool {
        let settings = SpoolSettings { dir: self.spool.clone(), enabled: true };
        Spool::new(self.harness.store(), None, Arc::clone(&self.harness.clock) as Arc<dyn Clock>, settings)
    }

    async fn work(&mut self, disk: &Disk, news: &News, drained: watch::Sender<u64>) -> End {
        let spool = self.door();
        let mut dice = StdRng::seed_from_u64(self.dice.random());
        let ended = tokio::try_join!(
            self.push(disk, &spool, &mut dice, &drained),
            self.take_files(&spool, news),
            self.sweep(news)
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
    ) -> Result<Infallible, End> {
        let (harness, store) = (&self.harness, self.harness.store());
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), CancellationToken::new());
        pusher.recover().await?;
        loop {
            if dice.random_ratio(1, 6) {
                let work = if dice.random() { FaultedWork::Done } else { FaultedWork::Skipped };
                harness.inject(Fault::new(FaultEffect::Reset { work }).call(FaultedCall::Create).once());
            }
            pusher.drain().await?;
            spool.tend_receipts().await?;
            // The control's log may lose its end with everything else.
            if self.plan.synchronous == Synchronous::AsAsked {
                self.camera.ledger.log_is_at(store.read(changes::head).await?);
            }
            // What is cached can be read without power.
            if self.camera.is_over() || disk.is_cut() {
                return Err(End::Over);
            }
            drained.send_modify(|drains| *drains += 1);
            harness.advance(SignedDuration::from_secs(2));
            harness.signals.wake.notified().await;
        }
    }

    async fn take_files(&self, spool: &Spool, news: &News) -> Result<Infallible, End> {
        loop {
            spool.take(&waiting_files(&self.spool)).await?;
            self.harness.signals.wake.notify_one();
            news.file.notified().await;
        }
    }

    async fn sweep(&self, news: &News) -> Result<Infallible, End> {
        let pull = self.harness.pull();
        loop {
            pull.sweep().await?;
            news.change.notified().await;
        }
    }
}

/// What the watches of a daemon would tell.
#[derive(Default)]
struct News {
    file: Notify,
    change: Notify,
}

/// Where a dropper stands.
struct Doorway {
    disk: Arc<Disk>,
    camera: Arc<Camera>,
    database: PathBuf,
    spool: PathBuf,
    sandbox: Arc<Sandbox>,
    news: Arc<News>,
    drains: watch::Receiver<u64>,
    runtime: tokio::runtime::Handle,
}

/// Another program that drops intents.
struct Dropper {
    door: &'static str,
    n: usize,
    /// Whom it updates, and whom it deletes.
    alive: Vec<String>,
    doomed: Vec<String>,
    dice: StdRng,
}

impl Dropper {
    fn drop_until_the_power_goes(mut self, at: &Doorway) -> Self {
        let mut drains = at.drains.clone();
        loop {
            at.camera.moments.wait_until_short();
            drains.borrow_and_update();
            self.n += 1;
            let dropped = match self.door {
                "sql" => self.by_sql(at),
                "file" => self.by_file(at),
                _ => self.by_cli(at),
            };
            match dropped {
                Ok(()) => at.camera.acknowledged(&at.disk),
                // A machine under load may keep it waiting for longer than it waits: then nothing was dropped.
                Err(error) if !at.disk.is_cut() && is_busy(&*error) => continue,
                Err(error) => {
                    assert!(at.disk.is_cut(), "{}: {error}", self.door);
                    at.news.file.notify_one();
                    return self;
                }
            }
            if self.n.is_multiple_of(3) {
                let id = &self.alive[0];
                at.sandbox.world().update(id, json!({"metadata": {"seen": self.n.to_string()}}));
                at.news.change.notify_one();
            }
            at.news.file.notify_one();
            // At its leisure: whoever drops faster than anything is pushed only makes a longer queue.
            if at.runtime.block_on(drains.changed()).is_err() {
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
            6 if !self.doomed.is_empty() => {
                Promise { id, op: "delete", customer: self.doomed.pop(), body: None }
            }
            _ => {
                let customer = self.alive[self.dice.random_range(0..self.alive.len())].clone();
                let body = json!({"metadata": {door: n.to_string()}});
                Promise { id, op: "update", customer: Some(customer), body: Some(body) }
            }
        }
    }

    fn by_sql(&mut self, at: &Doorway) -> Result<(), Box<dyn std::error::Error>> {
        let promise = self.promise();
        let conn = Connection::open(&at.database)?;
        conn.busy_timeout(std::time::Duration::from_secs(20))?;
        // What SQLite does unasked; said so that the control can say something else.
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
        at.camera.ledger.promise(promise);
        Ok(())
    }

    fn by_cli(&mut self, at: &Doorway) -> Result<(), Box<dyn std::error::Error>> {
        let promise = self.promise();
        let intent = Intent::parse(&line(&promise).to_string())?;
        write_beside(&at.database, |tx| accept(tx, &intent, Door::Cli, Some("somebody")))?;
        at.camera.ledger.promise(promise);
        Ok(())
    }

    /// A file of one intent, or of a create and what follows it.
    fn by_file(&mut self, at: &Doorway) -> Result<(), Box<dyn std::error::Error>> {
        let first = self.promise();
        let (file, content, promises) = if first.op == "create" && self.dice.random() {
            let follower = Promise {
                id: format!("{}-then", first.id),
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
        let hidden = at.spool.join(format!(".{file}"));
        std::fs::write(&hidden, content)?;
        std::fs::rename(hidden, at.spool.join(&file))?;
        at.camera.ledger.dropped(&file, promises);
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
