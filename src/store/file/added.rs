//! What others added to the database's schema: an operator's own index, trigger, table or view.
//!
//! SQLite runs these within our statements, so they can refuse what this program writes. An error must then name them, and not the
//! disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use rusqlite::{Connection, OpenFlags};

use super::{indexes, migrations};
use crate::store::StoreError;

/// Controls how many objects a message names.
const MOST_NAMED: usize = 10;

/// Every object that a migration creates, and every index that is made later, by kind and name. The migrations are read and not
/// run, because each start of the program needs this.
static OURS: LazyLock<BTreeSet<(String, String)>> = LazyLock::new(|| {
    let indexes = indexes::names().map(|name| ("index".to_owned(), name.to_owned()));
    migrations::migration_texts().flat_map(created_by).chain(indexes).collect()
});

/// The kind and name of each object that this SQL text creates: each of its `CREATE` statements begins a line.
fn created_by(sql: &str) -> impl Iterator<Item = (String, String)> {
    sql.lines().filter_map(|line| {
        let mut words = line.strip_prefix("CREATE ")?.split([' ', '(']).filter(|word| *word != "UNIQUE");
        Some((words.next()?.to_lowercase(), words.next()?.to_owned()))
    })
}

/// One object of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Object {
    /// `table`, `index`, `trigger` or `view`.
    pub(in crate::store) kind: String,
    pub(in crate::store) name: String,
    /// The table that an index or a trigger belongs to.
    pub(in crate::store) table: String,
}

impl Object {
    /// Whether this program made it.
    pub(in crate::store) fn is_ours(&self) -> bool {
        OURS.contains(&(self.kind.clone(), self.name.clone()))
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, table } = self;
        match kind.as_str() {
            "index" | "trigger" => write!(f, "{kind} {name} on {table}"),
            _ => write!(f, "{kind} {name}"),
        }
    }
}

fn objects(conn: &Connection) -> Result<Vec<Object>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
    )?;
    let objects = statement
        .query_map([], |row| Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)? }))?;
    Ok(objects.collect::<Result<_, _>>()?)
}

/// Whether another program added a trigger.
pub(in crate::store) fn has_triggers(conn: &Connection) -> Result<bool, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT type, name, tbl_name FROM sqlite_schema WHERE type = 'trigger'")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let trigger = Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)? };
        if !trigger.is_ours() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names what others added to the database at `path`, for a message; `None` where there is nothing or it cannot be read.
pub(in crate::store) fn named(path: &Path) -> Option<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    let added: Vec<_> = objects(&conn).ok()?.into_iter().filter(|object| !object.is_ours()).collect();
    let named: Vec<_> = added.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = match added.len().saturating_sub(named.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    (!named.is_empty()).then(|| named.join(", ") + &more)
}

#[cfg(test)]
mod tests {
    use super::super::{open, own};
    use super::*;

    #[test]
    fn every_object_of_every_version_is_ours() {
        let mut conn = Connection::open_in_memory().unwrap();
        own::sign(&conn).unwrap();
        for version in 1..=usize::try_from(migrations::known_version()).unwrap() {
            migrations::MIGRATIONS.to_version(&mut conn, version).unwrap();
            let objects = objects(&conn).unwrap();
            assert!(objects.len() > 20, "{}", objects.len());
            let foreign: Vec<_> = objects.iter().filter(|object| !object.is_ours()).collect();
            assert_eq!(foreign, Vec::<&Object>::new(), "version {version}");
        }
    }

    #[test]
    fn only_what_others_made_is_named() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let conn = open::for_writing(&path).unwrap();
        for name in indexes::names() {
            let _ = indexes::ensure(&mut open::for_writing(&path).unwrap(), name);
        }
        assert_eq!(named(&path), None);
        conn.execute_batch("CREATE UNIQUE INDEX theirs ON mirror (email); CREATE TABLE notes (x)").unwrap();
        assert_eq!(named(&path).unwrap(), "index theirs on mirror, table notes");
    }
}
