//! Random histories with imprecise lists and reads that lag. Remote edits, our own pushes and
//! restarts happen between the passes.
//!
//! No live customer is deleted, no log entry shows a state that the API never had, and no push is
//! undone. After a few quiet sweeps the mirror equals the API.
//!
//! `HISTORIES=10000 SEED=1 cargo test --release --test it -- histories::` runs more histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use komoju_core::PassOutcome;
use komoju_core::plan::lag::Consistency;
use komoju_sandbox::{Readings, Repeated};
use komoju_sync::clock::Clock as _;
use komoju_testkit::InProcess;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// LAG is the longest lag of reads, in seconds. CONSISTENCY is `consistency_s` of the daemon.
const LAG: u64 = 57;
const CONSISTENCY: u32 = 60;

/// AHEAD is how many seconds the waits of the daemon may move its clock ahead of the sandbox's
/// within one step.
const AHEAD: i64 = (CONSISTENCY as i64) - (LAG as i64);

/// STEPS is the length of a history. QUIET_SWEEPS is how many sweeps may follow until the mirror
/// equals the API.
const STEPS: usize = 40;
const QUIET_SWEEPS: usize = 8;

/// The states of one customer at the API in order, each with its start. `None` is an absent
/// customer.
type States = Vec<(Timestamp, Option<Value>)>;

struct History {
    harness: InProcess,
    dice: StdRng,
    readings: Readings,
    states: BTreeMap<String, States>,
    /// The last `seq` that was checked, and the states of each customer that the log has shown.
    checked_seq: i64,
    recorded_states: BTreeMap<String, Vec<usize>>,
    /// The state that our last push of each customer made. The log must not return behind it.
    pushed: BTreeMap<String, usize>,
    count: usize,
    trace: Vec<String>,
}

impl History {
    async fn open(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let readings = Readings::random_list(&mut dice, LAG);
        let customers = dice.random_range(0..60);
        let mut harness = InProcess::reading(customers, readings.clone()).await;
        harness.settings.consistency = Consistency::seconds(CONSISTENCY);
        let trace = vec![format!("seed {seed}: {customers} customers, {readings:?}")];
        let mut history = Self {
            harness,
            dice,
            readings,
            states: BTreeMap::new(),
            checked_seq: 0,
            recorded_states: BTreeMap::new(),
            pushed: BTreeMap::new(),
            count: 0,
            trace,
        };
        history.note_states();
        history.check_log();
        // From here on a read that lags can show an earlier state.
        history.advance(1000);
        history
    }

    fn advance(&mut self, seconds: i64) {
        self.harness.advance(SignedDuration::from_secs(seconds));
    }

    /// Advances the sandbox's clock to the daemon's, which the daemon's waits have moved.
    fn catch_up(&mut self) {
        let now = self.harness.sandbox.world().now();
        let ahead = self.harness.clock.now().duration_since(now);
        assert!(ahead < SignedDuration::from_secs(AHEAD), "the daemon waited for {ahead}: {:#?}", self.trace);
        self.harness.sandbox.world().advance(Duration::try_from(ahead).unwrap());
    }

    /// Records the present state of each customer at the API.
    fn note_states(&mut self) {
        let truth = self.harness.sandbox.world().truth();
        let at = self.harness.sandbox.world().now();
        let known: Vec<String> = self.states.keys().cloned().collect();
        for id in truth.keys().chain(&known) {
            let now = truth.get(id).cloned();
            let states = self.states.entry(id.clone()).or_default();
            if states.last().map(|(_, last)| last) != Some(&now) {
                states.push((at, now));
            }
        }
    }

    /// Checks the new entries of the log.
    fn check_log(&mut self) {
        let sql = format!(
            "SELECT json_array(seq, customer_id, kind, origin, json(after)) FROM changes WHERE seq > {} ORDER BY seq",
            self.checked_seq
        );
        let truth = self.harness.sandbox.world().truth();
        let now = self.harness.sandbox.world().now();
        for entry in self.harness.column(&sql) {
            let entry: (i64, String, String, String, Option<Value>) = serde_json::from_str(&entry).unwrap();
            let (seq, id, kind, origin, after) = entry;
            self.trace.push(format!("log {seq}: {id} {kind} {origin}"));
            let trace = || format!("{:#?}", self.trace);
            self.checked_seq = seq;
            if kind == "deleted" {
                assert!(!truth.contains_key(&id), "{id} is live: {}", trace());
            }
            let states = &self.states[&id];
            let found = states.iter().rposition(|(_, state)| *state == after);
            let Some(found) = found else {
                panic!("entry {seq} shows a state that the API never had: {}", trace())
            };
            if origin == "intent" {
                self.pushed.insert(id.clone(), found);
            }
            let pushed = self.pushed.get(&id).copied().unwrap_or(0);
            assert!(found >= pushed, "entry {seq} undoes our own push: {}", trace());
            // Only a state that was replaced within the lag may be recorded late, and only if the
            // log has not shown it before.
            let recorded_states = self.recorded_states.entry(id).or_default();
            let is_late = recorded_states.last().is_some_and(|last| found < *last);
            let replaced_at = states.get(found + 1).map(|(at, _)| *at);
            let may_be_read = replaced_at
                .is_none_or(|at| now.duration_since(at) <= SignedDuration::from_secs(CONSISTENCY.into()));
            assert!(
                !is_late || (may_be_read && !recorded_states.contains(&found)),
                "entry {seq} returns to an earlier state: {}",
                trace()
            );
            recorded_states.push(found);
        }
    }

