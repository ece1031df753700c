//! Room, and what kind of file system it is.

use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::{Exit, Finding, quoted, size};
use crate::store::beside;

const CHECK: &str = "disk";

/// Less than this is as good as nothing: a page of the list may not fit.
const NOTHING: u64 = 16 << 20;

/// Less than this is little. Not a part of the whole: a mirror needs as much room on a large disk as on a small one.
const LITTLE: u64 = 1 << 30;

/// So few names left are few.
const FEW_INODES: u64 = 1000;

/// File systems whose files other machines change too: SQLite's WAL needs shared memory, which they do not share. By their magic
/// numbers (statfs(2)).
const NETWORK: [(u32, &str); 9] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x0bd0_0bd0, "Lustre"),
];

/// File systems in memory.
const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// A file system, as far as it matters here.
#[derive(Clone, Debug)]
struct Space {
    free: u64,
    total: u64,
    /// Free and all names for files; both 0 where there is no limit.
    inodes: (u64, u64),
    is_read_only: bool,
    magic: u32,
    /// The database and its WAL.
    database: u64,
}

/// Looks at the file system of `database`, and at the one of temporary files.
pub(super) fn check(database: &Path) -> Vec<Finding> {
    let length = |suffix: &str| std::fs::metadata(beside(database, suffix)).map_or(0, |file| file.len());
    let bytes = length("") + length("-wal");
    // Before the first start there may be no directory yet; what is above it is on the same file system.
    let there = database.ancestors().skip(1).find(|directory| directory.exists()).unwrap_or(Path::new("/"));
    let mut findings = match look(there, bytes) {
        Ok(space) => judge(there, &space),
        Err(error) => {
            let why = format!("{} cannot be asked for free space: {error}", there.display());
            vec![Finding::warn(CHECK, why, "look with df")]
        }
    };
    let temporary = std::env::temp_dir();
    let room = look(&temporary, bytes).map(|space| space.free);
    if bytes > 0 && room.as_ref().is_ok_and(|free| *free < bytes) {
        findings.push(Finding::warn(
            CHECK,
            format!("a copy of the database ({}) does not fit into {}", size(bytes), temporary.display()),
            "`komoju-sync sync --dry-run` makes one: name a larger place in TMPDIR when you use it",
        ));
    }
    findings
}

fn look(directory: &Path, database: u64) -> std::io::Result<Space> {
    let (room, kind) = (statvfs(directory)?, statfs(directory)?);
    Ok(Space {
        free: room.f_bavail.saturating_mul(room.f_frsize),
        total: room.f_blocks.saturating_mul(room.f_frsize),
        inodes: (room.f_favail, room.f_files),
        is_read_only: room.f_flag.contains(StatVfsMountFlags::RDONLY),
        // The kernel's numbers have 32 bits; the type's sign and width differ between machines.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only these bits count")]
        magic: kind.f_type as u32,
        database,
    })
}

fn judge(directory: &Path, space: &Space) -> Vec<Finding> {
    let (shown, free) = (directory.display(), size(space.free));
    let mut findings = Vec::new();
    let mut fail = |exit: Exit, finding: String, advice: String| {
        findings.push(Finding::fail(CHECK, exit, finding, advice));
    };
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == space.magic) {
        fail(
            Exit::Failed,
            format!("{shown} is on a network file system ({name}), where SQLite can lose what was written"),
            "set database.path to a place on a local disk".to_owned(),
        );
    }
    if space.is_read_only {
        // This does not pass by itself.
        fail(
            Exit::Database,
            format!("{shown} is mounted read-only"),
            format!(
                "mount it writable; after an I/O error, look at the disk first: findmnt -T {}",
                quoted(directory)
            ),
        );
    }
    let make_room = "make room, or set database.path to a larger place; nothing that was recorded is lost";
    if space.free < NOTHING {
        fail(Exit::Failed, format!("{free} are free at {shown}: next to nothing"), make_room.to_owned());
    } else if space.free < LITTLE {
        findings.push(Finding::warn(
            CHECK,
            format!("{free} of {} are free at {shown}", size(space.total)),
            make_room,
        ));
    } else if space.free < space.database {
        findings.push(Finding::warn(
            CHECK,
            format!("{free} are free at {shown}, less than the database has ({})", size(space.database)),
            "a copy of it, or a VACUUM, needs as much again",
        ));
    }
    match space.inodes {
        (_, 0) => {}
        (0, _) => findings.push(Finding::fail(
            CHECK,
            Exit::Failed,
            format!("no file can be made at {shown}: no inode is free"),
            format!("remove small files you do not need: df -i {}", quoted(directory)),
        )),
        (free, _) if free < FEW_INODES => findings.push(Finding::warn(
            CHECK,
            format!("{free} more files can be made at {shown}, then no inode is free"),
            format!("remove small files you do not need: df -i {}", quoted(directory)),
        )),
        _ => {}
    }
    if MEMORY.contains(&space.magic) {
        findings.push(Finding::warn(
            CHECK,
            format!("{shown} is in memory: the database ends with the machine's next restart"),
            "set database.path to a place on a disk; the change log and unsent intents cannot be read again from KOMOJU",
        ));
    }
    if findings.is_empty() {
        let database = match space.database {
            0 => String::new(),
            bytes => format!("; the database has {}", size(bytes)),
        };
        findings.push(Finding::ok(CHECK, format!("{free} are free at {shown}{database}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const FINE: Space = Space {
        free: 50 << 30,
        total: 100 << 30,
        inodes: (1 << 20, 1 << 21),
        is_read_only: false,
        magic: 0xef53,
        database: 1 << 20,
    };

    fn level(space: Space) -> Level {
        let findings = judge(Path::new("/d"), &space);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].level
    }

    #[test]
    fn room_runs_out_by_degrees() {
        assert_eq!(level(FINE), Level::Ok);
        assert_eq!(level(Space { free: 900 << 20, ..FINE }), Level::Warn);
        assert_eq!(level(Space { free: 4 << 30, total: 10 << 40, ..FINE }), Level::Ok, "enough, of whatever");
        assert_eq!(level(Space { free: 20 << 30, database: 30 << 30, ..FINE }), Level::Warn);
        assert_eq!(level(Space { free: 1 << 20, ..FINE }), Level::Fail);
    }

    #[test]
    fn names_run_out_too_where_they_are_counted() {
        assert_eq!(level(Space { inodes: (0, 0), ..FINE }), Level::Ok, "not counted here");
        assert_eq!(level(Space { inodes: (7, 9000), ..FINE }), Level::Warn);
        assert_eq!(level(Space { inodes: (0, 9000), ..FINE }), Level::Fail);
    }

    #[test]
    fn a_network_a_read_only_mount_and_memory_are_no_place() {
        for (magic, _) in NETWORK {
            assert_eq!(level(Space { magic, ..FINE }), Level::Fail);
        }
        let read_only = judge(Path::new("/d"), &Space { is_read_only: true, ..FINE });
        assert_eq!((read_only[0].level, read_only[0].exit), (Level::Fail, Exit::Database));
        assert_eq!(level(Space { magic: MEMORY[0], ..FINE }), Level::Warn);
    }

    #[test]
    fn this_machine_answers() {
        let space = look(Path::new("/"), 0).unwrap();
        assert!(space.total > 0 && space.total >= space.free, "{space:?}");
    }
}
