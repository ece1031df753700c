//! No file is lost and none is taken twice, whatever other writers and crashes do during its
//! acceptance.

use std::collections::BTreeSet;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{CREATE, SpoolHarness, create, digest};

#[tokio::test]
async fn file_that_cannot_be_claimed_stays_and_is_taken_later() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    harness.drop_file("b.json", "{");
    let mode = |mode| fs::set_permissions(harness.at(""), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    if fs::write(harness.at("probe.json"), CREATE).is_ok() {
        // Root may rename any file.
        return;
    }
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.refused, summary.skipped.len()), (0, 0, 2));
    let why = SpoolHarness::why(&summary, "a.json");
    assert!(why.contains("cannot be moved to .claimed/") && why.contains("chown"), "{why}");
    mode(0o3770);
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.refused, summary.skipped), (1, 1, vec![]));
}

fn rename_in(harness: &SpoolHarness, name: &str, content: &str) {
    harness.drop_file(&format!(".{name}"), content);
    fs::rename(harness.at(&format!(".{name}")), harness.at(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_dropped_again_under_the_same_name_is_taken() {
    let harness = SpoolHarness::open().await;
    for n in 0..40 {
        rename_in(&harness, "a.json", &create(&format!("first-{n}")));
        let second = format!("second-{n}");
        std::thread::scope(|scope| {
            // The writer removes its file and drops another while the first one is being taken.
            let dropper = scope.spawn(|| {
                let taken = || harness.ids().contains(&format!("first-{n}"));
                while harness.at("a.json").exists() && !taken() {
                    std::hint::spin_loop();
                }
                let _ = fs::remove_file(harness.at("a.json"));
                rename_in(&harness, "a.json", &create(&second));
            });
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current()
                    .block_on(harness.spool.take(&["a.json".to_owned()]))
                    .unwrap()
            });
            dropper.join().unwrap();
        });
        while harness.at("a.json").exists() {
            harness.spool.take(&["a.json".to_owned()]).await.unwrap();
        }
        assert!(harness.ids().contains(&second), "{second} was removed without being read");
    }
    assert_eq!((harness.names("rejected"), harness.claimed()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_appended_while_files_are_taken_are_accepted_or_kept() {
    const LINES: usize = 400;
    let harness = SpoolHarness::open().await;
    let is_over = AtomicBool::new(false);
    // Bytes that are written to a removed file are lost, as docs/outbox.md says. Only the other
    // lines must be found.
    let written = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // Like `echo … >> a.jsonl`.
        scope.spawn(|| {
            for n in (0..LINES).map(|n| n.to_string()) {
                let mut file =
                    OpenOptions::new().append(true).create(true).open(harness.at("a.jsonl")).unwrap();
                file.write_all(create(&n).as_bytes()).unwrap();
                if file.metadata().unwrap().nlink() == 1 {
                    written.lock().unwrap().push(n);
                }
                // This sleep waits for nothing. Its pace lets appends fall into every step of a
                // scan; waiting for scans would keep them out of some.
                std::thread::sleep(Duration::from_micros(500));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            while !is_over.load(Ordering::SeqCst) {
                runtime.block_on(harness.spool.scan()).unwrap();
            }
        });
    });
    // A file that is empty when it is taken is refused, and its line arrives later.
    for _ in 0..3 {
        harness.clock.advance(Duration::from_secs(1));
        harness.scan().await;
    }
    assert!(harness.claimed().is_empty() && !harness.at("a.jsonl").exists(), "{:?}", harness.claimed());
    let mut found: BTreeSet<String> = harness.ids().into_iter().collect();
    assert_eq!(found.len(), harness.ids().len());
    assert!(found.len() > LINES / 2, "{} ids were accepted", found.len());
    found.extend(harness.rejected_ids());
    let mut missing = written.into_inner().unwrap();
    missing.retain(|id| !found.contains(id));
    assert_eq!(missing, [""; 0]);
}

#[tokio::test]
async fn bytes_appended_after_the_read_are_kept_and_not_accepted() {
    for crashes in [false, true] {
        let mut harness = SpoolHarness::open().await;
        let text = format!("{CREATE}\n");
        harness.drop_file("a.jsonl", &text);
        let mut writer = OpenOptions::new().append(true).open(harness.at("a.jsonl")).unwrap();
        harness.block_receipt("a.jsonl");
        assert_eq!(harness.scan().await.intents, 1);
        writer.write_all(b"{\"op\": \"create\", \"body\": {\"payment_details\": \"tok_late\"}}\n").unwrap();
        if crashes {
            harness.restart();
        }
        harness.unblock_receipt("a.jsonl");
        // The file's time is ahead of the clock, so it must be seen unchanged for a second.
        harness.scan().await;
        harness.clock.advance(Duration::from_secs(1));
        let summary = harness.scan().await;
        assert_eq!((summary.taken, summary.intents, summary.skipped), (0, 0, vec![]));
        assert_eq!(harness.ids(), [format!("a@{}:1", digest(&text))]);
        assert_eq!(harness.names("rejected"), ["a.jsonl", "a.jsonl.error"]);
        let late = "{\"op\": \"create\", \"body\": {\"payment_details\": \"****\"}}\n";
        assert_eq!(harness.read("rejected/a.jsonl"), late);
        assert!(harness.read("rejected/a.jsonl.error").contains("arrived after the file was read"));
        assert!(harness.receipt("a.jsonl").get("note").is_none());
        assert!(harness.claimed().is_empty());
    }
}

#[tokio::test]
async fn file_rewritten_after_the_read_is_kept_whole() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", create("one"));
    let writer = OpenOptions::new().write(true).open(harness.at("a.json")).unwrap();
    harness.block_receipt("a.json");
    harness.scan().await;
    std::os::unix::fs::FileExt::write_all_at(&writer, create("two").as_bytes(), 0).unwrap();
    harness.unblock_receipt("a.json");
    harness.scan().await;
    assert_eq!((harness.ids(), harness.read("rejected/a.json")), (vec!["one".to_owned()], create("two")));
}

#[tokio::test]
async fn crash_after_the_claim_accepts_the_file_once_and_first() {
    let mut harness = SpoolHarness::open().await;
    harness.drop_file("z.json", create("younger"));
    harness.claim_by_hand("000000000001.000000000.00000001", "b.json", &create("b"));
    harness.claim_by_hand("000000000001.000000000.00000002", "a.json", &create("a"));
    // A directory without a file: the rename did not happen, or the directory was not removed.
    fs::create_dir(harness.at(".claimed/000000000000.000000000.00000000")).unwrap();
    // A file without a directory of its own has no drop time, and is reported.
    fs::write(harness.at(".claimed/bare.json"), create("bare")).unwrap();
    harness.restart();
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.skipped.len()), (3, 1));
    assert!(SpoolHarness::why(&summary, ".claimed/bare.json").contains("move it to the spool directory"));
    assert_eq!(harness.ids(), ["b", "a", "younger"]);
    assert_eq!(harness.names(".claimed"), ["bare.json"]);
    assert_eq!(harness.overview().stuck, summary.skipped, "`status` and `doctor` name it, too");
    assert_eq!(harness.names("receipts"), ["a.json.json", "b.json.json", "z.json.json"]);
}

