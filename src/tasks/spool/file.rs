//! Files of other users: decides which may be read, and explains why the others may not.
//!
//! Another user may replace a name in the spool directory at any moment. So each decision is about
//! the open handle. Each message says what to do.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::folder::Folder;
use komoju_core::plan::spool::Stamp;

/// LARGEST limits the files that are taken, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

const LINKED: &str = "has more than one link: put a copy here, and remove this link";

const TOO_LARGE: &str = "has more than 16 MiB: split it into several files";

/// Returns the stamp of a file.
pub(super) fn stamp(file: &Metadata) -> Stamp {
    Stamp {
        dev: file.dev(),
        ino: file.ino(),
        len: file.len(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    }
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It does not exist any more.
    Gone,
    /// It is being written to.
    Changing,
    /// It may not be taken, for this reason.
    Unfit(String),
    /// The file system failed.
    Failed(io::Error),
}

/// An open file that may be taken.
#[derive(Debug)]
pub(super) struct OpenedFile {
    file: File,
    pub(super) stamp: Stamp,
    pub(super) owner: String,
}

/// Returns why a file that is no regular file is skipped.
pub(super) fn kind(file: &Metadata) -> Option<&'static str> {
    let kind = file.file_type();
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("is a symbolic link, and links are not followed: put the file itself here")
    } else if kind.is_dir() {
        Some("is a directory: put its files here, because directories are not searched")
    } else if kind.is_fifo() {
        Some("is a pipe: put a regular file here")
    } else {
        Some("is no regular file: put one here")
    }
}

/// Opens the file `name` of a folder, if it may be taken.
pub(super) fn open(folder: &Folder, name: &str) -> Result<OpenedFile, ReadError> {
    let file = folder.file(name).map_err(|error| match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => ReadError::Gone,
        (_, Some(libc::ELOOP)) => ReadError::Unfit("is a symbolic link: put the file itself here".to_owned()),
        (ErrorKind::PermissionDenied, _) => match (folder.metadata_of(name), folder.metadata()) {
            (Ok(file), Ok(of)) => {
                ReadError::Unfit(unreadable(&folder.path_of(name), &of, &file, "this program"))
            }
            _ => ReadError::Gone,
        },
        _ => ReadError::Failed(error),
    })?;
    let found = file.metadata().map_err(ReadError::Failed)?;
    match kind(&found).or_else(|| unfit(&found)) {
        Some(why) => Err(ReadError::Unfit(why.to_owned())),
        None => Ok(OpenedFile { stamp: stamp(&found), owner: user(found.uid()), file }),
    }
}

impl OpenedFile {
    /// Reads the whole content.
    pub(super) fn read(&self) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.stamp.len).unwrap_or(0) + 1);
        let mut file = &self.file;
        let read = file.rewind().and_then(|()| file.take(LARGEST + 1).read_to_end(&mut bytes));
        read.map_err(ReadError::Failed)?;
        match self.is_unchanged().map_err(ReadError::Failed)? {
            true => Ok(bytes),
            false => Err(ReadError::Changing),
        }
    }

    /// Returns whether the file is unchanged since it was opened.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(stamp(&self.file.metadata()?) == self.stamp)
    }
}

/// Returns why a regular file may not be taken.
fn unfit(file: &Metadata) -> Option<&'static str> {
    match file {
        file if file.nlink() != 1 => Some(LINKED),
        file if file.len() > LARGEST => Some(TOO_LARGE),
        _ => None,
    }
}

/// Returns why a regular file will not be taken, without opening it. `folder` is the directory's
/// metadata. `may_read` says whether the user `reader` may read the file.
pub(super) fn why_stuck(
    path: &Path,
    folder: &Metadata,
    file: &Metadata,
    reader: &str,
    may_read: bool,
) -> Option<String> {
    let why = unfit(file).map(str::to_owned);
    why.or_else(|| (!may_read).then(|| unreadable(path, folder, file, reader)))
}

/// Returns the message for a file that `reader` may not read. The usual cause is a file written
/// with umask 077.
fn unreadable(path: &Path, folder: &Metadata, file: &Metadata, reader: &str) -> String {
    let (path, owner, group) = (path.display(), user(file.uid()), folder.gid());
    // In another group, the group's permission to read does not help.
    let chgrp = if file.gid() == group {
        String::new()
    } else {
        let group = named("/etc/group", group).unwrap_or_else(|| group.to_string());
        format!("chgrp {group} {path} && ")
    };
    format!(
        "belongs to {owner} and cannot be read by {reader}: `{chgrp}chmod g+r {path}`; programs that drop files should \
         run with umask 027, not 077"
    )
}

