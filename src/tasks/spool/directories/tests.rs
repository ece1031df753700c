use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use super::*;

struct TestHome {
    home: tempfile::TempDir,
}

impl TestHome {
    fn new() -> Self {
        let home = tempfile::TempDir::new().unwrap();
        fs::write(home.path().join("komoju.db"), "").unwrap();
        Self { home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn open(&self) -> Result<Directories, String> {
        Directories::open(&self.at("spool"), &self.at("komoju.db"))
    }
}

#[test]
fn directories_appear_at_once() {
    for _ in 0..40 {
        let dir = TestHome::new();
        let spool = dir.at("spool");
        std::thread::scope(|scope| {
            // A member of the group that waits for the directory in order to create `rejected`
            // first.
            let member = scope.spawn(|| {
                while !spool.exists() {
                    std::hint::spin_loop();
                }
                BELOW.iter().any(|(name, _)| fs::create_dir(spool.join(name)).is_ok())
            });
            dir.open().unwrap();
            assert!(!member.join().unwrap(), "a member was first");
        });
    }
}

#[test]
fn staging_directory_is_private() {
    let dir = TestHome::new();
    fs::set_permissions(dir.home.path(), fs::Permissions::from_mode(0o2777)).unwrap();
    let (staging, folder) = create_staging(&Folder::open(dir.home.path()).unwrap()).unwrap();
    // A umask can only remove permissions, so none lets another user in.
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    drop(staging);
    assert!(!folder.path().exists(), "it is removed");
}

#[test]
fn staging_directory_that_is_shared_or_locked_is_not_used() {
    let dir = TestHome::new();
    let create = |mode, name| {
        fs::DirBuilder::new().mode(mode).create(dir.at(name)).unwrap();
        Folder::open(&dir.at(name)).unwrap()
    };
    let refused = |folder: &Folder| lock_staging(folder).unwrap_err().kind();
    assert_eq!(refused(&create(0o755, "shared")), ErrorKind::PermissionDenied);
    let ours = create(0o700, "ours");
    lock_staging(&ours).unwrap();
    assert_eq!(refused(&Folder::open(&dir.at("ours")).unwrap()), ErrorKind::PermissionDenied);
}

#[test]
fn interrupted_creation_does_not_block_the_next_and_is_removed() {
    let dir = TestHome::new();
    let create = |mode, name| fs::DirBuilder::new().mode(mode).create(dir.at(name)).unwrap();
    for name in [".new-cut", ".new-cut/spool", ".new-cut/spool/.claimed", ".new-empty", ".new-used"] {
        create(0o700, name);
    }
    fs::write(dir.at(".new-used/file"), "").unwrap();
    create(0o755, ".new-shared");
    symlink(dir.at(".new-shared"), dir.at(".new-link")).unwrap();
    create(0o700, ".new-locked");
    let locked = Folder::open(&dir.at(".new-locked")).unwrap();
    assert!(locked.lock().unwrap());
    create(0o700, ".new-foreign");
    let is_foreign = chown(dir.at(".new-foreign"), Some(12_345), None).is_ok();
    dir.open().unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let stay = [".new-foreign", ".new-link", ".new-locked", ".new-shared", ".new-used", "komoju.db", "spool"];
    // Only root can create a directory of another user.
    assert_eq!(names, stay[usize::from(!is_foreign)..]);
}

#[test]
fn link_or_directory_of_a_member_is_never_used() {
    for name in [CLAIMED, RECEIPTS, REJECTED] {
        let dir = TestHome::new();
        drop(dir.open().unwrap());
        let below = dir.at("spool").join(name);
        fs::remove_dir(&below).unwrap();
        fs::create_dir(dir.at("elsewhere")).unwrap();
        symlink(dir.at("elsewhere"), &below).unwrap();
        let why = dir.open().unwrap_err();
        assert!(why.contains("is a symbolic link") && why.contains("rm -r"), "{why}");
        fs::remove_file(&below).unwrap();
        fs::DirBuilder::new().mode(0o777).create(&below).unwrap();
        fs::set_permissions(&below, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(dir.open().unwrap_err().contains("can be written by others"));
        fs::set_permissions(&below, fs::Permissions::from_mode(0o750)).unwrap();
        if chown(&below, Some(12_345), None).is_ok() {
            assert!(dir.open().unwrap_err().contains("belongs to uid 12345"));
        }
    }
}

#[test]
fn directory_of_another_user_is_refused_with_the_command() {
    let dir = TestHome::new();
    drop(dir.open().unwrap());
    if chown(dir.at("spool"), Some(12_345), None).is_err() {
        // Only root can give a directory to another user.
        return;
    }
    let why = dir.open().unwrap_err();
    assert!(why.contains("belongs to uid 12345") && why.contains("`chown root "), "{why}");
    // Root works for the owner of the database.
    chown(dir.at("komoju.db"), Some(12_345), None).unwrap();
    for name in [CLAIMED, RECEIPTS, REJECTED] {
        chown(dir.at("spool").join(name), Some(12_345), None).unwrap();
    }
    dir.open().unwrap();
}

#[test]
fn directories_that_root_creates_belong_to_the_owner_of_the_database() {
    let dir = TestHome::new();
    if chown(dir.at("komoju.db"), Some(12_345), Some(12_346)).is_err() {
        return;
    }
    let directories = dir.open().unwrap();
    for folder in [&directories.spool, &directories.claimed, &directories.receipts, &directories.rejected] {
        assert_eq!(folder.metadata().unwrap().uid(), 12_345, "{folder:?}");
    }
    directories.receipts.write("a.json", |out| out.write_all(b"{}")).unwrap();
    assert_eq!(directories.receipts.metadata_of("a.json").unwrap().uid(), 12_345);
}

#[test]
fn second_daemon_gets_an_error_that_names_the_lock() {
    let dir = TestHome::new();
    let first = dir.open().unwrap();
    let why = dir.open().unwrap_err();
    assert!(why.contains("another komoju-sync") && why.contains("outbound.spool_dir"), "{why}");
    assert!(why.contains(&format!("(process {};", std::process::id())), "{why}");
    let obstacle = || obstacle(&dir.at("spool"), &dir.at("komoju.db"));
    assert_eq!(obstacle(), Some(why));
    assert!(first.is_at(&dir.at("spool")));
    drop(first);
    assert_eq!(obstacle(), None);
    dir.open().unwrap();
}

#[test]
fn replaced_directory_is_detected() {
    let dir = TestHome::new();
    let first = dir.open().unwrap();
    fs::rename(dir.at("spool"), dir.at("old")).unwrap();
    assert!(!first.is_at(&dir.at("spool")));
    let second = dir.open().unwrap();
    assert!(second.is_at(&dir.at("spool")) && !first.is_at(&dir.at("spool")));
    fs::remove_dir(dir.at("spool/rejected")).unwrap();
    assert!(!second.is_at(&dir.at("spool")));
}

#[test]
fn directories_that_are_missing_below_an_existing_spool_directory_are_created() {
    let dir = TestHome::new();
    fs::create_dir(dir.at("spool")).unwrap();
    let directories = dir.open().unwrap();
    assert!(directories.is_at(&dir.at("spool")));
    let mode = |folder: &Folder| folder.metadata().unwrap().mode() & 0o777;
    let Directories { claimed, receipts, rejected, .. } = &directories;
    assert_eq!([mode(claimed), mode(receipts), mode(rejected)], [0o700, 0o750, 0o750]);
}
