//! Health, readiness, and the clients of the HTTP endpoint.
//!
//! Promises: key http.listen

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_sync::clock::SystemClock;
use komoju_testkit::daemon::{HttpAnswer, ask, exchange, get};
use komoju_testkit::{Daemon, Installation, eventually, own};
use serde_json::Value;

use crate::PROGRAM;

fn reasons(answer: &HttpAnswer) -> Vec<String> {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["ready"], answer.status == 200, "{}", answer.body);
    body["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn eventually_unready(address: &str, because: &str) {
    eventually(because, || {
        let answer = get(address, "/readyz");
        answer.status == 503 && reasons(&answer).iter().any(|reason| reason.contains(because))
    });
}

/// Returns the output of a start that must fail.
fn refused(harness: &Installation, exit: i32) -> String {
    let mut daemon = Daemon::start(harness);
    let mut code = None;
    eventually("the start is refused", || {
        code = daemon.child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.and_then(|code| code.code()), Some(exit), "{}", daemon.said());
    daemon.said()
}

#[test]
fn mirror_is_ready_after_the_first_complete_sweep_and_healthy_before() {
    let harness = Installation::with(PROGRAM, 3);
    let held = harness.on_lists(FaultEffect::Hold);
    let (mut daemon, address) = Daemon::listening(&harness);
    eventually_unready(&address, "no sweep is complete yet");
    let healthy = get(&address, "/healthz");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    assert!(healthy.head.contains("\r\ncontent-type: text/plain") && healthy.head.contains("no-store"));
    harness.sandbox.world().remove_fault(held);
    eventually("it is ready", || get(&address, "/readyz").status == 200);
    assert!(reasons(&get(&address, "/readyz")).is_empty());
    assert_eq!(daemon.stop(), Some(0));
    // With a fresh mirror the daemon is ready at once, also without the API.
    harness.on_lists(FaultEffect::Hold);
    let again = Daemon::start(&harness);
    let address = again.address();
    eventually("it is ready without a sweep of its own", || get(&address, "/readyz").status == 200);
}

#[test]
fn mirror_is_ready_as_soon_as_the_first_sweep_is_complete() {
    for _ in 0..5 {
        let harness = Installation::with(PROGRAM, 3);
        let held = harness.on_lists(FaultEffect::Hold);
        let (_daemon, address) = Daemon::listening(&harness);
        eventually_unready(&address, "no sweep is complete yet");
        harness.sandbox.world().remove_fault(held);
        let is_complete = || harness.one("SELECT last_sweep_at FROM mirror_info") != "null";
        for _ in 0..20_000 {
            if is_complete() {
                break;
            }
            // The daemon is another process, and its commit gives no signal. A longer pause would
            // hide that /readyz lags.
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_complete());
        let answer = get(&address, "/readyz");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(get(&address, "/metrics").body.contains("komoju_sync_ready 1"));
    }
}

#[test]
fn idle_connections_do_not_block_other_clients() {
    let harness = Installation::with(PROGRAM, 1);
    let (_daemon, address) = Daemon::listening(&harness);
    eventually("it is ready", || get(&address, "/readyz").status == 200);
    let clock = SystemClock::shared();
    let _silent: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let began = clock.elapsed();
    assert_eq!(get(&address, "/healthz").status, 200);
    assert!(clock.elapsed() - began < Duration::from_secs(2), "{:?}", clock.elapsed() - began);
}

#[test]
fn refused_key_another_account_and_stale_mirror_make_unready() {
    let mut harness = Installation::with(PROGRAM, 8);
    harness.expect(0, &["sync"]);
    harness.append_config("[http]\nlisten = \"127.0.0.1:0\"");
    harness.use_key("sk_test_another_key");
    let mut daemon = Daemon::start(&harness);
    eventually_unready(&daemon.address(), "the API refuses the key since");
    daemon.stop();
    own(&harness.path("komoju.db"))
        .execute_batch(
            "UPDATE meta SET refused_since = NULL;
             UPDATE account SET candidate = zeroblob(32), stopped_at = '2020-01-01T00:00:00.000Z';
             UPDATE pass SET finished_at = '2020-01-01T00:00:00.000Z'",
        )
        .unwrap();
    let daemon = Daemon::start(&harness);
    let address = daemon.address();
    eventually_unready(&address, "stopped since 2020-01-01T00:00:00.000Z, for the key reads another account");
    eventually_unready(&address, "the last complete sweep ended at 2020-01-01T00:00:00.000Z");
    assert_eq!(get(&address, "/healthz").status, 200);
}

#[test]
fn head_is_answered_and_other_requests_are_refused_with_a_reason() {
    let harness = Installation::with(PROGRAM, 1);
    let (_daemon, address) = Daemon::listening(&harness);
    let head = ask(&address, "HEAD", "/healthz");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: 3"), "{}", head.head);
    for path in ["/", "/favicon.ico", "/metrics/", "/healthz/../etc/passwd", "/%00", "*"] {
        let answer = get(&address, path);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert!(answer.body.contains("/healthz, /readyz or /metrics"), "{}", answer.body);
    }
    for (method, path) in
        [("POST", "/metrics"), ("DELETE", "/healthz"), ("OPTIONS", "/readyz"), ("BREW", "/readyz")]
    {
        let answer = ask(&address, method, path);
        assert_eq!(answer.status, 405, "{answer:?}");
        assert!(
            answer.body.contains("use GET or HEAD") && answer.head.contains("allow: get, head"),
            "{answer:?}"
        );
    }
    assert_eq!(get(&address, "/metrics?name[]=x").status, 200);
    let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(&address).unwrap();
    let _ = stream.write_all(large.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    for nonsense in ["\r\n\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}", "GET /healthz HTTP/9.9\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(&address).unwrap();
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_string(&mut String::new());
    }
    assert_eq!(get(&address, "/healthz").status, 200);
}

#[test]
fn slow_clients_are_closed_for_others_and_the_daemon_works_meanwhile() {
    let harness = Installation::with(PROGRAM, 1);
    let (mut daemon, address) = Daemon::listening(&harness);
    eventually("it is ready", || get(&address, "/readyz").status == 200);
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().count();
    let before = open_files();
    let clock = SystemClock::shared();
    let began = clock.elapsed();
    let mut slow: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
    }
    // Only time can show that no more are accepted.
    std::thread::sleep(Duration::from_millis(500));
    // A few more than the connections, because the daemon opens others to the API.
    assert!(open_files() <= before + 32 + 4, "{before} {}", open_files());
    // The work continues meanwhile.
    let sql = "INSERT INTO intents (id, op, body) VALUES ('i', 'create', '{\"email\": \"a@example.com\"}')";
    own(&harness.path("komoju.db")).execute_batch(sql).unwrap();
    eventually("it pushes", || harness.one("SELECT state FROM intents") == "done");
    assert!(clock.elapsed() - began < Duration::from_secs(4));
    // The oldest connections are closed for those in the queue, so the request is soon answered.
    for path in ["/healthz", "/readyz", "/metrics"] {
        let asked = clock.elapsed();
        assert_eq!(get(&address, path).status, 200);
        assert!(clock.elapsed() - asked < Duration::from_secs(2), "{path}: {:?}", clock.elapsed() - asked);
    }
    // A connection that never ends its head does not delay the stop.
    let mut late = TcpStream::connect(&address).unwrap();
    late.write_all(b"GET /metrics HT").unwrap();
    // No signal shows when a connection is accepted. One that is not accepted yet blocks no client.
    std::thread::sleep(Duration::from_millis(100));
    let asked = clock.elapsed();
    assert_eq!(daemon.stop(), Some(0));
    assert!(clock.elapsed() - asked < Duration::from_millis(1500), "{:?}", clock.elapsed() - asked);
}

#[test]
fn stop_during_a_request_is_fast() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List));
    let (mut daemon, address) = Daemon::listening(&harness);
    eventually("it is ready", || get(&address, "/readyz").status == 200);
    let stream = TcpStream::connect(&address).unwrap();
    let clock = SystemClock::shared();
    let asked = clock.elapsed();
    assert_eq!(daemon.stop(), Some(0));
    assert!(clock.elapsed() - asked < Duration::from_millis(1500));
    drop(stream);
    assert!(TcpStream::connect(&address).is_err(), "the socket is closed");
}

