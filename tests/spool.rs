//! The spool door: files become intents once, or are refused in words; nothing is lost and no secret is left.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "spool/claims.rs"]
mod claims;
#[path = "spool/masses.rs"]
mod masses;
#[path = "spool/order.rs"]
mod order;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Once};
use std::time::Duration;

use jiff::Timestamp;
use komoju_sync::clock::{Clock, ManualClock, Sleep, TrustedClock};
use komoju_sync::store::Store;
use komoju_sync::store::outbox::engine;
use komoju_sync::store::outbox::operator;
use komoju_sync::tasks::spool::{Looked, Spool, SpoolSettings, waiting_files};
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CREATE: &str = r#"{"op": "create", "body": {"email": "a@example.jp"}}"#;

struct Desk {
    home: TempDir,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    spool: Spool,
}

impl Desk {
    /// A door whose clock is an hour ahead: every file has been still.
    async fn open() -> Self {
        let desk = Self::with(true);
        assert_eq!(desk.scan().await, Looked::default(), "the directory is made");
        desk
    }

    fn with(enabled: bool) -> Self {
        start_log();
        let home = TempDir::new().unwrap();
        let store = Arc::new(Store::open(&home.path().join("komoju.db")).unwrap());
        let clock = Arc::new(ManualClock::at(touched(home.path()) + HOUR));
        let spool = door(&home, &store, &clock, enabled);
        Self { home, store, clock, spool }
    }

    /// What a restart forgets is forgotten.
    fn restart(&mut self) {
        self.spool = door(&self.home, &self.store, &self.clock, true);
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join("intents").join(path)
    }

    fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn receipt(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(&format!("receipts/{name}.json"))).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if path.is_empty() {
            assert_eq!(names.remove(0), ".claimed");
        }
        names
    }

    /// The files whose acceptance has begun.
    fn claimed(&self) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.at(".claimed")).unwrap().map(|entry| entry.unwrap().path());
        let files =
            directories.flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        files.collect()
    }

    async fn scan(&self) -> Looked {
        self.spool.scan().await.unwrap()
    }

    fn sql(&self) -> Connection {
        Connection::open(self.home.path().join("komoju.db")).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let sql = self.sql();
        let mut ids = sql.prepare("SELECT id FROM intents ORDER BY position").unwrap();
        ids.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    async fn cancel(&self, id: &str) {
        let (id, at) = (id.to_owned(), komoju_core::time::written(self.clock.now()));
        self.store.write(move |tx| operator::cancel(tx, &id, &at, "tok_leaked")).await.unwrap();
    }

    /// Why the file was left; it must have been.
    fn why(looked: &Looked, name: &str) -> String {
        let left = looked.left.iter().find(|left| left.name == name);
        left.unwrap_or_else(|| panic!("{name} is not in {looked:?}")).why.clone()
    }
}

thread_local! {
    /// What this thread has logged since its test began.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what a thread logs for the test that it runs.
struct ThreadLog;

impl std::io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A thread that is ending has no log any more.
        let _ = LOGGED.try_with(|logged| logged.borrow_mut().extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts this thread's log. One subscriber serves the process, and is there before any test logs: a log statement that one
/// thread reaches for the first time while another thread adds a subscriber can stay switched off for good.
fn start_log() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| ThreadLog).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    LOGGED.take();
}

/// What this thread has logged.
fn logged() -> String {
    LOGGED.with(|logged| String::from_utf8(logged.borrow().clone()).unwrap())
}

fn door(home: &TempDir, store: &Arc<Store>, clock: &Arc<ManualClock>, enabled: bool) -> Spool {
    let settings = SpoolSettings { dir: home.path().join("intents"), enabled };
    Spool::new(Arc::clone(store), None, Arc::clone(clock) as Arc<_>, settings)
}

fn touched(path: &Path) -> Timestamp {
    let file = fs::metadata(path).unwrap();
    Timestamp::new(file.ctime(), i32::try_from(file.ctime_nsec()).unwrap()).unwrap()
}

