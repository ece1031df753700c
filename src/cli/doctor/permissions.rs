//! The database's directory and files: can the service work with them, and can those read who should?

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::access::{Owned, People, Person, READ, SEARCH, WRITE};
use super::{Exit, Finding, quoted};
use crate::store::beside;
use crate::store::file::inspect;

const CHECK: &str = "permissions";

/// Mode bits of a group that reads files and looks into directories.
const GROUP_READS: u32 = 0o040;
const GROUP_LOOKS: u32 = 0o050;

/// The database's files; each where it is there.
#[derive(Debug, Default)]
struct Files {
    database: Option<Owned>,
    wal: Option<Owned>,
    shm: Option<Owned>,
    lock: Option<Owned>,
}

/// What is judged.
struct Place<'a> {
    database: &'a Path,
    directory: &'a Path,
    found: io::Result<Owned>,
    files: Files,
    /// It has no -wal and needs none.
    stands_alone: bool,
    me: &'a Person,
    service: &'a Person,
    group: String,
    owner: String,
    is_in_use: bool,
}

/// Looks at the directory and the files of `database`.
pub(super) fn check(database: &Path, people: &People, service: &Person, is_in_use: bool) -> Vec<Finding> {
    // The -wal and -shm stand beside the file itself, whatever links lead to it.
    let database = &database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let directory = database.parent().unwrap_or(Path::new("/"));
    let owned = |path: &Path| std::fs::metadata(path).ok().map(|file: Metadata| Owned::of(&file));
    let beside = |suffix| owned(&beside(database, suffix));
    let found = std::fs::metadata(directory).and_then(|found| match found.is_dir() {
        true => Ok(Owned::of(&found)),
        false => Err(ErrorKind::NotADirectory.into()),
    });
    let (group, owner) =
        found.as_ref().map(|found| (people.group(found.gid), people.user(found.uid))).unwrap_or_default();
    judge(&Place {
        database,
        directory,
        found,
        files: Files {
            database: owned(database),
            wal: beside("-wal"),
            shm: beside("-shm"),
            lock: beside(".lock"),
        },
        stands_alone: inspect::stands_alone(database),
        me: &people.me(),
        service,
        group,
        owner,
        is_in_use,
    })
}

