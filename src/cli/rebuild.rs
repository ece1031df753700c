//! `rebuild`: the mirror anew from the log.

use super::print::count;
use super::{ConfigFile, Exit};
use crate::clock::{Clock, SystemClock};
use crate::store::{Instance, Mode, Reader, Store, verify};

/// Makes the mirror anew from the change log. Needs the daemon to be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  komoju-sync rebuild && komoju-sync verify")]
pub(super) struct Args {}

pub(super) fn run(config: &ConfigFile, _: &Args) -> anyhow::Result<Exit> {
    let path = config.load()?.database.path;
    // Only an existing database can be rebuilt; this must not make one.
    drop(Reader::open(&path)?);
    let _instance = Instance::take(&path, "rebuild", SystemClock::new().now(), Mode::Make)?;
    let store = Store::open(&path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let customers = runtime.block_on(store.write(verify::rebuild))?;
    store.close();
    eprintln!("the mirror holds {}, made anew from the change log", count(customers, "customer"));
    Ok(Exit::Fine)
}
