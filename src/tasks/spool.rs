//! The spool door: files that others drop become intents, and give way to receipts.
//!
//! ```text
//!   still for a second, or renamed ─▶ opened, read, checked ─▶ all its intents in one transaction ─▶ receipt ─▶ file removed
//!                                          │ no regular file,        │ refused
//!                                          ▼ not readable …          ▼
//!                                     left, told once           masked copy and sentences in rejected/ ─▶ file removed
//! ```
//!
//! The order is what makes it safe: intents are committed before the receipt is written, and the receipt is on disk before the
//! file goes. Whatever ends the process in between, the next look finds the same file, makes the same ids of the same content, and
//! only catches up. What the file system refuses is told, and tried again with the next look; only the database's failures are
//! errors.
//!
//! Rejected: renaming a file before it is read (its owner could still write to it), and reading it twice.

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
pub mod erase;
mod file;
mod lines;
mod papers;
mod redact;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

pub use file::SPOOL_MODE;
use file::{Content, Gone, Opened, RECEIPTS, REJECTED, Stamp};
use redact::ByLine;

use crate::clock::Clock;
use crate::config::SecretKey;
use crate::mask::Masker;
use crate::model::time;
use crate::model::words::count;
use crate::store::spool::{self, BadLine, Judged, Receipt, SpoolFile};
use crate::store::{Store, StoreError};

/// How long a file that was not renamed into place must have been still.
const STILL: Duration = Duration::from_secs(1);

/// How long a drain waits for files to become still.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

/// How long receipts are kept after their last intent was settled: 30 days.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

const SWITCHED_OFF: &str = "waits: pushing is switched off (outbound.enabled = false)";

const NOT_UTF_8: &str = "has a name that is not UTF-8: give it another";

const NO_ENDING: &str = "must end in .json (one intent) or .jsonl (one a line): rename it";

/// What the door is told once.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Where files are dropped, absolute.
    pub dir: PathBuf,
    /// Whether anything is accepted.
    pub enabled: bool,
}

/// What a look at the directory came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Files whose intents were accepted.
    pub taken: u64,
    /// Intents that were not in the outbox before.
    pub intents: u64,
    /// Files that were refused and put aside.
    pub refused: u64,
    /// What still lies there though its time has come, and the directory itself where it cannot be used.
    pub left: Vec<Left>,
    /// In how long the next file can be ready, where one is not still yet.
    pub again_in: Option<Duration>,
}

impl Looked {
    fn again_in(&mut self, wait: Duration) {
        self.again_in = Some(self.again_in.map_or(wait, |known| known.min(wait)));
    }
}

/// A file that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name; the path where it is the directory itself.
    pub name: String,
    /// Why, and what to do; safe to show.
    pub why: String,
}

/// The spool door.
pub struct Spool {
    store: Arc<Store>,
    masker: Arc<Masker>,
    clock: Arc<dyn Clock>,
    settings: SpoolSettings,
    /// One look at a time.
    memory: tokio::sync::Mutex<Memory>,
    /// What was told, by name.
    told: Mutex<BTreeMap<String, String>>,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Files that were not still, and since when, by the steady clock, each is as it is.
    restless: HashMap<String, (Stamp, Duration)>,
    /// Files that are dealt with and could not be removed.
    finished: HashMap<String, Stamp>,
}

impl Memory {
    /// How long a file must still be left alone. One whose times lie in the future counts from when we first saw it so.
    fn wait(&mut self, name: &str, stamp: Stamp, clock: &dyn Clock) -> Option<Duration> {
        let elapsed = clock.elapsed();
        let (known, since) = self.restless.entry(name.to_owned()).or_insert((stamp, elapsed));
        if *known != stamp {
            (*known, *since) = (stamp, elapsed);
        }
        let seen = elapsed.saturating_sub(*since);
        let age = clock.now().as_nanosecond() - stamp.touched();
        let age = u64::try_from(age).map_or(Duration::ZERO, Duration::from_nanos);
        let wait = STILL.saturating_sub(age.max(seen));
        if wait.is_zero() {
            self.restless.remove(name);
        }
        Some(wait).filter(|wait| !wait.is_zero())
    }
}

/// Which files may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// All.
    Now,
    /// Those that have been still.
    OnceStill,
}