#[test]
fn port_in_use_ends_the_start_and_a_recently_used_one_does_not() {
    let harness = Installation::with(PROGRAM, 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    harness.append_config(&format!("[http]\nlisten = \"{address}\""));
    let ran = refused(&harness, 1);
    assert!(
        ran.contains(&format!("http.listen = \"{address}\": another program already listens on this port"))
    );
    assert!(ran.contains("choose another port"), "{ran}");
    assert_eq!(harness.one("SELECT count(*) FROM passes"), "0", "nothing was begun");
    drop(taken);
    for _ in 0..3 {
        let mut daemon = Daemon::start(&harness);
        assert_eq!(daemon.address(), address.to_string());
        // The daemon closes first, and so its end of the connection stays in TIME_WAIT.
        assert_eq!(get(&address.to_string(), "/healthz").status, 200);
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn address_that_other_machines_reach_is_served_with_a_warning() {
    let harness = Installation::with(PROGRAM, 1);
    harness.append_config("[http]\nlisten = \"0.0.0.0:0\"");
    let daemon = Daemon::start(&harness);
    let address = daemon.address().replace("0.0.0.0", "127.0.0.1");
    assert_eq!(get(&address, "/healthz").status, 200);
    assert!(daemon.said().contains("without a password"), "{}", daemon.said());
    let other = Installation::with(PROGRAM, 1);
    let (quiet, _) = Daemon::listening(&other);
    assert!(!quiet.said().contains("without a password"));
}

#[test]
fn socket_is_for_owner_and_group_replaced_after_a_kill_and_removed_at_the_stop() {
    let harness = Installation::with(PROGRAM, 1);
    let path = harness.path("http.sock");
    harness.append_config(&format!("[http]\nlisten = \"unix:{}\"", path.display()));
    let health = || {
        let stream = UnixStream::connect(&path).ok()?;
        Some(exchange(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status)
    };
    let mut daemon = Daemon::start(&harness);
    eventually("it answers", || health() == Some(200));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    daemon.signal("KILL");
    daemon.child.wait().unwrap();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket(), "it is left behind");
    let mut daemon = Daemon::start(&harness);
    eventually("it answers again", || health() == Some(200));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists());

    let living = UnixListener::bind(&path).unwrap();
    let ran = refused(&harness, 1);
    assert!(ran.contains("another program already listens on this path"), "{ran}");
    drop(living);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let ran = refused(&harness, 2);
    assert!(ran.contains("the file at this path is not a socket"), "{ran}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn nothing_listens_without_the_setting() {
    let harness = Installation::with(PROGRAM, 1);
    let daemon = Daemon::start(&harness);
    eventually("it works", || daemon.said().contains("sweep 1 complete"));
    assert!(!daemon.said().contains("health and metrics"));
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap();
    let inodes: Vec<String> = sockets
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = listening.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
    let ours = listening
        .filter(|line| line.split_whitespace().nth(9).is_some_and(|i| inodes.contains(&i.to_owned())));
    assert_eq!(ours.count(), 0);
}
