//! When a file is taken: in drop order, and after it was unchanged for a second.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use komoju_sync::clock::{Clock, ManualClock, Sleep};
use komoju_sync::tasks::spool::{ScanSummary, Spool, SpoolSettings};
use tokio_util::sync::CancellationToken;

use super::{CREATE, HOUR, SpoolHarness, touched, until_unlocked, update};

#[tokio::test]
async fn file_is_taken_after_a_second_without_changes() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    let touched = touched(&harness.at("a.json"));
    // An old modification time does not count: only the time of the last change of the inode does.
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(harness.at("a.json")).unwrap().set_times(old).unwrap();
    let changed = self::touched(&harness.at("a.json"));
    assert!(changed >= touched);
    harness.clock.set_wall(changed + Duration::from_millis(400));
    let summary = harness.scan().await;
    assert_eq!(summary, ScanSummary { again_in: Some(Duration::from_millis(600)), ..ScanSummary::default() });
    harness.clock.advance(Duration::from_millis(599));
    assert_eq!(harness.scan().await.again_in, Some(Duration::from_millis(1)));
    harness.clock.advance(Duration::from_millis(1));
    assert_eq!(harness.scan().await.taken, 1);
}

#[tokio::test]
async fn file_dated_in_the_future_is_taken_after_an_unchanged_second() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    harness.clock.set_wall(touched(&harness.at("a.json")) - HOUR);
    assert_eq!(harness.scan().await.again_in, Some(Duration::from_secs(1)));
    harness.clock.advance(Duration::from_secs(1));
    assert_eq!(harness.scan().await.taken, 1);
}

#[tokio::test]
async fn file_renamed_into_place_is_taken_at_once() {
    let harness = SpoolHarness::open().await;
    harness.drop_file(".a", CREATE);
    fs::rename(harness.at(".a"), harness.at("a.json")).unwrap();
    harness.clock.set_wall(touched(&harness.at("a.json")));
    let names = ["a.json", "gone.json", "../komoju.db", "receipts"].map(str::to_owned);
    let summary = harness.spool.take(&names).await.unwrap();
    assert_eq!((summary.taken, summary.intents, summary.skipped), (1, 1, vec![]));
}

#[tokio::test]
async fn drain_waits_for_a_changing_file_unless_it_is_stopped() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    harness.clock.set_wall(touched(&harness.at("a.json")));
    let summary = harness.spool.drain(&CancellationToken::new()).await.unwrap();
    assert_eq!((summary.taken, summary.intents, summary.again_in), (1, 1, None));

    harness.drop_file("b.json", CREATE);
    harness.clock.set_wall(touched(&harness.at("b.json")));
    let stopped = CancellationToken::new();
    stopped.cancel();
    let summary = harness.spool.drain(&stopped).await.unwrap();
    assert_eq!(summary.taken, 0);
    assert!(summary.again_in.is_some() && harness.at("b.json").exists());
}

/// A clock. During its sleeps another program writes to the file.
struct WritingClock {
    clock: ManualClock,
    file: PathBuf,
}

impl Clock for WritingClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        let written = fs::read_to_string(&self.file).unwrap();
        fs::write(&self.file, written + " ").unwrap();
        self.clock.sleep(duration)
    }

    fn boot(&self) -> Option<(String, Duration)> {
        self.clock.boot()
    }
}

#[tokio::test]
async fn drain_ends_while_a_file_keeps_changing() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", CREATE);
    let clock = ManualClock::at(touched(&harness.at("a.json")) - HOUR);
    let clock = Arc::new(WritingClock { clock, file: harness.at("a.json") });
    let settings = SpoolSettings { dir: harness.at(""), enabled: true };
    let spool = Spool::new(Arc::clone(&harness.store), None, Arc::clone(&clock) as Arc<_>, settings);
    drop(harness.spool);
    until_unlocked(&harness.home.path().join("intents"));
    let summary = spool.drain(&CancellationToken::new()).await.unwrap();
    assert_eq!((summary.taken, summary.again_in), (0, Some(Duration::from_secs(1))));
    assert_eq!(clock.elapsed(), Duration::from_secs(11));
    let content = fs::read_to_string(harness.home.path().join("intents/a.json")).unwrap();
    assert_eq!(content, format!("{CREATE}{}", " ".repeat(11)));
}

#[tokio::test]
async fn files_are_taken_in_drop_order() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("z.json", r#"{"op": "create", "id": "n", "body": {"email": "a"}}"#);
    loop {
        harness.drop_file("a.json", r#"{"op": "delete", "id": "d", "customer_id": "@n"}"#);
        if touched(&harness.at("a.json")) > touched(&harness.at("z.json")) {
            break;
        }
    }
    assert_eq!(harness.scan().await.refused, 0);
    assert_eq!(harness.ids(), ["n", "d"]);
}

/// Drops a file with a time later than that of another one.
fn drop_later(harness: &SpoolHarness, name: &str, than: &str, content: &str) {
    loop {
        harness.drop_file(&format!(".{name}"), content);
        fs::rename(harness.at(&format!(".{name}")), harness.at(name)).unwrap();
        if touched(&harness.at(name)) > touched(&harness.at(than)) {
            break;
        }
    }
}

#[tokio::test]
async fn file_renamed_into_place_waits_for_an_older_one_written_in_place() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("old.json", update("old"));
    drop_later(&harness, "new.json", "old.json", &update("new"));
    harness.clock.set_wall(touched(&harness.at("new.json")));
    let summary = harness.spool.take(&["new.json".to_owned()]).await.unwrap();
    assert_eq!((summary.taken, summary.skipped), (0, vec![]));
    let wait = summary.again_in.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    harness.clock.advance(wait);
    harness.scan().await;
    harness.clock.advance(Duration::from_secs(1));
    harness.scan().await;
    assert_eq!(harness.ids(), ["old", "new"]);
}

