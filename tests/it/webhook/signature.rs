//! Only a body with its signature is read.

use serde_json::json;

use super::{Receiver, SECRET, event, sign};
use komoju_testkit::eventually;

/// Promises: key webhook.listen; key webhook.secret_file
#[test]
fn signed_event_requests_its_customer_and_nothing_else() {
    let receiver = Receiver::start();
    let (changed, other) = {
        let mut world = receiver.harness.sandbox.world();
        let ids = world.ids();
        for id in &ids[..2] {
            assert!(world.update(id, json!({"email": "changed@example.jp"})));
        }
        world.clear_requests();
        (ids[0].clone(), ids[1].clone())
    };
    assert_eq!(receiver.deliver(&event("e1", &changed)), 200);
    let change =
        format!("SELECT origin || ' ' || kind FROM changes WHERE seq > 8 AND customer_id = '{changed}'");
    eventually("the change is recorded", || receiver.harness.column(&change) == ["event updated"]);
    let world = receiver.harness.sandbox.world();
    let requested: Vec<&str> = world.requests().iter().map(|seen| seen.path.as_str()).collect();
    assert!(
        !requested.is_empty()
            && requested.iter().all(|path| path.ends_with(&format!("/customers/{changed}"))),
        "{requested:?}"
    );
    drop(world);
    let unread = format!("SELECT count(*) FROM changes WHERE seq > 8 AND customer_id = '{other}'");
    assert_eq!(receiver.harness.one(&unread), "0", "no webhook named it");
    receiver.counted("received", 1);
}

#[test]
fn body_of_a_webhook_is_never_taken_for_data() {
    let receiver = Receiver::start();
    let id = receiver.harness.sandbox.world().ids()[0].clone();
    let before = receiver.harness.mirror();
    let forged = super::typed("e1", "customer.deleted", json!({"id": id, "email": "forged@example.jp"}));
    receiver.harness.sandbox.world().clear_requests();
    assert_eq!(receiver.deliver(&forged), 200);
    receiver.harness.until(|world| !world.requests().is_empty());
    eventually("the hint is answered", || {
        receiver.harness.one("SELECT count(*) FROM hint WHERE due_at IS NOT NULL AND is_second = 0") == "0"
    });
    assert_eq!(receiver.harness.mirror(), before);
    assert_eq!(receiver.harness.head(), 8);
}

#[test]
fn signature_is_read_in_either_case() {
    let receiver = Receiver::start();
    let body = event("e1", "cus_1");
    let signature = sign(SECRET, body.as_bytes());
    let headers = [("X-KOMOJU-SIGNATURE", signature.to_uppercase())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(receiver.post(&headers, body.as_bytes()).status, 200);
    assert_eq!(receiver.events(), 1);
}

#[test]
fn request_without_its_one_valid_signature_is_refused_and_counted() {
    let receiver = Receiver::start();
    let body = event("e1", "cus_1");
    let right = sign(SECRET, body.as_bytes());
    let name = "X-Komoju-Signature";
    let other = sign("other secret", body.as_bytes());
    let (nothing, spaced) = (sign(SECRET, b""), sign(&format!("{SECRET} "), body.as_bytes()));
    let refused: [&[(&str, &str)]; 10] = [
        &[],
        &[(name, "")],
        &[(name, &other)],
        &[(name, &nothing)],
        &[(name, &spaced)],
        &[(name, &right[..62])],
        &[(name, &format!("{right}00"))],
        &[(name, &format!("sha256={right}"))],
        &[(name, &right), (name, &right)],
        &[(name, &right), (name, &other)],
    ];
    for headers in refused {
        let answer = receiver.post(headers, body.as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{headers:?}");
    }
    // One changed byte; and bytes that mean the same JSON.
    for changed in [body.replace("cus_1", "cus_2"), format!("{body}\n")] {
        assert_eq!(receiver.post(&[(name, &right)], changed.as_bytes()).status, 401, "{changed}");
    }
    receiver.counted("refused", 12);
    receiver.counted("received", 0);
    assert_eq!(receiver.events(), 0);
    let said = receiver.daemon.said();
    assert_eq!(said.matches("webhook.listen refused 1 request:").count(), 1, "{said}");
}

#[test]
fn previous_secret_is_accepted_beside_the_newer_one() {
    let receiver = Receiver::with("newer-secret-0123456789\n  older-secret-0123456789  \r\n");
    assert_eq!(receiver.deliver_signed("newer-secret-0123456789", &event("e1", "cus_1")), 200);
    assert_eq!(receiver.deliver_signed("older-secret-0123456789", &event("e2", "cus_1")), 200);
    for secret in ["newer-secret-0123456789\nolder-secret-0123456789", "", "  older-secret-0123456789  "] {
        assert_eq!(receiver.deliver_signed(secret, &event("e3", "cus_1")), 401);
    }
    assert_eq!(receiver.events(), 2);
}
