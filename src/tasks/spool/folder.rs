//! A directory that is accessed only by its handle.
//!
//! Members of the group may write to the spool directory, and may replace a name in it at any
//! moment. So a path is resolved once. After that every name is opened, created, renamed and
//! removed relative to the handle, and no link is followed. A program that runs as root therefore
//! never leaves the directory that it opened.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use sha2::{Digest as _, Sha256};

/// FILE_MODE lets members of the group read what this program writes.
const FILE_MODE: u32 = 0o640;

/// SET_GROUP_ID is the bit that a new directory inherits from its parent.
const SET_GROUP_ID: u32 = 0o2000;

/// An open directory, and its path for messages.
#[derive(Debug)]
pub(super) struct Folder {
    handle: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory at `path`. Links in the path are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let handle = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one. A link is an error.
    pub(super) fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let handle = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// Opens the file `name` for reading, without following a link or waiting for a pipe.
    pub(super) fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_at(name.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK)
    }

    fn open_at(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        // Accept only a name, because a path can lead out of the directory.
        if name.as_bytes().contains(&b'/') || name == ".." {
            return Err(ErrorKind::InvalidInput.into());
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, name, flags, Mode::empty())?.into())
    }

    /// Returns the metadata of the entry `name`. For a link it is that of the link itself.
    pub(super) fn metadata_of(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        self.open_at(name.as_ref(), OFlags::PATH)?.metadata()
    }

    /// Like [`Self::metadata_of`]; `None` if there is no entry `name`.
    pub(super) fn find(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Metadata>> {
        match self.metadata_of(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Returns the metadata of the directory itself.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// Returns the path at which it was opened, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of an entry, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Calls `each` with the name and type of every entry, in no particular order.
    pub(super) fn each(&self, mut each: impl FnMut(&OsStr, FileType)) -> io::Result<()> {
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                each(name, self.kind_of(name, entry.file_type()));
            }
        }
        Ok(())
    }

    /// Returns the type of an entry. Some file systems do not list types.
    fn kind_of(&self, name: &OsStr, listed: FileType) -> FileType {
        match listed {
            FileType::Unknown => {
                self.metadata_of(name).map_or(listed, |found| FileType::from_raw_mode(found.mode()))
            }
            listed => listed,
        }
    }

    /// Returns the names in it, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.each(|name, _| names.push(name.to_owned()))?;
        names.sort();
        Ok(names)
    }

    /// Creates the directory `name` with this mode, for any umask. One that exists is an
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
            // The umask removed some bits.
            folder.handle.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(folder)
    }

    /// Changes the owner of the directory, if it differs.
    pub(super) fn give(&self, owner: &Metadata) -> io::Result<()> {
        give(&self.handle, owner)
    }

    /// Moves `name` to another directory, and replaces a file of that name.
    pub(super) fn move_to(&self, to: &Self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        Ok(rustix::fs::renameat(&self.handle, name, &to.handle, name)?)
    }

    /// Like [`Self::move_to`]; an error if the name is used there.
    pub(super) fn move_new_to(&self, to: &Self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.handle, name, &to.handle, name, RenameFlags::NOREPLACE)?)
    }

    /// Removes a file. One that does not exist counts as removed.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        ignore_missing(rustix::fs::unlinkat(&self.handle, name.as_ref(), AtFlags::empty()))
    }

    /// Removes an empty directory. One that does not exist counts as removed.
    pub(super) fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        ignore_missing(rustix::fs::unlinkat(&self.handle, name.as_ref(), AtFlags::REMOVEDIR))
    }

    /// Makes renames and removals in the directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Takes the lock on the directory until this handle is closed. Returns `false` if another
    /// handle has a lock.
    pub(super) fn lock(&self) -> io::Result<bool> {
        is_locked(self.handle.try_lock())
    }

    /// Takes a shared lock. Returns `false` if another handle has an exclusive one.
    pub(super) fn lock_shared(&self) -> io::Result<bool> {
        is_locked(self.handle.try_lock_shared())
    }

    /// Releases the lock.
    pub(super) fn unlock(&self) -> io::Result<()> {
        self.handle.unlock()
    }

    /// Returns whether two files have the same content.
    pub(super) fn is_same(&self, one: &str, other: &str) -> io::Result<bool> {
        let (one, other) = (self.file(one)?, self.file(other)?);
        if one.metadata()?.len() != other.metadata()?.len() {
            return Ok(false);
        }
        for (one, other) in BufReader::new(one).bytes().zip(BufReader::new(other).bytes()) {
            if one? != other? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a file atomically: even after a power loss, `name` has either the whole content or
    /// the content that it had before. The file belongs to the owner of this directory.
    pub(super) fn write(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.write_as(name, content, |_| Ok(name.to_owned())).map(drop)
    }

    /// Like [`Self::write`]. `choose` returns the final name after the content is written; its
    /// argument is the temporary name.
    pub(super) fn write_as(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        choose: impl FnOnce(&str) -> io::Result<String>,
    ) -> io::Result<String> {
        // Each file has one temporary name, so that the next try removes what a crash left.
        let digest = Sha256::digest(name);
        let temporary = format!(".tmp-{:016x}", u64::from_be_bytes(std::array::from_fn(|at| digest[at])));
        self.remove(&temporary)?;
        let chosen = self.write_new(&temporary, content).and_then(|()| choose(&temporary));
        let named = chosen.and_then(|name| {
            rustix::fs::renameat(&self.handle, temporary.as_str(), &self.handle, name.as_str())?;
            Ok(name)
        });
        match named {
            Ok(name) => self.sync().map(|()| name),
            Err(error) => {
                let _ = self.remove(&temporary);
                Err(error)
            }
        }
    }

    fn write_new(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let file = File::from(rustix::fs::openat(&self.handle, name, flags, mode)?);
        let mut out = BufWriter::new(&file);
        content(&mut out)?;
        out.flush()?;
        drop(out);
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        give(&file, &self.metadata()?)?;
        file.sync_all()
    }
}

/// Gives a file that root wrote to the user of the service. Only root may change an owner.
fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    match file.metadata()?.uid() == owner.uid() {
        true => Ok(()),
        false => fchown(file, Some(owner.uid()), Some(owner.gid())),
    }
}

