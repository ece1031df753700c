//! The database: whose it is, whether this program can use it, its WAL, and who works on it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::{Exit, Finding, size};
use crate::cli::print::{chain, safe};
use crate::config::Config;
use crate::daemon::status::Standing;
use crate::store::file::{checkup, inspect, migrations};
use crate::store::log::mirror;
use crate::store::state::account::{self, Account};
use crate::store::{Instance, Reader, StoreError, beside};
use komoju_core::{CustomerId, time};

/// A WAL larger than this, and than its database, is held up by somebody: checkpoints keep it at about 16 MiB, and a sweep of a
/// million customers within this.
const LARGE_WAL: u64 = 128 << 20;

/// The byte of the -shm that whoever writes holds a lock on (SQLite's WAL-index format).
const WRITE_LOCK: u64 = 120;

/// How long whoever writes is given: a commit takes less, and nothing tells of its end but waiting for the lock.
const LONGER_THAN_A_COMMIT: Duration = Duration::from_secs(1);

/// How far ahead of this machine's clock a stored time may be: the clocks of one machine, read one after the other.
const AHEAD: i64 = 5;

/// What the database says.
pub(super) struct Looked {
    /// Of the current schema alone.
    pub(super) current: Option<Current>,
}

/// What a database of the current schema says.
pub(super) struct Current {
    pub(super) status: Standing,
    pub(super) account: Option<Account>,
    pub(super) live: u64,
    /// Somebody whom the key's account should know.
    pub(super) known: Option<CustomerId>,
}

impl Looked {
    /// Until when the API asked us to wait, if that is still to come.
    pub(super) fn throttled_until(&self, now: Timestamp) -> Option<String> {
        let until = self.current.as_ref()?.status.throttled_until.clone()?;
        time::read(&until).filter(|until| *until > now).map(|_| until)
    }
}

/// Who works on it, if anybody.
pub(super) fn holder(database: &Path) -> Option<String> {
    Instance::holder(database).ok().flatten().map(|holder| holder.name)
}

/// Opens it without a trace, and judges it.
pub(super) fn check(config: &Config, holder: Option<&str>, now: Timestamp) -> (Option<Looked>, Vec<Finding>) {
    let path = &config.database.path;
    let (looked, mut findings) = match look(config, now) {
        Ok((looked, seen)) => (Some(looked), vec![judge_schema(path, &seen, holder, now)]),
        Err(error) => (None, vec![unusable(error)]),
    };
    findings.extend(check_wal(path));
    let lock = beside(path, ".lock");
    let is_hidden =
        std::fs::File::open(lock).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    findings.push(match holder {
        Some(holder) => Finding::ok("instance", format!("{holder} works on the database")),
        None if is_hidden => {
            Finding::skip("instance", "this user may not see whether anybody works on the database")
        }
        None => Finding::ok("instance", "nobody works on the database now"),
    });
    findings.extend(check_lock(path));
    findings.extend(looked.as_ref().and_then(waiting));
    (looked, findings)
}

/// What the daemon waits for.
fn waiting(looked: &Looked) -> Option<Finding> {
    let trouble = looked.current.as_ref()?.status.database_trouble.as_ref()?;
    let finding = format!("the daemon cannot use the database {}", safe(trouble));
    Some(Finding::fail(
        "instance",
        Exit::Failed,
        finding,
        "end what keeps it from being used (a full disk, a lock of another program): the daemon tries again by itself",
    ))
}

/// What the schema's check judges.
struct Seen {
    version: i64,
    bytes: u64,
    /// None where the file is too large to be read whole.
    damage: Option<Option<String>>,
    missing_indexes: Vec<&'static str>,
    is_whole: bool,
    last_stamp: Option<String>,
}

