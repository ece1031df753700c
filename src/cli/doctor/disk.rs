//! The free space and the kind of the file system.

use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::finding::DoctorFindings;
use super::{DoctorFinding, Exit, quoted, size};
use crate::store::sibling;

const CHECK: &str = "disk";

/// LEAST controls below how many free bytes a failure is reported: a page of the list may not fit.
const LEAST: u64 = 16 << 20;

/// LITTLE controls below how many free bytes a warning is reported. It is not a share of the disk,
/// because a mirror needs as much room on a large disk as on a small one.
const LITTLE: u64 = 1 << 30;

/// FEW_INODES controls below how many free inodes a warning is reported.
const FEW_INODES: u64 = 1000;

/// Network file systems, by their magic numbers (statfs(2)). SQLite's WAL needs memory that all
/// its processes share. Processes on different machines share none.
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

/// File systems in memory: tmpfs and ramfs.
const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// A file system.
#[derive(Clone, Debug)]
struct FileSystem {
    free: u64,
    total: u64,
    /// Both counts of inodes are 0 if the file system has no limit.
    free_inodes: u64,
    inodes: u64,
    is_read_only: bool,
    magic: u32,
}

/// Checks the file system of `database`.
pub(super) fn check(database: &Path) -> Vec<DoctorFinding> {
    let length = |suffix: &str| std::fs::metadata(sibling(database, suffix)).map_or(0, |file| file.len());
    let bytes = length("") + length("-wal");
    // Before the first start the directory may be missing. Its parents are on the same file system.
    let directory = database.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
    match look(directory) {
        Ok(space) => classify(directory, &space, bytes),
        Err(error) => {
            let finding = format!("{} cannot be asked for free space: {error}", directory.display());
            vec![DoctorFinding::warn(CHECK, finding, "look with df")]
        }
    }
}

fn look(directory: &Path) -> std::io::Result<FileSystem> {
    let (room, kind) = (statvfs(directory)?, statfs(directory)?);
    Ok(FileSystem {
        free: room.f_bavail.saturating_mul(room.f_frsize),
        total: room.f_blocks.saturating_mul(room.f_frsize),
        free_inodes: room.f_favail,
        inodes: room.f_files,
        is_read_only: room.f_flag.contains(StatVfsMountFlags::RDONLY),
        // The kernel's numbers have 32 bits; the type's sign and width differ between machines.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only these bits count")]
        magic: kind.f_type as u32,
    })
}

/// Classifies the file system of a database that has `bytes`, its WAL included.
fn classify(directory: &Path, space: &FileSystem, bytes: u64) -> Vec<DoctorFinding> {
    let (shown, free) = (directory.display(), size(space.free));
    let mut findings = DoctorFindings::of(CHECK);
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == space.magic) {
        let finding =
            format!("{shown} is on a network file system ({name}), where SQLite can lose what was written");
        findings.fail(Exit::Failed, finding, "set database.path to a place on a local disk");
    }
    if space.is_read_only {
        let look = format!("findmnt -T {}", quoted(directory));
        let advice = format!("mount it writable; after an I/O error, look at the disk first: {look}");
        // Not `Failed`, because this does not pass by itself.
        findings.fail(Exit::Database, format!("{shown} is mounted read-only"), advice);
    }
    classify_room(&mut findings, directory, space, bytes);
    if MEMORY.contains(&space.magic) {
        findings.warn(
            format!("{shown} is in memory: the database ends with the machine's next restart"),
            "set database.path to a place on a disk; the change log and unsent intents cannot be read again from KOMOJU",
        );
    }
    findings.or_ok(|| {
        let database = if bytes == 0 { String::new() } else { format!("; the database has {}", size(bytes)) };
        format!("{free} are free at {shown}{database}")
    })
}

/// Adds the findings about the free space and the free inodes.
fn classify_room(findings: &mut DoctorFindings, directory: &Path, space: &FileSystem, bytes: u64) {
    let (shown, free) = (directory.display(), size(space.free));
    let room = "make room, or set database.path to a larger place; nothing that was recorded is lost";
    match space.free {
        ..LEAST => findings.fail(Exit::Failed, format!("{free} are free at {shown}: next to nothing"), room),
        LEAST..LITTLE => findings.warn(format!("{free} of {} are free at {shown}", size(space.total)), room),
        left if left < bytes => findings.warn(
            format!("{free} are free at {shown}, less than the database has ({})", size(bytes)),
            "a copy of it, or a VACUUM, needs as much again",
        ),
        _ => {}
    }
    let remove = || format!("remove small files you do not need: df -i {}", quoted(directory));
    match (space.free_inodes, space.inodes) {
        (_, 0) | (FEW_INODES.., _) => {}
        (0, _) => {
            findings.fail(
                Exit::Failed,
                format!("no file can be made at {shown}: no inode is free"),
                remove(),
            );
        }
        (left, _) => {
            findings
                .warn(format!("{left} more files can be made at {shown}, then no inode is free"), remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const FINE: FileSystem = FileSystem {
        free: 50 << 30,
        total: 100 << 30,
        free_inodes: 1 << 20,
        inodes: 1 << 21,
        is_read_only: false,
        magic: 0xef53,
    };

    #[test]
    fn each_fault_of_a_file_system_has_its_level() {
        let mut cases = vec![
            (FINE, Level::Ok, Exit::Fine),
            (FileSystem { free: 900 << 20, ..FINE }, Level::Warn, Exit::Fine),
            (FileSystem { free: 4 << 30, total: 10 << 40, ..FINE }, Level::Ok, Exit::Fine),
            (FileSystem { free: 2 << 30, ..FINE }, Level::Warn, Exit::Fine),
            (FileSystem { free: 1 << 20, ..FINE }, Level::Fail, Exit::Failed),
            (FileSystem { free_inodes: 0, inodes: 0, ..FINE }, Level::Ok, Exit::Fine),
            (FileSystem { free_inodes: 7, inodes: 9000, ..FINE }, Level::Warn, Exit::Fine),
            (FileSystem { free_inodes: 0, inodes: 9000, ..FINE }, Level::Fail, Exit::Failed),
            (FileSystem { is_read_only: true, ..FINE }, Level::Fail, Exit::Database),
            (FileSystem { magic: MEMORY[0], ..FINE }, Level::Warn, Exit::Fine),
        ];
        cases.extend(NETWORK.map(|(magic, _)| (FileSystem { magic, ..FINE }, Level::Fail, Exit::Failed)));
        for (space, level, exit) in cases {
            let [finding] = &classify(Path::new("/d"), &space, 3 << 30)[..] else { panic!("{space:?}") };
            assert_eq!((finding.level, finding.exit), (level, exit), "{space:?}");
        }
    }

    #[test]
    fn this_machine_answers() {
        let space = look(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.total >= space.free, "{space:?}");
    }
}
