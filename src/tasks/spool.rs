//! The spool door: files that others drop become intents, and give way to receipts.
//!
//! ```text
//!   unchanged for a second, or renamed ─▶ claimed ─▶ read ─▶ all its intents in one transaction ─▶ receipt ─▶ removed
//!                 │ no regular file,                            │ refused
//!                 ▼ not readable …                              ▼
//!            left, reported once                   masked copy and .error in rejected/ ─▶ removed
//! ```
//!
//! The order is what makes it safe: a file is out of others' reach before it is read (`claim`),
//! its intents are committed before the receipt is written, and it is removed last and only if it
//! is as it was read. Wherever the process ends in between, the next look finds the claimed file;
//! the database knows whether that claim was accepted. What the file system refuses is reported,
//! and tried again with the next look; only the database's failures are errors.
//!
//! Files are accepted in drop order. One that is still being written delays the younger ones for a
//! while (`listing`).

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
mod claim;
mod directories;
pub mod erase;
mod file;
mod folder;
mod lines;
mod listing;
mod looked;
mod papers;
mod redact;
mod report;
mod steps;
mod upkeep;
mod worker;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use claim::{Claim, Taken};
use directories::Directories;
use listing::Unstill;
use worker::Worker;

use crate::clock::Clock;
use crate::secret::{Masker, SecretKey};
use crate::store::outbox::engine;
use crate::store::outbox::spool::{self, BadLine};
use crate::store::{Store, StoreError};

pub use directories::SPOOL_MODE;
pub use listing::{Leftovers, MOST_NAMED};
pub use looked::{Left, Looked, SpoolSettings};
pub use report::{Overview, count_files, locked_by_another, that_stay, waiting_files};

/// LONGEST_DRAIN limits how long a drain waits: until the file that delays the others has done so,
/// and one more second.
const LONGEST_DRAIN: Duration = listing::LONGEST_DELAY.saturating_add(Duration::from_secs(1));

/// When a file is looked at again that changed while it was read.
const AGAIN: Duration = Duration::from_secs(1);

/// KEPT controls how long receipts are kept after their last intent was settled, and refused files
/// after they were put aside: 30 days.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// EXPIRE_EVERY controls how often old refused files are looked for: each time the directory is read.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

const SWITCHED_OFF: &str = "waits: pushing is switched off (outbound.enabled = false)";

/// The spool door.
pub struct Spool {
    store: Arc<Store>,
    masker: Arc<Masker>,
    clock: Arc<dyn Clock>,
    settings: SpoolSettings,
    /// One look at a time.
    state: tokio::sync::Mutex<State>,
    /// What the last look left.
    left: Mutex<Leftovers>,
    worker: Worker,
}

/// What is kept from one look to the next.
#[derive(Debug, Default)]
struct State {
    /// Open, and locked, from the first look that could on.
    directories: Option<Arc<Directories>>,
    unstill: Unstill,
    /// Why no file is taken, as it was last recorded.
    problem: Option<Option<String>>,
    /// When old refused files were last looked for.
    expired_at: Option<Duration>,
}

/// One look, while it is made.
#[derive(Debug, Default)]
struct Look {
    sums: Looked,
    left: Leftovers,
    problem: Option<String>,
    /// Whether files were not looked at, because they wait for an older one.
    is_cut: bool,
}

impl Look {
    fn again_in(&mut self, wait: Duration) {
        self.sums.again_in = Some(self.sums.again_in.map_or(wait, |known| known.min(wait)));
    }

