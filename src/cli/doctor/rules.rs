//! The owner and the mode that files must have: one table, and what a broken rule reports.

use std::path::Path;

use super::access::{Ownership, READ, SEARCH, Users, WRITE};
use super::{DoctorFinding, Exit, quoted};

/// The kinds of files that have a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Config,
    /// A configuration that holds the proxy's password.
    Password,
    Key,
    /// A key file that systemd reads as root, and hands to the service.
    UnitKey,
    Directory,
    /// The database, its -wal, -shm and .lock.
    Database,
    /// The database, its -wal and -shm, in a directory that every user may search.
    Reachable,
    Spool,
}

/// The owners that a rule accepts.
#[derive(Clone, Copy)]
enum AllowedOwner {
    Any,
    Service,
    ServiceOrRoot,
}

/// A rule about the owner and the mode of one kind of file.
struct Rule {
    path: FileKind,
    owner: AllowedOwner,
    /// The bits that the mode may have.
    most_mode: u32,
    /// What the service's user must be allowed to do.
    needs: u32,
    /// The exit code if the service's user may not do that.
    exit: Exit,
    /// What other users may read or change in the file.
    content: &'static str,
    /// The mode that corrects the file, for `chmod`.
    advice: &'static str,
}

const USE: u32 = READ | WRITE | SEARCH;
const CUSTOMERS: &str = "customers and unsettled intents";

#[rustfmt::skip]
const TABLE: [Rule; 8] = [
    Rule { path: FileKind::Config,    owner: AllowedOwner::Any,           most_mode: 0o7775, needs: 0,            exit: Exit::Fine,     content: "the configuration",    advice: "o-w" },
    Rule { path: FileKind::Password,  owner: AllowedOwner::Any,           most_mode: 0o7773, needs: 0,            exit: Exit::Fine,     content: "the proxy's password", advice: "o=" },
    Rule { path: FileKind::Key,       owner: AllowedOwner::ServiceOrRoot, most_mode: 0o7700, needs: READ,         exit: Exit::Usage,    content: "the key",              advice: "0400" },
    Rule { path: FileKind::UnitKey,   owner: AllowedOwner::ServiceOrRoot, most_mode: 0o7700, needs: 0,            exit: Exit::Usage,    content: "the key",              advice: "0400" },
    Rule { path: FileKind::Directory, owner: AllowedOwner::Any,           most_mode: 0o7775, needs: USE,          exit: Exit::Database, content: "files",                advice: "u+rwx,o-w" },
    Rule { path: FileKind::Database,  owner: AllowedOwner::Any,           most_mode: 0o7777, needs: READ | WRITE, exit: Exit::Database, content: CUSTOMERS,              advice: "u+rw" },
    Rule { path: FileKind::Reachable, owner: AllowedOwner::Any,           most_mode: 0o7771, needs: 0,            exit: Exit::Fine,     content: CUSTOMERS,              advice: "o=" },
    Rule { path: FileKind::Spool,     owner: AllowedOwner::Service,       most_mode: 0o7777, needs: USE,          exit: Exit::Failed,   content: "intents",              advice: "3770" },
];

/// How a file breaks a rule.
#[derive(Clone, Copy)]
enum Violation {
    OpenToAll,
    OpenToGroup,
    /// A user that the rule does not accept owns it.
    Foreign,
    /// The service's user may not do what it must.
    Closed,
}

/// The violations by the mode and by the owner. Of each only the first is reported.
const VIOLATIONS: [[Violation; 2]; 2] =
    [[Violation::OpenToAll, Violation::OpenToGroup], [Violation::Foreign, Violation::Closed]];

impl Rule {
    fn has_violation(&self, violation: Violation, file: &Ownership, users: &Users) -> bool {
        let extra = file.mode & !self.most_mode;
        match (violation, self.owner) {
            (Violation::OpenToAll, _) => extra & 0o007 != 0,
            (Violation::OpenToGroup, _) => extra & 0o070 != 0,
            (Violation::Foreign, AllowedOwner::Any) => false,
            (Violation::Foreign, AllowedOwner::Service) => file.uid != users.service.uid,
            (Violation::Foreign, AllowedOwner::ServiceOrRoot) => ![0, users.service.uid].contains(&file.uid),
            (Violation::Closed, _) => !users.service.may(self.needs, file),
        }
    }

