//! No file is lost and none is doubled: whatever others do with a name while its file is taken, and
//! wherever the process ends.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn create(id: &str) -> String {
    format!("{{\"op\": \"create\", \"id\": \"{id}\", \"body\": {{\"email\": \"a\"}}}}\n")
}

fn rename_in(desk: &Desk, name: &str, content: &str) {
    desk.drop_file(&format!(".{name}"), content);
    fs::rename(desk.at(&format!(".{name}")), desk.at(name)).unwrap();
}

impl Desk {
    /// Puts a file where a process that ended after the rename left it.
    fn claim_by_hand(&self, id: &str, name: &str, content: &str) {
        fs::create_dir_all(self.at(".claimed").join(id)).unwrap();
        fs::write(self.at(".claimed").join(id).join(name), content).unwrap();
    }

    /// Lets a receipt fail: the file is accepted and stays claimed, as after a crash before the
    /// removal.
    fn block_receipt(&self, name: &str) {
        fs::create_dir_all(self.at(&format!("receipts/{name}.json/in the way"))).unwrap();
    }

    fn unblock_receipt(&self, name: &str) {
        fs::remove_dir_all(self.at(&format!("receipts/{name}.json"))).unwrap();
    }

    /// The ids in what was refused or arrived too late.
    fn put_aside(&self) -> BTreeSet<String> {
        let copies = self.names("rejected").into_iter().filter(|name| !name.ends_with(".error"));
        let texts = copies.map(|name| self.read(&format!("rejected/{name}"))).collect::<Vec<_>>();
        let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_dropped_again_under_its_name_is_taken_too() {
    let desk = Desk::open().await;
    for n in 0..40 {
        rename_in(&desk, "a.json", &create(&format!("first-{n}")));
        let second = format!("second-{n}");
        std::thread::scope(|scope| {
            // The dropper withdraws its file and drops another, while the first one is being taken.
            let dropper = scope.spawn(|| {
                let taken = || desk.ids().contains(&format!("first-{n}"));
                while desk.at("a.json").exists() && !taken() {
                    std::hint::spin_loop();
                }
                let _ = fs::remove_file(desk.at("a.json"));
                rename_in(&desk, "a.json", &create(&second));
            });
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(desk.spool.take(&["a.json".to_owned()])).unwrap()
            });
            dropper.join().unwrap();
        });
        while desk.at("a.json").exists() {
            desk.spool.take(&["a.json".to_owned()]).await.unwrap();
        }
        assert!(desk.ids().contains(&second), "{second} was removed and never read");
    }
    assert_eq!((desk.names("rejected"), desk.claimed()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_appended_while_files_are_taken_are_accepted_or_kept() {
    const LINES: usize = 400;
    let desk = Desk::open().await;
    let is_over = AtomicBool::new(false);
    // What is written into a file that is removed already is lost, as docs/outbox.md says. Any
    // other line counts.
    let written = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // As `echo … >> a.jsonl` does it.
        scope.spawn(|| {
            for n in (0..LINES).map(|n| n.to_string()) {
                let mut file = OpenOptions::new().append(true).create(true).open(desk.at("a.jsonl")).unwrap();
                file.write_all(create(&n).as_bytes()).unwrap();
                if file.metadata().unwrap().nlink() == 1 {
                    written.lock().unwrap().push(n);
                }
                // Waits for nothing: the pace lets appends fall into every step of a scan. To wait for scans would
                // keep them out of some.
                std::thread::sleep(Duration::from_micros(500));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            while !is_over.load(Ordering::SeqCst) {
                runtime.block_on(desk.spool.scan()).unwrap();
            }
        });
    });
    // What is empty while it is taken is refused: its only line arrives later.
    for _ in 0..3 {
        desk.clock.advance(Duration::from_secs(1));
        desk.scan().await;
    }
    assert!(desk.claimed().is_empty() && !desk.at("a.jsonl").exists(), "{:?}", desk.spool.left());
    let mut found: BTreeSet<String> = desk.ids().into_iter().collect();
    assert_eq!(found.len(), desk.ids().len());
    assert!(found.len() > LINES / 2, "{} were accepted", found.len());
    found.extend(desk.put_aside());
    let mut missing = written.into_inner().unwrap();
    missing.retain(|id| !found.contains(id));
    assert_eq!(missing, [""; 0]);
}

#[tokio::test]
async fn bytes_that_arrive_after_the_reading_are_kept_and_nothing_is_doubled() {
    for crashes in [false, true] {
        let mut desk = Desk::open().await;
        let text = format!("{CREATE}\n");
        desk.drop_file("a.jsonl", &text);
        let mut writer = OpenOptions::new().append(true).open(desk.at("a.jsonl")).unwrap();
        desk.block_receipt("a.jsonl");
        assert_eq!(desk.scan().await.intents, 1);
        writer.write_all(b"{\"op\": \"create\", \"body\": {\"payment_details\": \"tok_late\"}}\n").unwrap();
        if crashes {
            desk.restart();
        }
        desk.unblock_receipt("a.jsonl");
        // Times ahead of ours: it must be seen unchanged for a second.
        desk.scan().await;
        desk.clock.advance(Duration::from_secs(1));
        let looked = desk.scan().await;
        assert_eq!((looked.taken, looked.intents, looked.left), (0, 0, vec![]));
        assert_eq!(desk.ids(), [format!("a@{}:1", digest(&text))]);
        assert_eq!(desk.names("rejected"), ["a.jsonl", "a.jsonl.error"]);
        let late = "{\"op\": \"create\", \"body\": {\"payment_details\": \"****\"}}\n";
        assert_eq!(desk.read("rejected/a.jsonl"), late);
        assert!(desk.read("rejected/a.jsonl.error").contains("arrived after the file was read"));
        assert!(desk.receipt("a.jsonl").get("note").is_none());
        assert!(desk.claimed().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_is_rewritten_after_the_reading_is_kept_whole() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", create("one"));
    let writer = OpenOptions::new().write(true).open(desk.at("a.json")).unwrap();
    desk.block_receipt("a.json");
    desk.scan().await;
    std::os::unix::fs::FileExt::write_all_at(&writer, create("two").as_bytes(), 0).unwrap();
    desk.unblock_receipt("a.json");
    desk.scan().await;
    assert_eq!((desk.ids(), desk.read("rejected/a.json")), (vec!["one".to_owned()], create("two")));
}

#[tokio::test]
async fn a_crash_after_the_claim_accepts_the_file_once_and_first() {
    let mut desk = Desk::open().await;
    desk.drop_file("z.json", create("younger"));
    desk.claim_by_hand("000000000001.000000000-00000001", "b.json", &create("b"));
    desk.claim_by_hand("000000000001.000000000-00000002", "a.json", &create("a"));
    // The rename did not happen, or the directory was not removed.
    fs::create_dir(desk.at(".claimed/000000000000.000000000-00000000")).unwrap();
    // Put there by hand.
    fs::write(desk.at(".claimed/bare.json"), create("bare")).unwrap();
    desk.restart();
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.left), (4, vec![]));
    assert_eq!(desk.ids(), ["b", "a", "bare", "younger"]);
    assert_eq!(desk.names(".claimed"), [""; 0]);
    let names = ["a.json.json", "b.json.json", "bare.json.json", "z.json.json"];
    assert_eq!(desk.names("receipts"), names);
}

#[tokio::test]
async fn a_crash_after_the_acceptance_accepts_nothing_again() {
    let mut desk = Desk::open().await;
    let text = format!("{CREATE}\n{CREATE}");
    desk.drop_file("a.jsonl", &text);
    desk.block_receipt("a.jsonl");
    assert_eq!(desk.scan().await.intents, 2);
    let ids = desk.ids();
    desk.unblock_receipt("a.jsonl");
    desk.restart();
    // A newer file of that name waits for the older one.
    desk.drop_file("a.jsonl", create("new"));
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.intents, looked.left), (1, 1, vec![]));
    assert_eq!(desk.ids()[..2], ids);
    assert_eq!(desk.ids().len(), 3);
    assert_eq!((desk.names(".claimed"), desk.names("rejected")), (vec![], vec![]));
}

