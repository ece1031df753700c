//! `demo`: the whole product in a temporary directory, told as it happens.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::exit::UsageError;
use super::print::{self, count, plain};
use super::signals::{self, Scratch};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::App;
use crate::store::log::mirror::{self, Among};
use crate::store::outbox::accept;
use crate::store::outbox::queue::{self, Which};
use crate::store::read::{self, ChangeFilter, Record};
use crate::store::{Reader, StoreError, write_beside};
use komoju_core::intent::Intent;
use komoju_core::{Diff, time};
use komoju_sandbox::{Options, Sandbox};

/// How many customers the demo's shop has at the start.
const CUSTOMERS: u32 = 120;

/// How long the shop rests between two changes.
const SHOP_RESTS: Duration = Duration::from_millis(1500);

/// How often the demo looks what the daemon has recorded.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A local KOMOJU and the daemon in a temporary directory: customers come, change and go, an office drops an intent by each door, and
/// you see what is recorded and what becomes of it.
/// Needs no account; everything is removed at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync demo --for 20s")]
pub(super) struct Args {
    /// How long: 20s, 5m, … Ctrl-C ends it earlier.
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    length: Duration,
}

fn parse_duration(text: &str) -> Result<Duration, UsageError> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|length| Duration::try_from(length).ok());
    parsed.ok_or_else(|| UsageError("a length of time looks like 20s or 5m".to_owned()))
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let directory = Scratch::new("komoju-sync-demo-")?;
    let result = signals::until_stopped(Exit::Failed, |stop| demo(directory.path(), args.length, stop));
    directory.close()?;
    result?;
    tell("the demo is over; its directory is removed")?;
    Ok(Exit::Fine)
}

async fn demo(directory: &Path, length: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { customers: CUSTOMERS, ..Options::default() }).await?;
    let config = configure(directory, &sandbox)?;
    let database = &config.database.path;
    tell(&format!("a local KOMOJU with {} listens on {}", count(CUSTOMERS, "customer"), sandbox.base_url()))?;
    tell(&format!("the daemon keeps its mirror in {}", database.display()))?;

    let clock = SystemClock::shared();
    let app = App::start(&config, "demo", clock.clone(), stop.clone()).await?;
    let over = clock.elapsed() + length;
    let mut shop = Shop { rng: StdRng::seed_from_u64(1), next_at: clock.elapsed() + SHOP_RESTS * 2 };
    let mut office = Office { doors: DOORS.into(), next_at: clock.elapsed() + SHOP_RESTS };
    let mut witness = Witness::default();
    let story = async {
        let reader = Reader::open(database)?;
        while clock.elapsed() < over && !stop.is_cancelled() {
            witness.tell_news(&reader)?;
            if witness.told_import && clock.elapsed() >= shop.next_at {
                shop.change(&sandbox)?;
                shop.next_at = clock.elapsed() + SHOP_RESTS;
            }
            if witness.told_import && clock.elapsed() >= office.next_at {
                office.drop_intent(&config, &reader)?;
                office.next_at = clock.elapsed() + SHOP_RESTS;
            }
            witness.tell_outcomes(&reader)?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
        stop.cancel();
        anyhow::Ok(())
    };
    let (ran, told) = tokio::join!(app.run(&config, std::future::pending), story);
    // What went wrong in the story stops the daemon too, so its error comes first.
    told?;
    ran?;
    tell_end(&Reader::open(database)?)?;
    sandbox.stop().await;
    Ok(())
}

/// Writes the demo's configuration and reads it back as anybody's would be.
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
         [database]\npath = {}\n[outbound]\nspool_dir = {}\n[inbound]\nsweep_cron = \"*/2 * * * * *\"\nprobe_cron = \"*/2 * * * * *\"\nconsistency_s = 0\n",
        sandbox.base_url(),
        quoted(&key_file),
        quoted(&directory.join("komoju.db")),
        quoted(&directory.join("intents")),
    );
    let file = directory.join("config.toml");
    std::fs::write(&file, &text)?;
    Ok(Config::load(&file)?)
}

/// The shop whose customers these are.
struct Shop {
    rng: StdRng,
    next_at: Duration,
}

impl Shop {
    fn change(&mut self, sandbox: &Sandbox) -> io::Result<()> {
        let change = sandbox.world().trickle(&mut self.rng);
        let who = print::safe(change["id"].as_str().unwrap_or_default());
        let email = change["customer"]["email"].as_str().map(print::safe);
        let named = email.map(|email| format!(" ({email})")).unwrap_or_default();
        let what = match change["op"].as_str() {
            Some("create") => "a customer comes",
            Some("delete") => "a customer goes",
            _ => "a customer changes",
        };
        tell(&format!("KOMOJU   {what}: {who}{named}"))
    }
}

/// The back office, which drops one intent by each door.
struct Office {
    doors: VecDeque<Door>,
    next_at: Duration,
}

#[derive(Clone, Copy)]
enum Door {
    Sql,
    File,
    CommandLine,
}

const DOORS: [Door; 3] = [Door::Sql, Door::File, Door::CommandLine];

