//! How soon a change at KOMOJU is in the mirror: the daemon with its default pace follows a local
//! KOMOJU while customers change, and the time from each change to its entry in the change log is
//! printed. After the changes the daemon is watched for as long as asked, to count its requests.
//!
//! `cargo bench --bench freshness -- --customers 100000 --changes 1000 --minutes 10 --quiet-minutes
//! 15`

#![expect(clippy::unwrap_used, reason = "a panic ends a measurement that cannot continue")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "the measurement lasts real time")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;
use komoju_sandbox::readings::EventAnswers;
use komoju_sandbox::{Options, Readings, Sandbox};
use komoju_sync::store::Reader;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tempfile::TempDir;

/// Measures how soon changes at KOMOJU are in the mirror
#[derive(Parser, Clone, Debug)]
#[command(bin_name = "cargo bench --bench freshness --")]
struct Plan {
    /// How many customers there are at the start
    #[arg(long, value_name = "N", default_value_t = 2000)]
    customers: u32,
    /// How many customers change: 60 % are updated, 10 % deleted, 30 % created
    #[arg(long, value_name = "N", default_value_t = 30)]
    changes: usize,
    /// Over how many minutes the changes are spread
    #[arg(long, value_name = "MINUTES", default_value_t = 0.5)]
    minutes: f64,
    /// For how many minutes after the changes the requests are counted
    #[arg(long, value_name = "MINUTES", default_value_t = 0.5)]
    quiet_minutes: f64,
    /// Deliver a webhook for each event, as well as the event list
    #[arg(long)]
    webhook: bool,
    /// Answer the event list with 404, so that only sweeps, probes and webhooks find changes
    #[arg(long)]
    without_events: bool,
    /// The seed of all choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long the last changes may take to be in the mirror.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// QUIET_AFTER controls when the pace of a quiet list is counted: ten minutes, as the daemon does.
const QUIET_AFTER: Duration = Duration::from_secs(600);

/// The secret of the webhook.
const WEBHOOK_SECRET: &str = "a secret for one measurement";

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Created,
    Updated,
    Deleted,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Created, Self::Updated, Self::Deleted];

    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// A change that was made at KOMOJU.
struct Change {
    customer: String,
    kind: Kind,
    at: Timestamp,
}

fn main() {
    let plan = Plan::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let event_answers = if plan.without_events { EventAnswers::Json404 } else { EventAnswers::Events };
    let readings = Readings { event_answers, ..Readings::default() };
    let options = Options { customers: plan.customers, seed: plan.seed, readings, ..Options::default() };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let directory = TempDir::new().unwrap();
    let webhook = format!("unix:{}", directory.path().join("webhook.socket").display());
    write_config(directory.path(), &sandbox, "requests_per_second = 0", "");
    import(directory.path(), &sandbox);
    let table = if plan.webhook { format!("[webhook]\nlisten = \"{webhook}\"\n") } else { String::new() };
    write_config(directory.path(), &sandbox, "", &table);
    let mut daemon = start(directory.path(), &sandbox, &["run"]);
    // The first reading of the event list sets the cursor.
    wait_until(Duration::from_secs(30), || {
        sandbox.world().requests().iter().any(|seen| seen.path.ends_with("/events"))
    });
    if plan.webhook {
        let _runtime = runtime.enter();
        sandbox.register_webhook(&format!("{webhook}:/komoju"), WEBHOOK_SECRET, &[]).unwrap();
    }
    let changes = change(&plan, &sandbox);
    let settled = wait_until(SETTLES_WITHIN, || latencies(directory.path(), &changes).len() == changes.len());
    report(&plan, directory.path(), &changes, settled);
    count_requests(&plan, &sandbox, changes.last().map_or(Timestamp::MIN, |change| change.at));
    komoju_testkit::signal("TERM", daemon.id());
    let ended = daemon.wait().unwrap();
    assert!(ended.success() && settled, "{ended}; settled: {settled}");
}

fn database(directory: &Path) -> PathBuf {
    directory.join("komoju.db")
}

/// Writes the default configuration, apart from addresses, `rate_limit` and `webhook`.
fn write_config(directory: &Path, sandbox: &Sandbox, rate_limit: &str, webhook: &str) {
    let text = format!(
        "[api]\nbase_url = \"{}\"\n[rate_limit]\n{rate_limit}\n[database]\npath = '{}'\n[outbound]\nspool_dir = '{}'\n{webhook}",
        sandbox.base_url(),
        database(directory).display(),
        directory.join("spool").display(),
    );
    std::fs::write(directory.join("config.toml"), text).unwrap();
}

