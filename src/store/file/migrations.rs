//! The migrations, which are part of the program.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use rusqlite_migration::Migrations;

static MIGRATION_FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

pub(in crate::store) static MIGRATIONS: LazyLock<Migrations<'static>> =
    LazyLock::new(|| Migrations::from_directory(&MIGRATION_FILES).expect("migrations/ is checked by a test"));

/// Returns the SQL text of each migration.
pub(in crate::store) fn migration_texts() -> impl Iterator<Item = &'static str> {
    let files = MIGRATION_FILES.dirs().flat_map(Dir::files);
    files.filter_map(include_dir::File::contents_utf8)
}

/// Returns the schema version that this program writes: the number of migrations.
pub fn known_version() -> i64 {
    i64::try_from(MIGRATION_FILES.dirs().count()).unwrap_or(i64::MAX)
}
