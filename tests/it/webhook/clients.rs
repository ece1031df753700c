//! Foreign clients: the local KOMOJU, and Python's standard library.

use std::process::Command;

use serde_json::json;

use super::{Receiver, SECRET, event};
use komoju_sandbox::DeliveryState;
use komoju_testkit::eventually;

#[test]
fn deliveries_of_the_sandbox_keep_the_mirror_fresh() {
    let receiver = Receiver::start();
    let url = format!("http://{}/komoju", receiver.address);
    let types = ["customer.created", "customer.updated", "customer.deleted"];
    receiver.harness.sandbox.register_webhook(&url, SECRET, &types).unwrap();
    let (created, ids) = {
        let mut world = receiver.harness.sandbox.world();
        let ids = world.ids();
        world.update(&ids[0], json!({"email": "changed@example.jp"}));
        (world.create(json!({"email": "new@example.jp"})), ids)
    };
    eventually("both changes are recorded", || {
        let mirror = receiver.harness.mirror();
        mirror[&ids[0]]["email"] == "changed@example.jp" && mirror.contains_key(&created)
    });
    receiver.harness.until(|world| world.deliveries_are_settled());
    let deliveries = receiver.harness.sandbox.world().deliveries();
    let states: Vec<_> = deliveries.iter().map(|delivery| (delivery.kind.as_str(), delivery.state)).collect();
    let delivered = |kind| (kind, DeliveryState::Delivered);
    assert_eq!(states, ["ping", "customer.updated", "customer.created"].map(delivered), "{deliveries:?}");
    receiver.counted("ignored", 1);
    receiver.counted("received", 2);
    receiver.harness.assert_true();
}

/// Posts standard input to the address, signed with the secret, and prints the status and the body.
const PYTHON: &str = r#"
import hashlib, hmac, http.client, os, sys
body = sys.stdin.buffer.read()
signature = hmac.new(os.environ["SECRET"].encode(), body, hashlib.sha256).hexdigest()
connection = http.client.HTTPConnection(os.environ["ADDRESS"], timeout=20)
headers = {"Content-Type": "application/json", "X-Komoju-Signature": signature, "User-Agent": "Komoju-Webhook"}
connection.request("POST", "/komoju", body, headers)
response = connection.getresponse()
print(response.status, repr(response.read()))
"#;

#[test]
fn python_signs_and_posts_a_webhook() {
    let receiver = Receiver::start();
    let body = receiver.harness.path("body.json");
    std::fs::write(&body, event("e1", "顧客")).unwrap();
    for (secret, expected) in [(SECRET, "200 b''\n"), ("other", "401 b''\n")] {
        let output = Command::new("python3")
            .args(["-c", PYTHON])
            .env("ADDRESS", &receiver.address)
            .env("SECRET", secret)
            .stdin(std::fs::File::open(&body).unwrap())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    }
    assert_eq!(receiver.harness.one("SELECT customer_id FROM event"), "顧客");
}
