//! The database's directory and files: what the service's user, the group and other users may do.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::access::{Ownership, SEARCH, Users, WRITE};
use super::finding::DoctorFindings;
use super::rules::{FileKind, broken};
use super::{DoctorFinding, Exit, RUN_AS_ROOT, quoted};
use crate::store::file::inspect;
use crate::store::sibling;

const CHECK: &str = "permissions";

/// The mode bits of a group that reads files and lists directories.
const GROUP_READS: u32 = 0o040;
const GROUP_LISTS: u32 = 0o050;

/// The suffixes of the database's files. The lock is last, because readers do not need it.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", ".lock"];
const LOCK: usize = 3;

/// The directory and the files of a database.
struct DatabaseFiles<'a> {
    database: &'a Path,
    directory: io::Result<Ownership>,
    /// The database's files, as [`SUFFIXES`] names them; `None` for those that are missing.
    files: [Option<Ownership>; 4],
    /// The database has no -wal and needs none.
    stands_alone: bool,
    is_in_use: bool,
}

/// Checks the directory and the files of `database`.
pub(super) fn check(database: &Path, users: &Users, is_in_use: bool) -> Vec<DoctorFinding> {
    // The -wal and -shm are beside the target of a link.
    let database = &database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let files = DatabaseFiles {
        database,
        directory: directory(database.parent().unwrap_or(Path::new("/"))),
        files: SUFFIXES
            .map(|suffix| std::fs::metadata(sibling(database, suffix)).ok().map(|file| Ownership::of(&file))),
        stands_alone: inspect::stands_alone(database),
        is_in_use,
    };
    files.classify(users)
}

/// Returns the owner and the mode of a directory.
pub(super) fn directory(path: &Path) -> io::Result<Ownership> {
    let found = std::fs::metadata(path)?;
    if found.is_dir() { Ok(Ownership::of(&found)) } else { Err(ErrorKind::NotADirectory.into()) }
}