fn digest(content: &str) -> String {
    Sha256::digest(content).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether any file below holds this text.
fn holds(path: &Path, text: &str) -> bool {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn the_directories_are_made_with_their_modes() {
    let desk = Desk::open().await;
    let mode = |path: &str| fs::metadata(desk.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("receipts"), mode("rejected")), (0o3770, 0o750, 0o750));
    assert_eq!(mode(".claimed"), 0o700);
    fs::set_permissions(desk.at(""), fs::Permissions::from_mode(0o3770)).unwrap();
    desk.scan().await;
    assert_eq!(mode(""), 0o3770, "one that is there stays as it is");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told_and_ends_nothing() {
    let desk = Desk::with(true);
    fs::write(desk.home.path().join("intents"), "a file is in the way").unwrap();
    let looked = desk.scan().await;
    let why = &looked.left[0].why;
    assert!(why.contains("outbound.spool_dir") && why.contains("put a directory there"), "{why}");
    assert_eq!(desk.spool.left(), looked.left);
    fs::remove_file(desk.home.path().join("intents")).unwrap();
    assert_eq!(desk.scan().await.left, []);
    assert_eq!(desk.spool.left(), [], "what is repaired is forgotten");
}

#[tokio::test]
async fn receipts_do_not_follow_a_link_elsewhere() {
    let desk = Desk::with(true);
    fs::create_dir(desk.at("")).unwrap();
    fs::create_dir(desk.home.path().join("elsewhere")).unwrap();
    symlink(desk.home.path().join("elsewhere"), desk.at("receipts")).unwrap();
    desk.drop_file("a.json", CREATE);
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.left.len()), (0, 1));
    assert!(desk.at("a.json").exists());
}

#[tokio::test]
async fn an_id_that_nobody_chose_is_made_of_name_content_and_line() {
    let desk = Desk::open().await;
    desk.drop_file("one.json", CREATE);
    let lines = format!("{CREATE}\n\n{CREATE}\r\n");
    desk.drop_file("a.b.jsonl", &lines);
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.intents, looked.refused), (2, 3, 0), "{looked:?}");
    let mut ids = desk.ids();
    ids.sort();
    let of_lines = digest(&lines);
    assert_eq!(
        ids,
        [format!("a.b@{of_lines}:1"), format!("a.b@{of_lines}:3"), format!("one@{}", digest(CREATE))]
    );
    assert_eq!(desk.names(""), ["receipts", "rejected"]);
    let by: (String, String) = desk
        .sql()
        .query_row("SELECT door, submitted_by FROM intents LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let uid = fs::metadata(desk.at("")).unwrap().uid();
    let owner = if uid == 0 { "root".to_owned() } else { by.1.clone() };
    assert_eq!(by, ("file".to_owned(), owner));
}

