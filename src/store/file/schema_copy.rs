//! Copies what stands in a schema from an attached database `source` to `main`: whole, or with the name of what cannot be copied.
//!
//! A virtual table (a full-text index, for one) keeps its content in ordinary tables, which are copied like all others. Its own line of
//! the schema is then copied as it is, as `VACUUM` does it: so its module need not even be known here.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::store::StoreError;

/// What an object of a schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum ObjectKind {
    /// A table with rows of its own.
    Table,
    /// A table of a module.
    Virtual,
    Index,
    Trigger,
    View,
}

impl ObjectKind {
    /// Returns the kind with this word.
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

/// An object of a schema. SQLite's own are not among them: it makes them with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct SchemaObject {
    pub(in crate::store) kind: ObjectKind,
    pub(in crate::store) name: String,
    pub(in crate::store) table: String,
    pub(in crate::store) sql: String,
}

impl SchemaObject {
    /// The error of a backup that must not leave this out. A failure that has nothing to do with the object stays what it is.
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

/// The objects of an attached database, in the order in which they were made.
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
    /// Those that are stored, quoted.
    pub(in crate::store) stored: Vec<String>,
    /// Whether others are generated from them.
    has_generated: bool,
    /// The name by which the number of a row is reached that no column holds.
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

/// Copies the rows of a table. Their numbers stay: an index of others may refer to them.
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

/// Copies from which number on AUTOINCREMENT continues.
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

/// Copies a virtual table's line of the schema. The tables that hold its content are there already, and must not be made by it.
pub(in crate::store) fn virtual_table(conn: &Connection, table: &SchemaObject) -> Result<(), StoreError> {
    conn.pragma_update(None, "writable_schema", true)?;
    let line = "INSERT INTO main.sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)";
    let inserted = conn.execute(line, [&table.name, &table.sql]);
    conn.pragma_update(None, "writable_schema", false)?;
    inserted?;
    Ok(())
}

/// Refuses a copy in whose schema something of the source is missing.
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
