//! Resources that a machine can run out of and get back. SQLite's result codes do not always
//! distinguish this from a lasting error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::io::Errno;

use super::{identity, place};
use crate::store::is_transient_io;

/// PIECE controls how many bytes are read at once.
const PIECE: usize = 1 << 20;

/// HANDLES controls how many handles are tried: SQLite opens up to three files, and closes them
/// again when one fails.
const HANDLES: usize = 4;

/// Returns whether this process, or the machine, has no file handles left.
pub(in crate::store) fn file_handles() -> bool {
    let opened: Result<Vec<File>, io::Error> = (0..HANDLES).map(|_| File::open("/dev/null")).collect();
    opened.is_err_and(|e| matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}

/// Returns whether SQLite may be able to open `path` and the files next to it later: no permission
/// and no directory is missing. The cause may then be transient, such as a full disk on which no
/// file can be created.
pub(in crate::store) fn may_be_opened(path: &Path) -> bool {
    let Ok(path) = place::real(path) else { return false };
    let is_allowed = |suffix| match access(place::sibling(&path, suffix), Access::READ_OK | Access::WRITE_OK)
    {
        Ok(()) | Err(Errno::NOENT) => true,
        Err(e) => is_transient_io(&e.into()),
    };
    // A file without a name leaves no trace.
    let made = tempfile::tempfile_in(place::directory(&path)).map(drop);
    ["", "-wal", "-shm"].into_iter().all(is_allowed) && made.map_or_else(|e| is_transient_io(&e), |()| true)
}

/// Returns whether the file system of `path` is read-only, as after the kernel found an error in
/// it.
pub(in crate::store) fn is_mounted_read_only(path: &Path) -> bool {
    statvfs(place::directory(path)).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns whether the disk fails to read the database or its WAL. SQLite reports that as damage,
/// although the database may be intact.
pub(in crate::store) fn is_unreadable(path: &Path) -> bool {
    let fails = |file: io::Result<Arc<File>>| {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            match file.as_ref().map(|file| file.read_at(&mut piece, at)) {
                Ok(Ok(0)) | Err(_) => return false,
                Ok(Ok(read)) => at += read as u64,
                Ok(Err(e)) => return is_transient_io(&e),
            }
        }
    };
    // There is no lock on the WAL, so its handle may be closed again.
    fails(identity::handle(path)) || fails(File::open(place::sibling(path, "-wal")).map(Arc::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_is_unreadable_if_the_disk_fails_to_read_only_its_wal() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        std::fs::write(&path, "intact").unwrap();
        std::fs::write(place::sibling(&path, "-wal"), "intact").unwrap();
        assert!(!is_unreadable(&path));
        std::fs::remove_file(place::sibling(&path, "-wal")).unwrap();
        // No process has memory at address 0, so reading it there fails as a broken disk does.
        std::os::unix::fs::symlink("/proc/self/mem", place::sibling(&path, "-wal")).unwrap();
        assert!(is_unreadable(&path));
    }
}