fn start(directory: &Path, sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_komoju-sync"))
        .env("KOMOJU_SECRET_KEY", sandbox.key())
        .env("KOMOJU_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .arg("--config")
        .arg(directory.join("config.toml"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Imports all customers without a rate limit.
fn import(directory: &Path, sandbox: &Sandbox) {
    let ended = start(directory, sandbox, &["sync"]).wait().unwrap();
    assert!(ended.success(), "{ended}");
    sandbox.world().clear_requests();
}

/// Changes customers at KOMOJU, each one once, at random moments.
fn change(plan: &Plan, sandbox: &Sandbox) -> Vec<Change> {
    let mut dice = StdRng::seed_from_u64(plan.seed);
    let mut ids = sandbox.world().ids();
    ids.shuffle(&mut dice);
    let mut moments: Vec<Duration> = (0..plan.changes)
        .map(|_| Duration::from_secs_f64(dice.random_range(0.0..plan.minutes * 60.0)))
        .collect();
    moments.sort_unstable();
    let began = Instant::now();
    let mut changes = Vec::new();
    for moment in moments {
        std::thread::sleep(moment.saturating_sub(began.elapsed()));
        let email = format!("fresh-{}@example.jp", dice.random::<u32>());
        let mut world = sandbox.world();
        let kind = match dice.random_range(0..10) {
            0..6 => Kind::Updated,
            6 => Kind::Deleted,
            _ => Kind::Created,
        };
        let customer = match kind {
            Kind::Created => world.create(json!({ "email": email, "metadata": {} })),
            Kind::Updated | Kind::Deleted => ids.pop().unwrap(),
        };
        match kind {
            Kind::Created => {}
            Kind::Updated => assert!(world.update(&customer, json!({ "email": email }))),
            Kind::Deleted => assert!(world.delete(&customer)),
        }
        changes.push(Change { customer, kind, at: Timestamp::now() });
    }
    changes
}

/// Returns the seconds from each change to its entry in the log, for those that have one.
fn latencies(directory: &Path, changes: &[Change]) -> Vec<(Kind, f64)> {
    let reader = Reader::open(&database(directory)).unwrap();
    let logged: HashMap<(String, String), String> = reader
        .query(|conn| {
            let mut statement = conn.prepare(
                "SELECT customer_id, kind, min(observed_at) FROM change_log
                 WHERE seq > (SELECT counted_from FROM event_state) GROUP BY customer_id, kind",
            )?;
            let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .unwrap_or_default();
    let latency = |change: &Change| {
        let at: Timestamp =
            logged.get(&(change.customer.clone(), change.kind.word().to_owned()))?.parse().ok()?;
        Some((change.kind, at.duration_since(change.at).as_secs_f64().max(0.0)))
    };
    changes.iter().filter_map(latency).collect()
}

fn report(plan: &Plan, directory: &Path, changes: &[Change], settled: bool) {
    let found = latencies(directory, changes);
    println!(
        "{} of {} changes are in the mirror; {} customers, {} minutes{}",
        found.len(),
        changes.len(),
        plan.customers,
        plan.minutes,
        if settled { "" } else { "; NOT all in time" }
    );
    let line = |name: &str, mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (seconds.len() as f64 * share) as usize;
            seconds.get(place.min(seconds.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        println!(
            "{name:8} {:5} changes   p50 {:6.1} s   p95 {:6.1} s   max {:6.1} s",
            seconds.len(),
            at(0.5),
            at(0.95),
            at(1.0)
        );
    };
    line("all", found.iter().map(|(_, seconds)| *seconds).collect());
    for kind in Kind::ALL {
        line(
            kind.word(),
            found.iter().filter(|(found, _)| *found == kind).map(|(_, seconds)| *seconds).collect(),
        );
    }
}

/// Counts the requests of the daemon after the last change, by minute.
fn count_requests(plan: &Plan, sandbox: &Sandbox, last: Timestamp) {
    std::thread::sleep(Duration::from_secs_f64(plan.quiet_minutes * 60.0));
    let now = Timestamp::now();
    let quiet = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    let counted_from = if quiet > QUIET_AFTER { QUIET_AFTER } else { Duration::ZERO };
    let minutes = (quiet - counted_from).as_secs_f64() / 60.0;
    let world = sandbox.world();
    let after = world.requests().iter().filter(|seen| {
        Duration::try_from(seen.at.duration_since(last)).is_ok_and(|after| after >= counted_from)
    });
    let (mut events, mut probes, mut others) = (0_u32, 0_u32, 0_u32);
    for seen in after {
        match seen.path.as_str() {
            path if path.ends_with("/events") => events += 1,
            path if path.ends_with("/customers") && seen.query.contains("start_time") => probes += 1,
            _ => others += 1,
        }
    }
    println!(
        "requests in {minutes:.1} minutes, from {:.0} minutes after the last change: {events} for events, {probes} of probes \
         ({:.1} a minute), {others} others",
        counted_from.as_secs_f64() / 60.0,
        f64::from(events + probes) / minutes
    );
}

/// Waits until this is true; returns whether it became so in time.
fn wait_until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < within {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("not in {} s", within.as_secs());
    false
}
