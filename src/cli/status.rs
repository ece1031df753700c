//! `status`: how things stand, from the database alone.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::print::{self, Out, Style, count, grouped, plain};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Outbound};
use crate::model::intent::lifecycle::State;
use crate::model::{PassKind, time};
use crate::store::read::Record;
use crate::store::{Instance, Reader, StoreError, account, holds, intents, outbox, read};

/// How things stand: the last complete sweep and its age, what runs now, and what waits for a person.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync status\n  komoju-sync status --json | jq .last_sweep_age_s\n\n\
    Exits 1 when no complete sweep exists or the last is older than three of its periods, 3 when something waits for a \
    person, 4 when the key is refused."
)]
pub(super) struct Args {
    #[command(flatten)]
    style: Style,
}

/// What `status --json` prints.
#[derive(Debug, Serialize)]
struct Status {
    /// Who works on the database, and since when; null where nobody does.
    instance: Option<String>,
    /// The one row of `mirror_info`.
    mirror: Record,
    /// Seconds since the last complete sweep ended; null where there is none.
    last_sweep_age_s: Option<i64>,
    /// Whether that is longer ago than three periods of `inbound.sweep_cron`.
    stale: bool,
    /// The pass that runs now, with `last_page`.
    running: Option<Record>,
    /// Seconds that the running pass may still take; null while that is unknown.
    time_left_s: Option<i64>,
    /// The last sweep, however it ended.
    last_sweep: Option<Record>,
    /// The last probe, however it ended.
    last_probe: Option<Record>,
    /// Until when the API asked us to wait; null when that is over.
    throttled_until: Option<String>,
    /// Since when the API refuses the key.
    key_refused_since: Option<String>,
    /// Since when everything waits because the key reads another account.
    account_stopped_since: Option<String>,
    /// Deletions that wait for a person.
    held_deletions: u64,
    /// Deletions that a person approved and that no answer has proven yet.
    approved_deletions: u64,
    /// Deletions that a person rejected; those customers were not seen since.
    rejected_deletions: u64,
    /// The intents by state; all states are named.
    intents: BTreeMap<&'static str, Intents>,
    /// Delete intents that wait for a person because there are too many of them.
    held_deletes: u64,
    /// Whether anything is pushed and accepted, as of the last start of `run` or `sync`.
    outbound_enabled: bool,
    /// The files that lie in `outbound.spool_dir` while pushing is switched off; otherwise the daemon takes them.
    spool_files: Vec<String>,
}

/// The intents in one state.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Intents {
    /// Of a state in which something is still to come.
    Open {
        count: u64,
        /// The id of the one that was accepted first, when that was, and why it is where it is.
        oldest: Option<String>,
        oldest_created_at: Option<String>,
        oldest_reason: Option<String>,
    },
    /// Of a state that is the end.
    Settled { count: u64 },
}

impl Intents {
    fn count(&self) -> u64 {
        match self {
            Self::Open { count, .. } | Self::Settled { count } => *count,
        }
    }
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let path = &config.database.path;
    let reader = match Reader::open(path) {
        Err(StoreError::Missing(_)) if !args.style.is_json() => {
            print::note(&StoreError::Missing(path.clone()).to_string());
            return Ok(Exit::Failed);
        }
        Err(StoreError::Missing(path)) => {
            let mut out = Out::new();
            out.json(&serde_json::json!({"mirror": null, "missing": path, "stale": true}))?;
            out.finish()?;
            return Ok(Exit::Failed);
        }
        other => other?,
    };
    let now = SystemClock::new().now();
    let status = reader.in_one_view(|_| collect(&reader, &config, path, now))?;
    let mut out = Out::new();
    match args.style.is_json() {
        true => out.json(&status)?,
        false => print(&mut out, &status)?,
    }
    out.finish()?;
    Ok(status.exit())
}

