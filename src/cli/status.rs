//! `status`: how things stand, from the database alone.

use jiff::Timestamp;
use serde_json::Value;

use super::print::{self, Out, Style, count, grouped, plain};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::status::{Intents, Standing};
use crate::store::Reader;
use crate::tasks::spool;
use komoju_core::intent::lifecycle::State;
use komoju_core::unreadable;
use komoju_core::words::duration;

/// How things stand: the last complete sweep and its age, what runs now, and what waits for a person.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync status\n  komoju-sync status --json | jq .last_sweep_age_s\n\n\
    Exits 1 when no complete sweep exists, the last is older than three of its periods, or the daemon waits for the disk, 3 when something waits for a \
    person, a new customer is unreadable or the API may ignore `page`, 4 when the key is refused, 5 when there is no usable database."
)]
pub(super) struct Args {
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let path = &config.database.path;
    let reader = match Reader::open(path) {
        // Programs that read the object find in it what is wrong, besides the exit code.
        Err(error) if args.style.is_json() && error.is_missing() => {
            let mut out = Out::new();
            out.json(&serde_json::json!({"mirror": null, "missing": path, "stale": true}))?;
            out.finish()?;
            return Err(error.into());
        }
        other => other?,
    };
    let now = SystemClock::new().now();
    let status = Standing::read(&reader, &config, now)?;
    let mut out = Out::new();
    match args.style.is_json() {
        true => out.json(&status)?,
        false => print(&mut out, &status, &config, now)?,
    }
    out.finish()?;
    Ok(exit(&status))
}

/// What this state of things exits with.
fn exit(standing: &Standing) -> Exit {
    let mut exit = Exit::Fine;
    if standing.key_refused_since.is_some() {
        exit = exit.and(Exit::KeyRefused);
    }
    if standing.stale || standing.database_trouble.is_some() {
        exit = exit.and(Exit::Failed);
    }
    if standing.waits_for_a_person() {
        exit = exit.and(Exit::Waits);
    }
    exit
}

