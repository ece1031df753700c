//! `rebuild`: builds the mirror from the change log.

use super::print::{self, count};
use super::{ConfigFile, Exit, progress};
use crate::clock::{Clock, SystemClock};
use crate::store::file::continuity;
use crate::store::log::verify;
use crate::store::{Instance, Reader, Store, read};

/// Rebuild the mirror from the change log.
///
/// The daemon must be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync rebuild && komoju-sync verify")]
pub(super) struct RebuildArgs {}

pub(super) fn run(config: &ConfigFile, _: &RebuildArgs) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    // Open it for reading first, because this command must not create a database.
    let known = {
        let info = read::mirror_info(&*Reader::open(&path)?).map_err(|e| e.with_path(&path))?;
        u64::try_from(info.number("live") + info.number("deleted")).unwrap_or(0)
    };
    let instance = Instance::take(&path, "rebuild", SystemClock::new().now())?;
    continuity::check(&path, &instance)?;
    let store = Store::open(&path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let bar = progress::bar("rebuilding customers", known);
    let drawn = bar.clone();
    let rebuilt = store.write(move |tx| verify::rebuild_with_progress(tx, |done| drawn.set_position(done)));
    let customers = runtime.block_on(rebuilt)?;
    bar.finish_and_clear();
    store.close();
    print::note(&format!("rebuilt the mirror with {} from the change log", count(customers, "customer")));
    Ok(Exit::Fine)
}
