//! A copy of the database to work on and throw away.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::open;
use crate::store::StoreError;

/// How many database pages are copied before others get their turn.
const PAGES_AT_ONCE: i32 = 4096;

/// Copies the database at `from`, as it stands now, to the new file `to`. Where there is none yet, there will be none.
pub fn to(from: &Path, to: &Path) -> Result<(), StoreError> {
    // What is wrong with it is said of itself, not of the copy.
    let source = match open::checked_for_reading(from) {
        Err(StoreError::Missing(_)) => return Ok(()),
        other => other?,
    };
    let copy = || -> Result<(), StoreError> {
        let mut target = Connection::open(to)?;
        Backup::new(&source, &mut target)?.run_to_completion(PAGES_AT_ONCE, Duration::ZERO, None)?;
        Ok(())
    };
    copy().map_err(|e| e.about(from))
}
