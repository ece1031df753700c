//! Checks that the file at the path continues the change log that was used before.
//!
//! An old copy that was put in place by hand looks like our database, but its log would give the
//! same numbers to other changes. The lock file keeps the last known head of the log, and stays
//! when the database is replaced.

use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension as _;

use super::{displaced, open, place};
use crate::store::log::changes;
use crate::store::{Conn, Instance, LogMark, StoreError};
use komoju_core::change::Hash;

/// Returns the id and the head of an open database's log.
pub fn mark(conn: &Conn) -> Result<LogMark, StoreError> {
    let log_id = conn.query_row("SELECT log_id FROM meta", [], |row| row.get(0))?;
    Ok(LogMark { log_id, head: changes::head(conn)? })
}

/// Refuses the database at `path` if it is an older state of the log that `instance` knows, before
/// anything is written to it.
///
/// # Errors
/// [`StoreError::OlderLog`]; or the file cannot be read.
pub fn check(path: &Path, instance: &Instance) -> Result<(), StoreError> {
    let Some(known) = instance.log_mark() else { return Ok(()) };
    let conn = match open::of_any_version(path) {
        Err(StoreError::Missing(_)) => return Ok(()),
        opened => opened?,
    };
    let found = read(&conn, known).map_err(|e| e.with_path(path))?;
    match found.filter(|found| !continues(found, known)) {
        None => Ok(()),
        Some((found, _)) => Err(StoreError::OlderLog {
            path: path.to_owned(),
            log_id: known.log_id.clone(),
            found: found.head.seq,
            known: known.head.seq,
            way_back: way_back(path, known),
        }),
    }
}

/// Returns the head of the log, and its chain value at the known entry. `None` if the file has no
/// schema yet.
fn read(conn: &Conn, known: &LogMark) -> Result<Option<(LogMark, Option<Hash>)>, StoreError> {
    if conn
        .query_row("SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'change_log'", [], |row| row.get(0))?
    {
        return Ok(None);
    }
    let chain = "SELECT chain FROM change_log WHERE seq = ?1";
    let chain = conn.query_row(chain, [known.head.seq], |row| row.get(0)).optional()?;
    Ok(Some((mark(conn)?, chain)))
}

fn continues((found, chain_there): &(LogMark, Option<Hash>), known: &LogMark) -> bool {
    found.log_id != known.log_id || known.head.seq == 0 || *chain_there == Some(known.head.chain)
}

/// Returns whether a saved copy holds the known log up to its known head or further. Reads the copy
/// without changing any file.
fn holds(copy: &Path, known: &LogMark) -> bool {
    let found = open::without_trace(copy).and_then(|conn| read(&conn, known));
    matches!(found, Ok(Some(found)) if found.0.log_id == known.log_id && continues(&found, known))
}

fn way_back(path: &Path, known: &LogMark) -> String {
    let saved = displaced::copies(path).into_iter().find(|copy| holds(copy, known));
    let put_back = match &saved {
        Some(saved) => format!(
            "{} holds what was recorded when the database was replaced; to continue with it: {}. ",
            saved.display(),
            displaced::put_back(saved, path)
        ),
        None => String::new(),
    };
    let older: PathBuf = place::sibling(path, ".older");
    let (path, older) = (place::for_shell(path), place::for_shell(&older));
    format!(
        "{put_back}To use this file: stop the service, `mv {path} {older}` (with its -wal, where that is not empty), then \
         `komoju-sync restore {older}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::changes::Head;

    #[test]
    fn only_an_older_state_of_the_same_log_is_refused() {
        let at = |log_id: &str, seq, byte| LogMark {
            log_id: log_id.into(),
            head: Head { seq, chain: [byte; 32] },
        };
        let known = at("a", 7, 1);
        for (found, chain, expected) in [
            (at("a", 7, 1), Some([1; 32]), true),
            (at("a", 9, 3), Some([1; 32]), true),
            (at("b", 2, 1), None, true),
            (at("a", 6, 9), None, false),
            // A log of the same length or longer that differs.
            (at("a", 7, 2), Some([2; 32]), false),
            (at("a", 9, 2), Some([2; 32]), false),
        ] {
            assert_eq!(continues(&(found.clone(), chain), &known), expected, "{found:?}");
        }
        assert!(continues(&(at("a", 0, 0), None), &at("a", 0, 0)));
    }
}