    fn exit(&self, violation: Violation) -> Exit {
        match (violation, self.path) {
            (Violation::Closed, _) | (Violation::Foreign, FileKind::Spool) => self.exit,
            (Violation::OpenToAll, FileKind::Key | FileKind::UnitKey) => Exit::Failed,
            _ => Exit::Fine,
        }
    }

    fn finding(&self, violation: Violation, paths: &str, files: &[&Ownership], users: &Users) -> String {
        let Ownership { uid, gid, mode } = *files[0];
        let (service, owner, content) = (&users.service.name, users.names.user(uid), self.content);
        let how = |verbs: [&'static str; 2], bits: u32| verbs[usize::from(bits != 0)];
        let may = how(["read", "change"], mode & !self.most_mode & 0o022);
        match (violation, self.path) {
            (Violation::OpenToAll, _) => {
                format!("every user of this machine may {may} {content} in {paths} (mode {mode:04o})")
            }
            (Violation::OpenToGroup, _) => {
                let group = users.names.group(gid);
                format!("the group {group} may {may} {content} in {paths} (mode {mode:04o})")
            }
            (Violation::Foreign, FileKind::Spool) => {
                format!("{service} does not own {paths} (mode {mode:04o}), and takes no file out of it")
            }
            (Violation::Foreign, _) => format!("{owner} owns {paths} and can replace {content}"),
            (Violation::Closed, FileKind::Database) if files.iter().all(|file| file.uid == 0) => {
                format!("{service} may not write to {paths}: made by a command that ran as root, perhaps")
            }
            (Violation::Closed, _) => {
                let may = how(["read", "write to"], self.needs & WRITE);
                format!("{service} may not {may} {paths} (owner {owner}, mode {mode:04o})")
            }
        }
    }

    fn advice(&self, violation: Violation, paths: &str, users: &Users) -> String {
        let chmod = format!("chmod {} {paths}", self.advice);
        match (violation, self.path) {
            (Violation::OpenToAll, FileKind::Key | FileKind::UnitKey) => {
                format!("{chmod}\nand make a new key in KOMOJU's dashboard if others use this machine")
            }
            (Violation::OpenToAll | Violation::OpenToGroup, _) => chmod,
            (_, FileKind::UnitKey) => format!("chown root: {paths} && {chmod}"),
            _ => format!("chown {}: {paths} && {chmod}", users.service.name),
        }
    }
}

/// Returns the findings about files that break the rule for their kind.
pub(super) fn broken(
    check: &'static str,
    kind: FileKind,
    files: &[(&Path, &Ownership)],
    users: &Users,
) -> Vec<DoctorFinding> {
    let finding = |rule: &Rule, violation: Violation| {
        let broken = files.iter().filter(|(_, file)| rule.has_violation(violation, file, users));
        let (paths, files): (Vec<&Path>, Vec<&Ownership>) = broken.copied().unzip();
        let shown = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let quoted = paths.into_iter().map(quoted).collect::<Vec<_>>().join(" ");
        let finding = || rule.finding(violation, &shown, &files, users);
        let report =
            |exit| DoctorFinding::fail(check, exit, finding(), rule.advice(violation, &quoted, users));
        (!files.is_empty()).then(|| report(rule.exit(violation)))
    };
    let rules = TABLE.iter().filter(|rule| rule.path == kind);
    let findings = rules.flat_map(|rule| {
        VIOLATIONS.map(|pair| pair.into_iter().find_map(|violation| finding(rule, violation)))
    });
    findings.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, users};
    use super::*;

