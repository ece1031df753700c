//! The users of this machine, and what a file's mode allows each of them.
//!
//! What the service's user may do is computed from modes and owners, because root, which may do
//! everything, runs this command. Access control lists are not read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The service's user, as the packages make it.
const SERVICE: &str = "komoju-sync";

/// Read, write, and search or execute: bits of a mode.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// The owner, group and mode of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Ownership {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { uid: file.uid(), gid: file.gid(), mode: file.mode() & 0o7777 }
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    /// The first is the group of new files.
    pub(super) gids: Vec<u32>,
    /// Whether this is the packages' user, and the database is in its home.
    pub(super) is_packaged: bool,
}

impl User {
    /// Whether the mode lets this user do all of `wanted`. Only the first class that fits counts.
    pub(super) fn may(&self, wanted: u32, file: &Ownership) -> bool {
        let shift = match self.uid {
            0 => return true,
            uid if uid == file.uid => 6,
            _ if self.gids.contains(&file.gid) => 3,
            _ => 0,
        };
        (file.mode >> shift) & wanted == wanted
    }
}

/// The names in `/etc/passwd` and `/etc/group`. Users of a directory service are shown as numbers.
#[derive(Debug, Default)]
pub(super) struct UserNames {
    passwd: String,
    groups: String,
}

impl UserNames {
    /// Returns a user's name.
    pub(super) fn user(&self, uid: u32) -> String {
        named(&self.passwd, uid).map_or_else(|| format!("uid {uid}"), str::to_owned)
    }

    /// Returns a group's name.
    pub(super) fn group(&self, gid: u32) -> String {
        named(&self.groups, gid).map_or_else(|| format!("gid {gid}"), str::to_owned)
    }

    fn describe(&self, uid: u32, fallback_gid: u32) -> User {
        let name = self.user(uid);
        let own = rows(&self.passwd).find(|row| row[2].parse() == Ok(uid));
        let gid = own.and_then(|row| row.get(3)?.parse().ok()).unwrap_or(fallback_gid);
        let is_member = |row: &Vec<&str>| row.get(3).is_some_and(|all| all.split(',').any(|one| one == name));
        let others = rows(&self.groups).filter(is_member).filter_map(|row| row[2].parse().ok());
        let gids = std::iter::once(gid).chain(others).collect();
        User { name, uid, gids, is_packaged: false }
    }

    /// Returns the packages' user and its home.
    fn packaged(&self) -> Option<(User, PathBuf)> {
        let row = rows(&self.passwd).find(|row| row[0] == SERVICE)?;
        let home = row.get(5).filter(|home| home.len() > 1)?;
        Some((self.describe(row[2].parse().ok()?, row[3].parse().ok()?), home.into()))
    }
}

/// Splits the lines that have a name and a number into their fields.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.filter(|row| row.len() > 2 && !row[0].is_empty())
}

fn named(text: &str, number: u32) -> Option<&str> {
    rows(text).find(|row| row[2].parse() == Ok(number)).map(|row| row[0])
}

/// The two users that matter here, and the names of all.
pub(super) struct Users {
    pub(super) names: UserNames,
    /// The user that runs this command.
    pub(super) me: User,
    /// The user that runs the daemon, or will run it.
    pub(super) service: User,
}

impl Users {
    /// Returns both users. The service's user is the owner of the process that works on the
    /// database. Without a process it is the packages' user, if the database is in its home.
    /// Otherwise it is the owner of the database's directory.
    pub(super) fn of(database: &Path, holder: Option<u32>) -> Self {
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let [passwd, groups] = ["/etc/passwd", "/etc/group"].map(|path| read(path).unwrap_or_default());
        Self::among(UserNames { passwd, groups }, database, holder)
    }

    fn among(names: UserNames, database: &Path, holder: Option<u32>) -> Self {
        let owner =
            |path: &Path| std::fs::metadata(path).ok().map(|found| names.describe(found.uid(), found.gid()));
        let me = owner(Path::new("/proc/self")).unwrap_or_else(|| names.describe(u32::MAX, u32::MAX));
        let running = holder.and_then(|process| owner(format!("/proc/{process}").as_ref()));
        let packaged = names.packaged().filter(|(_, home)| database.starts_with(home)).map(|(user, _)| user);
        let is_packaged = packaged.is_some();
        let of_directory = || owner(database.parent()?);
        let service = running.or(packaged).or_else(of_directory).unwrap_or_else(|| me.clone());
        Self { me, service: User { is_packaged, ..service }, names }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nkomoju-sync:x:990:991::/var/lib/komoju-sync:/usr/sbin/nologin\n\
                          alice:x:1000:1000::/home/alice:/bin/bash\n";
    const GROUPS: &str = "root:x:0:\nkomoju-sync:x:991:bob,alice\nalice:x:1000:\n";

    fn names() -> UserNames {
        UserNames { passwd: PASSWD.into(), groups: GROUPS.into() }
    }

    /// Root runs the command; the packages' user is the service's.
    pub(in crate::cli::doctor) fn users() -> Users {
        let users = Users::among(names(), Path::new("/var/lib/komoju-sync/komoju.db"), None);
        Users { me: names().describe(0, 0), ..users }
    }

    pub(in crate::cli::doctor) fn service() -> User {
        users().service
    }

    pub(in crate::cli::doctor) fn owned(uid: u32, gid: u32, mode: u32) -> Ownership {
        Ownership { uid, gid, mode }
    }

    #[test]
    fn packaged_user_serves_only_a_database_in_its_home() {
        let packaged = User { name: "komoju-sync".into(), uid: 990, gids: vec![991], is_packaged: true };
        assert_eq!(service(), packaged);
        assert!(!Users::among(names(), Path::new("/"), None).service.is_packaged);
        assert_eq!(names().describe(1000, 7).gids, [1000, 991]);
        let unknown = User { name: "uid 4000".into(), uid: 4000, gids: vec![7], is_packaged: false };
        assert_eq!(names().describe(4000, 7), unknown);
    }

    #[test]
    fn first_class_that_fits_decides() {
        for (uid, wanted, file, expected) in [
            (990, READ | WRITE, owned(990, 0, 0o600), true),
            (990, READ, owned(990, 991, 0o044), false),
            (990, READ, owned(1000, 991, 0o640), true),
            (990, READ, owned(1000, 991, 0o604), false),
            (990, READ, owned(1000, 1000, 0o640), false),
            (990, READ, owned(1000, 1000, 0o644), true),
            (0, WRITE, owned(1000, 1000, 0), true),
        ] {
            assert_eq!(names().describe(uid, 0).may(wanted, &file), expected, "{uid}: {file:?}");
        }
    }
}
