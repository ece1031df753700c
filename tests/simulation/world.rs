//! The product and its surroundings, one op at a time; what must hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_sync::clock::{Clock, ManualClock};
use komoju_sync::config::SecretKey;
use komoju_sync::model::{Diff, Outcome, PassKind};
use komoju_sync::store::holds::{self, Decision};
use komoju_sync::store::read::{ChangeFilter, Record};
use komoju_sync::store::verify::verify;
use komoju_sync::store::{Reader, Store, account, read, write_beside};
use komoju_sync::tasks::pull::{Pull, Report, Settings};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Op;
use crate::remote::{Fake, Server, Shift};

const KEYS: [&str; 2] = ["sk_test_right", "sk_test_other"];
const MAX_DELETE_COUNT: u64 = 2;
const MAX_DELETE_PERCENT: u32 = 30;

type Checked = Result<(), String>;

pub struct World {
    server: Arc<Mutex<Server>>,
    clock: Arc<ManualClock>,
    runtime: Runtime,
    directory: TempDir,
    pull: Option<Pull<Fake>>,
    account: usize,
    per_page: u32,
    seed: u64,
    /// Held because they were more than the limit then.
    too_many: BTreeSet<String>,
    /// At which wait the next pass ends with its process.
    crash_at: Option<u64>,
    /// Whether the last pass did.
    pub crashed: bool,
    /// Whether everything is checked after each op; not where other tests have checked the same ops already.
    pub checking: bool,
}

macro_rules! must {
    ($holds:expr, $($why:tt)+) => { if !$holds { return Err(format!($($why)+)); } };
}

impl World {
    pub fn new(seed: u64, per_page: u32) -> Self {
        let mut server = Server::default();
        for n in 0..seed % 20 {
            server.make(0, n % 2 == 0);
            server.make(1, true);
        }
        let mut world = Self {
            server: Arc::new(Mutex::new(server)),
            clock: Arc::new(ManualClock::at("2026-02-01T00:00:00Z".parse::<Timestamp>().unwrap())),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            directory: TempDir::new().unwrap(),
            pull: None,
            account: 0,
            per_page,
            seed,
            too_many: BTreeSet::new(),
            crash_at: None,
            crashed: false,
            checking: true,
        };
        world.restart();
        world
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("komoju.db")
    }

    fn restart(&mut self) {
        self.pull = None;
        let store = Arc::new(Store::open(&self.path()).unwrap());
        let remote = Arc::new(Fake {
            server: Arc::clone(&self.server),
            account: self.account,
            refuses_past_end: self.seed % 2 == 1,
            database: self.path(),
        });
        let key = Arc::new(SecretKey::parse(KEYS[self.account]).unwrap());
        let settings = Settings {
            per_page: self.per_page,
            max_concurrent_requests: 1 + (self.seed % 4) as usize,
            max_delete_count: MAX_DELETE_COUNT,
            max_delete_percent: MAX_DELETE_PERCENT,
            seed: self.seed,
        };
        let clock: Arc<dyn Clock> = self.clock.clone();
        self.pull = Some(Pull::new(store, remote, key, clock, settings, CancellationToken::new()));
    }

