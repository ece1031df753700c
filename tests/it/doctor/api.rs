//! The checks of key, reachability, clock and account.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use komoju_sandbox::{FaultEffect, KeyRefusal, OldKey};
use komoju_sync::clock::{Clock as _, SystemClock};
use komoju_testkit::{Installation, KEY, own};

use super::{doctor, doctor_of};
use crate::PROGRAM;

/// An unrelated CA certificate, so that the program has one on a machine without any.
const CERTIFICATE: &str = include_str!("../../fixtures/unrelated-ca.pem");

#[test]
fn doctor_with_a_refused_key_exits_4() {
    let mut harness = Installation::swept(PROGRAM, 3);
    harness.use_key("sk_test_wrong");
    let report = doctor(&harness);
    assert_eq!((report.code, report.one("api").0), (4, "fail"), "{}", report.text);
    assert!(report.one("api").1.contains("restart the daemon"), "{}", report.text);
    harness.use_key("pk_test_public");
    let report = doctor(&harness);
    assert_eq!(report.code, 2, "{}", report.text);
    assert!(
        report.findings.iter().any(|finding| finding["finding"].as_str().unwrap().contains("publishable"))
    );
}

#[test]
fn doctor_without_a_key_exits_2_and_finds_the_key_of_the_unit() {
    let harness = Installation::with(PROGRAM, 3);
    let mut command = harness.command(&["doctor", "--json"]);
    let report = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!(
        (report.code, report.one("key").0, report.one("api").0),
        (2, "fail", "skip"),
        "{}",
        report.text
    );
    assert!(report.one("key").1.contains("install -m 0400"), "{}", report.text);

    let file = harness.path("secret-key");
    fs::write(&file, KEY).unwrap();
    for (mode, code, level) in [(0o400, 0, "ok"), (0o440, 0, "warn"), (0o444, 1, "fail")] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let report = doctor_of(&mut command);
        assert_eq!(
            (report.code, report.one("key").0, report.one("api").0),
            (code, level, "ok"),
            "{}",
            report.text
        );
    }
    let report = doctor_of(command.env("KOMOJU_SECRET_KEY", "sk_test_another"));
    assert!(report.text.contains("is not the one in"), "{}", report.text);
    fs::write(&file, format!("{KEY} {KEY}")).unwrap();
    let report = doctor_of(command.env_remove("KOMOJU_SECRET_KEY"));
    assert_eq!(report.code, 2);
    assert!(report.one("key").1.contains("white space"), "{}", report.text);
}

/// Promises: key api.proxy
#[test]
fn doctor_with_an_unreachable_api_names_the_failed_step() {
    let harness = Installation::with(PROGRAM, 3);
    let url = harness.sandbox.base_url();
    let certificate = harness.path("unrelated-ca.pem");
    fs::write(&certificate, CERTIFICATE).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut known = url.clone();
    let cases = [
        (format!("http://{closed}/api/v1"), "see that this machine may connect to 127.0.0.1"),
        (url.replace("http:", "https:"), "ca-certificates"),
        ("https://nowhere.invalid/api/v1".to_owned(), "getent hosts nowhere.invalid"),
        (url.replace("/api/v1", "/elsewhere"), "see that api.base_url"),
    ];
    for (wrong, part) in cases {
        harness.replace_in_config(&known, &wrong);
        known = wrong;
        let mut command = harness.command(&["doctor", "--json"]);
        let report =
            doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
        assert_eq!((report.code, report.one("api").0), (1, "fail"), "{}", report.text);
        assert!(report.one("api").1.contains(part), "{part}: {}", report.text);
    }
    harness.replace_in_config(&known, "https://komoju.com/api/v1\"\nproxy = \"http://me:Q1Q@PROXY");
    harness.replace_in_config("PROXY", &closed.to_string());
    let mut command = harness.command(&["doctor", "--json"]);
    let report = doctor_of(command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", "/nonexistent"));
    assert!(report.one("api").1.contains("see that the proxy http://****@127.0.0.1"), "{}", report.text);
    assert!(!report.text.contains("Q1Q"), "{}", report.text);
}

#[test]
fn doctor_ignores_one_reset_and_names_a_firewall() {
    let harness = Installation::with(PROGRAM, 3);
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Html403));
    let report = doctor(&harness);
    assert_eq!(report.code, 1, "{}", report.text);
    assert!(report.one("api").1.contains("a firewall in front of the API"), "{}", report.text);
    harness.sandbox.world().refuse_key(None);
    harness.inject(komoju_sandbox::Fault::new(FaultEffect::Reset { work: Default::default() }).once());
    assert_eq!(doctor(&harness).one("api").0, "ok");
}