/// A name in the directory, and what lies there.
type Found = (OsString, Metadata);

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
            settings,
            memory: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Takes every file that has been still for a second, in the order in which they were dropped.
    ///
    /// # Errors
    /// The database failed. What the file system refuses is in [`Looked::left`].
    pub async fn scan(&self) -> Result<Looked, StoreError> {
        let mut memory = self.memory.lock().await;
        let mut looked = Looked::default();
        if !self.settings.enabled {
            for name in waiting_files(&self.settings.dir) {
                self.leave(&mut looked, &name, SWITCHED_OFF);
            }
            self.forget_all_but(&mut memory, &looked.left.iter().map(|left| left.name.clone()).collect());
            return Ok(looked);
        }
        let spool = self.settings.dir.clone();
        match blocking(move || file::prepare(&spool).and_then(|()| list(&spool))).await? {
            Err(why) => self.leave(&mut looked, &self.dir_name(), &why),
            Ok(found) => {
                let names = found.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
                self.forget_all_but(&mut memory, &names);
                self.look_at(found, Ready::OnceStill, &mut memory, &mut looked).await?;
            }
        }
        Ok(looked)
    }

    /// Takes files that were renamed into place just now: such are whole.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take(&self, names: &[String]) -> Result<Looked, StoreError> {
        let mut memory = self.memory.lock().await;
        let mut looked = Looked::default();
        let names: Vec<String> = names.iter().filter(|name| is_dropped(name)).cloned().collect();
        if !self.settings.enabled {
            for name in names {
                self.leave(&mut looked, &name, SWITCHED_OFF);
            }
            return Ok(looked);
        }
        let (spool, asked) = (self.settings.dir.clone(), names.clone());
        let found = blocking(move || {
            file::prepare(&spool)?;
            let lies =
                |name: String| Some((OsString::from(&name), fs::symlink_metadata(spool.join(name)).ok()?));
            Ok::<Vec<Found>, String>(asked.into_iter().filter_map(lies).collect())
        });
        match found.await? {
            Err(why) => self.leave(&mut looked, &self.dir_name(), &why),
            Ok(found) => {
                self.told().remove(&self.dir_name());
                self.look_at(found, Ready::Now, &mut memory, &mut looked).await?;
            }
        }
        Ok(looked)
    }

    /// Takes every file, waiting a few seconds at most for those that are not still yet. The sums are of all looks; `left` and
    /// `again_in` of the last.
    ///
    /// # Errors
    /// The database failed.
    pub async fn drain(&self, stop: &CancellationToken) -> Result<Looked, StoreError> {
        let mut waited = Duration::ZERO;
        let mut sum = Looked::default();
        loop {
            let looked = self.scan().await?;
            sum.taken += looked.taken;
            sum.intents += looked.intents;
            sum.refused += looked.refused;
            (sum.left, sum.again_in) = (looked.left, looked.again_in);
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

    /// Writes the receipts anew whose last intent was settled, and removes those that are older than 30 days.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tend_receipts(&self) -> Result<(), StoreError> {
        let _turn = self.memory.lock().await;
        let mut looked = Looked::default();
        let mut written = Vec::new();
        for name in self.store.read(spool::newly_settled).await? {
            let asked = name.clone();
            let Some(receipt) = self.store.read(move |conn| spool::receipt(conn, &asked)).await? else {
                continue;
            };
            match self.write_receipt(receipt).await? {
                Ok(()) => written.push(name),
                Err(why) => self.leave(&mut looked, &name, &why),
            }
        }
        let before = self.clock.now().checked_sub(KEPT).map(time::written).unwrap_or_default();
        let mut removed = Vec::new();
        for name in self.store.read(move |conn| spool::settled_before(conn, &before)).await? {
            let (spool, receipt) = (self.settings.dir.clone(), name.clone());
            match blocking(move || papers::remove_receipt(&spool, &receipt)).await? {
                Ok(()) => removed.push(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => removed.push(name),
                Err(error) => {
                    self.leave(&mut looked, &name, &cannot("its receipt cannot be removed", &error))
                }
            }
        }
        if written.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let noted = self.store.write(move |tx| {
            written.iter().try_for_each(|name| spool::note_settled(tx, name))?;
            removed.iter().try_for_each(|name| spool::forget(tx, name))
        });
        noted.await
    }

    /// What lies in the directory and stays there, as last seen.
    pub fn left(&self) -> Vec<Left> {
        self.told().iter().map(|(name, why)| Left { name: name.clone(), why: why.clone() }).collect()
    }

    async fn look_at(
        &self,
        found: Vec<Found>,
        ready: Ready,
        memory: &mut Memory,
        looked: &mut Looked,
    ) -> Result<(), StoreError> {
        for (name, metadata) in found {
            let Some(name) = name.to_str() else {
                self.leave(looked, &name.to_string_lossy(), NOT_UTF_8);
                continue;
            };
            if let Some(why) = file::kind(&metadata) {
                self.leave(looked, name, why);
                continue;
            }
            let stamp = Stamp::of(&metadata);
            if ready == Ready::OnceStill
                && let Some(wait) = memory.wait(name, stamp, &*self.clock)
            {
                looked.again_in(wait);
                continue;
            }
            if memory.finished.get(name) == Some(&stamp) {
                self.take_away(name, stamp, memory, looked).await?;
                continue;
            }
            let Some((stem, by_line)) = ending(name) else {
                self.leave(looked, name, NO_ENDING);
                continue;
            };
            let path = self.settings.dir.join(name);
            match blocking(move || file::open(&path)).await? {
                Opened::Gone => {
                    self.told().remove(name);
                }
                Opened::Changing => looked.again_in(STILL),
                Opened::Left(why) => self.leave(looked, name, &why),
                Opened::Whole(content) => self.judge(name, stem, content, by_line, memory, looked).await?,
            }
        }
        Ok(())
    }

    /// Takes or refuses a file.
    async fn judge(
        &self,
        name: &str,
        stem: &str,
        content: Content,
        by_line: ByLine,
        memory: &mut Memory,
        looked: &mut Looked,
    ) -> Result<(), StoreError> {
        let Content { bytes, stamp, owner } = content;
        let (text, from) = (Arc::new(bytes), stem.to_owned());
        let read = Arc::clone(&text);
        let (lines, mut bad) = blocking(move || lines::read(&from, &read, by_line)).await?;
        if name.len() > papers::LONGEST_NAME {
            let words = format!(
                "the file's name: must have at most {} bytes, for its receipt bears it",
                papers::LONGEST_NAME
            );
            bad.insert(0, BadLine { number: 0, words });
        }
        let file =
            SpoolFile { name: name.to_owned(), by: owner, at: time::written(self.clock.now()), lines, bad };
        let written = match self.store.write(move |tx| spool::accept_file(tx, &file)).await? {
            Judged::SwitchedOff => {
                self.leave(looked, name, SWITCHED_OFF);
                return Ok(());
            }
            Judged::Taken { new, receipt } => {
                let (file, intents) = (self.masker.text(name), receipt.intents.len());
                tracing::info!(
                    file,
                    intents,
                    new,
                    "{file} was taken: {}, {new} new",
                    count(intents as u64, "intent")
                );
                looked.taken += 1;
                looked.intents += new;
                self.write_receipt(receipt).await?
            }
            Judged::Refused(bad) => {
                let put_aside = self.put_aside(name, text, by_line, bad).await?;
                looked.refused += u64::from(put_aside.is_ok());
                put_aside
            }
        };
        match written {
            Err(why) => self.leave(looked, name, &why),
            Ok(()) => self.take_away(name, stamp, memory, looked).await?,
        }
        Ok(())
    }

    async fn write_receipt(&self, receipt: Receipt) -> Result<Result<(), String>, StoreError> {
        let (spool, masker) = (self.settings.dir.clone(), Arc::clone(&self.masker));
        let written = blocking(move || papers::write_receipt(&spool, &masker, &receipt)).await?;
        Ok(written
            .map_err(|error| cannot("its intents were accepted, but its receipt cannot be written", &error)))
    }

    async fn put_aside(
        &self,
        name: &str,
        text: Arc<Vec<u8>>,
        by_line: ByLine,
        bad: Vec<BadLine>,
    ) -> Result<Result<(), String>, StoreError> {
        let why = bad.first().map(|bad| papers::sentence(&self.masker, by_line, bad)).unwrap_or_default();
        let (spool, masker, asked) = (self.settings.dir.clone(), Arc::clone(&self.masker), name.to_owned());
        let copied =
            blocking(move || papers::put_aside(&spool, &masker, &asked, &text, by_line, &bad)).await?;
        Ok(match copied {
            Ok(copy) => {
                let copy = self.masker.text(&format!("{REJECTED}/{copy}"));
                let file = self.masker.text(name);
                tracing::warn!(
                    file,
                    copy,
                    why,
                    "{file} was refused: {why}; it is now {copy}, with the reason beside it"
                );
                Ok(())
            }
            Err(error) => {
                Err(cannot(&format!("is refused ({why}), but cannot be copied to {REJECTED}/"), &error))
            }
        })
    }

    /// Removes a file that is dealt with.
    async fn take_away(
        &self,
        name: &str,
        stamp: Stamp,
        memory: &mut Memory,
        looked: &mut Looked,
    ) -> Result<(), StoreError> {
        // What was recorded of the file must outlive this process.
        self.store.still_in_place()?;
        let path = self.settings.dir.join(name);
        match blocking(move || file::take_away(&path, &stamp)).await? {
            Ok(gone) => {
                memory.finished.remove(name);
                memory.restless.remove(name);
                self.told().remove(name);
                if gone == Gone::Replaced {
                    looked.again_in(STILL);
                }
            }
            Err(error) => {
                memory.finished.insert(name.to_owned(), stamp);
                let why = format!("is dealt with, but cannot be removed from {}", self.dir_name());
                self.leave(looked, name, &cannot(&why, &error));
            }
        }
        Ok(())
    }

    /// Says that a file stays where it is; a log line says so once.
    fn leave(&self, looked: &mut Looked, name: &str, why: &str) {
        let why = self.masker.text(why);
        if self.told().insert(name.to_owned(), why.clone()).as_ref() != Some(&why) {
            let file = self.masker.text(name);
            tracing::warn!(file, "{file} is left where it is: {why}");
        }
        looked.left.push(Left { name: name.to_owned(), why });
    }

    /// Forgets what is known of files that are not there any more.
    fn forget_all_but(&self, memory: &mut Memory, names: &HashSet<String>) {
        self.told().retain(|name, _| names.contains(name));
        memory.restless.retain(|name, _| names.contains(name));
        memory.finished.retain(|name, _| names.contains(name));
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Files that lie in the directory, for `status`: their names alone, sorted; nothing is opened.
pub fn waiting_files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| is_dropped(name)).collect();
    names.sort();
    names
}

/// What lies in the directory and will not be taken, as the daemon (`who`) would say, for all that can be said without opening a
/// file; `may_read` says whether that user may. Changes nothing.
///
/// # Errors
/// The directory cannot be read.
pub fn that_stay(directory: &Path, who: &str, may_read: &dyn Fn(&Metadata) -> bool) -> io::Result<Vec<Left>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let path = directory.join(&name);
        let (Some(shown), Ok(metadata)) =
            (Some(name.to_string_lossy()).filter(|name| is_dropped(name)), fs::symlink_metadata(&path))
        else {
            continue;
        };
        let why = match file::kind(&metadata) {
            _ if name.to_str().is_none() => Some(NOT_UTF_8.to_owned()),
            Some(why) => Some(why.to_owned()),
            None if ending(&shown).is_none() => Some(NO_ENDING.to_owned()),
            None => file::why_left(&path, &metadata, who, may_read),
        };
        left.extend(why.map(|why| Left { name: shown.into_owned(), why }));
    }
    left.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(left)
}

