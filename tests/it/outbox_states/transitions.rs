//! Anything may happen to an intent, in any order: every one of them is in one state after each step, came there by transitions of
//! the contract alone, and in the end is settled, its create made at most once.

use jiff::SignedDuration;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::store::outbox::operator;
use komoju_testkit::InProcess;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::inv_07_create_at_most_once::{Cut, end_at};

/// The table of the contract.
const LEGAL: [(&str, &str); 15] = [
    ("queued", "sending"),
    ("queued", "parked"),
    ("queued", "cancelled"),
    ("sending", "waiting"),
    ("sending", "done"),
    ("sending", "rejected"),
    ("sending", "parked"),
    ("waiting", "sending"),
    ("waiting", "done"),
    ("waiting", "parked"),
    ("rejected", "queued"),
    ("parked", "queued"),
    ("parked", "waiting"),
    ("parked", "cancelled"),
    ("waiting", "waiting"),
];

#[derive(Clone, Debug)]
enum Op {
    Create { has_token: bool },
    Update { whose: usize, has_token: bool, expects: bool },
    Follow,
    Delete { whose: usize },
    Drain,
    Fault(Trouble),
    End(Cut),
    Advance(i64),
    Sweep,
    TheirChange(usize),
    Retry(usize),
    Cancel(usize),
    Approve,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    LostAnswer,
    LostRequest,
    Failure,
    FailureAfterAll,
    Refusal,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<bool>().prop_map(|has_token| Op::Create { has_token }),
        4 => (0..4_usize, any::<bool>(), any::<bool>())
            .prop_map(|(whose, has_token, expects)| Op::Update { whose, has_token, expects }),
        1 => Just(Op::Follow),
        1 => (0..4_usize).prop_map(|whose| Op::Delete { whose }),
        6 => Just(Op::Drain),
        4 => prop_oneof![
            Just(Trouble::LostAnswer),
            Just(Trouble::LostRequest),
            Just(Trouble::Failure),
            Just(Trouble::FailureAfterAll),
            Just(Trouble::Refusal),
        ].prop_map(Op::Fault),
        4 => prop_oneof![Just(Cut::BeforePush(0)), Just(Cut::AfterPush(0)), Just(Cut::AfterPush(1))].prop_map(Op::End),
        4 => prop_oneof![Just(1_i64), Just(20), Just(19 * 60 + 59), Just(20 * 60 + 1), Just(24 * 60 + 1)].prop_map(Op::Advance),
        1 => Just(Op::Sweep),
        1 => (0..4_usize).prop_map(Op::TheirChange),
        2 => (0..8_usize).prop_map(Op::Retry),
        1 => (0..8_usize).prop_map(Op::Cancel),
        1 => Just(Op::Approve),
    ]
}

struct Machine {
    harness: InProcess,
    ids: Vec<String>,
    n: usize,
}

impl Machine {
    async fn new() -> Self {
        let mut harness = InProcess::open(4).await;
        harness.settings.hold_deletes_over = 1;
        harness.settings.reconcile_tag = Some("intent".to_owned());
        harness.sql(
            "CREATE TABLE seen (id TEXT, was TEXT, became TEXT);
             CREATE TRIGGER see AFTER UPDATE OF state ON intents WHEN OLD.state IS NOT NEW.state
             BEGIN INSERT INTO seen VALUES (NEW.id, OLD.state, NEW.state); END",
        );
        let ids = harness.sandbox.world().ids();
        Self { harness, ids, n: 0 }
    }

