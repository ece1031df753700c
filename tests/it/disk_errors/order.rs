//! The order in which files are synced, renamed and removed, as a preloaded library traces the
//! calls.

use komoju_testkit::Installation;
use komoju_testkit::disk_faults::{DiskFault, FaultCount, FaultPlace, Library};

use super::prepare;
use crate::PROGRAM;

/// Returns the file calls of a successful command, below the directory of the installation.
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

/// Asserts that the copy was synced after its last write and before it got this name, and that the
/// directory was synced afterwards. Returns the position of the renaming.
fn assert_synced_before_its_name(calls: &[String], name: &str) -> usize {
    let named = after(calls, 0, &format!("c {name}"));
    let synced = calls[..named].iter().rposition(|call| call.starts_with("s ") && call.ends_with("/copy.db"));
    let synced = synced.unwrap_or_else(|| panic!("{name} is not synced before it is named: {calls:#?}"));
    let copy = &calls[synced][2..];
    let touched =
        calls.iter().rposition(|call| ["w", "t", "m"].iter().any(|kind| *call == format!("{kind} {copy}")));
    assert!(
        touched.is_some_and(|touched| touched < synced),
        "{name} is not written, or is written after its sync: {calls:#?}"
    );
    after(calls, named, SYNC_OF_DIRECTORY);
    named
}

/// SYNC_OF_DIRECTORY is the trace of an fsync of the directory itself.
const SYNC_OF_DIRECTORY: &str = "s ";

/// Returns the position of the first such call from a position on.
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
    // The copy is then exchanged with the old database; the directory is synced before and after.
    let syncs = calls[named..].iter().filter(|call| *call == SYNC_OF_DIRECTORY).count();
    assert_eq!(syncs, 2, "{calls:#?}");

    // Without an old database, the copy gets the name of the database directly.
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
    assert!(claimed < read, "the file is read before it is claimed: {calls:#?}");
    assert!(!calls.iter().any(|call| call == "r /spool/file-create-0.json"), "{calls:#?}");
    let gone = after(&calls, read, &format!("u {file}"));
    let receipt = after(&calls, 0, "c /spool/receipts/file-create-0.json.json");
    let temporary = calls[..receipt].iter().rposition(|call| call.starts_with("s /spool/receipts/.tmp-"));
    let temporary =
        temporary.unwrap_or_else(|| panic!("the receipt is not synced before its name: {calls:#?}"));
    let intents = calls[..temporary].iter().rposition(|call| call == "s /komoju.db-wal");
    let intents = intents.unwrap_or_else(|| panic!("nothing is synced before the receipt: {calls:#?}"));
    let written = calls[..temporary].iter().rposition(|call| call == "w /komoju.db-wal");
    assert!(
        written.is_some_and(|written| written < intents),
        "the intents are not synced after they are written"
    );
    let directory = after(&calls, receipt, "s /spool/receipts");
    assert!(
        receipt < directory && directory < gone,
        "the file is removed before the name of its receipt is synced"
    );
    let left = after(&calls, claimed, "s /spool");
    assert!(left < gone, "the file is removed before its rename is synced: {calls:#?}");
    let (claim, _) = file.rsplit_once('/').unwrap();
    let removed = after(&calls, gone, &format!("s {claim}"));
    let folder = after(&calls, gone, &format!("u {claim}"));
    assert!(
        removed < folder,
        "the claim directory is removed before the removal of the file is synced: {calls:#?}"
    );
}