    async fn step(&mut self) {
        let ids = self.harness.sandbox.world().ids();
        let id = ids.choose(&mut self.dice).cloned();
        self.count += 1;
        let n = self.count;
        let body = json!({"email": format!("{n}@example.com"), "metadata": {"n": n.to_string()}});
        let what = self.dice.random_range(0..20);
        self.trace.push(format!("{} {what} {id:?}", self.harness.sandbox.world().now()));
        match (what, id) {
            (0, _) => drop(self.harness.sandbox.world().create(body)),
            (1 | 2, Some(id)) => drop(self.harness.sandbox.world().update(&id, body)),
            (3, Some(id)) => drop(self.harness.sandbox.world().delete(&id)),
            (4, _) => self.push("create", None, Some(body)).await,
            (5 | 6, Some(id)) => self.push("update", Some(&id), Some(body)).await,
            (7, Some(id)) => self.push("delete", Some(&id), None).await,
            (8..=11, _) => drop(self.sweep().await),
            (12, _) => drop(self.harness.pull().probe().await.unwrap()),
            (13, _) => self.harness.restart(),
            (14, _) => drop(self.harness.pull().recheck().await.unwrap()),
            _ => {
                let seconds = self.dice.random_range(1..40);
                self.advance(seconds);
            }
        }
        self.note_states();
        self.check_log();
        self.catch_up();
    }

    async fn push(&mut self, op: &str, customer: Option<&str>, body: Option<Value>) {
        // A door accepts any valid id, so the customer may be unknown to the mirror.
        self.harness.intend(&format!("i{}", self.count), op, customer, body);
        self.harness.drain().await;
    }

    async fn sweep(&mut self) -> PassOutcome {
        let report = self.harness.pull().sweep().await.unwrap();
        assert!(report.failure.is_none(), "{}: {:#?}", report.sentence(), self.trace);
        report.outcome
    }

    /// Runs quiet sweeps, then asserts that the mirror equals the API.
    async fn settle(&mut self) {
        for _ in 0..QUIET_SWEEPS {
            self.advance(900);
            self.trace.push(format!("{} quiet", self.harness.sandbox.world().now()));
            self.harness.drain().await;
            self.note_states();
            self.check_log();
            self.harness.pull().recheck().await.unwrap();
            self.check_log();
            self.sweep().await;
            self.check_log();
            self.harness.pull().recheck().await.unwrap();
            self.check_log();
        }
        let mut mirror = BTreeMap::new();
        komoju_sync::store::read::customers(&self.harness.reader(), |record| {
            mirror.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
            Ok(())
        })
        .unwrap();
        let truth = self.harness.sandbox.world().truth();
        let held: BTreeSet<String> = self
            .harness
            .column("SELECT customer_id FROM held_deletions WHERE state = 'held'")
            .into_iter()
            .collect();
        // These lists can hide a customer, which the mirror then need not know.
        let hides = self.readings.filtered_every.is_some() || self.readings.repeated == Repeated::Displacing;
        for (id, body) in &truth {
            match mirror.get(id) {
                Some(mirrored) => assert_eq!(mirrored, body, "{id}: {:#?}", self.trace),
                None => assert!(hides, "{id} is not known: {:#?}", self.trace),
            }
        }
        for id in mirror.keys().filter(|id| !truth.contains_key(*id)) {
            assert!(
                held.contains(id),
                "{id} is gone, and its deletion is neither recorded nor held: {:#?}",
                self.trace
            );
        }
    }
}

#[tokio::test]
async fn random_history_deletes_no_live_customer_and_ends_equal_to_the_api() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or(default))
    };
    let (histories, first) = (number("HISTORIES", 20), number("SEED", 1));
    for seed in first..first + histories {
        let mut history = History::open(seed).await;
        for _ in 0..STEPS {
            history.step().await;
        }
        history.settle().await;
    }
}
