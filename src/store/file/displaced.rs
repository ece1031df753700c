//! Detects that the path of an open database leads to another file or to none, and saves the
//! content of the open database.
//!
//! A process is not notified when a file is replaced, moved or removed. What it writes afterwards
//! goes to a file without a name, and is lost when the process ends.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::identity::{self, FileIdentity};
use super::place;
use crate::store::StoreError;

/// PAGES_AT_ONCE controls how many database pages are copied in one step.
const PAGES_AT_ONCE: i32 = 4096;

/// DISPLACED is the part of a copy's name between the database's name and the time.
const DISPLACED: &str = ".displaced-";

/// INCOMPLETE is the suffix of a copy that is not whole.
const INCOMPLETE: &str = ".incomplete";

/// The files of an open database, and the path that led to them.
#[derive(Clone, Debug)]
pub(in crate::store) struct Placement {
    path: PathBuf,
    real: PathBuf,
    database: FileIdentity,
    /// `-wal` and `-shm`, if they exist: SQLite creates them only in WAL mode.
    companions: [(&'static str, Option<FileIdentity>); 2],
}

/// What happened to the files of an open database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Displacement {
    /// There is no file at the path.
    Missing,
    /// There is another file at the path, or another `-wal` with content.
    Replaced,
    /// The `-wal` or `-shm` is missing, or was replaced by one without content.
    Without(&'static str),
}

impl Placement {
    /// Records the files of the database that was just opened by this path.
    pub(in crate::store) fn of(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), what: "cannot be found", source };
        let real = place::real(path)?;
        // The open handle keeps the inode number from being given to another file.
        identity::handle(path).map_err(failed)?;
        let database =
            FileIdentity::at(path).map_err(failed)?.ok_or_else(|| StoreError::Missing(path.to_owned()))?;
        let at = |suffix| FileIdentity::at(&place::sibling(&real, suffix)).map_err(failed);
        let companions = [("-wal", at("-wal")?), ("-shm", at("-shm")?)];
        Ok(Self { path: path.to_owned(), real, database, companions })
    }

    /// Records the files again, after the same database was opened again.
    ///
    /// # Errors
    /// [`StoreError::Displaced`] where the path leads to another database by now.
    pub(in crate::store) fn again(&self) -> Result<Self, StoreError> {
        let found = Self::of(&self.path)?;
        match found.database == self.database {
            true => Ok(found),
            false => Err(self.error(Displacement::Replaced)),
        }
    }

    /// Compares the files with those that the path leads to now. A path that cannot be followed,
    /// because of a missing permission or file handle, counts as unchanged.
    pub(in crate::store) fn check(&self) -> Option<Displacement> {
        match FileIdentity::at(&self.path) {
            Ok(None) => return Some(Displacement::Missing),
            Ok(Some(found)) if found != self.database => return Some(Displacement::Replaced),
            _ => {}
        }
        self.companions.iter().find_map(|(suffix, noted)| {
            let file = place::sibling(&self.real, suffix);
            let found = FileIdentity::at(&file).ok()?;
            if noted.is_none() || found == *noted {
                return None;
            }
            let holds = *suffix == "-wal" && fs::metadata(&file).is_ok_and(|file| file.len() > 0);
            Some(if holds { Displacement::Replaced } else { Displacement::Without(suffix) })
        })
    }

    /// Returns whether the path leads to the database that was opened, whatever happened to the
    /// files next to it.
    pub(in crate::store) fn leads_to_database(&self) -> bool {
        FileIdentity::at(&self.path).is_ok_and(|found| found == Some(self.database))
    }

    /// Returns the error for a displacement before anything is saved.
    pub(in crate::store) fn error(&self, displacement: Displacement) -> StoreError {
        self.error_with(displacement, "What it holds is saved before the process ends".to_owned())
    }

    /// Returns the error for a displacement that was undone before anything was saved.
    pub(in crate::store) fn is_back(&self) -> StoreError {
        let way_back = "It is back in its place, and holds everything: start the service again (`systemctl start komoju-sync`)";
        let (path, what) = (self.path.clone(), "moved or replaced");
        StoreError::Displaced { path, what, way_back: way_back.to_owned() }
    }

    fn error_with(&self, displacement: Displacement, way_back: String) -> StoreError {
        let (path, what) = match displacement {
            Displacement::Missing => (self.path.clone(), "moved or removed"),
            Displacement::Replaced => (self.path.clone(), "replaced"),
            Displacement::Without(suffix) => (place::sibling(&self.real, suffix), "removed or replaced"),
        };
        StoreError::Displaced { path, what, way_back }
    }

