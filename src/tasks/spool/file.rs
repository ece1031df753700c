//! Files that others write: opened without following, blocking or trusting; and our own, written whole or not at all.
//!
//! Whoever may write to the directory may swap a name at any moment. So what counts is asked of the handle that was opened, and
//! every sentence here names the file and says what to do.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The largest file that is taken, in bytes.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

/// Group members may write, and take away only what is theirs.
pub const SPOOL_MODE: u32 = 0o3770;

/// What is made in such a directory belongs to its group.
const SET_GROUP_ID: u32 = 0o2000;

/// Group members may look.
const BELOW_MODE: u32 = 0o750;
const PAPER_MODE: u32 = 0o640;

/// Below the spool directory: what was taken.
pub(super) const RECEIPTS: &str = "receipts";

/// Below the spool directory: what was refused.
pub(super) const REJECTED: &str = "rejected";

const LINKED: &str = "has more than one link, so it would live on elsewhere: copy it here";

const TOO_LARGE: &str = "has more than 16 MiB: split it into several files";

/// Which file it is, and in which state: equal as long as nobody touched it.
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

    /// Sorts by when files were dropped.
    pub(super) fn dropped(&self) -> (i64, i64) {
        self.changed
    }
}

/// What opening a file came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// Its bytes.
    Whole(Content),
    /// It stays where it is, for this reason.
    Left(String),
    /// Somebody writes to it.
    Changing,
    /// It is not there any more.
    Gone,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
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

/// Opens and reads what lies at `path`.
pub(super) fn open(path: &Path) -> Opened {
    read(path).unwrap_or_else(|error| match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => Opened::Gone,
        (_, Some(libc::ELOOP)) => Opened::Left("is a symbolic link: put the file itself here".to_owned()),
        (ErrorKind::PermissionDenied, _) => match fs::symlink_metadata(path) {
            Ok(file) => {
                Opened::Left(unreadable(path, &user(file.uid()), "this program", foreign_group(path, &file)))
            }
            Err(_) => Opened::Gone,
        },
        _ => Opened::Left(format!("cannot be read: {error}; it is looked at again")),
    })
}

