//! Claims: files that are being accepted.
//!
//! A file is claimed by renaming it from `NAME` to `.claimed/SECONDS.NANOSECONDS.RANDOM/NAME`. This
//! single step takes it out of the reach of other users and records its name and drop time. The
//! owner of the file does not change. `NAME` is free from then on: a file dropped under it is
//! another file.
//!
//! These designs were rejected:
//! - Reading a file in the spool directory: bytes that are appended between the reading and the
//!   removal would be lost, and so would a replacement.
//! - Recording claims in the database: a rename and a commit are two steps.

use std::io::{self, ErrorKind};

use super::directories::Directories;
use super::file::{self, OpenedFile, ReadError};
use super::lines;
use super::scan::{NO_ENDING, ending};
use crate::store::outbox::spool::AcceptedBytes;
use komoju_core::plan::spool::FoundFile;

/// CLAIM_MODE lets only this user use a directory below `.claimed/`.
const CLAIM_MODE: u32 = 0o700;

/// A claimed file.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// The name of the directory below `.claimed/` that holds the file. It sorts by drop time, and
    /// is never used twice.
    pub(super) id: String,
    pub(super) file: FoundFile,
}

/// Claims a file that is still in the state that the scan saw.
///
/// The rename may still move another file of that name, so [`Claim::read`] compares again.
///
/// # Errors
/// The file is not claimed.
pub(super) fn claim(at: &Directories, file: FoundFile) -> Result<Claim, ReadError> {
    // The scan does not test the ending if it could not read the file's type.
    if ending(&file.name).is_none() {
        return Err(ReadError::Unfit(NO_ENDING.to_owned()));
    }
    if file::open(&at.spool, &file.name)?.stamp != file.stamp {
        return Err(ReadError::Changing);
    }
    let id = new_id(file.stamp.changed, rand::random());
    let folder = at.claimed.create_folder(&id, CLAIM_MODE).map_err(ReadError::Failed)?;
    if let Err(error) = at.spool.move_to(&folder, &file.name) {
        let _ = at.claimed.remove_folder(&id);
        let is_gone = error.kind() == ErrorKind::NotFound;
        return Err(if is_gone { ReadError::Gone } else { ReadError::Failed(error) });
    }
    Ok(Claim { id, file })
}

/// Returns the id of a claim. `.` separates its parts, because some ids with `-` look like a card
/// number, and messages would mask them.
fn new_id((seconds, nanoseconds): (i64, i64), random: u32) -> String {
    format!("{seconds:012}.{nanoseconds:09}.{random:08x}")
}

impl Claim {
    /// Opens and reads the file, if it is still in the state that the scan saw.
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
    /// The file is left claimed: another file has the name, or the file system failed.
    pub(super) fn put_back(&self, at: &Directories) -> io::Result<()> {
        at.claimed.folder(&self.id)?.move_new_to(&at.spool, &self.file.name)?;
        at.claimed.remove_folder(&self.id)
    }

    /// Removes the file, if it is unchanged since it was read. Returns `false` if it changed. Then
    /// it is left claimed, and a later scan reads it again.
    ///
    /// Both the file's move out of the spool directory and its removal are made durable. So a power
    /// cut does not bring back a file after its tokens are in the outbox.
    ///
    /// # Errors
    /// It cannot be removed and is left claimed, or its removal may not be durable.
    pub(super) fn finish(&self, at: &Directories, opened: &OpenedFile) -> io::Result<bool> {
        let folder = at.claimed.folder(&self.id)?;
        // Sync first, because it can take long. A write after the comparison is lost, so do nothing
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

/// Returns the part of a file's content that was not accepted. This is what follows the accepted
/// bytes, or the whole content if it does not begin with them.
pub(super) fn late(mut content: Vec<u8>, accepted: &AcceptedBytes) -> Vec<u8> {
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

    struct TestSpool {
        home: tempfile::TempDir,
        directories: Directories,
    }

    impl TestSpool {
        fn new() -> Self {
            let home = tempfile::TempDir::new().unwrap();
            fs::write(home.path().join("komoju.db"), "").unwrap();
            let directories =
                Directories::open(&home.path().join("spool"), &home.path().join("komoju.db")).unwrap();
            Self { home, directories }
        }

        /// Returns the only file.
        fn found(&self) -> FoundFile {
            let [file] = scan(&self.directories).files.try_into().unwrap();
            file
        }
    }

    #[test]
    fn file_that_grew_since_it_was_read_is_not_removed() {
        let spool = TestSpool::new();
        let path = spool.home.path().join("spool/a.jsonl");
        fs::write(&path, "one\n").unwrap();
        let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let claim = claim(&spool.directories, spool.found()).unwrap();
        assert_eq!(spool.found().claim.as_ref(), Some(&claim.id));
        let (opened, content) = claim.read(&spool.directories).unwrap();
        writer.write_all(b"two\n").unwrap();
        assert!(!claim.finish(&spool.directories, &opened).unwrap());
        assert!(matches!(claim.read(&spool.directories), Err(ReadError::Changing)));
        let accepted = AcceptedBytes { len: 4, digest: lines::digest(&content) };
        let claim = Claim { file: spool.found(), ..claim };
        let (opened, content) = claim.read(&spool.directories).unwrap();
        assert_eq!(late(content, &accepted), b"two\n");
        assert!(claim.finish(&spool.directories, &opened).unwrap());
        assert_eq!(scan(&spool.directories).files, []);
    }

    #[test]
    fn file_that_changed_since_the_scan_is_not_claimed() {
        let spool = TestSpool::new();
        let path = spool.home.path().join("spool/a.json");
        fs::write(&path, "one").unwrap();
        let seen = spool.found();
        fs::write(&path, "longer").unwrap();
        assert!(matches!(claim(&spool.directories, seen.clone()), Err(ReadError::Changing)));
        fs::remove_file(&path).unwrap();
        assert!(matches!(claim(&spool.directories, seen), Err(ReadError::Gone)));
        assert_eq!(spool.directories.claimed.names().unwrap(), [""; 0]);
    }

    #[test]
    fn file_without_an_ending_is_not_claimed() {
        let spool = TestSpool::new();
        fs::write(spool.home.path().join("spool/a.json"), "one").unwrap();
        let seen = FoundFile { name: "notes.txt".to_owned(), ..spool.found() };
        fs::rename(spool.home.path().join("spool/a.json"), spool.home.path().join("spool/notes.txt"))
            .unwrap();
        let stamp = file::open(&spool.directories.spool, "notes.txt").unwrap().stamp;
        let claimed = claim(&spool.directories, FoundFile { stamp, ..seen });
        assert!(matches!(claimed, Err(ReadError::Unfit(why)) if why == NO_ENDING));
        assert_eq!(spool.directories.claimed.names().unwrap(), [""; 0]);
    }

    proptest::proptest! {
        #[test]
        fn id_is_never_masked(seconds in 0..10_i64.pow(12), nanoseconds in 0..1_000_000_000_i64, random: u32) {
            let id = new_id((seconds, nanoseconds), random);
            proptest::prop_assert_eq!(crate::secret::Masker::new(None).text(&id), id);
        }
    }

    #[test]
    fn file_that_begins_differently_is_late_as_a_whole() {
        let accepted = AcceptedBytes { len: 3, digest: lines::digest(b"one") };
        assert_eq!(late(b"one".to_vec(), &accepted), b"");
        assert_eq!(late(b"one, two".to_vec(), &accepted), b", two");
        assert_eq!(late(b"two, one".to_vec(), &accepted), b"two, one");
        assert_eq!(late(b"on".to_vec(), &accepted), b"on");
    }
}
