//! A fault from its beginning to after its end: a test that is played by it cannot forget to see it fire, nor to see it healed.

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

/// The customers at first, on six pages.
const CUSTOMERS: u32 = 57;

/// How long before now the command under the fault runs where its clock moves by itself: what it is asked to wait for is over when
/// the real binary comes, and a create's key is still good.
const EARLIER: SignedDuration = SignedDuration::from_hours(6);

/// Evidence that the fault struck: how often.
type Evidence = Box<dyn Fn(&Installation) -> u64>;

/// A harness whose mirror is true, to which something happens: upstream one customer came, one changed and one went, and a create, an
/// update and a delete lie in the outbox.
pub struct Case {
    pub harness: Installation,
    /// What moves by itself in this process.
    pub clock: Arc<ManualClock>,
    row: &'static Row,
    /// The live customers before.
    before: BTreeMap<String, Value>,
    head: i64,
    /// Whom the update and whom the delete is about.
    updated: String,
    deleted: String,
    /// Whether what is recorded can be compared with the truth of now: the list did not move meanwhile.
    is_still: bool,
    evidence: Vec<Evidence>,
    /// What was said under the fault.
    told: Option<String>,
    config: String,
}

impl Case {
    /// Plays a row: `strike` makes the fault happen and sees the command under it end; healing is not left to it.
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
            told: None,
            config: String::new(),
        };
        let file = case.harness.path("secret-key");
        fs::write(&file, KEY).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        everything_is_heard();
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
        // The oldest: what moves in a list moves on the pages before them.
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
    pub fn is_old_and_left_alone(&self, id: &str) -> bool {
        self.before.contains_key(id) && self.is_left_alone(id)
    }

    /// Whether no intent is about this customer.
    pub fn is_left_alone(&self, id: &str) -> bool {
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

    /// Speaks to this address until the fault is over.
    pub fn speak_to(&self, base_url: &str) {
        self.reconfigure(&self.harness.sandbox.base_url(), base_url);
    }

    /// Uses this key until the fault is over.
    pub fn use_key(&self, key: &str) {
        fs::write(self.harness.path("secret-key"), key).unwrap();
    }

    /// The list moves while it is read: what was recorded of it may be over.
    pub fn list_moves(&mut self) {
        self.is_still = false;
    }

    /// How it is seen that the fault struck.
    pub fn fired_when(&mut self, evidence: impl Fn(&Installation) -> u64 + 'static) {
        self.evidence.push(Box::new(evidence));
    }

    pub fn inject(&mut self, fault: Fault) {
        let id = self.harness.inject(fault);
        self.fired_when(move |harness| harness.fired(id));
    }

    /// An effect on everything that is asked, for as long as it lasts.
    pub fn everything(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect));
        self.endure();
    }

    /// An effect on the second page. What that page says beside its customers is a hint: it is not requested again, and the mirror
    /// is true afterwards.
    pub fn second_page(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List).page(2));
        self.endure();
        self.harness.assert_true();
        assert_eq!(self.pages_requested().iter().filter(|page| **page == 2).count(), 1);
        assert!(self.pages_requested().len() <= 12, "{:?}", self.pages_requested());
    }

    /// The pages that were requested since the changes, in order.
    pub fn pages_requested(&self) -> Vec<u64> {
        self.harness.sandbox.world().requests().iter().filter_map(|seen| seen.page).collect()
    }

    /// How many customers were requested by themselves and answered with this status.
    pub fn asked_alone(&self, status: u16) -> usize {
        let world = self.harness.sandbox.world();
        let alone = world.requests().iter().filter(|seen| seen.method == "GET" && seen.page.is_none());
        let answered = alone.filter(|seen| seen.status == Some(status));
        answered.map(|seen| &seen.path).collect::<BTreeSet<_>>().len()
    }

    /// How many deletions passes have recorded since the mirror was true.
    pub fn deleted_by_passes(&self) -> usize {
        let by_pass = format!(
            "SELECT customer_id FROM changes WHERE seq > {} AND kind = 'deleted' AND origin <> 'intent'",
            self.head
        );
        self.harness.column(&by_pass).len()
    }

    /// An effect on every list, for as long as it lasts.
    pub fn lists(&mut self, effect: FaultEffect) {
        self.inject(Fault::new(effect).call(FaultedCall::List));
        self.endure();
    }

    /// Each push takes effect once, and its answer is lost.
    pub fn lose_the_answers(&mut self) {
        for push in [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete] {
            self.inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(push).once());
        }
    }

    /// `sync` in this process, by the clock that moves by itself, while something else happens; returns its exit code.
    fn sync_here(&self, meanwhile: impl AsyncFnOnce(&Installation)) -> i32 {
        let config = Config::load(&self.harness.path("config.toml")).unwrap();
        let sync = sync_by(&config, Arc::clone(&self.clock) as Arc<_>, CancellationToken::new());
        let both = async { tokio::join!(sync, meanwhile(&self.harness)) };
        i32::from(self.harness.runtime.block_on(both).0.code())
    }

    /// `sync` under the fault, in this process: ten tries with their waits take no time.
    pub fn endure(&mut self) {
        self.endure_while(async |_| {});
    }

    /// The same, while something else happens.
    pub fn endure_while(&mut self, meanwhile: impl AsyncFnOnce(&Installation)) {
        self.clock.advance(Duration::from_secs(60));
        let code = self.sync_here(meanwhile);
        let status = self.harness.run(&["status"]).stdout;
        let why = self.harness.column("SELECT error FROM passes ORDER BY id DESC LIMIT 1").join("");
        let imprecise = self.harness.one("SELECT coalesce(list_report, '') FROM meta");
        self.conclude(code, &format!("{status}{why}\n{imprecise}"));
    }

    /// `sync` under the fault, by the real binary.
    pub fn endure_by_binary(&mut self) -> Ran {
        let ran = self.harness.run(&["sync"]);
        self.conclude(ran.code, &ran.stderr);
        ran
    }

    /// The command under the fault has ended, and said this.
    pub fn conclude(&mut self, code: i32, told: &str) {
        let reasons = self.harness.column("SELECT coalesce(reason, '') FROM intents ORDER BY id");
        let told = format!("{told}\n{}", reasons.join("\n"));
        assert_eq!(code, self.row.ends.code(), "{told}");
        assert!(told.contains(self.row.ends.said()), "not said: {:?}\n{told}", self.row.ends.said());
        self.assert_sound();
        if let Ends::Fails(_) = self.row.ends {
            assert_eq!(self.deleted_by_passes(), 0, "a failed pass deleted");
        }
        assert_eq!(self.states(), self.row.outbox.states(), "{told}");
        self.told = Some(told);
    }

    /// The states of the create, the update and the delete.
    pub fn states(&self) -> Vec<String> {
        self.harness.column("SELECT state FROM intents WHERE id IN ('c', 'u', 'd') ORDER BY position")
    }

    /// Asserts that nothing wrong was recorded and nobody was lost, whatever is still missing.
    pub fn assert_sound(&self) {
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
                assert!(!truth.contains_key(id), "{id} was deleted here only");
            } else if self.is_still {
                let after: Value = serde_json::from_str(&after).unwrap();
                assert_eq!(Some(&after), truth.get(id), "{id} {kind}: it is not so");
            }
        }
        assert!(self.harness.sandbox.world().creates() <= 1, "it was created twice");
    }

    /// The fault is over: one pass of the real binary makes the mirror true, and all intents are settled.
    fn heal(self) {
        assert!(self.told.is_some(), "no command was seen to end under the fault");
        assert!(!self.evidence.is_empty(), "nothing shows that the fault struck");
        for evidence in &self.evidence {
            assert!(evidence(&self.harness) > 0, "the fault did not strike");
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
            // By the person who decided.
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
    /// Asserts that what the intents asked for is so at KOMOJU, whatever their states say.
    fn assert_effects(&self, creates: u64) {
        let (truth, deletes) = {
            let world = self.harness.sandbox.world();
            (world.truth(), world.deletes())
        };
        assert!(!truth.contains_key(&self.deleted), "the delete is settled, and its customer lives");
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

/// What this process has logged, whatever its level.
static HEARD: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// From here on every test of this process is heard.
fn everything_is_heard() {
    struct Ear;
    impl Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            HEARD.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        all.with_writer(|| Ear).init();
    });
}

impl Case {
    /// Asserts that neither the key nor the settled token is in anything that was logged or said, or in any file but the key's.
    fn assert_secret(&self) {
        fs::remove_file(self.harness.path("secret-key")).unwrap();
        let canaries = [Canary::new("the key", KEY), Canary::new("the token", TOKEN)];
        assert_eq!(below(self.harness.directory.path(), &canaries), Vec::<String>::new());
        let (heard, said) = (HEARD.lock().unwrap().clone(), self.harness.said.lock().unwrap().clone());
        assert!(!heard.is_empty() && said.contains("DEBUG"), "nothing was logged");
        for canary in &canaries {
            assert_eq!(canary.found(&heard), Vec::<String>::new(), "logged");
            assert_eq!(canary.found(said.as_bytes()), Vec::<String>::new(), "said");
        }
    }
}
