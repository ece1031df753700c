//! Files that others write: what may be taken, what each of them is, and the sentences about the
//! others.
//!
//! A name in the spool directory may be swapped at any moment. So what counts is asked of the
//! handle that was opened, and every sentence here says what to do.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::folder::Folder;

/// The largest file that is taken, in bytes.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

const LINKED: &str = "has more than one link, so it would live on elsewhere: copy it here";

const TOO_LARGE: &str = "has more than 16 MiB: split it into several files";

/// Identifies a file and its state: two stamps are equal as long as the file was not touched in
/// between. Device and inode alone do not identify it: ext4 gives the inode of a removed file to
/// the next new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            dev: file.dev(),
            ino: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// When it was last written to or renamed, in nanoseconds of Unix time.
    pub(super) fn touched(&self) -> i128 {
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    }

    /// The drop time: when the file was last written or renamed into place. Seconds and nanoseconds
    /// of Unix time.
    pub(super) fn dropped(&self) -> (i64, i64) {
        self.changed
    }

    /// Whether this is the same file with the same content after our own rename, which changes only
    /// the time of change.
    pub(super) fn is_same_content(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self } == *other
    }
}

/// What opening a file came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// A regular file that may be taken.
    Plain(Plain),
    /// It stays where it is, for this reason.
    Left(String),
    /// It does not exist any more.
    Gone,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) file: File,
    pub(super) stamp: Stamp,
    pub(super) owner: String,
}

/// Why something that is no regular file stays where it is.
pub(super) fn kind(file: &Metadata) -> Option<&'static str> {
    let kind = file.file_type();
    let why = if kind.is_file() {
        return None;
    } else if kind.is_symlink() {
        "is a symbolic link, and links are not followed: put the file itself here"
    } else if kind.is_dir() {
        "is a directory: put its files here, one level down nothing is looked at"
    } else if kind.is_fifo() {
        "is a pipe: put a regular file here"
    } else {
        "is no regular file: put one here"
    };
    Some(why)
}

/// Opens the file `name` of a folder, and says why it may not be taken.
pub(super) fn open(folder: &Folder, name: &str) -> Opened {
    plain(folder, name).unwrap_or_else(|error| match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => Opened::Gone,
        (_, Some(libc::ELOOP)) => Opened::Left("is a symbolic link: put the file itself here".to_owned()),
        (ErrorKind::PermissionDenied, _) => match (folder.metadata_of(name), folder.metadata()) {
            (Ok(file), Ok(of)) => {
                let path = folder.path_of(name);
                Opened::Left(unreadable(&path, &user(file.uid()), "this program", foreign_group(&of, &file)))
            }
            _ => Opened::Gone,
        },
        _ => Opened::Left(format!("cannot be read: {error}; it is looked at again")),
    })
}

fn plain(folder: &Folder, name: &str) -> io::Result<Opened> {
    let file = folder.file(name)?;
    let found = file.metadata()?;
    if let Some(why) = kind(&found).or_else(|| unfit(&found)) {
        return Ok(Opened::Left(why.to_owned()));
    }
    Ok(Opened::Plain(Plain { stamp: Stamp::of(&found), owner: user(found.uid()), file }))
}

impl Plain {
    /// The whole content; `None` where it changes while it is read.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut file = &self.file;
        file.rewind()?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.stamp.len.min(LARGEST)).unwrap_or(0) + 1);
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        let is_whole = self.now()? == self.stamp && bytes.len() as u64 <= LARGEST;
        Ok(is_whole.then_some(bytes))
    }

    /// Its stamp now.
    pub(super) fn now(&self) -> io::Result<Stamp> {
        Ok(Stamp::of(&self.file.metadata()?))
    }
}

/// Why a regular file may not be taken.
fn unfit(file: &Metadata) -> Option<&'static str> {
    if file.nlink() != 1 {
        Some(LINKED)
    } else if file.len() > LARGEST {
        Some(TOO_LARGE)
    } else {
        None
    }
}

/// Why a regular file stays where it is, as far as it shows from outside; `folder` is the
/// directory's metadata.
pub(super) fn why_left(
    path: &Path,
    folder: &Metadata,
    file: &Metadata,
    who: &str,
    may_read: &dyn Fn(&Metadata) -> bool,
) -> Option<String> {
    let unfit = unfit(file).map(str::to_owned);
    unfit.or_else(|| {
        (!may_read(file)).then(|| unreadable(path, &user(file.uid()), who, foreign_group(folder, file)))
    })
}

/// The spool directory's group, where the file has another: then reading by the group alone does
/// not help.
fn foreign_group(folder: &Metadata, file: &Metadata) -> Option<String> {
    let wanted = folder.gid();
    (file.gid() != wanted).then(|| named("/etc/group", wanted).unwrap_or_else(|| wanted.to_string()))
}

/// The commonest failure of a spool: a file written with umask 077.
fn unreadable(path: &Path, owner: &str, who: &str, group: Option<String>) -> String {
    let path = path.display();
    let chgrp = group.map(|group| format!("chgrp {group} {path} && ")).unwrap_or_default();
    format!(
        "belongs to {owner} and cannot be read by {who}: `{chgrp}chmod g+r {path}`; programs that drop files should \
         run with umask 027, not 077"
    )
}

/// A user's name.
pub(super) fn user(uid: u32) -> String {
    named("/etc/passwd", uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// The names in a file as of its stamp. Kept, because a directory may hold very many files that
/// cannot be read.
type Names = (Stamp, HashMap<u32, String>);

static NAMES: Mutex<BTreeMap<String, Names>> = Mutex::new(BTreeMap::new());

/// The name of a number in a file of lines `name:password:number:…`.
fn named(file: &str, number: u32) -> Option<String> {
    let stamp = Stamp::of(&fs::metadata(file).ok()?);
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
        if let (Some(name), Some(_), Some(Ok(number))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
            && !name.is_empty()
        {
            // The first of several counts.
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// What to do about a file system's no.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on that disk",
        ErrorKind::PermissionDenied => "it must belong to the user that this program runs as (`chown`)",
        ErrorKind::ReadOnlyFilesystem => "mount that file system writable",
        ErrorKind::NotADirectory => "put a directory there",
        _ => "see that this path can be written",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_its_owner_and_the_way_out() {
        let path = Path::new("/spool/a.json");
        let told = unreadable(path, "alice", "this program", None);
        assert!(told.starts_with("belongs to alice and cannot be read"), "{told}");
        assert!(told.contains("`chmod g+r /spool/a.json`"), "{told}");
        let told = unreadable(path, "alice", "this program", Some("komoju-sync".to_owned()));
        assert!(told.contains("`chgrp komoju-sync /spool/a.json && chmod g+r /spool/a.json`"), "{told}");
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
    fn a_stamp_tells_a_new_file_from_the_old_one_of_its_inode() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "one").unwrap();
        let Opened::Plain(one) = open(&folder, "a.json") else { panic!("not opened") };
        assert_eq!(one.read().unwrap().unwrap(), b"one");
        fs::rename(&path, directory.path().join("b.json")).unwrap();
        let renamed = one.now().unwrap();
        assert!(renamed.is_same_content(&one.stamp));
        fs::write(directory.path().join("b.json"), "two!").unwrap();
        assert!(!one.now().unwrap().is_same_content(&one.stamp), "same inode");
        assert_eq!(one.read().unwrap(), None, "it was written to since it was opened");
    }
}