fn collect(reader: &Reader, config: &Config, path: &Path, now: Timestamp) -> Result<Status, StoreError> {
    let mirror = read::mirror_info(reader)?;
    let swept_at = mirror.text("last_sweep_at").and_then(time::read);
    let third_tick = swept_at.and_then(|at| config.inbound.sweep_cron.nth_after(at, 3));
    let (refused, throttled) = read::obstacles(reader)?;
    let instance = Instance::holder(path)?;
    // A pass without an instance is one that was cut off; the next start closes it.
    let running = instance.as_ref().and(read::running_pass(reader)?);
    let outbound_enabled = outbox::is_enabled(reader)?;
    Ok(Status {
        intents: count_intents(reader)?,
        held_deletes: outbox::held_deletes(reader)?,
        outbound_enabled,
        spool_files: if outbound_enabled { Vec::new() } else { files_left(&config.outbound) },
        last_sweep_age_s: swept_at.map(|at| now.as_second() - at.as_second()),
        stale: swept_at.is_none() || third_tick.is_some_and(|tick| tick < now),
        time_left_s: running.as_ref().and_then(|pass| time_left(pass, now)),
        running,
        instance,
        mirror,
        last_sweep: read::last_pass(reader, PassKind::Sweep)?,
        last_probe: read::last_pass(reader, PassKind::Probe)?,
        throttled_until: throttled.filter(|until| time::read(until).is_some_and(|until| until > now)),
        key_refused_since: refused,
        account_stopped_since: account::load(reader)?.and_then(|account| account.stopped).map(|(_, at)| at),
        held_deletions: holds::held_count(reader)?,
        approved_deletions: holds::approved_count(reader)?,
        rejected_deletions: holds::rejected_count(reader)?,
    })
}

fn count_intents(reader: &Reader) -> Result<BTreeMap<&'static str, Intents>, StoreError> {
    let open = intents::count_open(reader)?;
    let settled = intents::count_settled(reader)?;
    let of = |state: State| match state.is_settled() {
        true => Intents::Settled {
            count: settled.iter().find(|(word, _)| word == state.word()).map_or(0, |(_, count)| *count),
        },
        false => {
            let counted = open.iter().find(|counted| counted.state == state.word());
            Intents::Open {
                count: counted.map_or(0, |counted| counted.count),
                oldest: counted.map(|counted| counted.oldest.clone()),
                oldest_created_at: counted.map(|counted| counted.oldest_created_at.clone()),
                oldest_reason: counted.and_then(|counted| counted.oldest_reason.clone()),
            }
        }
    };
    Ok(State::ALL.into_iter().map(|state| (state.word(), of(state))).collect())
}

