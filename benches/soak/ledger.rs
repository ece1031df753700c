//! The result of a soak: counters, and everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use komoju_sandbox::World;
use komoju_sync::store::log::verify::verify;

use crate::Plan;
use crate::daemon::{Installation, OPEN, size};
use crate::doors::{Door, Dropper};
use crate::outcomes;

/// MOST_MEMORY_KIB controls how much memory the daemon may use.
const MOST_MEMORY_KIB: u64 = 64 << 10;

/// STOPS_WITHIN controls how long a stop may take.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The counters of a soak, and what is wrong.
#[derive(Default)]
pub struct Ledger {
    seed: u64,
    /// The most seconds between two kills or stops of the daemon.
    longest_life: u64,
    pub lasted: Duration,
    pub starts: u64,
    pub kills: u64,
    stops: u64,
    slowest_stop: Duration,
    pub parked_readers: u64,
    /// The commands that ran while the daemon ran.
    pub asked: u64,
    /// The customers that were created, changed and deleted at KOMOJU.
    pub churned: [u64; 3],
    /// How often faults of each kind fired.
    faults: BTreeMap<String, u64>,
    /// How many faults of each kind were injected.
    pub injected: BTreeMap<String, u64>,
    requests: u64,
    peak_kib: u64,
    /// The size of the database at the first check.
    began_with: Option<u64>,
    /// The largest size of the write-ahead log.
    largest_wal: u64,
    ended: Ended,
    wrong: Vec<String>,
}

/// The state of the database and of KOMOJU at the end.
#[derive(Default)]
struct Ended {
    by_door: BTreeMap<Door, u64>,
    by_state: Vec<String>,
    lost: u64,
    twice: u64,
    false_deletes: u64,
    differences: u64,
    customers: u64,
    changes: u64,
    database: u64,
    backups: u64,
    log: u64,
}

impl Ledger {
    pub fn begin(plan: &Plan) -> Self {
        Self { seed: plan.seed, longest_life: 2 * plan.end_every.max(1), ..Self::default() }
    }

    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    pub fn say_wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub fn stopped(&mut self, took: Duration, ended: ExitStatus) {
        self.stops += 1;
        self.slowest_stop = self.slowest_stop.max(took);
        if !ended.success() {
            self.say_wrong(format!("a stop ended with {ended}"));
        }
    }