    fn next(&mut self, op: &str, customer: Option<String>, token: bool, expect: Option<String>) {
        self.n += 1;
        let (id, n) = (format!("i{}", self.n), self.n);
        let mut body = json!({"email": format!("{n}@example.com"), "metadata": {"n": n.to_string()}});
        if token {
            body["payment_details"] = json!(format!("tok_{n}"));
        }
        let body = (op != "delete").then(|| body.to_string());
        self.harness
            .writer()
            .execute(
                "INSERT INTO intents (id, op, customer_id, body, expect) VALUES (?1, ?2, ?3, ?4, ?5)",
                rusqlite::params![id, op, customer, body, expect],
            )
            .unwrap();
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Create { has_token } => self.next("create", None, *has_token, None),
            Op::Update { whose, has_token, expects } => {
                let expect = expects.then(|| json!({"locale": "xx"}).to_string());
                let customer = self.ids[*whose].clone();
                self.next("update", Some(customer), *has_token, expect);
            }
            Op::Follow => {
                let created = self.harness.column(
                    "SELECT '@' || id FROM intents WHERE op = 'create' ORDER BY position DESC LIMIT 1",
                );
                if let Some(created) = created.into_iter().next() {
                    self.next("update", Some(created), false, None);
                }
            }
            Op::Delete { whose } => {
                let customer = self.ids[*whose].clone();
                self.next("delete", Some(customer), false, None);
            }
            Op::Drain => drop(self.harness.drain().await),
            Op::Fault(trouble) => {
                let status = |status, work| FaultEffect::Status {
                    status,
                    body: Default::default(),
                    retry_after: None,
                    headers: Default::default(),
                    work,
                };
                let effect = match trouble {
                    Trouble::LostAnswer => FaultEffect::Reset { work: FaultedWork::Done },
                    Trouble::LostRequest => FaultEffect::Reset { work: FaultedWork::Skipped },
                    Trouble::Failure => status(500, FaultedWork::Skipped),
                    Trouble::FailureAfterAll => status(500, FaultedWork::Done),
                    Trouble::Refusal => status(422, FaultedWork::Skipped),
                };
                for call in [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete] {
                    self.harness.inject(Fault::new(effect.clone()).call(call).once());
                }
            }
            Op::End(cut) => end_at(&mut self.harness, *cut).await,
            Op::Advance(minutes) => self.harness.advance(SignedDuration::from_mins(*minutes)),
            Op::Sweep => drop(self.harness.sweep().await),
            Op::TheirChange(whose) => {
                let id = &self.ids[*whose];
                self.harness.sandbox.world().update(id, json!({"metadata": {"theirs": self.n.to_string()}}));
            }
            Op::Retry(n) => {
                let id = format!("i{n}");
                // Refused where it makes no sense; that is an answer too.
                let _ = self.harness.store().write(move |tx| operator::retry(tx, &id, None)).await;
            }
            Op::Cancel(n) => {
                let id = format!("i{n}");
                let _ = self
                    .harness
                    .store()
                    .write(move |tx| operator::cancel(tx, &id, "2026-06-02T00:00:00.000Z", "me"))
                    .await;
            }
            Op::Approve => drop(self.harness.store().write(|tx| operator::approve(tx, &[])).await),
        }
        self.check();
    }

    fn check(&self) {
        for step in self.harness.column("SELECT DISTINCT was || ' ' || became FROM seen") {
            let (was, became) = step.split_once(' ').unwrap();
            assert!(LEGAL.contains(&(was, became)), "{step}");
        }
        let broken = self.harness.column(
            "SELECT id FROM intents JOIN outbox USING (position)
             WHERE state NOT IN ('queued', 'sending', 'waiting', 'done', 'rejected', 'parked', 'cancelled')
                OR is_open <> (state IN ('queued', 'sending', 'waiting', 'parked'))
                OR (settled_at IS NULL) <> (state IN ('queued', 'sending', 'waiting', 'parked'))
                OR (state = 'done') <> (result_customer_id IS NOT NULL)
                OR attempts <> (SELECT count(*) FROM attempts WHERE intent_id = id)
                OR (state IN ('done', 'rejected', 'cancelled') AND coalesce(body, '') GLOB '*tok_*')
                OR (op = 'create' AND attempts > 0 AND state IN ('sending', 'waiting') AND key IS NULL)
                OR is_head <> (is_open = 1 AND position =
                    (SELECT min(position) FROM outbox AS first WHERE first.lane = outbox.lane AND first.is_open = 1))",
        );
        assert_eq!(broken, Vec::<String>::new());
        // One customer's intents settle in their order.
        let out_of_order = self.harness.column(
            "SELECT later.id FROM intents AS later JOIN intents AS earlier
             ON earlier.customer_id = later.customer_id AND earlier.position < later.position
             WHERE later.state IN ('sending', 'waiting', 'done') AND earlier.state IN ('queued', 'sending', 'waiting', 'parked')
               AND earlier.id NOT IN (SELECT id FROM seen WHERE was IN ('rejected', 'parked'))",
        );
        assert_eq!(out_of_order, Vec::<String>::new());
    }

    /// The trouble is over: whatever still can comes to its end.
    async fn finish(&mut self) {
        self.harness.sandbox.world().clear_faults();
        self.harness.store().write(|tx| operator::approve(tx, &[])).await.unwrap();
        self.harness.drain_on(80, SignedDuration::from_mins(20)).await;
        self.harness.store().write(|tx| operator::approve(tx, &[])).await.unwrap();
        self.harness.drain_on(80, SignedDuration::from_mins(20)).await;
        self.check();
        let unsettled = self.harness.column(
            "SELECT id || ' ' || state || ' ' || coalesce(reason, '') FROM intents AS me
             WHERE state IN ('queued', 'sending', 'waiting')
               AND NOT EXISTS (SELECT 1 FROM outbox JOIN outbox AS ahead USING (lane) JOIN intents AS first ON first.position = ahead.position
                   WHERE outbox.position = me.position AND ahead.position < me.position AND first.state = 'parked')",
        );
        assert_eq!(unsettled, Vec::<String>::new(), "nothing but a parked one keeps an intent waiting");
        // A create is made at most once, and once where it is done.
        let made = {
            let world = self.harness.sandbox.world();
            let mut made = std::collections::BTreeMap::<String, u64>::new();
            for customer in world.truth().values() {
                if let Some(intent) = customer["metadata"]["intent"].as_str() {
                    *made.entry(intent.to_owned()).or_default() += 1;
                }
            }
            assert!(made.values().all(|count| *count == 1), "{made:?}");
            made
        };
        for id in self.harness.column("SELECT id FROM intents WHERE op = 'create' AND state = 'done'") {
            let deleted = self.harness.one(&format!(
                "SELECT count(*) FROM intents WHERE op = 'delete' AND customer_id = '@{id}' AND state = 'done'"
            ));
            assert!(made.contains_key(&id) || deleted != "0", "{id} is done and made nobody");
        }
        self.assert_updates();
        assert!(self.harness.sweep().await.failure.is_none());
        self.harness.assert_true();
    }

    /// No update is done that did nothing: KOMOJU was heard to carry it out, or, where its token forbids to send it again, was sent it.
    fn assert_updates(&self) {
        let sent: Vec<(Value, Option<u16>)> = {
            let world = self.harness.sandbox.world();
            let patches = world.requests().iter().filter(|seen| seen.method == "PATCH");
            patches.map(|seen| (serde_json::from_str(&seen.body).unwrap_or_default(), seen.status)).collect()
        };
        for id in self.harness.column("SELECT id FROM intents WHERE op = 'update' AND state = 'done'") {
            let took_effect = sent.iter().any(|(body, status)| {
                let has_token = body.get("payment_details").is_some();
                body["metadata"]["n"] == id[1..] && (*status == Some(200) || has_token)
            });
            assert!(took_effect, "{id} is done and changed nobody");
        }
    }
}

#[test]
fn whatever_happens_every_intent_goes_a_legal_way_to_its_end() {
    let cases = std::env::var("MACHINE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runtime = Runtime::new().unwrap();
    let ran = runner.run(&prop::collection::vec(op(), 10..40), |ops| {
        runtime.block_on(async {
            let mut machine = Machine::new().await;
            for op in &ops {
                machine.step(op).await;
            }
            machine.finish().await;
        });
        Ok(())
    });
    if let Err(found) = ran {
        panic!("{found}");
    }
}
