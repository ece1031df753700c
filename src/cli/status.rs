//! `status`: how things stand, from the database alone.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::print::{self, Out, Style, count, grouped, plain};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::model::{PassKind, time};
use crate::store::read::Record;
use crate::store::{Instance, Reader, StoreError, account, holds, read};

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
    Ok(Status {
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
        if self.held_deletions > 0 || self.account_stopped_since.is_some() {
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
