//! Refused files, their `.error` files, and how long both are kept.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use komoju_sync::clock::TrustedClock;
use komoju_sync::tasks::spool::{Spool, SpoolSettings};
use sha2::{Digest as _, Sha256};

use super::{CREATE, DAY, HOUR, SpoolHarness, holds, refused, until_unlocked};

#[tokio::test]
async fn refused_file_is_removed_with_its_error_after_thirty_days() {
    let harness = SpoolHarness::open().await;
    for name in ["a.json", "b.json", "c.json", "d.json"] {
        harness.drop_file(name, "{");
    }
    assert_eq!(harness.scan().await.refused, 4);
    // A file that an operator removed, a crash between the two removals, and a link that another
    // program made.
    fs::remove_file(harness.at("rejected/b.json.error")).unwrap();
    fs::remove_file(harness.at("rejected/c.json")).unwrap();
    fs::remove_file(harness.at("rejected/d.json")).unwrap();
    symlink(harness.at("rejected/a.json"), harness.at("rejected/d.json")).unwrap();
    let all = harness.names("rejected");
    assert_eq!(all, ["a.json", "a.json.error", "b.json", "c.json.error", "d.json", "d.json.error"]);

    harness.clock.advance(29 * DAY);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), all);
    harness.clock.advance(2 * DAY);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), ["b.json", "d.json", "d.json.error"]);
}

#[tokio::test]
async fn old_refused_file_is_removed_one_hour_after_the_last_removal() {
    let harness = SpoolHarness::open().await;
    harness.spool.expire_rejected().await.unwrap();
    harness.drop_file("a.json", "{");
    assert_eq!(harness.scan().await.refused, 1);
    for name in ["rejected/a.json", "rejected/a.json.error"] {
        let file = fs::File::options().write(true).open(harness.at(name)).unwrap();
        let refused_at = file.metadata().unwrap().modified().unwrap();
        file.set_modified(refused_at - 31 * DAY).unwrap();
    }
    harness.clock.advance(HOUR / 2);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), ["a.json", "a.json.error"]);
    harness.clock.advance(HOUR / 2);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), [""; 0]);
}

#[tokio::test]
async fn refused_file_of_another_owner_is_kept() {
    let harness = SpoolHarness::open().await;
    harness.drop_file("a.json", "{");
    harness.drop_file("b.json", "{");
    assert_eq!(harness.scan().await.refused, 2);
    let chown = |name: &str| std::os::unix::fs::chown(harness.at(name), Some(4711), None);
    if chown("rejected/a.json").is_err() {
        // Only root may change the owner.
        return;
    }
    chown("rejected/b.json.error").unwrap();
    harness.clock.advance(31 * DAY);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), ["a.json", "a.json.error", "b.json", "b.json.error"]);
}

#[tokio::test]
async fn refused_file_is_kept_for_thirty_days_after_it_was_last_refused() {
    let harness = SpoolHarness::open().await;
    for _ in 0..2 {
        harness.drop_file("a.json", "{");
        assert_eq!(harness.scan().await.refused, 1);
        harness.clock.advance(29 * DAY);
        harness.spool.expire_rejected().await.unwrap();
        assert_eq!(harness.names("rejected"), ["a.json", "a.json.error"]);
    }
}

#[tokio::test]
async fn refused_file_is_kept_while_the_clock_is_not_trusted() {
    let mut harness = SpoolHarness::open().await;
    harness.drop_file("a.json", "{");
    assert_eq!(harness.scan().await.refused, 1);
    harness.clock.advance(31 * DAY);
    let trusted = TrustedClock::over(Arc::clone(&harness.clock) as Arc<_>, None);
    let settings = SpoolSettings { dir: harness.at(""), enabled: true };
    harness.spool = Spool::new(Arc::clone(&harness.store), None, trusted, settings);
    until_unlocked(&harness.at(""));
    harness.scan().await;
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), ["a.json", "a.json.error"]);
    // The trusted clock has now followed the machine's clock for long enough.
    harness.clock.advance(HOUR);
    harness.spool.expire_rejected().await.unwrap();
    assert_eq!(harness.names("rejected"), [""; 0]);
}

#[tokio::test]
async fn expiry_creates_no_directory_while_outbound_is_disabled() {
    let harness = SpoolHarness::with(false);
    harness.spool.expire_rejected().await.unwrap();
    assert!(!harness.at("").exists(), "nothing is created");
}

