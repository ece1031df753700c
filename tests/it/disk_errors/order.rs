//! In which order files are synced and go: what the kernel was asked for, told by the library that stands before it.

use komoju_testkit::Installation;
use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};

use super::prepare;
use crate::PROGRAM;

/// What a command that ends well asks the kernel for, about the files of this directory.
fn calls_of(library: &Library, harness: &Installation, arguments: &[&str]) -> Vec<String> {
    let home = harness.directory.path().canonicalize().unwrap();
    let trace = home.join("trace");
    let _ = std::fs::remove_file(&trace);
    let mut command = harness.command(arguments);
    let none =
        DiskFault { place: FaultPlace::Everywhere, kinds: "", errno: 0, lasts: FaultCount::Once, nth: 0 };
    library.under(&mut command, &home, none);
    let status = command.env("CALLS_TRACE", &trace).env("CALLS_UNDER", &home).status();
    assert!(status.unwrap().success());
    let calls = std::fs::read_to_string(trace).unwrap();
    calls.lines().map(|line| line.replace(home.to_str().unwrap(), "")).collect()
}

/// Asserts that all that was ever done to the copy was on disk when it was given this name, and the name itself afterwards. Returns the
/// position of its naming.
fn assert_synced_before_its_name(calls: &[String], name: &str) -> usize {
    let named = after(calls, 0, &format!("c {name}"));
    let synced = calls[..named].iter().rposition(|call| call.starts_with("s ") && call.ends_with("/copy.db"));
    let synced = synced.unwrap_or_else(|| panic!("{name} is not synced before it is named: {calls:#?}"));
    let copy = &calls[synced][2..];
    let touched =
        calls.iter().rposition(|call| ["w", "t", "m"].iter().any(|kind| *call == format!("{kind} {copy}")));
    assert!(
        touched.is_some_and(|touched| touched < synced),
        "{name} is written to after its sync: {calls:#?}"
    );
    after(calls, named, DIRECTORY);
    named
}

/// The directory itself is synced.
const DIRECTORY: &str = "s ";

/// The position of the first call like this after another one.
fn after(calls: &[String], from: usize, wanted: &str) -> usize {
    let found = calls[from..].iter().position(|call| call == wanted);
    from + found.unwrap_or_else(|| panic!("no `{wanted}` after {from} in {calls:#?}"))
}

#[test]
fn backup_is_synced_before_it_gets_its_name() {
    let (library, harness) = (Library::load(), Installation::swept(PROGRAM, 8));
    let backup = harness.path("kept.db");
    let calls = calls_of(&library, &harness, &["backup", backup.to_str().unwrap()]);
    assert_synced_before_its_name(&calls, "/kept.db");
}

#[test]
fn restored_database_is_synced_before_it_gets_its_name() {
    let (library, harness) = (Library::load(), Installation::swept(PROGRAM, 8));
    let backup = harness.path("kept.db");
    harness.expect(0, &["backup", backup.to_str().unwrap()]);
    let calls = calls_of(&library, &harness, &["restore", backup.to_str().unwrap()]);
    let kept = calls.iter().find_map(|call| call.strip_prefix("c /komoju.db.before-restore-"));
    let kept = format!("/komoju.db.before-restore-{}", kept.unwrap());
    let named = assert_synced_before_its_name(&calls, &kept);
    // In between it changes names with the database that was there; before and after that the names are made lasting.
    let syncs = calls[named..].iter().filter(|call| *call == DIRECTORY).count();
    assert_eq!(syncs, 2, "{calls:#?}");

    // Where no database was, all of it is to be seen.
    std::fs::remove_file(harness.path("komoju.db")).unwrap();
    let calls = calls_of(&library, &harness, &["restore", backup.to_str().unwrap()]);
    assert_synced_before_its_name(&calls, "/komoju.db");
}

#[test]
fn spool_file_is_removed_after_its_intents_and_receipt_are_synced() {
    let library = Library::load();
    let harness = Installation::swept(PROGRAM, 8);
    prepare(&harness, 0);
    let calls = calls_of(&library, &harness, &["sync"]);

    let claimed = calls
        .iter()
        .position(|call| call.starts_with("c /spool/.claimed/") && call.ends_with("/file-create-0.json"));
    let claimed = claimed.unwrap_or_else(|| panic!("the file is not claimed: {calls:#?}"));
    let file = &calls[claimed][2..];
    let read = after(&calls, 0, &format!("r {file}"));
    assert!(claimed < read, "it is out of others' reach before it is read: {calls:#?}");
    assert!(!calls.iter().any(|call| call == "r /spool/file-create-0.json"), "{calls:#?}");
    let gone = after(&calls, read, &format!("u {file}"));
    let receipt = after(&calls, 0, "c /spool/receipts/file-create-0.json.json");
    let temporary = calls[..receipt].iter().rposition(|call| call.starts_with("s /spool/receipts/.tmp-"));
    let temporary =
        temporary.unwrap_or_else(|| panic!("the receipt is not synced before its name: {calls:#?}"));
    let intents = calls[..temporary].iter().rposition(|call| call == "s /komoju.db-wal");
    let intents = intents.unwrap_or_else(|| panic!("nothing is synced before the receipt: {calls:#?}"));
    let written = calls[..temporary].iter().rposition(|call| call == "w /komoju.db-wal");
    assert!(written.is_some_and(|written| written < intents), "the intents are written, then synced");
    let directory = after(&calls, receipt, "s /spool/receipts");
    assert!(receipt < directory && directory < gone, "the receipt's name is lasting before the file goes");
    let left = after(&calls, claimed, "s /spool");
    assert!(left < gone, "that the file left the spool directory is lasting before it goes: {calls:#?}");
    let (claim, _) = file.rsplit_once('/').unwrap();
    let removed = after(&calls, gone, &format!("s {claim}"));
    let folder = after(&calls, gone, &format!("u {claim}"));
    assert!(removed < folder, "its removal is lasting before its directory goes: {calls:#?}");
}
