//! What a service manager hears of the daemon: the real binary, with a socket of ours in the manager's place.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault};
use komoju_testkit::{Installation, Process, signal};

use crate::PROGRAM;

/// The manager's end of the socket, and the service.
struct Service {
    told: UnixDatagram,
    daemon: Process,
}

impl Service {
    /// `run`, with a watchdog that starves after half a minute unless told otherwise.
    fn start(harness: &Installation, watchdog: Duration) -> Self {
        let socket = harness.path("notify");
        let _ = std::fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket).unwrap();
        let mut command = harness.command(&["run"]);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let daemon = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        Self { told, daemon }
    }

    /// What is told next, within this time.
    fn hears(&self, within: Duration) -> Option<String> {
        self.told.set_read_timeout(Some(within)).unwrap();
        let mut news = [0; 4096];
        let length = self.told.recv(&mut news).ok()?;
        Some(String::from_utf8(news[..length].to_vec()).unwrap())
    }

    /// Listens until something with this in it is told.
    fn hears_of(&self, what: &str) -> String {
        let mut heard = Vec::new();
        while let Some(news) = self.hears(Duration::from_secs(30)) {
            if news.contains(what) {
                return news;
            }
            heard.push(news);
        }
        panic!("never told: {what}; but {heard:?}");
    }

    /// SIGTERM; the exit code.
    fn stop(mut self) -> Option<i32> {
        signal("TERM", self.daemon.id());
        self.hears_of("STOPPING=1");
        self.daemon.wait().unwrap().code()
    }
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn ready_is_told_after_the_first_answer_and_not_before() {
    let harness = Installation::with(PROGRAM, 30);
    let held = harness.inject(Fault::new(Effect::Hold).call(Call::List));
    let service = Service::start(&harness, LONG);
    service.hears_of("STATUS=sending the first request to KOMOJU");
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    while let Some(news) = service.hears(Duration::from_millis(500)) {
        assert!(!news.contains("READY"), "nothing has answered: {news}");
    }
    harness.sandbox.world().remove_fault(held);
    let ready = service.hears_of("READY=1");
    assert!(ready.contains("STATUS=KOMOJU answered; reading customers"), "{ready}");
    let line = service.hears_of("30 live");
    assert!(line.starts_with("STATUS=") && !line.contains("no complete sweep"), "{line}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn an_outage_is_a_reason_to_be_ready_and_no_hang() {
    let harness = Installation::with(PROGRAM, 3);
    let reset = harness.inject(Fault::new(Effect::Reset { work: Default::default() }));
    let service = Service::start(&harness, Duration::from_millis(600));
    let ready = service.hears_of("READY=1");
    assert!(ready.contains("KOMOJU has not answered yet ("), "the reason is told: {ready}");
    let mut fed = 0;
    while fed < 5 {
        service.hears_of("WATCHDOG=1");
        fed += 1;
    }
    harness.sandbox.world().remove_fault(reset);
    service.hears_of("3 live");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_refused_key_is_ready_and_says_what_is_wrong() {
    let harness = Installation::with(PROGRAM, 3);
    harness.inject(Fault::new(Effect::status(401)));
    let service = Service::start(&harness, LONG);
    service.hears_of("READY=1");
    service.hears_of("STATUS=key refused since ");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_start_waits_for_a_dry_run_to_end() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let lock = std::fs::File::open(harness.path("komoju.db.lock")).unwrap();
    lock.lock_shared().unwrap();
    let service = Service::start(&harness, LONG);
    let told = service.hears(Duration::from_secs(2)).unwrap();
    assert!(told.starts_with("EXTEND_TIMEOUT_USEC=") && told.contains("not started yet: "), "{told}");
    assert!(!told.contains("READY"), "{told}");
    drop(lock);
    service.hears_of("READY=1");
    assert_eq!(service.stop(), Some(0));
}