/// Promises: key api.request_timeout_s
#[test]
fn doctor_gives_up_on_an_api_that_never_answers() {
    let harness = Installation::with(PROGRAM, 3);
    harness.replace_in_config("per_page = 10\n", "per_page = 10\nrequest_timeout_s = 1\n");
    harness.on_lists(FaultEffect::Hold);
    let since = SystemClock::new();
    let report = doctor(&harness);
    assert_eq!(report.code, 1, "{}", report.text);
    assert!(report.one("api").1.contains("it took too long"), "{}", report.text);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[test]
fn doctor_reports_how_far_the_clocks_differ() {
    let harness = Installation::with(PROGRAM, 3);
    for (seconds, code, level) in [(20, 0, "warn"), (300, 1, "fail"), (-300, 1, "fail")] {
        let now = SystemClock::new().now();
        harness.sandbox.world().set_now(now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap());
        let report = doctor(&harness);
        assert_eq!((report.code, report.one("clock").0), (code, level), "{}", report.text);
        let way = if seconds > 0 { "behind" } else { "ahead of" };
        assert!(report.one("clock").1.contains(way), "{}", report.text);
    }
}

#[test]
fn doctor_detects_the_key_of_another_account_before_and_after_a_sync() {
    let mut harness = Installation::swept(PROGRAM, 12);
    harness.sandbox.world().add_account("sk_test_other", 9, 12);
    harness.use_key("sk_test_other");
    let requests = harness.sandbox.world().request_count();
    let report = doctor(&harness);
    assert_eq!((report.code, report.one("account").0), (3, "warn"), "{}", report.text);
    assert!(report.one("account").1.contains("does not know a customer of it"), "{}", report.text);
    assert_eq!(harness.sandbox.world().request_count(), requests + 2);
    harness.expect(3, &["sync"]);
    let report = doctor(&harness);
    assert_eq!(report.code, 3);
    assert!(report.one("account").1.contains("account accept"), "{}", report.text);

    harness.use_key(KEY);
    assert_eq!(doctor(&harness).one("account").0, "ok");
    harness.sandbox.world().rotate_key("sk_test_new", OldKey::Revoked);
    harness.use_key("sk_test_new");
    harness.expect(0, &["sync"]);
    harness.sandbox.world().rotate_key("sk_test_newer", OldKey::Revoked);
    harness.use_key("sk_test_newer");
    let report = doctor(&harness);
    assert!(report.one("account").1.contains("reads the same account"), "{}", report.text);
}

#[test]
fn doctor_asks_for_a_restart_when_a_refused_key_is_accepted_again() {
    let harness = Installation::swept(PROGRAM, 3);
    harness.sandbox.world().refuse_key(Some(KeyRefusal::Json401));
    harness.expect(4, &["sync"]);
    assert_eq!(doctor(&harness).code, 4);
    harness.sandbox.world().refuse_key(None);
    let report = doctor(&harness);
    assert_eq!((report.code, report.one("state").0), (0, "warn"), "{}", report.text);
    assert!(report.one("state").1.contains("restart the daemon"), "{}", report.text);
}

#[test]
fn doctor_sends_nothing_before_retry_after_has_passed() {
    let harness = Installation::swept(PROGRAM, 3);
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "UPDATE meta SET throttled_until = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+10 minutes')",
    )
    .unwrap();
    let requests = harness.sandbox.world().request_count();
    let report = doctor(&harness);
    assert_eq!(report.one("api").0, "skip", "{}", report.text);
    assert!(report.one("api").1.contains("until 20"), "{}", report.text);
    assert_eq!(harness.sandbox.world().request_count(), requests);
}

#[test]
fn doctor_reads_the_key_of_its_own_account_only() {
    let harness = Installation::with(PROGRAM, 3);
    let shop = harness.path("shop.toml");
    fs::copy(harness.path("config.toml"), &shop).unwrap();
    fs::write(harness.path("secret-key"), "sk_test_of_another_account").unwrap();
    fs::set_permissions(harness.path("secret-key"), Permissions::from_mode(0o400)).unwrap();
    let mut command = harness.command(&["doctor", "--json", "--config"]);
    command.arg(&shop).env_remove("KOMOJU_SECRET_KEY");
    let report = doctor_of(&mut command);
    assert_eq!(
        (report.code, report.one("key").0),
        (2, "fail"),
        "the key of the first account is used: {}",
        report.text
    );
    fs::write(harness.path("shop.secret-key"), KEY).unwrap();
    fs::set_permissions(harness.path("shop.secret-key"), Permissions::from_mode(0o400)).unwrap();
    let report = doctor_of(&mut command);
    assert_eq!((report.code, report.one("key").0, report.one("api").0), (0, "ok", "ok"), "{}", report.text);
}
