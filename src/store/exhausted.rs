//! What a machine can run out of, and get back: SQLite's result codes do not always tell it from what stays.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

/// Controls how many handles are tried: SQLite opens up to three files, and closes them again when one fails.
const HANDLES: usize = 4;

/// Whether this process, or the machine, has no file handles left.
pub(super) fn file_handles() -> bool {
    let opened: Result<Vec<File>, io::Error> = (0..HANDLES).map(|_| File::open("/dev/null")).collect();
    opened.is_err_and(|e| matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}

/// Whether the file system of `path` cannot be written, as after the kernel has found an error in it.
pub(super) fn is_mounted_read_only(path: &Path) -> bool {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    statvfs(directory.unwrap_or(Path::new(".")))
        .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether what the kernel refused may be granted later.
pub(super) fn can_pass(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOSPC
                | libc::EDQUOT
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::EIO
                | libc::EAGAIN
                | libc::EINTR
        )
    )
}
