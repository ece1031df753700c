//! The product and its surroundings, one op at a time.
//!
//! Longer than 400 lines because each op is one arm over all of this state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_core::plan::lag::Consistency;
use komoju_core::{PassKind, time};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::secret::SecretKey;
use komoju_sync::store::log::holds::Decision;
use komoju_sync::store::log::passes;
use komoju_sync::store::{OperatorConnection, Reader, Store};
use komoju_sync::tasks::InFlightPushes;
use komoju_sync::tasks::events::{EventTail, TailMemory};
use komoju_sync::tasks::pull::{Pull, Settings};
use komoju_sync::tasks::push::{PushSettings, Pusher};
use komoju_sync::tasks::spool::{Spool, SpoolSettings};
use rusqlite::Connection;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::doors::{AcceptedIntent, WaitingFile};
use crate::events::{HintedDeletions, tail_settings};
use crate::log::Log;
use crate::operator::KeptBackup;
use crate::ops::Op;
use crate::place::Place;
use crate::remote::{Fake, SharedReader};
use crate::server::{Server, Shift};

pub const KEYS: [&str; 2] = ["sk_test_right", "sk_test_other"];
pub const MAX_DELETE_COUNT: u64 = 2;
pub const MAX_DELETE_PERCENT: u32 = 30;
pub const HOLD_DELETES_OVER: u64 = 2;

pub type Checked = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($why:tt)+) => { if !$holds { return Err(format!($($why)+)); } };
}
pub(crate) use must;

/// The parts that live as long as a process of the daemon.
pub struct Process {
    pub pull: Pull<Fake>,
    pub pusher: Pusher<Fake>,
    pub spool: Spool,
    pub tail: EventTail<Fake>,
    pub tail_memory: Mutex<TailMemory>,
}

pub struct World<'a> {
    pub place: &'a Place,
    pub server: Arc<Mutex<Server>>,
    pub clock: Arc<ManualClock>,
    pub process: Option<Process>,
    /// Reads the database for the checks.
    pub reader: SharedReader,
    /// A connection of another program, with the default settings of SQLite.
    pub client: Option<Connection>,
    /// The connection of the commands.
    pub harness: RefCell<Option<OperatorConnection>>,
    pub account: usize,
    pub enabled: bool,
    pub per_page: u32,
    pub seed: u64,
    /// The customers with deletions that are held for the operator: more than the limit, or after a
    /// restore.
    pub needs_operator: BTreeSet<String>,
    pub hinted: HintedDeletions,
    /// The wait at which the next pass, drain or reading of events ends with its process.
    pub crash_at: Option<u64>,
    pub crash_at_door: Option<u64>,
    /// Whether the last pass, drain or reading of events crashed.
    pub crashed: bool,
    /// Whether everything is checked after each op. It is off where other tests have checked the
    /// same ops.
    pub checking: bool,
    pub log: Log,
    /// The intents that were accepted, by id.
    pub accepted: BTreeMap<String, AcceptedIntent>,
    /// The files that were dropped and are not taken yet.
    pub waiting: Vec<WaitingFile>,
    pub dropped: u64,
    pub backups: Vec<KeptBackup>,
    /// The number of pushes that had taken effect before this op.
    pub effects_before: usize,
    /// The account that the database was last seen to belong to.
    pub belongs_to: Option<usize>,

    /// Whether the database ever belonged to another account.
    pub was_swapped: bool,
    /// Whether a key of one account was accepted for the other, because the mirror contains
    /// customers of both.
    pub is_mixed: bool,
    /// The last recorded transition that was checked.
    pub seen: i64,
    /// Whether the wall clock was ever set back.
    pub was_set_back: bool,
}

