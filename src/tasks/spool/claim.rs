//! Claims: files whose acceptance has begun.
//!
//! A file is claimed by renaming it from `NAME` to `.claimed/SECONDS.NANOSECONDS-RANDOM/NAME`: one
//! step that takes it out of the reach of other users and records its name and drop time. The owner
//! stays with the file. The name is free from then on, and a file that is dropped under it is
//! another file.
//!
//! Rejected: to read a file in the spool directory (bytes that are appended between the reading and
//! the removal are lost, and so is a replacement), and to record claims in the database (a rename
//! and a commit are two steps).

use std::io::{self, ErrorKind};

use super::directories::Directories;
use super::file::{self, OpenedFile, ReadError};
use super::lines;
use super::scan::{NO_ENDING, ending};
use crate::store::outbox::spool::Accepted;
use komoju_core::plan::spool::FoundFile;

/// CLAIM_MODE lets only this user use a directory below `.claimed/`.
const CLAIM_MODE: u32 = 0o700;

/// A claimed file.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Sorts by drop time, and is never used twice. The directory of that name below `.claimed/`
    /// holds the file.
    pub(super) id: String,
    pub(super) file: FoundFile,
}

/// Claims a file that is still in the state that the scan saw.
///
/// The rename takes whatever has the name by then: [`Claim::read`] compares once more.
///
/// # Errors
/// The file is not claimed.
pub(super) fn claim(at: &Directories, file: FoundFile) -> Result<Claim, ReadError> {
    // A scan that could not read the file's type did not test the ending.
    if ending(&file.name).is_none() {
        return Err(ReadError::Unfit(NO_ENDING.to_owned()));
    }
    if file::open(&at.spool, &file.name)?.stamp != file.stamp {
        return Err(ReadError::Changing);
    }
    let (seconds, nanoseconds) = file.stamp.changed;
    let id = format!("{seconds:012}.{nanoseconds:09}-{:08x}", rand::random::<u32>());
    let folder = at.claimed.create_folder(&id, CLAIM_MODE).map_err(ReadError::Failed)?;
    if let Err(error) = at.spool.move_to(&folder, &file.name) {
        let _ = at.claimed.remove_folder(&id);
        let is_gone = error.kind() == ErrorKind::NotFound;
        return Err(if is_gone { ReadError::Gone } else { ReadError::Failed(error) });
    }
    Ok(Claim { id, file })
}

impl Claim {
    /// Opens and reads the file, if it is in the state that the scan saw.
    pub(super) fn read(&self, at: &Directories) -> Result<(OpenedFile, Vec<u8>), ReadError> {
        let folder = at.claimed.folder(&self.id).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ReadError::Gone,
            _ => ReadError::Failed(error),
        })?;
        let opened = file::open(&folder, &self.file.name)?;
        if !opened.stamp.is_same_content(&self.file.stamp) {
            return Err(ReadError::Changing);
        }
        let content = opened.read()?;
        Ok((opened, content))
    }

    /// Puts the file back under its name.
    ///
    /// # Errors
    /// The file stays claimed: another one has the name, or the file system failed.
    pub(super) fn put_back(&self, at: &Directories) -> io::Result<()> {
        at.claimed.folder(&self.id)?.move_new_to(&at.spool, &self.file.name)?;
        at.claimed.remove_folder(&self.id)
    }

    /// Removes the file, if it is as it was read. Returns `false` where it changed since: then it
    /// stays claimed, and a later scan reads it again.
    ///
    /// A file that gave its tokens to the outbox does not return with a power cut: it has left the
    /// spool directory durably before it is removed, and its removal is made durable.
    ///
    /// # Errors
    /// It cannot be removed, and stays claimed; or its removal may not be durable.
    pub(super) fn finish(&self, at: &Directories, opened: &OpenedFile) -> io::Result<bool> {
        let folder = at.claimed.folder(&self.id)?;
        // Sync first, because it can take long. A write after the comparison is lost, so nothing is
        // between the comparison and the removal.
        at.spool.sync()?;
        if !opened.is_unchanged()? {
            return Ok(false);
        }
        folder.remove(&self.file.name)?;
        folder.sync()?;
        at.claimed.remove_folder(&self.id)?;
        Ok(true)
    }
}

/// Returns what of a file's content was not accepted: what follows the accepted bytes, or
/// everything where it does not begin with them.
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

    use super::super::scan::scan;
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

        /// The only file.
        fn found(&self) -> FoundFile {
            let [file] = scan(&self.directories).files.try_into().unwrap();
            file
        }
    }

    #[test]
    fn a_file_that_grew_since_it_was_read_is_not_removed() {
        let place = Place::new();
        let path = place.home.path().join("spool/a.jsonl");
        fs::write(&path, "one\n").unwrap();
        let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let claim = claim(&place.directories, place.found()).unwrap();
        assert_eq!(place.found().claim.as_ref(), Some(&claim.id));
        let (opened, content) = claim.read(&place.directories).unwrap();
        writer.write_all(b"two\n").unwrap();
        assert!(!claim.finish(&place.directories, &opened).unwrap());
        assert!(matches!(claim.read(&place.directories), Err(ReadError::Changing)));
        let accepted = Accepted { len: 4, digest: lines::digest(&content) };
        let claim = Claim { file: place.found(), ..claim };
        let (opened, content) = claim.read(&place.directories).unwrap();
        assert_eq!(late(content, &accepted), b"two\n");
        assert!(claim.finish(&place.directories, &opened).unwrap());
        assert_eq!(scan(&place.directories).files, []);
    }

    #[test]
    fn a_file_that_is_not_the_one_that_was_seen_is_not_claimed() {
        let place = Place::new();
        let path = place.home.path().join("spool/a.json");
        fs::write(&path, "one").unwrap();
        let seen = place.found();
        fs::write(&path, "longer").unwrap();
        assert!(matches!(claim(&place.directories, seen.clone()), Err(ReadError::Changing)));
        fs::remove_file(&path).unwrap();
        assert!(matches!(claim(&place.directories, seen), Err(ReadError::Gone)));
        assert_eq!(place.directories.claimed.names().unwrap(), [""; 0]);
    }

    #[test]
    fn file_without_an_ending_is_not_claimed() {
        let place = Place::new();
        fs::write(place.home.path().join("spool/a.json"), "one").unwrap();
        let seen = FoundFile { name: "notes.txt".to_owned(), ..place.found() };
        fs::rename(place.home.path().join("spool/a.json"), place.home.path().join("spool/notes.txt"))
            .unwrap();
        let stamp = file::open(&place.directories.spool, "notes.txt").unwrap().stamp;
        let claimed = claim(&place.directories, FoundFile { stamp, ..seen });
        assert!(matches!(claimed, Err(ReadError::Unfit(why)) if why == NO_ENDING));
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