    /// Saves the content of the open database, if necessary and possible. `conn` was opened by this
    /// path; afterwards it is an empty database in memory. `stamp` becomes part of the copy's name.
    pub(in crate::store) fn save(
        &self,
        conn: &mut Connection,
        displacement: Displacement,
        stamp: &str,
    ) -> StoreError {
        // Another `-wal` with content belongs to the database file in its current state. After a
        // checkpoint that `-wal` would no longer fit the file.
        let may_empty = displacement != Displacement::Replaced || !self.leads_to_database();
        let is_whole = may_empty
            && conn
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
                .is_ok_and(|is_busy| !is_busy);
        if let (Displacement::Without(_), true) = (displacement, is_whole) {
            let start = "Everything that it held is in the database: start the service again (`systemctl start komoju-sync`)";
            return self.error_with(displacement, start.to_owned());
        }
        let saved = self.copy(conn, stamp);
        let moved = identity::current_path(self.database).filter(|now| *now != self.real);
        if let Ok(memory) = Connection::open_in_memory() {
            *conn = memory;
        }
        let restore = "To use the file that is there now instead, move it away and `komoju-sync restore` it";
        self.error_with(
            displacement,
            match (saved, moved) {
                (Ok(saved), _) => format!(
                    "What it held is saved as {}. To continue with that: {}, then start the service. {restore}",
                    saved.display(),
                    put_back(&saved, &self.path)
                ),
                (Err(_), Some(moved)) => self.move_back(&moved, is_whole, restore),
                (Err(why), None) => format!(
                    "What it held could not be saved ({why}). Use the last backup: `komoju-sync restore FILE`, then start the service"
                ),
            },
        )
    }

    fn move_back(&self, moved: &Path, is_whole: bool, restore: &str) -> String {
        let (now, path) = (moved.display(), self.path.display());
        if is_whole {
            return format!(
                "It is complete, and now at {now}. To continue with it, move it back to {path}, then start the service. {restore}"
            );
        }
        // The `-wal` moved along with a renamed directory; it stayed where only the database file
        // was moved.
        let wal = [place::sibling(moved, "-wal"), place::sibling(&self.real, "-wal")];
        let wal =
            wal.iter().find(|wal| FileIdentity::at(wal).is_ok_and(|found| found == self.companions[0].1));
        let wal = wal.map_or_else(|| "its -wal".to_owned(), |wal| wal.display().to_string());
        format!(
            "It is now at {now}, and its last commits are in {wal}. To continue with it, move it back to {path} and that file to \
             {path}-wal, then start the service. {restore}"
        )
    }

    fn copy(&self, conn: &Connection, stamp: &str) -> Result<PathBuf, String> {
        let first = place::sibling(&self.path, &format!("{DISPLACED}{stamp}"));
        let saved = place::free_name(first, |name| fs::symlink_metadata(name).is_ok());
        let incomplete = place::sibling(&saved, INCOMPLETE);
        let copied = (|| {
            must_have_room(conn, place::directory(&saved))?;
            copy_to(conn, &incomplete)?;
            // The same users may read the copy.
            let file = File::open(&incomplete).map_err(|e| e.to_string())?;
            if let Some(owner) = identity::metadata(self.database) {
                let _ = place::give(&file, &owner);
                let _ = file.set_permissions(Permissions::from_mode(owner.mode() & 0o777));
            }
            file.sync_all().map_err(|e| e.to_string())?;
            fs::rename(&incomplete, &saved).map_err(|e| e.to_string())?;
            place::sync_directory(&saved).map_err(|e| e.to_string())
        })();
        if copied.is_err() {
            let _ = fs::remove_file(&incomplete);
        }
        copied.map(|()| saved)
    }
}

fn must_have_room(conn: &Connection, directory: &Path) -> Result<(), String> {
    let bytes = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let needed: u64 = conn.query_row(bytes, [], |row| row.get(0)).map_err(|e| e.to_string())?;
    let room = rustix::fs::statvfs(directory).map_err(|e| e.to_string())?;
    match room.f_bavail.saturating_mul(room.f_frsize) >= needed {
        true => Ok(()),
        false => Err(format!("there is no room for {needed} bytes in {}", directory.display())),
    }
}

fn copy_to(conn: &Connection, to: &Path) -> Result<(), String> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(|e| e.to_string())?;
    let copied = || -> rusqlite::Result<()> {
        let mut target = Connection::open(to)?;
        Backup::new(conn, &mut target)?.run_to_completion(PAGES_AT_ONCE, Duration::ZERO, None)?;
        target.close().map_err(|(_, e)| e)
    };
    copied().map_err(|e| e.to_string())
}

/// Returns the saved copies of the database at `path`, the latest first. A copy's name contains its
/// time.
pub(in crate::store) fn copies(path: &Path) -> Vec<PathBuf> {
    let begins = place::prefix(path, DISPLACED);
    let mut copies = place::files_in(place::directory(path), &begins);
    copies.retain(|copy| {
        let name = copy.file_name().unwrap_or_default().to_string_lossy();
        let time = name.trim_start_matches(&begins);
        let is_time = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        time.bytes().all(is_time) && !["-wal", "-shm"].iter().any(|companion| time.ends_with(companion))
    });
    copies.reverse();
    copies
}

/// Returns the commands that put a saved copy back to `path`, and keep the file that is there under
/// another name.
pub(in crate::store) fn put_back(saved: &Path, path: &Path) -> String {
    let name = saved.to_string_lossy();
    let time = name.rsplit_once(DISPLACED).map_or("", |(_, time)| time);
    let kept = place::sibling(path, &format!(".replaced-{time}"));
    let [saved, path, kept] = [saved, path, &kept].map(place::for_shell);
    format!("`for s in '' -wal -shm; do [ ! -e {path}$s ] || mv {path}$s {kept}$s; done; mv {saved} {path}`")
}
