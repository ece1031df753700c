//! The spool directory, and the files that stay in it.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::access::{Ownership, READ, Users};
use super::finding::DoctorFindings;
use super::rules::{FileKind, broken};
use super::{DoctorFinding, Exit, permissions, quoted};
use crate::config::Outbound;
use crate::store::{self, Reader};
use crate::tasks::spool::{self, Overview, SkippedFile, SpoolUser};

const CHECK: &str = "spool";

/// MOST_NAMED limits how many files are reported by name.
const MOST_NAMED: usize = 10;

/// Checks the directory; `holder` is the process that works on the database, if one does.
pub(super) fn check(
    outbound: &Outbound,
    database: &Path,
    users: &Users,
    holder: Option<&str>,
) -> Vec<DoctorFinding> {
    let path = &outbound.spool_dir;
    let problem = match holder {
        // Only the running daemon knows whether the lock is its own.
        Some(_) => Reader::open(database)
            .and_then(|reader| reader.query(store::outbox::spool::problem))
            .unwrap_or_default(),
        None => spool::locked_by_another(path),
    };
    let found = permissions::directory(path);
    let found = found.and_then(|directory| std::fs::read_dir(path).map(|_| directory));
    let may_read = |file: &Metadata| users.service.may(READ, &Ownership::of(file));
    let taker = SpoolUser { name: &users.service.name, may_read: &may_read };
    classify(path, found, Overview::read_for(&taker, path, database, Some(problem)), users)
}

fn classify(
    path: &Path,
    found: io::Result<Ownership>,
    overview: Overview,
    users: &Users,
) -> Vec<DoctorFinding> {
    let shown = path.display();
    let directory = match found {
        Ok(found) => found,
        Err(error) => return vec![unusable(path, &error, users)],
    };
    let mut findings = DoctorFindings::of(CHECK);
    findings.extend(broken(CHECK, FileKind::Spool, &[(path, &directory)], users));
    if findings.is_empty()
        && let Some(problem) = overview.problem
    {
        findings.fail(Exit::Failed, format!("no file is taken from {shown}"), problem);
    }
    if findings.is_empty() && directory.mode != spool::SPOOL_MODE {
        let (mode, right) = (directory.mode, spool::SPOOL_MODE);
        findings.warn(
            format!(
                "{shown} has mode {mode:04o}: with {right:04o} members of the group can drop files, the files get the \
                 directory's group, and no member can remove the files of another"
            ),
            format!("chmod {right:04o} {}", quoted(path)),
        );
    }
    for SkippedFile { name, why } in overview.stuck.iter().take(MOST_NAMED) {
        findings.warn(format!("the file {name} stays in {shown}"), format!("it {why}"));
    }
    let more = overview.stuck.len().saturating_sub(MOST_NAMED) as u64 + overview.more_stuck;
    if more > 0 {
        let advice = "handle the named ones, then run `komoju-sync doctor` again";
        findings.warn(format!("{more} more files stay in {shown}"), advice);
    }
    findings.or_ok(|| format!("{} takes files from {shown}, and no file stays there", users.service.name))
}

fn unusable(path: &Path, error: &io::Error, users: &Users) -> DoctorFinding {
    let shown = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let me = &users.me.name;
            DoctorFinding::skip(CHECK, format!("{me} cannot read {shown}; run this as root"))
        }
        ErrorKind::NotFound => {
            DoctorFinding::ok(CHECK, format!("{shown} does not exist yet; `run` and `sync` create it"))
        }
        _ => {
            let advice = "put a directory there, or set outbound.spool_dir to another place";
            DoctorFinding::fail(CHECK, Exit::Failed, format!("{shown} cannot be used: {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::super::access::tests::{owned, users};
    use super::super::finding::Level;
    use super::*;

    fn classified(found: io::Result<Ownership>, overview: Overview) -> Vec<DoctorFinding> {
        classify(Path::new("/s"), found, overview, &users())
    }

    #[test]
    fn directory_is_classified_by_its_first_fault() {
        let error = |kind: ErrorKind| Err(kind.into());
        let directory = |uid, mode| Ok(owned(uid, 991, mode));
        for (found, problem, level) in [
            (error(ErrorKind::NotFound), None, Level::Ok),
            (error(ErrorKind::NotADirectory), None, Level::Fail),
            (error(ErrorKind::PermissionDenied), None, Level::Skip),
            (directory(990, 0o3770), None, Level::Ok),
            (directory(990, 0o777), None, Level::Warn),
            (directory(990, 0o777), Some("another komoju-sync takes the files"), Level::Fail),
            (directory(0, 0o755), Some("another komoju-sync takes the files"), Level::Fail),
            (directory(0, 0o3777), None, Level::Fail),
        ] {
            let shown = format!("{found:?}");
            let problem = problem.map(str::to_owned);
            let findings = classified(found, Overview { problem, ..Overview::default() });
            assert_eq!(findings.iter().map(|finding| finding.level).collect::<Vec<_>>(), [level], "{shown}");
        }
    }

    #[test]
    fn file_is_readable_by_the_groups_of_the_service() {
        let home = tempfile::TempDir::new().unwrap();
        let spool_dir = home.path().join("spool");
        std::fs::create_dir(&spool_dir).unwrap();
        let path = spool_dir.join("a.json");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        let outbound = Outbound { spool_dir, ..Outbound::default() };
        for (groups, is_left) in [(vec![991], true), (vec![991, found.gid()], false)] {
            let mut users = users();
            users.service.gids = groups;
            let findings = check(&outbound, &home.path().join("komoju.db"), &users, None);
            let told = format!("{findings:?}");
            let why = format!("cannot be read by {}", users.service.name);
            assert_eq!(told.contains(&why), is_left, "{told}");
        }
    }

    #[test]
    fn many_files_are_a_number() {
        let stuck =
            (0..11).map(|n| SkippedFile { name: n.to_string(), why: "is a pipe".to_owned() }).collect();
        let overview = Overview { stuck, more_stuck: 1, ..Overview::default() };
        let findings = classified(Ok(owned(990, 991, 0o3770)), overview);
        assert_eq!(findings.len(), 11);
        assert!(findings[10].finding.starts_with("2 more files"), "{}", findings[10].finding);
    }
}
