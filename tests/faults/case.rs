//! Plays a fault from its start until it has healed. A test that uses [`Case::play`] always asserts
//! that the fault fired and that the next pass healed it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Readings};
use komoju_sync::cli::sync_by;
use komoju_sync::clock::{Clock as _, ManualClock, SystemClock};
use komoju_sync::config::Config;
use komoju_testkit::search::{Canary, below};
use komoju_testkit::{Installation, KEY, Ran, eventually};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;
use crate::matrix::{Ends, Outbox, Row};

/// The number of customers at the start, on six pages.
const CUSTOMERS: u32 = 57;

/// How far the clock of the command under the fault is behind the real time. A wait that the API
/// asked for is over when the real binary runs, and a create's key is still valid.
const EARLIER: SignedDuration = SignedDuration::from_hours(6);

/// Returns how often the fault fired.
type Evidence = Box<dyn Fn(&Installation) -> u64>;

/// A harness with an exact mirror and then changes at KOMOJU: one customer is created, one changed
/// and one deleted. A create, an update and a delete are in the outbox.
pub struct Case {
    pub harness: Installation,
    /// The clock of the command under the fault. It moves without waiting.
    pub clock: Arc<ManualClock>,
    row: &'static Row,
    /// The live customers before the changes.
    before: BTreeMap<String, Value>,
    head: i64,
    /// The customer of the update, and the customer of the delete.
    updated: String,
    deleted: String,
    /// Whether the recorded changes can be compared with the current customers: the list did not
    /// move meanwhile.
    is_still: bool,
    evidence: Vec<Evidence>,
    /// The output under the fault.
    output: Option<String>,
    config: String,
}

impl Case {
    /// Plays a row. `strike` causes the fault and runs the command under it. Healing is checked
    /// here.
    pub fn play(row: &'static Row, readings: Readings, strike: impl FnOnce(&mut Self)) {
        let mut case = Self::open(row, readings);
        strike(&mut case);
        case.heal();
    }

    fn open(row: &'static Row, readings: Readings) -> Self {
        let harness = Installation::reading(PROGRAM, CUSTOMERS, readings);
        let clock = Arc::new(ManualClock::at(SystemClock::new().now() - EARLIER));
        let mut case = Self {
            harness,
            clock,
            row,
            before: BTreeMap::new(),
            head: 0,
            updated: String::new(),
            deleted: String::new(),
            is_still: true,
            evidence: Vec::new(),
            output: None,
            config: String::new(),
        };
        let file = case.harness.path("secret-key");
        fs::write(&file, KEY).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        capture_all_logs();
        let talkative = "[log]\nlevel = 'trace'\n[api]\n";
        case.configure("[api]\n", &format!("{talkative}secret_key_file = '{}'\n", file.display()));
        case.first_sync();
        case.harness.assert_true();
        (case.before, case.head) = (case.harness.mirror(), case.harness.head());
        {
            let mut world = case.harness.sandbox.world();
            let ids = world.ids();
            world.delete(&ids[3]);
            world.update(&ids[14], json!({"email": "changed@example.com"}));
            world.create(json!({"email": "came@example.com"}));
            world.clear_requests();
        }
        // Use the oldest customers, because list moves happen on the pages before them.
        let ids = case.harness.sandbox.world().ids();
        [case.deleted, case.updated] = ids.last_chunk().unwrap().clone();
        let create = json!({"email": "made@example.com", "metadata": {"n": "1"}, "payment_details": TOKEN});
        case.harness.intend("c", "create", None, Some(create));
        case.harness.intend("u", "update", Some(&case.updated), Some(json!({"email": "pushed@example.com"})));
        case.harness.intend("d", "delete", Some(&case.deleted), None);
        case
    }

    fn first_sync(&mut self) {
        if self.harness.sandbox.world().readings_mut().rate_limit.is_none() {
            assert_eq!(self.sync_here(async |_| {}), 0);
            return;
        }
        // The limit counts real seconds.
        self.configure("requests_per_second = 0", "requests_per_second = 8\nburst = 4");
        self.harness.expect(0, &["sync"]);
        let world = self.harness.sandbox.world();
        assert!(world.requests().iter().any(|seen| seen.status != Some(200)), "nothing was refused");
    }

    /// Whether the mirror knew this customer before the changes, and no intent is about it.
    pub fn is_old_without_intent(&self, id: &str) -> bool {
        self.before.contains_key(id) && self.has_no_intent(id)
    }

    /// Whether no intent is about this customer.
    pub fn has_no_intent(&self, id: &str) -> bool {
        id != self.updated && id != self.deleted
    }

    /// Changes the configuration for good.
    pub fn configure(&mut self, from: &str, to: &str) {
        self.reconfigure(from, to);
        self.config = fs::read_to_string(self.harness.path("config.toml")).unwrap();
    }

    /// Changes the configuration until the fault is over.
    pub fn reconfigure(&self, from: &str, to: &str) {
        self.harness.replace_in_config(from, to);
    }