    /// A file is still being written. Returns whether the younger ones wait for it.
    fn waits_for(&mut self, wait: Duration, delay: Option<Duration>) -> bool {
        self.again_in(delay.map_or(wait, |delay| wait.min(delay)));
        self.is_cut |= delay.is_some();
        delay.is_some()
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    /// The file is not in `.claimed/` any more.
    Finished,
    /// It stays there, for a reason that was reported.
    Stays,
    /// It stays there because it is still being written, and younger files wait for it.
    Delays,
}

impl Spool {
    /// A door to this directory; nothing happens yet. The key is given so that it can be masked.
    pub fn new(
        store: Arc<Store>,
        key: Option<&SecretKey>,
        clock: Arc<dyn Clock>,
        settings: SpoolSettings,
    ) -> Self {
        Self {
            store,
            masker: Arc::new(Masker::new(key)),
            clock,
            worker: Worker::new(settings.dir.clone()),
            settings,
            state: tokio::sync::Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Takes every file that has been unchanged for a second, in the order in which they were
    /// dropped.
    ///
    /// # Errors
    /// The database failed. What the file system refuses is in [`Looked::left`].
    pub async fn scan(&self) -> Result<Looked, StoreError> {
        self.take(&[]).await
    }

    /// The same, and these files at once: they were renamed into place just now, so that they are
    /// whole.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take(&self, renamed: &[String]) -> Result<Looked, StoreError> {
        let mut state = self.state.lock().await;
        let mut look = Look::default();
        let looked = self.look(renamed, &mut state, &mut look).await;
        // What was found until the database failed is no complete report.
        looked?;
        if state.problem.as_ref() != Some(&look.problem) {
            let problem = look.problem.clone();
            self.store.write(move |tx| spool::set_problem(tx, problem.as_deref())).await?;
            state.problem = Some(look.problem);
        }
        let Look { mut sums, mut left, is_cut, .. } = look;
        if is_cut {
            left.add_missing(&self.last_left());
        }
        (sums.left, sums.more_left) = (left.list(), left.more);
        self.report(left);
        Ok(sums)
    }

    /// Takes every file, waiting a few seconds at most for those that are still being written. The
    /// sums are of all looks; the rest of the last.
    ///
    /// # Errors
    /// The database failed.
    pub async fn drain(&self, stop: &CancellationToken) -> Result<Looked, StoreError> {
        let mut waited = Duration::ZERO;
        let mut sum = Looked::default();
        loop {
            let looked = self.scan().await?;
            sum = Looked {
                taken: sum.taken + looked.taken,
                intents: sum.intents + looked.intents,
                refused: sum.refused + looked.refused,
                ..looked
            };
            let Some(wait) = sum.again_in.filter(|wait| waited + *wait <= LONGEST_DRAIN) else {
                return Ok(sum);
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(sum),
                () = self.clock.sleep(wait) => waited += wait,
            }
        }
    }

    /// What lies in the directory and stays there, as last seen.
    pub fn left(&self) -> Vec<Left> {
        self.last_left().list()
    }

    async fn look(&self, renamed: &[String], state: &mut State, look: &mut Look) -> Result<(), StoreError> {
        if !self.settings.enabled || !self.store.read(engine::is_enabled).await? {
            for name in waiting_files(&self.settings.dir) {
                self.leave(look, &name, SWITCHED_OFF);
            }
            return Ok(());
        }
        let directories = match self.directories(state).await? {
            Ok(directories) => directories,
            Err(why) => {
                self.leave(look, &self.dir_name(), &why);
                look.problem = Some(self.masker.text(&why));
                return Ok(());
            }
        };
        let unread = |what: &str, error: &io::Error| {
            cannot(&format!("outbound.spool_dir: {what} cannot be read"), error)
        };
        let of = Arc::clone(&directories);
        let claims = match self.worker.run(move || claim::pending(&of)).await? {
            Ok(claims) => claims,
            Err(error) => {
                let path = directories.claimed.path().display().to_string();
                self.leave(look, &path, &unread(&path, &error));
                Vec::new()
            }
        };
        let of = Arc::clone(&directories);
        let mut listing = match self.worker.run(move || listing::list(&of.spool)).await? {
            Ok(listing) => listing,
            Err(error) => {
                self.leave(look, &self.dir_name(), &unread(&self.dir_name(), &error));
                return Ok(());
            }
        };
        let keys: Vec<String> = claims.iter().map(Claim::key).collect();
        let names = listing.candidates.iter().map(|candidate| candidate.name.as_str());
        state.unstill.keep(&keys.iter().map(String::as_str).chain(names).collect());
        // All at once, so that several files that are still being written delay the younger ones together for as long as one does.
        for listing::Candidate { name, stamp } in &listing.candidates {
            if !renamed.contains(name) {
                let _ = state.unstill.wait(name, *stamp, &*self.clock);
            }
        }
        for Left { name, why } in listing.left.list() {
            self.leave(look, &name, &why);
        }
        look.left.more += listing.left.more;
        // What was begun is finished first.
        let mut claimed_names = HashSet::new();
        for claim in claims {
            match self.proceed(&directories, &claim, None, state, look).await? {
                Handled::Finished => {}
                Handled::Stays => drop(claimed_names.insert(claim.name)),
                Handled::Delays => return Ok(()),
            }
        }
        state.unstill.sort(&mut listing.candidates);
        for listing::Candidate { name, stamp } in listing.candidates {
            // The earlier file of this name is not dealt with yet.
            if claimed_names.contains(&name) {
                continue;
            }
            if !renamed.contains(&name)
                && let Some(wait) = state.unstill.wait(&name, stamp, &*self.clock)
            {
                match look.waits_for(wait, state.unstill.delay(&name, &*self.clock)) {
                    true => return Ok(()),
                    false => continue,
                }
            }
            let (of, asked) = (Arc::clone(&directories), name.clone());
            match self.worker.run(move || claim::claim(&of, &asked, &stamp)).await? {
                Ok(Taken::Gone) => state.unstill.forget(&name),
                Ok(Taken::Changed) => look.again_in(AGAIN),
                Ok(Taken::Left(why)) => self.leave(look, &name, &why),
                Err(error) => self.leave(look, &name, &cannot("cannot be moved to .claimed/", &error)),
                Ok(Taken::Claimed(claim)) => {
                    state.unstill.forget(&name);
                    if self.proceed(&directories, &claim, Some(stamp), state, look).await? == Handled::Delays
                    {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The open directories; opened, created and locked where they are not. An error says why they
    /// cannot be used.
    async fn directories(&self, state: &mut State) -> Result<Result<Arc<Directories>, String>, StoreError> {
        let (path, database) = (self.settings.dir.clone(), self.store.path().to_owned());
        let known = state.directories.take();
        let opened = self.worker.run(move || match known {
            Some(known) if known.is_at(&path) => Ok(known),
            known => {
                // The lock goes with the handle: another process may be waiting for it.
                drop(known);
                Directories::open(&path, &database).map(Arc::new)
            }
        });
        let opened = opened.await?;
        state.directories = opened.as_ref().ok().cloned();
        Ok(opened)
    }

    /// Notes that a file stays where it is.
    fn leave(&self, look: &mut Look, name: &str, why: &str) {
        look.left.add(name, self.masker.text(why));
    }

    /// Keeps what the look left; a log line says so once for each file.
    fn report(&self, left: Leftovers) {
        let mut last = self.last_left();
        // Of a mass of files that grows, each look names others first: the first look that met it has named enough.
        let is_mass = left.more > 0 && last.more > 0;
        for Left { name, why } in left.list() {
            if !is_mass && last.why(&name) != Some(&why) {
                let file = self.masker.text(&name);
                tracing::warn!(file, "{file} is left where it is: {why}");
            }
        }
        if left.more > 0 && last.more == 0 {
            tracing::warn!(
                "{} more files are left where they are; `komoju-sync status` names the first",
                left.more
            );
        }
        *last = left;
    }

    fn warn_of_refused(&self, name: &str, why: &str) {
        let (file, why) = (self.masker.text(name), self.masker.text(why));
        tracing::warn!(file, "rejected/{file} is older than 30 days: {why}");
    }

    fn last_left(&self) -> MutexGuard<'_, Leftovers> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir_name(&self) -> String {
        self.settings.dir.display().to_string()
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is wrong with the file's name, if anything.
fn bad_name(name: &str) -> Option<BadLine> {
    let longest = papers::LONGEST_NAME;
    let words = format!("the file's name: must have at most {longest} bytes, for its receipt bears it");
    (name.len() > longest).then_some(BadLine { number: 0, words })
}

fn cannot(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}; {}; it is tried again with the next look", file::advice(error))
}
