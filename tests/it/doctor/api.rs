//! Key, reachability, clock and account.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use komoju_sandbox::{FaultEffect, KeyRefusal, OldKey};
use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Installation, KEY, own};

use super::{doctor, doctor_of};
use crate::PROGRAM;

/// A certificate of nobody: with it the program has some to begin with, on a machine that has none too.
const CERTIFICATE: &str = include_str!("../../fixtures/nobody.pem");

#[test]
fn a_refused_key_exits_4() {
    let mut harness = Installation::swept(PROGRAM, 3);
    harness.use_key("sk_test_wrong");
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("api").0), (4, "fail"), "{}", told.text);
    assert!(told.one("api").1.contains("restart the daemon"), "{}", told.text);
    harness.use_key("pk_test_public");
    let told = doctor(&harness);
    assert_eq!(told.code, 2, "{}", told.text);
    assert!(told.findings.iter().any(|finding| finding["finding"].as_str().unwrap().contains("publishable")));
}

#[test]
fn a_key_that_is_nowhere_exits_2_and_the_units_is_found() {
    let harness = Installation::with(PROGRAM, 3);
    let mut command = harness.command(&["doctor", "--json"]);
    let told = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!((told.code, told.one("key").0, told.one("api").0), (2, "fail", "skip"), "{}", told.text);
    assert!(told.one("key").1.contains("install -m 0400"), "{}", told.text);

    let file = harness.path("secret-key");
    fs::write(&file, KEY).unwrap();
    for (mode, code, level) in [(0o400, 0, "ok"), (0o440, 0, "warn"), (0o444, 1, "fail")] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let told = doctor_of(&mut command);
        assert_eq!((told.code, told.one("key").0, told.one("api").0), (code, level, "ok"), "{}", told.text);
    }
    let told = doctor_of(command.env("KOMOJU_SECRET_KEY", "sk_test_another"));
    assert!(told.text.contains("is not the one in"), "{}", told.text);
    fs::write(&file, format!("{KEY} {KEY}")).unwrap();
    let told = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!(told.code, 2);
    assert!(told.one("key").1.contains("white space"), "{}", told.text);
}

/// Promises: key api.proxy
#[test]
fn what_cannot_be_reached_says_where_it_ended() {
    let harness = Installation::with(PROGRAM, 3);
    let url = harness.sandbox.base_url();
    let certificate = harness.path("nobody.pem");
    fs::write(&certificate, CERTIFICATE).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut known = url.clone();
    let cases = [
        (format!("http://{nobody}/api/v1"), "see that this machine may connect to 127.0.0.1"),
        (url.replace("http:", "https:"), "ca-certificates"),
        ("https://nowhere.invalid/api/v1".to_owned(), "getent hosts nowhere.invalid"),
        (url.replace("/api/v1", "/elsewhere"), "see that api.base_url"),
    ];
    for (wrong, part) in cases {
        harness.replace_in_config(&known, &wrong);
        known = wrong;
        let mut command = harness.command(&["doctor", "--json"]);
        let told = doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
        assert_eq!((told.code, told.one("api").0), (1, "fail"), "{}", told.text);
        assert!(told.one("api").1.contains(part), "{part}: {}", told.text);
    }
    harness.replace_in_config(&known, "https://komoju.com/api/v1\"\nproxy = \"http://me:Q1Q@PROXY");
    harness.replace_in_config("PROXY", &nobody.to_string());
    let mut command = harness.command(&["doctor", "--json"]);
    let told = doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
    assert!(told.one("api").1.contains("see that the proxy http://****@127.0.0.1"), "{}", told.text);
    assert!(!told.text.contains("Q1Q"), "{}", told.text);
}

#[test]
fn a_firewall_in_front_is_no_refusal_and_one_hiccup_is_nothing() {
    let harness = Installation::with(PROGRAM, 3);
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Html403));
    let told = doctor(&harness);
    assert_eq!(told.code, 1, "{}", told.text);
    assert!(told.one("api").1.contains("a firewall in front of the API"), "{}", told.text);
    harness.sandbox.world().refuse_key(None);
    harness.inject(komoju_sandbox::Fault::new(FaultEffect::Reset { work: Default::default() }).once());
    assert_eq!(doctor(&harness).one("api").0, "ok");
}