#[tokio::test]
async fn a_receipt_tells_of_each_intent_and_is_written_anew_when_the_last_settles() {
    let desk = Desk::open().await;
    let lines = [
        r#"{"op": "create", "id": "n1", "body": {"payment_details": "tok_secret1"}}"#,
        "",
        r#"{"op": "update", "id": "u1", "customer_id": "@n1", "body": {"email": null}}"#,
        r#"{"op": "delete", "id": "d1", "customer_id": "c9"}"#,
    ];
    desk.drop_file("a.jsonl", lines.join("\n"));
    assert_eq!(desk.scan().await.intents, 3);
    let entry = |line: u64, id: &str, state: &str, customer: Value, reason: Value| json!({"line": line, "id": id, "state": state, "customer": customer, "reason": reason});
    let receipt = desk.receipt("a.jsonl");
    assert_eq!(receipt["file"], "a.jsonl");
    assert_eq!(receipt["taken_at"], komoju_core::time::written(desk.clock.now()));
    assert_eq!(
        receipt["intents"],
        json!([
            entry(1, "n1", "queued", Value::Null, Value::Null),
            entry(3, "u1", "queued", json!("@n1"), Value::Null),
            entry(4, "d1", "queued", json!("c9"), Value::Null),
        ])
    );
    let mode = fs::metadata(desk.at("receipts/a.jsonl.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);

    desk.cancel("d1").await;
    desk.cancel("n1").await;
    desk.store.write(engine::park_orphans).await.unwrap();
    desk.spool.tend_receipts().await.unwrap();
    assert_eq!(desk.receipt("a.jsonl"), receipt, "one is parked: that is not settled");
    desk.cancel("u1").await;
    desk.spool.tend_receipts().await.unwrap();
    let cancelled = |line, id, customer| entry(line, id, "cancelled", customer, json!("cancelled by ****"));
    assert_eq!(
        desk.receipt("a.jsonl")["intents"],
        json!([
            cancelled(1, "n1", Value::Null),
            cancelled(3, "u1", json!("@n1")),
            cancelled(4, "d1", json!("c9"))
        ])
    );
    assert!(!holds(&desk.at(""), "tok_"), "no token is left");
    fs::remove_file(desk.at("receipts/a.jsonl.json")).unwrap();
    desk.spool.tend_receipts().await.unwrap();
    assert_eq!(desk.names("receipts"), [""; 0], "it is written once");
}

#[tokio::test]
async fn receipts_are_kept_for_thirty_days_after_all_is_settled() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", r#"{"op": "create", "id": "a", "body": {"email": "a"}}"#);
    desk.scan().await;
    desk.clock.advance(40 * DAY);
    desk.spool.tend_receipts().await.unwrap();
    assert_eq!(desk.names("receipts"), ["a.json.json"], "it is not settled");
    desk.cancel("a").await;
    desk.clock.advance(29 * DAY);
    desk.spool.tend_receipts().await.unwrap();
    assert_eq!(desk.names("receipts"), ["a.json.json"]);
    desk.clock.advance(2 * DAY);
    desk.spool.tend_receipts().await.unwrap();
    assert_eq!(desk.names("receipts"), [""; 0]);
    let rows: i64 = desk
        .sql()
        .query_row(
            "SELECT (SELECT count(*) FROM spool_file) + (SELECT count(*) FROM spool_intent)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!((rows, desk.ids()), (0, vec!["a".to_owned()]), "the intent stays");
}

#[tokio::test]
async fn refused_file_is_removed_with_its_error_after_thirty_days() {
    let desk = Desk::open().await;
    for name in ["a.json", "b.json", "c.json", "d.json"] {
        desk.drop_file(name, "{");
    }
    assert_eq!(desk.scan().await.refused, 4);
    // As an operator leaves them, a crash between the two removals, and a program that makes a link.
    fs::remove_file(desk.at("rejected/b.json.error")).unwrap();
    fs::remove_file(desk.at("rejected/c.json")).unwrap();
    fs::remove_file(desk.at("rejected/d.json")).unwrap();
    symlink(desk.at("rejected/a.json"), desk.at("rejected/d.json")).unwrap();
    let all = desk.names("rejected");
    assert_eq!(all, ["a.json", "a.json.error", "b.json", "c.json.error", "d.json", "d.json.error"]);

    desk.clock.advance(29 * DAY);
    desk.spool.expire_rejected().await.unwrap();
    assert_eq!(desk.names("rejected"), all);
    desk.clock.advance(2 * DAY);
    desk.spool.expire_rejected().await.unwrap();
    assert_eq!(desk.names("rejected"), ["b.json", "d.json", "d.json.error"]);
}

#[tokio::test]
async fn refused_file_of_another_owner_is_kept() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", "{");
    desk.drop_file("b.json", "{");
    assert_eq!(desk.scan().await.refused, 2);
    let chown = |name: &str| std::os::unix::fs::chown(desk.at(name), Some(4711), None);
    if chown("rejected/a.json").is_err() {
        // Only root may give a file away.
        return;
    }
    chown("rejected/b.json.error").unwrap();
    desk.clock.advance(31 * DAY);
    desk.spool.expire_rejected().await.unwrap();
    assert_eq!(desk.names("rejected"), ["a.json", "a.json.error", "b.json", "b.json.error"]);
}

#[tokio::test]
async fn refused_file_is_kept_for_thirty_days_after_it_was_last_refused() {
    let desk = Desk::open().await;
    for _ in 0..2 {
        desk.drop_file("a.json", "{");
        assert_eq!(desk.scan().await.refused, 1);
        desk.clock.advance(29 * DAY);
        desk.spool.expire_rejected().await.unwrap();
        assert_eq!(desk.names("rejected"), ["a.json", "a.json.error"]);
    }
}

#[tokio::test]
async fn refused_file_is_kept_while_the_clock_is_not_trusted() {
    let mut desk = Desk::open().await;
    desk.drop_file("a.json", "{");
    assert_eq!(desk.scan().await.refused, 1);
    desk.clock.advance(31 * DAY);
    let trusted = TrustedClock::over(Arc::clone(&desk.clock) as Arc<_>, None);
    let settings = SpoolSettings { dir: desk.at(""), enabled: true };
    desk.spool = Spool::new(Arc::clone(&desk.store), None, trusted, settings);
    desk.scan().await;
    desk.spool.expire_rejected().await.unwrap();
    assert_eq!(desk.names("rejected"), ["a.json", "a.json.error"]);
    // The trusted clock has followed the machine's for long enough.
    desk.clock.advance(HOUR);
    desk.spool.expire_rejected().await.unwrap();
    assert_eq!(desk.names("rejected"), [""; 0]);
}

#[tokio::test]
async fn refused_files_are_kept_while_no_file_is_taken() {
    let desk = Desk::with(false);
    desk.spool.expire_rejected().await.unwrap();
    assert!(!desk.at("").exists(), "nothing is created");
}

#[tokio::test]
async fn an_intent_that_is_tried_again_is_on_its_receipt_again_when_it_settles() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", r#"{"op": "create", "id": "a", "body": {"email": "a"}}"#);
    desk.scan().await;
    let reject = |reason: &'static str| {
        desk.store.write(move |tx| {
            tx.execute("UPDATE intents SET state = 'sending'", [])?;
            tx.execute("UPDATE intents SET state = 'rejected', reason = ?1", [reason])?;
            Ok(())
        })
    };
    for reason in ["first", "second"] {
        reject(reason).await.unwrap();
        desk.spool.tend_receipts().await.unwrap();
        assert_eq!(desk.receipt("a.json")["intents"][0]["reason"], reason);
        desk.store.write(|tx| operator::retry(tx, "a", None)).await.unwrap();
    }
}