/// What nobody takes while pushing is switched off. A directory that is not there holds nothing.
fn files_left(outbound: &Outbound) -> Vec<String> {
    let entries = std::fs::read_dir(&outbound.spool_dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let mut names: Vec<String> =
        files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn time_left(pass: &Record, now: Timestamp) -> Option<i64> {
    // By this process's own pace: what an earlier one did says nothing of the time between.
    let (pages, last_page) = (pass.number("pages"), pass.number("last_page"));
    let done = pages - pass.number("since_pages");
    let began = pass.text("since_at").and_then(time::read)?;
    let spent = now.as_millisecond() - began.as_millisecond();
    (done > 0 && last_page >= pages && spent >= 0).then(|| spent * (last_page - pages) / done / 1000)
}

impl Status {
    fn exit(&self) -> Exit {
        let mut exit = Exit::Fine;
        if self.key_refused_since.is_some() {
            exit = exit.and(Exit::KeyRefused);
        }
        if self.stale {
            exit = exit.and(Exit::Failed);
        }
        let parked = self.intents.get(State::Parked.word()).map_or(0, Intents::count);
        let waits = self.held_deletions > 0 || self.held_deletes > 0 || parked > 0;
        if waits || self.account_stopped_since.is_some() {
            exit = exit.and(Exit::Waits);
        }
        exit
    }
}

fn print(out: &mut Out, status: &Status) -> std::io::Result<()> {
    let mirror = &status.mirror;
    let number = |name: &str| grouped(u64::try_from(mirror.number(name)).unwrap_or(0));
    out.line(&format!(
        "mirror    {} live, {} deleted; change log at {}; account {}",
        number("live"),
        number("deleted"),
        number("head_seq"),
        mirror.text("account").unwrap_or("none yet")
    ))?;
    match &status.instance {
        Some(holder) => out.line(&format!("instance  {holder}"))?,
        None => out.line("instance  none is running")?,
    }
    match status.last_sweep_age_s {
        Some(age) => {
            let stale = if status.stale { ", which is too long ago" } else { "" };
            let at = plain(mirror.get("last_sweep_at"));
            out.line(&format!("sweep     complete {} ago ({at}){stale}", duration(age)))?;
        }
        None => out.line("sweep     none is complete yet")?,
    }
    if let Some(pass) = &status.running {
        let left =
            status.time_left_s.map(|left| format!(", about {} left", duration(left))).unwrap_or_default();
        let [kind, id, pages, of] = ["kind", "id", "pages", "last_page"].map(|name| plain(pass.get(name)));
        out.line(&match of.as_str() {
            "0" => format!("running   {kind} {id}: waiting for the first page"),
            _ => format!("running   {kind} {id}: page {pages} of {of}{left}"),
        })?;
    }
    for pass in [&status.last_sweep, &status.last_probe].into_iter().flatten() {
        if let Value::String(error) = pass.get("error") {
            let [kind, id, outcome] = ["kind", "id", "outcome"].map(|name| plain(pass.get(name)));
            out.line(&format!("problem   {kind} {id} {outcome}: {}", super::print::safe(error)))?;
        }
    }
    if let Some(until) = &status.throttled_until {
        out.line(&format!("waiting   the API asked us to wait until {until}"))?;
    }
    if let Some(since) = &status.key_refused_since {
        out.line(&format!("key       refused by the API since {since}; it is tried again every 15 minutes"))?;
    }
    if let Some(since) = &status.account_stopped_since {
        out.line(&format!(
            "account   stopped since {since}: the key reads another account; see `komoju-sync account show`"
        ))?;
    }
    if status.held_deletions > 0 {
        let held = count(status.held_deletions, "deletion");
        out.line(&format!("held      {held}: see `komoju-sync deletions list`"))?;
    }
    if status.approved_deletions > 0 {
        let approved = count(status.approved_deletions, "deletion");
        out.line(&format!(
            "approved  {approved}, not proven yet: each pass asks again; `deletions reject HOLD` keeps them"
        ))?;
    }
    if status.rejected_deletions > 0 {
        let rejected = count(status.rejected_deletions, "deletion");
        out.line(&format!("rejected  {rejected}: the customers stay until a list shows them again"))?;
    }
    print_outbox(out, status)
}

fn print_outbox(out: &mut Out, status: &Status) -> std::io::Result<()> {
    let mut settled = Vec::new();
    for state in State::ALL {
        match status.intents.get(state.word()) {
            Some(Intents::Open { count, oldest: Some(oldest), oldest_created_at, oldest_reason })
                if *count > 0 =>
            {
                let since = oldest_created_at.as_deref().unwrap_or_default();
                let why = oldest_reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                let told = format!("{} {state}; the oldest is {oldest} of {since}{why}", grouped(*count));
                out.line(&format!("intents   {}", super::print::safe(&told)))?;
            }
            Some(Intents::Settled { count }) if *count > 0 => {
                settled.push(format!("{} {state}", grouped(*count)));
            }
            _ => {}
        }
    }
    if !settled.is_empty() {
        out.line(&format!("intents   {}", settled.join(", ")))?;
    }
    if status.held_deletes > 0 {
        let held = count(status.held_deletes, "delete intent");
        out.line(&format!("held      {held}: see `komoju-sync intent plan`, then `intent approve`"))?;
    }
    if !status.outbound_enabled {
        out.line(
            "pushing   switched off: nothing is accepted or sent (outbound.enabled, as of the last start)",
        )?;
    }
    for file in &status.spool_files {
        out.line(&format!("file      {} stays in outbound.spool_dir", super::print::safe(file)))?;
    }
    Ok(())
}

/// `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}
