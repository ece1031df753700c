//! A directory that is used by its handle.
//!
//! Members of the group may write to the spool directory, and may swap a name in it at any moment.
//! So a path is resolved once; after that every name is opened, created, renamed and removed
//! relative to the handle, and no link is followed. A program that runs as root therefore never
//! leaves the directory that it opened.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};

/// Members of the group may read what this program writes.
const PAPER_MODE: u32 = 0o640;

/// What a directory created in one with the set-group-ID bit inherits.
const SET_GROUP_ID: u32 = 0o2000;

/// How a directory is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// By one handle: the daemon that takes files from it.
    Alone,
    /// By any number of handles: programs that look whether it is locked.
    Shared,
}

/// An open directory, and its path for messages.
#[derive(Debug)]
pub(super) struct Folder {
    handle: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory at `path`; links in the path are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let handle = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one; a link is an error.
    pub(super) fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let handle = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// The same directory, with a handle of its own.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self { handle: self.handle.try_clone()?, path: self.path.clone() })
    }

    /// Opens the file `name` for reading, without following a link or waiting for a pipe.
    pub(super) fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_at(name.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK)
    }

    fn open_at(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        // A name, and not a path that leads elsewhere.
        if name.as_bytes().contains(&b'/') || name == ".." {
            return Err(ErrorKind::InvalidInput.into());
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, name, flags, Mode::empty())?.into())
    }

    /// The metadata of what lies at `name`; of a link itself.
    pub(super) fn metadata_of(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        self.open_at(name.as_ref(), OFlags::PATH)?.metadata()
    }

    /// The metadata of the directory itself.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// The path by which it was opened, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Calls `each` with every name in the directory and what the directory says of its type, in no
    /// order.
    pub(super) fn each(&self, mut each: impl FnMut(&OsStr, FileType)) -> io::Result<()> {
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                each(name, entry.file_type());
            }
        }
        Ok(())
    }

    /// The names in it, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.each(|name, _| names.push(name.to_owned()))?;
        names.sort();
        Ok(names)
    }

    /// Creates the directory `name` with this mode, whatever the umask; one that exists is an
    /// error.
    pub(super) fn create_folder(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let name = name.as_ref();
        let create = |mode| rustix::fs::mkdirat(&self.handle, name, Mode::from_raw_mode(mode));
        create(mode).or_else(|error| match error {
            // A service that may not set this bit (RestrictSUIDSGID=) inherits it from the
            // directory above.
            rustix::io::Errno::PERM | rustix::io::Errno::ACCESS => create(mode & !SET_GROUP_ID),
            _ => Err(error),
        })?;
        let folder = self.folder(name)?;
        if folder.metadata()?.permissions().mode() & 0o7777 != mode {
            // The umask took its share.
            folder.handle.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(folder)
    }

    /// Gives the directory to this owner, where it has another.
    pub(super) fn give(&self, owner: &Metadata) -> io::Result<()> {
        give(&self.handle, owner)
    }

    /// Renames `name` to `to_name` in another directory, over whatever lies there.
    pub(super) fn rename(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, name.as_ref(), &to.handle, to_name.as_ref())?)
    }

    /// The same; an error where something lies there already.
    pub(super) fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(&self.handle, name.as_ref(), &to.handle, to_name.as_ref(), flags)?)
    }

    /// Removes a file; one that does not exist counts as removed.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.handle, name.as_ref(), AtFlags::empty()))
    }

    /// Removes an empty directory; one that does not exist counts as removed.
    pub(super) fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.handle, name.as_ref(), AtFlags::REMOVEDIR))
    }

    /// Makes renames and removals in the directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Takes the lock on the directory for as long as this handle lives; `false` where another
    /// handle's lock is in the way.
    pub(super) fn lock(&self, lock: Lock) -> io::Result<bool> {
        let operation = match lock {
            Lock::Alone => FlockOperation::NonBlockingLockExclusive,
            Lock::Shared => FlockOperation::NonBlockingLockShared,
        };
        match rustix::fs::flock(&self.handle, operation) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Releases the lock.
    pub(super) fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.handle, FlockOperation::Unlock)?)
    }

    /// Writes a file under a temporary name; [`Staged::publish`] gives it its own. It belongs to
    /// the owner of this directory.
    pub(super) fn stage(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Staged<'_>> {
        // One temporary name for each file: the next try overwrites what a crash left.
        let digest = Sha256::digest(name);
        let temporary = format!(".tmp-{:016x}", u64::from_be_bytes(std::array::from_fn(|at| digest[at])));
        self.remove(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(PAPER_MODE);
        let file = File::from(rustix::fs::openat(&self.handle, temporary.as_str(), flags, mode)?);
        let staged = Staged { folder: self, temporary, is_published: false };
        let mut out = BufWriter::new(&file);
        content(&mut out)?;
        out.flush()?;
        drop(out);
        file.set_permissions(Permissions::from_mode(PAPER_MODE))?;
        give(&file, &self.metadata()?)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Puts `bytes` at `name`: either all of them are there or what was there before, also after a
    /// power loss.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stage(name, |out| out.write_all(bytes))?.publish(name)
    }
}