/// Returns a user's name, or the number if there is no name.
pub(super) fn user(uid: u32) -> String {
    named("/etc/passwd", uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// The names in a file, and the stamp of the file when it was read.
type Names = (Stamp, HashMap<u32, String>);

/// NAMES caches the names in `/etc/passwd` and `/etc/group`, by path. A file is read again only
/// after it changed, because a directory can hold very many files of other users.
static NAMES: Mutex<BTreeMap<String, Names>> = Mutex::new(BTreeMap::new());

/// Returns the first name with this number in a file of lines `name:password:number:…`.
fn named(file: &str, number: u32) -> Option<String> {
    let stamp = stamp(&fs::metadata(file).ok()?);
    let mut known = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if known.get(file).is_none_or(|(then, _)| *then != stamp) {
        known.insert(file.to_owned(), (stamp, names_in(&fs::read(file).ok()?)));
    }
    known.get(file)?.1.get(&number).cloned()
}

fn names_in(lines: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(lines).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse))
            && !name.is_empty()
        {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// Returns what to do about an error of the file system.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on that disk",
        ErrorKind::PermissionDenied => "it must belong to the user that this program runs as (`chown`)",
        ErrorKind::ReadOnlyFilesystem => "mount that file system writable",
        ErrorKind::NotADirectory => "put a directory there",
        _ => "see that this path can be written",
    }
}

/// Returns the message for a step that failed and that the next scan retries.
pub(super) fn cannot(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}; {}; the next scan retries it", advice(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_cannot_be_read_is_named_with_its_owner_and_the_command() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "").unwrap();
        let (folder, file) = (fs::metadata(directory.path()).unwrap(), fs::metadata(&path).unwrap());
        let message = unreadable(Path::new("/spool/a.json"), &folder, &file, "this program");
        let owner = user(file.uid());
        assert!(
            message.starts_with(&format!("belongs to {owner} and cannot be read by this program")),
            "{message}"
        );
        assert!(message.contains("`chmod g+r /spool/a.json`"), "{message}");
        let root = fs::metadata("/").unwrap();
        if std::os::unix::fs::chown(&path, None, Some(root.gid() + 12_345)).is_ok() {
            let file = fs::metadata(&path).unwrap();
            let message = unreadable(Path::new("/spool/a.json"), &root, &file, "this program");
            assert!(message.contains("`chgrp root /spool/a.json && chmod g+r /spool/a.json`"), "{message}");
        }
    }

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(user(0), "root");
        assert_eq!(user(4_123_456_789), "uid 4123456789");
    }

    #[test]
    fn names_are_read_again_when_their_file_has_changed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("passwd");
        let file = path.to_str().unwrap();
        fs::write(&path, "bad\n:x:7:\nann:x:7:\nbob:x:7:\n").unwrap();
        assert_eq!((named(file, 7).as_deref(), named(file, 8)), (Some("ann"), None));
        fs::write(&path, "ann:x:7:\ncarol:x:8:\n").unwrap();
        assert_eq!(named(file, 8).as_deref(), Some("carol"));
        fs::remove_file(&path).unwrap();
        assert_eq!(named(file, 8), None);
    }

    #[test]
    fn stamp_differs_after_a_write_and_is_kept_by_a_rename() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "one").unwrap();
        let one = open(&folder, "a.json").unwrap();
        assert_eq!(one.read().unwrap(), b"one");
        fs::rename(&path, directory.path().join("b.json")).unwrap();
        let now = || stamp(&fs::metadata(directory.path().join("b.json")).unwrap());
        assert!(now().is_same_content(&one.stamp) && !one.is_unchanged().unwrap());
        fs::write(directory.path().join("b.json"), "two!").unwrap();
        assert!(!now().is_same_content(&one.stamp), "same inode");
        assert!(matches!(one.read(), Err(ReadError::Changing)), "it was written to since it was opened");
    }

    #[test]
    fn empty_file_is_read_as_no_bytes() {
        let directory = tempfile::TempDir::new().unwrap();
        fs::write(directory.path().join("a.json"), "").unwrap();
        let file = open(&Folder::open(directory.path()).unwrap(), "a.json").unwrap();
        assert_eq!(file.read().unwrap(), b"");
    }

    #[test]
    fn advice_names_what_solves_each_error_of_the_file_system() {
        for (error, expected) in [
            (libc::ENOSPC, "make room"),
            (libc::EDQUOT, "make room"),
            (libc::EACCES, "`chown`"),
            (libc::EROFS, "writable"),
            (libc::ENOTDIR, "directory"),
            (libc::EIO, "can be written"),
        ] {
            let error = io::Error::from_raw_os_error(error);
            assert!(advice(&error).contains(expected), "{error}: {}", advice(&error));
        }
    }
}
