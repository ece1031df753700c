//! What a signed body says, and when its hint counts as stored.

use serde_json::json;

use super::{Receiver, SECRET, configured, event, head, sign, typed};
use komoju_sync::clock::SystemClock;
use komoju_testkit::eventually;
use std::io::Write as _;
use std::time::Duration;

#[test]
fn body_that_names_no_customer_event_is_answered_200_and_ignored() {
    let receiver = Receiver::start();
    receiver.harness.sandbox.world().clear_requests();
    let ignored = [
        r#"{"type":"ping"}"#.to_owned(),
        typed("e1", "payment.captured", json!({"id": "pay_1", "customer": "cus_1"})),
        typed("e2", "customers.updated", json!({"id": "cus_1"})),
        String::new(),
        "not JSON".to_owned(),
        event("e3", "cus_1")[1..].to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{\"type\": 7}".to_owned(),
        "[".repeat(100_000),
        "\u{feff}{}".to_owned(),
    ];
    for body in &ignored {
        assert_eq!(receiver.deliver(body), 200, "{body:.60}");
    }
    let broken = b"{\"type\": \"customer.updated\xff\"}";
    let answer = receiver.post(&[("X-Komoju-Signature", &sign(SECRET, broken))], broken);
    assert_eq!(answer.status, 200, "it is not UTF-8");
    receiver.counted("ignored", ignored.len() as u64 + 1);
    receiver.counted("received", 0);
    assert_eq!(receiver.events(), 0);
    assert!(receiver.harness.sandbox.world().requests().is_empty());
}

#[test]
fn event_without_a_usable_customer_is_stored_and_requests_nothing() {
    let receiver = Receiver::start();
    receiver.harness.sandbox.world().clear_requests();
    for (n, data) in [json!(null), json!({"id": ".."}), json!({"id": ""})].into_iter().enumerate() {
        assert_eq!(receiver.deliver(&typed(&format!("e{n}"), "customer.updated", data)), 200);
    }
    receiver.counted("received", 3);
    assert_eq!(receiver.harness.one("SELECT count(*) FROM hint"), "0");
    assert!(receiver.harness.sandbox.world().requests().is_empty());
}

#[test]
fn repeated_event_makes_one_hint() {
    let receiver = Receiver::start();
    for _ in 0..3 {
        assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
    }
    receiver.counted("received", 3);
    assert_eq!(receiver.events(), 1);
    assert_eq!(receiver.harness.one("SELECT hints FROM hint"), "1");
}

#[test]
fn event_is_recognized_after_a_kill() {
    let mut receiver = Receiver::start();
    let (id, body) = {
        let mut world = receiver.harness.sandbox.world();
        let id = world.ids()[0].clone();
        world.update(&id, json!({"email": "changed@example.jp"}));
        (id.clone(), event("e1", &id))
    };
    // The daemon is killed after its answer, and the event is delivered again, as if the answer was
    // lost. A kill between the commit and the answer looks the same to KOMOJU.
    assert_eq!(receiver.deliver(&body), 200);
    receiver.daemon.signal("KILL");
    receiver.daemon.child.wait().unwrap();
    assert_eq!(receiver.events(), 1, "it was committed before the answer");
    let receiver = Receiver::of(receiver.harness);
    assert_eq!(receiver.deliver(&body), 200);
    assert_eq!(receiver.events(), 1);
    assert_eq!(receiver.harness.one("SELECT hints FROM hint"), "1");
    eventually("the customer is up to date", || {
        receiver.harness.mirror()[&id]["email"] == "changed@example.jp"
    });
}

#[test]
fn locked_database_is_answered_503_within_seconds_and_the_repetition_200() {
    let receiver = Receiver::start();
    let lock = receiver.harness.writer();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let clock = SystemClock::shared();
    let began = clock.elapsed();
    assert_eq!(receiver.deliver(&event("e1", "cus_1")), 503);
    let took = clock.elapsed() - began;
    assert!(took < Duration::from_secs(4), "{took:?}");
    receiver.counted("busy", 1);
    // A body that nothing follows from needs no database.
    assert_eq!(receiver.deliver(r#"{"type":"ping"}"#), 200);
    lock.execute_batch("ROLLBACK").unwrap();
    eventually("it is delivered", || receiver.deliver(&event("e1", "cus_1")) == 200);
    assert_eq!(receiver.events(), 1);
    assert_eq!(receiver.harness.one("SELECT hints FROM hint"), "1");
    receiver.daemon.says(
        "webhook.listen answered 1 request with 503, and KOMOJU delivers again: the database was in use",
    );
}

#[test]
fn request_in_progress_at_a_stop_is_answered_503() {
    let mut receiver = Receiver::start();
    let body = event("e1", "cus_1");
    let signature = sign(SECRET, body.as_bytes());
    let mut stream = super::connect(&receiver.address);
    let head = head("/komoju", &[("X-Komoju-Signature", &signature), ("Expect", "100-continue")], body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // The daemon asks for the body when it has begun to read it.
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let clock = SystemClock::shared();
    let began = clock.elapsed();
    receiver.daemon.signal("TERM");
    assert_eq!(super::answer(&mut stream).status, 503);
    assert_eq!(receiver.daemon.child.wait().unwrap().code(), Some(0));
    assert!(clock.elapsed() - began < Duration::from_secs(2), "{:?}", clock.elapsed() - began);
    assert_eq!(receiver.events(), 0);
}

/// Promises: invariant 9
#[test]
fn no_secret_and_no_text_of_a_request_is_logged() {
    let harness = configured(&format!("{SECRET}\nprevious-secret-77aa\n"));
    harness.expect(0, &["sync"]);
    let mut receiver = Receiver::of(harness);
    let body = typed("event-text", "customer.updated", json!({"id": "cus_text", "email": "text@example.jp"}));
    let signature = sign(SECRET, body.as_bytes());
    for (headers, body) in [
        (vec![("X-Komoju-Signature", &*signature), ("X-Komoju-ID", "delivery-text")], &*body),
        (vec![("X-Komoju-Signature", SECRET)], &*body),
        (vec![("X-Komoju-Signature", &*signature)], "other-text"),
    ] {
        receiver.post(&headers, body.as_bytes());
    }
    super::write_secret(&receiver.harness, "third-secret-0a1b2c3d\n");
    receiver.daemon.signal("HUP");
    receiver.daemon.says("SIGHUP: new secret of webhooks in the file");
    eventually("the customer is requested", || {
        receiver
            .harness
            .sandbox
            .world()
            .requests()
            .iter()
            .any(|seen| seen.path.ends_with("/customers/cus_text"))
    });
    assert_eq!(receiver.daemon.stop(), Some(0));
    let said = receiver.daemon.said();
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "the log has its level: {said}");
    let hidden = [
        SECRET,
        "previous-secret-77aa",
        "third-secret-0a1b2c3d",
        "text@example.jp",
        "event-text",
        "delivery-text",
        "other-text",
        &signature,
    ];
    for text in hidden {
        assert!(!said.contains(text), "{text}: {said}");
    }
    let status = receiver.harness.run(&["status", "--json"]);
    assert!(!format!("{}{}", status.stdout, status.stderr).contains("-secret-"));
}
