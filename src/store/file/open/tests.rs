use std::os::unix::fs::MetadataExt as _;

use super::super::migrations::known_version;
use super::*;

#[test]
fn opening_and_closing_again_keeps_the_locks_of_open_connections() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let conn = for_writing(&path).unwrap();
    conn.query_row("SELECT log_id FROM meta", [], |_| Ok(())).unwrap();
    let inode = format!(":{} ", std::fs::metadata(&path).unwrap().ino());
    let locks = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().filter(|lock| lock.contains(&inode)).count()
    };
    assert_eq!(locks(), 1, "an open connection to a WAL database holds one");
    drop(for_reading(&path).unwrap());
    drop(for_operator(&path).unwrap());
    drop(for_writing(&path).unwrap());
    assert_eq!(locks(), 1);
    drop(conn);
    assert_eq!(locks(), 0);
}

#[test]
fn full_disk_error_names_the_temporary_directory() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let mut conn = for_writing(&path).unwrap();
    let full = with_temporary_files(&mut conn, |conn| {
        conn.execute_batch(
            "PRAGMA max_page_count = 1; CREATE TABLE wide (x); INSERT INTO wide VALUES (zeroblob(1000000))",
        )?;
        Ok(())
    });
    let message = full.unwrap_err().to_string();
    assert!(message.contains("komoju.db, or in SQLite's directory for temporary files"), "{message}");
    let kept: i64 = conn.query_row("PRAGMA temp_store", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2, "in memory, as before");
}

#[test]
fn error_of_another_kind_does_not_name_the_temporary_directory() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut conn = for_writing(&directory.path().join("komoju.db")).unwrap();
    let failed = with_temporary_files(&mut conn, |conn| Ok(conn.execute_batch("SELECT nothing")?));
    let message = failed.unwrap_err().to_string();
    assert!(!message.contains("temporary files"), "{message}");
}

#[test]
fn file_of_ours_without_one_of_our_tables_is_damaged() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    conn.execute_batch("CREATE TABLE other (x)").unwrap();
    drop(conn);
    let message = for_writing(&path).unwrap_err().to_string();
    assert!(message.contains("komoju.db is damaged (no such table: meta"), "{message}");
}

#[test]
fn database_without_a_schema_is_missing_for_a_reader_that_leaves_no_trace() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    drop(conn);
    let failed = without_trace(&path).unwrap_err();
    assert!(failed.is_missing(), "{failed}");
}

#[test]
fn interrupted_check_of_a_file_does_not_find_it_whole() {
    let conn = in_memory();
    conn.progress_handler(1, Some(|| true)).unwrap();
    let checked = super::super::inspect::damage(&conn, 0);
    assert!(checked.is_err_and(|e| e.is_interrupted()));
}

#[test]
fn migrations_are_valid_and_counted() {
    let conn = in_memory();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let stored: i64 = conn.query_row("SELECT schema_version FROM mirror_info", [], |row| row.get(0)).unwrap();
    assert_eq!((version, stored), (known_version(), known_version()));
}
