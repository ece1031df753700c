//! The directories: modes, owner, lock, and a disabled door.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use komoju_sync::store::outbox::engine;
use komoju_sync::tasks::spool::{ScanSummary, Spool, SpoolSettings, waiting_files};

use super::{CREATE, SpoolHarness, until_unlocked};

#[tokio::test]
async fn directories_are_created_with_their_modes() {
    let harness = SpoolHarness::open().await;
    let mode = |path: &str| fs::metadata(harness.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("receipts"), mode("rejected")), (0o3770, 0o750, 0o750));
    assert_eq!(mode(".claimed"), 0o700);
    fs::set_permissions(harness.at(""), fs::Permissions::from_mode(0o3770)).unwrap();
    harness.scan().await;
    assert_eq!(mode(""), 0o3770, "an existing directory is unchanged");
}

#[tokio::test]
async fn directory_that_cannot_be_created_is_reported_and_retried() {
    let harness = SpoolHarness::with(true);
    fs::write(harness.home.path().join("intents"), "a file is in the way").unwrap();
    let summary = harness.scan().await;
    let why = &summary.skipped[0].why;
    assert!(why.contains("outbound.spool_dir") && why.contains("put a directory there"), "{why}");
    fs::remove_file(harness.home.path().join("intents")).unwrap();
    assert_eq!(harness.scan().await.skipped, [], "a repaired problem is no longer reported");
}

#[tokio::test]
async fn file_is_not_taken_when_receipts_is_a_symbolic_link() {
    let harness = SpoolHarness::with(true);
    fs::create_dir(harness.at("")).unwrap();
    fs::create_dir(harness.home.path().join("elsewhere")).unwrap();
    symlink(harness.home.path().join("elsewhere"), harness.at("receipts")).unwrap();
    harness.drop_file("a.json", CREATE);
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.skipped.len()), (0, 1));
    assert!(harness.at("a.json").exists());
}

#[tokio::test]
async fn files_stay_while_outbound_is_disabled() {
    let harness = SpoolHarness::with(false);
    assert_eq!(harness.scan().await, ScanSummary::default());
    fs::create_dir(harness.at("")).unwrap();
    harness.drop_file("a.json", CREATE);
    harness.drop_file("b.json", "{");
    for summary in
        [harness.scan().await, harness.spool.take(&["a.json".to_owned(), "b.json".to_owned()]).await.unwrap()]
    {
        assert_eq!((summary.taken, summary.refused, summary.skipped.len()), (0, 0, 2));
        assert!(
            SpoolHarness::why(&summary, "a.json")
                .contains("pushing is switched off (outbound.enabled = false)")
        );
    }
    assert_eq!(waiting_files(&harness.at("")), ["a.json", "b.json"]);

    // The setting in the database disables the door, too.
    let harness = SpoolHarness::open().await;
    harness.store.write(|tx| engine::set_enabled(tx, false)).await.unwrap();
    harness.drop_file("a.json", CREATE);
    assert!(SpoolHarness::why(&harness.scan().await, "a.json").contains("switched off"));
    harness.store.write(|tx| engine::set_enabled(tx, true)).await.unwrap();
    assert_eq!(harness.scan().await.taken, 1);
}

#[tokio::test]
async fn second_daemon_on_one_directory_takes_nothing() {
    let first = SpoolHarness::open().await;
    let second = SpoolHarness::with(true);
    let settings = SpoolSettings { dir: first.at(""), enabled: true };
    let other = Spool::new(Arc::clone(&second.store), None, Arc::clone(&second.clock) as Arc<_>, settings);
    for n in 0..20 {
        first.drop_file(&format!("{n}.json"), CREATE);
    }
    let (one, two) = tokio::join!(first.spool.scan(), other.scan());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.taken, two.taken, first.ids().len(), second.ids().len()), (20, 0, 20, 0));
    let why = &two.skipped[0].why;
    assert!(why.contains("another komoju-sync") && why.contains("its own outbound.spool_dir"), "{why}");
    let recorded = |harness: &SpoolHarness| -> Option<String> {
        harness.sql().query_row("SELECT spool_problem FROM meta", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((recorded(&first), recorded(&second)), (None, Some(why.clone())));
    drop(first.spool);
    until_unlocked(&first.home.path().join("intents"));
    fs::write(first.home.path().join("intents/late.json"), CREATE).unwrap();
    assert_eq!((other.scan().await.unwrap().taken, recorded(&second)), (1, None));
}

#[tokio::test]
async fn nothing_is_taken_from_a_directory_of_another_user() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    let mut harness = harness;
    harness.restart();
    if std::os::unix::fs::chown(harness.at(""), Some(12_345), None).is_err() {
        // Only root may change the owner.
        return;
    }
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.skipped.len()), (0, 1));
    assert!(summary.skipped[0].why.contains("`chown root "), "{summary:?}");
    assert!(harness.at("a.json").exists());
    std::os::unix::fs::chown(harness.at(""), Some(0), None).unwrap();
    assert_eq!(harness.scan().await.taken, 1);
}
