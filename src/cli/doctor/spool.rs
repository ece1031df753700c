//! The directory for intents that come as files, and what lies there and stays.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::access::{Owned, People, Person, READ, SEARCH, WRITE};
use super::{Exit, Finding, quoted};
use crate::config::Outbound;
use crate::store::{self, Reader};
use crate::tasks::spool::{self, Left, Leftovers};

const CHECK: &str = "spool";

/// How many files are told by name.
const MOST_TOLD: usize = 10;

/// Checks the directory; `holder` is the process that works on this database, if one does.
pub(super) fn check(
    outbound: &Outbound,
    database: &Path,
    people: &People,
    service: &Person,
    holder: Option<&str>,
) -> Vec<Finding> {
    let directory = &outbound.spool_dir;
    let found = fs::metadata(directory).and_then(|found| match found.is_dir() {
        true => Ok(Owned::of(&found)),
        false => Err(ErrorKind::NotADirectory.into()),
    });
    let may_read = |file: &fs::Metadata| service.may(READ, &Owned::of(file));
    let left = match &found {
        Ok(_) => spool::that_stay(directory, &service.name, &may_read),
        Err(_) => Ok(Leftovers::default()),
    };
    let is_hidden =
        |error: Option<&io::Error>| error.is_some_and(|e| e.kind() == ErrorKind::PermissionDenied);
    if is_hidden(found.as_ref().err()) || is_hidden(left.as_ref().err()) {
        let me = people.me().name;
        let why = format!("{me} may not look into {}; run this as root", directory.display());
        return vec![Finding::skip(CHECK, why)];
    }
    let problem = match holder {
        // Only the running daemon knows whether the lock is its own.
        Some(_) => Reader::open(database)
            .and_then(|reader| reader.look(store::outbox::spool::problem))
            .unwrap_or_default(),
        None => spool::locked_by_another(directory),
    };
    match left {
        Ok(left) => judge(directory, found, &left, problem, service),
        Err(error) => judge(directory, Err(error), &Leftovers::default(), problem, service),
    }
}

fn judge(
    directory: &Path,
    found: io::Result<Owned>,
    left: &Leftovers,
    problem: Option<String>,
    service: &Person,
) -> Vec<Finding> {
    let shown = directory.display();
    let owned = match found {
        Ok(owned) => owned,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![Finding::ok(CHECK, format!("{shown} is not there yet; `run` and `sync` make it"))];
        }
        Err(error) => {
            return vec![Finding::fail(
                CHECK,
                Exit::Failed,
                format!("{shown} cannot be used: {error}"),
                "put a directory there, or set outbound.spool_dir to another place",
            )];
        }
    };
    let mut findings = Vec::new();
    if owned.uid != service.uid || !service.may(READ | WRITE | SEARCH, &owned) {
        findings.push(Finding::fail(
            CHECK,
            Exit::Failed,
            format!(
                "{} does not own {shown} (mode {:04o}), and takes no file out of it",
                service.name, owned.mode
            ),
            format!(
                "chown {} {dir} && chmod {:04o} {dir}",
                service.name,
                spool::SPOOL_MODE,
                dir = quoted(directory)
            ),
        ));
    } else if let Some(problem) = problem {
        findings.push(Finding::fail(
            CHECK,
            Exit::Failed,
            format!("no file is taken out of {shown}"),
            problem,
        ));
    } else if owned.mode != spool::SPOOL_MODE {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "{shown} has mode {:04o}: with {:04o} the group may drop files, their group is the directory's, and nobody \
                 takes away another one's",
                owned.mode,
                spool::SPOOL_MODE
            ),
            format!("chmod {:04o} {}", spool::SPOOL_MODE, quoted(directory)),
        ));
    }
    let named = left.list();
    for Left { name, why } in named.iter().take(MOST_TOLD) {
        findings.push(Finding::warn(CHECK, format!("the file {name} stays in {shown}"), format!("it {why}")));
    }
    let more = named.len().saturating_sub(MOST_TOLD) as u64 + left.more;
    if more > 0 {
        findings.push(Finding::warn(
            CHECK,
            format!("{more} more files stay in {shown}"),
            "deal with the first ones, and look again",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{} takes files out of {shown}, and none is stuck there", service.name),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, service};
    use super::super::finding::Level;
    use super::*;

    fn levels(found: io::Result<Owned>) -> Vec<Level> {
        let findings = judge(Path::new("/s"), found, &Leftovers::default(), None, &service());
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn the_directory_is_missing_right_open_or_somebody_elses() {
        assert_eq!(levels(Err(ErrorKind::NotFound.into())), [Level::Ok]);
        assert_eq!(levels(Err(ErrorKind::NotADirectory.into())), [Level::Fail]);
        assert_eq!(levels(Ok(owned(990, 991, 0o3770))), [Level::Ok]);
        assert_eq!(levels(Ok(owned(990, 991, 0o777))), [Level::Warn]);
        assert_eq!(levels(Ok(owned(0, 0, 0o755))), [Level::Fail]);
        assert_eq!(levels(Ok(owned(0, 991, 0o3777))), [Level::Fail], "the daemon must own it");
    }

    #[test]
    fn many_files_are_a_number() {
        let mut left = Leftovers::default();
        (0..12).for_each(|n| left.add(&n.to_string(), "is a pipe"));
        let findings = judge(Path::new("/s"), Ok(owned(990, 991, 0o3770)), &left, None, &service());
        assert_eq!(findings.len(), 11);
        assert!(findings[10].finding.starts_with("2 more files"), "{}", findings[10].finding);
    }

    #[test]
    fn what_keeps_the_daemon_from_taking_files_fails() {
        let problem = Some("outbound.spool_dir: another komoju-sync takes the files".to_owned());
        let findings =
            judge(Path::new("/s"), Ok(owned(990, 991, 0o3770)), &Leftovers::default(), problem, &service());
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].level, findings[0].exit), (Level::Fail, Exit::Failed));
    }
}
