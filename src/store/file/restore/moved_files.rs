//! The `-wal`, `-journal` and `-shm` of a database that is replaced: moved away before, and moved
//! back if the replacement fails.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::COMPANIONS;
use crate::store::file::place;

/// Files next to a database: each with its old path, its current path, and its suffix. They first
/// get names that belong to no database, and later the names that belong to the kept database.
#[derive(Default)]
pub(super) struct MovedFiles(pub(super) Vec<(PathBuf, PathBuf, &'static str)>);

impl MovedFiles {
    pub(super) fn take(&mut self, path: &Path, kept: &Path) -> std::io::Result<()> {
        for suffix in COMPANIONS {
            let (from, to) = (place::sibling(path, suffix), place::sibling(kept, &format!("-aside{suffix}")));
            match fs::rename(&from, &to) {
                Ok(()) => self.0.push((from, to, suffix)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(super) fn put_back(self) {
        for (from, to, _) in self.0 {
            let _ = fs::rename(to, from);
        }
    }

    /// Keeps the files that hold commits and removes the others. Returns whether any is kept.
    /// SQLite creates a `-shm` again from its `-wal`.
    pub(super) fn keep_commits(self, kept: &Path) -> bool {
        let mut holds_commits = false;
        for (_, file, suffix) in self.0 {
            let holds = suffix != "-shm" && fs::symlink_metadata(&file).is_ok_and(|found| found.len() > 0);
            // A file that cannot be renamed keeps its current name.
            let _ = match holds {
                true => fs::rename(&file, place::sibling(kept, suffix)),
                false => fs::remove_file(&file),
            };
            holds_commits |= holds;
        }
        holds_commits
    }
}

/// Makes a file readable only by its owner.
pub(super) fn make_private(path: &Path) -> std::io::Result<()> {
    place::open_plain(path)?.set_permissions(fs::Permissions::from_mode(0o600))
}
