use std::os::unix::fs::symlink;

use super::*;

#[test]
fn only_a_file_prepared_here_changes_its_owner() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let database = at("komoju.db");
    fs::write(&database, "old").unwrap();
    fs::write(at("komoju.db.lock"), "").unwrap();
    fs::write(at("precious"), "precious").unwrap();
    fs::set_permissions(at("precious"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o666)).unwrap();
    let scratch = at("scratch");
    let copy = scratch.join("copy.db");
    let try_it = || give_to_owner(&copy, &database);
    fs::create_dir(&scratch).unwrap();
    let untouched = |what: &str| {
        assert!(try_it().is_err(), "{what}");
        assert_eq!(fs::metadata(at("precious")).unwrap().mode() & 0o777, 0o600, "{what}");
    };
    symlink(at("precious"), &copy).unwrap();
    untouched("a link in the place of the copy");
    fs::remove_file(&copy).unwrap();
    fs::hard_link(at("precious"), &copy).unwrap();
    untouched("a second name of another file");
    fs::remove_file(&copy).unwrap();
    // To open it for reading would wait for a writer.
    assert!(std::process::Command::new("mkfifo").arg(&copy).status().unwrap().success());
    untouched("a pipe");
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "new").unwrap();
    try_it().unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o666);
    // Another directory replaces ours.
    fs::rename(&scratch, at("moved")).unwrap();
    symlink(at("moved"), &scratch).unwrap();
    assert!(try_it().is_err());
    fs::remove_file(&scratch).unwrap();
    fs::rename(at("moved"), &scratch).unwrap();
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(try_it().unwrap_err().to_string().contains("cannot be given"));
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o700)).unwrap();
    // The lock file, too.
    fs::remove_file(at("komoju.db.lock")).unwrap();
    symlink(at("precious"), at("komoju.db.lock")).unwrap();
    untouched("a link in the place of the lock");
}

fn bytes_of(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

#[test]
fn replaced_database_never_has_two_names_or_a_foreign_wal() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (path, prepared) = (at("komoju.db"), at("copy.db"));
    for standing in ["damaged", "whole"] {
        fs::write(&prepared, "new").unwrap();
        match standing {
            "damaged" => fs::write(&path, "no database").unwrap(),
            _ => {
                fs::remove_file(&path).unwrap();
                drop(open::for_writing(&path).unwrap());
            }
        }
        fs::write(at("komoju.db-shm"), "").unwrap();
        if standing == "damaged" {
            fs::write(at("komoju.db-wal"), "commits").unwrap();
        }
        let kept = at(&format!("komoju.db.before-restore-{standing}"));
        let placed = put_in_place_by(&prepared, &path, standing, |one, other| {
            assert_eq!((one, other), (kept.as_path(), path.as_path()));
            assert_eq!(bytes_of(one).unwrap(), b"new");
            for file in [one, other] {
                assert_eq!(fs::metadata(file).unwrap().nlink(), 1);
                assert!(!place::sibling(file, "-wal").exists(), "{standing}");
            }
            rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, RenameFlags::EXCHANGE)
        })
        .unwrap();
        assert_eq!((placed.kept.as_deref(), placed.is_private), (Some(kept.as_path()), true));
        assert_eq!((bytes_of(&path).unwrap(), prepared.exists()), (b"new".to_vec(), false));
        assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
        if standing == "damaged" {
            assert_eq!(bytes_of(&kept).unwrap(), b"no database");
            assert_eq!(bytes_of(&place::sibling(&kept, "-wal")).unwrap(), b"commits");
        }
    }
}

#[test]
fn failed_exchange_changes_nothing() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for errno in [rustix::io::Errno::INVAL, rustix::io::Errno::IO] {
        for (name, content) in [("copy.db", "new"), ("komoju.db", "damaged"), ("komoju.db-wal", "commits")] {
            fs::write(at(name), content).unwrap();
        }
        let message =
            put_in_place_by(&at("copy.db"), &at("komoju.db"), "then", |_, _| Err(errno)).unwrap_err();
        assert_eq!(
            message.to_string().contains("cannot change two names in one step"),
            errno == rustix::io::Errno::INVAL
        );
        for (name, content) in [("copy.db", "new"), ("komoju.db", "damaged"), ("komoju.db-wal", "commits")] {
            assert_eq!(bytes_of(&at(name)).unwrap(), content.as_bytes(), "{name}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }
    // Where no database is replaced, left-over files are unchanged, too.
    fs::remove_file(at("komoju.db")).unwrap();
    fs::remove_file(at("copy.db")).unwrap();
    put_in_place(&at("copy.db"), &at("komoju.db"), "then").unwrap_err();
    assert_eq!(bytes_of(&at("komoju.db-wal")).unwrap(), b"commits");
}

#[test]
fn moved_files_without_commits_are_removed() {
    for (wal, is_kept) in [("", false), ("commits", true)] {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("komoju.db-wal"), wal).unwrap();
        fs::write(at("komoju.db-shm"), "index").unwrap();
        let mut moved = MovedFiles::default();
        moved.take(&at("komoju.db"), &at("kept.db")).unwrap();
        assert_eq!(moved.keep_commits(&at("kept.db")), is_kept);
        assert_eq!(bytes_of(&at("kept.db-wal")), is_kept.then(|| wal.into()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), usize::from(is_kept));
    }
}

#[test]
fn earlier_kept_database_or_its_wal_is_not_replaced() {
    for earlier in ["komoju.db.before-restore-then", "komoju.db.before-restore-then-wal"] {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, content) in [("copy.db", "new"), ("komoju.db", "damaged"), (earlier, "earlier")] {
            fs::write(at(name), content).unwrap();
        }
        let placed = put_in_place(&at("copy.db"), &at("komoju.db"), "then").unwrap();
        let kept = at("komoju.db.before-restore-then-2");
        assert_eq!(placed.kept.as_deref(), Some(kept.as_path()), "{earlier}");
        assert_eq!(bytes_of(&at(earlier)).unwrap(), b"earlier");
        assert_eq!(bytes_of(&kept).unwrap(), b"damaged", "{earlier}");
    }
}