impl<'a> World<'a> {
    pub fn new(place: &'a Place, seed: u64, per_page: u32) -> Self {
        place.clear();
        let clock = Arc::new(ManualClock::at("2026-02-01T00:00:00Z".parse::<Timestamp>().unwrap()));
        let mut server = Server::new(Arc::clone(&clock));
        for n in 0..seed % 20 {
            let ago = Duration::from_secs(7 * (100 - n));
            server.make(0, n % 2 == 0, ago);
            server.make(1, true, ago);
        }
        let mut world = Self {
            place,
            server: Arc::new(Mutex::new(server)),
            clock,
            process: None,
            reader: SharedReader::default(),
            client: None,
            harness: RefCell::default(),
            account: 0,
            enabled: true,
            per_page,
            seed,
            needs_operator: BTreeSet::new(),
            hinted: HintedDeletions::default(),
            crash_at: None,
            crash_at_door: None,
            crashed: false,
            checking: true,
            log: Log::default(),
            accepted: BTreeMap::new(),
            waiting: Vec::new(),
            dropped: 0,
            backups: Vec::new(),
            effects_before: 0,
            belongs_to: None,
            was_swapped: false,
            is_mixed: false,
            seen: 0,
            was_set_back: false,
        };
        world.restart();
        world
    }

    /// Ends the process, whatever it is doing.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Closes every connection to the database.
    pub fn close_connections(&mut self) {
        self.stop();
        self.client = None;
        self.harness.take();
        *self.reader.lock().unwrap() = None;
    }

    /// Ends the process and starts another one: only the files are kept.
    pub fn restart(&mut self) {
        self.stop();
        let path = self.place.database();
        let store = Arc::new(Store::open(&path).unwrap());
        let has_answered = Arc::new(AtomicBool::new(false));
        let remote = |for_pushes| {
            Arc::new(Fake {
                server: Arc::clone(&self.server),
                account: self.account,
                refuses_past_end: self.seed % 2 == 1,
                database: path.clone(),
                reader: Arc::clone(&self.reader),
                clock: Arc::clone(&self.clock),
                has_answered: Arc::clone(&has_answered),
                for_pushes,
            })
        };
        let key = Arc::new(SecretKey::parse(KEYS[self.account]).unwrap());
        let settings = Settings {
            per_page: self.per_page,
            max_concurrent_requests: 1 + (self.seed % 4) as usize,
            max_delete_count: MAX_DELETE_COUNT,
            max_delete_percent: MAX_DELETE_PERCENT,
            consistency: Consistency::default(),
            period: None,
            seed: self.seed,
        };
        let push_settings = PushSettings {
            enabled: self.enabled,
            max_concurrent_requests: 1 + (self.seed % 3) as usize,
            per_page: self.per_page,
            hold_deletes_over: HOLD_DELETES_OVER,
            park_after: SignedDuration::from_hours(72),
            reconcile_tag: self.seed.is_multiple_of(3).then(|| "intent".to_owned()),
            consistency: Consistency::default(),
            seed: self.seed,
        };
        let clock: Arc<dyn Clock> = self.clock.clone();
        let in_flight = Arc::<InFlightPushes>::default();
        let stop = CancellationToken::new();
        let tail = EventTail::new(
            Arc::clone(&store),
            remote(false),
            Arc::clone(&key),
            Arc::clone(&clock),
            tail_settings(self.per_page),
            stop.clone(),
        );
        let tail_memory = Mutex::new(TailMemory::new(clock.elapsed()));
        let spool_settings = SpoolSettings { dir: self.place.spool(), enabled: self.enabled };
        let spool = Spool::new(Arc::clone(&store), Some(&key), Arc::clone(&clock), spool_settings);
        let pull = Pull::new(
            Arc::clone(&store),
            remote(false),
            Arc::clone(&key),
            Arc::clone(&clock),
            settings,
            stop.clone(),
        )
        .with_in_flight(Arc::clone(&in_flight));
        let signals = Arc::default();
        let pusher = Pusher::new(
            Arc::clone(&store),
            remote(true),
            key,
            clock,
            push_settings,
            stop,
            in_flight,
            signals,
        );
        let at = time::written(self.clock.now());
        self.place.runtime.block_on(async {
            store.write(move |tx| passes::close_orphans(tx, &at)).await.unwrap();
            pusher.recover().await.unwrap();
        });
        self.process = Some(Process { pull, pusher, spool, tail, tail_memory });
        let mut reader = self.reader.lock().unwrap();
        if reader.is_none() {
            *reader = Some(Reader::open(&path).unwrap());
        }
        if self.client.is_none() {
            let client = Connection::open(&path).unwrap();
            client.busy_timeout(Duration::from_secs(10)).unwrap();
            self.client = Some(client);
        }
    }