impl DatabaseFiles<'_> {
    fn path(&self) -> &Path {
        self.database.parent().unwrap_or(Path::new("/"))
    }

    fn classify(&self, users: &Users) -> Vec<DoctorFinding> {
        let directory = match &self.directory {
            Ok(directory) if users.me.may(SEARCH, directory) => directory,
            Ok(directory) => return vec![self.closed(directory, users)],
            Err(error) => return vec![self.no_directory(error, users)],
        };
        let paths = SUFFIXES.map(|suffix| sibling(self.database, suffix));
        let files: Vec<(&Path, &Ownership)> = paths
            .iter()
            .zip(&self.files)
            .filter_map(|(path, file)| Some((&**path, file.as_ref()?)))
            .collect();
        let mut findings = DoctorFindings::of(CHECK);
        findings.extend(self.other_user(directory, users));
        findings.extend(broken(CHECK, FileKind::Directory, &[(self.path(), directory)], users));
        findings.extend(broken(CHECK, FileKind::Database, &files, users));
        let (shown, service) = (self.path().display(), &users.service.name);
        let Some(database) = &self.files[0] else {
            return findings
                .or_ok(|| format!("{shown} can be used by {service}; there is no database in it yet"));
        };
        findings.extend(self.missing());
        let data = &files[..files.len() - usize::from(self.files[LOCK].is_some())];
        if directory.mode & 0o001 != 0 {
            findings.extend(broken(CHECK, FileKind::Reachable, data, users));
        }
        let unreadable: Vec<&Path> =
            data.iter().filter(|(_, file)| file.mode & GROUP_READS == 0).map(|(path, _)| *path).collect();
        let is_open = unreadable.is_empty() && directory.mode & GROUP_LISTS == GROUP_LISTS;
        // If the group can read no part of the database, that is intended, unless it is the
        // packages' database, which is for readers.
        let is_in_part = database.mode & GROUP_READS != 0 && directory.mode & GROUP_LISTS != 0;
        let group = format!("members of the group {}", users.names.group(directory.gid));
        if !is_open && (users.service.is_packaged || is_in_part) {
            findings.extend([self.closed_to_group(&group, &unreadable)]);
        }
        findings.or_ok(|| {
            let readers = if is_open { &group } else { "no other user" };
            format!("{shown} can be used by {service}; {readers} may read it")
        })
    }

    fn closed_to_group(&self, group: &str, unreadable: &[&Path]) -> DoctorFinding {
        let paths: String = unreadable.iter().map(|path| format!(" {}", quoted(path))).collect();
        let files = if paths.is_empty() { paths } else { format!(" && chmod g+r{paths}") };
        let finding = format!("{group} cannot read the database: all of its files are needed");
        DoctorFinding::warn(CHECK, finding, format!("chmod g+rx {}{files}", quoted(self.path())))
    }

    /// The user of this command cannot search the directory.
    fn closed(&self, directory: &Ownership, users: &Users) -> DoctorFinding {
        let (me, shown, mode) = (&users.me.name, self.path().display(), directory.mode);
        let (owner, group) = (users.names.user(directory.uid), users.names.group(directory.gid));
        let finding = format!("{me} may not look into {shown} (owner {owner}, mode {mode:04o})");
        let advice = format!("{RUN_AS_ROOT}; readers must be in the group {group}");
        DoctorFinding::fail(CHECK, Exit::Failed, finding, advice)
    }

    fn no_directory(&self, error: &io::Error, users: &Users) -> DoctorFinding {
        let (shown, service) = (self.path().display(), &users.service.name);
        let finding = match error.kind() {
            ErrorKind::PermissionDenied => {
                let finding = format!("{} may not look at {shown}", users.me.name);
                return DoctorFinding::fail(CHECK, Exit::Failed, finding, RUN_AS_ROOT);
            }
            ErrorKind::NotFound => format!("there is no directory {shown} for the database"),
            _ => format!("{shown} cannot be used as a directory: {error}"),
        };
        let make = format!("install -d -o {service} -g {service} -m 2750 {}", quoted(self.path()));
        DoctorFinding::fail(
            CHECK,
            Exit::Database,
            finding,
            format!("{make}; or set database.path to another place"),
        )
    }

    /// The user of this command cannot write where the service can.
    fn other_user(&self, directory: &Ownership, users: &Users) -> Option<DoctorFinding> {
        let Users { me, service, .. } = users;
        let is_other = !service.is_packaged && service.may(WRITE, directory) && !me.may(WRITE, directory);
        let (me, service) = (&me.name, &service.name);
        let finding = format!("{me}, the user that runs this, may not write here; {service} may");
        let advice = format!("run the commands that write as that user: sudo -u {service} komoju-sync …");
        is_other.then(|| DoctorFinding::warn(CHECK, finding, advice))
    }

    /// The -wal or -shm is missing: a program that writes removes them when it closes the database
    /// as the last one.
    fn missing(&self) -> Option<DoctorFinding> {
        let names = SUFFIXES[1..LOCK].iter().zip(&self.files[1..LOCK]);
        let missing: Vec<&str> = names.filter_map(|(name, file)| file.is_none().then_some(*name)).collect();
        if missing.is_empty() || self.stands_alone {
            return None;
        }
        let (shown, missing) = (self.database.display(), missing.join(" and "));
        if self.is_in_use {
            let finding =
                format!("the {missing} of {shown} was removed under the process that works with it");
            let advice = "restart the daemon at once, then run `komoju-sync verify`; the files beside the database belong to it";
            return Some(DoctorFinding::fail(CHECK, Exit::Database, finding, advice));
        }
        Some(DoctorFinding::warn(
            CHECK,
            format!(
                "{shown} has no {missing}: another program that could write closed it last, and a user that may only read \
                 cannot open it now"
            ),
            "start the daemon, or run `komoju-sync sync` as its user, which makes them again; programs that only read should \
             open it read-only (sqlite3 -readonly)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, users};
    use super::super::finding::Level;
    use super::*;

    /// As the packages make it, and a first sync leaves it.
    fn fine() -> DatabaseFiles<'static> {
        DatabaseFiles {
            database: Path::new("/d/komoju.db"),
            directory: Ok(owned(990, 991, 0o2750)),
            files: SUFFIXES.map(|_| Some(owned(990, 991, 0o640))),
            stands_alone: false,
            is_in_use: false,
        }
    }

    fn file(n: usize, file: Option<Ownership>) -> DatabaseFiles<'static> {
        let mut files = fine();
        files.files[n] = file;
        files
    }

    fn directory(uid: u32, mode: u32) -> DatabaseFiles<'static> {
        DatabaseFiles { directory: Ok(owned(uid, 991, mode)), ..fine() }
    }

    fn classified(files: &DatabaseFiles<'_>, users: &Users) -> (Level, Exit, String) {
        let [finding] = &files.classify(users)[..] else { panic!("{:?}", files.classify(users)) };
        let advice = finding.advice.as_deref().unwrap_or_default();
        (finding.level, finding.exit, format!("{} → {advice}", finding.finding))
    }

    #[test]
    fn place_is_classified_by_its_directory_and_files() {
        let mode = |mode| Some(owned(990, 991, mode));
        let missing = |kind: ErrorKind| DatabaseFiles { directory: Err(kind.into()), ..fine() };
        let in_use = |files| DatabaseFiles { is_in_use: true, ..files };
        let (ok, warn, fail) = (Level::Ok, Level::Warn, Level::Fail);
        for (files, level, exit, part) in [
            (fine(), ok, Exit::Fine, "members of the group komoju-sync may read it"),
            (
                DatabaseFiles { files: [const { None }; 4], ..fine() },
                ok,
                Exit::Fine,
                "there is no database in it yet",
            ),
            (missing(ErrorKind::NotFound), fail, Exit::Database, "install -d -o komoju-sync"),
            (missing(ErrorKind::NotADirectory), fail, Exit::Database, "cannot be used as a directory"),
            (missing(ErrorKind::PermissionDenied), fail, Exit::Failed, "root may not look at"),
            (directory(0, 0o755), fail, Exit::Database, "may not write to /d (owner root"),
            (directory(990, 0o2772), warn, Exit::Fine, "every user of this machine may change files in /d"),
            (directory(990, 0o700), warn, Exit::Fine, "→ chmod g+rx /d"),
            (
                file(1, Some(owned(0, 0, 0o640))),
                fail,
                Exit::Database,
                "→ chown komoju-sync: /d/komoju.db-wal",
            ),
            (file(1, None), warn, Exit::Fine, "has no -wal: "),
            (file(2, None), warn, Exit::Fine, "has no -shm: "),
            (in_use(file(1, None)), fail, Exit::Database, "the -wal of"),
            (in_use(file(2, None)), fail, Exit::Database, "the -shm of"),
            (file(0, mode(0o600)), warn, Exit::Fine, "→ chmod g+rx /d && chmod g+r /d/komoju.db"),
            (file(1, mode(0o600)), warn, Exit::Fine, "&& chmod g+r /d/komoju.db-wal"),
            (file(2, mode(0o600)), warn, Exit::Fine, "&& chmod g+r /d/komoju.db-shm"),
            (file(LOCK, mode(0o600)), ok, Exit::Fine, "may read it"),
            (file(0, mode(0o644)), ok, Exit::Fine, "may read it"),
            (
                DatabaseFiles { files: file(0, mode(0o644)).files, ..directory(990, 0o755) },
                warn,
                Exit::Fine,
                "→ chmod o= /d/komoju.db",
            ),
        ] {
            let (found, code, text) = classified(&files, &users());
            assert_eq!((found, code), (level, exit), "{text}");
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn private_database_of_another_user_is_a_choice() {
        let mut users = users();
        users.service.is_packaged = false;
        let (level, _, text) = classified(&directory(990, 0o700), &users);
        assert!(level == Level::Ok && text.contains("no other user may read it"), "{text}");
    }

    #[test]
    fn user_that_may_not_search_or_write_is_named() {
        let mut users = users();
        (users.me.name, users.me.uid, users.me.gids) = ("bob".into(), 1001, vec![1001]);
        let (level, exit, text) = classified(&fine(), &users);
        assert_eq!((level, exit), (Level::Fail, Exit::Failed));
        assert!(text.starts_with("bob may not look into /d (owner komoju-sync, mode 2750)"), "{text}");
        users.service.is_packaged = false;
        let (level, _, text) = classified(&directory(990, 0o755), &users);
        assert!(level == Level::Warn && text.contains("sudo -u komoju-sync"), "{text}");
    }
}
