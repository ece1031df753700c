//! A copy of the database to work on and throw away.

use std::path::Path;

use rusqlite::params;

use super::{StoreError, open};

/// Copies the database at `from`, as it stands now, to the new file `to`. Where there is none yet, there will be none.
pub fn to(from: &Path, to: &Path) -> Result<(), StoreError> {
    let conn = match open::for_reading(from) {
        Err(StoreError::Missing(_)) => return Ok(()),
        other => other?,
    };
    let text = to.to_string_lossy().into_owned();
    conn.execute("VACUUM INTO ?1", params![text]).map_err(|e| StoreError::from(e).about(from))?;
    Ok(())
}
