//! Bad input ends the start with exit code 2 and a message that names the key.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::Value;

use super::{Receiver, SECRET, configured, event, post, sign, write_secret};
use komoju_testkit::{Daemon, Installation, eventually};

/// Returns the output of a start that must exit 2.
#[track_caller]
fn refused(harness: &Installation) -> String {
    let mut daemon = Daemon::start(harness);
    let mut code = None;
    eventually("the start is refused", || {
        code = daemon.child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|code| code.code()), Some(2), "{}", daemon.said());
    let said = daemon.said();
    assert!(!said.contains("Q1Q"), "a secret is shown: {said}");
    said
}

/// Promises: key webhook.allow_public
#[test]
fn public_address_needs_permission() {
    let harness = configured(SECRET);
    harness.replace_in_config("[webhook]\nlisten = \"127.0.0.1:0\"", "[webhook]\nlisten = \"0.0.0.0:0\"");
    let said = refused(&harness);
    assert!(
        said.contains("webhook.listen (line ") && said.contains("set webhook.allow_public = true"),
        "{said}"
    );
    let checked = harness.run(&["config", "check"]);
    assert_eq!(checked.code, 2, "{}", checked.stderr);
    harness.replace_in_config("[webhook]\n", "[webhook]\nallow_public = true\n");
    let daemon = Daemon::start(&harness);
    let address = super::address(&daemon).replace("0.0.0.0", "127.0.0.1");
    let receiver = Receiver { harness, daemon, address };
    assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
}

#[test]
fn unusable_secret_is_named_with_its_place() {
    let harness = configured(SECRET);
    for (text, why) in [
        ("", "it is empty"),
        (" \n\n", "it is empty"),
        ("Q1Q\nQ1Q2\nQ1Q3\n", "it has more than two lines"),
        ("Q1Q\u{7}", "contains a control character"),
    ] {
        write_secret(&harness, text);
        let said = refused(&harness);
        assert!(said.contains("(webhook.secret_file) cannot be used: ") && said.contains(why), "{said}");
    }
    fs::remove_file(harness.path("webhook-secret")).unwrap();
    let said = refused(&harness);
    assert!(
        said.contains("could not be read from the file") && said.contains("webhook.secret_file"),
        "{said}"
    );
    let file = format!("secret_file = '{}'\n", harness.path("webhook-secret").display());
    harness.replace_in_config(&file, "");
    let said = refused(&harness);
    assert!(said.contains("webhook.listen is set, and there is no secret for webhooks"), "{said}");
    assert!(said.contains("KOMOJU_WEBHOOK_SECRET"), "{said}");
}

#[test]
fn unusual_secret_is_a_warning() {
    let harness = configured("short-Q1Q");
    fs::set_permissions(harness.path("webhook-secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = Daemon::start(&harness);
    super::address(&daemon);
    let said = daemon.said();
    assert!(said.contains("fewer than 16 characters") && said.contains("chmod o= "), "{said}");
    assert!(!said.contains("Q1Q"), "{said}");
}

#[test]
fn address_in_use_exits_2() {
    let harness = configured(SECRET);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    harness.replace_in_config(
        "[webhook]\nlisten = \"127.0.0.1:0\"",
        &format!("[webhook]\nlisten = \"{address}\""),
    );
    let said = refused(&harness);
    assert!(
        said.contains(&format!(
            "webhook.listen = \"{address}\": another program already listens on this port"
        ))
    );
    let path = harness.path("hook.sock");
    let living = UnixListener::bind(&path).unwrap();
    harness.replace_in_config(&format!("\"{address}\""), &format!("\"unix:{}\"", path.display()));
    let said = refused(&harness);
    assert!(said.contains("another program already listens on this path"), "{said}");
    drop(living);
}

#[test]
fn unix_socket_receives_webhooks_from_owner_and_group() {
    let harness = configured(SECRET);
    let path = harness.path("hook.sock");
    harness.replace_in_config(
        "[webhook]\nlisten = \"127.0.0.1:0\"",
        &format!("[webhook]\nlisten = \"unix:{}\"", path.display()),
    );
    let mut daemon = Daemon::start(&harness);
    daemon.says("webhooks: POST /komoju at unix:/");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let body = event("e1", "cus_1");
    let signature = sign(SECRET, body.as_bytes());
    let stream = UnixStream::connect(&path).unwrap();
    let answer = post(stream, "/komoju", &[("X-Komoju-Signature", &signature)], body.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(harness.one("SELECT count(*) FROM event"), "1");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists());
}

#[test]
fn nothing_receives_webhooks_without_an_address() {
    let harness = configured(SECRET);
    harness.replace_in_config("[webhook]\nlisten = \"127.0.0.1:0\"\n", "[webhook]\n");
    fs::remove_file(harness.path("webhook-secret")).unwrap();
    let daemon = Daemon::start(&harness);
    daemon.says("sweep 1 complete");
    assert!(!daemon.said().contains("webhooks: "), "{}", daemon.said());
}

/// Returns level and text of what `doctor` finds about webhooks.
fn examined(harness: &Installation) -> Vec<(String, String)> {
    let printed = harness.run(&["doctor", "--json"]).stdout;
    let findings = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings
        .filter(|finding| finding["check"] == "webhook")
        .map(|finding| {
            (text(&finding["level"]), format!("{} {}", text(&finding["finding"]), text(&finding["advice"])))
        })
        .collect()
}

#[test]
fn doctor_checks_the_secret_and_the_address() {
    let harness = configured(SECRET);
    harness.expect(0, &["sync"]);
    let only = |level: &str, part: &str| {
        let found = examined(&harness);
        assert!(
            matches!(&found[..], [(is, text)] if is == level && text.contains(part)),
            "{part}: {found:?}"
        );
        assert!(!format!("{found:?}").contains("Q1Q"), "{found:?}");
    };
    only("ok", "holds the secret");
    write_secret(&harness, "Q1Q-secret-0123456789\nQ1Q-secret-9876543210");
    only("ok", "holds two secrets");
    write_secret(&harness, "Q1Q");
    only("warn", "fewer than 16 characters");
    write_secret(&harness, "Q1Q\nQ1Q\nQ1Q");
    only("fail", "it has more than two lines");
    assert_eq!(harness.run(&["doctor"]).code, 2);
    // Like a command beside the installed service: the unit's file is beside the configuration.
    let file = format!("secret_file = '{}'\n", harness.path("webhook-secret").display());
    harness.replace_in_config(&file, "");
    write_secret(&harness, "Q1Q-secret-0123456789");
    only("ok", "holds the secret");
    fs::remove_file(harness.path("webhook-secret")).unwrap();
    only("fail", "there is no secret for webhooks");
    write_secret(&harness, "Q1Q-secret-0123456789");
    harness.replace_in_config(
        "[webhook]\nlisten = \"127.0.0.1:0\"",
        "[webhook]\nlisten = \"0.0.0.0:0\"\nallow_public = true",
    );
    only("warn", "can be reached from other machines");
    harness.replace_in_config("listen = \"0.0.0.0:0\"\n", "");
    assert_eq!(examined(&harness), []);
}
