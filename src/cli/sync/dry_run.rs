//! `sync --dry-run`: prints what a sync would record, hold and send, and writes nothing, here or there.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::exit::exit_of_report;
use crate::cli::print::{self, Out, Style};
use crate::cli::{Exit, change_lines, intent, progress};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon;
use crate::remote::Http;
use crate::store::Reader;
use crate::tasks::pull::{Planned, Pull};
use komoju_core::plan::writes::Write;
use komoju_core::{ChangeKind, PassKind};

/// QUEUE controls how many planned changes wait for a slow reader of the output before the pass waits too.
const QUEUE: usize = 64;

/// What a dry run found, as one sentence.
#[derive(Debug, Default)]
struct Totals {
    created: u64,
    updated: u64,
    deleted: u64,
    restored: u64,
    held: u64,
    calls: u64,
}

impl Totals {
    fn add(&mut self, planned: &Planned) {
        match planned {
            Planned::Change(Write::Record { kind: ChangeKind::Created, .. }) => self.created += 1,
            Planned::Change(Write::Record { kind: ChangeKind::Updated, .. }) => self.updated += 1,
            Planned::Change(Write::Record { kind: ChangeKind::Restored, .. }) => self.restored += 1,
            Planned::Change(Write::Delete { .. }) => self.deleted += 1,
            Planned::Change(_) => {}
            Planned::Hold(..) => self.held += 1,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.created, "created"),
            (self.updated, "updated"),
            (self.deleted, "deleted"),
            (self.restored, "restored"),
        ];
        let changes: Vec<String> = kinds
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, kind)| format!("{} {kind}", print::grouped(n)))
            .collect();
        let changes = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
        write!(f, "dry run: would record {changes}")?;
        if self.held > 0 {
            write!(f, "; {} would be held", print::count(self.held, "deletion"))?;
        }
        if self.calls > 0 {
            write!(f, "; {} would be sent", print::count(self.calls, "request"))?;
        }
        f.write_str("; nothing was written")
    }
}

/// Runs the pass without applying its plans, and prints them as they are made; then prints the plan of the outbox.
pub(super) async fn run(
    config: &Config,
    kind: PassKind,
    style: Style,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let (send, mut planned) = mpsc::channel(QUEUE);
    let pull = daemon::setup::dry_pull(config, clock, stop, send)?;
    let (mut out, mut totals) = (Out::new(), Totals::default());
    change_lines::planned_header(&mut out, style)?;
    let printing = async {
        while let Some((origin, write)) = planned.recv().await {
            totals.add(&write);
            change_lines::print_planned(&mut out, origin, &write, style)?;
        }
        Ok(())
    };
    let (passed, ()) = tokio::try_join!(pass(pull, kind), printing)?;
    let plan = Reader::for_dry_run(&config.database.path)?
        .in_one_view(|conn| Ok(intent::plan::print(&mut out, conn, config, style)))??;
    totals.calls = plan.ready;
    out.finish()?;
    print::note(&totals.to_string());
    Ok(passed.and(plan.exit))
}

/// One pass; its report goes to standard error.
async fn pass(pull: Pull<Http>, kind: PassKind) -> anyhow::Result<Exit> {
    let pass = async {
        match kind {
            PassKind::Sweep => pull.sweep().await.map(Some),
            PassKind::Probe => pull.probe().await,
        }
    };
    let ended = tokio::select! {
        ended = pass => ended?,
        () = progress::draw(pull.progress()) => return Err(anyhow::anyhow!("the pass ended without a report")),
    };
    let Some(report) = ended else {
        super::note_nothing_to_probe();
        return Ok(Exit::Failed);
    };
    match report.failure {
        Some(_) => print::error(&report.sentence()),
        None => print::note(&report.sentence()),
    }
    Ok(exit_of_report(&report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_one_sentence() {
        assert_eq!(Totals::default().to_string(), "dry run: would record nothing; nothing was written");
        let totals = Totals { created: 1200, updated: 3, deleted: 1, restored: 0, held: 2, calls: 4 };
        assert_eq!(
            totals.to_string(),
            "dry run: would record 1,200 created, 3 updated, 1 deleted; 2 deletions would be held; \
             4 requests would be sent; nothing was written"
        );
    }
}
