//! Claims: files whose acceptance has begun.
//!
//! A file is claimed by renaming it from `NAME` to `.claimed/SECONDS.NANOSECONDS-RANDOM/NAME`: one
//! step that takes it out of others' reach and records its name and drop time; the owner stays with
//! the file. From then on the name is free, and a file that is dropped under it is another one.
//! What a crash leaves in `.claimed/` is finished by the next look, before anything else is
//! claimed.
//!
//! Rejected: to read a file where it lies (bytes that are appended between the reading and
//! the removal are lost, and so is a replacement), and to record claims in the database (a rename and a commit are two
//! steps).

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;

use super::directories::{CLAIMED, Directories};
use super::file::{self, Opened, Plain, Stamp};
use super::folder::Folder;
use super::lines;
use crate::store::outbox::spool::Accepted;

/// Only this user: a directory below `.claimed/`.
const CLAIM_MODE: u32 = 0o700;

/// A file whose acceptance has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Sorts by drop time, and is never used twice. The directory of that name below `.claimed/`
    /// holds the file.
    pub(super) id: String,
    /// The file's name, as it was dropped.
    pub(super) name: String,
    /// Whether the file lies in `.claimed/` itself: put there by hand.
    is_bare: bool,
}

/// What claiming a file came to.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is ours.
    Claimed(Claim),
    /// It stays where it is, for this reason.
    Left(String),
    /// It is another file, or in another state, than the one that was to be claimed.
    Changed,
    /// It does not exist any more.
    Gone,
}

/// Claims the file `name`, if it is still in the state that was seen. Which file was claimed shows
/// only afterwards: another may have taken the name in between.
///
/// # Errors
/// The claim cannot be made; the file stays where it is.
pub(super) fn claim(directories: &Directories, name: &str, seen: &Stamp) -> io::Result<Taken> {
    match file::open(&directories.spool, name) {
        Opened::Gone => return Ok(Taken::Gone),
        Opened::Left(why) => return Ok(Taken::Left(why)),
        Opened::Plain(plain) if plain.stamp != *seen => return Ok(Taken::Changed),
        Opened::Plain(_) => {}
    }
    let id = id_of(seen);
    let folder = directories.claimed.create_folder(&id, CLAIM_MODE)?;
    match directories.spool.rename(name, &folder, name) {
        Ok(()) => Ok(Taken::Claimed(Claim { id, name: name.to_owned(), is_bare: false })),
        Err(error) => {
            let _ = directories.claimed.remove_folder(&id);
            match error.kind() {
                ErrorKind::NotFound => Ok(Taken::Gone),
                _ => Err(error),
            }
        }
    }
}

fn id_of(seen: &Stamp) -> String {
    let (seconds, nanoseconds) = seen.dropped();
    format!("{seconds:012}.{nanoseconds:09}-{:08x}", rand::random::<u32>())
}

/// The files that are claimed, by drop time. Directories whose file is gone are removed.
///
/// # Errors
/// `.claimed/` cannot be read.
pub(super) fn pending(directories: &Directories) -> io::Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for id in directories.claimed.names()? {
        let found = directories.claimed.metadata_of(&id)?;
        if !found.is_dir() {
            let name = text(id)?;
            claims.push(Claim {
                id: format!("{:012}.{:09}", found.ctime(), found.ctime_nsec()),
                name,
                is_bare: true,
            });
            continue;
        }
        let names = directories.claimed.folder(&id)?.names()?;
        if names.is_empty() {
            directories.claimed.remove_folder(&id)?;
        }
        let id = text(id)?;
        for name in names {
            claims.push(Claim { id: id.clone(), name: text(name)?, is_bare: false });
        }
    }
    claims.sort_by(|one, other| (&one.id, &one.name).cmp(&(&other.id, &other.name)));
    Ok(claims)
}

/// Only this program writes to `.claimed/`, and only names that are text.
fn text(name: OsString) -> io::Result<String> {
    let why = |name: OsString| io::Error::other(format!("{} in it is none of its files", name.display()));
    name.into_string().map_err(why)
}

impl Claim {
    /// What is remembered of the claim, beside what is remembered of names.
    pub(super) fn key(&self) -> String {
        format!("{CLAIMED}/{}/{}", self.id, self.name)
    }

    fn folder(&self, directories: &Directories) -> io::Result<Folder> {
        match self.is_bare {
            true => directories.claimed.duplicate(),
            false => directories.claimed.folder(&self.id),
        }
    }

    /// Opens the claimed file.
    ///
    /// # Errors
    /// Its directory cannot be opened.
    pub(super) fn open(&self, directories: &Directories) -> io::Result<Opened> {
        match self.folder(directories) {
            Ok(folder) => Ok(file::open(&folder, &self.name)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Opened::Gone),
            Err(error) => Err(error),
        }
    }

