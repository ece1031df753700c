//! The database: its owner, whether this program can use it, its WAL, and the processes that use
//! it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{DoctorFinding, Exit, RUN_AS_ROOT, size};
use crate::cli::print::{chain, safe};
use crate::config::Config;
use crate::daemon::status::Status;
use crate::store::file::{checkup, inspect, migrations, processes};
use crate::store::log::mirror;
use crate::store::state::account::{self, BoundAccount};
use crate::store::{Holder, Instance, Reader, StoreError, sibling};
use komoju_core::{Attention, CustomerId, time};

/// LARGE_WAL is the size in bytes from which a WAL, if it is larger than its database, is reported.
/// Checkpoints keep it at about 16 MiB, and a sweep of a million customers within this.
const LARGE_WAL: u64 = 128 << 20;

/// LONGER_THAN_A_COMMIT controls how long a lock must last before it is reported. Only waiting
/// shows that a commit has ended.
const LONGER_THAN_A_COMMIT: Duration = Duration::from_secs(1);

/// AHEAD limits how far a stored time may be ahead of this machine's clock, in seconds: the clocks
/// are read one after the other.
const AHEAD: i64 = 5;

const RESTORE: &str = "stop the daemon, keep a copy of all its files, then restore a backup";

/// The content of a database with the current schema.
pub(super) struct DatabaseContent {
    pub(super) status: Status,
    pub(super) account: Option<BoundAccount>,
    pub(super) live: u64,
    /// A customer that the key's account should have.
    pub(super) known: Option<CustomerId>,
}

impl DatabaseContent {
    /// Returns until when the API asked us to wait, if that time is still ahead.
    pub(super) fn throttled_until(&self, now: Timestamp) -> Option<&str> {
        let until = self.status.throttled_until.as_deref()?;
        time::read(until).filter(|until| *until > now).map(|_| until)
    }
}

/// Returns the process that works on the database, if one does.
pub(super) fn holder(database: &Path) -> Option<Holder> {
    Instance::holder(database).ok().flatten()
}

/// Opens the database without leaving a trace, and classifies it.
pub(super) fn check(
    config: &Config,
    holder: Option<&str>,
    now: Timestamp,
) -> (Option<DatabaseContent>, Vec<DoctorFinding>) {
    let path = &config.database.path;
    let (current, schema) = match look(config, now) {
        Ok((current, facts)) => (current, classify_schema(path, &facts, holder, now)),
        Err(error) => (None, unusable(error)),
    };
    let mut findings = vec![schema];
    findings.extend(check_wal(path));
    findings.push(classify_holder(path, holder));
    findings.extend(check_lock(path));
    findings.extend(current.as_ref().and_then(trouble));
    (current, findings)
}

fn classify_holder(path: &Path, holder: Option<&str>) -> DoctorFinding {
    const CHECK: &str = "instance";
    if let Some(holder) = holder {
        return DoctorFinding::ok(CHECK, format!("{holder} works on the database"));
    }
    match std::fs::File::open(sibling(path, ".lock")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            DoctorFinding::skip(CHECK, "this user may not see whether a process works on the database")
        }
        _ => DoctorFinding::ok(CHECK, "no process works on the database now"),
    }
}

/// Returns why the daemon waits for the database, if it does.
fn trouble(current: &DatabaseContent) -> Option<DoctorFinding> {
    let is_trouble = |attention: &&Attention| matches!(attention, Attention::DatabaseUnusable(_));
    let trouble = current.status.attention.iter().find(is_trouble)?;
    let advice = "end what keeps it from being used (a full disk, a lock of another program)";
    Some(DoctorFinding::about("instance", trouble, advice))
}

/// What the check of the schema reads.
struct SchemaFacts {
    version: i64,
    bytes: u64,
    damage: Option<String>,
    missing_indexes: Vec<&'static str>,
    last_stamp: Option<String>,
}

