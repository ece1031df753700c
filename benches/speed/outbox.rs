//! Pushes: how soon an intent is sent, how fast many are sent, and how long one waits during a
//! sweep.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use komoju_sandbox::{Options, Sandbox};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

use crate::{Plan, configure, floors, median, millis, process, text};

/// The number of intents that are measured one by one.
const DROPS: usize = 200;

/// The number of intents that are measured together.
const UPDATES: usize = 1000;

pub fn main(plan: &Plan) {
    soon("an SQL insert", 200, |harness, n, id| harness.insert(n, id));
    soon("a file", 200, |harness, n, id| harness.rename(n, id));
    for latency_ms in [50, 0] {
        many(plan, latency_ms);
    }
    within_a_sweep();
}

/// A sandbox in this process, and the daemon in its own, after its first sweep.
struct Installation {
    runtime: Runtime,
    sandbox: Sandbox,
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    writer: Option<Connection>,
    ids: Vec<String>,
}

impl Installation {
    fn new(customers: u32, latency_ms: u64, in_flight: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let latency = Duration::from_millis(latency_ms);
        let options = Options { customers, latency, ..Options::default() };
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        let directory = tempfile::TempDir::new().unwrap();
        let plan = Plan { customers, in_flight, latency_ms, rounds: 1 };
        let config = configure(directory.path(), &plan, &sandbox.base_url());
        let mut content = std::fs::read_to_string(&config).unwrap();
        content.push_str("[inbound]\nsweep_cron = \"0 0 0 1 1 *\"\nprobe_cron = \"0 0 0 1 1 *\"\n");
        std::fs::write(&config, content).unwrap();
        std::fs::create_dir(directory.path().join("spool")).unwrap();
        let ids = sandbox.world().ids();
        Self { runtime, sandbox, directory, daemon: None, writer: None, ids }
    }

    fn sync(&self) -> std::process::Command {
        process::komoju_sync(&["--config", &text(&self.directory.path().join("config.toml")), "sync"])
    }