    /// Puts the file back under its name; an error where another file has it by now.
    pub(super) fn put_back(&self, directories: &Directories) -> io::Result<()> {
        self.folder(directories)?.rename_new(&self.name, &directories.spool, &self.name)?;
        self.remove_folder(directories)
    }

    fn remove_folder(&self, directories: &Directories) -> io::Result<()> {
        match self.is_bare {
            true => Ok(()),
            false => directories.claimed.remove_folder(&self.id),
        }
    }

    /// Removes the file, which is dealt with as it was read. Returns `false` where it changed
    /// since: then it stays claimed, and is read again once it is at rest.
    ///
    /// A file that gave its tokens to the outbox does not come back with a power cut: it has left
    /// the spool directory for good before it is removed, and its removal is made lasting.
    ///
    /// # Errors
    /// It cannot be removed, and stays claimed; or its removal may not be lasting.
    pub(super) fn finish(&self, directories: &Directories, plain: &Plain) -> io::Result<bool> {
        let folder = self.folder(directories)?;
        // Sync first, because it can take long. A write after the comparison is lost, so nothing comes between it and the removal.
        directories.spool.sync()?;
        if plain.now()? != plain.stamp {
            return Ok(false);
        }
        folder.remove(&self.name)?;
        folder.sync()?;
        self.remove_folder(directories)?;
        Ok(true)
    }
}

/// What of a file's content was not accepted: what follows the accepted bytes, or everything where
/// it does not begin with them.
pub(super) fn late(mut content: Vec<u8>, accepted: &Accepted) -> Vec<u8> {
    let len = usize::try_from(accepted.len).unwrap_or(usize::MAX);
    if content.len() >= len && lines::digest(&content[..len]) == accepted.digest {
        content.drain(..len);
    }
    content
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    struct Place {
        home: tempfile::TempDir,
        directories: Directories,
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::TempDir::new().unwrap();
            fs::write(home.path().join("komoju.db"), "").unwrap();
            let directories =
                Directories::open(&home.path().join("spool"), &home.path().join("komoju.db")).unwrap();
            Self { home, directories }
        }

        fn seen(&self, name: &str) -> Stamp {
            Stamp::of(&self.directories.spool.metadata_of(name).unwrap())
        }
    }

    #[test]
    fn a_file_that_grew_since_it_was_read_is_not_removed() {
        let place = Place::new();
        let path = place.home.path().join("spool/a.jsonl");
        fs::write(&path, "one\n").unwrap();
        let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let taken = claim(&place.directories, "a.jsonl", &place.seen("a.jsonl")).unwrap();
        let Taken::Claimed(claim) = taken else { panic!("{taken:?}") };
        assert_eq!(pending(&place.directories).unwrap(), std::slice::from_ref(&claim));
        let Opened::Plain(plain) = claim.open(&place.directories).unwrap() else { panic!("not opened") };
        let content = plain.read().unwrap().unwrap();
        writer.write_all(b"two\n").unwrap();
        assert!(!claim.finish(&place.directories, &plain).unwrap());
        let accepted = Accepted { len: 4, digest: lines::digest(&content) };
        let Opened::Plain(plain) = claim.open(&place.directories).unwrap() else { panic!("not opened") };
        assert_eq!(late(plain.read().unwrap().unwrap(), &accepted), b"two\n");
        assert!(claim.finish(&place.directories, &plain).unwrap());
        assert_eq!(pending(&place.directories).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_not_the_one_that_was_seen_is_not_claimed() {
        let place = Place::new();
        let path = place.home.path().join("spool/a.json");
        fs::write(&path, "one").unwrap();
        let seen = place.seen("a.json");
        fs::write(&path, "longer").unwrap();
        assert!(matches!(claim(&place.directories, "a.json", &seen).unwrap(), Taken::Changed));
        fs::remove_file(&path).unwrap();
        assert!(matches!(claim(&place.directories, "a.json", &seen).unwrap(), Taken::Gone));
        assert_eq!(place.directories.claimed.names().unwrap(), [""; 0]);
    }

    #[test]
    fn a_file_that_begins_otherwise_is_late_as_a_whole() {
        let accepted = Accepted { len: 3, digest: lines::digest(b"one") };
        assert_eq!(late(b"one".to_vec(), &accepted), b"");
        assert_eq!(late(b"one, two".to_vec(), &accepted), b", two");
        assert_eq!(late(b"two, one".to_vec(), &accepted), b"two, one");
        assert_eq!(late(b"on".to_vec(), &accepted), b"on");
    }
}