/// How many files wait in the directory and how many were rejected, each counted up to `most`; nothing is opened.
pub fn count_files(dir: &Path, most: usize) -> (usize, usize) {
    let count = |dir: &Path, counts: &dyn Fn(&str) -> bool| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().take(most.saturating_mul(2));
        names.filter(|entry| counts(&entry.file_name().to_string_lossy())).take(most).count()
    };
    let rejected = |name: &str| !name.starts_with('.') && !name.ends_with(".error");
    (count(dir, &is_dropped), count(&dir.join(REJECTED), &rejected))
}

/// What lies in the directory, in the order in which it was dropped.
fn list(spool: &Path) -> Result<Vec<Found>, String> {
    let read = || -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(spool)? {
            let name = entry?.file_name();
            if is_dropped(&name.to_string_lossy())
                && let Ok(metadata) = fs::symlink_metadata(spool.join(&name))
            {
                found.push((name, metadata));
            }
        }
        found.sort_by_cached_key(|(name, metadata)| (Stamp::of(metadata).dropped(), name.clone()));
        Ok(found)
    };
    read().map_err(|error| cannot(&format!("outbound.spool_dir: {} cannot be read", spool.display()), &error))
}

/// A name without its ending, and what that says.
fn ending(name: &str) -> Option<(&str, ByLine)> {
    match name.rsplit_once('.') {
        Some((stem, "json")) => Some((stem, ByLine::No)),
        Some((stem, "jsonl")) => Some((stem, ByLine::Yes)),
        _ => None,
    }
}

/// Whether a name is one of a dropped file: neither hidden nor ours.
fn is_dropped(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/') && ![RECEIPTS, REJECTED].contains(&name)
}

fn cannot(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}; {}; it is tried again with the next look", file::advice(error))
}

/// Runs what waits for disks where waiting harms nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    // It fails only when the program ends.
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)
}
