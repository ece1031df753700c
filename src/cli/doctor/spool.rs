//! The spool directory, and the files that stay in it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::access::{Owned, READ, Users};
use super::finding::Findings;
use super::rules::{Kind, broken};
use super::{Exit, Finding, permissions, quoted};
use crate::config::Outbound;
use crate::store::{self, Reader};
use crate::tasks::spool::{self, Left, Leftovers};

const CHECK: &str = "spool";

/// MOST_NAMED limits how many files are reported by name.
const MOST_NAMED: usize = 10;

/// Checks the directory; `holder` is the process that works on the database, if one does.
pub(super) fn check(
    outbound: &Outbound,
    database: &Path,
    users: &Users,
    holder: Option<&str>,
) -> Vec<Finding> {
    let path = &outbound.spool_dir;
    let may_read = |file: &fs::Metadata| users.service.may(READ, &Owned::of(file));
    let found = permissions::directory(path)
        .and_then(|directory| Ok((directory, spool::that_stay(path, &users.service.name, &may_read)?)));
    let problem = match holder {
        // Only the running daemon knows whether the lock is its own.
        Some(_) => Reader::open(database)
            .and_then(|reader| reader.look(store::outbox::spool::problem))
            .unwrap_or_default(),
        None => spool::locked_by_another(path),
    };
    classify(path, found, problem, users)
}

fn classify(
    path: &Path,
    found: io::Result<(Owned, Leftovers)>,
    problem: Option<String>,
    users: &Users,
) -> Vec<Finding> {
    let shown = path.display();
    let (directory, left) = match found {
        Ok(found) => found,
        Err(error) => return vec![unusable(path, &error, users)],
    };
    let mut findings = Findings::of(CHECK);
    findings.extend(broken(CHECK, Kind::Spool, &[(path, &directory)], users));
    if findings.is_empty()
        && let Some(problem) = problem
    {
        findings.fail(Exit::Failed, format!("no file is taken out of {shown}"), problem);
    }
    if findings.is_empty() && directory.mode != spool::SPOOL_MODE {
        let (mode, right) = (directory.mode, spool::SPOOL_MODE);
        findings.warn(
            format!(
                "{shown} has mode {mode:04o}: with {right:04o} the group may drop files, their group is the directory's, and \
                 nobody takes away another one's"
            ),
            format!("chmod {right:04o} {}", quoted(path)),
        );
    }
    let named = left.list();
    for Left { name, why } in named.iter().take(MOST_NAMED) {
        findings.warn(format!("the file {name} stays in {shown}"), format!("it {why}"));
    }
    let more = named.len().saturating_sub(MOST_NAMED) as u64 + left.more;
    if more > 0 {
        let advice = "deal with the first ones, and look again";
        findings.warn(format!("{more} more files stay in {shown}"), advice);
    }
    findings.or_ok(|| format!("{} takes files out of {shown}, and none is stuck there", users.service.name))
}

fn unusable(path: &Path, error: &io::Error, users: &Users) -> Finding {
    let shown = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let me = &users.me.name;
            Finding::skip(CHECK, format!("{me} may not look into {shown}; run this as root"))
        }
        ErrorKind::NotFound => {
            Finding::ok(CHECK, format!("{shown} is not there yet; `run` and `sync` make it"))
        }
        _ => {
            let advice = "put a directory there, or set outbound.spool_dir to another place";
            Finding::fail(CHECK, Exit::Failed, format!("{shown} cannot be used: {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, users};
    use super::super::finding::Level;
    use super::*;

    fn classified(found: io::Result<Owned>, left: Leftovers, problem: Option<&str>) -> Vec<Finding> {
        let found = found.map(|directory| (directory, left));
        classify(Path::new("/s"), found, problem.map(str::to_owned), &users())
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
            let findings = classified(found, Leftovers::default(), problem);
            assert_eq!(findings.iter().map(|finding| finding.level).collect::<Vec<_>>(), [level], "{shown}");
        }
    }

    #[test]
    fn many_files_are_a_number() {
        let mut left = Leftovers::default();
        (0..12).for_each(|n| left.add(&n.to_string(), "is a pipe"));
        let findings = classified(Ok(owned(990, 991, 0o3770)), left, None);
        assert_eq!(findings.len(), 11);
        assert!(findings[10].finding.starts_with("2 more files"), "{}", findings[10].finding);
    }
}