fn judge(place: &Place<'_>) -> Vec<Finding> {
    let (shown, service) = (place.directory.display(), place.service);
    let directory = match &place.found {
        Ok(directory) => directory,
        Err(error) => return vec![no_directory(place, error)],
    };
    if !place.me.may(SEARCH, directory) {
        return vec![Finding::fail(
            CHECK,
            Exit::Failed,
            format!(
                "{} may not look into {shown} (owner {}, mode {:04o})",
                place.me.name, place.owner, directory.mode
            ),
            format!(
                "run this as root: sudo komoju-sync doctor; readers must be in the group {}",
                place.group
            ),
        )];
    }
    let mut findings = Vec::new();
    if !service.is_packaged && service.may(WRITE, directory) && !place.me.may(WRITE, directory) {
        findings.push(Finding::warn(
            CHECK,
            format!("{}, the user that runs this, may not write here; {} may", place.me.name, service.name),
            format!("run the commands that write as that user: sudo -u {} komoju-sync …", service.name),
        ));
    }
    if !service.may(READ | WRITE | SEARCH, directory) {
        findings.push(Finding::fail(
            CHECK,
            Exit::Database,
            format!(
                "{} may not write to {shown} (owner {}, mode {:04o})",
                service.name, place.owner, directory.mode
            ),
            format!("chown {}: {dir} && chmod u+rwx {dir}", service.name, dir = quoted(place.directory)),
        ));
    }
    if directory.mode & 0o002 != 0 {
        findings.push(Finding::warn(
            CHECK,
            format!("every user of this machine may put files into {shown} (mode {:04o})", directory.mode),
            format!("chmod o-w {}", quoted(place.directory)),
        ));
    }
    let Files { database, wal, shm, lock } = &place.files;
    let suffixed = [("", database), ("-wal", wal), ("-shm", shm), (".lock", lock)];
    let names_of = |which: &dyn Fn(&str, &Owned) -> bool| -> Vec<String> {
        let chosen =
            suffixed.iter().filter(|(suffix, file)| file.as_ref().is_some_and(|file| which(suffix, file)));
        chosen.map(|(suffix, _)| quoted(&beside(place.database, suffix))).collect()
    };
    let foreign = names_of(&|_, file| !service.may(READ | WRITE, file));
    if !foreign.is_empty() {
        let mut finding = format!("{} may not write to {}", service.name, foreign.join(", "));
        if names_of(&|_, file| file.uid == 0 && !service.may(READ | WRITE, file)) == foreign {
            finding += ": made by a command that ran as root, perhaps";
        }
        let advice = format!("chown {}: {}", service.name, foreign.join(" "));
        findings.push(Finding::fail(CHECK, Exit::Database, finding, advice));
    }
    let Some(database) = database else {
        if findings.is_empty() {
            let finding = format!("{shown} can be used by {}; there is no database in it yet", service.name);
            findings.push(Finding::ok(CHECK, finding));
        }
        return findings;
    };
    let missing: Vec<&str> = [("-wal", wal), ("-shm", shm)]
        .into_iter()
        .filter_map(|(name, file)| file.is_none().then_some(name))
        .collect();
    if !missing.is_empty() && !place.stands_alone {
        findings.push(without(place, &missing.join(" and ")));
    }
    // The lock's file tells who works here; whoever reads the database needs it not.
    let open = names_of(&|suffix, file| suffix != ".lock" && file.mode & 0o006 != 0);
    if !open.is_empty() && directory.mode & 0o001 != 0 {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "every user of this machine may read customers and unsettled intents in {}",
                open.join(", ")
            ),
            format!("chmod o= {}", open.join(" ")),
        ));
    }
    // A private database is a choice; one that a package made for a group, or of which the group may read a part, is meant to be read.
    if service.is_packaged || database.mode & GROUP_READS != 0 && directory.mode & GROUP_LOOKS != 0 {
        let closed = names_of(&|suffix, file| suffix != ".lock" && file.mode & GROUP_READS == 0);
        if !closed.is_empty() || directory.mode & GROUP_LOOKS != GROUP_LOOKS {
            let files =
                if closed.is_empty() { String::new() } else { format!(" && chmod g+r {}", closed.join(" ")) };
            findings.push(Finding::warn(
                CHECK,
                format!(
                    "members of the group {} cannot read the database: all of its files are needed",
                    place.group
                ),
                format!("chmod g+rx {}{files}", quoted(place.directory)),
            ));
        }
    }
    if findings.is_empty() {
        let readers = match directory.mode & GROUP_LOOKS == GROUP_LOOKS && database.mode & GROUP_READS != 0 {
            true => format!("members of the group {} may read it", place.group),
            false => "nobody else may read it".to_owned(),
        };
        findings.push(Finding::ok(CHECK, format!("{shown} can be used by {}; {readers}", service.name)));
    }
    findings
}

fn no_directory(place: &Place<'_>, error: &io::Error) -> Finding {
    let (shown, service) = (place.directory.display(), &place.service.name);
    let make = format!(
        "install -d -o {service} -g {service} -m 2750 {}; or set database.path to another place",
        quoted(place.directory)
    );
    match error.kind() {
        ErrorKind::PermissionDenied => Finding::fail(
            CHECK,
            Exit::Failed,
            format!("{} may not look at {shown}", place.me.name),
            "run this as root: sudo komoju-sync doctor",
        ),
        ErrorKind::NotFound => Finding::fail(
            CHECK,
            Exit::Database,
            format!("there is no directory {shown} for the database"),
            make,
        ),
        _ => Finding::fail(
            CHECK,
            Exit::Database,
            format!("{shown} cannot be used as a directory: {error}"),
            make,
        ),
    }
}

