//! Notifications to the service manager: the real binary, with a socket of the test in the
//! manager's place.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, Process, signal};

use crate::PROGRAM;

/// The socket of the manager, and the service.
struct Service {
    told: UnixDatagram,
    daemon: Process,
}

impl Service {
    /// Starts `run` with this timeout of the watchdog.
    fn start(harness: &Installation, watchdog: Duration) -> Self {
        let socket = harness.path("notify");
        let _ = std::fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket).unwrap();
        let mut command = harness.command(&["run"]);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        Self { told, daemon }
    }

    /// Returns the next notification within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.told.set_read_timeout(Some(within)).unwrap();
        let mut news = [0; 4096];
        let length = self.told.recv(&mut news).ok()?;
        Some(String::from_utf8(news[..length].to_vec()).unwrap())
    }

    /// Waits for a notification that contains this text.
    fn wait_for(&self, what: &str) -> String {
        let mut heard = Vec::new();
        while let Some(news) = self.next(Duration::from_secs(30)) {
            if news.contains(what) {
                return news;
            }
            heard.push(news);
        }
        panic!("never told: {what}; but {heard:?}");
    }

    /// Sends SIGTERM and returns the exit code.
    fn stop(mut self) -> Option<i32> {
        signal("TERM", self.daemon.id());
        self.wait_for("STOPPING=1");
        self.daemon.wait().unwrap().code()
    }
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn readiness_is_notified_after_the_first_answer() {
    let harness = Installation::with(PROGRAM, 30);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List));
    let service = Service::start(&harness, LONG);
    service.wait_for("STATUS=sending the first request to KOMOJU");
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    while let Some(news) = service.next(Duration::from_millis(500)) {
        assert!(!news.contains("READY"), "nothing has answered: {news}");
    }
    harness.sandbox.world().remove_fault(held);
    let ready = service.wait_for("READY=1");
    assert!(ready.contains("STATUS=KOMOJU answered; reading customers"), "{ready}");
    let line = service.wait_for("30 live");
    assert!(line.starts_with("STATUS=") && !line.contains("no complete sweep"), "{line}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn outage_delays_readiness_by_seconds_and_is_no_stall() {
    let harness = Installation::with(PROGRAM, 3);
    let reset = harness.inject(Fault::new(FaultEffect::Reset { work: Default::default() }));
    let service = Service::start(&harness, Duration::from_millis(600));
    let ready = service.wait_for("READY=1");
    assert!(ready.contains("KOMOJU has not answered yet ("), "the reason is given: {ready}");
    let mut fed = 0;
    while fed < 5 {
        service.wait_for("WATCHDOG=1");
        fed += 1;
    }
    harness.sandbox.world().remove_fault(reset);
    service.wait_for("3 live");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn refused_key_is_ready_with_its_reason_as_the_status() {
    let harness = Installation::with(PROGRAM, 3);
    harness.inject(Fault::new(FaultEffect::status(401)));
    let service = Service::start(&harness, LONG);
    service.wait_for("READY=1");
    service.wait_for("STATUS=key refused since ");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn start_waits_for_a_shared_lock_to_end() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let lock = std::fs::File::open(harness.path("komoju.db.lock")).unwrap();
    lock.lock_shared().unwrap();
    let service = Service::start(&harness, LONG);
    let told = service.next(Duration::from_secs(2)).unwrap();
    assert!(told.starts_with("EXTEND_TIMEOUT_USEC=") && told.contains("not started yet: "), "{told}");
    assert!(!told.contains("READY"), "{told}");
    drop(lock);
    service.wait_for("READY=1");
    assert_eq!(service.stop(), Some(0));
}
