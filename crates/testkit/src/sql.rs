//! Connections to a database under test, and queries on it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;

/// Opens a connection as another program does: the schema refuses its writes, except through the
/// SQL door.
pub fn foreign(database: &Path) -> Connection {
    let conn = Connection::open(database).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn
}

/// Opens a connection that the schema takes for one of our own program: it may set up any state.
pub fn own(database: &Path) -> Connection {
    let conn = foreign(database);
    komoju_sync::store::file::signature::sign(&conn).unwrap();
    conn
}

/// A connection that stays open for the next query, because opening one reads the whole schema.
pub struct Kept<T>(Mutex<Option<(u64, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// Uses the connection to this database. Opens it first if none is open, or if another file has
    /// this path now.
    #[track_caller]
    pub fn with<R>(&self, database: &Path, open: impl FnOnce(&Path) -> T, work: impl FnOnce(&T) -> R) -> R {
        let mut kept = self.0.lock().unwrap();
        let inode = std::fs::metadata(database).map_or(0, |file| file.ino());
        kept.take_if(|(of, _)| *of != inode);
        work(&kept.get_or_insert_with(|| (inode, open(database))).1)
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.0.lock().unwrap().take();
    }
}

/// Queues an intent through the SQL door.
pub fn intend(conn: &Connection, id: &str, op: &str, customer: Option<&str>, body: Option<Value>) {
    let sql = "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)";
    let body = body.map(|body| body.to_string());
    conn.execute(sql, rusqlite::params![id, op, customer, body]).unwrap();
}

/// Returns the first column of a query, as text.
pub fn column(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get::<_, Sql>(0)).unwrap();
    rows.map(|value| text(value.unwrap())).collect()
}

/// Returns the only value of a query, as text.
#[track_caller]
pub fn one(conn: &Connection, sql: &str) -> String {
    let mut column = column(conn, sql);
    assert_eq!(column.len(), 1, "{sql}: {column:?}");
    column.remove(0)
}

/// Returns how many rows a table, or a join with its condition, has: the text that follows `FROM`.
pub fn count(conn: &Connection, rows: &str) -> u64 {
    conn.query_row(&format!("SELECT count(*) FROM {rows}"), [], |row| row.get(0)).unwrap()
}

/// Returns an SQL value as text.
fn text(value: Sql) -> String {
    match value {
        Sql::Null => "null".to_owned(),
        Sql::Integer(n) => n.to_string(),
        Sql::Real(n) => n.to_string(),
        Sql::Text(text) => text,
        Sql::Blob(_) => "blob".to_owned(),
    }
}
