//! SIGHUP and the webhook's secret.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Receiver, SECRET, address, configured, event, write_secret};
use komoju_sandbox::OldKey;
use komoju_testkit::{Daemon, KEY, eventually};

const NEW: &str = "new-secret-6a8b0c2d4e";

/// Promises: key webhook.secret_file
#[test]
fn hangup_takes_two_secrets_and_then_the_new_one_alone() {
    let receiver = Receiver::start();
    assert_eq!(receiver.deliver_signed(NEW, &event("e1", "cus_1")), 401);
    write_secret(&receiver.harness, &format!("{NEW}\n{SECRET}\n"));
    receiver.daemon.signal("HUP");
    receiver.daemon.says("the previous one is accepted, too");
    assert_eq!(receiver.deliver_signed(NEW, &event("e1", "cus_1")), 200);
    assert_eq!(receiver.deliver_signed(SECRET, &event("e2", "cus_1")), 200);
    write_secret(&receiver.harness, NEW);
    receiver.daemon.signal("HUP");
    eventually("the previous secret is not accepted", || {
        receiver.deliver_signed(SECRET, &event("e2", "cus_1")) == 401
    });
    assert_eq!(receiver.deliver_signed(NEW, &event("e3", "cus_1")), 200);
    receiver.daemon.signal("HUP");
    receiver.daemon.says("SIGHUP: the secret of webhooks in the file");
    receiver.daemon.says("is unchanged");
}

#[test]
fn hangup_with_an_unusable_secret_changes_nothing() {
    let receiver = Receiver::start();
    for (text, why) in [("", "it is empty"), ("a\nb\nc", "it has more than two lines")] {
        write_secret(&receiver.harness, text);
        receiver.daemon.signal("HUP");
        receiver.daemon.says(why);
        assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
    }
    fs::remove_file(receiver.harness.path("webhook-secret")).unwrap();
    receiver.daemon.signal("HUP");
    receiver.daemon.says(
        "SIGHUP: the current secret of webhooks stays in use: the secret of webhooks could not be read",
    );
    assert_eq!(receiver.deliver(&event("e2", "cus_1")), 200);
}

#[test]
fn secret_of_the_environment_needs_a_restart() {
    let harness = configured(SECRET);
    let file = format!("secret_file = '{}'\n", harness.path("webhook-secret").display());
    harness.replace_in_config(&file, "");
    let mut command = harness.command(&["run"]);
    command.env("KOMOJU_WEBHOOK_SECRET", format!(" {SECRET} \n"));
    let daemon = Daemon::spawn(&harness, command);
    let address = address(&daemon);
    let receiver = Receiver { harness, daemon, address };
    assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
    receiver.daemon.signal("HUP");
    receiver.daemon.says(
        "SIGHUP: the secret of webhooks in the variable KOMOJU_WEBHOOK_SECRET is read only at the start",
    );
    assert_eq!(receiver.deliver(&event("e2", "cus_1")), 200);
}

#[test]
fn webhook_wakes_the_work_with_a_new_key() {
    let harness = configured(SECRET);
    let key_file = harness.path("secret-key");
    let write_key = |key: &str| {
        fs::write(&key_file, key).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_key(KEY);
    harness.replace_in_config("[api]\n", &format!("[api]\nsecret_key_file = '{}'\n", key_file.display()));
    harness.expect(0, &["sync"]);
    let receiver = Receiver::of(harness);
    let new_key = "sk_test_9e8d7c6b5a4f3e2d";
    receiver.harness.sandbox.world().rotate_key(new_key, OldKey::Kept);
    write_key(new_key);
    receiver.daemon.signal("HUP");
    eventually("the sweep with the new key is complete", || {
        receiver.harness.one("SELECT count(*) FROM passes WHERE outcome = 'complete'") == "3"
    });
    let id = receiver.harness.sandbox.world().ids()[0].clone();
    receiver.harness.sandbox.world().update(&id, json!({"email": "changed@example.jp"}));
    assert_eq!(receiver.deliver(&event("e1", &id)), 200);
    // Without a notification the hint would wait for up to a minute.
    eventually("the change is recorded", || {
        receiver.harness.column("SELECT origin FROM changes WHERE seq > 8") == ["event"]
    });
}
