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
mod papers;
mod redact;
mod report;
mod worker;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use claim::{Claim, Taken};
use directories::Directories;
pub use directories::SPOOL_MODE;
use file::{Opened, Stamp};
pub use listing::{Leftovers, MOST_NAMED};
use listing::{Unstill, ending};
use papers::Aside;
use redact::ByLine;
pub use report::{Overview, count_files, locked_by_another, that_stay, waiting_files};
use worker::Worker;

use crate::clock::Clock;
use crate::secret::Masker;
use crate::secret::SecretKey;
use crate::store::outbox::engine;
use crate::store::outbox::spool;
use crate::store::outbox::spool::{Accepted, BadLine, BadLines, Judged, Receipt, SpoolFile};
use crate::store::{Store, StoreError};
use komoju_core::time;
use komoju_core::words::count;

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

/// Settings of the door that do not change.
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
    /// Files that stay though their time has come, and the directory itself where it cannot be
    /// used. At most [`MOST_NAMED`].
    pub left: Vec<Left>,
    /// How many more files stay.
    pub more_left: u64,
    /// In how long the next file can be ready, where one is still being written.
    pub again_in: Option<Duration>,
}

/// A file that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

    /// Rewrites the receipts whose last intent was settled, and removes those that are older than
    /// 30 days.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tend_receipts(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let settled = self.store.read(spool::newly_settled).await?;
        let before = self.expires_before().map(time::written).unwrap_or_default();
        let old = self.store.read(move |conn| spool::settled_before(conn, &before)).await?;
        if settled.is_empty() && old.is_empty() {
            return Ok(());
        }
        // The next look reports why they cannot be used.
        let Ok(directories) = self.directories(&mut state).await? else { return Ok(()) };
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for name in settled {
            let asked = name.clone();
            let Some(receipt) = self.store.read(move |conn| spool::receipt(conn, &asked)).await? else {
                continue;
            };
            match self.write_receipt(&directories, receipt).await? {
                Ok(()) => written.push(name),
                Err(why) => self.warn_of_receipt(&name, &why),
            }
        }
        for name in old {
            let (directories, receipt) = (Arc::clone(&directories), name.clone());
            match self.worker.run(move || papers::remove_receipt(&directories.receipts, &receipt)).await? {
                Ok(()) => removed.push(name),
                Err(error) => self.warn_of_receipt(&name, &cannot("it cannot be removed", &error)),
            }
        }
        let noted = self.store.write(move |tx| {
            written.iter().try_for_each(|name| spool::note_settled(tx, name))?;
            removed.iter().try_for_each(|name| spool::forget(tx, name))
        });
        noted.await
    }

    /// Removes the refused files that were put aside more than 30 days ago, at most once an hour. A
    /// door that takes no files removes none.
    ///
    /// # Errors
    /// The database failed, or its path leads elsewhere.
    pub async fn expire_rejected(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let is_early =
            state.expired_at.is_some_and(|last| self.clock.elapsed().saturating_sub(last) < EXPIRE_EVERY);
        if is_early || state.directories.is_none() {
            return Ok(());
        }
        let Some(before) = self.expires_before() else { return Ok(()) };
        // The next look reports why they cannot be used.
        let Ok(directories) = self.directories(&mut state).await? else { return Ok(()) };
        state.expired_at = Some(self.clock.elapsed());
        match self.worker.run(move || papers::remove_before(&directories.rejected, before)).await? {
            Ok(failed) => {
                for (name, error) in failed {
                    self.warn_of_refused(&name.to_string_lossy(), &cannot("it cannot be removed", &error));
                }
            }
            Err(error) => tracing::warn!("rejected/ cannot be read: {error}; {}", file::advice(&error)),
        }
        Ok(())
    }

    /// Records of what ended before this moment may be removed; `None` while the clock is not trusted.
    fn expires_before(&self) -> Option<Timestamp> {
        self.clock.now().checked_sub(KEPT).ok().filter(|_| self.clock.may_expire())
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

    /// Processes a claimed file. `seen` is the file's stamp where it was just claimed.
    async fn proceed(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        seen: Option<Stamp>,
        state: &mut State,
        look: &mut Look,
    ) -> Result<Handled, StoreError> {
        let Some((_, by_line)) = ending(&claim.name) else {
            self.leave(look, &claim.key(), "is none of the files that are taken: remove it");
            return Ok(Handled::Stays);
        };
        let (of, asked) = (Arc::clone(directories), claim.clone());
        let plain = match self.worker.run(move || asked.open(&of)).await? {
            Err(error) => return Ok(self.stays(look, claim, "is claimed and cannot be opened", &error)),
            Ok(Opened::Gone) => return Ok(Handled::Finished),
            Ok(Opened::Left(why)) => return self.put_back(directories, claim, &why, look).await,
            Ok(Opened::Plain(plain)) => plain,
        };
        // Another file may have taken the name before it was claimed: that one may still be
        // written.
        let is_ready = seen.is_some_and(|seen| plain.stamp.is_same_content(&seen));
        if !is_ready && let Some(wait) = state.unstill.wait(&claim.key(), plain.stamp, &*self.clock) {
            return Ok(match look.waits_for(wait, state.unstill.delay(&claim.key(), &*self.clock)) {
                true => Handled::Delays,
                false => Handled::Stays,
            });
        }
        let plain = Arc::new(plain);
        let of = Arc::clone(&plain);
        let content = match self.worker.run(move || of.read()).await? {
            Err(error) => return Ok(self.stays(look, claim, "is claimed and cannot be read", &error)),
            Ok(None) => {
                look.again_in(AGAIN);
                return Ok(Handled::Stays);
            }
            Ok(Some(content)) => content,
        };
        let (name, id) = (claim.name.clone(), claim.id.clone());
        let accepted = match seen {
            Some(_) => None,
            None => self.store.read(move |conn| spool::accepted(conn, &name, &id)).await?,
        };
        let dealt_with = match accepted {
            Some(accepted) => self.catch_up(directories, claim, content, by_line, &accepted).await?,
            None => match self.judge(directories, claim, &plain.owner, content, by_line, look).await? {
                Some(done) => done,
                None => return self.put_back(directories, claim, SWITCHED_OFF, look).await,
            },
        };
        if let Err(why) = dealt_with {
            self.leave(look, &claim.name, &why);
            return Ok(Handled::Stays);
        }
        // What was recorded of the file must outlive this process.
        self.store.still_in_place()?;
        let (of, asked) = (Arc::clone(directories), claim.clone());
        match self.worker.run(move || asked.finish(&of, &plain)).await? {
            Err(error) => {
                Ok(self.stays(look, claim, "is dealt with, but cannot be removed from .claimed/", &error))
            }
            Ok(false) => {
                look.again_in(AGAIN);
                Ok(Handled::Stays)
            }
            Ok(true) => {
                state.unstill.forget(&claim.key());
                Ok(Handled::Finished)
            }
        }
    }

    fn stays(&self, look: &mut Look, claim: &Claim, what: &str, error: &io::Error) -> Handled {
        self.leave(look, &claim.name, &cannot(what, error));
        Handled::Stays
    }

    async fn put_back(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        why: &str,
        look: &mut Look,
    ) -> Result<Handled, StoreError> {
        self.leave(look, &claim.name, why);
        let (of, asked) = (Arc::clone(directories), claim.clone());
        Ok(match self.worker.run(move || asked.put_back(&of)).await? {
            Ok(()) => Handled::Finished,
            Err(error) => self.stays(look, claim, &format!("{why}; it lies in {}", claim.key()), &error),
        })
    }

    /// A claim that was accepted before the last process ended: writes its receipt, and puts aside
    /// what arrived since.
    async fn catch_up(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        content: Vec<u8>,
        by_line: ByLine,
        accepted: &Accepted,
    ) -> Result<Result<(), String>, StoreError> {
        let late = claim::late(content, accepted);
        if !late.is_empty() {
            let (of, masker, name) = (Arc::clone(directories), Arc::clone(&self.masker), claim.name.clone());
            let now = self.clock.now();
            let kept = self.worker.run(move || {
                let aside = Aside { rejected: &of.rejected, masker: &masker, now };
                papers::put_late_aside(aside, &name, &late, by_line)
            });
            match kept.await? {
                Ok(copy) => {
                    let copy = self.masker.text(&format!("rejected/{copy}"));
                    let file = self.masker.text(&claim.name);
                    tracing::warn!(
                        file,
                        copy,
                        "{file} was written to after it was read: nothing of that was accepted, and it is now {copy}"
                    );
                }
                Err(error) => {
                    let what = "was written to after it was read, and the rest cannot be kept";
                    return Ok(Err(cannot(what, &error)));
                }
            }
        }
        let name = claim.name.clone();
        match self.store.read(move |conn| spool::receipt(conn, &name)).await? {
            Some(receipt) => self.write_receipt(directories, receipt).await,
            None => Ok(Ok(())),
        }
    }

    /// Accepts or refuses a file; `None` where nothing is accepted just now.
    async fn judge(
        &self,
        directories: &Arc<Directories>,
        claim: &Claim,
        owner: &str,
        content: Vec<u8>,
        by_line: ByLine,
        look: &mut Look,
    ) -> Result<Option<Result<(), String>>, StoreError> {
        let content = Arc::new(content);
        let (read, name) = (Arc::clone(&content), claim.name.clone());
        let digest = self.worker.run(move || lines::digest(&read)).await?;
        let file = SpoolFile {
            name: name.clone(),
            by: owner.to_owned(),
            at: time::written(self.clock.now()),
            claim: claim.id.clone(),
            content: Accepted { len: content.len() as u64, digest },
        };
        let read = Arc::clone(&content);
        let judged = self.store.write(move |tx| {
            let stem = ending(&name).map_or(name.as_str(), |(stem, _)| stem);
            let lines = bad_name(&name).into_iter().map(Err).chain(lines::read(stem, &read, by_line));
            spool::accept_file(tx, &file, lines)
        });
        Ok(match judged.await? {
            Judged::SwitchedOff => None,
            Judged::Taken { new, receipt } => {
                drop(content);
                let (file, intents) = (self.masker.text(&claim.name), receipt.intents.len());
                tracing::info!(
                    file,
                    intents,
                    new,
                    "{file} was taken: {}, {new} new",
                    count(intents as u64, "intent")
                );
                look.sums.taken += 1;
                look.sums.intents += new;
                Some(self.write_receipt(directories, receipt).await?)
            }
            Judged::Refused(bad) => {
                let put_aside = self.put_aside(directories, &claim.name, content, by_line, bad).await?;
                look.sums.refused += u64::from(put_aside.is_ok());
                Some(put_aside)
            }
        })
    }

    async fn write_receipt(
        &self,
        directories: &Arc<Directories>,
        receipt: Receipt,
    ) -> Result<Result<(), String>, StoreError> {
        let (of, masker) = (Arc::clone(directories), Arc::clone(&self.masker));
        let written = self.worker.run(move || papers::write_receipt(&of.receipts, &masker, &receipt)).await?;
        Ok(written
            .map_err(|error| cannot("its intents were accepted, but its receipt cannot be written", &error)))
    }

    async fn put_aside(
        &self,
        directories: &Arc<Directories>,
        name: &str,
        content: Arc<Vec<u8>>,
        by_line: ByLine,
        bad: BadLines,
    ) -> Result<Result<(), String>, StoreError> {
        let why =
            bad.first.first().map(|bad| papers::sentence(&self.masker, by_line, bad)).unwrap_or_default();
        let (of, masker, asked) = (Arc::clone(directories), Arc::clone(&self.masker), name.to_owned());
        let now = self.clock.now();
        let copied = self.worker.run(move || {
            let aside = Aside { rejected: &of.rejected, masker: &masker, now };
            papers::put_aside(aside, &asked, &content, by_line, &bad)
        });
        Ok(match copied.await? {
            Ok(copy) => {
                let (file, copy) = (self.masker.text(name), self.masker.text(&format!("rejected/{copy}")));
                tracing::warn!(
                    file,
                    copy,
                    why,
                    "{file} was refused: {why}; it is now {copy}, with the reason beside it"
                );
                Ok(())
            }
            Err(error) => {
                Err(cannot(&format!("is refused ({why}), but cannot be copied to rejected/"), &error))
            }
        })
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

    fn warn_of_receipt(&self, name: &str, why: &str) {
        let (file, why) = (self.masker.text(name), self.masker.text(why));
        tracing::warn!(file, "the receipt of {file} is out of date: {why}");
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
