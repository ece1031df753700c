use super::*;

#[test]
fn lock_file_that_is_a_link_is_refused_and_its_target_unchanged() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("precious"), "precious").unwrap();
    let lock = at("komoju.db.lock");
    let refused = |part: &str| {
        for error in [
            Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap_err(),
            Instance::share(&at("komoju.db")).unwrap_err(),
        ] {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(format!("{error}: {source}").contains(part), "{error}: {source}");
        }
        assert_eq!(std::fs::read(at("precious")).unwrap(), b"precious");
    };
    std::os::unix::fs::symlink(at("precious"), &lock).unwrap();
    refused("a symbolic link");
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), &lock).unwrap();
    refused("a symbolic link");
    assert!(!at("nowhere").exists());
    std::fs::remove_file(&lock).unwrap();
    std::fs::hard_link(at("precious"), &lock).unwrap();
    refused("a second name");
    std::fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    refused("no regular file");
    std::fs::remove_file(&lock).unwrap();
    drop(Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap());
}

/// Returns whether another process could take the lock of the file's inode. Another open file of
/// the inode behaves like another process.
fn is_free(path: &Path) -> bool {
    File::open(path).unwrap().try_lock().is_ok()
}

/// Waits until no process holds a lock of the database. A process that another test starts shares
/// the locks of this one from its fork to its exec, also after they are dropped here.
fn until_free(database: &Path) {
    for path in [database.to_owned(), place::sibling(database, ".lock")] {
        // Far more turns than a process needs to start.
        let mut turns = (0..10_000_000).inspect(|_| std::thread::yield_now());
        assert!(turns.any(|_| !path.exists() || is_free(&path)), "{} stays locked", path.display());
    }
}

#[test]
fn database_and_prepared_file_are_locked_until_the_instance_ends() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("prepared"), "x").unwrap();
    let instance = Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap();
    std::fs::write(at("komoju.db"), "x").unwrap();
    assert!(is_free(&at("komoju.db")), "it was made afterwards");
    instance.lock_database_file().unwrap();
    assert!(!is_free(&at("komoju.db")));
    instance.lock_prepared_file(&at("prepared")).unwrap();
    std::fs::rename(at("prepared"), at("komoju.db")).unwrap();
    assert!(!is_free(&at("komoju.db")));
    drop(instance);
    until_free(&at("komoju.db"));
    // A file that exists is locked from the beginning.
    let instance = Instance::take(&at("komoju.db"), "run", Timestamp::UNIX_EPOCH).unwrap();
    assert!(!is_free(&at("komoju.db")));
    std::fs::hard_link(at("komoju.db"), at("other.db")).unwrap();
    let refused = Instance::take(&at("other.db"), "run", Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert!(refused.contains("under another name"), "{refused}");
    drop(instance);
    until_free(&at("other.db"));
    drop(Instance::take(&at("other.db"), "run", Timestamp::UNIX_EPOCH).unwrap());
}

#[test]
fn log_mark_is_kept_for_the_next_instance() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let take = || Instance::take(&path, "run", Timestamp::UNIX_EPOCH).unwrap();
    let mark =
        LogMark { log_id: "a".into(), head: crate::store::log::changes::Head { seq: 7, chain: [1; 32] } };
    let instance = take();
    assert_eq!(instance.log_mark(), None);
    instance.note_log(mark.clone());
    instance.note_trouble(Some("since then: no room".into()));
    let holder = Instance::holder(&path).unwrap().unwrap();
    assert_eq!(holder.process, Some(std::process::id()));
    assert_eq!(holder.trouble.as_deref(), Some("since then: no room"));
    drop(instance);
    until_free(&path);
    assert_eq!(take().log_mark(), Some(&mark));
    until_free(&path);
    assert_eq!(Instance::holder(&path).unwrap(), None);
}

#[test]
fn lock_file_that_root_creates_gets_the_directorys_owner() {
    use std::os::unix::fs::{MetadataExt, chown};
    let directory = tempfile::TempDir::new().unwrap();
    if chown(directory.path(), Some(12_345), Some(12_346)).is_err() {
        // Only root can change the owner of a file.
        return;
    }
    let path = directory.path().join("komoju.db");
    drop(Instance::take(&path, "restore", Timestamp::UNIX_EPOCH).unwrap());
    let lock = std::fs::metadata(place::sibling(&path, ".lock")).unwrap();
    assert_eq!((lock.uid(), lock.gid()), (12_345, 12_346));
}

#[test]
fn shared_lock_blocks_a_start_only_while_it_is_held() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    drop(Instance::share(&path).unwrap());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a shared lock leaves no file");

    let now = Timestamp::UNIX_EPOCH;
    drop(Instance::take(&path, "run", now).unwrap());
    until_free(&path);
    let sharing = Instance::share(&path).unwrap();
    assert_eq!(Instance::holder(&path).unwrap(), None, "no process works on it");
    let refused = Instance::take(&path, "run", now).unwrap_err().to_string();
    assert!(
        refused.contains("is being read by `komoju-sync restore` or `komoju-sync sync --dry-run`"),
        "{refused}"
    );

    let starter = std::thread::spawn({
        let path = path.clone();
        move || Instance::take(&path, "run", now)
    });
    drop(sharing);
    let instance = starter.join().unwrap().unwrap();
    let holder = Instance::holder(&path).unwrap().unwrap().name;
    assert!(holder.starts_with("`komoju-sync run` (process "), "{holder}");
    assert!(Instance::share(&path).unwrap_err().to_string().contains(&holder));
    drop(instance);
}