    #[test]
    fn file_is_classified_by_the_rule_for_its_kind() {
        use Exit::{Database, Failed, Fine, Usage};
        for (kind, uid, mode, exit, expected) in [
            (FileKind::Config, 0, 0o644, Fine, ""),
            (
                FileKind::Config,
                0,
                0o646,
                Fine,
                "change the configuration in /a b (mode 0646) → chmod o-w '/a b'",
            ),
            (FileKind::Password, 0, 0o640, Fine, ""),
            (
                FileKind::Password,
                0,
                0o644,
                Fine,
                "every user of this machine may read the proxy's password in",
            ),
            (FileKind::Key, 990, 0o400, Fine, ""),
            (
                FileKind::Key,
                990,
                0o404,
                Failed,
                "read the key in /a b (mode 0404) → chmod 0400 '/a b'\nand make a",
            ),
            (FileKind::Key, 990, 0o602, Failed, "every user of this machine may change the key in"),
            (FileKind::Key, 990, 0o444, Failed, "every user of this machine may read the key in"),
            (FileKind::Key, 990, 0o440, Fine, "the group komoju-sync may read the key in /a b (mode 0440)"),
            (FileKind::Key, 0, 0o400, Usage, "komoju-sync may not read /a b (owner root, mode 0400) → chown"),
            (
                FileKind::Key,
                1000,
                0o400,
                Fine,
                "alice owns /a b and can replace the key → chown komoju-sync:",
            ),
            (FileKind::UnitKey, 0, 0o400, Fine, ""),
            (FileKind::UnitKey, 990, 0o400, Fine, ""),
            (
                FileKind::UnitKey,
                1000,
                0o400,
                Fine,
                "alice owns /a b and can replace the key → chown root: '/a b'",
            ),
            (FileKind::Directory, 990, 0o2750, Fine, ""),
            (
                FileKind::Directory,
                0,
                0o755,
                Database,
                "may not write to /a b (owner root, mode 0755) → chown",
            ),
            (
                FileKind::Directory,
                990,
                0o2772,
                Fine,
                "may change files in /a b (mode 2772) → chmod u+rwx,o-w",
            ),
            (FileKind::Database, 990, 0o644, Fine, ""),
            (
                FileKind::Database,
                0,
                0o640,
                Database,
                "may not write to /a b: made by a command that ran as root",
            ),
            (FileKind::Database, 1000, 0o640, Database, "may not write to /a b (owner alice, mode 0640)"),
            (FileKind::Reachable, 990, 0o640, Fine, ""),
            (FileKind::Reachable, 990, 0o644, Fine, "may read customers and unsettled intents in /a b"),
            (FileKind::Spool, 990, 0o777, Fine, ""),
            (FileKind::Spool, 0, 0o3777, Failed, "komoju-sync does not own /a b (mode 3777)"),
            (
                FileKind::Spool,
                990,
                0o077,
                Failed,
                "(owner komoju-sync, mode 0077) → chown komoju-sync: '/a b' &&",
            ),
        ] {
            let findings = broken("key", kind, &[(Path::new("/a b"), &owned(uid, 991, mode))], &users());
            let text =
                findings.iter().map(|one| format!("{} → {}", one.finding, one.advice.as_ref().unwrap()));
            let text: String = text.collect();
            assert_eq!(findings.len(), usize::from(!expected.is_empty()), "{kind:?} {mode:o}: {text}");
            assert!(text.contains(expected), "{expected}: {text}");
            assert!(findings.iter().all(|finding| finding.exit == exit), "{kind:?} {mode:o}: {text}");
        }
    }

    #[test]
    fn files_that_break_a_rule_share_a_finding() {
        let (good, bad) = (owned(990, 991, 0o640), owned(0, 0, 0o640));
        let files = [(Path::new("/a"), &bad), (Path::new("/b"), &good), (Path::new("/c"), &bad)];
        let [finding] = &broken("permissions", FileKind::Database, &files, &users())[..] else { panic!() };
        assert!(finding.finding.starts_with("komoju-sync may not write to /a, /c: "), "{}", finding.finding);
        assert_eq!(finding.advice.as_deref(), Some("chown komoju-sync: /a /c && chmod u+rw /a /c"));
    }
}
