//! The owner and the mode that files must have: one table, and what a broken rule reports.

use std::path::Path;

use super::access::{Owned, READ, SEARCH, Users, WRITE};
use super::{Exit, Finding, quoted};

/// The kinds of files that have a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
enum Owner {
    Any,
    Service,
    ServiceOrRoot,
}

/// A rule about the owner and the mode of one kind of file.
struct Rule {
    path: Kind,
    owner: Owner,
    /// The bits that the mode may have.
    most_mode: u32,
    /// What the service's user must be allowed to do.
    needs: u32,
    /// The exit code where the service's user may not do that.
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
    Rule { path: Kind::Config,    owner: Owner::Any,           most_mode: 0o7775, needs: 0,            exit: Exit::Fine,     content: "the configuration",    advice: "o-w" },
    Rule { path: Kind::Password,  owner: Owner::Any,           most_mode: 0o7773, needs: 0,            exit: Exit::Fine,     content: "the proxy's password", advice: "o=" },
    Rule { path: Kind::Key,       owner: Owner::ServiceOrRoot, most_mode: 0o7700, needs: READ,         exit: Exit::Usage,    content: "the key",              advice: "0400" },
    Rule { path: Kind::UnitKey,   owner: Owner::ServiceOrRoot, most_mode: 0o7700, needs: 0,            exit: Exit::Usage,    content: "the key",              advice: "0400" },
    Rule { path: Kind::Directory, owner: Owner::Any,           most_mode: 0o7775, needs: USE,          exit: Exit::Database, content: "files",                advice: "u+rwx,o-w" },
    Rule { path: Kind::Database,  owner: Owner::Any,           most_mode: 0o7777, needs: READ | WRITE, exit: Exit::Database, content: CUSTOMERS,              advice: "u+rw" },
    Rule { path: Kind::Reachable, owner: Owner::Any,           most_mode: 0o7771, needs: 0,            exit: Exit::Fine,     content: CUSTOMERS,              advice: "o=" },
    Rule { path: Kind::Spool,     owner: Owner::Service,       most_mode: 0o7777, needs: USE,          exit: Exit::Failed,   content: "intents",              advice: "3770" },
];

/// How a file breaks a rule.
#[derive(Clone, Copy)]
enum Fault {
    OpenToAll,
    OpenToGroup,
    /// A user that the rule does not accept owns it.
    Foreign,
    /// The service's user may not do what it must.
    Closed,
}

/// The faults of the mode and those of the owner; of each only the first is reported.
const FAULTS: [[Fault; 2]; 2] = [[Fault::OpenToAll, Fault::OpenToGroup], [Fault::Foreign, Fault::Closed]];

impl Rule {
    fn has_fault(&self, fault: Fault, file: &Owned, users: &Users) -> bool {
        let extra = file.mode & !self.most_mode;
        match (fault, self.owner) {
            (Fault::OpenToAll, _) => extra & 0o007 != 0,
            (Fault::OpenToGroup, _) => extra & 0o070 != 0,
            (Fault::Foreign, Owner::Any) => false,
            (Fault::Foreign, Owner::Service) => file.uid != users.service.uid,
            (Fault::Foreign, Owner::ServiceOrRoot) => ![0, users.service.uid].contains(&file.uid),
            (Fault::Closed, _) => !users.service.may(self.needs, file),
        }
    }

    fn exit(&self, fault: Fault) -> Exit {
        match (fault, self.path) {
            (Fault::Closed, _) | (Fault::Foreign, Kind::Spool) => self.exit,
            (Fault::OpenToAll, Kind::Key | Kind::UnitKey) => Exit::Failed,
            _ => Exit::Fine,
        }
    }