fn is_locked(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn ignore_missing(done: rustix::io::Result<()>) -> io::Result<()> {
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
    fn link_is_not_followed() {
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
        folder.write("file", |out| out.write_all(b"y")).unwrap();
        folder.remove("file").unwrap();
        assert_eq!(fs::read(at("elsewhere/precious")).unwrap(), b"x");
    }

    #[test]
    fn type_that_the_directory_does_not_list_is_read_from_the_file() {
        let directory = tempfile::TempDir::new().unwrap();
        fs::create_dir(directory.path().join("folder")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        symlink("folder", directory.path().join("link")).unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        for (name, kind) in [
            ("folder", FileType::Directory),
            ("file", FileType::RegularFile),
            ("link", FileType::Symlink),
            ("gone", FileType::Unknown),
        ] {
            assert_eq!(folder.kind_of(name.as_ref(), FileType::Unknown), kind, "{name}");
        }
    }

    #[test]
    fn failed_write_leaves_the_old_content() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("a.json")).unwrap();
        let written = folder.write("a.json", |out| out.write_all(b"x"));
        assert!(written.is_err(), "a directory has that name");
        let failed = folder.write("b.json", |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(folder.names().unwrap(), ["a.json"], "nothing temporary is left");
    }

    #[test]
    fn comparison_of_files_that_cannot_be_read_is_an_error() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        for (name, content) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "four")] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let same = |other| folder.is_same("a", other).unwrap();
        assert_eq!((same("b"), same("c"), same("d")), (true, false, false));
        // A directory opens like a file and cannot be read like one.
        for name in ["one", "other"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert!(folder.is_same("one", "other").is_err());
    }

    #[test]
    fn move_new_to_a_used_name_is_an_error() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        let below = folder.folder("below").unwrap();
        folder.write("a", |out| out.write_all(b"new")).unwrap();
        below.write("a", |out| out.write_all(b"old")).unwrap();
        let error = folder.move_new_to(&below, "a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        folder.move_to(&below, "a").unwrap();
        assert_eq!(fs::read(directory.path().join("below/a")).unwrap(), b"new");
    }

    #[test]
    fn second_handle_does_not_get_the_lock() {
        let directory = tempfile::TempDir::new().unwrap();
        let first = Folder::open(directory.path()).unwrap();
        let second = Folder::open(directory.path()).unwrap();
        assert!(first.lock().unwrap() && !second.lock_shared().unwrap());
        drop(first);
        assert!(second.lock().unwrap());
    }
}