#[tokio::test]
async fn file_without_a_valid_intent_is_refused_with_the_reason() {
    let harness = SpoolHarness::open().await;
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
        harness.drop_file(name, content);
        let summary = harness.scan().await;
        assert_eq!((summary.taken, summary.refused, summary.skipped), (0, 1, vec![]), "{name:?}");
        let error = harness.names("rejected").into_iter().find(|name| name.ends_with(".error")).unwrap();
        let message = harness.read(&format!("rejected/{error}"));
        assert!(message.contains(why), "{name:?}: {message}");
        let copy = harness.at("rejected").join(error.trim_end_matches(".error"));
        assert_eq!(fs::read(&copy).unwrap(), content, "{name:?}");
        fs::remove_file(copy).unwrap();
        fs::remove_file(harness.at("rejected").join(error)).unwrap();
    }
    assert_eq!(harness.ids(), [""; 0]);
    harness.drop_file("new\nline.json", r#"{"op": "create", "id": "chosen", "body": {"email": "a"}}"#);
    assert_eq!(harness.scan().await.intents, 1, "the name does not matter for an intent with an id");
}

#[tokio::test]
async fn refused_file_is_kept_without_its_secrets() {
    let harness = SpoolHarness::open().await;
    let refused = r#"{"op" : "create", "body": {"payment_details": "abc123", "email": "tok_secret",
        "metadata": {"note": "4111 1111 1111 1111"}, "extra": 1.50}}"#;
    harness.drop_file("a.json", refused);
    assert_eq!(harness.scan().await.refused, 1);
    let kept = refused
        .replace("abc123", "****")
        .replace("tok_secret", "****")
        .replace("4111 1111 1111 1111", "****");
    assert_eq!(harness.read("rejected/a.json"), kept);
    let card = r#"{"op": "create", "body": {"payment_details": {"type": "credit_card", "number": "41", "cvc": 123}}}"#;
    harness.drop_file("a.json", card);
    assert_eq!(harness.scan().await.refused, 1);
    let kept =
        r#"{"op": "create", "body": {"payment_details": {"type": "****", "number": "****", "cvc": ****}}}"#;
    assert_eq!(harness.read("rejected/a.2.json"), kept, "a number is added where the name is taken");
    let message = harness.read("rejected/a.2.json.error");
    assert!(message.contains("body.payment_details: must be a payment token"), "{message}");
    harness.drop_file("a.json", r#"{"tok_secret": 1}"#);
    harness.scan().await;
    assert_eq!(
        harness.names("rejected"),
        ["a.2.json", "a.2.json.error", "a.3.json", "a.3.json.error", "a.json", "a.json.error"]
    );
    for secret in ["tok_secret", "abc123", "4111", "123"] {
        assert!(!holds(&harness.at(""), secret), "{secret}");
    }
    let mode = fs::metadata(harness.at("rejected/a.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
}

#[tokio::test]
async fn refused_file_stays_claimed_when_its_error_cannot_be_written() {
    let harness = SpoolHarness::open().await;
    let temporary = format!(".tmp-{}", &digest16("a.json.error"));
    fs::create_dir_all(harness.at("rejected").join(&temporary)).unwrap();
    harness.drop_file("a.json", "{");
    for _ in 0..2 {
        let summary = harness.scan().await;
        assert_eq!(summary.refused, 0);
        let why = SpoolHarness::why(&summary, "a.json");
        assert!(why.contains("must be JSON") && why.contains("cannot be copied to rejected/"), "{why}");
        assert_eq!(harness.names("rejected"), std::slice::from_ref(&temporary));
        assert_eq!(fs::read(&harness.claimed()[0]).unwrap(), b"{");
    }
    fs::remove_dir(harness.at("rejected").join(&temporary)).unwrap();
    assert_eq!(harness.scan().await.refused, 1);
    assert_eq!(harness.names("rejected"), ["a.json", "a.json.error"]);
}

fn digest16(name: &str) -> String {
    Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn file_of_more_than_50000_lines_is_refused_with_what_to_do() {
    let (harness, error) = refused("0\n".repeat(1_000_000).as_bytes()).await;
    assert!(error.contains("has 1000000 lines") && error.contains("split it"), "{error}");
    assert!(error.contains("komoju-sync intent import"), "{error}");
    assert_eq!(harness.ids(), [""; 0]);
    let (harness, error) = refused(format!("{CREATE}\n").repeat(50_001).as_bytes()).await;
    assert!(error.contains("has 50001 lines"), "{error}");
    assert_eq!(harness.ids(), [""; 0]);
}

#[tokio::test]
async fn error_file_of_many_wrong_lines_is_short() {
    let (_, error) = refused("0\n".repeat(50_000).as_bytes()).await;
    assert!(
        error.contains("line 1: the intent: must be") && error.contains(" more lines are wrong"),
        "{error}"
    );
    let (_, _) = refused("{\"cvc\":1}\n".repeat(50_000).as_bytes()).await;
}