    /// Uses this address until the fault is over.
    pub fn set_base_url(&self, base_url: &str) {
        self.reconfigure(&self.harness.sandbox.base_url(), base_url);
    }

    /// Uses this key until the fault is over.
    pub fn use_key(&self, key: &str) {
        fs::write(self.harness.path("secret-key"), key).unwrap();
    }

    /// Declares that the list moves while it is read, so that recorded states may be outdated.
    pub fn list_moves(&mut self) {
        self.is_still = false;
    }

    /// Adds evidence that the fault fired.
    pub fn fired_when(&mut self, evidence: impl Fn(&Installation) -> u64 + 'static) {
        self.evidence.push(Box::new(evidence));
    }

    pub fn inject(&mut self, fault: Fault) {
        let id = self.harness.inject(fault);
        self.fired_when(move |harness| harness.fired(id));
    }

    /// Plays an effect on every request for as long as it lasts.
    pub fn everything(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect));
        self.endure();
    }

    /// Plays an effect on the second page. The fields of that page besides its customers are hints:
    /// it is not requested again, and the mirror is exact afterwards.
    pub fn second_page(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List).page(2));
        self.endure();
        self.harness.assert_true();
        assert_eq!(self.pages_requested().iter().filter(|page| **page == 2).count(), 1);
        assert!(self.pages_requested().len() <= 12, "{:?}", self.pages_requested());
    }

    /// Returns the pages that were requested since the changes, in order.
    pub fn pages_requested(&self) -> Vec<u64> {
        self.harness.sandbox.world().requests().iter().filter_map(|seen| seen.page).collect()
    }

    /// Returns how many customers were requested by single requests and answered with this status.
    pub fn requested_alone(&self, status: u16) -> usize {
        let world = self.harness.sandbox.world();
        let alone = world.requests().iter().filter(|seen| seen.method == "GET" && seen.page.is_none());
        let answered = alone.filter(|seen| seen.status == Some(status));
        answered.map(|seen| &seen.path).collect::<BTreeSet<_>>().len()
    }

    /// Returns how many deletions passes have recorded since the mirror was exact.
    pub fn deleted_by_passes(&self) -> usize {
        let by_pass = format!(
            "SELECT customer_id FROM changes WHERE seq > {} AND kind = 'deleted' AND origin <> 'intent'",
            self.head
        );
        self.harness.column(&by_pass).len()
    }

    /// Plays an effect on every list for as long as it lasts.
    pub fn lists(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List));
        self.endure();
    }

    /// Makes each push take effect once, and loses its answer.
    pub fn lose_the_answers(&mut self) {
        for push in [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete] {
            self.inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(push).once());
        }
    }

    /// Runs `sync` in this process with the clock that moves without waiting, while something else
    /// happens. Returns its exit code.
    fn sync_here(&self, meanwhile: impl AsyncFnOnce(&Installation)) -> i32 {
        let config = Config::load(&self.harness.path("config.toml")).unwrap();
        let sync = sync_by(&config, Arc::clone(&self.clock) as Arc<_>, CancellationToken::new());
        let both = async { tokio::join!(sync, meanwhile(&self.harness)) };
        i32::from(self.harness.runtime.block_on(both).0.code())
    }

    /// Runs `sync` under the fault in this process, where ten tries with their waits take no time.
    pub fn endure(&mut self) {
        self.endure_while(async |_| {});
    }

    /// Runs the same while something else happens.
    pub fn endure_while(&mut self, meanwhile: impl AsyncFnOnce(&Installation)) {
        self.clock.advance(Duration::from_secs(60));
        let code = self.sync_here(meanwhile);
        let status = self.harness.run(&["status"]).stdout;
        let why = self.harness.column("SELECT error FROM passes ORDER BY id DESC LIMIT 1").join("");
        let imprecise = self.harness.one("SELECT coalesce(list_report, '') FROM meta");
        self.conclude(code, &format!("{status}{why}\n{imprecise}"));
    }

    /// Runs `sync` of the real binary under the fault.
    pub fn endure_by_binary(&mut self) -> Ran {
        let ran = self.harness.run(&["sync"]);
        self.conclude(ran.code, &ran.stderr);
        ran
    }

    /// Compares the end of the command under the fault, and its output, with the row.
    pub fn conclude(&mut self, code: i32, output: &str) {
        let reasons = self.harness.column("SELECT coalesce(reason, '') FROM intents ORDER BY id");
        let output = format!("{output}\n{}", reasons.join("\n"));
        assert_eq!(code, self.row.ends.code(), "{output}");
        assert!(
            output.contains(self.row.ends.message()),
            "not reported: {:?}\n{output}",
            self.row.ends.message()
        );
        self.assert_no_false_record();
        if let Ends::Fails(_) = self.row.ends {
            assert_eq!(self.deleted_by_passes(), 0, "a failed pass deleted");
        }
        assert_eq!(self.states(), self.row.outbox.states(), "{output}");
        self.output = Some(output);
    }

    /// Returns the states of the create, the update and the delete.
    pub fn states(&self) -> Vec<String> {
        self.harness.column("SELECT state FROM intents WHERE id IN ('c', 'u', 'd') ORDER BY position")
    }

    /// Asserts that nothing false was recorded and that no customer was lost, whatever is still
    /// missing.
    pub fn assert_no_false_record(&self) {
        self.harness.assert_proven();
        let (mirror, truth) = (self.harness.mirror(), self.harness.sandbox.world().truth());
        for id in self.before.keys().filter(|id| truth.contains_key(*id)) {
            assert!(mirror.contains_key(id), "{id} was lost");
        }
        let column = |name: &str| {
            self.harness.column(&format!("SELECT {name} FROM changes WHERE seq > {} ORDER BY seq", self.head))
        };
        for ((id, kind), after) in column("customer_id").iter().zip(column("kind")).zip(column("after")) {
            if kind == "deleted" {
                assert!(!truth.contains_key(id), "{id} was deleted only in the mirror");
            } else if self.is_still {
                let after: Value = serde_json::from_str(&after).unwrap();
                assert_eq!(Some(&after), truth.get(id), "{id} {kind}: KOMOJU has another state");
            }
        }
        assert!(self.harness.sandbox.world().creates() <= 1, "the create took effect twice");
    }

    /// Ends the fault. Asserts that one pass of the real binary makes the mirror exact and that all
    /// intents are settled.
    fn heal(self) {
        assert!(self.output.is_some(), "no command ended under the fault");
        assert!(!self.evidence.is_empty(), "there is no evidence of the fault");
        for evidence in &self.evidence {
            assert!(evidence(&self.harness) > 0, "the fault did not fire");
        }
        self.harness.sandbox.world().clear_faults();
        self.harness.sandbox.world().refuse_key(None);
        self.use_key(KEY);
        fs::write(self.harness.path("config.toml"), &self.config).unwrap();
        let is_due =
            "SELECT count(*) FROM intents WHERE next_attempt_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
             AND next_attempt_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 minute')";
        eventually("each intent is due", || self.harness.one(is_due) == "0");
        self.harness.expect(0, &["sync"]);
        self.harness.assert_true();
        let (settled, creates) = match self.row.outbox {
            Outbox::CreateRejected => (["rejected", "done", "done"], 0),
            // The operator cancelled them.
            Outbox::Parked => (["cancelled"; 3], 1),
            _ => (["done"; 3], 1),
        };
        assert_eq!(self.states(), settled);
        assert_eq!(self.harness.sandbox.world().creates(), creates);
        self.assert_effects(creates);
        self.harness.expect(0, &["status"]);
        self.assert_secret();
    }
}