#[tokio::test]
async fn growing_file_delays_younger_ones_for_ten_seconds() {
    let harness = SpoolHarness::open().await;
    let second = Duration::from_secs(1);
    harness.drop_file("growing.jsonl", "x");
    harness.clock.set_wall(touched(&harness.at("growing.jsonl")) - HOUR);
    harness.scan().await;
    drop_later(&harness, "new.json", "growing.jsonl", &update("new"));
    for elapsed in 1..=10 {
        harness.drop_file("growing.jsonl", "x".repeat(elapsed + 1));
        harness.clock.advance(second);
        let summary = harness.spool.take(&["new.json".to_owned()]).await.unwrap();
        assert_eq!(summary.taken, u64::from(elapsed == 10), "after {elapsed} s");
        assert!(summary.again_in.is_some());
    }
    assert_eq!((harness.ids(), harness.at("growing.jsonl").exists()), (vec!["new".to_owned()], true));
    // The growing file keeps its place: if it is complete within that time, it is taken first.
    let harness = SpoolHarness::open().await;
    harness.drop_file("growing.jsonl", "");
    harness.clock.set_wall(touched(&harness.at("growing.jsonl")) - HOUR);
    harness.scan().await;
    drop_later(&harness, "new.json", "growing.jsonl", &update("new"));
    for _ in 0..3 {
        harness.clock.advance(second);
        harness.drop_file("growing.jsonl", update("grown") + &" ".repeat(harness.ids().len()));
        harness.spool.take(&["new.json".to_owned()]).await.unwrap();
    }
    for _ in 0..2 {
        harness.clock.advance(second);
        harness.scan().await;
    }
    assert_eq!(harness.ids(), ["grown", "new"]);
}

#[tokio::test]
async fn several_growing_files_delay_younger_ones_no_longer_than_one() {
    let harness = SpoolHarness::open().await;
    let second = Duration::from_secs(1);
    let growing = ["growing-1.jsonl", "growing-2.jsonl", "growing-3.jsonl"];
    growing.iter().for_each(|name| harness.drop_file(name, "x"));
    harness.clock.set_wall(touched(&harness.at(growing[2])) - HOUR);
    harness.scan().await;
    drop_later(&harness, "new.json", growing[2], &update("new"));
    for elapsed in 1..=10 {
        growing.iter().for_each(|name| harness.drop_file(name, "x".repeat(elapsed + 1)));
        harness.clock.advance(second);
        let summary = harness.spool.take(&["new.json".to_owned()]).await.unwrap();
        assert_eq!(summary.taken, u64::from(elapsed == 10), "after {elapsed} s");
    }
    assert_eq!(harness.ids(), ["new"]);
}

/// A clock that appends to the file at each reading, as another program does between the listing
/// and the taking.
struct AppendingClock {
    clock: ManualClock,
    file: PathBuf,
}

impl Clock for AppendingClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        let mut file = fs::File::options().append(true).open(&self.file).unwrap();
        std::io::Write::write_all(&mut file, b"x").unwrap();
        self.clock.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.clock.sleep(duration)
    }

    fn boot(&self) -> Option<(String, Duration)> {
        self.clock.boot()
    }
}

#[tokio::test]
async fn file_that_changes_in_each_scan_delays_younger_ones_for_ten_seconds() {
    for is_claimed in [false, true] {
        let harness = SpoolHarness::open().await;
        let path = match is_claimed {
            false => "growing.jsonl",
            true => ".claimed/000000000001.000000000.00000001/growing.jsonl",
        };
        if is_claimed {
            harness.claim_by_hand("000000000001.000000000.00000001", "growing.jsonl", "x");
        } else {
            harness.drop_file(path, "x");
        }
        drop_later(&harness, "new.json", path, &update("new"));
        let clock = ManualClock::at(touched(&harness.at("new.json")) + HOUR);
        let clock = Arc::new(AppendingClock { clock, file: harness.at(path) });
        let settings = SpoolSettings { dir: harness.at(""), enabled: true };
        let spool = Spool::new(Arc::clone(&harness.store), None, Arc::clone(&clock) as Arc<_>, settings);
        let SpoolHarness { home, spool: first, .. } = harness;
        drop(first);
        until_unlocked(&home.path().join("intents"));
        for elapsed in 0..=12 {
            let summary = spool.scan().await.unwrap();
            assert_eq!(summary.taken, u64::from(elapsed == 10), "after {elapsed} s");
            assert_eq!((summary.again_in, summary.skipped), (Some(Duration::from_secs(1)), vec![]));
            clock.clock.advance(Duration::from_secs(1));
        }
        assert!(home.path().join("intents").join(path).exists());
    }
}
