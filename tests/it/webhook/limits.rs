//! The limits of a request: path, method, size, time, and how many at once.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{Receiver, SECRET, answer, connect, event, head, post, sign};
use komoju_sync::clock::SystemClock;
use komoju_testkit::daemon::ask;
use komoju_testkit::{Daemon, eventually};

const MIB: usize = 1 << 20;

/// Returns a signed event with this many bytes.
fn event_of(bytes: usize) -> String {
    let event = event("e1", "cus_1");
    let space = " ".repeat(bytes - event.len());
    event + &space
}

#[test]
fn body_of_one_mib_is_taken_and_a_larger_one_refused() {
    let receiver = Receiver::start();
    assert_eq!(receiver.deliver(&event_of(MIB)), 200);
    assert_eq!(receiver.events(), 1);
    // The length alone decides.
    let mut stream = connect(&receiver.address);
    let signature = sign(SECRET, event_of(MIB + 1).as_bytes());
    stream.write_all(head("/komoju", &[("X-Komoju-Signature", &signature)], MIB + 1).as_bytes()).unwrap();
    let refused = answer(stream);
    assert_eq!((refused.status, refused.body.as_str()), (413, ""));
    // A body without a length, one byte too long: all of it is sent before the answer.
    let mut stream = connect(&receiver.address);
    let body = event_of(MIB + 1);
    write!(
        stream,
        "POST /komoju HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-Komoju-Signature: {signature}\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
    .unwrap();
    assert_eq!(answer(stream).status, 413);
    assert_eq!(receiver.events(), 1);
}

/// Promises: key webhook.path
#[test]
fn only_post_at_the_path_is_received() {
    let receiver = {
        let harness = super::configured(SECRET);
        harness.replace_in_config("[webhook]\n", "[webhook]\npath = \"/hooks/k-1\"\n");
        harness.expect(0, &["sync"]);
        let daemon = Daemon::start(&harness);
        daemon.says("webhooks: POST /hooks/k-1 at http://");
        let said = daemon.said();
        let address =
            said.split("/hooks/k-1 at http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Receiver { harness, daemon, address }
    };
    let body = event("e1", "cus_1");
    let signature = sign(SECRET, body.as_bytes());
    let send = |path: &str| {
        post(connect(&receiver.address), path, &[("X-Komoju-Signature", &signature)], body.as_bytes()).status
    };
    for path in
        ["/komoju", "/", "/hooks/k-1/", "/hooks/K-1", "/hooks/k%2D1", "//hooks/k-1", "/hooks/../hooks/k-1"]
    {
        assert_eq!(send(path), 404, "{path}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&receiver.address, method, "/hooks/k-1");
        assert_eq!((answer.status, answer.body.as_str()), (405, ""), "{method}");
        assert!(answer.head.contains("\r\nallow: post"), "{}", answer.head);
    }
    assert_eq!(receiver.events(), 0);
    assert_eq!(send("/hooks/k-1"), 200);
    assert_eq!(send("/hooks/k-1?from=komoju"), 200, "a query changes nothing");
    assert_eq!(receiver.events(), 1);
}

#[test]
fn large_head_and_nonsense_are_refused() {
    let receiver = Receiver::start();
    for request in [
        head("/komoju", &[("X-Long", &"x".repeat(20_000))], 0),
        "POST\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(),
        "POST /komoju HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n".to_owned(),
        "POST /komoju HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
    ] {
        let mut stream = connect(&receiver.address);
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let status = answer(stream).status;
        assert!(status == 0 || (400..500).contains(&status), "{status}: {request:.40}");
    }
    assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
}

#[test]
fn seventeenth_connection_is_answered_503_at_once() {
    let receiver = Receiver::start();
    let body = event("e1", "cus_1");
    let signature = sign(SECRET, body.as_bytes());
    let begin = || {
        let mut stream = connect(&receiver.address);
        stream
            .write_all(head("/komoju", &[("X-Komoju-Signature", &signature)], body.len()).as_bytes())
            .unwrap();
        stream
    };
    let slow: Vec<TcpStream> = (0..16).map(|_| begin()).collect();
    let clock = SystemClock::shared();
    let began = clock.elapsed();
    for _ in 0..3 {
        assert_eq!(receiver.deliver(&body), 503);
    }
    assert!(clock.elapsed() - began < Duration::from_secs(2), "{:?}", clock.elapsed() - began);
    receiver.counted("busy", 3);
    // None of the 16 was closed for the others.
    for mut stream in slow {
        stream.write_all(body.as_bytes()).unwrap();
        assert_eq!(answer(stream).status, 200);
    }
    assert_eq!(receiver.deliver(&body), 200);
    assert_eq!(receiver.events(), 1);
}

#[test]
fn slow_request_is_closed_after_ten_seconds_and_delays_no_other() {
    let receiver = Receiver::start();
    let clock = SystemClock::shared();
    let began = clock.elapsed();
    let mut slow = connect(&receiver.address);
    slow.write_all(head("/komoju", &[], 100).as_bytes()).unwrap();
    slow.write_all(b"{").unwrap();
    assert_eq!(receiver.deliver(&event("e1", "cus_1")), 200);
    assert_eq!(answer(slow).status, 0, "it is closed without an answer");
    let took = clock.elapsed() - began;
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&took), "{took:?}");
    eventually("its place is free", || receiver.deliver(&event("e2", "cus_1")) == 200);
}
