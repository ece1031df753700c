//! `status`: the state of the mirror, from the database alone.

use super::print::{Out, Style, count, grouped, plain, safe};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::daemon::status::{Intents, Status};
use crate::store::Reader;
use komoju_core::format::duration;
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::{Attention, unreadable};

/// Show the state of the mirror and what needs an operator; works without the daemon.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  komoju-sync status\n  komoju-sync status --json | jq .last_sweep_age_s\n\n\
    Exits 1 if no complete sweep exists, the last one is older than three of its periods, or the daemon waits for the disk; \
    3 if something waits for an operator, a new customer is unreadable or the API may ignore `page`; 4 if the key is \
    refused; 5 if there is no usable database."
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &StatusArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    let path = &config.database.path;
    let reader = match Reader::open(path) {
        // A program that reads the object finds the reason in it, and not only in the exit code.
        Err(error) if args.style.is_json() && error.is_missing() => {
            let mut out = Out::new();
            out.json(&serde_json::json!({"mirror": null, "missing": path, "stale": true}))?;
            out.finish()?;
            return Err(error.into());
        }
        other => other?,
    };
    let now = SystemClock::new().now();
    let status = Status::read(&reader, &config, now)?;
    let mut out = Out::new();
    if args.style.is_json() {
        out.json(&status)?;
    } else {
        for line in lines(&status) {
            out.line(&safe(&line))?;
        }
    }
    out.finish()?;
    Ok(status.severity().into())
}

/// Returns the report as text: one line for each fact, with its label.
fn lines(status: &Status) -> Vec<String> {
    let mut lines = mirror(status);
    lines.extend(conditions(status, &["database_unusable"]));
    lines.push(sweep(status));
    lines.extend(running(status));
    lines.extend(conditions(status, &["failed_pass"]));
    lines.extend(pace(status));
    lines.extend(conditions(status, &["key_refused", "account_stopped"]));
    lines.extend(status.restored_at.as_ref().map(|at| {
        format!("restored  at {at}: the next complete sweep records no deletion, all wait for an operator")
    }));
    lines.extend(conditions(status, &["unfinished_wipe", "imprecise_list", "page_ignored", "long_unlisted"]));
    lines
        .extend(status.list.longest_lag_s.map(|lag| format!("lag       reads lagged by {lag:.1} s or more")));
    lines.extend(conditions(status, &["lag_exceeded"]));
    lines.extend(events(status));
    lines.extend(unreadable_customers(status));
    lines.extend(conditions(status, &["unreadable_customers"]));
    lines.extend(busy_fields(status));
    lines.extend(conditions(status, &["held_deletions"]));
    lines.extend(decided(status));
    lines.extend(intents(status));
    lines.extend(conditions(status, &["held_deletes"]));
    lines.extend(spool(status));
    lines
}

/// Returns the sentences of the conditions with these keys.
fn conditions<'a>(status: &'a Status, keys: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let found = status.attention.iter().filter(|attention| keys.contains(&attention.key()));
    found.map(|attention| format!("{}{attention}", label(attention)))
}

fn label(attention: &Attention) -> &'static str {
    match attention {
        Attention::DatabaseUnusable(_) => "database  ",
        Attention::FailedPass { .. } => "problem   ",
        Attention::KeyRefused { .. } => "key       ",
        Attention::AccountStopped(_) => "account   ",
        Attention::UnfinishedWipe(_) => "wiping    unfinished: ",
        Attention::LagExceeded { .. } => "lag       ",
        Attention::EventsOff { .. } | Attention::HintsPaused { .. } | Attention::PushesUnreported { .. } => {
            "events    "
        }
        Attention::UnreadableCustomers { .. } => "reading   ",
        Attention::HeldDeletions(_) | Attention::HeldDeletes(_) => "held      ",
        Attention::SpoolBlocked(_) => "spool     ",
        Attention::StuckFile { .. } => "stuck     ",
        Attention::RefusedFile(_) => "refused   ",
        _ => "list      ",
    }
}

fn mirror(status: &Status) -> Vec<String> {
    let mirror = &status.mirror;
    let number = |name: &str| grouped(u64::try_from(mirror.number(name)).unwrap_or(0));
    vec![
        format!(
            "mirror    {} live, {} deleted; change log at {}; account {}",
            number("live"),
            number("deleted"),
            number("head_seq"),
            mirror.text("account").unwrap_or("none yet")
        ),
        format!("instance  {}", status.instance.as_deref().unwrap_or("none is running")),
    ]
}

/// Returns the line about the last complete sweep, and about a partial one after it.
fn sweep(status: &Status) -> String {
    let partial = |attention: &&Attention| matches!(attention, Attention::PartialSweep { .. });
    let last = status.attention.iter().find(partial).map(|partial| format!("; the last one is {partial}"));
    let last = last.unwrap_or_default();
    let Some(age) = status.last_sweep_age_s else { return format!("sweep     none is complete yet{last}") };
    let stale = match age {
        _ if !status.stale => "",
        ..0 => ", which is in the future: a clock was set back",
        _ => ", which is too long ago",
    };
    let at = plain(status.mirror.get("last_sweep_at"));
    format!("sweep     complete {} ago ({at}){stale}{last}", duration(age))
}