fn read(path: &Path) -> io::Result<Opened> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let before = file.metadata()?;
    if let Some(why) = kind(&before) {
        return Ok(Opened::Left(why.to_owned()));
    }
    if before.nlink() != 1 {
        return Ok(Opened::Left(LINKED.to_owned()));
    }
    let mut bytes = Vec::new();
    if before.len() <= LARGEST {
        (&file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    if before.len().max(bytes.len() as u64) > LARGEST {
        return Ok(Opened::Left(TOO_LARGE.to_owned()));
    }
    let stamp = Stamp::of(&before);
    if Stamp::of(&file.metadata()?) != stamp {
        return Ok(Opened::Changing);
    }
    Ok(Opened::Whole(Content { bytes, stamp, owner: user(before.uid()) }))
}

/// Why a regular file stays where it is, as far as it shows from outside.
pub(super) fn why_left(
    path: &Path,
    file: &Metadata,
    who: &str,
    may_read: &dyn Fn(&Metadata) -> bool,
) -> Option<String> {
    if file.nlink() != 1 {
        Some(LINKED.to_owned())
    } else if file.len() > LARGEST {
        Some(TOO_LARGE.to_owned())
    } else if !may_read(file) {
        Some(unreadable(path, &user(file.uid()), who, foreign_group(path, file)))
    } else {
        None
    }
}

/// The spool directory's group, where the file has another: then reading by the group alone does not help.
fn foreign_group(path: &Path, file: &Metadata) -> Option<String> {
    let wanted = fs::metadata(path.parent()?).ok()?.gid();
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

/// The name of a number in a file of lines `name:password:number:…`.
fn named(file: &str, number: u32) -> Option<String> {
    let lines = fs::read(file).ok()?;
    let lines = String::from_utf8_lossy(&lines);
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found.parse() == Ok(number) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Makes the directories where they are missing.
pub(super) fn prepare(spool: &Path) -> Result<(), String> {
    let cannot = |path: &Path, error: &io::Error| {
        format!(
            "outbound.spool_dir: {} cannot be made or used: {error}; {}, or set outbound.spool_dir to another place",
            path.display(),
            advice(error)
        )
    };
    match fs::metadata(spool) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(cannot(spool, &ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = spool.parent().map_or(Ok(()), fs::create_dir_all);
            parent.and_then(|()| make(spool, SPOOL_MODE)).map_err(|error| cannot(spool, &error))?;
        }
        Err(error) => return Err(cannot(spool, &error)),
    }
    for below in [RECEIPTS, REJECTED] {
        let below = spool.join(below);
        match fs::symlink_metadata(&below) {
            Ok(found) if found.is_dir() => {}
            // A link could lead what we write anywhere.
            Ok(_) => return Err(cannot(&below, &ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&below, BELOW_MODE).map_err(|error| cannot(&below, &error))?;
            }
            Err(error) => return Err(cannot(&below, &error)),
        }
    }
    Ok(())
}

fn make(directory: &Path, mode: u32) -> io::Result<()> {
    let create = |mode| DirBuilder::new().mode(mode).create(directory);
    create(mode).or_else(|error| match error.kind() {
        // A service that may not set this bit (RestrictSUIDSGID=) inherits it from the directory above.
        ErrorKind::PermissionDenied => create(mode & !SET_GROUP_ID),
        _ => Err(error),
    })?;
    if fs::metadata(directory)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    // The umask took its share.
    fs::set_permissions(directory, Permissions::from_mode(mode))
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

/// Puts `bytes` at `name`, so that there is either all or what was there before, also after a power cut.
pub(super) fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // One name for each file: what a crash left is overwritten by the next try.
    let digest = Sha256::digest(name);
    let temporary =
        directory.join(format!(".tmp-{:016x}", u64::from_be_bytes(std::array::from_fn(|at| digest[at]))));
    let put = || {
        remove(&temporary)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PAPER_MODE).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(PAPER_MODE))?;
        file.sync_all()?;
        fs::rename(&temporary, directory.join(name))?;
        sync(directory)
    };
    put().inspect_err(|_| {
        let _ = remove(&temporary);
    })
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes what was renamed or removed in a directory last.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What became of a file that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is gone.
    Yes,
    /// Another file has its name by now.
    Replaced,
}

/// Removes the file that was read, and no other that came under its name since.
pub(super) fn take_away(path: &Path, read: &Stamp) -> io::Result<Gone> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Gone::Yes),
        Err(error) => return Err(error),
        Ok(found) if (found.dev(), found.ino()) != (read.dev, read.ino) => return Ok(Gone::Replaced),
        Ok(_) => {}
    }
    remove(path)?;
    path.parent().map_or(Ok(()), sync)?;
    Ok(Gone::Yes)
}

/// A name in `directory` that is free, for itself and for its `.error`: `name`, or the same with a number.
pub(super) fn free_name(directory: &Path, name: &str) -> io::Result<String> {
    const LONGEST: usize = 255 - ".error".len();
    let is_free = |path: PathBuf| match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    };
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut number = 1_u64;
    loop {
        let end = if number == 1 { format!(".{extension}") } else { format!(".{number}.{extension}") };
        let candidate = format!("{}{end}", &stem[..stem.floor_char_boundary(LONGEST - end.len())]);
        if is_free(directory.join(&candidate))? && is_free(directory.join(format!("{candidate}.error")))? {
            return Ok(candidate);
        }
        number += 1;
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
    fn names_are_numbered_and_fit() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = directory.path();
        assert_eq!(free_name(at, "a.json").unwrap(), "a.json");
        fs::write(at.join("a.json"), "").unwrap();
        fs::write(at.join("a.2.json.error"), "").unwrap();
        assert_eq!(free_name(at, "a.json").unwrap(), "a.3.json");
        let long = free_name(at, &format!("{}.jsonl", "顧".repeat(83))).unwrap();
        assert!(long.len() + ".error".len() <= 255 && long.ends_with("顧.jsonl"), "{long}");
    }

    #[test]
    fn a_file_that_took_the_name_is_not_removed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "one").unwrap();
        let Opened::Whole(one) = open(&path) else { panic!("not read") };
        fs::write(directory.path().join("b"), "two").unwrap();
        fs::rename(directory.path().join("b"), &path).unwrap();
        assert_eq!(take_away(&path, &one.stamp).unwrap(), Gone::Replaced);
        let Opened::Whole(two) = open(&path) else { panic!("not read") };
        assert_eq!(take_away(&path, &two.stamp).unwrap(), Gone::Yes);
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let directory = tempfile::TempDir::new().unwrap();
        fs::create_dir(directory.path().join("a.json")).unwrap();
        assert!(write(directory.path(), "a.json", b"x").is_err(), "a directory is in the way");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing temporary is left");
    }
}