#[tokio::test]
async fn crash_after_the_acceptance_accepts_nothing_again() {
    let mut harness = SpoolHarness::open().await;
    let text = format!("{CREATE}\n{CREATE}");
    harness.drop_file("a.jsonl", &text);
    harness.block_receipt("a.jsonl");
    assert_eq!(harness.scan().await.intents, 2);
    let ids = harness.ids();
    harness.unblock_receipt("a.jsonl");
    harness.restart();
    // The newer file of this name waits for the older one.
    harness.drop_file("a.jsonl", create("new"));
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.intents, summary.skipped), (1, 1, vec![]));
    assert_eq!(harness.ids()[..2], ids);
    assert_eq!(harness.ids().len(), 3);
    assert_eq!((harness.names(".claimed"), harness.names("rejected")), (vec![], vec![]));
}

#[tokio::test]
async fn crash_after_a_refusal_keeps_one_copy() {
    let mut harness = SpoolHarness::open().await;
    harness.drop_file("a.json", "{\"payment_details\": \"tok_x\"");
    assert_eq!(harness.scan().await.refused, 1);
    let kept = harness.names("rejected");
    for without_error in [false, true] {
        harness.claim_by_hand("000000000001.000000000.00000001", "a.json", "{\"payment_details\": \"tok_x\"");
        if without_error {
            fs::remove_file(harness.at("rejected/a.json.error")).unwrap();
        }
        harness.restart();
        harness.scan().await;
        assert_eq!((harness.names("rejected"), harness.names(".claimed")), (kept.clone(), vec![]));
    }
}

#[tokio::test]
async fn claimed_file_that_may_not_be_taken_is_put_back() {
    let harness = SpoolHarness::open().await;
    harness.claim_by_hand("000000000001.000000000.00000001", "a.json", CREATE);
    fs::hard_link(&harness.claimed()[0], harness.home.path().join("elsewhere")).unwrap();
    let summary = harness.scan().await;
    assert!(SpoolHarness::why(&summary, "a.json").contains("more than one link"), "{summary:?}");
    assert!(harness.at("a.json").exists() && harness.claimed().is_empty());
    // The name is used by another file, which is not overwritten.
    fs::rename(harness.at("a.json"), harness.at("b.json")).unwrap();
    harness.claim_by_hand("000000000001.000000000.00000001", "c.json", CREATE);
    fs::remove_file(&harness.claimed()[0]).unwrap();
    fs::hard_link(harness.at("b.json"), harness.at(".claimed/000000000001.000000000.00000001/c.json"))
        .unwrap();
    harness.drop_file("c.json", create("c"));
    let summary = harness.scan().await;
    assert!(SpoolHarness::why(&summary, "c.json").contains("it is in .claimed/"), "{summary:?}");
    assert_eq!((harness.claimed().len(), harness.read("c.json")), (1, create("c")));
}

#[tokio::test]
async fn accepted_file_that_got_a_second_link_has_its_receipt_and_is_shown() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", create("a"));
    harness.block_receipt("a.json");
    assert_eq!(harness.scan().await.taken, 1);
    assert_eq!(harness.overview().stuck, [], "a claim that is being accepted is not stuck");
    harness.unblock_receipt("a.json");
    let [claimed] = harness.claimed().try_into().unwrap();
    fs::hard_link(&claimed, harness.home.path().join("elsewhere")).unwrap();
    let summary = harness.scan().await;
    let why = SpoolHarness::why(&summary, "a.json");
    assert!(why.contains("more than one link") && why.contains("it is in .claimed/"), "{why}");
    assert_eq!(harness.overview().stuck, summary.skipped);
    assert_eq!(harness.receipt("a.json")["intents"][0]["id"], "a");
    // It is finished when it is acceptable again.
    fs::remove_file(harness.home.path().join("elsewhere")).unwrap();
    let summary = harness.scan().await;
    assert_eq!((summary.taken, summary.skipped, harness.claimed().len()), (0, vec![], 0));
    assert_eq!(harness.ids(), ["a"]);
}