fn look(config: &Config, now: Timestamp) -> Result<(Looked, Seen), StoreError> {
    let path = &config.database.path;
    let reader = Reader::looking(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    let version = reader.look(checkup::schema_version)?;
    let is_current = version == migrations::known_version();
    reader.in_one_view(|conn| {
        let current = is_current.then(|| {
            Ok::<_, StoreError>(Current {
                status: Standing::in_view(conn, config, now)?,
                account: account::load(conn)?,
                live: mirror::live_count(conn)?,
                known: checkup::some_live(conn)?,
            })
        });
        let current = current.transpose()?;
        let seen = Seen {
            version,
            bytes,
            damage: (bytes <= inspect::CHECKED_AT_OPEN).then(|| checkup::damage(conn)).transpose()?,
            missing_indexes: if is_current { checkup::missing_indexes(conn)? } else { Vec::new() },
            is_whole: current.as_ref().is_some_and(|current| current.status.last_sweep_age_s.is_some()),
            last_stamp: if is_current { checkup::last_stamp(conn)? } else { None },
        };
        Ok((Looked { current }, seen))
    })
}

fn unusable(error: StoreError) -> Finding {
    let what_to_do = match &error {
        StoreError::Missing(path) => {
            let finding = format!("there is no database at {} yet; `run` or `sync` makes it", path.display());
            return Finding::ok("schema", finding);
        }
        // Its missing files are told among the permissions.
        StoreError::Refused(why) => return Finding::skip("schema", safe(why)),
        e if e.is_busy() => "see who keeps it locked (`fuser -v` on the file), and let that program end",
        StoreError::Newer { .. } => "install the newer version of komoju-sync again",
        StoreError::Damaged { .. } => "stop the daemon, keep a copy of all its files, then restore a backup",
        StoreError::OldSqlite(_) => "install a package of ours, or build with the SQLite that comes with it",
        StoreError::Foreign { .. } | StoreError::LeftOver { .. } | StoreError::Removed { .. } => {
            "nothing of it is touched until that is done"
        }
        StoreError::Obstructed { .. } => {
            "drop what is in the way; nothing is wrong with the disk or the file"
        }
        StoreError::Older { .. } | StoreError::Displaced { .. } => {
            "nothing of it is touched until that is done"
        }
        _ => "look at the checks above: permissions and disk come first",
    };
    let passes = error.can_pass();
    let denied = matches!(&error, StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let told = safe(&chain(&anyhow::Error::new(error)));
    match (denied, passes) {
        (true, _) => Finding::fail("schema", Exit::Failed, told, "run this as root: sudo komoju-sync doctor"),
        (false, true) => Finding::fail("schema", Exit::Failed, told, what_to_do),
        (false, false) => Finding::fail("schema", Exit::Database, told, what_to_do),
    }
}

fn judge_schema(path: &Path, seen: &Seen, holder: Option<&str>, now: Timestamp) -> Finding {
    let (shown, known) = (path.display(), migrations::known_version());
    if let Some(Some(damage)) = &seen.damage {
        let finding = format!("{shown} is damaged: {}", safe(damage));
        let advice = "stop the daemon, keep a copy of all its files, then restore a backup";
        return Finding::fail("schema", Exit::Database, finding, advice);
    }
    if seen.version < known {
        let finding = format!("{shown} still has schema {}, this program writes {known}", seen.version);
        return match holder {
            Some(_) => Finding::warn(
                "schema",
                format!("{finding}: an older version of it is at work"),
                "restart the daemon: systemctl restart komoju-sync",
            ),
            None => Finding::ok("schema", format!("{finding}; the next start brings it there")),
        };
    }
    if seen.is_whole && !seen.missing_indexes.is_empty() {
        return Finding::warn(
            "schema",
            format!("{shown} lacks {}: queries are slow", seen.missing_indexes.join(" and ")),
            "the next complete sweep makes them",
        );
    }
    let ahead =
        seen.last_stamp.as_deref().and_then(time::read).map_or(0, |at| at.as_second() - now.as_second());
    if ahead > AHEAD {
        return Finding::warn(
            "schema",
            format!(
                "{shown} was last written {ahead} s from now, by its own times: the clock was set back since"
            ),
            "see that the clock is kept by a time server (timedatectl); the order of the change log is right all the same",
        );
    }
    let checked = match seen.damage {
        Some(_) => "its structure is whole",
        None => "too large to be read through here: `komoju-sync verify` does",
    };
    Finding::ok("schema", format!("{shown}, schema {known}, {}; {checked}", size(seen.bytes)))
}

fn check_wal(database: &Path) -> Option<Finding> {
    // Beside the file itself, whatever links lead to it.
    let database = database.canonicalize().ok()?;
    let wal = beside(&database, "-wal");
    let bytes = std::fs::metadata(&wal).ok()?.len();
    let of_database = std::fs::metadata(&database).ok()?.len();
    let is_large = bytes > LARGE_WAL.max(of_database);
    Some(judge_wal(bytes, of_database, &if is_large { users_of(&[&database, &wal]) } else { Vec::new() }))
}

fn judge_wal(bytes: u64, database: u64, users: &[String]) -> Finding {
    if bytes <= LARGE_WAL.max(database) {
        return Finding::ok("wal", format!("{} beside {}", size(bytes), size(database)));
    }
    let who = match users {
        [] => "run this as root to see which programs have the database open".to_owned(),
        users => format!("these have the database open: {}", users.join(", ")),
    };
    Finding::warn(
        "wal",
        format!(
            "the -wal has {}, more than the database ({}): somebody reads without an end",
            size(bytes),
            size(database)
        ),
        format!("end the transaction that was left open; {who}"),
    )
}

/// Who keeps everybody from writing, if that lasts longer than a commit does.
fn check_lock(database: &Path) -> Option<Finding> {
    let shm = beside(&database.canonicalize().ok()?, "-shm");
    let inode = std::fs::metadata(shm).ok()?.ino();
    let locker = || writer_of(&std::fs::read_to_string("/proc/locks").ok()?, inode);
    let process = locker()?;
    std::thread::sleep(LONGER_THAN_A_COMMIT);
    if locker() != Some(process) {
        return None;
    }
    let command = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = safe(command.trim());
    let who = if name == "komoju-sync" { "a long write of" } else { "a transaction of" };
    Some(Finding::warn(
        "instance",
        format!("the database is locked by {who} {name} (process {process}): nobody else can write"),
        "wait for it to end, or end that program; what waits is tried again by itself",
    ))
}

/// The process that holds the lock for writing in WAL mode, by the kernel's list of locks.
fn writer_of(locks: &str, inode: u64) -> Option<u32> {
    let file = format!(":{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", process, place, first, last] = fields[..] else { return None };
        let bytes = first.parse::<u64>().ok()?..=last.parse().unwrap_or(u64::MAX);
        (place.ends_with(&file) && bytes.contains(&WRITE_LOCK)).then(|| process.parse().ok())?
    })
}