fn running(status: &Status) -> Option<String> {
    let pass = status.running.as_ref()?;
    let left = status.time_left_s.map(|left| format!(", about {} left", duration(left))).unwrap_or_default();
    let [kind, id, pages, of] = ["kind", "id", "pages", "last_page"].map(|name| plain(pass.get(name)));
    Some(if of == "0" {
        format!("running   {kind} {id}: waiting for the first page")
    } else {
        format!("running   {kind} {id}: page {pages} of {of}{left}")
    })
}

/// Returns the lines about what slows requests down.
fn pace(status: &Status) -> impl Iterator<Item = String> {
    let until = status.throttled_until.as_ref();
    let waiting = until.map(|until| format!("waiting   the API asked us to wait until {until}"));
    waiting.into_iter().chain(status.slowed.as_ref().map(|slowed| format!("rate      {slowed}")))
}

/// How many changes events reported, and what keeps them from being followed.
fn events(status: &Status) -> Vec<String> {
    let events = &status.events;
    let off = (!events.enabled && events.last_event_at.is_none())
        .then(|| "events    not followed (events.enabled)".to_owned());
    let reported = events.sentence().filter(|_| off.is_none());
    let mut lines: Vec<String> = off.into_iter().collect();
    lines.extend(reported.map(|sentence| format!("events    {sentence}")));
    lines.extend(conditions(status, &["events_off", "hints_paused", "pushes_unreported"]));
    if events.open_hints > 0 {
        lines.push(format!("events    {} to be requested", count(events.open_hints, "customer")));
    }
    lines
}

/// NAMED controls how many unreadable customers are named.
const NAMED: usize = 10;

fn unreadable_customers(status: &Status) -> Vec<String> {
    let named = status.unreadable_customers.iter().take(NAMED).map(|row| {
        let [page, position] = ["page", "position"].map(|name| row.get(name).as_u64());
        let [since, reason] = ["first_seen_at", "reason"].map(|name| row.text(name).unwrap_or_default());
        let name = unreadable::phrase(row.text("id"), page, position);
        format!("reading   {name} is unreadable since {since}: {reason}")
    });
    let mut lines: Vec<String> = named.collect();
    let unnamed = status.unreadable.saturating_sub(NAMED as u64);
    if unnamed > 0 {
        let more = count(unnamed, "more unreadable customer");
        lines.push(format!("reading   {more}: see the view unreadable_customers"));
    }
    lines
}

/// Returns the lines about fields that may change on every read.
fn busy_fields(status: &Status) -> impl Iterator<Item = String> {
    status.busy_fields.iter().map(|row| {
        let [customers, seen, sweeps] =
            ["customers", "seen", "sweeps"].map(|name| u64::try_from(row.number(name)).unwrap_or(0));
        let (customers, of) = (grouped(customers), count(seen, "customer"));
        let field = row.text("field").unwrap_or_default();
        match sweeps {
            0 | 1 => format!("field     {field} changed in {customers} of {of} in the last complete sweep"),
            n => format!(
                "field     {field} changes on every read: in {customers} of {of} in the last complete sweep, and in {n} sweeps in \
                 a row; each adds as many log entries"
            ),
        }
    })
}

/// Returns the lines about deletions that an operator has decided.
fn decided(status: &Status) -> Vec<String> {
    let line =
        |n: u64, label: &str, what: &str| (n > 0).then(|| format!("{label}{}{what}", count(n, "deletion")));
    let approved =
        ", not proven yet: each pass requests the customers again; `deletions reject HOLD` keeps them";
    let rejected = ": the customers stay until a list shows them again";
    let lines = [
        line(status.approved_deletions, "approved  ", approved),
        line(status.rejected_deletions, "rejected  ", rejected),
    ];
    lines.into_iter().flatten().collect()
}

/// Returns one line for each open state with intents, and one for all settled intents.
fn intents(status: &Status) -> Vec<String> {
    let (mut lines, mut settled) = (Vec::new(), Vec::new());
    for state in IntentState::ALL {
        match status.intents.get(state.word()) {
            Some(Intents::Open { count, oldest: Some(oldest), oldest_created_at, oldest_reason })
                if *count > 0 =>
            {
                let since = oldest_created_at.as_deref().unwrap_or_default();
                let why = oldest_reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                let count = grouped(*count);
                lines.push(format!("intents   {count} {state}; the oldest is {oldest} of {since}{why}"));
            }
            Some(Intents::Settled { count }) if *count > 0 => {
                settled.push(format!("{} {state}", grouped(*count)));
            }
            _ => {}
        }
    }
    if !settled.is_empty() {
        lines.push(format!("intents   {}", settled.join(", ")));
    }
    lines
}

/// Returns the lines about the spool directory: why no file is taken, and each file that needs an
/// operator, with what to do.
fn spool(status: &Status) -> Vec<String> {
    let off = "pushing   switched off: nothing is accepted or sent (outbound.enabled, as of the last start)";
    let mut lines: Vec<String> = (!status.outbound_enabled).then(|| off.to_owned()).into_iter().collect();
    lines.extend(conditions(status, &["spool_blocked", "stuck_file"]));
    if status.spool.more_stuck > 0 {
        let more = count(status.spool.more_stuck, "file");
        lines.push(format!("stuck     {more} more in outbound.spool_dir"));
    }
    lines.extend(conditions(status, &["refused_file"]));
    let more = status.rejected_files.saturating_sub(status.spool.refused.len());
    if more > 0 {
        lines.push(format!("refused   {} more: see rejected/ in outbound.spool_dir", count(more, "file")));
    }
    lines.extend(
        status.spool_files.iter().map(|file| format!("file      {file} stays in outbound.spool_dir")),
    );
    lines
}