    fn finding(&self, fault: Fault, paths: &str, files: &[&Owned], users: &Users) -> String {
        let Owned { uid, gid, mode } = *files[0];
        let (service, owner, content) = (&users.service.name, users.names.user(uid), self.content);
        let how = |verbs: [&'static str; 2], bits: u32| verbs[usize::from(bits != 0)];
        let may = how(["read", "change"], mode & !self.most_mode & 0o022);
        match (fault, self.path) {
            (Fault::OpenToAll, _) => {
                format!("every user of this machine may {may} {content} in {paths} (mode {mode:04o})")
            }
            (Fault::OpenToGroup, _) => {
                let group = users.names.group(gid);
                format!("the group {group} may {may} {content} in {paths} (mode {mode:04o})")
            }
            (Fault::Foreign, Kind::Spool) => {
                format!("{service} does not own {paths} (mode {mode:04o}), and takes no file out of it")
            }
            (Fault::Foreign, _) => format!("{owner} owns {paths} and can replace {content}"),
            (Fault::Closed, Kind::Database) if files.iter().all(|file| file.uid == 0) => {
                format!("{service} may not write to {paths}: made by a command that ran as root, perhaps")
            }
            (Fault::Closed, _) => {
                let may = how(["read", "write to"], self.needs & WRITE);
                format!("{service} may not {may} {paths} (owner {owner}, mode {mode:04o})")
            }
        }
    }

    fn advice(&self, fault: Fault, paths: &str, users: &Users) -> String {
        let chmod = format!("chmod {} {paths}", self.advice);
        match (fault, self.path) {
            (Fault::OpenToAll, Kind::Key | Kind::UnitKey) => {
                format!("{chmod}\nand make a new key in KOMOJU's dashboard if others use this machine")
            }
            (Fault::OpenToAll | Fault::OpenToGroup, _) => chmod,
            (_, Kind::UnitKey) => format!("chown root: {paths} && {chmod}"),
            _ => format!("chown {}: {paths} && {chmod}", users.service.name),
        }
    }
}

/// Returns the findings about files that break the rule for their kind.
pub(super) fn broken(
    check: &'static str,
    kind: Kind,
    files: &[(&Path, &Owned)],
    users: &Users,
) -> Vec<Finding> {
    let finding = |rule: &Rule, fault: Fault| {
        let broken = files.iter().filter(|(_, file)| rule.has_fault(fault, file, users));
        let (paths, files): (Vec<&Path>, Vec<&Owned>) = broken.copied().unzip();
        let shown = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let quoted = paths.into_iter().map(quoted).collect::<Vec<_>>().join(" ");
        let finding = || rule.finding(fault, &shown, &files, users);
        let report = |exit| Finding::fail(check, exit, finding(), rule.advice(fault, &quoted, users));
        (!files.is_empty()).then(|| report(rule.exit(fault)))
    };
    let rules = TABLE.iter().filter(|rule| rule.path == kind);
    let findings =
        rules.flat_map(|rule| FAULTS.map(|pair| pair.into_iter().find_map(|fault| finding(rule, fault))));
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
            (Kind::Config, 0, 0o644, Fine, ""),
            (Kind::Config, 0, 0o646, Fine, "change the configuration in /a b (mode 0646) → chmod o-w '/a b'"),
            (Kind::Password, 0, 0o640, Fine, ""),
            (Kind::Password, 0, 0o644, Fine, "every user of this machine may read the proxy's password in"),
            (Kind::Key, 990, 0o400, Fine, ""),
            (
                Kind::Key,
                990,
                0o404,
                Failed,
                "read the key in /a b (mode 0404) → chmod 0400 '/a b'\nand make a",
            ),
            (Kind::Key, 990, 0o602, Failed, "every user of this machine may change the key in"),
            (Kind::Key, 990, 0o444, Failed, "every user of this machine may read the key in"),
            (Kind::Key, 990, 0o440, Fine, "the group komoju-sync may read the key in /a b (mode 0440)"),
            (Kind::Key, 0, 0o400, Usage, "komoju-sync may not read /a b (owner root, mode 0400) → chown"),
            (Kind::Key, 1000, 0o400, Fine, "alice owns /a b and can replace the key → chown komoju-sync:"),
            (Kind::UnitKey, 0, 0o400, Fine, ""),
            (Kind::UnitKey, 990, 0o400, Fine, ""),
            (
                Kind::UnitKey,
                1000,
                0o400,
                Fine,
                "alice owns /a b and can replace the key → chown root: '/a b'",
            ),
            (Kind::Directory, 990, 0o2750, Fine, ""),
            (Kind::Directory, 0, 0o755, Database, "may not write to /a b (owner root, mode 0755) → chown"),
            (Kind::Directory, 990, 0o2772, Fine, "may change files in /a b (mode 2772) → chmod u+rwx,o-w"),
            (Kind::Database, 990, 0o644, Fine, ""),
            (Kind::Database, 0, 0o640, Database, "may not write to /a b: made by a command that ran as root"),
            (Kind::Database, 1000, 0o640, Database, "may not write to /a b (owner alice, mode 0640)"),
            (Kind::Reachable, 990, 0o640, Fine, ""),
            (Kind::Reachable, 990, 0o644, Fine, "may read customers and unsettled intents in /a b"),
            (Kind::Spool, 990, 0o777, Fine, ""),
            (Kind::Spool, 0, 0o3777, Failed, "komoju-sync does not own /a b (mode 3777)"),
            (
                Kind::Spool,
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
        let [finding] = &broken("permissions", Kind::Database, &files, &users())[..] else { panic!() };
        assert!(finding.finding.starts_with("komoju-sync may not write to /a, /c: "), "{}", finding.finding);
        assert_eq!(finding.advice.as_deref(), Some("chown komoju-sync: /a /c && chmod u+rw /a /c"));
    }
}