/// A file that is written and has no name of its own yet; dropped, it is removed.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    folder: &'a Folder,
    temporary: String,
    is_published: bool,
}

impl Staged<'_> {
    /// The temporary name.
    pub(super) fn temporary(&self) -> &str {
        &self.temporary
    }

    /// Sets the file's modification time.
    pub(super) fn set_modified(&self, to: Timestamp) -> io::Result<()> {
        let at = Timespec { tv_sec: to.as_second(), tv_nsec: to.subsec_nanosecond().into() };
        let times = Timestamps { last_access: at, last_modification: at };
        let (folder, name) = (&self.folder.handle, self.temporary.as_str());
        Ok(rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives the file its name, durably.
    pub(super) fn publish(mut self, name: &str) -> io::Result<()> {
        self.folder.rename(&self.temporary, self.folder, name)?;
        self.is_published = true;
        self.folder.sync()
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = self.folder.remove(&self.temporary);
        }
    }
}

/// What root writes belongs to the user of the service. Only root may give a file away.
fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    match now.uid() == owner.uid() {
        true => Ok(()),
        false => fchown(file, Some(owner.uid()), Some(owner.gid())),
    }
}

fn gone_is_fine(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/precious"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("elsewhere"), at("folder/below")).unwrap();
        symlink(at("elsewhere/precious"), at("folder/file")).unwrap();
        let folder = Folder::open(&at("folder")).unwrap();
        assert!(folder.folder("below").is_err());
        assert!(folder.file("file").is_err());
        assert!(folder.metadata_of("file").unwrap().is_symlink());
        assert!(folder.file("../elsewhere/precious").is_err(), "a path is no name");
        folder.write("file", b"y").unwrap();
        folder.remove("file").unwrap();
        assert_eq!(fs::read(at("elsewhere/precious")).unwrap(), b"x");
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("a.json")).unwrap();
        assert!(folder.write("a.json", b"x").is_err(), "a directory has that name");
        let failed = folder.stage("b.json", |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(folder.names().unwrap(), ["a.json"], "nothing temporary is left");
    }

    #[test]
    fn a_rename_to_a_used_name_is_an_error_where_that_is_asked() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        folder.write("a", b"a").unwrap();
        folder.write("b", b"b").unwrap();
        let error = folder.rename_new("a", &folder, "b").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        folder.rename("a", &folder, "b").unwrap();
        assert_eq!(fs::read(directory.path().join("b")).unwrap(), b"a");
    }

    #[test]
    fn a_second_handle_does_not_get_the_lock() {
        let directory = tempfile::TempDir::new().unwrap();
        let first = Folder::open(directory.path()).unwrap();
        let second = Folder::open(directory.path()).unwrap();
        assert!(first.lock(Lock::Alone).unwrap() && !second.lock(Lock::Shared).unwrap());
        drop(first);
        assert!(second.lock(Lock::Alone).unwrap());
    }
}
