//! A restore: an earlier copy of the database becomes the database again.
//!
//! ```text
//! copy ─▶ check ─▶ one transaction in the copy ─▶ close the old database
//!      ─▶ rename the copy to the name that the old database will have ─▶ exchange the two names
//! ```
//!
//! Nothing is changed at the database's path before the copy is whole, checked and on the disk. The
//! last step is one exchange of two names, so there is always one whole database under the path,
//! whenever the machine stops. A `-wal` belongs to the file that it was written for and would
//! damage another one. So the commits of the old `-wal` are moved into the old database first.
//! Where that database is damaged, its `-wal`, `-journal` and `-shm` are renamed before the
//! exchange instead, and renamed back if it fails.
//!
//! An earlier database does not contain what was done since. So its unfinished intents are parked,
//! and its next complete sweep holds every deletion. Its log continues under another id, because a
//! reader may have seen entries under the old id that are now missing.

mod moved_files;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use moved_files::{MovedFiles, make_private};

use super::copy_job::{CopyJob, CopyStep};
use super::open::{self, TargetFile};
use super::place;
use crate::store::log::changes::{self, Head};
use crate::store::log::{hints, holds, mirror, passes, verify};
use crate::store::outbox::engine;
use crate::store::{Conn, Instance, StoreError, Tx};

/// PIECE controls how many bytes are copied at once.
const PIECE: usize = 1 << 20;

/// The suffixes of the files that SQLite keeps next to a database.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// A restored database that is not at its path yet.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// How many customers are live in it.
    pub live: u64,
    /// Where its log ends.
    pub head: Head,
    /// The latest time in it.
    pub last_at: Option<String>,
    /// How many intents are parked.
    pub parked: u64,
    /// The log's new id.
    pub log_id: String,
}

/// Copies the database at `from` to the new file `to`, checks it, and prepares it to be used as a
/// database; `at` is now. `from` is only read.
///
/// # Errors
/// [`StoreError::NotRestorable`] or [`StoreError::Newer`] where `from` cannot be restored;
/// [`StoreError::InUse`] where a process works on it.
pub fn prepare(from: &Path, to: &Path, at: &str, job: &CopyJob) -> Result<Prepared, StoreError> {
    let prepared = (|| {
        copy_files(from, to, job)?;
        make_ready(to, at, job).map_err(|e| e.with_path(to))
    })();
    job.or_stopped(prepared).map_err(|e| about_source(from, to, e))
}

/// Turns an error about the copy into one about its source, unless there is no room for the copy.
fn about_source(from: &Path, to: &Path, error: StoreError) -> StoreError {
    let unfit = |why: String| StoreError::NotRestorable { path: from.to_owned(), why };
    match error {
        StoreError::Damaged { why, .. } => unfit(format!("it is damaged ({why})")),
        StoreError::Foreign { why, .. } => unfit(why),
        StoreError::Missing(path) if path == to => unfit("it is empty".to_owned()),
        StoreError::Newer { found, known, .. } => StoreError::Newer { path: from.to_owned(), found, known },
        StoreError::Impossible(why) => unfit(why),
        StoreError::Sqlite { source, .. } => unfit(source.to_string()),
        StoreError::Migration { source, .. } => {
            unfit(format!("its schema could not be brought up to date: {source}"))
        }
        other => other,
    }
}

/// Copies the file, and what SQLite left next to it: without its `-wal` the last commits would be
/// missing.
fn copy_files(from: &Path, to: &Path, job: &CopyJob) -> Result<(), StoreError> {
    let unreadable = |source| StoreError::File { path: from.to_owned(), what: "cannot be read", source };
    // Another kind of file may have no end, or block when it is opened.
    if !fs::metadata(from).map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("it is not a file")));
    }
    // A database that another process writes to cannot be copied file by file.
    let _quiet = match Instance::share(from) {
        Err(StoreError::File { .. }) => None,
        other => Some(other?),
    };
    let from = place::real(from)?;
    let files: Vec<(PathBuf, PathBuf)> = [""]
        .into_iter()
        .chain(["-wal", "-journal"])
        .map(|suffix| (place::sibling(&from, suffix), place::sibling(to, suffix)))
        .filter(|(from, _)| fs::metadata(from).is_ok_and(|file| file.is_file()))
        .collect();
    let bytes = files.iter().filter_map(|(from, _)| Some(fs::metadata(from).ok()?.len())).sum();
    job.begin(CopyStep::Copying, bytes);
    let mut done = 0;
    let mut piece = vec![0; PIECE];
    for (from, to) in files {
        let unwritable = |source: std::io::Error| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full(to.clone()),
            _ => StoreError::File { path: to.clone(), what: "cannot be written", source },
        };
        let mut source = File::open(&from).map_err(unreadable)?;
        let mut target =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).map_err(unwritable)?;
        loop {
            job.check_stop()?;
            let read = source.read(&mut piece).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            target.write_all(&piece[..read]).map_err(unwritable)?;
            done += read as u64;
            job.set_done(done);
        }
    }
    Ok(())
}

