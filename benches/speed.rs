//! How fast the mirror is, as ratios against floors measured in the same run, so that a noisy
//! machine cancels out.
//!
//! `cargo bench` measures 100,000 customers; `cargo bench -- --help` explains the options. A local
//! KOMOJU with its pages in memory runs in a process of its own; every figure is a whole process
//! from start to exit, floors too.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic ends a measurement that fails")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "speed/floors.rs"]
mod floors;
#[path = "speed/idle.rs"]
mod idle;
#[path = "speed/outbox.rs"]
mod outbox;
#[path = "speed/process.rs"]
mod process;
#[path = "speed/queries.rs"]
mod queries;
#[path = "speed/service.rs"]
mod service;

use std::path::{Path, PathBuf};
use std::time::Duration;

use process::{Measured, Sandbox, run};

const HELP: &str = "cargo bench -- [WHAT] [OPTIONS]

WHAT
  sweeps     a first import and an unchanged sweep, against floors (what runs without WHAT)
  queries    the time of queries, with a change log of five entries for each customer
  idle       the processor time and the writes of an idle daemon
  service    the time until the service is ready, until it has stopped, and of `status`
  outbox     from an intent's commit to its request, many updates at once, and an intent within a sweep

OPTIONS
  --customers N    how many (100000)
  --in-flight N    requests at once (8)
  --latency-ms N   how long the API takes to answer (0)
  --rounds N       how often everything is measured (3)";

/// The parameters of a measurement.
#[derive(Clone, Debug)]
struct Plan {
    customers: u32,
    in_flight: usize,
    latency_ms: u64,
    rounds: usize,
}

impl Plan {
    const PER_PAGE: u32 = 100;

    fn pages(&self) -> u32 {
        self.customers.div_ceil(Self::PER_PAGE)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // A floor runs as a process of its own, like what it is compared with.
    if let ["floor", rest @ ..] = words.as_slice() {
        return floors::main(rest);
    }
    let option = |name: &str, default: u64| {
        let place = words.iter().position(|word| *word == name);
        place.map_or(default, |place| words[place + 1].parse().expect("a number"))
    };
    let plan = Plan {
        customers: option("--customers", 100_000).try_into().unwrap(),
        in_flight: option("--in-flight", 8).try_into().unwrap(),
        latency_ms: option("--latency-ms", 0),
        rounds: option("--rounds", 3).try_into().unwrap(),
    };
    match words.first() {
        Some(&"--help" | &"-h") => println!("{HELP}"),
        Some(&"queries") => queries::main(&plan),
        Some(&"idle") => idle::main(),
        Some(&"service") => service::main(&plan),
        Some(&"outbox") => outbox::main(&plan),
        _ => sweeps(&plan),
    }
}

/// The measurements of one round.
struct Round {
    client: Measured,
    inserts: Measured,
    bare: Measured,
    import: Measured,
    unchanged: Measured,
    wal_bytes: u64,
}

fn sweeps(plan: &Plan) {
    let sandbox = Sandbox::start(plan);
    let rounds: Vec<Round> = (0..plan.rounds).map(|_| round(plan, &sandbox)).collect();
    println!(
        "{} customers on {} pages, {} in flight, {} ms latency, {} rounds; seconds, median (least)\n",
        plan.customers,
        plan.pages(),
        plan.in_flight,
        plan.latency_ms,
        plan.rounds
    );
    let figure = |what: &str, of: fn(&Round) -> Measured| {
        let mut seconds: Vec<f64> = rounds.iter().map(|round| of(round).took.as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        let memory = rounds.iter().map(|round| of(round).peak_kib).max().unwrap_or(0);
        println!(
            "{what:<44} {:>8.3} ({:.3})  peak {:>6.1} MiB",
            median(&seconds),
            seconds[0],
            memory as f64 / 1024.0
        );
    };
    figure("floor: fetch and parse typed", |round| round.client);
    figure("floor: plain inserts into the same schema", |round| round.inserts);
    figure("floor: plain inserts into two bare tables", |round| round.bare);
    figure("first import", |round| round.import);
    figure("unchanged sweep", |round| round.unchanged);
    println!();
    let ratio = |what: &str, target: f64, of: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds.iter().map(of).collect();
        ratios.sort_by(f64::total_cmp);
        println!("{what:<60} {:>6.2}  (target {target})", median(&ratios));
    };
    // With latency in the API, the product may add little to it.
    let over_the_client = if plan.latency_ms > 0 { 1.1 } else { 2.0 };
    ratio("unchanged sweep / fetch and parse typed", over_the_client, |r| r.unchanged / r.client);
    ratio("first import / the slower of client and inserts", 1.4, |r| {
        if r.client.took > r.inserts.took { r.import / r.client } else { r.import / r.inserts }
    });
    ratio("first import / inserts into two bare tables", 2.0, |r| r.import / r.bare);
    ratio("unchanged sweep / inserts into two bare tables", 0.35, |r| r.unchanged / r.bare);
    let memory =
        rounds.iter().map(|round| round.import.peak_kib.max(round.unchanged.peak_kib)).max().unwrap_or(0);
    let most = if plan.customers > 100_000 { 48 } else { 32 };
    println!("{:<60} {:>6.1}  (target {most})", "MiB at most, import and unchanged", memory as f64 / 1024.0);
    let wal = rounds.iter().map(|round| round.wal_bytes).max().unwrap_or(0);
    println!(
        "{:<60} {:>6.1}  (target 64)",
        "KiB that an unchanged sweep adds to the WAL",
        wal as f64 / 1024.0
    );
}

fn round(plan: &Plan, sandbox: &Sandbox) -> Round {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let client = run(floors::command(&[
        "client",
        &sandbox.url,
        &plan.pages().to_string(),
        &plan.in_flight.to_string(),
    ]));
    let inserts = run(floors::command(&["inserts", &plan.customers.to_string(), &text(&at("floor.db"))]));
    let bare = run(floors::command(&["bare", &plan.customers.to_string(), &text(&at("bare.db"))]));
    let config = configure(directory.path(), plan, &sandbox.url);
    let sync = || process::komoju_sync(&["--config", &text(&config), "sync"]);
    let import = run(sync());
    let wal = at("komoju.db-wal");
    let (unchanged, wal_bytes) = process::run_watching(sync(), Some(&wal));
    Round { client, inserts, bare, import, unchanged, wal_bytes }
}

/// Writes a configuration without a rate limit.
fn configure(directory: &Path, plan: &Plan, url: &str) -> PathBuf {
    let config = directory.join("config.toml");
    let content = format!(
        "[api]\nbase_url = \"{url}\"\nper_page = {}\nmax_concurrent_requests = {}\n[rate_limit]\nrequests_per_second = 0\n\
         [database]\npath = '{}'\n[outbound]\nspool_dir = '{}'\n[log]\nlevel = \"error\"\n",
        Plan::PER_PAGE,
        plan.in_flight,
        directory.join("komoju.db").display(),
        directory.join("spool").display()
    );
    std::fs::write(&config, content).unwrap();
    config
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
