//! The file door: turns files that operators and programs drop into intents, and replaces each by a
//! receipt.
//!
//! ```text
//!   scan   list the directory                               (scan)
//!   plan   choose the files to take now, and their order    (komoju_core::plan::spool, pure)
//!   take   perform the remaining steps of each file         (take)
//! ```
//!
//! The life of a file, and what a crash after each step leaves:
//!
//! | step | in the directory | in the database | the next scan |
//! |---|---|---|---|
//! | dropped | `NAME` | – | claims it once it is unchanged for a second, or was renamed into place |
//! | claimed | `.claimed/CLAIM/NAME` | – | reads it, and accepts or refuses it |
//! | refused | the same, `rejected/NAME.error`, then `rejected/NAME` | – | refuses it again; one copy of the same content is kept |
//! | accepted | `.claimed/CLAIM/NAME` | the file with its CLAIM, and all its intents | keeps bytes that arrived since in `rejected/`, and writes the receipt |
//! | receipt | the same, and `receipts/NAME.json` | the same | the same |
//! | removed | `.claimed/CLAIM/`, empty | the same | removes the directory |
//!
//! So directory and database alone determine the next step. The order makes this safe:
//! - A file is out of the reach of other users before it is read.
//! - Its intents are committed before the receipt is written.
//! - It is removed last, and only if it is unchanged since it was read.
//!
//! A failure of the file system is reported, and the next scan retries the step. Only failures of
//! the database are errors.

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
mod claim;
mod directories;
pub mod erase;
mod file;
mod folder;
mod lines;
mod receipts;
mod redact;
mod rejected;
mod report;
mod scan;
mod take;
mod upkeep;
mod worker;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use directories::Directories;
use scan::SkippedFiles;
use take::TakeError;
use worker::Worker;

use crate::clock::Clock;
use crate::secret::{Masker, SecretKey};
use crate::store::outbox::{engine, spool};
use crate::store::{Store, StoreError};
use komoju_core::plan::spool::{ChangingFiles, LONGEST_DELAY, ScanTime};

pub use directories::SPOOL_MODE;
pub use directories::locked_by_another;
pub use report::{Overview, SpoolUser, count_files, waiting_files};
pub use scan::{MOST_NAMED, SkippedFile};

/// LONGEST_DRAIN limits how long a drain waits: as long as a file that is being written may delay
/// the others, and one more second.
const LONGEST_DRAIN: Duration = LONGEST_DELAY.saturating_add(Duration::from_secs(1));

/// REREAD_AFTER controls how soon a file is read again that changed while it was read.
const REREAD_AFTER: Duration = Duration::from_secs(1);

/// RETENTION controls how long receipts are kept after their last intent settled, and refused files
/// after they were moved to `rejected/`: 30 days.
const RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// EXPIRE_EVERY controls how often old refused files are removed, because each time reads the whole
/// of `rejected/`.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

const SWITCHED_OFF: &str = "waits: pushing is switched off (outbound.enabled = false)";

/// The settings of the file door.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// The absolute path of the directory in which files are dropped.
    pub dir: PathBuf,
    /// Whether files are accepted.
    pub enabled: bool,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// The number of accepted files.
    pub taken: u64,
    /// The number of intents that were not in the outbox before.
    pub intents: u64,
    /// The number of files that were refused and moved to `rejected/`.
    pub refused: u64,
    /// The files that were due and not taken, and the directory itself if it cannot be used. At
    /// most [`MOST_NAMED`].
    pub skipped: Vec<SkippedFile>,
    /// The number of further skipped files.
    pub more_skipped: u64,
    /// The time until the next file can be ready, if one is still being written.
    pub again_in: Option<Duration>,
}

/// The file door.
pub struct Spool {
    store: Arc<Store>,
    masker: Arc<Masker>,
    clock: Arc<dyn Clock>,
    settings: SpoolSettings,
    /// The lock allows one scan at a time.
    state: tokio::sync::Mutex<State>,
    worker: Worker,
}

/// The state between two scans.
#[derive(Debug, Default)]
struct State {
    /// The open and locked directories, since the first scan that could open them.
    directories: Option<Arc<Directories>>,
    changing: ChangingFiles,
    /// The files that the last scan skipped.
    skipped: SkippedFiles,
    /// Why no file is taken, as last recorded in the database. The outer `None`: nothing is
    /// recorded by this process yet.
    problem: Option<Option<String>>,
    /// When old refused files were last removed, by the steady clock.
    expired_at: Option<Duration>,
}

/// A running scan.
#[derive(Debug, Default)]
struct ScanProgress {
    summary: ScanSummary,
    skipped: SkippedFiles,
    /// Whether files were not reached because they wait for an older one.
    is_cut: bool,
}

