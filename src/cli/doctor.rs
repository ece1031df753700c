//! `doctor`: what prevents this program from working, and what to do about it.
//!
//! ```text
//! configuration ─▶ key ─▶ files ─▶ disk ─▶ database ─▶ the API and its clock ─▶ account ─▶ what waits
//! ```
//!
//! Each module reads what it needs, and classifies it in functions that take values and return
//! [`DoctorFinding`]s. A check that depends on something that failed is left out, with the reason.
//! Nothing is written, created or started. The API gets a request for one page, and one for a
//! customer if the database is bound to another key.
//!
//! These designs were rejected:
//! - The exit codes of other commands. These commands stop at the first failure.
//! - Repairs. As root they would leave files that belong to root.

mod access;
mod account;
mod alerts;
mod api;
mod configuration;
mod database;
mod disk;
mod finding;
mod key;
mod permissions;
mod rules;
mod spool;
mod state;
mod webhook;

use std::path::Path;

use tokio_util::sync::CancellationToken;

use access::Users;
use finding::{DoctorFinding, Level};

use super::print::{self, Out, Style, count};
use super::{ConfigFile, Exit, signals};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::secret::Masker;
use crate::store::file::place::for_shell as quoted;

/// The checks that need the configuration.
const AFTER_CONFIG: &str = "key permissions spool disk schema wal instance api clock account state";

/// What to do where this user may not read something.
const RUN_AS_ROOT: &str = "run this as root: sudo komoju-sync doctor";

/// Check what prevents the program from working, and show what to do.
///
/// It checks configuration, key, API, clock, permissions, disk and database. It works before the
/// first start, while the daemon runs and without a network, and writes nothing. Run it as root,
/// because other users may not read everything.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo komoju-sync doctor\n  komoju-sync doctor --json | jq 'select(.level != \"ok\")'\n\n\
    One line for each check: ok, warn, fail, or skip if something else must be corrected first. Exits 0 if nothing \
    failed, also with warnings; 3 if something waits for an operator; 1, 2, 4 and 5 as every command. \
    `komoju-sync verify` checks the whole database."
)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(file: &ConfigFile, args: &DoctorArgs) -> anyhow::Result<Exit> {
    signals::until_stopped(Exit::Failed, async |stop| examine(file, args.style, stop).await)
}

/// Prints each finding at once, and counts them.
struct DoctorReport {
    out: Out,
    style: Style,
    masker: Masker,
    exit: Exit,
    failures: u64,
    warnings: u64,
}

impl DoctorReport {
    fn add(&mut self, findings: impl IntoIterator<Item = DoctorFinding>) -> anyhow::Result<()> {
        for finding in findings {
            // A text may quote files, the environment or the API, and so a secret.
            let finding = finding.masked(&self.masker);
            self.exit = self.exit.and(finding.exit);
            self.failures += u64::from(finding.level == Level::Fail);
            self.warnings += u64::from(finding.level == Level::Warn);
            if self.style.is_json() {
                self.out.json(&finding)?;
            } else {
                self.out.line(&finding.to_text())?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn finish(self) -> anyhow::Result<Exit> {
        self.out.finish()?;
        if !self.style.is_json() {
            print::note(&match (self.failures, self.warnings) {
                (0, 0) => "all is well".to_owned(),
                (0, warnings) => count(warnings, "warning"),
                (failures, warnings) => {
                    format!("{}, {}", count(failures, "failure"), count(warnings, "warning"))
                }
            });
        }
        Ok(self.exit)
    }
}

async fn examine(file: &ConfigFile, style: Style, stop: CancellationToken) -> anyhow::Result<Exit> {
    let masker = Masker::new(None);
    let mut report =
        DoctorReport { out: Out::new(), style, masker, exit: Exit::Fine, failures: 0, warnings: 0 };
    let (config, findings) = configuration::load(file.path());
    if let Some(config) = config {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(anyhow::anyhow!("stopped before all was checked")),
            done = with_config(&mut report, file.path(), &config, findings) => done,
        }?;
    } else {
        report.add(findings)?;
        let why = "it needs a valid configuration";
        report.add(AFTER_CONFIG.split(' ').map(|check| DoctorFinding::skip(check, why)))?;
    }
    report.finish()
}

/// Runs the other checks. `findings` are about the content of the file.
async fn with_config(
    report: &mut DoctorReport,
    file: &Path,
    config: &Config,
    findings: Vec<DoctorFinding>,
) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let path = &config.database.path;
    let holder = database::holder(path);
    let users = Users::of(path, holder.as_ref().and_then(|holder| holder.process));
    let holder = holder.map(|holder| holder.name);
    report.add(configuration::check(file, config, findings, &users))?;

    let (key, findings) = key::check(&config.api, file, &users);
    report.masker = Masker::new(key.as_ref());
    report.add(findings)?;
    report.add(webhook::check(&config.webhook, file, &users))?;

    report.add(permissions::check(path, &users, holder.is_some()))?;
    report.add(spool::check(&config.outbound, path, &users, holder.as_deref()))?;
    report.add(disk::check(path))?;

    let (current, findings) = database::check(config, holder.as_deref(), clock.now());
    let current = current.as_ref();
    report.add(findings)?;

    let asked = match (&key, current.and_then(|current| current.throttled_until(clock.now()))) {
        (None, _) => Err("there is no key for a request".to_owned()),
        (_, Some(until)) => Err(format!("the API asked us to wait until {until}")),
        (Some(key), None) => Ok(api::ask(config, key, current, &clock).await),
    };
    report.add(match &asked {
        Ok(asked) => api::classify(asked, config),
        Err(why) => ["api", "clock"].map(|check| DoctorFinding::skip(check, why)),
    })?;
    let asked = asked.as_ref().ok().and_then(|asked| asked.as_ref().ok());
    report.add([account::check(current, key.as_ref(), asked)])?;
    report.add(state::check(current, holder.is_some(), asked))
}

/// Returns a number of bytes in readable form: `1.50 MiB`.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