#[tokio::test]
async fn a_crash_after_a_refusal_keeps_one_copy() {
    let mut desk = Desk::open().await;
    desk.drop_file("a.json", "{\"payment_details\": \"tok_x\"");
    assert_eq!(desk.scan().await.refused, 1);
    let kept = desk.names("rejected");
    for without_error in [false, true] {
        desk.claim_by_hand("000000000001.000000000-00000001", "a.json", "{\"payment_details\": \"tok_x\"");
        if without_error {
            fs::remove_file(desk.at("rejected/a.json.error")).unwrap();
        }
        desk.restart();
        desk.scan().await;
        assert_eq!((desk.names("rejected"), desk.names(".claimed")), (kept.clone(), vec![]));
    }
}

#[tokio::test]
async fn a_claimed_file_that_may_not_be_taken_is_put_back() {
    let desk = Desk::open().await;
    desk.claim_by_hand("000000000001.000000000-00000001", "a.json", CREATE);
    fs::hard_link(&desk.claimed()[0], desk.home.path().join("elsewhere")).unwrap();
    let looked = desk.scan().await;
    assert!(Desk::why(&looked, "a.json").contains("more than one link"), "{looked:?}");
    assert!(desk.at("a.json").exists() && desk.claimed().is_empty());
    // The name is used by now: nothing is overwritten.
    fs::rename(desk.at("a.json"), desk.at("b.json")).unwrap();
    desk.claim_by_hand("000000000001.000000000-00000001", "c.json", CREATE);
    fs::remove_file(&desk.claimed()[0]).unwrap();
    fs::hard_link(desk.at("b.json"), desk.at(".claimed/000000000001.000000000-00000001/c.json")).unwrap();
    desk.drop_file("c.json", create("c"));
    let looked = desk.scan().await;
    assert!(Desk::why(&looked, "c.json").contains("it lies in .claimed/"), "{looked:?}");
    assert_eq!((desk.claimed().len(), desk.read("c.json")), (1, create("c")));
}

#[tokio::test]
async fn the_same_content_after_another_has_a_receipt_that_says_so() {
    let desk = Desk::open().await;
    let (a, b) = (CREATE.to_owned(), format!("{CREATE} "));
    for (text, is_repeat) in [(&a, false), (&b, false), (&a, true)] {
        desk.drop_file("a.json", text);
        let looked = desk.scan().await;
        assert_eq!((looked.taken, looked.intents), (1, u64::from(!is_repeat)));
        let receipt = desk.receipt("a.json");
        let note = receipt["note"].as_str();
        let says =
            |note: &str| note.contains("nothing new was accepted") && note.contains("another file name");
        assert_eq!(note.is_some_and(says), is_repeat, "{receipt}");
        assert_eq!(receipt["intents"][0]["repeated"], if is_repeat { json!(true) } else { Value::Null });
    }
    // It says so also when the intent is settled, and a file with its own id is new.
    desk.cancel(&format!("a@{}", digest(&a))).await;
    desk.spool.tend_receipts().await.unwrap();
    let receipt = desk.receipt("a.json");
    assert_eq!((&receipt["intents"][0]["state"], receipt["note"].is_string()), (&json!("cancelled"), true));
}
