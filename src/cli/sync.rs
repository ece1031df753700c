//! `sync`: one pass, then one attempt at each due intent.

mod dry_run;

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::exit::{exit_of, exit_of_report};
use super::print::{self, Out, Style};
use super::{ConfigFile, Exit, logging, progress, signals};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::App;
use crate::store::file::wipe;
use crate::store::outbox::{engine, rows};
use crate::store::{Reader, read};
use crate::tasks::pull::Failure;
use crate::tasks::push::DrainSummary;
use komoju_core::PassKind;

/// Run one sweep, then attempt each due intent once.
///
/// The sweep reads the whole list and applies it to the mirror. The database is created if there is
/// none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync sync              read everything once\n  \
    komoju-sync sync --dry-run    show what a sync would record, and write nothing\n\n\
    A first look with a live key: `komoju-sync sync --dry-run`.")]
pub(super) struct SyncArgs {
    /// Read only the newest customers, and conclude nothing from missing ones.
    #[arg(long)]
    probe: bool,
    /// Print what would be recorded and sent; write nothing, here or at KOMOJU.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(config: &ConfigFile, args: &SyncArgs) -> anyhow::Result<Exit> {
    let config = config.load()?;
    logging::start(&config.log);
    signals::until_stopped(Exit::Failed, |stop| sync(&config, args, SystemClock::shared(), stop))
}

/// Runs `sync` without options in this process, by any clock. With a clock that moves by itself,
/// ten tries and their waits take no time.
pub async fn sync_by(config: &Config, clock: Arc<dyn Clock>, stop: CancellationToken) -> Exit {
    let args = SyncArgs { probe: false, dry_run: false, style: Style::default() };
    sync(config, &args, clock, stop).await.unwrap_or_else(|e| {
        print::error(&print::chain(&e));
        exit_of(&e)
    })
}

async fn sync(
    config: &Config,
    args: &SyncArgs,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let kind = if args.probe { PassKind::Probe } else { PassKind::Sweep };
    if args.dry_run {
        return dry_run::run(config, kind, args.style, clock, stop).await;
    }
    let app = App::start(config, "sync", clock, stop).await?;
    let path = &config.database.path;
    let work = async {
        let passed = pass(&app, kind, path, args.style).await?;
        Ok::<_, anyhow::Error>(passed.exit.and(drain(&app, path, passed.may_drain).await?))
    };
    app.in_place(work).await
}

/// The result of a pass.
struct PassResult {
    exit: Exit,
    /// Whether pushes may follow: not after a refused key, another account or a stop.
    may_drain: bool,
}

/// Runs one pass and prints its report; for JSON, also its row in the database.
async fn pass(app: &App, kind: PassKind, database: &Path, style: Style) -> anyhow::Result<PassResult> {
    let ended = tokio::select! {
        ended = app.pass(kind) => ended?,
        () = progress::draw(app.progress()) => return Err(anyhow::anyhow!("the pass ended without a report")),
    };
    let Some(report) = ended else {
        note_nothing_to_probe();
        return Ok(PassResult { exit: Exit::Failed, may_drain: true });
    };
    match &report.failure {
        Some(failure) => {
            print::error(&report.sentence());
            if !matches!(failure, Failure::Stopped) {
                print::note(
                    "no daemon runs: nothing repeats this until the next `komoju-sync sync` or `komoju-sync run`",
                );
            }
        }
        None => print::note(&report.sentence()),
    }
    if let Some(id) = report.pass
        && style.is_json()
    {
        let mut out = Out::new();
        if let Some(record) = Reader::open(database)?.query(|conn| read::pass(conn, id))? {
            out.json(&record)?;
        }
        out.finish()?;
    }
    let may_drain =
        !matches!(report.failure, Some(Failure::KeyRefused(_) | Failure::OtherAccount | Failure::Stopped));
    Ok(PassResult { exit: exit_of_report(&report), may_drain })
}

/// Takes spool files, then attempts each due intent once. What waits for an operator decides the
/// exit code even if nothing was sent.
async fn drain(app: &App, database: &Path, may_drain: bool) -> anyhow::Result<Exit> {
    let files = app.collect().await?;
    if files.taken + files.refused > 0 {
        print::note(&format!("spool: {}, {} refused", print::count(files.taken, "file"), files.refused));
    }
    let drained = if may_drain {
        app.drain().await?
    } else {
        app.wipe().await?;
        DrainSummary::default()
    };
    if drained.attempts > 0 {
        print::note(&format!("outbox: {drained}"));
    }
    if drained.waiting > 0 {
        print::note("no daemon runs: the next `komoju-sync sync` or `komoju-sync run` attempts what waits");
    }
    let (waits, left) = Reader::open(database)?.query(|conn| {
        let parked = rows::count_open(conn)?.iter().any(|counted| counted.state == "parked");
        Ok((parked || engine::held_deletes(conn)? > 0, wipe::backlog(conn)?))
    })?;
    if waits {
        print::note("something waits for an operator: see `komoju-sync intent list`");
    }
    if left.is_any() {
        print::note(
            "erased data or settled payment tokens are still in the database file or its WAL: see `komoju-sync status`",
        );
    }
    let exit = if waits || left.is_any() { Exit::Waits } else { Exit::Fine };
    Ok(if drained.key_refused { exit.and(Exit::KeyRefused) } else { exit })
}

fn note_nothing_to_probe() {
    print::note(
        "nothing to probe: a probe begins where a complete sweep ended; run `komoju-sync sync` first",
    );
}
