//! The processes that use a file, from the kernel's list of locks (`/proc/locks`), and their names
//! and start times (`/proc/PID`).
//!
//! The list shows the processes of every user. Their names and open files may be hidden from the
//! user of this process.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

/// The byte of a `-shm` that a writer locks, and those that readers lock during their transactions
/// (SQLite's WAL-index format).
const WRITE_LOCK: RangeInclusive<u64> = 120..=120;
const READ_LOCKS: RangeInclusive<u64> = 123..=127;

/// TICKS_PER_SECOND is the unit of times in `/proc/PID/stat`: always 100 on Linux, whatever the
/// kernel's own rate is.
const TICKS_PER_SECOND: u64 = 100;

/// Returns the process that holds the exclusive `flock` on this inode.
pub fn flock_holder(inode: u64) -> Option<u32> {
    holders(&locks(), inode, "FLOCK", "WRITE", &(0..=0)).first().copied()
}

/// Returns the process that holds SQLite's lock for writing on the -shm with this inode.
pub fn writer(shm: u64) -> Option<u32> {
    holders(&locks(), shm, "POSIX", "WRITE", &WRITE_LOCK).first().copied()
}

/// Returns the processes that hold one of SQLite's locks for reading on the -shm with this inode.
pub(super) fn readers(shm: u64) -> BTreeSet<u32> {
    holders(&locks(), shm, "POSIX", "READ", &READ_LOCKS)
}

fn locks() -> String {
    std::fs::read_to_string("/proc/locks").unwrap_or_default()
}

/// Returns the processes with such a lock on one of these bytes. The device is not compared,
/// because some file systems show another one here.
fn holders(locks: &str, inode: u64, class: &str, access: &str, bytes: &RangeInclusive<u64>) -> BTreeSet<u32> {
    let file = format!(":{inode}");
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The line of a process that waits for a lock has an arrow as a further field.
        let [_, found, _, how, process, place, first, last] = fields[..] else { return None };
        let (first, last) = (first.parse::<u64>().ok()?, last.parse().unwrap_or(u64::MAX));
        let is_such = (found, how) == (class, access) && place.ends_with(&file);
        (is_such && first <= *bytes.end() && last >= *bytes.start()).then(|| process.parse().ok())?
    });
    // A process of another container has the number 0.
    held.filter(|process| *process > 0).collect()
}

/// Returns the name of a process's program; `None` if this user may not read it.
pub fn name(process: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.trim().chars().filter(|c| !c.is_control()).collect())
}

/// Returns a process's name and number for messages.
pub fn named(process: u32) -> String {
    let name = name(process).unwrap_or_else(|| "a process of another user".to_owned());
    format!("{name} (process {process})")
}

/// Returns when a process started.
pub(super) fn started_at(process: u32) -> Option<jiff::Timestamp> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    start_in(&stat, &std::fs::read_to_string("/proc/stat").ok()?)
}

fn start_in(stat: &str, boot: &str) -> Option<jiff::Timestamp> {
    // The program's name is in brackets and may contain anything.
    let fields = stat.rsplit_once(')')?.1;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let booted: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    jiff::Timestamp::from_second(i64::try_from(booted + ticks / TICKS_PER_SECOND).ok()?).ok()
}

/// Returns the other processes that have one of these files open, as far as this user may see them.
pub fn with_open(files: &[&Path]) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_one = |process: &u32| {
        let mut handles = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        handles.any(|handle| std::fs::read_link(handle.path()).is_ok_and(|to| files.contains(&&*to)))
    };
    numbers.filter(|process| *process != std::process::id()).filter(has_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
        1: POSIX  ADVISORY  READ 11 fe:00:77 123 123\n2: POSIX  ADVISORY  READ 12 fe:00:77 127 127\n\
        3: POSIX  ADVISORY  READ 13 fe:00:78 124 124\n4: POSIX  ADVISORY  WRITE 14 fe:00:77 120 120\n\
        5: POSIX  ADVISORY  READ 15 fe:00:77 128 128\n6: -> POSIX  ADVISORY  READ 16 fe:00:77 124 124\n\
        7: FLOCK  ADVISORY  READ 17 fe:00:77 0 EOF\n8: FLOCK  ADVISORY  WRITE 18 fe:00:177 0 EOF\n\
        9: FLOCK  ADVISORY  WRITE 19 fe:00:77 0 EOF\n10: POSIX  ADVISORY  WRITE 20 fe:00:78 120 120\n\
        11: FLOCK  ADVISORY  WRITE 0 fe:00:79 0 EOF\n";

    #[test]
    fn locks_are_found_by_inode_kind_and_bytes() {
        let found = |inode, class, access, bytes| {
            holders(LOCKS, inode, class, access, bytes).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found(77, "POSIX", "READ", &READ_LOCKS), [11, 12]);
        assert_eq!(found(77, "POSIX", "WRITE", &WRITE_LOCK), [14]);
        assert_eq!(
            found(77, "FLOCK", "WRITE", &(0..=0)),
            [19],
            "neither a shared one nor one of another file"
        );
        assert_eq!(
            found(7, "FLOCK", "WRITE", &(0..=0)),
            [0_u32; 0],
            "not a file whose number merely ends alike"
        );
        assert_eq!(found(79, "FLOCK", "WRITE", &(0..=0)), [0_u32; 0], "a process of another container");
        assert_eq!(found(80, "POSIX", "WRITE", &WRITE_LOCK), [0_u32; 0]);
    }

    #[test]
    fn start_is_counted_from_the_boot() {
        let stat = "14 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let started = start_in(stat, "cpu 1\nbtime 1767225600\n").unwrap();
        assert_eq!(komoju_core::time::written(started), "2026-01-01T00:02:03.000Z");
        assert!(started_at(std::process::id()).is_some());
    }

    #[test]
    fn name_is_read_where_the_process_exists() {
        assert!(name(std::process::id()).is_some());
        assert_eq!(named(u32::MAX), "a process of another user (process 4294967295)");
    }
}
