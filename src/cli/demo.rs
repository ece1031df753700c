//! `demo`: the whole product in a temporary directory, with a report of what happens.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::exit::UsageError;
use super::print::{self, count, plain, safe};
use super::signals::{self, Scratch};
use super::{Exit, change_lines};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::App;
use crate::daemon::status::Status;
use crate::store::log::mirror::{self, LiveFilter};
use crate::store::outbox::accept;
use crate::store::outbox::queue::{self, IntentFilter};
use crate::store::read::{self, ChangeFilter};
use crate::store::{Reader, write_as_operator};
use komoju_core::intent::Intent;
use komoju_core::time;
use komoju_sandbox::{Options, Sandbox};

/// CUSTOMERS is the number of customers at the start.
const CUSTOMERS: u32 = 120;

/// CHANGE_EVERY controls how often an intent is dropped and a customer changes.
const CHANGE_EVERY: Duration = Duration::from_millis(1500);

/// LOOK_EVERY controls how often the demo reads what the daemon has recorded.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// WELCOME is the intent that is dropped as a file.
const WELCOME: &str =
    r#"{"op": "create", "body": {"email": "welcome@example.com", "payment_details": "tok_demo"}}"#;

/// Run sandbox and daemon in a temporary directory, with a few changes: a first look.
///
/// Customers are created, changed and deleted, one intent is dropped by each door, and the demo
/// prints what is recorded. It needs no account, and removes everything at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync demo --for 20s")]
pub(super) struct DemoArgs {
    /// How long the demo runs, such as 20s or 5m; Ctrl-C ends it earlier.
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    length: Duration,
}

fn parse_duration(text: &str) -> Result<Duration, UsageError> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|length| Duration::try_from(length).ok());
    parsed.ok_or_else(|| UsageError("a length of time looks like 20s or 5m".to_owned()))
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let directory = Scratch::new("komoju-sync-demo-")?;
    let result = signals::until_stopped(Exit::Failed, |stop| demo(directory.path(), args.length, stop));
    directory.close()?;
    result?;
    say("the demo is over; its directory is removed")?;
    Ok(Exit::Fine)
}

async fn demo(directory: &Path, length: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { customers: CUSTOMERS, ..Options::default() }).await?;
    let config = configure(directory, &sandbox)?;
    let database = &config.database.path;
    say(&format!("a local KOMOJU with {} listens on {}", count(CUSTOMERS, "customer"), sandbox.base_url()))?;
    say(&format!("the daemon keeps its mirror in {}", database.display()))?;

    let clock = SystemClock::shared();
    let app = App::start(&config, "demo", clock.clone(), stop.clone()).await?;
    let scenario = async {
        let mut scenario = Scenario::new(&config, &sandbox)?;
        let began = clock.elapsed();
        while clock.elapsed() < began + length && !stop.is_cancelled() {
            scenario.step(clock.elapsed() - began)?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
        stop.cancel();
        anyhow::Ok(())
    };
    let (ran, scenario) = tokio::join!(app.run(&config, std::future::pending), scenario);
    // An error of the scenario stops the daemon too, so it is reported first.
    scenario?;
    ran?;
    report_end(&Reader::open(database)?, &config)?;
    sandbox.stop().await;
    Ok(())
}

/// Writes the demo's configuration, and reads it as every command does.
fn configure(directory: &Path, sandbox: &Sandbox) -> anyhow::Result<Config> {
    let key_file = directory.join("secret-key");
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&key_file)?
        .write_all(sandbox.key().as_bytes())?;
    let quoted = |path: &Path| Value::from(path.to_string_lossy()).to_string();
    let text = format!(
        "[api]\nbase_url = \"{}\"\nsecret_key_file = {}\n[rate_limit]\nrequests_per_second = 0\n\
         [database]\npath = {}\n[outbound]\nspool_dir = {}\n[inbound]\nsweep_cron = \"*/15 * * * * *\"\nprobe_cron = \"*/15 * * * * *\"\nconsistency_s = 0\n\
         [events]\nfastest_s = 1\n",
        sandbox.base_url(),
        quoted(&key_file),
        quoted(&directory.join("komoju.db")),
        quoted(&directory.join("intents")),
    );
    let file = directory.join("config.toml");
    std::fs::write(&file, &text)?;
    Ok(Config::load(&file)?)
}

/// Changes customers, drops an intent by each door, and reports what the daemon records.
struct Scenario<'a> {
    config: &'a Config,
    sandbox: &'a Sandbox,
    reader: Reader,
    rng: StdRng,
    /// The seq of the last reported change; none before the first complete sweep.
    seq: Option<i64>,
    /// The last reported state of each intent.
    reported: BTreeMap<String, String>,
    /// How many intents were dropped, each by another door.
    dropped: u8,
    next_at: Duration,
}

impl<'a> Scenario<'a> {
    fn new(config: &'a Config, sandbox: &'a Sandbox) -> anyhow::Result<Self> {
        Ok(Self {
            config,
            sandbox,
            reader: Reader::open(&config.database.path)?,
            rng: StdRng::seed_from_u64(1),
            seq: None,
            reported: BTreeMap::new(),
            dropped: 0,
            next_at: CHANGE_EVERY,
        })
    }

    /// Does what is due. `now` is the time since the start.
    fn step(&mut self, now: Duration) -> anyhow::Result<()> {
        match self.seq {
            Some(seq) => self.report_changes(seq)?,
            None => self.report_import()?,
        }
        if self.seq.is_some() && now >= self.next_at {
            self.drop_intent()?;
            self.change_customer()?;
            self.next_at = now + CHANGE_EVERY;
        }
        self.report_outcomes()
    }

