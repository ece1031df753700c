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
fn migrations_are_valid_and_counted() {
    let conn = in_memory();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let stored: i64 = conn.query_row("SELECT schema_version FROM mirror_info", [], |row| row.get(0)).unwrap();
    assert_eq!((version, stored), (known_version(), known_version()));
}