#[tokio::test]
async fn the_same_file_twice_is_one_and_another_content_is_another() {
    let desk = Desk::open().await;
    for expected in [1, 0] {
        desk.drop_file("a.json", CREATE);
        let looked = desk.scan().await;
        assert_eq!((looked.taken, looked.intents), (1, expected));
        assert_eq!(desk.names(""), ["receipts", "rejected"]);
    }
    desk.drop_file("a.json", format!("{CREATE} "));
    assert_eq!(desk.scan().await.intents, 1);
    assert_eq!(desk.ids().len(), 2);
    assert_eq!(desk.receipt("a.json")["intents"][0]["id"], desk.ids()[1], "the name is used again");
}

#[tokio::test]
async fn a_used_id_with_another_content_is_refused() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", r#"{"op": "create", "id": "x", "body": {"email": "a"}}"#);
    desk.scan().await;
    desk.drop_file("b.json", r#"{"op": "delete", "id": "x", "customer_id": "c"}"#);
    assert_eq!(desk.scan().await.refused, 1);
    let told = desk.read("rejected/b.json.error");
    assert!(told.contains("id: x was used before, for another intent; choose another id"), "{told}");
    assert_eq!(desk.ids(), ["x"]);
}

#[tokio::test]
async fn of_lines_all_are_accepted_or_none_and_each_bad_one_is_told() {
    let desk = Desk::open().await;
    desk.drop_file("x.json", r#"{"op": "create", "id": "x", "body": {"email": "a"}}"#);
    desk.scan().await;
    let lines = [
        r#"{"op": "create", "id": "fine", "body": {"email": "a"}}"#,
        r#"{"op": "destroy"}"#,
        "",
        r#"{"op": "update", "customer_id": "@fine", "body": {"email": 7}}"#,
        r#"{"op": "delete", "id": "x", "customer_id": "c"}"#,
        r#"{"op": "delete", "customer_id": "@made-by-a-bad-line"}"#,
        r#"{"op": "create",}"#,
    ];
    desk.drop_file("a.jsonl", lines.join("\n"));
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.intents, looked.refused), (0, 0, 1));
    assert_eq!(desk.ids(), ["x"]);
    let told = desk.read("rejected/a.jsonl.error");
    let bad: Vec<&str> = told.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(
        bad,
        [
            "line 2: op: must be create, update or delete",
            "line 4: body.email: must be a text or null",
            "line 5: id: x was used before, for another intent; choose another id, or leave it out",
            "line 7: the intent: must be JSON, and has a trailing comma at column 16",
        ]
    );
    assert!(told.starts_with("a.jsonl was refused, and nothing of it was accepted:\n"), "{told}");
    assert_eq!(desk.read("rejected/a.jsonl"), lines.join("\n"), "byte for byte");
    assert_eq!(desk.names(""), ["receipts", "rejected"]);
}

