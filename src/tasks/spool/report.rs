//! The spool directory as `status`, `doctor` and the metrics see it. This module changes nothing
//! and opens no file.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::directories::{self, CLAIMED, REJECTED};
use super::folder::Folder;
use super::scan::{self, SkippedFile, SkippedFiles, is_dropped};
use super::{file, rejected};

/// MOST_LOOKED_AT limits the names that are examined.
const MOST_LOOKED_AT: usize = 20_000;

/// MOST_SHOWN limits the files that [`Overview`] names.
const MOST_SHOWN: usize = 20;

/// The spool directory as `status` and `doctor` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Why no file is taken, with the command that helps; null while files are taken.
    pub problem: Option<String>,
    /// The first files that will not be taken, each with the reason and what to do.
    pub stuck: Vec<SkippedFile>,
    /// The number of further ones, counted up to 20,000.
    pub more_stuck: u64,
    /// The first refused files below `rejected`. `NAME.error` beside each says why.
    pub refused: Vec<String>,
}

/// The user that takes the files: the user of the daemon.
pub struct SpoolUser<'a> {
    /// Its name.
    pub name: &'a str,
    /// Returns whether it may read a file.
    pub may_read: &'a dyn Fn(&Metadata) -> bool,
}

impl Overview {
    /// Reads the directory. `problem` is what the running daemon recorded, if one runs. The owner
    /// of `database` runs the daemon.
    ///
    /// The owner of the directory takes the files. Its groups are not known, so it counts as a
    /// member of the directory's group.
    pub fn read(directory: &Path, database: &Path, problem: Option<Option<String>>) -> Self {
        let Ok(of) = fs::metadata(directory) else {
            return Self { problem: problem.flatten(), ..Self::default() };
        };
        let may_read = |file: &Metadata| {
            let shift = match file {
                file if file.uid() == of.uid() => 6,
                file if file.gid() == of.gid() => 3,
                _ => 0,
            };
            of.uid() == 0 || (file.mode() >> shift) & 4 != 0
        };
        let user = SpoolUser { name: &file::user(of.uid()), may_read: &may_read };
        Self::read_for(&user, directory, database, problem)
    }

    /// Like [`Self::read`], for a user with known groups.
    pub fn read_for(
        user: &SpoolUser<'_>,
        directory: &Path,
        database: &Path,
        problem: Option<Option<String>>,
    ) -> Self {
        if !directory.exists() {
            return Self { problem: problem.flatten(), ..Self::default() };
        }
        let skipped = stuck_files(directory, user).unwrap_or_default();
        let mut stuck = skipped.list();
        let more = stuck.len().saturating_sub(MOST_SHOWN);
        stuck.truncate(MOST_SHOWN);
        let refused = counted(names(&directory.join(REJECTED)), MOST_LOOKED_AT, is_refused);
        Self {
            problem: problem.unwrap_or_else(|| directories::obstacle(directory, database)),
            stuck,
            more_stuck: skipped.more + more as u64,
            refused: first(refused, MOST_SHOWN),
        }
    }
}

/// Returns the sorted names of the files in the directory. Opens no file.
pub fn waiting_files(dir: &Path) -> Vec<String> {
    first(counted(names(dir), MOST_LOOKED_AT, is_dropped), MOST_LOOKED_AT)
}

/// Returns how many files wait in the directory and how many were refused, each counted up to
/// `most`. Opens no file.
pub fn count_files(dir: &Path, most: usize) -> (usize, usize) {
    let count = |dir: &Path, counts| counted(names(dir), most, counts).count();
    (count(dir, is_dropped as fn(&str) -> bool), count(&dir.join(REJECTED), is_refused))
}

/// Returns the names in the directory, in the order of the file system.
fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Returns up to `most` of the names that `counts` accepts. Reads up to twice as many, because each
/// refused file has an `.error` file.
fn counted(
    names: impl Iterator<Item = String>,
    most: usize,
    counts: fn(&str) -> bool,
) -> impl Iterator<Item = String> {
    names.take(most.saturating_mul(2)).filter(move |name| counts(name)).take(most)
}

/// Returns the first `most` names, sorted. Keeps no more in memory.
fn first(names: impl Iterator<Item = String>, most: usize) -> Vec<String> {
    let mut first = BTreeSet::new();
    for name in names {
        first.insert(name);
        if first.len() > most {
            first.pop_last();
        }
    }
    first.into_iter().collect()
}

fn is_refused(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with(rejected::ERROR)
}

/// Returns the files that will not be taken, as far as that shows without opening a file.
fn stuck_files(directory: &Path, user: &SpoolUser<'_>) -> io::Result<SkippedFiles> {
    let folder = Folder::open(directory)?;
    let of = folder.metadata()?;
    let why_stuck = |name: &str, found: &Metadata| {
        file::why_stuck(&directory.join(name), &of, found, user.name, (user.may_read)(found))
    };
    let mut skipped = SkippedFiles::default();
    scan::dropped(&folder, MOST_LOOKED_AT, &mut skipped, |name, found, skipped| {
        if let Some(why) = why_stuck(&name, found) {
            skipped.add(&name, why);
        }
    })?;
    // Only the owner and root can read `.claimed/`. A claim that may be taken is not stuck.
    if let Ok(claimed) = folder.folder(CLAIMED) {
        let _ = scan::each_claimed(&claimed, &mut skipped, |file, found, skipped| {
            let kind = file::kind(found).map(str::to_owned);
            if let Some(why) = kind.or_else(|| why_stuck(&file.path(), found)) {
                skipped.add(&file.name, scan::why_claimed(&why, &file));
            }
        });
    }
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_read_and_kept_are_bounded() {
        let mut read = 0;
        let names = (0..1_000_u32).rev().map(|number| format!("{number:03}")).inspect(|_| read += 1);
        assert_eq!(counted(names, 20, |name| name.ends_with('0')).count(), 4);
        assert_eq!(read, 40);
        let names = ["c", "a", "d", "b"].map(str::to_owned);
        assert_eq!(first(names.into_iter(), 2), ["a", "b"]);
    }

    #[test]
    fn permission_of_the_group_lets_only_a_member_read() {
        use std::os::unix::fs::{PermissionsExt as _, chown};

        let home = tempfile::TempDir::new().unwrap();
        let (spool, file) = (home.path().join("spool"), home.path().join("spool/a.json"));
        fs::create_dir(&spool).unwrap();
        fs::write(&file, "{}").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        if chown(&spool, Some(12_345), Some(12_346)).is_err() {
            // Only root can give a directory to another user.
            return;
        }
        let stuck = |group| {
            chown(&file, Some(12_347), Some(group)).unwrap();
            Overview::read(&spool, &home.path().join("komoju.db"), Some(None)).stuck.len()
        };
        assert_eq!((stuck(12_346), stuck(12_348)), (0, 1));
    }

    #[test]
    fn refused_files_are_counted_without_their_error_files() {
        let directory = tempfile::TempDir::new().unwrap();
        fs::create_dir(directory.path().join(REJECTED)).unwrap();
        for name in ["a.json", "b.json", "rejected/c.json", "rejected/c.json.error", ".hidden"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(count_files(directory.path(), 10), (2, 1));
        assert_eq!(count_files(directory.path(), 1).1, 1);
        assert_eq!(waiting_files(directory.path()), ["a.json", "b.json"]);
    }
}