impl Case {
    /// Asserts that KOMOJU shows the effects of the intents, whatever their states.
    fn assert_effects(&self, creates: u64) {
        let (truth, deletes) = {
            let world = self.harness.sandbox.world();
            (world.truth(), world.deletes())
        };
        assert!(!truth.contains_key(&self.deleted), "the delete is settled, and its customer is live");
        assert_eq!(deletes, 1);
        let updated = &truth[&self.updated];
        assert_eq!(
            updated["email"], "pushed@example.com",
            "the update is settled and did nothing: {updated}"
        );
        let made: Vec<_> =
            truth.values().filter(|customer| customer["email"] == "made@example.com").collect();
        assert_eq!(made.len() as u64, creates, "{made:?}");
        assert!(made.iter().all(|customer| customer["metadata"]["n"] == "1"), "{made:?}");
    }
}

/// The create's payment token.
const TOKEN: &str = "tok_Vq7Zk2mXw9Rt4bLpC8sYd1HjN6gF3uEa";

/// What this process has logged, at every level.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// From the first call on the logs of all tests in this process are kept.
fn capture_all_logs() {
    struct Capture;
    impl Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOGGED.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        all.with_writer(|| Capture).init();
        // A case that runs only the program itself logs nothing else in this process.
        tracing::debug!("the log is captured");
    });
}

impl Case {
    /// Asserts that neither the key nor the settled token is in any log or output, or in any file
    /// except the key's.
    fn assert_secret(&self) {
        fs::remove_file(self.harness.path("secret-key")).unwrap();
        let canaries = [Canary::new("the key", KEY), Canary::new("the token", TOKEN)];
        assert_eq!(below(self.harness.directory.path(), &canaries), Vec::<String>::new());
        let (logged, said) = (LOGGED.lock().unwrap().clone(), self.harness.said.lock().unwrap().clone());
        assert!(!logged.is_empty() && said.contains("DEBUG"), "nothing was logged");
        for canary in &canaries {
            assert_eq!(canary.found(&logged), Vec::<String>::new(), "logged");
            assert_eq!(canary.found(said.as_bytes()), Vec::<String>::new(), "printed");
        }
    }
}
