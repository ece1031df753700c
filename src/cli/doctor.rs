//! `doctor`: what keeps this from working, and what to do about it.
//!
//! ```text
//! configuration ─▶ key ─▶ files ─▶ disk ─▶ database ─▶ the API and its clock ─▶ account ─▶ what waits
//! ```
//!
//! Each room reads what it needs of the world and judges it apart from that: judgements take values and return [`Finding`]s. What
//! depends on something that failed is left out, with the reason. Nothing is written, made or started anywhere; the API is asked for
//! one page of the list, and about one customer where the key is in doubt.
//!
//! Rejected: to go by the exit codes of other commands (they stop at the first failure), and to repair anything (whoever runs this
//! as root would leave files that belong to root).

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
mod spool;
mod state;

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use access::People;
use finding::{Finding, Level};
use key::FoundKey;

use super::print::{self, Out, Style, count};
use super::{ConfigFile, Exit, signals};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::secret::Masker;

/// Checks configuration, key, API, clock, permissions, disk and database; each finding with what to do.
///
/// Works before the first start, beside the running daemon and with the network down; writes nothing. Run it as root: others may not
/// look at everything.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo komoju-sync doctor\n  komoju-sync doctor --json | jq 'select(.level != \"ok\")'\n\n\
    A line a check: ok, warn, fail, or skip where something else must be put right first. Exits 0 where nothing failed, \
    also with warnings; 3 when something waits for an operator; 1, 2, 4 and 5 as everywhere. The whole database is checked \
    by `komoju-sync verify`."
)]
pub(super) struct Args {
    #[command(flatten)]
    style: Style,
}

pub(super) fn run(file: &ConfigFile, args: &Args) -> anyhow::Result<Exit> {
    signals::until_stopped(Exit::Failed, async |stop| examine(file, args.style, stop).await)
}

/// Prints findings as they come, and keeps the exit code.
struct Told {
    out: Out,
    style: Style,
    masker: Masker,
    exit: Exit,
    fails: u64,
    warnings: u64,
}

impl Told {
    fn tell(&mut self, findings: impl IntoIterator<Item = Finding>) -> anyhow::Result<()> {
        for finding in findings {
            // Whatever a text repeats of files, environment or API: no secret leaves here.
            let finding = finding.masked(&self.masker);
            self.exit = self.exit.and(finding.exit);
            self.fails += u64::from(finding.level == Level::Fail);
            self.warnings += u64::from(finding.level == Level::Warn);
            match self.style.is_json() {
                true => self.out.json(&finding)?,
                false => self.out.line(&finding.for_people())?,
            }
        }
        self.out.flush()?;
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Exit> {
        self.out.finish()?;
        if !self.style.is_json() {
            print::note(&match (self.fails, self.warnings) {
                (0, 0) => "all is well".to_owned(),
                (0, warnings) => count(warnings, "warning"),
                (fails, warnings) => format!("{}, {}", count(fails, "failure"), count(warnings, "warning")),
            });
        }
        Ok(self.exit)
    }
}

async fn examine(file: &ConfigFile, style: Style, stop: CancellationToken) -> anyhow::Result<Exit> {
    let masker = Masker::new(None);
    let mut told = Told { out: Out::new(), style, masker, exit: Exit::Fine, fails: 0, warnings: 0 };
    let (config, findings) = configuration::check(file.path());
    told.tell(findings)?;
    let Some(config) = config else {
        let rest = [
            "key",
            "permissions",
            "spool",
            "disk",
            "schema",
            "wal",
            "instance",
            "api",
            "clock",
            "account",
            "state",
        ];
        told.tell(
            rest.map(|check| Finding::skip(check, "what is to be checked stands in the configuration")),
        )?;
        return told.finish();
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before all was checked")),
        done = with_config(&mut told, file.path(), &config) => done,
    }?;
    told.finish()
}

async fn with_config(told: &mut Told, file: &Path, config: &Config) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let people = People::of_this_machine();
    let holder = database::holder(&config.database.path);
    let service = people.service(&config.database.path, holder.as_deref());
    told.tell(configuration::check_programs(config, &service))?;

    let (key, findings) = key::check(&config.api, file, &people, &service);
    told.masker = Masker::new(key.as_ref().map(|found| &found.key));
    told.tell(findings)?;

    told.tell(permissions::check(&config.database.path, &people, &service, holder.is_some()))?;
    told.tell(spool::check(&config.outbound, &config.database.path, &people, &service, holder.as_deref()))?;
    told.tell(disk::check(&config.database.path))?;

    let (looked, findings) = database::check(config, holder.as_deref(), clock.now());
    told.tell(findings)?;

    let throttled = looked.as_ref().and_then(|looked| looked.throttled_until(clock.now()));
    let asked = match (&key, throttled) {
        (None, _) => Err("there is no key to ask with".to_owned()),
        (_, Some(until)) => Err(format!("the API asked us to wait until {until}")),
        (Some(FoundKey { key, .. }), None) => Ok(api::ask(config, key, looked.as_ref(), &clock).await),
    };
    let findings = match &asked {
        Ok(asked) => api::judge(asked, config),
        Err(why) => ["api", "clock"].map(|check| Finding::skip(check, why)).to_vec(),
    };
    told.tell(findings)?;
    let answers = asked.as_ref().ok();
    told.tell([account::check(looked.as_ref(), key.as_ref(), answers)])?;
    told.tell(state::check_list(looked.as_ref(), config.inbound.consistency_s, clock.now()))?;
    told.tell(state::check_wipe(looked.as_ref()))?;
    told.tell([state::check(looked.as_ref(), holder.is_some(), answers)])
}

/// `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes >= 1 << shift);
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    unit.map_or_else(
        || count(bytes, "byte"),
        |(name, shift)| format!("{:.1} {name}", bytes as f64 / f64::from(1_u32 << shift)),
    )
}

/// `120 ms`, `1.5 s`.
fn short_time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..=999 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// A path for a person, harmless on a terminal, and quoted for a shell where it must be.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_paths_are_for_people() {
        assert_eq!(
            [0, 1, 1536, 3 << 20, 5 << 30].map(size),
            ["0 bytes", "1 byte", "1.5 KiB", "3.0 MiB", "5.0 GiB"]
        );
        assert_eq!(quoted(Path::new("/a/b-1.db")), "/a/b-1.db");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
