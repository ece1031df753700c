//! The spool directory and the three directories below it: creates, checks and locks them.
//!
//! Two rules keep other users out:
//! - The directories are created in a place that only this user can reach, and appear at their path
//!   in one rename. So no member of the group can create `rejected/` first.
//! - Each directory must belong to the owner of the spool directory. A directory or link that a
//!   member of the group created is reported and never used.
//!
//! The lock is on the spool directory itself, and is held as long as its handle is open. Without
//! it, two daemons for two accounts could each accept some of the files.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::file::{advice, user};
use super::folder::Folder;
use crate::store::file::processes;

/// SPOOL_MODE lets members of the group write, and remove only their own files.
pub const SPOOL_MODE: u32 = 0o3770;

/// OTHERS_WRITE has the permissions that the directories below may not give to other users.
const OTHERS_WRITE: u32 = 0o022;

/// The directory of files that are being accepted.
pub(super) const CLAIMED: &str = ".claimed";

/// The directory of the receipts of accepted files.
pub(super) const RECEIPTS: &str = "receipts";

/// The directory of the copies of refused files.
pub(super) const REJECTED: &str = "rejected";

/// BELOW has the directories below the spool directory with their modes. Only this user sees
/// claims; members of the group read the others.
const BELOW: [(&str, u32); 3] = [(CLAIMED, 0o700), (RECEIPTS, 0o750), (REJECTED, 0o750)];

/// STAGING is the prefix of the temporary directory in which a spool directory is created.
const STAGING: &str = ".new-";

/// SHARED_LOCK_RETRIES controls how often, and after which wait, the lock is retried while it is
/// shared. `status` and `doctor` release a shared lock within microseconds. A blocking lock is not
/// used, because it would also wait for another daemon.
const SHARED_LOCK_RETRIES: (u32, Duration) = (20, Duration::from_millis(10));

/// The open directories.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) spool: Folder,
    pub(super) claimed: Folder,
    pub(super) receipts: Folder,
    pub(super) rejected: Folder,
}

impl Directories {
    /// Opens the spool directory at `path` and the directories below it, creates those that are
    /// missing, and takes the lock. If this program runs as root, it works for the owner of
    /// `database`.
    ///
    /// # Errors
    /// A sentence with the command that solves the problem.
    pub(super) fn open(path: &Path, database: &Path) -> Result<Self, String> {
        if matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound) {
            create(path, database).map_err(|error| unusable(path, &error))?;
        }
        let spool = open_owned(path, database)?;
        // Lock before anything is created or changed in it.
        if !lock(&spool).map_err(|error| unusable(path, &error))? {
            return Err(in_use(path));
        }
        remove_interrupted(path);
        let below = |(name, mode): (&str, u32)| {
            create_below(&spool, name, mode).map_err(|error| unusable(&path.join(name), &error))?;
            open_below(&spool, name)?.ok_or_else(|| unusable(&path.join(name), &ErrorKind::NotFound.into()))
        };
        let [claimed, receipts, rejected] = BELOW.map(below);
        Ok(Self { claimed: claimed?, receipts: receipts?, rejected: rejected?, spool })
    }

    /// Returns whether `path` is still the directory that was opened, with the same three
    /// directories below it.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is_same = |now: io::Result<Metadata>, folder: &Folder| match (now, folder.metadata()) {
            (Ok(now), Ok(opened)) => (now.dev(), now.ino()) == (opened.dev(), opened.ino()),
            _ => false,
        };
        let below = [(CLAIMED, &self.claimed), (RECEIPTS, &self.receipts), (REJECTED, &self.rejected)];
        is_same(fs::metadata(path), &self.spool)
            && below.iter().all(|(name, folder)| is_same(self.spool.metadata_of(name), folder))
    }
}

/// Returns the owner of the database: the user that root works for.
fn user_of(database: &Path) -> u32 {
    fs::metadata(database).map_or(0, |database| database.uid())
}

fn wrong_owner(path: &Path, owner: u32, wanted: u32) -> Option<String> {
    (owner != wanted).then(|| {
        let (path, owner, wanted) = (path.display(), user(owner), user(wanted));
        format!(
            "outbound.spool_dir: {path} belongs to {owner}, and must belong to {wanted}, the user of this program: \
             `chown {wanted} {path}`, or set outbound.spool_dir to a directory of its own"
        )
    })
}

/// Takes the lock. Retries while the lock is shared, because `status` and `doctor` share it for a
/// moment. Returns `false` if another daemon has it.
fn lock(spool: &Folder) -> io::Result<bool> {
    let (tries, wait) = SHARED_LOCK_RETRIES;
    for _ in 0..tries {
        if spool.lock()? {
            return Ok(true);
        }
        if !spool.lock_shared()? {
            return Ok(false);
        }
        spool.unlock()?;
        std::thread::sleep(wait);
    }
    Ok(false)
}

fn in_use(path: &Path) -> String {
    let by = lock_holder(path).map(|process| format!(" (process {process}; `ps -fp {process}`)"));
    format!(
        "outbound.spool_dir: another komoju-sync{} takes the files from {}: give each its own outbound.spool_dir and restart \
         it, or stop the other",
        by.unwrap_or_default(),
        path.display()
    )
}

/// Returns why a daemon with this database would take no file from the directory; `None` if it
/// would.
pub(super) fn obstacle(path: &Path, database: &Path) -> Option<String> {
    let owner = fs::metadata(path).ok()?.uid();
    wrong_owner(path, owner, user_of(database)).or_else(|| locked_by_another(path))
}

/// Returns why the lock of another process prevents a daemon from taking files; `None` if it does
/// not. Shares the lock for a moment, and changes nothing.
pub fn locked_by_another(path: &Path) -> Option<String> {
    let folder = Folder::open(path).ok()?;
    (!folder.lock_shared().unwrap_or(true)).then(|| in_use(path))
}