fn make_ready(path: &Path, at: &str, job: &CopyJob) -> Result<Prepared, StoreError> {
    let mut conn = open::for_restore(path)?;
    job.interrupt_on_stop(&conn)?;
    let head = changes::head(&conn)?;
    job.begin(CopyStep::Checking, u64::try_from(head.seq).unwrap_or(0));
    let verified = verify::verify_with_progress(&conn, None, |seq| job.set_done(seq))?;
    if let Some(finding) = verified.findings.first() {
        let more = match verified.finding_count {
            1 => String::new(),
            n => format!(", and {} more findings", n - 1),
        };
        return Err(StoreError::Damaged { path: path.to_owned(), why: format!("{finding}{more}") });
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let prepared = reset_for_use(&tx, at)?;
    tx.commit()?;
    conn.close().map_err(|(_, e)| e)?;
    Ok(prepared)
}

/// Resets what must not be used again in an earlier database, and gives its log a new id.
fn reset_for_use(tx: &Tx<'_>, at: &str) -> Result<Prepared, StoreError> {
    let last_at = tx.query_row(
        "SELECT max(coalesce((SELECT max(coalesce(finished_at, started_at)) FROM pass), ''),
                    coalesce((SELECT max(created_at) FROM intents), ''))",
        [],
        |row| row.get::<_, String>(0),
    )?;
    let parked = engine::park_all(tx, at)?;
    passes::close_orphans(tx, at)?;
    holds::hold_all_from(tx, at)?;
    hints::reset(tx)?;
    // The first sweep requests each customer that it does not list.
    tx.execute("DELETE FROM unlisted", [])?;
    // Send alerts again, because intents are parked now.
    tx.execute("DELETE FROM alert", [])?;
    // The API's answers in it are out of date.
    let log_id = tx.query_row(
        "UPDATE meta SET log_id = lower(hex(randomblob(16))), is_backup = 0, refused_since = NULL, throttled_until = NULL, slowed = NULL
         RETURNING log_id",
        [],
        |row| row.get(0),
    )?;
    Ok(Prepared {
        live: mirror::live_count(tx)?,
        head: changes::head(tx)?,
        last_at: Some(last_at).filter(|at| !at.is_empty()),
        parked,
        log_id,
    })
}

/// Changes the owner of `prepared` and of the instance's lock file. The new owner is that of the
/// database at `path`, or of its directory where there is no database yet. Otherwise a service that
/// runs as another user could not open them.
///
/// # Errors
/// Only root can change the owner of a file.
pub fn give_to_owner(prepared: &Path, path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let old = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let mode = old.as_ref().map_or(0o640, |old| old.mode() & 0o777);
    let of_directory = || {
        fs::metadata(directory).map_err(|source| StoreError::File {
            path: directory.to_owned(),
            what: "cannot be read",
            source,
        })
    };
    let owner = old.map_or_else(of_directory, Ok)?;
    let given = |path: &Path, file: std::io::Result<File>, mode: Option<u32>| {
        let given = file.and_then(|file| {
            place::must_be_plain(&file)?;
            place::give(&file, &owner)?;
            mode.map_or(Ok(()), |mode| {
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.sync_all()
            })
        });
        let what = "cannot be given to the owner of the database (run this as root, or as that user); nothing was changed";
        let refused = |source| StoreError::File { path: path.to_owned(), what, source };
        given.map_err(|e| refused(place::explain_link(e)))
    };
    given(prepared, open_own(prepared), Some(mode))?;
    let lock = place::sibling(path, ".lock");
    given(&lock, place::open_plain(&lock), None)
}

/// Opens a file in a directory that this process created. The directory must still be ours: another
/// user may own the one above it, and replace it.
fn open_own(path: &Path) -> std::io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let flags = place::NO_LINKS | libc::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
    let found = opened.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(std::io::Error::other("its directory was replaced by another user"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&opened, path.file_name().unwrap_or_default(), flags, Mode::empty())?;
    Ok(File::from(file))
}

/// The files after a restore.
#[derive(Clone, Debug, Default)]
pub struct Replacement {
    /// The path of the old database, if there was one.
    pub kept: Option<PathBuf>,
    /// Whether only its owner can read the old database. It holds personal data, and payment tokens
    /// of unsettled intents.
    pub is_private: bool,
    /// Customers that were erased in the old database and have content in the new one; `None` where
    /// the old one cannot be read.
    pub lost_erasures: Option<Vec<String>>,
}

