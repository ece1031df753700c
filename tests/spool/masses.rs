//! Very many small things cost no more than one large one.

use super::*;

/// The bytes of all files in a directory.
fn size(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

async fn refused(content: &[u8]) -> (Desk, String) {
    let desk = Desk::open().await;
    desk.drop_file("a.jsonl", content);
    assert_eq!(desk.scan().await.refused, 1);
    assert_eq!(desk.names("rejected"), ["a.jsonl", "a.jsonl.error"]);
    let (kept, dropped) = (size(&desk.at("rejected")), content.len() as u64);
    assert!(kept <= dropped + 64 * 1024, "{kept} of {dropped}");
    let error = desk.read("rejected/a.jsonl.error");
    (desk, error)
}

#[tokio::test]
async fn a_file_of_more_than_50000_lines_is_refused_with_what_to_do() {
    let (desk, error) = refused("0\n".repeat(1_000_000).as_bytes()).await;
    assert!(error.contains("has 1000000 lines") && error.contains("split it"), "{error}");
    assert!(error.contains("komoju-sync intent import"), "{error}");
    assert_eq!(desk.ids(), [""; 0]);
    let (desk, error) = refused(format!("{CREATE}\n").repeat(50_001).as_bytes()).await;
    assert!(error.contains("has 50001 lines"), "{error}");
    assert_eq!(desk.ids(), [""; 0]);
}

#[tokio::test]
async fn an_error_file_of_very_many_wrong_lines_is_short() {
    let (_, error) = refused("0\n".repeat(50_000).as_bytes()).await;
    assert!(
        error.contains("line 1: the intent: must be") && error.contains(" more lines are wrong"),
        "{error}"
    );
    let (_, _) = refused("{\"cvc\":1}\n".repeat(50_000).as_bytes()).await;
}

#[tokio::test]
async fn a_mass_of_foreign_files_is_a_number() {
    let desk = Desk::open().await;
    for n in 0..2_000 {
        desk.drop_file(&format!("{n:05}.txt"), "");
    }
    desk.drop_file("a.json", CREATE);
    for expected in [1, 0] {
        let looked = desk.scan().await;
        assert_eq!((looked.taken, looked.left.len(), looked.more_left), (expected, 100, 1_900));
    }
    assert_eq!(desk.spool.left()[0].name, "00000.txt");
    let log = logged();
    assert!(log.contains("1900 more files are left where they are"), "{log}");
    assert!(log.lines().count() < 110, "{} lines", log.lines().count());
}
