//! Objects that other programs added to the schema: an operator's own index, trigger, table or
//! view.
//!
//! SQLite runs these within our statements, so they can refuse what this program writes. An error
//! must then name them, and not the disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use rusqlite::{Connection, OpenFlags};

use super::schema_copy::{ObjectKind, SchemaObject, objects};
use super::{indexes, migrations};
use crate::store::StoreError;

/// MAX_NAMED_OBJECTS controls how many objects a message names.
const MAX_NAMED_OBJECTS: usize = 10;

/// OURS holds the kind and name of every object that a migration creates, and of every index that
/// is created later. The migrations are read and not run, because each start of the program needs
/// this set.
static OURS: LazyLock<BTreeSet<(ObjectKind, String)>> = LazyLock::new(|| {
    let indexes = indexes::ALL.map(|index| (ObjectKind::Index, index.name.to_owned()));
    migrations::migration_texts().flat_map(created_by).chain(indexes).collect()
});

/// Returns the kind and name of each object that this SQL text creates. Each `CREATE` statement is
/// at the beginning of a line.
fn created_by(sql: &str) -> impl Iterator<Item = (ObjectKind, String)> {
    sql.lines().filter_map(|line| {
        let mut words = line.strip_prefix("CREATE ")?.split([' ', '(']).filter(|word| *word != "UNIQUE");
        Some((ObjectKind::of(&words.next()?.to_lowercase()), words.next()?.to_owned()))
    })
}

fn is_ours(object: &SchemaObject) -> bool {
    OURS.contains(&(object.kind, object.name.clone()))
}

/// Returns whether another program added a trigger.
pub(in crate::store) fn has_triggers(conn: &Connection) -> Result<bool, StoreError> {
    let mut triggers = conn.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'trigger'")?;
    let mut rows = triggers.query([])?;
    while let Some(row) = rows.next()? {
        if !OURS.contains(&(ObjectKind::Trigger, row.get(0)?)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the names of the objects that were added to the database at `path`, for a message.
/// `None` where there are none or they cannot be read.
pub(in crate::store) fn named(path: &Path) -> Option<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    let added: Vec<_> = objects(&conn, "main").ok()?.into_iter().filter(|object| !is_ours(object)).collect();
    let named: Vec<_> = added.iter().take(MAX_NAMED_OBJECTS).map(ToString::to_string).collect();
    let more = match added.len().saturating_sub(named.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    (!named.is_empty()).then(|| named.join(", ") + &more)
}

#[cfg(test)]
mod tests {
    use super::super::{open, signature};
    use super::*;

    #[test]
    fn objects_of_every_schema_version_are_ours() {
        let mut conn = Connection::open_in_memory().unwrap();
        signature::sign(&conn).unwrap();
        for version in 1..=usize::try_from(migrations::known_version()).unwrap() {
            migrations::MIGRATIONS.to_version(&mut conn, version).unwrap();
            let objects = objects(&conn, "main").unwrap();
            assert!(objects.len() > 20, "{}", objects.len());
            let foreign: Vec<_> = objects.iter().filter(|object| !is_ours(object)).collect();
            assert_eq!(foreign, Vec::<&SchemaObject>::new(), "version {version}");
        }
    }

    #[test]
    fn only_objects_of_other_programs_are_named() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let conn = open::for_writing(&path).unwrap();
        for index in indexes::ALL {
            indexes::ensure(&mut open::for_writing(&path).unwrap(), index).unwrap();
        }
        assert_eq!(named(&path), None);
        conn.execute_batch("CREATE UNIQUE INDEX theirs ON mirror (email); CREATE TABLE notes (x)").unwrap();
        assert_eq!(named(&path).unwrap(), "index theirs on mirror, table notes");
    }
}