    /// Reads from the database.
    pub fn look<T>(&self, look: impl FnOnce(&Reader) -> T) -> T {
        look(self.reader.lock().unwrap().as_ref().unwrap())
    }

    pub fn count(&self, what: &str) {
        self.server.lock().unwrap().count(what.to_owned());
    }

    pub fn fired(&self) -> BTreeMap<String, u64> {
        self.server.lock().unwrap().fired.clone()
    }

    /// Runs the work of the process until it is done, or until the process ends within it. Then
    /// another process starts, and the result is `None`.
    pub fn run<T>(&mut self, work: impl AsyncFnOnce(&Process) -> T) -> Option<T> {
        let process = self.process.take().unwrap();
        let crash_at = self.crash_at.take();
        let effects = self.server.lock().unwrap().effects.len();
        let ended = {
            let mut work = std::pin::pin!(work(&process));
            let mut waits = 0;
            // The future is polled again when a wait is over, so each poll but the first is the end
            // of one wait.
            self.place.runtime.block_on(std::future::poll_fn(|context| match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if crash_at == Some(waits) => Poll::Ready(None),
                Poll::Pending => {
                    waits += 1;
                    Poll::Pending
                }
            }))
        };
        self.process = Some(process);
        self.crashed = ended.is_none();
        if self.crashed {
            // The process that got the answers is gone.
            self.server.lock().unwrap().effects[effects..]
                .iter_mut()
                .for_each(|effect| effect.is_acknowledged = false);
            // Writes that were handed to the database are still done, as may happen in a crash.
            self.restart();
        }
        ended
    }

    /// Does one op, then checks everything.
    pub fn step(&mut self, op: Op) -> Checked {
        self.clock.advance(Duration::from_secs(7));
        let head = self.log.head.seq;
        self.crashed = false;
        self.effects_before = self.server.lock().unwrap().effects.len();
        if matches!(op, Op::Drop(..) | Op::Bad(..) | Op::Again { .. }) {
            self.take_waiting()?;
        }
        match op {
            Op::Sweep => self.pass(PassKind::Sweep)?,
            Op::Probe => self.pass(PassKind::Probe)?,
            Op::Drain => self.drain()?,
            Op::SweepAndDrain => self.sweep_and_drain()?,
            Op::ReadEvents => self.read_events()?,
            Op::ReadHinted => self.read_hinted()?,
            Op::SweepWithEvents => self.sweep_with_events()?,
            Op::Crash(at) => self.crash_at = Some(at),
            Op::CrashAtDoor(at) => self.crash_at_door = Some(at),
            Op::Restart => self.restart(),
            Op::Switch(enabled) => {
                self.enabled = enabled;
                self.restart();
            }
            Op::OtherKey => self.use_account(1),
            Op::RightKey => self.use_account(0),
            Op::Drop(door, spec) => self.drop_one(door, spec)?,
            Op::Bad(door, which) => self.drop_nonsense(door, which)?,
            Op::Again { door, which, same } => self.drop_again(door, which, same)?,
            Op::Approve => self.decide(Decision::Approve),
            Op::Reject => self.decide(Decision::Reject),
            Op::Accept => drop(self.accept_account()),
            Op::Retry { which, corrected } => self.retry(which, corrected)?,
            Op::Cancel(which) => self.cancel(which)?,
            Op::ApproveDeletes => self.approve_deletes(),
            Op::Backup => self.backup()?,
            Op::Restore(which) => self.restore(which)?,
            Op::Erase(place) => self.erase(place)?,
            Op::Rebuild => self.rebuild()?,
            Op::Advance(seconds) => self.clock.advance(Duration::from_secs(seconds)),
            Op::WallClock(seconds) => {
                self.was_set_back |= seconds < 0;
                self.hinted.forget();
                let jumped = self.clock.now().checked_add(SignedDuration::from_secs(seconds));
                // Keep the clock at the year 2000 or later.
                let sane: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
                self.clock.set_wall(jumped.unwrap().max(sane));
            }
            Op::SinceFirst(minutes) => self.wait_since_first(minutes),
            other => self.at_komoju(other),
        }
        self.note_account(&op);
        self.check(&op, head)
    }

    /// Records the current account of the database, and how it was accepted.
    fn note_account(&mut self, op: &Op) {
        if Some(self.look(|reader| reader.data_version().unwrap())) == self.log.version {
            return;
        }
        let (bound, _) = self.bound();
        self.note_whole_sweep(op, bound != self.belongs_to);
        if bound != self.belongs_to && self.belongs_to.is_some() {
            self.was_swapped = true;
            // Neither by the operator's decision, nor because the mirror was empty.
            let had_live = self.log.mirror_rows.values().any(komoju_core::MirrorRow::is_live);
            self.is_mixed |= had_live && !matches!(op, Op::Accept | Op::Restore(_));
        }
        self.belongs_to = bound;
    }

    /// Changes by other clients, and the faults of the next requests.
    fn at_komoju(&mut self, op: Op) {
        let mut server = self.server.lock().unwrap();
        match op {
            Op::Create { with_card } => server.make(0, with_card, Duration::ZERO),
            Op::Edit(place) => {
                let email = format!("{}@new.example", server.requests);
                server.edit(place, "email", email.into());
            }
            Op::DropCard(place) => server.edit(place, "source", Value::Null),
            Op::Delete(place) => server.delete(place),
            Op::DeleteMany(count) => (0..count).for_each(|_| server.delete(0)),
            Op::ComeBack => server.come_back(),
            Op::Drift { deletes, creates, edits, moves } => {
                let kinds = [
                    (Shift::Delete, deletes),
                    (Shift::Create, creates),
                    (Shift::Edit, edits),
                    (Shift::Move, moves),
                ];
                for (shift, times) in kinds {
                    server.shifts.extend(std::iter::repeat_n(shift, times));
                }
            }
            Op::Trouble(trouble, times) => server.trouble = Some((trouble, times)),
            Op::PushTrouble(trouble, times) => server.push_trouble = Some((trouble, times)),
            Op::EventTrouble(trouble, times) => server.event_trouble = Some((trouble, times)),
            Op::FalseEvent(place) => {
                let (id, _) = server.any_customer(place);
                server.emit(&id);
            }
            Op::ApproveMidway(requests) => server.midway = Some((Decision::Approve, requests)),
            Op::RejectMidway(requests) => server.midway = Some((Decision::Reject, requests)),
            Op::ListsHideCards(hide) => server.lists_hide_cards = hide,
            _ => unreachable!("{op:?} is handled elsewhere"),
        }
    }

    pub fn use_account(&mut self, account: usize) {
        self.account = account;
        self.restart();
    }

    fn wait_since_first(&mut self, minutes: u64) {
        let first = self.look(|reader| {
            let sql = "SELECT max(first_server_at) FROM outbox JOIN intents USING (position) WHERE is_open = 1 AND op = 'create'";
            reader.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap()
        });
        let Some(first) = first.as_deref().and_then(time::read) else { return };
        let then = first + SignedDuration::from_mins(minutes as i64);
        let left = then.duration_since(self.server.lock().unwrap().now());
        self.clock.advance(Duration::try_from(left).unwrap_or_default());
    }
}
