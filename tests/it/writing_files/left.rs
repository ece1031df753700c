//! Files that are not taken from the spool directory, and how they are reported.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use komoju_sync::tasks::spool::{ScanSummary, waiting_files};

use super::{CREATE, SpoolHarness, logged};

#[tokio::test]
async fn file_that_begins_with_a_dot_is_ignored() {
    let harness = SpoolHarness::open().await;
    harness.drop_file(".a.json", CREATE);
    assert_eq!(harness.scan().await, ScanSummary::default());
    assert_eq!(harness.spool.take(&[".a.json".to_owned()]).await.unwrap(), ScanSummary::default());
    assert_eq!(harness.read(".a.json"), CREATE);
    assert_eq!(waiting_files(&harness.at("")), [""; 0]);
}

#[tokio::test]
async fn file_that_is_not_regular_or_has_two_links_is_reported_and_stays() {
    let harness = SpoolHarness::open().await;
    let outside = harness.home.path().join("outside.json");
    fs::write(&outside, CREATE).unwrap();
    symlink(&outside, harness.at("link.json")).unwrap();
    fs::hard_link(&outside, harness.at("hard.json")).unwrap();
    fs::create_dir(harness.at("folder.json")).unwrap();
    assert!(Command::new("mkfifo").arg(harness.at("pipe.json")).status().unwrap().success());
    fs::File::create(harness.at("huge.json")).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    harness.drop_file("notes.txt", "not for you");
    let cases = [
        ("folder.json", "is a directory: put its files here"),
        ("hard.json", "has more than one link"),
        ("huge.json", "has more than 16 MiB: split it"),
        ("link.json", "is a symbolic link"),
        ("notes.txt", "must end in .json (one intent) or .jsonl (one a line): rename it"),
        ("pipe.json", "is a pipe"),
    ];
    let names: Vec<String> = cases.iter().map(|(name, _)| (*name).to_owned()).collect();
    for summary in [harness.scan().await, harness.spool.take(&names).await.unwrap()] {
        assert_eq!(
            (summary.taken, summary.refused, summary.skipped.len()),
            (0, 0, cases.len()),
            "{summary:?}"
        );
        for (name, why) in cases {
            assert!(SpoolHarness::why(&summary, name).starts_with(why), "{name}: {summary:?}");
        }
    }
    assert_eq!(waiting_files(&harness.at("")), names);
    assert_eq!(harness.read("notes.txt"), "not for you");
    assert_eq!(fs::read_to_string(&outside).unwrap(), CREATE);
    assert_eq!(harness.ids(), [""; 0]);
    fs::remove_file(harness.at("notes.txt")).unwrap();
    fs::remove_file(&outside).unwrap();
    let summary = harness.scan().await;
    assert_eq!(summary.taken, 1, "the file has one link now");
    assert_eq!(summary.skipped.len(), cases.len() - 2);
}

#[tokio::test]
async fn unreadable_file_is_reported_with_the_command() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    fs::set_permissions(harness.at("a.json"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(harness.at("a.json")).is_ok() {
        // Root may read any file. The message has a unit test.
        return;
    }
    let why = SpoolHarness::why(&harness.scan().await, "a.json");
    assert!(why.contains("cannot be read by this program") && why.contains("chmod g+r"), "{why}");
    fs::set_permissions(harness.at("a.json"), fs::Permissions::from_mode(0o640)).unwrap();
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.skipped), (1, vec![]));
}

#[tokio::test]
async fn name_that_is_not_utf_8_is_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let harness = SpoolHarness::open().await;
    let name = harness.at("").join(std::ffi::OsStr::from_bytes(b"a\xff.json"));
    fs::write(&name, CREATE).unwrap();
    let summary = harness.scan().await;
    assert!(SpoolHarness::why(&summary, "a\u{fffd}.json").contains("not UTF-8"));
    assert!(name.exists());
}

#[tokio::test]
async fn left_file_is_logged_once() {
    let harness = SpoolHarness::open().await;
    let count_logged = || logged().matches("is skipped").count();
    harness.drop_file("notes.txt", "not for you");
    for _ in 0..3 {
        assert_eq!(harness.scan().await.skipped.len(), 1);
        assert_eq!(count_logged(), 1);
    }
    fs::remove_file(harness.at("notes.txt")).unwrap();
    assert_eq!(harness.scan().await.skipped, []);
    harness.drop_file("notes.txt", "once more");
    harness.scan().await;
    assert_eq!(count_logged(), 2);
    harness.drop_file(
        "a.json",
        r#"{"op": "create", "body": {"payment_details": ["tok_secret"]}, "tok_secret": 1}"#,
    );
    harness.scan().await;
    let log = logged();
    assert!(log.contains(" was refused: ") && !log.contains("tok_secret"), "{log}");
}

#[tokio::test]
async fn report_of_many_left_files_is_bounded() {
    let harness = SpoolHarness::open().await;
    for n in 0..2_000 {
        harness.drop_file(&format!("{n:05}.txt"), "");
    }
    harness.drop_file("a.json", CREATE);
    for expected in [1, 0] {
        let summary = harness.scan().await;
        assert_eq!((summary.taken, summary.skipped.len(), summary.more_skipped), (expected, 100, 1_900));
        assert_eq!(summary.skipped[0].name, "00000.txt");
    }
    let log = logged();
    assert_eq!(log.matches(" is skipped: ").count(), 100, "{log}");
    assert!(log.contains("1900 more files are skipped"), "{log}");
    assert!(log.lines().count() < 110, "{} lines", log.lines().count());
}
