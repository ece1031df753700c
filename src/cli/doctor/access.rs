//! Who may do what with a file, by its mode: asked for the service's user, whoever runs this (root may everything).
//!
//! Access control lists are not looked at; where one is in use, a finding here says what the mode alone would allow.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The service's user, as the packages make it.
pub(super) const SERVICE: &str = "komoju-sync";

/// Read, write, and search or run: bits of a mode.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// Whose a file is, and what its mode says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Owned {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { uid: file.uid(), gid: file.gid(), mode: file.mode() & 0o7777 }
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) uid: u32,
    /// The first is the one that new files get.
    pub(super) gids: Vec<u32>,
    /// Whether this is the user that the packages make, for a database where they put it.
    pub(super) is_packaged: bool,
}

impl Person {
    /// Whether the mode lets this user do all of `wanted`.
    pub(super) fn may(&self, wanted: u32, file: &Owned) -> bool {
        let shift = if self.uid == 0 {
            return true;
        } else if self.uid == file.uid {
            6
        } else if self.gids.contains(&file.gid) {
            3
        } else {
            0
        };
        (file.mode >> shift) & wanted == wanted
    }
}

/// The users and groups of this machine, from its files alone: names from a directory service are told as numbers.
#[derive(Debug, Default)]
pub(super) struct People {
    passwd: String,
    groups: String,
}

impl People {
    pub(super) fn of_this_machine() -> Self {
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (passwd, groups) = (read("/etc/passwd"), read("/etc/group"));
        Self { passwd: passwd.unwrap_or_default(), groups: groups.unwrap_or_default() }
    }

    /// Who runs this command.
    pub(super) fn me(&self) -> Person {
        let process = std::fs::metadata("/proc/self").map(|process| (process.uid(), process.gid()));
        let (uid, gid) = process.unwrap_or((u32::MAX, u32::MAX));
        self.person(uid, gid)
    }

    /// Who the daemon is, or will be: the process that works on the database now; the packages' user for a database in its home; the
    /// owner of the database's directory.
    pub(super) fn service(&self, database: &Path, holder: Option<&str>) -> Person {
        let running = holder
            .and_then(process_in)
            .and_then(|process| std::fs::metadata(format!("/proc/{process}")).ok());
        let packaged =
            self.packaged().filter(|(_, home)| database.starts_with(home)).map(|(person, _)| person);
        let is_packaged = packaged.is_some();
        let directory = database.parent().and_then(|directory| std::fs::metadata(directory).ok());
        let found = running
            .map(|process| self.person(process.uid(), process.gid()))
            .or(packaged)
            .or_else(|| directory.map(|directory| self.person(directory.uid(), directory.gid())))
            .unwrap_or_else(|| self.me());
        Person { is_packaged, ..found }
    }

    fn packaged(&self) -> Option<(Person, PathBuf)> {
        let fields = rows(&self.passwd).find(|fields| fields[0] == SERVICE)?;
        let home = fields.get(5).filter(|home| home.len() > 1)?;
        Some((self.person(fields[2].parse().ok()?, fields.get(3)?.parse().ok()?), home.into()))
    }

    /// A user's name.
    pub(super) fn user(&self, uid: u32) -> String {
        named(&self.passwd, uid).map_or_else(|| format!("uid {uid}"), str::to_owned)
    }

    /// A group's name.
    pub(super) fn group(&self, gid: u32) -> String {
        named(&self.groups, gid).map_or_else(|| format!("gid {gid}"), str::to_owned)
    }

    fn person(&self, uid: u32, fallback_gid: u32) -> Person {
        let name = self.user(uid);
        let row = rows(&self.passwd).find(|fields| fields[2].parse() == Ok(uid));
        let gid = row.and_then(|fields| fields.get(3)?.parse().ok()).unwrap_or(fallback_gid);
        let others = rows(&self.groups).filter(|fields| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        });
        let gids = std::iter::once(gid).chain(others.filter_map(|fields| fields[2].parse().ok())).collect();
        Person { name, uid, gids, is_packaged: false }
    }
}

/// The lines of such a file that have a name and a number.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.filter(|fields| fields.len() > 2 && !fields[0].is_empty())
}

fn named(text: &str, number: u32) -> Option<&str> {
    rows(text).find(|fields| fields[2].parse() == Ok(number)).map(|fields| fields[0])
}

/// The process in "`komoju-sync run` (process 12) since …".
pub(super) fn process_in(holder: &str) -> Option<u32> {
    holder.split_once("(process ")?.1.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::doctor) fn people() -> People {
        People {
            passwd:
                "root:x:0:0::/root:/bin/sh\nkomoju-sync:x:990:991::/var/lib/komoju-sync:/usr/sbin/nologin\n\
                     alice:x:1000:1000::/home/alice:/bin/bash\n"
                    .to_owned(),
            groups: "root:x:0:\nkomoju-sync:x:991:bob,alice\nalice:x:1000:\n".to_owned(),
        }
    }

    pub(in crate::cli::doctor) fn service() -> Person {
        people().service(Path::new("/var/lib/komoju-sync/komoju.db"), None)
    }

    pub(in crate::cli::doctor) fn owned(uid: u32, gid: u32, mode: u32) -> Owned {
        Owned { uid, gid, mode }
    }

    #[test]
    fn the_packages_user_serves_the_database_in_its_home_and_no_other() {
        assert_eq!(
            service(),
            Person { name: "komoju-sync".into(), uid: 990, gids: vec![991], is_packaged: true }
        );
        let elsewhere = people().service(Path::new("/"), None);
        assert!(!elsewhere.is_packaged);
        assert_eq!(people().person(1000, 7).gids, [1000, 991]);
        assert_eq!(
            people().person(4000, 7),
            Person { name: "uid 4000".into(), uid: 4000, gids: vec![7], is_packaged: false }
        );
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let (service, root) = (service(), people().person(0, 0));
        assert!(service.may(READ | WRITE, &owned(990, 0, 0o600)));
        assert!(!service.may(READ, &owned(990, 991, 0o044)), "an owner is not asked as anybody else");
        assert!(service.may(READ, &owned(1000, 991, 0o640)));
        assert!(!service.may(READ, &owned(1000, 991, 0o604)), "nor is a member");
        assert!(!service.may(READ, &owned(1000, 1000, 0o640)));
        assert!(service.may(READ, &owned(1000, 1000, 0o644)));
        assert!(root.may(WRITE, &owned(1000, 1000, 0)));
    }

    #[test]
    fn the_process_that_holds_the_lock_is_named_in_its_sentence() {
        assert_eq!(process_in("`komoju-sync run` (process 4711) since 2026-01-01T00:00:00.000Z"), Some(4711));
        assert_eq!(process_in("another komoju-sync"), None);
    }
}