#[tokio::test]
async fn a_reference_to_nobody_is_refused() {
    let desk = Desk::open().await;
    desk.drop_file(
        "a.jsonl",
        "{\"op\": \"delete\", \"customer_id\": \"@later\"}\n{\"op\": \"create\", \"id\": \"later\", \"body\": {\"email\": \"a\"}}",
    );
    assert_eq!(desk.scan().await.refused, 1);
    let told = desk.read("rejected/a.jsonl.error");
    assert!(
        told.contains("line 1: customer_id: must be @ and the id of a create that was accepted before"),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_no_intent_is_refused_in_words() {
    let desk = Desk::open().await;
    let long = format!("{}.json", "n".repeat(250));
    let cases: [(&str, &[u8], &str); 7] = [
        ("empty.jsonl", b"\n \n", "there is no intent in it"),
        ("empty.json", b"", "the intent: is empty"),
        ("bom.json", "\u{feff}{\"op\": \"create\"}".as_bytes(), "byte order mark"),
        ("latin.json", b"{\"op\": \"cr\xe9ate\"}", "must be UTF-8, and is not from byte 11 on"),
        ("new\nline.json", CREATE.as_bytes(), "id: must have 1 to 255 bytes, no control characters"),
        ("@a.json", CREATE.as_bytes(), "it was made of the file's name: give the file another name"),
        (
            &long,
            b"{\"op\": \"create\", \"id\": \"fine\", \"body\": {\"email\": \"a\"}}",
            "the file's name: must have at most 250 bytes",
        ),
    ];
    for (name, content, why) in cases {
        desk.drop_file(name, content);
        let looked = desk.scan().await;
        assert_eq!((looked.taken, looked.refused, looked.left), (0, 1, vec![]), "{name:?}");
        let error = desk.names("rejected").into_iter().find(|name| name.ends_with(".error")).unwrap();
        let told = desk.read(&format!("rejected/{error}"));
        assert!(told.contains(why), "{name:?}: {told}");
        let copy = desk.at("rejected").join(error.trim_end_matches(".error"));
        assert_eq!(fs::read(&copy).unwrap(), content, "{name:?}");
        fs::remove_file(copy).unwrap();
        fs::remove_file(desk.at("rejected").join(error)).unwrap();
    }
    assert_eq!(desk.ids(), [""; 0]);
    desk.drop_file("new\nline.json", r#"{"op": "create", "id": "chosen", "body": {"email": "a"}}"#);
    assert_eq!(desk.scan().await.intents, 1, "with an id of its own the name does not matter");
}

#[tokio::test]
async fn a_refused_file_is_kept_without_its_secrets() {
    let desk = Desk::open().await;
    let refused = r#"{"op" : "create", "body": {"payment_details": "abc123", "email": "tok_secret",
        "metadata": {"note": "4111 1111 1111 1111"}, "extra": 1.50}}"#;
    desk.drop_file("a.json", refused);
    assert_eq!(desk.scan().await.refused, 1);
    let kept = refused
        .replace("abc123", "****")
        .replace("tok_secret", "****")
        .replace("4111 1111 1111 1111", "****");
    assert_eq!(desk.read("rejected/a.json"), kept);
    let card = r#"{"op": "create", "body": {"payment_details": {"type": "credit_card", "number": "41", "cvc": 123}}}"#;
    desk.drop_file("a.json", card);
    assert_eq!(desk.scan().await.refused, 1);
    let kept =
        r#"{"op": "create", "body": {"payment_details": {"type": "****", "number": "****", "cvc": ****}}}"#;
    assert_eq!(desk.read("rejected/a.2.json"), kept, "a number is added where the name is taken");
    let told = desk.read("rejected/a.2.json.error");
    assert!(told.contains("body.payment_details: must be a payment token"), "{told}");
    desk.drop_file("a.json", r#"{"tok_secret": 1}"#);
    desk.scan().await;
    assert_eq!(
        desk.names("rejected"),
        ["a.2.json", "a.2.json.error", "a.3.json", "a.3.json.error", "a.json", "a.json.error"]
    );
    for secret in ["tok_secret", "abc123", "4111", "123"] {
        assert!(!holds(&desk.at(""), secret), "{secret}");
    }
    let mode = fs::metadata(desk.at("rejected/a.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
}

#[tokio::test]
async fn what_begins_with_a_dot_is_left_alone() {
    let desk = Desk::open().await;
    desk.drop_file(".a.json", CREATE);
    assert_eq!(desk.scan().await, Looked::default());
    assert_eq!(desk.spool.take(&[".a.json".to_owned()]).await.unwrap(), Looked::default());
    assert_eq!(desk.read(".a.json"), CREATE);
    assert_eq!(waiting_files(&desk.at("")), [""; 0]);
}

#[tokio::test]
async fn what_is_no_plain_file_of_its_own_is_told_and_stays() {
    let desk = Desk::open().await;
    let outside = desk.home.path().join("outside.json");
    fs::write(&outside, CREATE).unwrap();
    symlink(&outside, desk.at("link.json")).unwrap();
    fs::hard_link(&outside, desk.at("hard.json")).unwrap();
    fs::create_dir(desk.at("folder.json")).unwrap();
    assert!(Command::new("mkfifo").arg(desk.at("pipe.json")).status().unwrap().success());
    fs::File::create(desk.at("huge.json")).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    desk.drop_file("notes.txt", "not for you");
    let cases = [
        ("folder.json", "is a directory: put its files here"),
        ("hard.json", "has more than one link"),
        ("huge.json", "has more than 16 MiB: split it"),
        ("link.json", "is a symbolic link"),
        ("notes.txt", "must end in .json (one intent) or .jsonl (one a line): rename it"),
        ("pipe.json", "is a pipe"),
    ];
    let names: Vec<String> = cases.iter().map(|(name, _)| (*name).to_owned()).collect();
    for looked in [desk.scan().await, desk.spool.take(&names).await.unwrap()] {
        assert_eq!((looked.taken, looked.refused, looked.left.len()), (0, 0, cases.len()), "{looked:?}");
        for (name, why) in cases {
            assert!(Desk::why(&looked, name).starts_with(why), "{name}: {looked:?}");
        }
    }
    assert_eq!(waiting_files(&desk.at("")), names);
    assert_eq!(desk.spool.left().len(), cases.len());
    assert_eq!(desk.read("notes.txt"), "not for you");
    assert_eq!(fs::read_to_string(&outside).unwrap(), CREATE);
    assert_eq!(desk.ids(), [""; 0]);
    fs::remove_file(desk.at("notes.txt")).unwrap();
    fs::remove_file(&outside).unwrap();
    let looked = desk.scan().await;
    assert_eq!(looked.taken, 1, "the other link is gone: now it is a file of its own");
    assert_eq!(desk.spool.left().len(), cases.len() - 2);
}

#[tokio::test]
async fn the_largest_file_is_taken() {
    let desk = Desk::open().await;
    let mut content = CREATE.to_owned();
    content.push_str(&" ".repeat(16 * 1024 * 1024 - content.len()));
    desk.drop_file("a.json", content);
    assert_eq!(desk.scan().await.taken, 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_the_way_out() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    fs::set_permissions(desk.at("a.json"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(desk.at("a.json")).is_ok() {
        // Root reads everything; the sentence itself has a test beside it.
        return;
    }
    let why = Desk::why(&desk.scan().await, "a.json");
    assert!(why.contains("cannot be read by this program") && why.contains("chmod g+r"), "{why}");
    fs::set_permissions(desk.at("a.json"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(desk.scan().await.taken, 1);
    assert_eq!(desk.spool.left(), []);
}

#[tokio::test]
async fn a_name_that_is_no_text_is_told() {
    use std::os::unix::ffi::OsStrExt as _;
    let desk = Desk::open().await;
    let name = desk.at("").join(std::ffi::OsStr::from_bytes(b"a\xff.json"));
    fs::write(&name, CREATE).unwrap();
    let looked = desk.scan().await;
    assert!(Desk::why(&looked, "a\u{fffd}.json").contains("not UTF-8"));
    assert!(name.exists());
}

#[tokio::test]
async fn a_file_is_taken_once_it_was_still_for_a_second() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    let touched = touched(&desk.at("a.json"));
    // Written long ago and put here just now: that counts.
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(desk.at("a.json")).unwrap().set_times(old).unwrap();
    let changed = self::touched(&desk.at("a.json"));
    assert!(changed >= touched);
    desk.clock.set_wall(changed + Duration::from_millis(400));
    let looked = desk.scan().await;
    assert_eq!(looked, Looked { again_in: Some(Duration::from_millis(600)), ..Looked::default() });
    desk.clock.advance(Duration::from_millis(599));
    assert_eq!(desk.scan().await.again_in, Some(Duration::from_millis(1)));
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(desk.scan().await.taken, 1);
}

#[tokio::test]
async fn a_file_of_the_future_is_taken_once_it_was_seen_still() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    desk.clock.set_wall(touched(&desk.at("a.json")) - HOUR);
    assert_eq!(desk.scan().await.again_in, Some(Duration::from_secs(1)));
    desk.clock.advance(Duration::from_secs(1));
    assert_eq!(desk.scan().await.taken, 1);
}

#[tokio::test]
async fn what_was_renamed_into_place_is_taken_at_once() {
    let desk = Desk::open().await;
    desk.drop_file(".a", CREATE);
    fs::rename(desk.at(".a"), desk.at("a.json")).unwrap();
    desk.clock.set_wall(touched(&desk.at("a.json")));
    let names = ["a.json", "gone.json", "../komoju.db", "receipts"].map(str::to_owned);
    let looked = desk.spool.take(&names).await.unwrap();
    assert_eq!((looked.taken, looked.intents, looked.left), (1, 1, vec![]));
}

#[tokio::test]
async fn a_drain_waits_for_what_is_not_still_yet_and_not_for_ever() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    desk.clock.set_wall(touched(&desk.at("a.json")));
    let looked = desk.spool.drain(&CancellationToken::new()).await.unwrap();
    assert_eq!((looked.taken, looked.intents, looked.again_in), (1, 1, None));

    desk.drop_file("b.json", CREATE);
    desk.clock.set_wall(touched(&desk.at("b.json")));
    let stopped = CancellationToken::new();
    stopped.cancel();
    let looked = desk.spool.drain(&stopped).await.unwrap();
    assert_eq!(looked.taken, 0);
    assert!(looked.again_in.is_some() && desk.at("b.json").exists());
}

/// A clock at whose every sleep somebody writes to the file.
struct Scribbling {
    clock: ManualClock,
    file: PathBuf,
}

impl Clock for Scribbling {
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
async fn a_drain_does_not_wait_for_ever() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    let clock = ManualClock::at(touched(&desk.at("a.json")) - HOUR);
    let clock = Arc::new(Scribbling { clock, file: desk.at("a.json") });
    let settings = SpoolSettings { dir: desk.at(""), enabled: true };
    let spool = Spool::new(Arc::clone(&desk.store), None, Arc::clone(&clock) as Arc<_>, settings);
    drop(desk.spool);
    let looked = spool.drain(&CancellationToken::new()).await.unwrap();
    assert_eq!((looked.taken, looked.again_in), (0, Some(Duration::from_secs(1))));
    assert_eq!(clock.elapsed(), Duration::from_secs(11));
    let content = fs::read_to_string(desk.home.path().join("intents/a.json")).unwrap();
    assert_eq!(content, format!("{CREATE}{}", " ".repeat(11)));
}

#[tokio::test]
async fn what_stays_is_told_once_until_it_goes() {
    let desk = Desk::open().await;
    let told = || logged().matches("is left where it is").count();
    desk.drop_file("notes.txt", "not for you");
    for _ in 0..3 {
        assert_eq!(desk.scan().await.left.len(), 1);
        assert_eq!(told(), 1);
    }
    fs::remove_file(desk.at("notes.txt")).unwrap();
    assert_eq!(desk.scan().await.left, []);
    desk.drop_file("notes.txt", "once more");
    desk.scan().await;
    assert_eq!(told(), 2);
    desk.drop_file(
        "a.json",
        r#"{"op": "create", "body": {"payment_details": ["tok_secret"]}, "tok_secret": 1}"#,
    );
    desk.scan().await;
    let log = logged();
    assert!(log.contains(" was refused: ") && !log.contains("tok_secret"), "{log}");
}

#[tokio::test]
async fn files_are_taken_in_the_order_in_which_they_were_dropped() {
    let desk = Desk::open().await;
    desk.drop_file("z.json", r#"{"op": "create", "id": "n", "body": {"email": "a"}}"#);
    loop {
        desk.drop_file("a.json", r#"{"op": "delete", "id": "d", "customer_id": "@n"}"#);
        if touched(&desk.at("a.json")) > touched(&desk.at("z.json")) {
            break;
        }
    }
    assert_eq!(desk.scan().await.refused, 0);
    assert_eq!(desk.ids(), ["n", "d"]);
}

#[tokio::test]
async fn while_pushing_is_switched_off_everything_stays() {
    let desk = Desk::with(false);
    assert_eq!(desk.scan().await, Looked::default());
    fs::create_dir(desk.at("")).unwrap();
    desk.drop_file("a.json", CREATE);
    desk.drop_file("b.json", "{");
    for looked in
        [desk.scan().await, desk.spool.take(&["a.json".to_owned(), "b.json".to_owned()]).await.unwrap()]
    {
        assert_eq!((looked.taken, looked.refused, looked.left.len()), (0, 0, 2));
        assert!(Desk::why(&looked, "a.json").contains("pushing is switched off (outbound.enabled = false)"));
    }
    assert_eq!(waiting_files(&desk.at("")), ["a.json", "b.json"]);

    // The database says so too, until it is told otherwise.
    let desk = Desk::open().await;
    desk.store.write(|tx| engine::set_enabled(tx, false)).await.unwrap();
    desk.drop_file("a.json", CREATE);
    assert!(Desk::why(&desk.scan().await, "a.json").contains("switched off"));
    desk.store.write(|tx| engine::set_enabled(tx, true)).await.unwrap();
    assert_eq!(desk.scan().await.taken, 1);
}

#[tokio::test]
async fn a_receipt_that_cannot_be_written_keeps_the_file_until_it_can() {
    let desk = Desk::open().await;
    fs::create_dir_all(desk.at("receipts/a.json.json/in the way")).unwrap();
    desk.drop_file("a.json", CREATE);
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.intents), (1, 1), "what is committed is committed");
    let why = Desk::why(&looked, "a.json");
    assert!(why.starts_with("its intents were accepted, but its receipt cannot be written"), "{why}");
    assert_eq!(desk.claimed().len(), 1);
    fs::remove_dir_all(desk.at("receipts/a.json.json")).unwrap();
    let looked = desk.scan().await;
    assert_eq!((looked.intents, looked.left), (0, vec![]));
    assert_eq!(desk.ids().len(), 1);
    assert!(desk.claimed().is_empty() && desk.at("receipts/a.json.json").exists());
    assert!(desk.receipt("a.json").get("note").is_none(), "it is no repetition");
    assert_eq!(desk.spool.left(), []);
}

#[tokio::test]
async fn a_copy_that_cannot_be_explained_is_not_left_behind_and_the_file_stays() {
    let desk = Desk::open().await;
    let temporary = format!(".tmp-{}", &digest16("a.json.error"));
    fs::create_dir_all(desk.at("rejected").join(&temporary)).unwrap();
    desk.drop_file("a.json", "{");
    for _ in 0..2 {
        let looked = desk.scan().await;
        assert_eq!(looked.refused, 0);
        let why = Desk::why(&looked, "a.json");
        assert!(why.contains("must be JSON") && why.contains("cannot be copied to rejected/"), "{why}");
        assert_eq!(desk.names("rejected"), std::slice::from_ref(&temporary));
        assert_eq!(fs::read(&desk.claimed()[0]).unwrap(), b"{");
    }
    fs::remove_dir(desk.at("rejected").join(&temporary)).unwrap();
    assert_eq!(desk.scan().await.refused, 1);
    assert_eq!(desk.names("rejected"), ["a.json", "a.json.error"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_claimed_stays_and_is_taken_later() {
    let desk = Desk::open().await;
    desk.drop_file("a.json", CREATE);
    desk.drop_file("b.json", "{");
    let mode = |mode| fs::set_permissions(desk.at(""), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    if fs::write(desk.at("probe.json"), CREATE).is_ok() {
        // Root may rename everything.
        return;
    }
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.refused, looked.left.len()), (0, 0, 2));
    let why = Desk::why(&looked, "a.json");
    assert!(why.contains("cannot be moved to .claimed/") && why.contains("chown"), "{why}");
    mode(0o3770);
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.refused, looked.left), (1, 1, vec![]));
}

fn digest16(name: &str) -> String {
    Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_file_of_many_lines_is_taken_whole() {
    let desk = Desk::open().await;
    let count = 5_000;
    let lines: String = (0..count)
        .map(|n| format!("{{\"op\":\"create\",\"body\":{{\"email\":\"a{n}@example.jp\"}}}}\n"))
        .collect();
    desk.drop_file("a.jsonl", lines);
    let looked = desk.scan().await;
    assert_eq!((looked.taken, looked.intents), (1, count));
    desk.spool.tend_receipts().await.unwrap();
}

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(CREATE.as_bytes().to_vec()),
        Just(br#"{"op":"delete","customer_id":"c"}"#.to_vec()),
        Just(br#"{"op":"create","id":"same","body":{"email":"a"}}"#.to_vec()),
        Just(Vec::new()),
        "[ -~]{0,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(line, 0..5).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_file_is_taken_or_refused_and_nothing_of_it_is_lost(
        content in any_content(),
        extension in prop::sample::select(vec!["json", "jsonl"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::open().await;
            let name = format!("a.{extension}");
            desk.drop_file(&name, &content);
            let looked = desk.scan().await;
            assert_eq!(looked.taken + looked.refused, 1);
            assert!(looked.left.is_empty() && !desk.at(&name).exists());
            assert_eq!(desk.ids().len() as u64, looked.intents);
            if looked.taken == 1 {
                assert!(looked.intents > 0);
                let on_receipt = desk.receipt(&name)["intents"].as_array().unwrap().len();
                assert!(on_receipt as u64 >= looked.intents);
            } else {
                assert_eq!(looked.intents, 0);
                let kept = fs::read(desk.at("rejected").join(&name)).unwrap();
                // Short random text holds no secret but by a miracle.
                assert_eq!(kept, content);
                assert!(desk.read(&format!("rejected/{name}.error")).lines().count() >= 3);
            }
        });
    }
}