    pub fn fired(&self) -> BTreeMap<String, u64> {
        self.server.lock().unwrap().fired.clone()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    fn changes_after(&self, seq: i64) -> Vec<Record> {
        let mut changes = Vec::new();
        let filter = ChangeFilter { since: seq, ..ChangeFilter::default() };
        read::changes(&self.reader(), &filter, |record| {
            changes.push(record);
            Ok(())
        })
        .unwrap();
        changes
    }

    fn head(&self) -> i64 {
        read::mirror_info(&self.reader()).unwrap().number("head_seq")
    }

    fn live(&self) -> BTreeMap<String, Value> {
        let mut live = BTreeMap::new();
        read::customers(&self.reader(), |record| {
            live.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
            Ok(())
        })
        .unwrap();
        live
    }

    fn states(&self, state: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        read::held_deletions(&self.reader(), true, |record| {
            if record.text("state") == Some(state) {
                ids.insert(record.text("customer_id").unwrap().to_owned());
            }
            Ok(())
        })
        .unwrap();
        ids
    }

    /// Whose deletion a person approved or rejected, whatever became of it since.
    fn decided(&self, word: &str) -> BTreeSet<String> {
        let mut ids = self.states(word);
        if word == "approved" {
            read::held_deletions(&self.reader(), true, |record| {
                if record.text("decided_at").is_some() && record.text("state") == Some("deleted") {
                    ids.insert(record.text("customer_id").unwrap().to_owned());
                }
                Ok(())
            })
            .unwrap();
        }
        ids
    }

    /// Does one thing, then checks everything.
    pub fn step(&mut self, op: Op) -> Checked {
        let head = self.head();
        {
            let mut server = self.server.lock().unwrap();
            match op {
                Op::Create { with_card } => server.make(0, with_card),
                Op::Edit(place) => {
                    let email = format!("{}@new.example", server.requests);
                    server.edit(place, "email", email.into());
                }
                Op::DropCard(place) => server.edit(place, "source", Value::Null),
                Op::Delete(place) => server.delete(place),
                Op::DeleteMany(count) => (0..count).for_each(|_| server.delete(0)),
                Op::Restore => {
                    if let Some(back) = server.gone.pop() {
                        server.lists[0].insert(0, back);
                    }
                }
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
                Op::ApproveMidway(requests) => server.midway = Some((Decision::Approve, requests)),
                Op::RejectMidway(requests) => server.midway = Some((Decision::Reject, requests)),
                Op::ListsHideCards(hide) => server.lists_hide_cards = hide,
                Op::Advance(seconds) => self.clock.advance(Duration::from_secs(seconds)),
                Op::WallClock(seconds) => {
                    let jumped = self.clock.now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
                    self.clock.set_wall(jumped);
                }
                _ => {}
            }
        }
        match op {
            Op::Sweep => return self.pass(PassKind::Sweep),
            Op::Probe => return self.pass(PassKind::Probe),
            Op::Restart => self.restart(),
            Op::Crash(at) => self.crash_at = Some(at),
            Op::Approve => self.decide(Decision::Approve),
            Op::Reject => self.decide(Decision::Reject),
            Op::OtherKey => self.use_account(1),
            Op::RightKey => self.use_account(0),
            _ => {}
        }
        must!(self.head() == head, "{op:?} alone recorded something");
        self.check_proven()
    }

    fn use_account(&mut self, account: usize) {
        self.account = account;
        self.restart();
    }

    fn decide(&self, decision: Decision) {
        // With nothing to decide this is refused, as it is for a person.
        let _ = write_beside(&self.path(), |tx| holds::decide(tx, None, decision, "t", "simulation"));
    }

    fn run(&mut self, kind: PassKind) -> Option<Report> {
        let ended = self.run_until_crash(kind, self.crash_at);
        self.crash_at = None;
        self.crashed = ended.is_none();
        if self.crashed {
            // What was handed to the database before is still done, as it may be in a crash.
            self.restart();
        }
        ended.flatten()
    }

    /// `None` where the process ended within it.
    fn run_until_crash(&self, kind: PassKind, crash_at: Option<u64>) -> Option<Option<Report>> {
        let pull = self.pull.as_ref().unwrap();
        let mut pass = std::pin::pin!(async {
            match kind {
                PassKind::Sweep => Some(pull.sweep().await.unwrap()),
                PassKind::Probe => pull.probe().await.unwrap(),
            }
        });
        let mut waits = 0;
        // It is polled again when what it waits for has come: so each poll but the first is the end of one wait.
        self.runtime.block_on(std::future::poll_fn(|context| match pass.as_mut().poll(context) {
            Poll::Ready(report) => Poll::Ready(Some(report)),
            Poll::Pending if crash_at == Some(waits) => Poll::Ready(None),
            Poll::Pending => {
                waits += 1;
                Poll::Pending
            }
        }))
    }

    fn pass(&mut self, kind: PassKind) -> Checked {
        let (head, live_before) = (self.head(), self.live());
        let (held, approved, rejected) =
            (self.states("held"), self.states("approved"), self.states("rejected"));
        let had_whole = read::mirror_info(&self.reader()).unwrap().text("last_sweep_at").is_some();
        let report = self.run(kind);
        let changes = self.changes_after(head);
        self.check_proven()?;
        self.check_view(&changes)?;
        let deleted: BTreeSet<String> = changes
            .iter()
            .filter(|change| change.text("kind") == Some("deleted"))
            .map(|change| change.text("customer_id").unwrap().to_owned())
            .collect();

        // 13: a probe rests until one sweep is complete.
        must!(
            self.crashed || report.is_some() == (kind == PassKind::Sweep || had_whole),
            "a probe before the first whole sweep"
        );

        // 8: a key of another account changes nothing (an empty mirror takes any).
        if self.account == 1 && live_before.keys().any(|id| id.starts_with("c0")) {
            must!(changes.is_empty(), "another account's key recorded {} changes", changes.len());
        }
        // 3: nobody is recorded as deleted who is there. Nothing comes back within a pass here, so its end can be asked.
        let there: BTreeSet<String> = {
            let server = self.server.lock().unwrap();
            server.lists[self.account]
                .iter()
                .map(|customer| customer["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let alive: Vec<_> = deleted.intersection(&there).collect();
        must!(alive.is_empty(), "recorded as deleted, and alive: {alive:?}");
        // 4: above the limit only a person's word deletes; a "no" keeps.
        let approved: BTreeSet<String> = &approved | &self.decided("approved");
        let by_itself: BTreeSet<String> = &deleted - &approved;
        must!(
            by_itself.is_empty() || by_itself != self.too_many,
            "what was held because it was too many was recorded without a word: {by_itself:?}"
        );
        let by_itself = by_itself.len() as u64;
        let limit = MAX_DELETE_COUNT.max(live_before.len() as u64 * u64::from(MAX_DELETE_PERCENT) / 100);
        must!(by_itself <= limit, "{by_itself} deletions by itself, the limit is {limit}");
        must!(deleted.is_disjoint(&rejected), "a rejected deletion was recorded");
        let rejected_midway = &self.states("rejected") - &rejected;
        must!(deleted.is_disjoint(&rejected_midway), "a deletion was recorded and rejected");
        let Some(report) = report else { return Ok(()) };
        if report.outcome == Outcome::Held {
            let held_now = self.states("held");
            self.too_many = if held_now.len() as u64 > limit { held_now } else { &self.too_many & &held_now };
        }
        if report.outcome == Outcome::Failed {
            must!(self.states("held").is_subset(&held), "a failed pass held something");
        }
        let told = report.pass.is_none() || self.states("held").len() as u64 == report.held;
        must!(told, "the hold is not what the report says");
        for word in ["approved", "rejected"] {
            must!(self.states("held").is_disjoint(&self.states(word)), "what a person {word} is held again");
        }
        // 13: a probe concludes nothing from absence.
        if kind == PassKind::Probe {
            must!(deleted.is_subset(&approved), "a probe deleted {deleted:?}");
        }
        // 5: a card is taken away only by a sweep that read the whole list and was shown cards.
        for change in &changes {
            let card = |state: &str| change.get(state).get("source").is_some_and(|source| !source.is_null());
            if change.text("kind") == Some("updated") && card("before") && !card("after") {
                let hidden = self.server.lock().unwrap().lists_hide_cards;
                must!(kind == PassKind::Sweep && !hidden, "a {kind} took a card away: {change:?}");
                must!(report.failure.is_none(), "a failed sweep took a card away");
            }
        }
        Ok(())
    }

    /// 1 and 14: the log is whole and folds to the mirror.
    fn check_proven(&self) -> Checked {
        if !self.checking {
            return Ok(());
        }
        let verified = verify(&self.reader(), None).unwrap();
        must!(verified.finding_count == 0, "{:?}", verified.findings);
        // A pass that recorded something says how much; one that did not may be forgotten.
        let wrong: i64 = self
            .reader()
            .query_row(
                "SELECT count(*) FROM (SELECT pass_id, count(*) AS changes FROM change_log GROUP BY pass_id) AS log
                 LEFT JOIN passes ON passes.id = log.pass_id
                 WHERE created + updated + deleted + restored IS NOT changes",
                [],
                |row| row.get(0),
            )
            .unwrap();
        must!(wrong == 0, "{wrong} passes do not say what they recorded");
        Ok(())
    }

    /// The view's diff, before and after agree with the model's.
    fn check_view(&self, changes: &[Record]) -> Checked {
        for change in changes {
            let state = |name: &str| change.get(name).as_object().cloned().unwrap_or_else(Map::new);
            let diff = Diff::between(&state("before"), &state("after")).to_json();
            must!(*change.get("diff") == diff, "the view says {}, the model {diff}", change.get("diff"));
        }
        Ok(())
    }

    /// The end of all trouble: the first quiet sweep equals the truth, but for what waits for a person.
    pub fn heal(&mut self) -> Checked {
        {
            let mut server = self.server.lock().unwrap();
            server.trouble = None;
            server.midway = None;
            server.shifts.clear();
            server.lists_hide_cards = false;
        }
        self.use_account(0);
        self.pass(PassKind::Sweep)?;
        // An empty mirror may have taken the other key meanwhile; then a person has to say that this one is right.
        if write_beside(&self.path(), |tx| account::accept(tx, "t")).is_ok() {
            self.pass(PassKind::Sweep)?;
        }
        // What a person once refused stays refused until it is seen; everything else is approved now.
        self.decide(Decision::Approve);
        self.pass(PassKind::Sweep)?;
        let waits: BTreeSet<String> =
            self.states("rejected").into_iter().chain(self.states("approved")).collect();
        let truth: BTreeMap<String, Value> = {
            let server = self.server.lock().unwrap();
            server.lists[0].iter().map(|c| (c["id"].as_str().unwrap().to_owned(), c.clone())).collect()
        };
        let mut mirror = self.live();
        mirror.retain(|id, _| truth.contains_key(id) || !waits.contains(id));
        // 5 again: where no card at all is listed, null may as well mean "not revealed", and the known ones stay.
        if truth.values().all(|customer| customer["source"].is_null()) {
            mirror.values_mut().for_each(|customer| customer["source"] = Value::Null);
        }
        must!(mirror == truth, "the mirror is not the truth:\n{mirror:?}\n{truth:?}");

        // 11: what is unchanged appends nothing.
        let head = self.head();
        self.pass(PassKind::Sweep)?;
        self.pass(PassKind::Probe)?;
        must!(self.head() == head, "an unchanged list was recorded as changed");
        self.rebuilt_is_the_same()
    }

    fn rebuilt_is_the_same(&mut self) -> Checked {
        let before = self.live();
        self.pull = None;
        let store = Store::open(&self.path()).unwrap();
        self.runtime.block_on(store.write(komoju_sync::store::verify::rebuild)).unwrap();
        store.close();
        must!(self.live() == before, "the rebuilt mirror is another one");
        self.check_proven()
    }
}
