//! A row for printing: the columns of a view and their values.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Params, Row};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::{Conn, StoreError};
use komoju_core::json;

/// Columns whose text is JSON, in every view.
const JSON_COLUMNS: [&str; 8] = ["source", "metadata", "body", "diff", "before", "after", "expect", "detail"];

/// One row: its columns in the order of the view, each with its value. Columns whose text is JSON
/// hold the parsed JSON. It serialises as one object whose keys are the SQL columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Record {
    /// Returns the same row with one more column at its end.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.names = self.names.iter().cloned().chain([name.to_owned()]).collect();
        self.values.push(value);
        self
    }

    /// Returns the columns' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns names and values, in the order of the view.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    /// Returns a column's value; `null` where there is no such column.
    pub fn get(&self, name: &str) -> &Value {
        self.columns().find(|(column, _)| *column == name).map_or(&Value::Null, |(_, value)| value)
    }

    /// Changes a column's value in place.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(at) = self.names.iter().position(|column| column == name) {
            self.values.get_mut(at).map(change);
        }
    }

    /// Returns a column's text, if its value is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).as_str()
    }

    /// Returns a column's integer; 0 if its value is none.
    pub fn number(&self, name: &str) -> i64 {
        self.get(name).as_i64().unwrap_or(0)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in self.columns() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Returns the first row of a query.
pub(super) fn one(conn: &Conn, sql: &str, parameters: impl Params) -> Result<Option<Record>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let names: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
    Ok(statement.query_row(parameters, |row| in_row(row, &names)).optional()?)
}

/// Returns the rows of a query.
pub(super) fn collect(conn: &Conn, sql: &str, parameters: impl Params) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::new();
    each(conn, sql, parameters, |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Shows `visit` each row of a query.
pub(super) fn each(
    conn: &Conn,
    sql: &str,
    parameters: impl Params,
    mut visit: impl FnMut(Record) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let names: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        visit(in_row(row, &names)?)?;
    }
    Ok(())
}

fn in_row(row: &Row<'_>, names: &Arc<[String]>) -> rusqlite::Result<Record> {
    let value = |(column, name): (usize, &String)| {
        Ok(match row.get_ref(column)? {
            ValueRef::Null | ValueRef::Blob(_) => Value::Null,
            ValueRef::Integer(n) => n.into(),
            ValueRef::Real(n) => n.into(),
            ValueRef::Text(text) => {
                let text = String::from_utf8_lossy(text);
                let json = JSON_COLUMNS
                    .contains(&name.as_str())
                    .then(|| json::parse(text.as_bytes()).ok())
                    .flatten();
                json.unwrap_or_else(|| text.into_owned().into())
            }
        })
    };
    let values = names.iter().enumerate().map(value).collect::<rusqlite::Result<_>>()?;
    Ok(Record { names: Arc::clone(names), values })
}
