//! The spool directory for programs that take nothing from it: `status`, `doctor` and metrics.
//! Nothing is changed, and no file is opened.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::directories::{self, CLAIMED, REJECTED};
use super::folder::Folder;
use super::scan::{self, Left, Leftovers, is_dropped};
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
    pub stuck: Vec<Left>,
    /// How many more there are; counted up to 20,000.
    pub more_stuck: u64,
    /// The first refused files below `rejected`. `NAME.error` beside each says why.
    pub refused: Vec<String>,
}

impl Overview {
    /// Reads the directory. `problem` is what the running daemon recorded, if one runs. `database`
    /// is the file whose owner runs it.
    pub fn read(directory: &Path, database: &Path, problem: Option<Option<String>>) -> Self {
        let Ok(found) = fs::metadata(directory) else {
            return Self { problem: problem.flatten(), ..Self::default() };
        };
        let left = that_stay(directory, &found).unwrap_or_default();
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

/// Returns what is in the directory and will not be taken by its owner, as far as that shows without
/// opening a file.
fn that_stay(directory: &Path, of: &Metadata) -> io::Result<Leftovers> {
    let (folder, user) = (Folder::open(directory)?, file::user(of.uid()));
    // The directory is created so that its owner is in its group.
    let may_read = |file: &Metadata| {
        let shift = match file {
            file if file.uid() == of.uid() => 6,
            file if file.gid() == of.gid() => 3,
            _ => 0,
        };
        of.uid() == 0 || (file.mode() >> shift) & 4 != 0
    };
    let mut left = Leftovers::default();
    scan::dropped(&folder, MOST_LOOKED_AT, &mut left, |name, found, left| {
        let path = directory.join(&name);
        if let Some(why) = file::why_left(&path, of, found, &user, may_read(found)) {
            left.add(&name, why);
        }
    })?;
    // Only its owner and root can read it. A claim that may be taken is not stuck.
    if let Ok(claimed) = folder.folder(CLAIMED) {
        let _ = scan::each_claimed(&claimed, &mut left, |file, found, left| {
            let path = directory.join(file.path());
            let kind = file::kind(found).map(str::to_owned);
            if let Some(why) = kind.or_else(|| file::why_left(&path, of, found, &user, may_read(found))) {
                left.add(&file.name, scan::why_claimed(&why, &file));
            }
        });
    }
    Ok(left)
}