    fn change_customer(&mut self) -> anyhow::Result<()> {
        let change = self.sandbox.world().trickle(&mut self.rng);
        let [op, id, email] =
            ["/op", "/id", "/customer/email"].map(|part| plain(change.pointer(part).unwrap_or(&Value::Null)));
        Ok(say(&format!("KOMOJU   {op} of customer {id} {email}"))?)
    }

    /// Drops an intent by the next door: SQL, a file, the command line.
    fn drop_intent(&mut self) -> anyhow::Result<()> {
        let customers = self.reader.query(|conn| mirror::live_from(conn, 20, 1, LiveFilter::All))?;
        let Some(customer) = customers.first() else { return Ok(()) };
        let (id, database) = (safe(customer.as_str()), &self.config.database.path);
        self.dropped = self.dropped.saturating_add(1);
        match self.dropped {
            1 => {
                let body = r#"{"email": "new.address@example.com"}"#;
                let insert = "INSERT INTO intents (op, customer_id, body) VALUES";
                say(&format!("intent   {insert} ('update', '{id}', '{body}')"))?;
                write_as_operator(database, |tx| accept::insert(tx, "update", Some(customer), Some(body)))?;
            }
            2 => {
                let spool = &self.config.outbound.spool_dir;
                let file = spool.join("welcome.json");
                say(&format!("intent   {}: {}", file.display(), WELCOME.replace("tok_demo", "****")))?;
                // The daemon ignores names that begin with a dot, so it never reads a part of a
                // file.
                std::fs::write(spool.join(".welcome.json"), WELCOME)?;
                std::fs::rename(spool.join(".welcome.json"), file)?;
            }
            3 => {
                say(&format!("intent   komoju-sync intent delete {id} --id goodbye"))?;
                let intent = json!({"op": "delete", "customer_id": customer.as_str(), "id": "goodbye"});
                let intent = Intent::parse(&intent.to_string())?;
                write_as_operator(database, |tx| accept::accept(tx, &intent, accept::Door::Cli, None))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reports the first complete sweep.
    fn report_import(&mut self) -> anyhow::Result<()> {
        let info = read::mirror_info(&self.reader)?;
        if info.text("last_sweep_at").is_some() {
            self.seq = Some(info.number("head_seq"));
            let live = count(info.number("live").unsigned_abs(), "customer");
            say(&format!("mirror   the first sweep recorded {live}"))?;
            invite(self.config);
        }
        Ok(())
    }

    /// Reports the changes since `seq`.
    fn report_changes(&mut self, seq: i64) -> anyhow::Result<()> {
        let filter = ChangeFilter { since: seq, ..ChangeFilter::default() };
        print::printing(|check| {
            read::changes(&self.reader, &filter, |record| {
                self.seq = self.seq.max(Some(record.number("seq")));
                check(say(&format!("mirror   {}", change_lines::line(&record).trim_start())))
            })
        })
    }

    /// Reports the intents that have a new state.
    fn report_outcomes(&mut self) -> anyhow::Result<()> {
        let Self { reader, reported, .. } = self;
        print::printing(|check| {
            reader.query(|conn| {
                queue::intents(conn, IntentFilter::All, |record| {
                    let [id, state, op, door] =
                        ["id", "state", "op", "door"].map(|name| plain(record.get(name)));
                    if reported.insert(id.clone(), state.clone()).as_ref() == Some(&state) {
                        return Ok(());
                    }
                    let seq = plain(record.get("change_seq"));
                    let change = if seq.is_empty() { seq } else { format!(": change {seq}") };
                    check(say(&format!("outbox   {op} by {door}, {id}, is {state}{change}")))
                })
            })
        })
    }
}

/// Prints SQL commands to paste, with the path of the database.
fn invite(config: &Config) {
    let path = config.database.path.display();
    let read = format!("sqlite3 -readonly -box {path}");
    // If standard output is closed, the next line of the scenario reports it.
    let _ = writeln!(
        io::stdout(),
        "\nPaste into a second terminal, while this runs:\n\n  \
         {read} \"SELECT id, email, source_brand, created_at FROM customers LIMIT 5\"\n  \
         {read} \"SELECT strftime('%Y-%m', created_at) AS month, count(*) FROM customers GROUP BY 1\"\n  \
         {read} \"SELECT seq, kind, customer_id, diff FROM changes ORDER BY seq DESC LIMIT 5\"\n  \
         sqlite3 -cmd '.timeout 5000' {path} \"INSERT INTO intents (op, body) VALUES ('create', json_object('email', 'me@example.com'))\"\n  \
         {read} \"SELECT id, op, door, state, reason FROM intents\"\n"
    );
}

fn report_end(reader: &Reader, config: &Config) -> anyhow::Result<()> {
    if let Some(sentence) = Status::read(reader, config, SystemClock::new().now())?.events.sentence() {
        say(&format!("events   {sentence}"))?;
    }
    let info = read::mirror_info(reader)?;
    let (live, deleted) = (count(info.number("live").unsigned_abs(), "customer"), info.number("deleted"));
    let verified = crate::store::log::verify::verify(reader, None)?;
    say(&format!(
        "mirror   ends with {live} and {deleted} deleted; its {} fold to it with {}",
        count(verified.entries, "change"),
        count(verified.finding_count, "finding")
    ))?;
    Ok(())
}

fn say(text: &str) -> io::Result<()> {
    let at = time::written(SystemClock::new().now());
    writeln!(io::stdout(), "{}  {text}", at.get(11..19).unwrap_or_default())
}
