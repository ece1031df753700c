//! The processes that read the database and so keep old pages of it in the WAL, by the kernel's list of locks.
//!
//! A reader holds a lock on one of five bytes of the -shm for as long as its transaction lasts (SQLite's WAL-index format). The list
//! (`/proc/locks`) names its process; the name of that process may be hidden from us.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::{Instance, beside};

/// The bytes of the -shm that readers lock.
const READ_LOCKS: std::ops::RangeInclusive<u64> = 123..=127;

/// Returns the processes that read the database at `path` now, as `name (process N)`; this one and the one that works on the database
/// are not among them, as their transactions are short.
pub fn of(path: &Path) -> Vec<String> {
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    let Ok(shm) = std::fs::metadata(beside(&real, "-shm")) else { return Vec::new() };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let instance = Instance::holder(path).ok().flatten();
    let is_instance = |process: u32| {
        instance.as_ref().is_some_and(|holder| holder.name.contains(&format!("(process {process})")))
    };
    let is_ours = |process: u32| process == std::process::id() || is_instance(process);
    let readers = processes(&locks, shm.ino()).into_iter().filter(|process| !is_ours(*process));
    readers.map(|process| named(process, Path::new("/proc"))).collect()
}

/// Returns why the WAL cannot be emptied, as a sentence.
pub fn sentence(path: &Path) -> String {
    match of(path).as_slice() {
        [] => "a process of another user reads the database, or did until now".to_owned(),
        readers => {
            format!(
                "{} reads an old state of the database; end that transaction or program",
                readers.join(" and ")
            )
        }
    }
}

fn processes(locks: &str, inode: u64) -> BTreeSet<u32> {
    let file = format!(":{inode}");
    let readers = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // One that waits for a lock has an arrow in its line, and so one field more.
        let [_, "POSIX", _, "READ", process, place, first, last] = fields[..] else { return None };
        let (first, last) = (first.parse::<u64>().ok()?, last.parse().unwrap_or(u64::MAX));
        let is_reader = first <= *READ_LOCKS.end() && last >= *READ_LOCKS.start();
        (place.ends_with(&file) && is_reader).then(|| process.parse().ok())?
    });
    readers.collect()
}

fn named(process: u32, proc: &Path) -> String {
    let name: PathBuf = proc.join(process.to_string()).join("comm");
    match std::fs::read_to_string(name) {
        Ok(name) => {
            let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
            format!("{name} (process {process})")
        }
        Err(_) => format!("a process of another user (process {process})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_found_among_the_locks_of_the_shm() {
        let locks = "1: POSIX  ADVISORY  READ 11 fe:00:77 123 123\n2: POSIX  ADVISORY  READ 12 fe:00:77 127 127\n\
                     3: POSIX  ADVISORY  READ 13 fe:00:78 124 124\n4: POSIX  ADVISORY  WRITE 14 fe:00:77 120 120\n\
                     5: POSIX  ADVISORY  READ 15 fe:00:77 128 128\n6: -> POSIX  ADVISORY  READ 16 fe:00:77 124 124\n\
                     7: FLOCK  ADVISORY  READ 17 fe:00:77 0 EOF\n";
        assert_eq!(processes(locks, 77).into_iter().collect::<Vec<_>>(), [11, 12]);
        assert_eq!(processes(locks, 7), BTreeSet::new(), "not a file whose number merely ends alike");
    }

    #[test]
    fn process_without_a_readable_name_belongs_to_another_user() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("7")).unwrap();
        std::fs::write(directory.path().join("7/comm"), "sqlite3\n").unwrap();
        assert_eq!(named(7, directory.path()), "sqlite3 (process 7)");
        assert_eq!(named(8, directory.path()), "a process of another user (process 8)");
    }
}