    /// Records the most memory of a process. A process that has just started may still show the
    /// memory of this one, until the kernel has started the other program.
    pub fn note_memory(&mut self, process: u32) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        if !status.starts_with("Name:\tkomoju-sync\n") {
            return;
        }
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        self.peak_kib = self.peak_kib.max(kib);
    }

    /// Records how often faults fired. The sandbox counts removed faults, too.
    pub fn note_faults(&mut self, world: &World) {
        self.faults = world.fired_by_kind();
    }

    /// Checks the daemon, its memory and its files.
    pub fn look(&mut self, harness: &mut Installation) {
        harness.release_reader();
        if let Some(ended) = harness.daemon().try_wait().unwrap() {
            self.say_wrong(format!("the daemon ended by itself: {ended}"));
            harness.start(self);
        }
        self.note_memory(harness.daemon().id());
        self.began_with.get_or_insert(size(&harness.database()));
        self.largest_wal = self.largest_wal.max(size(&harness.path("komoju.db-wal")));
        let mut world = harness.world();
        self.requests = world.request_count();
        // The sandbox would keep these requests.
        world.clear_requests();
    }

    /// Returns the progress in one line.
    pub fn line(&self, lasted: Duration, accepted: usize) -> String {
        format!(
            "{:>5} s: {} requests, {} faults, {} kills, {} intents, peak {:.1} MiB, {} wrong",
            lasted.as_secs(),
            self.requests,
            self.faults.values().sum::<u64>(),
            self.kills,
            accepted,
            self.peak_kib as f64 / 1024.0,
            self.wrong.len()
        )
    }

    /// Compares intents, mirror, log and KOMOJU at the end.
    pub fn close(&mut self, harness: &Installation, dropper: &Dropper) {
        let mut ended = Ended::default();
        for accepted in dropper.intents.values() {
            *ended.by_door.entry(accepted.door).or_default() += 1;
        }
        let by_state = "SELECT state || ' ' || count(*) FROM intents GROUP BY state ORDER BY count(*) DESC";
        ended.by_state = harness.column(by_state);

        let there: BTreeSet<String> = harness.column("SELECT id FROM intents").into_iter().collect();
        let lost: Vec<&String> = dropper.intents.keys().filter(|id| !there.contains(*id)).collect();
        ended.lost = lost.len() as u64;
        let unexpected: Vec<&String> = there.iter().filter(|id| !dropper.intents.contains_key(*id)).collect();
        let mut strange = harness.column(OPEN);
        strange.extend(harness.column(
            "SELECT id || ' is ' || state || ' without a reason' FROM intents
             WHERE state IN ('rejected', 'parked', 'queued') AND coalesce(reason, '') = ''",
        ));

        let truth = harness.world().truth();
        let mut made = BTreeMap::<&str, u64>::new();
        for customer in truth.values() {
            *made.entry(customer["email"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let states: BTreeMap<String, String> = harness
            .column("SELECT id || ' ' || state FROM intents WHERE op = 'create'")
            .iter()
            .map(|row| row.split_once(' ').unwrap())
            .map(|(id, state)| (id.to_owned(), state.to_owned()))
            .collect();
        let mut effects = 0;
        let mut wrong_creates = Vec::new();
        for (id, accepted) in &dropper.intents {
            let Some(email) = accepted.email() else { continue };
            let count = made.get(email).copied().unwrap_or(0);
            effects += count;
            ended.twice += u64::from(count > 1);
            let expected = match states.get(id).map(String::as_str) {
                Some("done") => count == 1,
                Some("rejected") => count == 0,
                _ => count <= 1,
            };
            if !expected {
                wrong_creates.push(format!("{id} is {:?} and made {count} customers", states.get(id)));
            }
        }
        // The soak deletes no customer of an intent, so this also finds customers that were created
        // and are gone.
        let creates = harness.world().creates();
        if creates != effects {
            wrong_creates
                .push(format!("{creates} creates took effect at KOMOJU, {effects} customers are there"));
        }

        let mirror = harness.mirror();
        let ids: BTreeSet<&String> = mirror.keys().chain(truth.keys()).collect();
        ended.differences = ids.into_iter().filter(|id| mirror.get(*id) != truth.get(*id)).count() as u64;
        // No customer is restored in a soak, so each recorded deletion must be true.
        let deleted =
            harness.column("SELECT DISTINCT customer_id FROM changes WHERE kind IN ('deleted', 'restored')");
        ended.false_deletes = deleted.iter().filter(|id| truth.contains_key(*id)).count() as u64;
        ended.customers = truth.len() as u64;
        ended.changes = harness.number("SELECT head_seq FROM mirror_info");

        let findings = verify(&harness.reader(), None).unwrap().findings;
        let panics = std::fs::read_to_string(harness.path("daemon.log")).unwrap();
        let panics = panics.lines().filter(|line| line.contains("panicked")).map(str::to_owned);
        ended.database = size(&harness.database());
        ended.backups = (0..2).map(|n| size(&harness.path(&format!("backup-{n}.db")))).max().unwrap_or(0);
        ended.log = size(&harness.path("daemon.log"));

        self.wrong.extend(lost.iter().map(|id| format!("{id} is lost")));
        self.wrong.extend(unexpected.iter().map(|id| format!("{id} was never dropped")));
        self.wrong.extend(strange);
        self.wrong.extend(wrong_creates);
        self.wrong.extend(outcomes::check(harness, dropper, &truth));
        self.wrong.extend(self.idle(&ended));
        self.wrong.extend(self.excesses());
        self.wrong.extend(findings);
        self.wrong.extend(panics);
        for (count, what) in [(ended.differences, "differences"), (ended.false_deletes, "false deletes")] {
            if count > 0 {
                self.wrong.push(format!("{count} {what}"));
            }
        }
        self.ended = ended;
    }
}

impl Ledger {
    /// Returns what should have happened in a run of this length and did not. Then the rest of this
    /// ledger proves less than it seems to.
    fn idle(&self, ended: &Ended) -> Vec<String> {
        let mut idle = Vec::new();
        let mut expect = |what: String, of: u64, at_least: u64, count: u64| {
            if of >= at_least && count == 0 {
                idle.push(format!("{what}: none in {of}, which is very unlikely"));
            }
        };
        let in_sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let ends = self.kills + self.stops;
        expect("ends of the daemon".to_owned(), self.lasted.as_secs() / self.longest_life, 4, ends);
        expect("kills".to_owned(), ends, 10, self.kills);
        let accepted = ended.by_door.values().sum();
        expect("intents".to_owned(), self.lasted.as_secs(), 60, accepted);
        for (door, at_least) in [(Door::Sql, 16), (Door::File, 40), (Door::Cli, 140)] {
            let count = ended.by_door.get(&door).copied().unwrap_or(0);
            expect(format!("intents by {door:?}"), accepted, at_least, count);
        }
        expect("faults".to_owned(), in_sum(&self.injected), 10, in_sum(&self.faults));
        // Some faults are removed before a request matches them.
        for (kind, injected) in &self.injected {
            let count = self.faults.get(kind).copied().unwrap_or(0);
            expect(format!("faults that are {kind}"), *injected, 20, count);
        }
        idle
    }

    /// Returns what exceeds its limit.
    fn excesses(&self) -> Vec<String> {
        let mut excesses = Vec::new();
        if self.peak_kib == 0 {
            excesses.push("the memory of the daemon was never measured".to_owned());
        }
        if self.peak_kib >= MOST_MEMORY_KIB {
            excesses.push(format!("the daemon used {} KiB of at most {MOST_MEMORY_KIB}", self.peak_kib));
        }
        // A debug build may be slower.
        if !cfg!(debug_assertions) && self.slowest_stop >= STOPS_WITHIN {
            excesses.push(format!("a stop took {:?} of at most {STOPS_WITHIN:?}", self.slowest_stop));
        }
        excesses
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ended = &self.ended;
        let listed = |counts: Vec<String>| counts.join(", ");
        let faults = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let doors =
            ended.by_door.iter().map(|(door, count)| format!("{door:?} {count}").to_lowercase()).collect();
        let began = self.began_with.unwrap_or(0);
        let rows = [
            ("lasted", format!("{} s, seed {}", self.lasted.as_secs(), self.seed)),
            ("requests", self.requests.to_string()),
            ("faults fired", format!("{}: {}", self.faults.values().sum::<u64>(), listed(faults))),
            (
                "ends",
                format!(
                    "{} kills, {} stops (slowest {} ms), {} starts",
                    self.kills,
                    self.stops,
                    self.slowest_stop.as_millis(),
                    self.starts
                ),
            ),
            ("beside", format!("{} commands, {} parked readers", self.asked, self.parked_readers)),
            (
                "churn",
                format!(
                    "{} created, {} changed, {} deleted by others",
                    self.churned[0], self.churned[1], self.churned[2]
                ),
            ),
            ("intents in", format!("{}: {}", ended.by_door.values().sum::<u64>(), listed(doors))),
            ("intents out", listed(ended.by_state.clone())),
            ("lost", ended.lost.to_string()),
            ("made twice", ended.twice.to_string()),
            ("false deletes", ended.false_deletes.to_string()),
            ("differences", format!("{} of {} customers", ended.differences, ended.customers)),
            ("peak memory", format!("{:.1} MiB", self.peak_kib as f64 / 1024.0)),
            (
                "files",
                format!(
                    "database {:.1} to {:.1} MiB with {} changes, write-ahead log at most {:.1} MiB, backup {:.1} MiB, log {:.1} MiB",
                    mib(began),
                    mib(ended.database),
                    ended.changes,
                    mib(self.largest_wal),
                    mib(ended.backups),
                    mib(ended.log)
                ),
            ),
            ("wrong", self.wrong.len().to_string()),
        ];
        rows.iter().try_for_each(|(name, value)| writeln!(f, "{name:<14} {value}"))
    }
}