impl Spool {
    /// Returns a door that does nothing until one of its methods is called. `key` is masked in
    /// texts.
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
        }
    }

    /// Takes every file that has been unchanged for a second, in the order in which they were
    /// dropped.
    ///
    /// # Errors
    /// The database failed. Failures of the file system are in [`ScanSummary::skipped`].
    pub async fn scan(&self) -> Result<ScanSummary, StoreError> {
        self.take(&[]).await
    }

    /// Like [`Self::scan`], and takes the files in `renamed` at once. They were renamed into place
    /// just now, so they are complete.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take(&self, renamed: &[String]) -> Result<ScanSummary, StoreError> {
        let mut state = self.state.lock().await;
        let (mut progress, mut problem) = (ScanProgress::default(), None);
        if !self.settings.enabled || !self.store.read(engine::is_enabled).await? {
            for name in waiting_files(&self.settings.dir) {
                self.skip(&mut progress, &name, SWITCHED_OFF);
            }
        } else {
            match self.directories(&mut state).await? {
                Ok(at) => self.take_files(&at, renamed, &mut state.changing, &mut progress).await?,
                Err(why) => {
                    self.skip(&mut progress, &self.settings.dir.display().to_string(), &why);
                    problem = Some(self.masker.text(&why));
                }
            }
        }
        if state.problem.as_ref() != Some(&problem) {
            let recorded = problem.clone();
            self.store.write(move |tx| spool::set_problem(tx, recorded.as_deref())).await?;
            state.problem = Some(problem);
        }
        let ScanProgress { mut summary, mut skipped, is_cut } = progress;
        if is_cut {
            skipped.add_missing(&state.skipped);
        }
        (summary.skipped, summary.more_skipped) = (skipped.list(), skipped.more);
        self.report(&skipped, &state.skipped);
        state.skipped = skipped;
        Ok(summary)
    }

    /// Takes every file, and waits up to 11 seconds for files that are still being written.
    /// Counts are summed over all scans; the other fields are of the last scan.
    ///
    /// # Errors
    /// The database failed.
    pub async fn drain(&self, stop: &CancellationToken) -> Result<ScanSummary, StoreError> {
        let mut waited = Duration::ZERO;
        let mut sum = ScanSummary::default();
        loop {
            let scanned = self.scan().await?;
            sum = ScanSummary {
                taken: sum.taken + scanned.taken,
                intents: sum.intents + scanned.intents,
                refused: sum.refused + scanned.refused,
                ..scanned
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

    async fn take_files(
        &self,
        at: &Arc<Directories>,
        renamed: &[String],
        changing: &mut ChangingFiles,
        progress: &mut ScanProgress,
    ) -> Result<(), StoreError> {
        let found = self.on_disk(at, scan::scan).await?;
        for SkippedFile { name, why } in found.skipped.list() {
            self.skip(progress, &name, &why);
        }
        progress.skipped.more += found.skipped.more;
        let wall = self.clock.now().min(self.clock.machine_time());
        let now = ScanTime { wall, steady: self.clock.elapsed() };
        let plan = changing.plan(found.files, renamed, now);
        tracing::debug!("spool: {}", self.masker.text(&plan.to_string()));
        (progress.summary.again_in, progress.is_cut) = (plan.again_in, plan.is_cut);
        let mut unfinished = HashSet::new();
        for file in plan.take {
            // An earlier file of this name is not finished, and must be taken first.
            if unfinished.contains(&file.name) {
                continue;
            }
            match self.take_file(at, file.clone(), &mut progress.summary).await {
                Ok(()) => changing.forget(&file),
                Err(TakeError::Database(error)) => return Err(error),
                Err(TakeError::Skip(why)) => {
                    self.skip(progress, &file.name, &why);
                    unfinished.insert(file.name);
                }
                Err(TakeError::Changing) => {
                    let delay = changing.note_change(&file, now);
                    let again_in = delay.map_or(REREAD_AFTER, |delay| delay.min(REREAD_AFTER));
                    let known = progress.summary.again_in;
                    progress.summary.again_in = Some(known.map_or(again_in, |known| known.min(again_in)));
                    if delay.is_some() {
                        progress.is_cut = true;
                        break;
                    }
                    unfinished.insert(file.name);
                }
            }
        }
        Ok(())
    }

    /// Returns the open directories. Opens, creates and locks them if they are not open. The inner
    /// error says why they cannot be used.
    async fn directories(&self, state: &mut State) -> Result<Result<Arc<Directories>, String>, StoreError> {
        let (path, database) = (self.settings.dir.clone(), self.store.path().to_owned());
        let known = state.directories.take();
        let opened = self.worker.run(move || match known {
            Some(known) if known.is_at(&path) => Ok(known),
            known => {
                // Release the lock with the handle, because another process may wait for it.
                drop(known);
                Directories::open(&path, &database).map(Arc::new)
            }
        });
        let opened = opened.await?;
        state.directories = opened.as_ref().ok().cloned();
        Ok(opened)
    }

    /// Runs `work` on the thread for file operations.
    async fn on_disk<T: Send + 'static>(
        &self,
        at: &Arc<Directories>,
        work: impl FnOnce(&Directories) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let at = Arc::clone(at);
        self.worker.run(move || work(&at)).await
    }

    /// Notes that a file is skipped.
    fn skip(&self, progress: &mut ScanProgress, name: &str, why: &str) {
        progress.skipped.add(name, self.masker.text(why));
    }

    /// Logs the files that this scan skipped and the last one did not.
    fn report(&self, skipped: &SkippedFiles, last: &SkippedFiles) {
        // While very many files are skipped, the first names can differ from scan to scan. The
        // first such scan has logged enough names.
        let is_mass = skipped.more > 0 && last.more > 0;
        for SkippedFile { name, why } in skipped.list() {
            if !is_mass && last.why(&name) != Some(&why) {
                let file = self.masker.name(&name);
                tracing::warn!(file, "{file} is skipped: {why}");
            }
        }
        if skipped.more > 0 && last.more == 0 {
            tracing::warn!("{} more files are skipped; `komoju-sync status` names the first", skipped.more);
        }
    }
}