fn look(config: &Config, now: Timestamp) -> Result<(Option<DatabaseContent>, SchemaFacts), StoreError> {
    let path = &config.database.path;
    let reader = Reader::without_trace(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    reader.in_snapshot(|conn| {
        let mut facts = SchemaFacts {
            version: checkup::schema_version(conn)?,
            bytes,
            damage: inspect::damage(conn, bytes)?,
            missing_indexes: Vec::new(),
            last_stamp: None,
        };
        if facts.version != migrations::known_version() {
            return Ok((None, facts));
        }
        let current = DatabaseContent {
            status: Status::in_view(conn, config, now)?,
            account: account::load(conn)?,
            live: mirror::live_count(conn)?,
            known: checkup::some_live(conn)?,
        };
        // The first complete sweep makes the indexes.
        if current.status.last_sweep_age_s.is_some() {
            facts.missing_indexes = checkup::missing_indexes(conn)?;
        }
        facts.last_stamp = checkup::last_stamp(conn)?;
        Ok((Some(current), facts))
    })
}

fn unusable(error: StoreError) -> DoctorFinding {
    const CHECK: &str = "schema";
    let is_denied = matches!(&error, StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let advice = match &error {
        StoreError::Missing(path) => {
            let finding = format!("there is no database at {} yet; `run` or `sync` makes it", path.display());
            return DoctorFinding::ok(CHECK, finding);
        }
        // The check of the permissions reports missing files.
        StoreError::Refused(why) => return DoctorFinding::skip(CHECK, safe(why)),
        _ if is_denied => RUN_AS_ROOT,
        e if e.is_busy() => {
            "see which program keeps it locked (`fuser -v` on the file), and let that program end"
        }
        StoreError::Newer { .. } => "install the newer version of komoju-sync again",
        StoreError::Damaged { .. } => RESTORE,
        StoreError::OldSqlite(_) => "install a package of ours, or build with the SQLite that comes with it",
        StoreError::Foreign { .. }
        | StoreError::LeftOver { .. }
        | StoreError::Removed { .. }
        | StoreError::OlderLog { .. }
        | StoreError::Displaced { .. } => "nothing of it is touched until that is done",
        StoreError::Obstructed { .. } => {
            "drop what is in the way; nothing is wrong with the disk or the file"
        }
        _ => "look at the checks above: permissions and disk come first",
    };
    let exit = if is_denied || error.is_transient() { Exit::Failed } else { Exit::Database };
    DoctorFinding::fail(CHECK, exit, safe(&chain(&anyhow::Error::new(error))), advice)
}

fn classify_schema(path: &Path, facts: &SchemaFacts, holder: Option<&str>, now: Timestamp) -> DoctorFinding {
    const CHECK: &str = "schema";
    let (shown, known) = (path.display(), migrations::known_version());
    if let Some(damage) = &facts.damage {
        return DoctorFinding::fail(
            CHECK,
            Exit::Database,
            format!("{shown} is damaged: {}", safe(damage)),
            RESTORE,
        );
    }
    if facts.version < known {
        let finding = format!("{shown} still has schema {}, this program writes {known}", facts.version);
        return match holder {
            Some(_) => DoctorFinding::warn(
                CHECK,
                format!("{finding}: an older version of it is at work"),
                "restart the daemon: systemctl restart komoju-sync",
            ),
            None => DoctorFinding::ok(CHECK, format!("{finding}; the next start migrates it")),
        };
    }
    if !facts.missing_indexes.is_empty() {
        let finding = format!("{shown} lacks {}: queries are slow", facts.missing_indexes.join(" and "));
        return DoctorFinding::warn(CHECK, finding, "the next complete sweep makes them");
    }
    let last = facts.last_stamp.as_deref().and_then(time::read);
    let ahead = last.map_or(0, |at| at.as_second() - now.as_second());
    if ahead > AHEAD {
        return DoctorFinding::warn(
            CHECK,
            format!(
                "{shown} was last written {ahead} s from now, by its own times: the clock was set back since"
            ),
            "see that the clock is kept by a time server (timedatectl); the order of the change log is right all the same",
        );
    }
    let checked = if facts.bytes <= inspect::CHECKED_AT_OPEN {
        "its structure is whole"
    } else {
        "too large to be read through here: `komoju-sync verify` does"
    };
    DoctorFinding::ok(CHECK, format!("{shown}, schema {known}, {}; {checked}", size(facts.bytes)))
}

fn check_wal(database: &Path) -> Option<DoctorFinding> {
    // The WAL is beside the target of a link.
    let database = database.canonicalize().ok()?;
    let wal = sibling(&database, "-wal");
    let bytes = std::fs::metadata(&wal).ok()?.len();
    let of_database = std::fs::metadata(&database).ok()?.len();
    Some(classify_wal(bytes, of_database, || processes::with_open(&[&database, &wal])))
}

fn classify_wal(bytes: u64, database: u64, users: impl FnOnce() -> Vec<u32>) -> DoctorFinding {
    const CHECK: &str = "wal";
    let (wal_size, size) = (size(bytes), size(database));
    if bytes <= LARGE_WAL.max(database) {
        return DoctorFinding::ok(CHECK, format!("{wal_size} beside {size}"));
    }
    let users = match users() {
        users if users.is_empty() => {
            "run this as root to see which programs have the database open".to_owned()
        }
        users => {
            let users: Vec<_> = users.into_iter().map(processes::named).collect();
            format!("these have the database open: {}", users.join(", "))
        }
    };
    let finding =
        format!("the -wal has {wal_size}, more than the database ({size}): a program reads without an end");
    DoctorFinding::warn(CHECK, finding, format!("end the transaction that was left open; {users}"))
}

/// Reports the process that keeps all others from writing, if that lasts longer than a commit.
fn check_lock(database: &Path) -> Option<DoctorFinding> {
    let shm = sibling(&database.canonicalize().ok()?, "-shm");
    let inode = std::fs::metadata(shm).ok()?.ino();
    let process = processes::writer(inode)?;
    std::thread::sleep(LONGER_THAN_A_COMMIT);
    if processes::writer(inode) != Some(process) {
        return None;
    }
    let is_ours = processes::name(process).is_some_and(|name| name == "komoju-sync");
    let what = if is_ours { "a long write of" } else { "a transaction of" };
    Some(DoctorFinding::warn(
        "instance",
        format!("the database is locked by {what} {}: no other process can write", processes::named(process)),
        "wait for it to end, or end that program; waiting work is retried",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn fine() -> SchemaFacts {
        SchemaFacts {
            version: migrations::known_version(),
            bytes: 1 << 20,
            damage: None,
            missing_indexes: Vec::new(),
            last_stamp: Some("2026-05-31T23:59:59.000Z".into()),
        }
    }

    #[test]
    fn schema_is_classified_by_its_first_fault() {
        let daemon = Some("`komoju-sync run` (process 1)");
        let lacks = || SchemaFacts { missing_indexes: vec!["mirror_by_email"], ..fine() };
        let written = |at: &str| SchemaFacts { last_stamp: Some(at.into()), ..fine() };
        let damaged = SchemaFacts { damage: Some("row 3 missing".into()), ..lacks() };
        for (facts, holder, level, exit, part) in [
            (fine(), None, Level::Ok, Exit::Fine, "its structure is whole"),
            (
                SchemaFacts { bytes: 1 << 30, ..fine() },
                None,
                Level::Ok,
                Exit::Fine,
                "`komoju-sync verify` does",
            ),
            (damaged, None, Level::Fail, Exit::Database, "is damaged: row 3 missing"),
            (SchemaFacts { version: 1, ..fine() }, None, Level::Ok, Exit::Fine, "the next start migrates it"),
            (SchemaFacts { version: 1, ..fine() }, daemon, Level::Warn, Exit::Fine, "an older version"),
            (lacks(), None, Level::Warn, Exit::Fine, "lacks mirror_by_email"),
            (written("2026-06-01T00:00:04.000Z"), None, Level::Ok, Exit::Fine, "its structure is whole"),
            (written("2026-06-01T00:01:00.000Z"), None, Level::Warn, Exit::Fine, "60 s from now"),
        ] {
            let now = "2026-06-01T00:00:00Z".parse().unwrap();
            let finding = classify_schema(Path::new("/d"), &facts, holder, now);
            assert_eq!((finding.level, finding.exit), (level, exit), "{finding:?}");
            assert!(finding.finding.contains(part), "{part}: {finding:?}");
        }
    }

    #[test]
    fn wal_is_large_beside_its_database() {
        let classified = |wal, database| classify_wal(wal, database, || vec![u32::MAX]);
        assert_eq!(classified(101 << 20, 4 << 10).level, Level::Ok, "a first import");
        assert_eq!(classified(200 << 20, 300 << 20).level, Level::Ok);
        let large = classified(200 << 20, 4 << 10);
        assert_eq!(large.level, Level::Warn);
        assert!(
            large
                .advice
                .unwrap()
                .ends_with("have the database open: a process of another user (process 4294967295)")
        );
    }
}