/// Replaces the database at `path` by `prepared`, a whole database in one file on the same file
/// system. `stamp` becomes part of the old database's new name. The caller holds the [`Instance`].
///
/// First `prepared` gets the name under which the old database will be kept. Then the two exchange
/// their names in one step. So no file has two names at any moment, because a database that is used
/// under two names is damaged. And there is always a file at `path`.
///
/// # Errors
/// Another program has the old database open, or the file system refuses. The old database is then
/// still at `path`.
pub fn put_in_place(prepared: &Path, path: &Path, stamp: &str) -> Result<Replacement, StoreError> {
    put_in_place_by(prepared, path, stamp, |one, other| {
        rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, RenameFlags::EXCHANGE)
    })
}

fn put_in_place_by(
    prepared: &Path,
    path: &Path,
    stamp: &str,
    exchange: impl FnOnce(&Path, &Path) -> rustix::io::Result<()>,
) -> Result<Replacement, StoreError> {
    let target = open::for_replacement(path)?;
    let lost_erasures = match &target {
        TargetFile::Absent => Some(Vec::new()),
        TargetFile::Closed(old) => lost_erasures(old, prepared).ok(),
        TargetFile::Damaged => None,
    };
    let failed = |what| {
        let path = path.to_owned();
        move |source| StoreError::File { path, what, source }
    };
    let kept = free_name(path, stamp);
    let is_absent = matches!(target, TargetFile::Absent);
    if !is_absent {
        fs::rename(prepared, &kept).map_err(failed("cannot be replaced"))?;
    }
    // Under names that belong to neither database, until the exchange is done.
    let mut moved = MovedFiles::default();
    let put = (|| {
        if !matches!(target, TargetFile::Closed(_)) {
            let what = "has a -wal, -journal or -shm that cannot be moved; nothing was changed";
            moved.take(path, &kept).map_err(failed(what))?;
        }
        sync_directory(path)?;
        match is_absent {
            true => fs::rename(prepared, path).map_err(failed("cannot be replaced")),
            false => exchange(&kept, path).map_err(|e| failed(cannot_exchange(e))(e.into())),
        }
    })();
    if let Err(error) = put {
        moved.put_back();
        if !is_absent {
            // Into the temporary directory, which this process removes.
            let _ = fs::rename(&kept, prepared);
        }
        return Err(error);
    }
    let kept_commits = moved.keep_commits(&kept);
    sync_directory(path)?;
    // Until here no other process can read the old database.
    drop(target);
    let kept_all = [""].into_iter().chain(COMPANIONS).map(|suffix| place::sibling(&kept, suffix));
    let exposed =
        kept_all.filter(|file| fs::symlink_metadata(file).is_ok() && make_private(file).is_err()).count();
    let is_private = exposed == 0;
    Ok(Replacement { kept: (!is_absent || kept_commits).then_some(kept), is_private, lost_erasures })
}

fn cannot_exchange(error: Errno) -> &'static str {
    match error {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
            "is on a file system that cannot change two names in one step, and nothing was changed: move it away, with its -wal and \
             -shm, and restore again"
        }
        _ => "cannot be replaced",
    }
}

/// Returns the customers that were erased more often in the old database than in the new one, and
/// whose content the new one holds.
fn lost_erasures(old: &Conn, prepared: &Path) -> Result<Vec<String>, StoreError> {
    let erased =
        "SELECT customer_id, count(*) FROM change_log WHERE kind = 'erased' GROUP BY customer_id ORDER BY 1";
    let mut erased = old.prepare(erased)?;
    let erased = erased.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let erased: Vec<(String, i64)> = erased.collect::<Result<_, _>>()?;
    if erased.is_empty() {
        return Ok(Vec::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let new = Connection::open_with_flags(prepared, flags)?;
    let mut has = new.prepare(
        "SELECT count(*) FILTER (WHERE kind = 'erased') < ?2 AND count(after) > 0 FROM change_log WHERE customer_id = ?1",
    )?;
    let mut back = Vec::new();
    for (id, times) in erased {
        if has.query_row((&id, times), |row| row.get(0))? {
            back.push(id);
        }
    }
    Ok(back)
}

/// Returns a free name next to `path`: neither a file nor one of its companions exists.
fn free_name(path: &Path, stamp: &str) -> PathBuf {
    let exists = |name: &Path, suffix: &str| fs::symlink_metadata(place::sibling(name, suffix)).is_ok();
    let is_taken = |name: &Path| exists(name, "") || COMPANIONS.iter().any(|suffix| exists(name, suffix));
    place::free_name(place::sibling(path, &format!(".before-restore-{stamp}")), is_taken)
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let what = "cannot be written to the disk";
    let failed = |source| StoreError::File { path: place::directory(path).to_owned(), what, source };
    place::sync_directory(path).map_err(failed)
}

#[cfg(test)]
mod tests;