impl Office {
    fn drop_intent(&mut self, config: &Config, reader: &Reader) -> anyhow::Result<()> {
        let Some(door) = self.doors.pop_front() else { return Ok(()) };
        let somebody = reader.look(|conn| mirror::live_from(conn, 20, 1, Among::All))?;
        let Some(customer) = somebody.first() else { return Ok(()) };
        match door {
            Door::Sql => {
                let body = r#"{"email": "new.address@example.com"}"#;
                tell(&format!(
                    "office   INSERT INTO intents (op, customer_id, body) VALUES ('update', '{}', '{body}')",
                    print::safe(customer.as_str())
                ))?;
                write_beside(&config.database.path, |tx| {
                    accept::insert(tx, "update", Some(customer), Some(body))
                })?;
            }
            Door::File => {
                let directory = &config.outbound.spool_dir;
                let intent = r#"{"op": "create", "body": {"email": "welcome@example.com", "payment_details": "tok_demo"}}"#;
                // A name that begins with a dot is left alone until the file is whole.
                std::fs::write(directory.join(".welcome.json"), intent)?;
                std::fs::rename(directory.join(".welcome.json"), directory.join("welcome.json"))?;
                tell(&format!(
                    "office   {}: {}",
                    directory.join("welcome.json").display(),
                    intent.replace("tok_demo", "****")
                ))?;
            }
            Door::CommandLine => {
                tell(&format!(
                    "office   komoju-sync intent delete {} --id goodbye",
                    print::safe(customer.as_str())
                ))?;
                let intent = Intent::parse(
                    &json!({"op": "delete", "customer_id": customer.as_str(), "id": "goodbye"}).to_string(),
                )?;
                write_beside(&config.database.path, |tx| {
                    accept::accept(tx, &intent, accept::Door::Cli, None)
                })?;
            }
        }
        Ok(())
    }
}

/// Tells what the daemon has recorded.
#[derive(Default)]
struct Witness {
    seq: i64,
    told_import: bool,
    /// What was last told of each intent.
    told: BTreeMap<String, String>,
}

impl Witness {
    fn tell_news(&mut self, reader: &Reader) -> anyhow::Result<()> {
        if !self.told_import {
            let info = read::mirror_info(reader)?;
            if info.text("last_sweep_at").is_none() {
                return Ok(());
            }
            self.told_import = true;
            self.seq = info.number("head_seq");
            tell(&format!(
                "mirror   the first sweep recorded {}",
                count(info.number("live") as u64, "customer")
            ))?;
            return Ok(invite(reader)?);
        }
        let filter = ChangeFilter { since: self.seq, ..ChangeFilter::default() };
        print::printing(|check| {
            read::changes(reader, &filter, |record| {
                self.seq = self.seq.max(record.number("seq"));
                check(tell(&format!("mirror   {}", recorded(&record))))
            })
        })
    }
}

impl Witness {
    /// What became of the office's intents.
    fn tell_outcomes(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let told = &mut self.told;
        print::printing(|check| {
            reader.look(|conn| {
                queue::intents(conn, Which::All, |record| {
                    let [id, state, op, door] =
                        ["id", "state", "op", "door"].map(|name| plain(record.get(name)));
                    if told.insert(id.clone(), state.clone()).as_ref() == Some(&state) {
                        return Ok(());
                    }
                    let change = match record.number("change_seq") {
                        0 => String::new(),
                        seq => format!(": change {seq}"),
                    };
                    check(tell(&format!("outbox   {op} by {door}, {id}, is {state}{change}")))
                })
            })
        })
    }
}

fn recorded(record: &Record) -> String {
    let [seq, kind, id, origin] =
        ["seq", "kind", "customer_id", "origin"].map(|name| plain(record.get(name)));
    let fields = |name: &str| record.get(name).as_object().cloned().unwrap_or_default();
    let diff = match record.text("kind") {
        Some("updated") => {
            format!(": {}", print::safe(&Diff::between(&fields("before"), &fields("after")).to_string()))
        }
        _ => email_of(&fields(if record.get("after").is_null() { "before" } else { "after" })),
    };
    format!("change {seq}: {kind} by {origin}: {id}{diff}")
}

fn email_of(fields: &Map<String, Value>) -> String {
    fields
        .get("email")
        .and_then(Value::as_str)
        .map(|email| format!(" ({})", print::safe(email)))
        .unwrap_or_default()
}

/// SQL to paste, with the path in it.
fn invite(reader: &Reader) -> Result<(), StoreError> {
    let path = reader.path().unwrap_or_default().to_owned();
    let text = format!(
        "\nPaste into a second terminal, while this runs:\n\n  \
         sqlite3 -readonly -box {path} \"SELECT id, email, source_brand, created_at FROM customers LIMIT 5\"\n  \
         sqlite3 -readonly -box {path} \"SELECT strftime('%Y-%m', created_at) AS month, count(*) FROM customers GROUP BY 1\"\n  \
         sqlite3 -readonly -box {path} \"SELECT seq, kind, customer_id, diff FROM changes ORDER BY seq DESC LIMIT 5\"\n  \
         sqlite3 -cmd '.timeout 5000' {path} \"INSERT INTO intents (op, body) VALUES ('create', json_object('email', 'me@example.com'))\"\n  \
         sqlite3 -readonly -box {path} \"SELECT id, op, door, state, reason FROM intents\"\n"
    );
    // A terminal that is gone is noticed by the next line of the story.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(())
}

fn tell_end(reader: &Reader) -> anyhow::Result<()> {
    let info = read::mirror_info(reader)?;
    let (live, deleted) = (count(info.number("live") as u64, "customer"), info.number("deleted"));
    let verified = crate::store::log::verify::verify(reader, None)?;
    tell(&format!(
        "mirror   ends with {live} and {deleted} deleted; its {} fold to it with {}",
        count(verified.entries, "change"),
        count(verified.finding_count, "finding")
    ))?;
    Ok(())
}

fn tell(text: &str) -> io::Result<()> {
    let at = time::written(SystemClock::new().now());
    writeln!(io::stdout(), "{}  {text}", at.get(11..19).unwrap_or_default())
}
