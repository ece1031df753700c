//! `sandbox`: a local KOMOJU in its own process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use komoju_testkit::{Installation, Process, stop};

use crate::PROGRAM;

/// Promises: command sandbox
#[test]
fn sandbox_serves_customers_to_a_sync() {
    let harness = Installation::with(PROGRAM, 0);
    let mut sandbox = Process::start(
        harness
            .command(&["sandbox", "--customers", "12", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
    let base_url = lines
        .find_map(|line| {
            let line = line.unwrap();
            let at = line.find("http://127.0.0.1:")?;
            Some(line[at..].split_whitespace().next().unwrap().trim_end_matches(['"', '.']).to_owned())
        })
        .unwrap();
    harness.replace_in_config(&harness.sandbox.base_url(), &base_url);
    let mut sync = harness.command(&["sync"]);
    sync.env("KOMOJU_SECRET_KEY", "sk_test_sandbox");
    assert!(sync.status().unwrap().success());
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "12");
    assert_eq!(stop(&mut sandbox), Some(0));
}

#[test]
fn sandbox_sends_a_ping_to_the_webhook_of_its_start() {
    let harness = Installation::with(PROGRAM, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/komoju", listener.local_addr().unwrap());
    let webhook = serde_json::json!({"url": url, "secret": "s"}).to_string();
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--webhook", &webhook];
    let mut sandbox = Process::start(harness.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()));
    let (mut stream, _) = listener.accept().unwrap();
    let lines: Vec<String> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    assert_eq!(lines[0], "post /komoju http/1.1");
    assert!(lines.contains(&"x-komoju-event: ping".to_owned()), "{lines:?}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(stop(&mut sandbox), Some(0));
}

#[test]
fn sandbox_refuses_a_webhook_on_another_machine() {
    let harness = Installation::with(PROGRAM, 0);
    let webhook = r#"{"url": "https://example.com/komoju", "secret": "s"}"#;
    let output =
        harness.command(&["sandbox", "--listen", "127.0.0.1:0", "--webhook", webhook]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--webhook: https://example.com/komoju is not a receiver"), "{error}");
}