/// Another program that writes to the database and closes it last takes these files away.
fn without(place: &Place<'_>, missing: &str) -> Finding {
    let shown = place.database.display();
    match place.is_in_use {
        true => Finding::fail(
            CHECK,
            Exit::Database,
            format!("the {missing} of {shown} was removed under the process that works with it"),
            "restart the daemon at once, then run `komoju-sync verify`; the files beside the database belong to it",
        ),
        false => Finding::warn(
            CHECK,
            format!(
                "{shown} has no {missing}: another program that could write closed it last, and who may only read cannot \
                 open it now"
            ),
            "start the daemon, or run `komoju-sync sync` as its user, which makes them again; programs that only read \
             should open it read-only (sqlite3 -readonly)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, people, service};
    use super::super::finding::Level;
    use super::*;

    struct Case {
        directory: io::Result<Owned>,
        files: [Option<Owned>; 4],
        in_use: bool,
        service: Person,
    }

    /// As the packages make it, and a first sync leaves it.
    fn fine() -> Case {
        let file = || Some(owned(990, 991, 0o640));
        Case {
            directory: Ok(owned(990, 991, 0o2750)),
            files: [file(), file(), file(), file()],
            in_use: false,
            service: service(),
        }
    }

    fn judged(case: Case) -> Vec<Finding> {
        let [database, wal, shm, lock] = case.files;
        let root = people().service(Path::new("/"), None);
        judge(&Place {
            database: Path::new("/var/lib/komoju-sync/komoju.db"),
            directory: Path::new("/var/lib/komoju-sync"),
            found: case.directory,
            files: Files { database, wal, shm, lock },
            stands_alone: false,
            me: &Person { uid: 0, ..root },
            service: &case.service,
            group: "komoju-sync".into(),
            owner: "somebody".into(),
            is_in_use: case.in_use,
        })
    }

    fn one(case: Case) -> (Level, Exit, String) {
        let findings = judged(case);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let told = format!("{} → {}", findings[0].finding, findings[0].advice.as_deref().unwrap_or_default());
        (findings[0].level, findings[0].exit, told)
    }

    #[test]
    fn what_the_packages_make_is_fine_before_and_after_the_first_start() {
        assert_eq!(one(fine()).0, Level::Ok);
        assert_eq!(one(Case { files: [None, None, None, None], ..fine() }).0, Level::Ok);
    }

    #[test]
    fn files_that_root_made_are_given_to_the_service() {
        let mut case = fine();
        case.files[1] = Some(owned(0, 0, 0o640));
        let (level, exit, told) = one(case);
        assert_eq!((level, exit), (Level::Fail, Exit::Database));
        assert!(told.contains("ran as root"), "{told}");
        assert!(told.ends_with("→ chown komoju-sync: /var/lib/komoju-sync/komoju.db-wal"), "{told}");
    }

    #[test]
    fn a_directory_that_is_missing_or_somebody_elses_keeps_the_service_out() {
        let (level, exit, told) = one(Case { directory: Err(ErrorKind::NotFound.into()), ..fine() });
        assert_eq!((level, exit), (Level::Fail, Exit::Database));
        assert!(told.contains("install -d -o komoju-sync"), "{told}");
        let (_, exit, told) = one(Case { directory: Ok(owned(0, 0, 0o755)), ..fine() });
        assert_eq!(exit, Exit::Database, "{told}");
        let (_, exit, _) = one(Case { directory: Err(ErrorKind::PermissionDenied.into()), ..fine() });
        assert_eq!(exit, Exit::Failed);
    }

    #[test]
    fn missing_companions_warn_while_nobody_works_and_fail_beside_somebody_who_does() {
        for missing in [1, 2] {
            let mut case = fine();
            case.files[missing] = None;
            assert_eq!(one(case).0, Level::Warn);
            let mut case = Case { in_use: true, ..fine() };
            case.files[missing] = None;
            let (level, exit, _) = one(case);
            assert_eq!((level, exit), (Level::Fail, Exit::Database));
        }
    }

    #[test]
    fn the_group_reads_all_files_or_is_told_how() {
        for file in 0..3 {
            let mut case = fine();
            case.files[file] = Some(owned(990, 991, 0o600));
            let (level, _, told) = one(case);
            assert!(level == Level::Warn && told.contains("chmod g+rx"), "{told}");
        }
        assert_eq!(one(Case { directory: Ok(owned(990, 991, 0o700)), ..fine() }).0, Level::Warn);
        let private = Person { is_packaged: false, ..service() };
        let (level, _, told) =
            one(Case { directory: Ok(owned(990, 991, 0o700)), service: private, ..fine() });
        assert!(level == Level::Ok && told.contains("nobody else may read it"), "a choice: {told}");
    }

    #[test]
    fn what_every_user_may_read_or_write_warns() {
        let mut case = Case { directory: Ok(owned(990, 991, 0o755)), ..fine() };
        case.files[0] = Some(owned(990, 991, 0o644));
        let (level, _, told) = one(case);
        assert!(level == Level::Warn && told.ends_with("chmod o= /var/lib/komoju-sync/komoju.db"), "{told}");
        let (level, _, told) = one(Case { directory: Ok(owned(990, 991, 0o2772)), ..fine() });
        assert!(level == Level::Warn && told.contains("chmod o-w"), "{told}");
    }
}
