//! Copies the objects of a schema from the attached database `source` to `main`. Fails with the
//! name of an object that cannot be copied.
//!
//! A virtual table, such as a full-text index, keeps its content in ordinary tables, which are
//! copied like all others. Its own row of the schema is then copied unchanged, as `VACUUM` does. So
//! its module need not be known here.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::store::StoreError;

/// The kind of an object of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum ObjectKind {
    /// A table with rows of its own.
    Table,
    /// A virtual table, which a module provides.
    Virtual,
    Index,
    Trigger,
    View,
}

impl ObjectKind {
    /// Returns the kind with this name.
    pub(in crate::store) fn of(word: &str) -> Self {
        match word {
            "table" => Self::Table,
            "virtual" => Self::Virtual,
            "index" => Self::Index,
            "trigger" => Self::Trigger,
            _ => Self::View,
        }
    }
}

/// An object of a schema. SQLite's internal objects are not listed, because SQLite creates them
/// with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct SchemaObject {
    pub(in crate::store) kind: ObjectKind,
    pub(in crate::store) name: String,
    pub(in crate::store) table: String,
    pub(in crate::store) sql: String,
}

impl SchemaObject {
    /// Returns the error of a backup that must not leave out this object. An error that has nothing
    /// to do with the object is returned unchanged.
    pub(in crate::store) fn cannot_be_copied(&self, from: &Path, error: StoreError) -> StoreError {
        let StoreError::Statement(source) = &error else { return error };
        match source.sqlite_error_code() {
            Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation) => StoreError::Refused(format!(
                "no backup was made: {self} of {} cannot be copied ({source}). Drop it, or make the backup with what it needs",
                from.display()
            )),
            _ => error,
        }
    }
}

impl std::fmt::Display for SchemaObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, table, .. } = self;
        match kind {
            ObjectKind::Table => write!(f, "table {name}"),
            ObjectKind::Virtual => write!(f, "virtual table {name}"),
            ObjectKind::View => write!(f, "view {name}"),
            ObjectKind::Index => write!(f, "index {name} on {table}"),
            ObjectKind::Trigger => write!(f, "trigger {name} on {table}"),
        }
    }
}

/// Returns the objects of an attached database, in the order of their creation.
pub(in crate::store) fn objects(conn: &Connection, database: &str) -> Result<Vec<SchemaObject>, StoreError> {
    let mut statement = conn.prepare(&format!(
        "SELECT CASE WHEN type = 'table' AND rootpage = 0 THEN 'virtual' ELSE type END AS kind, name, tbl_name, sql
         FROM {database}.sqlite_schema
         WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ))?;
    let objects = statement.query_map([], |row| {
        let kind = ObjectKind::of(&row.get::<_, String>(0)?);
        Ok(SchemaObject { kind, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    Ok(objects.collect::<Result<_, _>>()?)
}

/// The columns of a table of `source`.
pub(in crate::store) struct TableColumns {
    /// The stored columns, quoted.
    pub(in crate::store) stored: Vec<String>,
    /// Whether there are generated columns, too.
    has_generated: bool,
    /// The name of the row number, if no column holds it.
    hidden_rowid: Option<&'static str>,
}

/// Reads the columns of a table of `source`.
pub(in crate::store) fn columns(conn: &Connection, table: &str) -> Result<TableColumns, StoreError> {
    let mut statement =
        conn.prepare("SELECT name, hidden, pk, type FROM pragma_table_xinfo(?1, 'source') ORDER BY cid")?;
    let rows = statement.query_map([table], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
    })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    let keys: Vec<_> = rows.iter().filter(|(_, _, key, _)| *key > 0).collect();
    let is_number = matches!(keys[..], [(_, _, _, kind)] if kind.eq_ignore_ascii_case("integer"));
    let without = "SELECT wr FROM pragma_table_list WHERE schema = 'source' AND name = ?1";
    let has_rowid = conn.query_row(without, [table], |row| row.get::<_, i64>(0))? == 0;
    let is_free = |name: &&str| !rows.iter().any(|(column, ..)| column.eq_ignore_ascii_case(name));
    Ok(TableColumns {
        stored: rows.iter().filter(|(_, hidden, ..)| *hidden == 0).map(|(name, ..)| quoted(name)).collect(),
        has_generated: rows.iter().any(|(_, hidden, ..)| *hidden != 0),
        hidden_rowid: ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(is_free)
            .filter(|_| has_rowid && !is_number),
    })
}

/// Copies the rows of a table. Their row numbers stay, because an index of another program may
/// refer to them.
pub(in crate::store) fn rows(conn: &Connection, table: &SchemaObject) -> Result<(), StoreError> {
    let TableColumns { stored, has_generated, hidden_rowid } = columns(conn, &table.name)?;
    let name = quoted(&table.name);
    let sql = match (hidden_rowid, has_generated) {
        // In this form SQLite copies whole pages.
        (None, false) => format!("INSERT INTO main.{name} SELECT * FROM source.{name}"),
        _ => {
            let names: Vec<_> = hidden_rowid.map(str::to_owned).into_iter().chain(stored).collect();
            let names = names.join(", ");
            format!("INSERT INTO main.{name} ({names}) SELECT {names} FROM source.{name}")
        }
    };
    conn.execute(&sql, [])?;
    Ok(())
}

/// Copies the numbers from which AUTOINCREMENT continues.
pub(in crate::store) fn sequences(conn: &Connection) -> Result<(), StoreError> {
    let exists = "SELECT count(*) FROM source.sqlite_schema WHERE name = 'sqlite_sequence'
                  AND EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence')";
    if conn.query_row(exists, [], |row| row.get::<_, i64>(0))? > 0 {
        conn.execute_batch(
            "DELETE FROM main.sqlite_sequence; INSERT INTO main.sqlite_sequence SELECT * FROM source.sqlite_sequence",
        )?;
    }
    Ok(())
}

/// Copies a virtual table's row of the schema. The tables that hold its content exist already, so
/// the module must not create them.
pub(in crate::store) fn virtual_table(conn: &Connection, table: &SchemaObject) -> Result<(), StoreError> {
    conn.pragma_update(None, "writable_schema", true)?;
    let line = "INSERT INTO main.sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)";
    let inserted = conn.execute(line, [&table.name, &table.sql]);
    conn.pragma_update(None, "writable_schema", false)?;
    inserted?;
    Ok(())
}

/// Refuses a copy whose schema lacks an object of the source.
pub(in crate::store) fn must_be_whole(conn: &Connection, from: &Path) -> Result<(), StoreError> {
    let (source, copied) = (objects(conn, "source")?, objects(conn, "main")?);
    match source.iter().find(|object| !copied.contains(object)) {
        None => Ok(()),
        Some(missing) => Err(StoreError::Refused(format!(
            "no backup was made: {missing} of {} was not copied. Report this with the output of `.schema`",
            from.display()
        ))),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_that_lacks_an_object_is_refused_with_its_name() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "ATTACH ':memory:' AS source; CREATE TABLE source.kept (x); CREATE INDEX source.kept_x ON kept (x);
             CREATE TABLE main.kept (x)",
        )
        .unwrap();
        let whole = || must_be_whole(&conn, Path::new("komoju.db"));
        let message = whole().unwrap_err().to_string();
        assert!(message.contains("index kept_x on kept of komoju.db was not copied"), "{message}");
        conn.execute_batch("CREATE INDEX main.kept_x ON kept (x)").unwrap();
        whole().unwrap();
    }
}
