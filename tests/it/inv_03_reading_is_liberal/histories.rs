//! Random histories against lists that are imprecise and reads that lag, with edits from elsewhere, our own pushes and restarts
//! between the passes: no deletion of a customer that lives, nothing in the log that was never so, no push undone; and after a few
//! quiet sweeps the mirror is the truth.
//!
//! `HISTORIES=10000 SEED=1 cargo test --release --test it -- histories::` runs more of them.

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

/// How long reads lag at most, and how long the daemon expects them to, in seconds.
const LAG: u64 = 57;
const CONSISTENCY: u32 = 60;

/// How many seconds the daemon's clock may get ahead of the sandbox's within one step, by the waits of the daemon.
const AHEAD: i64 = (CONSISTENCY as i64) - (LAG as i64);

/// Steps of a history, and how many quiet sweeps may follow until everything is known.
const STEPS: usize = 40;
const QUIET_SWEEPS: usize = 8;

/// The states of one customer at the API, in their order, and since when each held; `None` while it is not there.
type States = Vec<(Timestamp, Option<Value>)>;

struct History {
    harness: InProcess,
    dice: StdRng,
    readings: Readings,
    states: BTreeMap<String, States>,
    /// How far the log was judged, and which states of each customer it has shown.
    judged: i64,
    reached: BTreeMap<String, Vec<usize>>,
    /// The states that our own pushes made: the log must not fall behind them.
    pushed: BTreeMap<String, usize>,
    count: usize,
    told: Vec<String>,
}

impl History {
    async fn open(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let readings = Readings::random_list(&mut dice, LAG);
        let customers = dice.random_range(0..60);
        let mut harness = InProcess::reading(customers, readings.clone()).await;
        harness.settings.consistency = Consistency::seconds(CONSISTENCY);
        let told = vec![format!("seed {seed}: {customers} customers, {readings:?}")];
        let mut history = Self {
            harness,
            dice,
            readings,
            states: BTreeMap::new(),
            judged: 0,
            reached: BTreeMap::new(),
            pushed: BTreeMap::new(),
            count: 0,
            told,
        };
        history.note_states();
        history.judge();
        // From here on reads may show what was before.
        history.advance(1000);
        history
    }

    fn advance(&mut self, seconds: i64) {
        self.harness.advance(SignedDuration::from_secs(seconds));
    }

    /// The daemon has waited, which moves its own clock alone: the sandbox's follows.
    fn catch_up(&mut self) {
        let now = self.harness.sandbox.world().now();
        let ahead = self.harness.clock.now().duration_since(now);
        assert!(ahead < SignedDuration::from_secs(AHEAD), "the daemon waited for {ahead}: {:#?}", self.told);
        self.harness.sandbox.world().advance(Duration::try_from(ahead).unwrap());
    }

    /// Notes what is at the API now.
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

    /// Judges the entries of the log that are new.
    fn judge(&mut self) {
        let sql = format!(
            "SELECT json_array(seq, customer_id, kind, origin, json(after)) FROM changes WHERE seq > {} ORDER BY seq",
            self.judged
        );
        let truth = self.harness.sandbox.world().truth();
        let now = self.harness.sandbox.world().now();
        for entry in self.harness.column(&sql) {
            let entry: (i64, String, String, String, Option<Value>) = serde_json::from_str(&entry).unwrap();
            let (seq, id, kind, origin, after) = entry;
            self.told.push(format!("log {seq}: {id} {kind} {origin}"));
            let told = || format!("{:#?}", self.told);
            self.judged = seq;
            if kind == "deleted" {
                assert!(!truth.contains_key(&id), "{id} lives: {}", told());
            }
            let states = &self.states[&id];
            let found = states.iter().rposition(|(_, state)| *state == after);
            let Some(found) = found else { panic!("entry {seq} was never so: {}", told()) };
            if origin == "intent" {
                self.pushed.insert(id.clone(), found);
            }
            let pushed = self.pushed.get(&id).copied().unwrap_or(0);
            assert!(found >= pushed, "entry {seq} undoes our own push: {}", told());
            // A state that was replaced within the lag may be recorded late, where the log has not shown it before; nothing else may.
            let reached = self.reached.entry(id).or_default();
            let is_late = reached.last().is_some_and(|last| found < *last);
            let replaced_at = states.get(found + 1).map(|(at, _)| *at);
            let may_be_read = replaced_at
                .is_none_or(|at| now.duration_since(at) <= SignedDuration::from_secs(CONSISTENCY.into()));
            assert!(
                !is_late || (may_be_read && !reached.contains(&found)),
                "entry {seq} returns to an earlier state: {}",
                told()
            );
            reached.push(found);
        }
    }

    async fn step(&mut self) {
        let ids = self.harness.sandbox.world().ids();
        let id = ids.choose(&mut self.dice).cloned();
        self.count += 1;
        let n = self.count;
        let body = json!({"email": format!("{n}@example.com"), "metadata": {"n": n.to_string()}});
        let what = self.dice.random_range(0..20);
        self.told.push(format!("{} {what} {id:?}", self.harness.sandbox.world().now()));
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
        self.judge();
        self.catch_up();
    }

    async fn push(&mut self, op: &str, customer: Option<&str>, body: Option<Value>) {
        // What is accepted is accepted by the door's rules, so a customer that the mirror does not know is as good as any.
        self.harness.intend(&format!("i{}", self.count), op, customer, body);
        self.harness.drain().await;
    }

    async fn sweep(&mut self) -> PassOutcome {
        let report = self.harness.pull().sweep().await.unwrap();
        assert!(report.failure.is_none(), "{}: {:#?}", report.sentence(), self.told);
        report.outcome
    }

    /// Nothing changes any more: after a few sweeps everything is known.
    async fn settle(&mut self) {
        for _ in 0..QUIET_SWEEPS {
            self.advance(900);
            self.told.push(format!("{} quiet", self.harness.sandbox.world().now()));
            self.harness.drain().await;
            self.note_states();
            self.judge();
            self.harness.pull().recheck().await.unwrap();
            self.judge();
            self.sweep().await;
            self.judge();
            self.harness.pull().recheck().await.unwrap();
            self.judge();
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
        // A customer that no list shows can only be known by other ways.
        let hides = self.readings.filtered_every.is_some() || self.readings.repeated == Repeated::Displacing;
        for (id, body) in &truth {
            match mirror.get(id) {
                Some(mirrored) => assert_eq!(mirrored, body, "{id}: {:#?}", self.told),
                None => assert!(hides, "{id} is not known: {:#?}", self.told),
            }
        }
        for id in mirror.keys().filter(|id| !truth.contains_key(*id)) {
            assert!(held.contains(id), "{id} is gone, and neither recorded nor held: {:#?}", self.told);
        }
    }
}

#[tokio::test]
async fn no_history_deletes_a_living_customer_or_undoes_a_push_and_each_ends_with_the_truth() {
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
