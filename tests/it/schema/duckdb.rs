//! DuckDB reads every view through its SQLite `ATTACH`, and parses the text of a view with its own
//! parser.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use super::{column, migrated};

/// A script that prints each difference between the rows of SQLite and of DuckDB. JSON is compared
/// as JSON, and numbers by value.
const COMPARE: &str = r#"
import glob, json, sqlite3, sys
packages, path, views = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, packages)
import duckdb
duck = duckdb.connect(config={"allow_unsigned_extensions": "true"})
duck.execute("LOAD '" + glob.glob(packages + "/**/sqlite_scanner.duckdb_extension", recursive=True)[0] + "'")
duck.execute("ATTACH '" + path + "' AS mirror (TYPE sqlite, READ_ONLY)")
lite = sqlite3.connect(path)
def plain(value):
    if not isinstance(value, str): return value
    try: return json.loads(value)
    except ValueError: return value
for view in views:
    try:
        theirs = duck.execute("SELECT * FROM mirror." + view).fetchall()
    except Exception as error:
        print(view, "cannot be read:", error)
        continue
    ours = lite.execute("SELECT * FROM " + view).fetchall()
    rows = lambda rows: sorted(json.dumps([plain(value) for value in row], sort_keys=True) for row in rows)
    for one, other in zip(rows(ours), rows(theirs)):
        if one != other: print(view, "is", one, "and in DuckDB", other)
    if len(ours) != len(theirs):
        print(view, "has", len(ours), "rows, and in DuckDB", len(theirs))
"#;

/// Returns the directory of the Python packages. They are installed if `INSTALL_DUCKDB` is set, as
/// in `.ci/run`.
pub(crate) fn packages() -> Result<PathBuf, String> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/duckdb");
    if packages.join("duckdb").exists() {
        return Ok(packages);
    }
    if std::env::var_os("INSTALL_DUCKDB").is_none() {
        return Err("target/duckdb is missing; set INSTALL_DUCKDB=1 to install it".to_owned());
    }
    let pip = ["-m", "pip", "install", "--quiet", "--root-user-action", "ignore", "--target"];
    let wanted = ["duckdb", "duckdb-extension-sqlite-scanner"];
    let ran =
        Command::new("python3").args(pip).arg(&packages).args(wanted).output().map_err(|e| e.to_string())?;
    match ran.status.success() {
        true => Ok(packages),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

#[test]
fn duckdb_reads_every_view() {
    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => {
            let skipped = format!("#### NOT TESTED: DuckDB reads every view: {why} ####\n");
            let _ = std::io::stderr().write_all(skipped.as_bytes());
            return;
        }
    };
    let (_directory, path) = migrated();
    let conn = Connection::open(&path).unwrap();
    let views = column(&conn, "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name");
    drop(conn);
    let ran = Command::new("python3")
        .args(["-c", COMPARE])
        .arg(&packages)
        .arg(&path)
        .args(&views)
        .output()
        .unwrap();
    let (said, trouble) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.is_empty(), "{said}{trouble}");
}