fn print(out: &mut Out, status: &Standing, config: &Config, now: Timestamp) -> std::io::Result<()> {
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
    if let Some(trouble) = &status.database_trouble {
        out.line(&format!(
            "database  cannot be used {}; the daemon tries again",
            super::print::safe(trouble)
        ))?;
    }
    let last = status.partial_sentence().map(|partial| format!("; the last one is {partial}"));
    let last = last.unwrap_or_default();
    match status.last_sweep_age_s {
        Some(age) => {
            let stale = match status.stale {
                true if age < 0 => ", which is still to come: a clock was set back",
                true => ", which is too long ago",
                false => "",
            };
            let at = plain(mirror.get("last_sweep_at"));
            out.line(&format!("sweep     complete {} ago ({at}){stale}{last}", duration(age)))?;
        }
        None => out.line(&format!("sweep     none is complete yet{last}"))?,
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
    if let Some(slowed) = &status.slowed {
        out.line(&format!("rate      {slowed}"))?;
    }
    if let Some(since) = &status.key_refused_since {
        let next = match status.instance {
            Some(_) => "the daemon asks again every 15 minutes",
            None => "no daemon runs: the next `komoju-sync sync` or `komoju-sync run` asks again",
        };
        out.line(&format!("key       refused by the API since {since}; {next}"))?;
    }
    if let Some(since) = &status.account_stopped_since {
        out.line(&format!(
            "account   stopped since {since}: the key reads another account; see `komoju-sync account show`"
        ))?;
    }
    if let Some(at) = &status.restored_at {
        out.line(&format!(
            "restored  at {at}: the next complete sweep records no deletion, all wait for an operator"
        ))?;
    }
    if let Some(left) = status.wipe_sentence() {
        out.line(&format!("wiping    unfinished: {}", print::safe(&left)))?;
    }
    print_list(out, status, config.inbound.consistency_s, now)?;
    print_reading(out, status)?;
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

/// In what way the list is imprecise, and how far reads lag; nothing for an exact list and reads that never lag.
fn print_list(out: &mut Out, status: &Standing, consistency_s: u32, now: Timestamp) -> std::io::Result<()> {
    let list = &status.list;
    let lines = [
        list.imprecision(now).map(|text| format!("list      {text}")),
        list.ignores_page.then(|| {
            "list      there may be more customers than are listed: ask KOMOJU, and see `komoju-sync doctor`".to_owned()
        }),
        list.long_unlisted_sentence().map(|text| format!("list      {text}")),
        list.lag_sentence().map(|text| format!("lag       {text}")),
        list.lag_exceeded_sentence(consistency_s).map(|text| format!("lag       {text}")),
    ];
    for line in lines.into_iter().flatten() {
        out.line(&print::safe(&line))?;
    }
    Ok(())
}

/// How many unreadable customers are named.
const NAMED: usize = 10;

/// What is noteworthy about what the API shows: unreadable customers, and fields that may change on every read.
fn print_reading(out: &mut Out, status: &Standing) -> std::io::Result<()> {
    for row in status.unreadable_customers.iter().take(NAMED) {
        let [page, position] = ["page", "position"].map(|name| row.get(name).as_u64());
        let [since, reason] = ["first_seen_at", "reason"].map(|name| row.text(name).unwrap_or_default());
        let name = unreadable::phrase(row.text("id"), page, position);
        let line = format!("reading   {name} is unreadable since {since}: {reason}");
        out.line(&super::print::safe(&line))?;
    }
    let unnamed = status.unreadable.saturating_sub(NAMED as u64);
    if unnamed > 0 {
        let more = count(unnamed, "more unreadable customer");
        out.line(&format!("reading   {more}: see the view unreadable_customers"))?;
    }
    if status.unreadable > 0 {
        out.line(
            "reading   the mirror keeps what was last known of them; ask KOMOJU's support to correct them",
        )?;
    }
    for row in &status.busy_fields {
        let [customers, seen, sweeps] =
            ["customers", "seen", "sweeps"].map(|name| u64::try_from(row.number(name)).unwrap_or(0));
        let (customers, of) = (grouped(customers), count(seen, "customer"));
        let field = row.text("field").unwrap_or_default();
        let line = match sweeps {
            0 | 1 => format!("field     {field} changed in {customers} of {of} in the last complete sweep"),
            n => format!(
                "field     {field} changes on every read: in {customers} of {of} in the last complete sweep, and in {n} sweeps in \
                 a row; each adds as many log entries"
            ),
        };
        out.line(&super::print::safe(&line))?;
    }
    Ok(())
}

fn print_outbox(out: &mut Out, status: &Standing) -> std::io::Result<()> {
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
    print_spool(out, status)
}

/// The spool directory: why no file is taken, and the files that need an operator, each with what to do.
fn print_spool(out: &mut Out, status: &Standing) -> std::io::Result<()> {
    let spool = &status.spool;
    let mut line = |text: String| out.line(&print::safe(&text));
    if let Some(problem) = &spool.problem {
        line(format!("spool     no file is taken: {problem}"))?;
    }
    for spool::Left { name, why } in &spool.stuck {
        line(format!("stuck     {name} in outbound.spool_dir: it {why}"))?;
    }
    if spool.more_stuck > 0 {
        line(format!("stuck     {} more in outbound.spool_dir", count(spool.more_stuck, "file")))?;
    }
    for name in &spool.refused {
        line(format!(
            "refused   {name}: rejected/{name}.error in outbound.spool_dir says why; correct it and drop it again, or remove both"
        ))?;
    }
    let more = status.rejected_files.saturating_sub(spool.refused.len());
    if more > 0 {
        let files = count(more as u64, "file");
        line(format!("refused   {files} more: see rejected/ in outbound.spool_dir"))?;
    }
    for file in &status.spool_files {
        line(format!("file      {file} stays in outbound.spool_dir"))?;
    }
    Ok(())
}