/// The processes that have one of these files open, as far as we may see; without this one.
fn users_of(files: &[&Path]) -> Vec<String> {
    let mut users = Vec::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if number == std::process::id() {
            continue;
        }
        let mut handles = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let has_it = |target: PathBuf| files.contains(&target.as_path());
        if handles.any(|handle| std::fs::read_link(handle.path()).is_ok_and(has_it)) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(format!("{} (process {number})", safe(command.trim())));
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn fine() -> Seen {
        Seen {
            version: migrations::known_version(),
            bytes: 1 << 20,
            damage: Some(None),
            missing_indexes: Vec::new(),
            is_whole: true,
            last_stamp: Some("2026-05-31T23:59:59.000Z".into()),
        }
    }

    fn judged(seen: Seen, holder: Option<&str>) -> (Level, Exit, String) {
        let finding = judge_schema(Path::new("/d"), &seen, holder, now());
        (finding.level, finding.exit, finding.finding)
    }

    #[test]
    fn damage_comes_first_and_a_large_file_is_left_to_verify() {
        assert_eq!(judged(fine(), None).0, Level::Ok);
        let (level, exit, _) = judged(Seen { damage: Some(Some("row 3 missing".into())), ..fine() }, None);
        assert_eq!((level, exit), (Level::Fail, Exit::Database));
        assert!(judged(Seen { damage: None, ..fine() }, None).2.contains("komoju-sync verify"));
    }

    #[test]
    fn an_older_schema_is_brought_up_or_held_by_an_older_daemon() {
        let older = || Seen { version: 1, ..fine() };
        assert_eq!(judged(older(), None).0, Level::Ok);
        assert_eq!(judged(older(), Some("`komoju-sync run` (process 1)")).0, Level::Warn);
    }

    #[test]
    fn indexes_are_missed_only_once_a_sweep_is_complete() {
        let lacks =
            |is_whole| judged(Seen { missing_indexes: vec!["mirror_by_email"], is_whole, ..fine() }, None).0;
        assert_eq!((lacks(false), lacks(true)), (Level::Ok, Level::Warn));
    }

    #[test]
    fn times_from_the_future_tell_of_a_clock_that_was_set_back() {
        let at = |stamp: &str| judged(Seen { last_stamp: Some(stamp.into()), ..fine() }, None).0;
        assert_eq!(at("2026-06-01T00:00:04.000Z"), Level::Ok);
        assert_eq!(at("2026-06-01T00:01:00.000Z"), Level::Warn);
    }

    #[test]
    fn whoever_writes_is_found_among_the_kernels_locks() {
        let locks = "1: FLOCK  ADVISORY  WRITE 10 fe:00:77 0 EOF\n2: POSIX  ADVISORY  READ 11 fe:00:77 123 123\n\
                     3: POSIX  ADVISORY  WRITE 12 fe:00:78 120 120\n4: POSIX  ADVISORY  WRITE 13 fe:00:77 120 120\n";
        assert_eq!(writer_of(locks, 77), Some(13));
        assert_eq!(writer_of(locks, 7), None);
        assert_eq!(writer_of("5: -> POSIX  ADVISORY  WRITE 14 fe:00:77 120 120", 77), None, "that one waits");
    }

    #[test]
    fn a_wal_is_large_beside_its_database() {
        let level = |wal, database| judge_wal(wal, database, &[]).level;
        assert_eq!(level(101 << 20, 4 << 10), Level::Ok, "a first import");
        assert_eq!(level(200 << 20, 4 << 10), Level::Warn);
        assert_eq!(level(200 << 20, 300 << 20), Level::Ok);
        let told = judge_wal(200 << 20, 0, &["sqlite3 (process 7)".into()]).advice.unwrap();
        assert!(told.contains("sqlite3 (process 7)"), "{told}");
    }
}
