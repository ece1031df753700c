//! What the spool directory shows to programs that take nothing from it: `status`, `doctor`,
//! metrics. Nothing is changed or opened for reading.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::directories::{self, REJECTED};
use super::folder::Folder;
use super::scan::{self, Left, Leftovers, is_dropped};
use super::{file, rejected};

/// MOST_LOOKED_AT limits the names that are looked at.
const MOST_LOOKED_AT: usize = 20_000;

/// MOST_SHOWN limits the files that [`Overview`] names.
const MOST_SHOWN: usize = 20;

/// What `status` says of the spool directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Why no file is taken, with the command that helps; null while files are taken.
    pub problem: Option<String>,
    /// The first files that will not be taken, each with the reason and what to do.
    pub stuck: Vec<Left>,
    /// How many more there are; counted up to 20,000.
    pub more_stuck: u64,
    /// The first refused files below `rejected`. Beside each lies `NAME.error`, which says why.
    pub refused: Vec<String>,
}

impl Overview {
    /// Looks at the directory; `problem` is what the running daemon says, if one runs. `database`
    /// is the file whose owner runs it.
    pub fn read(directory: &Path, database: &Path, problem: Option<Option<String>>) -> Self {
        let Ok(found) = fs::metadata(directory) else {
            return Self { problem: problem.flatten(), ..Self::default() };
        };
        // The mode says who may read; that the owner of the directory is in its group is how it is
        // made.
        let may_read = |file: &Metadata| {
            let shift = match () {
                () if found.uid() == 0 => return true,
                () if file.uid() == found.uid() => 6,
                () if file.gid() == found.gid() => 3,
                () => 0,
            };
            (file.mode() >> shift) & 4 != 0
        };
        let left = that_stay(directory, &file::user(found.uid()), &may_read).unwrap_or_default();
        let mut stuck = left.list();
        let more = stuck.len().saturating_sub(MOST_SHOWN);
        stuck.truncate(MOST_SHOWN);
        let mut refused = names(&directory.join(REJECTED), MOST_LOOKED_AT, is_refused);
        refused.truncate(MOST_SHOWN);
        Self {
            problem: problem.unwrap_or_else(|| directories::obstacle(directory, database)),
            stuck,
            more_stuck: left.more + more as u64,
            refused,
        }
    }
}

/// Why another process's lock keeps a daemon from taking files; `None` where none does.
pub fn locked_by_another(directory: &Path) -> Option<String> {
    directories::locked_by_another(directory)
}

/// Returns the names of the files in the directory, sorted. Nothing is opened.
pub fn waiting_files(dir: &Path) -> Vec<String> {
    names(dir, MOST_LOOKED_AT, is_dropped)
}

/// Returns how many files wait in the directory and how many were rejected, each counted up to
/// `most`; nothing is opened.
pub fn count_files(dir: &Path, most: usize) -> (usize, usize) {
    (names(dir, most, is_dropped).len(), names(&dir.join(REJECTED), most, is_refused).len())
}

/// Returns the first names that the directory lists, sorted.
fn names(dir: &Path, most: usize, counts: fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| counts(name)).take(most).collect();
    names.sort();
    names
}

fn is_refused(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with(rejected::ERROR)
}

/// Returns what is in the directory and will not be taken by the daemon of this user, as far as that
/// shows without opening a file; `may_read` says whether the user may read a file.
///
/// # Errors
/// The directory cannot be read.
pub fn that_stay(
    directory: &Path,
    user: &str,
    may_read: &dyn Fn(&Metadata) -> bool,
) -> io::Result<Leftovers> {
    let folder = Folder::open(directory)?;
    let of = folder.metadata()?;
    let mut left = Leftovers::default();
    let mut looked_at = 0;
    folder.each(|name, kind| {
        let shown = name.to_string_lossy();
        if !is_dropped(&shown) || looked_at == MOST_LOOKED_AT {
            return;
        }
        looked_at += 1;
        let why = scan::stray(name.to_str(), &shown, kind).map(str::to_owned).or_else(|| {
            let found = folder.metadata_of(name).ok()?;
            file::why_left(&directory.join(name), &of, &found, user, may_read)
        });
        if let Some(why) = why {
            left.add(&shown, why);
        }
    })?;
    Ok(left)
}