/// Promises: key api.request_timeout_s
#[test]
fn an_api_that_never_answers_is_not_waited_for() {
    let harness = Installation::with(PROGRAM, 3);
    harness.replace_in_config("per_page = 10\n", "per_page = 10\nrequest_timeout_s = 1\n");
    harness.on_lists(FaultEffect::Hold);
    let since = SystemClock::new();
    let told = doctor(&harness);
    assert_eq!(told.code, 1, "{}", told.text);
    assert!(told.one("api").1.contains("it took too long"), "{}", told.text);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[test]
fn clocks_that_differ_are_told_by_how_much() {
    let harness = Installation::with(PROGRAM, 3);
    for (seconds, code, level) in [(20, 0, "warn"), (300, 1, "fail"), (-300, 1, "fail")] {
        let now = SystemClock::new().now();
        harness.sandbox.world().set_now(now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap());
        let told = doctor(&harness);
        assert_eq!((told.code, told.one("clock").0), (code, level), "{}", told.text);
        let way = if seconds > 0 { "behind" } else { "ahead of" };
        assert!(told.one("clock").1.contains(way), "{}", told.text);
    }
}

#[test]
fn a_key_of_another_account_is_seen_before_the_daemon_meets_it_and_after() {
    let mut harness = Installation::swept(PROGRAM, 12);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    let asked = harness.sandbox.world().request_count();
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("account").0), (3, "warn"), "{}", told.text);
    assert!(told.one("account").1.contains("does not know a customer of it"), "{}", told.text);
    assert_eq!(harness.sandbox.world().request_count(), asked + 2);
    harness.expect(3, &["sync"]);
    let told = doctor(&harness);
    assert_eq!(told.code, 3);
    assert!(told.one("account").1.contains("account accept"), "{}", told.text);

    harness.use_key(KEY);
    assert_eq!(doctor(&harness).one("account").0, "ok");
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.use_key("sk_test_new");
    harness.expect(0, &["sync"]);
    harness.sandbox.world().rotate_key("sk_test_newer", OldKey::Revoked);
    harness.use_key("sk_test_newer");
    let told = doctor(&harness);
    assert!(told.one("account").1.contains("reads the same account"), "{}", told.text);
}

#[test]
fn a_key_that_is_taken_again_asks_for_a_restart() {
    let harness = Installation::swept(PROGRAM, 3);
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Json401));
    harness.expect(4, &["sync"]);
    assert_eq!(doctor(&harness).code, 4);
    harness.sandbox.world().refuse_key(None);
    let told = doctor(&harness);
    assert_eq!((told.code, told.one("state").0), (0, "warn"), "{}", told.text);
    assert!(told.one("state").1.contains("restart the daemon"), "{}", told.text);
}

#[test]
fn what_the_api_asked_to_wait_is_kept() {
    let harness = Installation::swept(PROGRAM, 3);
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "UPDATE meta SET throttled_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+10 minutes')",
    )
    .unwrap();
    let asked = harness.sandbox.world().request_count();
    let told = doctor(&harness);
    assert_eq!(told.one("api").0, "skip", "{}", told.text);
    assert!(told.one("api").1.contains("until 20"), "{}", told.text);
    assert_eq!(harness.sandbox.world().request_count(), asked);
}

#[test]
fn each_account_has_its_own_key() {
    let harness = Installation::with(PROGRAM, 3);
    let shop = harness.path("shop.toml");
    fs::copy(harness.path("config.toml"), &shop).unwrap();
    fs::write(harness.path("secret-key"), "sk_test_of_another_account").unwrap();
    fs::set_permissions(harness.path("secret-key"), Permissions::from_mode(0o400)).unwrap();
    let mut command = harness.command(&["doctor", "--json", "--config"]);
    command.arg(&shop).env_remove("KOMOJU_SECRET_KEY");
    let told = doctor_of(&mut command);
    assert_eq!(
        (told.code, told.one("key").0),
        (2, "fail"),
        "the first account's is not looked at: {}",
        told.text
    );
    fs::write(harness.path("shop.secret-key"), KEY).unwrap();
    fs::set_permissions(harness.path("shop.secret-key"), Permissions::from_mode(0o400)).unwrap();
    let told = doctor_of(&mut command);
    assert_eq!((told.code, told.one("key").0, told.one("api").0), (0, "ok", "ok"), "{}", told.text);
}