    /// Starts the daemon and waits for the end of its first sweep.
    fn serve(mut self) -> Self {
        let config = text(&self.directory.path().join("config.toml"));
        let daemon = process::komoju_sync(&["--config", &config, "run"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let status = || {
            let mut asked = process::komoju_sync(&["--config", &config, "status"]);
            asked.stdout(Stdio::null()).stderr(Stdio::null()).status()
        };
        while status().unwrap().code() != Some(0) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.open()
    }

    fn open(mut self) -> Self {
        let writer = Connection::open(self.directory.path().join("komoju.db")).unwrap();
        writer.busy_timeout(Duration::from_secs(10)).unwrap();
        writer.pragma_update(None, "synchronous", "full").unwrap();
        self.writer = Some(writer);
        self
    }

    fn insert(&self, n: usize, id: &str) {
        let sql = "INSERT INTO intents (op, customer_id, body) VALUES ('update', ?1, ?2)";
        let body = format!(r#"{{"metadata":{{"n":"{n}"}}}}"#);
        self.writer.as_ref().unwrap().prepare_cached(sql).unwrap().execute(params![id, body]).unwrap();
    }

    fn rename(&self, n: usize, id: &str) {
        let made = self.directory.path().join("made.json");
        let content =
            format!(r#"{{"op": "update", "customer_id": "{id}", "body": {{"metadata": {{"n": "f{n}"}}}}}}"#);
        let mut file = File::create(&made).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.sync_all().unwrap();
        std::fs::rename(&made, self.directory.path().join(format!("spool/drop-{n}.json"))).unwrap();
    }

    fn updates(&self) -> u64 {
        self.sandbox.world().updates()
    }

    fn until_updates(&self, wanted: u64) {
        self.runtime.block_on(self.sandbox.until(|world| world.updates() >= wanted));
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Returns how long small durable writes take here, in milliseconds, sorted.
fn fsyncs(directory: &Path, count: usize) -> Vec<f64> {
    let mut file = File::create(directory.join("fsync")).unwrap();
    let mut took: Vec<f64> = (0..count)
        .map(|_| {
            file.write_all(&[7; 4096]).unwrap();
            let started = Instant::now();
            file.sync_data().unwrap();
            millis(started.elapsed())
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took
}

/// Measures the time from a finished drop to the arrival of its request, with an idle daemon.
fn soon(what: &str, customers: u32, drop_one: impl Fn(&Installation, usize, &str)) {
    let harness = Installation::new(customers, 0, 4).serve();
    let fsync = median(&fsyncs(harness.directory.path(), DROPS));
    let mut waits: Vec<f64> = (0..DROPS)
        .map(|n| {
            let wanted = harness.updates() + 1;
            drop_one(&harness, n, &harness.ids[n % harness.ids.len()]);
            let dropped = Timestamp::now();
            harness.until_updates(wanted);
            let arrived = harness.sandbox.world().requests().last().unwrap().at;
            // Let the daemon finish its work after the answer.
            std::thread::sleep(Duration::from_millis(30));
            millis(Duration::try_from(arrived.duration_since(dropped)).unwrap_or_default())
        })
        .collect();
    waits.sort_by(f64::total_cmp);
    let most = 10.0 + 2.0 * fsync;
    println!(
        "{:<60} {:>6.2}  (target {most:.2}; fsync {fsync:.2})",
        format!("ms from {what} to its request, p50"),
        median(&waits)
    );
    println!(
        "{:<60} {:>6.2}  (target 150)",
        format!("ms from {what} to its request, p99"),
        waits[DROPS * 99 / 100]
    );
}

/// Measures many updates of different customers, as whole processes: a drain against a bare client.
fn many(plan: &Plan, latency_ms: u64) {
    let mut ratios: Vec<f64> = (0..plan.rounds)
        .map(|_| {
            let harness = Installation::new(u32::try_from(UPDATES).unwrap(), latency_ms, 8);
            process::run(harness.sync());
            let harness = harness.open();
            let ids = harness.directory.path().join("ids");
            std::fs::write(&ids, harness.ids.join("\n")).unwrap();
            let floor =
                process::run(floors::command(&["updates", &harness.sandbox.base_url(), &text(&ids), "8"]));
            // This sweep records the changes of the floor, before the measurement.
            process::run(harness.sync());
            let sweep = process::run(harness.sync());
            for (n, id) in harness.ids.iter().enumerate() {
                harness.insert(n, id);
            }
            let drained = process::run(harness.sync());
            assert_eq!(harness.updates(), 2 * UPDATES as u64);
            (drained.took.as_secs_f64() - sweep.took.as_secs_f64()) / floor.took.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let target = if latency_ms > 0 { "target 1.15" } else { "reported" };
    println!(
        "{:<60} {:>6.2}  ({target})",
        format!("{UPDATES} updates at {latency_ms} ms / a bare client"),
        median(&ratios)
    );
}

/// Measures how many other requests are sent before an intent's, while a sweep uses every slot.
fn within_a_sweep() {
    let mut harness = Installation::new(1000, 0, 4);
    let config = harness.directory.path().join("config.toml");
    let content = std::fs::read_to_string(&config).unwrap();
    let content = content
        .replace("per_page = 100", "per_page = 1")
        .replace("requests_per_second = 0", "requests_per_second = 10\nburst = 1");
    std::fs::write(&config, content).unwrap();
    let daemon = process::komoju_sync(&["--config", &text(&config), "run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    harness.daemon = Some(daemon);
    harness.runtime.block_on(harness.sandbox.until(|world| world.request_count() > 20));
    harness = harness.open();
    let mut waited: Vec<u64> = (0..20)
        .map(|n| {
            let before = harness.sandbox.world().request_count();
            let wanted = harness.updates() + 1;
            harness.insert(n, &harness.ids[n]);
            harness.until_updates(wanted);
            let world = harness.sandbox.world();
            let push = world.requests().iter().rfind(|seen| seen.method == "PATCH").unwrap();
            push.number - before - 1
        })
        .collect();
    waited.sort_unstable();
    println!(
        "{:<60} {:>6}  (target 2; median {})",
        "request slots that an intent waits for within a sweep, most",
        waited[waited.len() - 1],
        waited[waited.len() / 2]
    );
}