/// Returns the process that holds the lock on this directory, if the kernel's list shows it.
fn lock_holder(path: &Path) -> Option<u32> {
    processes::flock_holder(fs::metadata(path).ok()?.ino())
}

fn unusable(path: &Path, error: &io::Error) -> String {
    format!(
        "outbound.spool_dir: {} cannot be created or used: {error}; {}, or set outbound.spool_dir to another place",
        path.display(),
        advice(error)
    )
}

/// Opens the spool directory, which must belong to the user of this program.
///
/// # Errors
/// A sentence with the command that solves the problem.
pub(super) fn open_owned(path: &Path, database: &Path) -> Result<Folder, String> {
    let spool = Folder::open(path).map_err(|error| unusable(path, &error))?;
    let owner = spool.metadata().map_err(|error| unusable(path, &error))?.uid();
    let wanted = match rustix::process::geteuid().as_raw() {
        0 => user_of(database),
        me => me,
    };
    wrong_owner(path, owner, wanted).map_or(Ok(spool), Err)
}

/// Opens a directory below the spool directory; `None` if there is none. It must have the same
/// owner, and no other user may write to it.
///
/// # Errors
/// A sentence with the command that solves the problem.
pub(super) fn open_below(spool: &Folder, name: &str) -> Result<Option<Folder>, String> {
    let path = spool.path_of(name);
    let foreign = |what: &str| {
        let path = path.display();
        Err(format!("outbound.spool_dir: {path} {what}; it is not used: remove it with `rm -r {path}`"))
    };
    let failed = |error| unusable(&path, &error);
    match spool.find(name).map_err(failed)? {
        None => return Ok(None),
        Some(found) if found.is_symlink() => return foreign("is a symbolic link"),
        Some(found) if !found.is_dir() => return foreign("is no directory"),
        Some(_) => {}
    }
    let folder = spool.folder(name).map_err(failed)?;
    // Check the handle, because another user can replace a name.
    let (found, of) = (folder.metadata().map_err(failed)?, spool.metadata().map_err(failed)?);
    if found.uid() != of.uid() {
        return foreign(&format!("belongs to {}", user(found.uid())));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return foreign("can be written by others than its owner");
    }
    Ok(Some(folder))
}

/// Creates a directory below the spool directory, unless the name is used.
fn create_below(spool: &Folder, name: &str, mode: u32) -> io::Result<()> {
    // Look first, so that a failing disk is no error where nothing is to be created.
    if spool.find(name)?.is_some() {
        return Ok(());
    }
    match spool.create_folder(name, mode) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created?.give(&spool.metadata()?),
    }
}

/// Creates the spool directory with the directories below it, so that it appears complete.
fn create(path: &Path, database: &Path) -> io::Result<()> {
    let parent = parent_of(path);
    fs::create_dir_all(parent)?;
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let parent = Folder::open(parent)?;
    let (_staging, outer) = create_staging(&parent)?;
    let spool = outer.create_folder(name, SPOOL_MODE)?;
    let owner = fs::metadata(database).ok().filter(|_| rustix::process::geteuid().is_root());
    let give = |folder: &Folder| owner.as_ref().map_or(Ok(()), |owner| folder.give(owner));
    for (below, mode) in BELOW {
        give(&spool.create_folder(below, mode)?)?;
    }
    give(&spool)?;
    match outer.move_to(&parent, name) {
        // Another process has created the same meanwhile.
        Err(error) if [ErrorKind::DirectoryNotEmpty, ErrorKind::AlreadyExists].contains(&error.kind()) => {
            Ok(())
        }
        renamed => renamed.and_then(|()| parent.sync()),
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a directory that only this user can use, for any umask. It is removed when the first
/// value is dropped. The lock on it says that it is in use.
fn create_staging(parent: &Folder) -> io::Result<(TempDir, Folder)> {
    let mut staging = tempfile::Builder::new();
    let staging = staging.prefix(STAGING).permissions(Permissions::from_mode(0o700));
    let staging = staging.tempdir_in(parent.path())?;
    // Open it by its name in the open parent, so that no link is followed.
    let folder = parent.folder(staging.path().file_name().unwrap_or_default())?;
    lock_staging(&folder)?;
    Ok((staging, folder))
}

/// Locks a new staging directory. Fails if another program has changed or locked it meanwhile.
fn lock_staging(folder: &Folder) -> io::Result<()> {
    if !is_private(folder)? || !folder.lock()? {
        let why = format!("{} was changed by another program", folder.path().display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Returns whether this user alone can use a directory.
fn is_private(folder: &Folder) -> io::Result<bool> {
    let found = folder.metadata()?;
    Ok(found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0)
}

/// Removes the staging directories that interrupted starts left. Only empty directories are
/// removed, so files of another program are safe. A directory that cannot be removed does no harm.
fn remove_interrupted(path: &Path) {
    let (Ok(parent), Some(spool)) = (Folder::open(parent_of(path)), path.file_name()) else { return };
    let names = parent.names().unwrap_or_default();
    for name in names.iter().filter(|name| name.as_bytes().starts_with(STAGING.as_bytes())) {
        let remove = || -> io::Result<()> {
            let staging = parent.folder(name)?;
            if !is_private(&staging)? || !staging.lock()? {
                return Ok(());
            }
            if let Ok(folder) = staging.folder(spool) {
                BELOW.iter().try_for_each(|(below, _)| folder.remove_folder(below))?;
                staging.remove_folder(spool)?;
            }
            parent.remove_folder(name)
        };
        let _ = remove();
    }
}

#[cfg(test)]
mod tests;
