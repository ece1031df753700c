//! In which order files are synced and go: what the kernel was asked for, told by the library that stands before it.

use crate::calls::{Lasts, Library, Place, Trouble};
use crate::{prepare, ready};

/// The position of the first call like this after another one.
fn after(calls: &[String], from: usize, wanted: &str) -> usize {
    let found = calls[from..].iter().position(|call| call == wanted);
    from + found.unwrap_or_else(|| panic!("no `{wanted}` after {from} in {calls:#?}"))
}

#[test]
fn a_dropped_file_goes_once_its_intents_and_its_receipt_are_on_disk() {
    let library = Library::build();
    let house = ready();
    prepare(&house, 0);
    let home = house.directory.path().canonicalize().unwrap();
    let trace = home.join("trace");
    let mut command = house.command(&["sync"]);
    let none = Trouble { place: Place::Everywhere, kinds: "", errno: 0, lasts: Lasts::Once, nth: 0 };
    library.under(&mut command, &home, none);
    assert!(command.env("CALLS_TRACE", &trace).status().unwrap().success());
    let calls = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<String> = calls.lines().map(|line| line.replace(home.to_str().unwrap(), "")).collect();

    let gone = after(&calls, 0, "u /spool/file-create-0.json");
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
    after(&calls, gone, "s /spool");
}
