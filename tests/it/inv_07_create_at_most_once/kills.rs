//! `kill -9` at any moment, again and again, while intents come in by every door: each is there once and takes effect once.

mod dropper;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::{Installation, Process, eventually, looked_until, stop};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::inv_07_create_at_most_once::kills::dropper::{Dropped, Dropper};

fn start(harness: &Installation) -> Process {
    let log = File::options().create(true).append(true).open(harness.path("daemon.log")).unwrap();
    Process::start(harness.command(&["run"]).stdout(Stdio::null()).stderr(log))
}

fn kill(daemon: &mut Process) {
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// The intents that are not settled, and the end of the daemon's log, for a failure's message.
fn open_intents(harness: &Installation) -> String {
    let open = "SELECT id || ' ' || state || ' ' || coalesce(customer_id, '') || ' ' || coalesce(reason, '')
        || ' after ' || attempts || ' attempts, next at ' || coalesce(next_attempt_at, '') FROM intents
        WHERE state IN ('queued', 'sending', 'waiting')";
    let log = std::fs::read_to_string(harness.path("daemon.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    format!("{:#?}, open at {}\n{end}", harness.column(open), harness.one("SELECT datetime('now')"))
}

/// What goes wrong now and then. Each happens once, for each costs a second.
fn fault(dice: &mut StdRng) -> Option<Fault> {
    let call = [FaultedCall::Create, FaultedCall::Update, FaultedCall::Delete][dice.random_range(0..3)];
    let effect = match dice.random_range(0..10) {
        0 | 1 => FaultEffect::Reset { work: FaultedWork::Done },
        2 => FaultEffect::Reset { work: FaultedWork::Skipped },
        3 => FaultEffect::status(500),
        4 => FaultEffect::status(409),
        _ => return None,
    };
    Some(Fault::new(effect).call(call).once())
}

/// The values that each customer was sent, in their order.
type Sent = BTreeMap<String, Vec<usize>>;

/// Takes up what was sent; first everything that is under way there has its effect.
fn take_up(harness: &Installation, sent: &mut Sent) {
    let is_under_way = |world: &komoju_sandbox::World| {
        let cut = world.fired_by_kind().get("reset").copied().unwrap_or(0);
        let open = world.requests().iter().filter(|seen| seen.method != "GET" && seen.status.is_none());
        open.count() as u64 > cut
    };
    assert!(harness.within(Duration::from_secs(5), |world| !is_under_way(world)), "a request never ends");
    let mut world = harness.sandbox.world();
    for seen in world.requests() {
        let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let last = body["metadata"]["last"].as_str().and_then(|last| last.parse().ok());
        if let (Some(last), Some((_, id))) = (last, seen.path.rsplit_once('/')) {
            sent.entry(id.to_owned()).or_default().push(last);
        }
    }
    world.clear_requests();
}

const OPEN: &str = "SELECT count(*) FROM intents WHERE state IN ('queued', 'sending', 'waiting')";

#[test]
fn whatever_is_dropped_takes_effect_once_however_often_the_daemon_is_killed() {
    let kills: usize = std::env::var("KILLS").map_or(28, |kills| kills.parse().unwrap());
    let seed: u64 = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    let harness = Installation::with(PROGRAM, 12);
    harness.append_config("hold_deletes_over = 100000");
    harness.expect(0, &["sync"]);
    let mut ids = harness.sandbox.world().ids();
    let disputed = ids.pop().unwrap();
    let mut dropper = Dropper::new(&harness, seed, ids);
    let mut dice = StdRng::seed_from_u64(seed + 1);
    let mut sent = Sent::new();
    let conflict = "INSERT INTO intents (id, op, customer_id, body, expect) VALUES
        ('conflict', 'update', ?1, '{\"email\": \"b\"}', '{\"email\": \"never\"}')";
    harness.writer().execute(conflict, [&disputed]).unwrap();

    let mut moments = BTreeMap::<&str, usize>::new();
    for round in 0..kills {
        for _ in 0..dice.random_range(0..3) {
            dropper.drop_any();
        }
        if let Some(fault) = fault(&mut dice) {
            harness.inject(fault);
        }
        let mut daemon = start(&harness);
        let moment = match round % 7 {
            0 | 1 => {
                let call = if round % 7 == 0 { FaultedCall::Create } else { FaultedCall::Update };
                // Each fault that is left over from earlier rounds delays it by a backoff: four of them by 15 s.
                harness.sandbox.world().clear_faults();
                let held = harness.inject(Fault::new(FaultEffect::Hold).call(call));
                let wish = if call == FaultedCall::Create { dropper.create() } else { dropper.update() };
                dropper.by_sql(wish);
                let longest = Duration::from_secs(if call == FaultedCall::Create { 60 } else { 10 });
                let fired = harness.within(longest, |world| world.fired(held) > 0);
                // Its customer may wait behind a create that is declined.
                assert!(
                    fired || call == FaultedCall::Update,
                    "the create is never sent: {}",
                    open_intents(&harness)
                );
                if dice.random_bool(0.5) {
                    dropper.drop_any();
                }
                kill(&mut daemon);
                harness.sandbox.world().remove_fault(held);
                if fired { "held" } else { "idle" }
            }
            2 => {
                for _ in 0..dice.random_range(1..4) {
                    dropper.drop_any();
                }
                kill(&mut daemon);
                "after a drop"
            }
            3 => {
                let until = harness.sandbox.world().request_count() + dice.random_range(1..25);
                harness.within(Duration::from_secs(1), |world| world.request_count() >= until);
                kill(&mut daemon);
                "after some requests"
            }
            4 => {
                let wish = dropper.create();
                dropper.by_sql(wish);
                (0..500).any(|_| harness.one("SELECT count(*) FROM intents WHERE state = 'sending'") != "0");
                kill(&mut daemon);
                "as it is claimed"
            }
            5 => {
                // It is watched from when the first look is over; before that it may be the first look that takes it.
                let file = dropper.by_lines();
                let claimed = harness.path("spool/.claimed");
                let id = dropper.files[&file][1].clone();
                let taken = format!("SELECT count(*) FROM intents WHERE id = '{id}'");
                eventually("the file is taken", || harness.one(&taken) == "1");
                kill(&mut daemon);
                let is_claimed = std::fs::read_dir(claimed).unwrap().next().is_some();
                if is_claimed { "between commit and unlink" } else { "after unlink" }
            }
            _ => {
                let effects =
                    |world: &komoju_sandbox::World| world.creates() + world.updates() + world.deletes();
                let until = effects(&harness.sandbox.world()) + dice.random_range(1..4);
                for _ in 0..3 {
                    dropper.drop_any();
                }
                harness.within(Duration::from_secs(1), |world| effects(world) >= until);
                kill(&mut daemon);
                "as it takes effect"
            }
        };
        *moments.entry(moment).or_default() += 1;
        take_up(&harness, &mut sent);
    }

    harness.sandbox.world().clear_faults();
    let mut daemon = start(&harness);
    let settled = || {
        let lies = std::fs::read_dir(harness.path("spool")).unwrap().any(|entry| {
            let entry = entry.unwrap();
            entry.file_type().unwrap().is_file() && !entry.file_name().to_string_lossy().starts_with('.')
        });
        let is_claimed = std::fs::read_dir(harness.path("spool/.claimed")).unwrap().next().is_some();
        !lies && !is_claimed && harness.one(OPEN) == "0"
    };
    // What failed, or was killed, again and again is tried again after minutes: so a look that began with such a wait is followed by another.
    let waits = "SELECT count(*) FROM intents WHERE julianday(next_attempt_at) > julianday('now')";
    let ended = (0..40).any(|_| {
        let will_be_tried = harness.one(waits) != "0";
        looked_until(settled) || !will_be_tried
    });
    if !ended || !settled() {
        let lies: Vec<_> = std::fs::read_dir(harness.path("spool")).unwrap().collect();
        panic!("not settled: {lies:?} {}", open_intents(&harness));
    }
    assert_eq!(stop(&mut daemon), Some(0));
    take_up(&harness, &mut sent);

    let parked: Vec<String> = harness.column("SELECT id FROM intents WHERE state = 'parked'");
    let mut cancel = vec!["intent", "cancel"];
    cancel.extend(parked.iter().map(String::as_str));
    compare(&harness, &dropper, &sent);
    harness.expect(0, &cancel);
    harness.expect(0, &["sync"]);
    harness.assert_true();
    harness.expect(0, &["verify"]);
    assert_receipts(&harness, &dropper);
}

/// What became of everything that was dropped.
fn compare(harness: &Installation, dropper: &Dropper<'_>, sent: &Sent) {
    let mut dropped: Vec<String> = dropper.dropped.iter().map(|dropped| dropped.id.clone()).collect();
    dropped.push("conflict".to_owned());
    dropped.sort();
    let mut there = harness.column("SELECT id FROM intents");
    there.sort();
    assert_eq!(dropped, there, "each is an intent, once");
    let strange = "SELECT id || ' ' || state || ' ' || coalesce(reason, '') FROM intents
        WHERE NOT (state = 'done' OR (state IN ('rejected', 'parked') AND coalesce(reason, '') <> ''))";
    assert_eq!(harness.column(strange), Vec::<String>::new());

    // What counts is the order in which they were accepted: a file may be taken later than it was dropped.
    let position = |id: &str| -> u64 {
        harness.one(&format!("SELECT position FROM intents WHERE id = '{id}'")).parse().unwrap()
    };
    let positions: Vec<u64> = dropper.dropped.iter().map(|dropped| position(&dropped.id)).collect();
    let (mut deleted, mut last) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, (u64, usize)>::new());
    for (Dropped { wish, .. }, position) in dropper.dropped.iter().zip(&positions) {
        if let (Some(target), "delete") = (&wish.target, wish.op) {
            deleted.insert(target, *position);
        }
    }
    let truth = harness.sandbox.world().truth();
    let mut done_creates = 0;
    let mut made = BTreeMap::<String, String>::new();
    for (Dropped { id, wish }, position) in dropper.dropped.iter().zip(&positions) {
        let state = harness.one(&format!("SELECT state FROM intents WHERE id = '{id}'"));
        let target = wish.target.as_deref();
        let is_late = target.and_then(|target| deleted.get(target)).is_some_and(|deleted| deleted < position);
        let expected = match () {
            () if wish.declined => "rejected",
            () if target.is_some_and(|target| dropper.declined.contains(target)) => "parked",
            () if is_late => "rejected",
            () => "done",
        };
        let reason = harness.one(&format!("SELECT coalesce(reason, '') FROM intents WHERE id = '{id}'"));
        assert_eq!(state, expected, "{id}: {reason}");
        if let (Some(target), "update", "done") = (target, wish.op, state.as_str()) {
            let (known, n) = last.entry(target).or_default();
            if *known < *position {
                (*known, *n) = (*position, wish.n);
            }
        }
        if wish.op != "create" {
            continue;
        }
        let email = &wish.body.as_ref().unwrap()["email"];
        let known: Vec<&String> =
            truth.iter().filter(|(_, customer)| customer["email"] == *email).map(|(id, _)| id).collect();
        let target = format!("@{id}");
        let result = harness.one(&format!("SELECT result_customer_id FROM intents WHERE id = '{id}'"));
        match state == "done" && !deleted.contains_key(target.as_str()) {
            true => assert_eq!(known, [&result], "{id}"),
            false => assert_eq!(known, Vec::<&String>::new(), "{id} was rejected or deleted"),
        }
        if state == "done" {
            done_creates += 1;
            made.insert(target, result);
        }
    }
    assert_eq!(harness.sandbox.world().creates(), done_creates, "each create once");
    assert_eq!(made.values().collect::<BTreeSet<_>>().len() as u64, done_creates);

    let customer_of = |target: &str| made.get(target).map_or(target.to_owned(), String::clone);
    for (target, (_, n)) in last.iter().filter(|(target, _)| !deleted.contains_key(**target)) {
        let shown = &truth[&customer_of(target)]["metadata"]["last"];
        assert_eq!(*shown, json!(n.to_string()), "the last update of {target}");
    }
    let by_n: BTreeMap<usize, u64> =
        dropper.dropped.iter().map(|dropped| dropped.wish.n).zip(positions.iter().copied()).collect();
    for (customer, values) in sent {
        assert!(values.iter().map(|n| by_n[n]).is_sorted(), "{customer} was sent {values:?}");
    }
    for target in deleted.keys().filter(|target| !dropper.declined.contains(**target)) {
        assert!(!truth.contains_key(&customer_of(target)), "{target} is deleted");
    }
    let journal = "SELECT intent_id FROM attempts WHERE finished_at IS NULL OR outcome IS NULL";
    assert_eq!(harness.column(journal), Vec::<String>::new());
    let journal =
        "SELECT id FROM intents AS i WHERE attempts <> (SELECT count(*) FROM attempts WHERE intent_id = i.id)
        OR attempts <> (SELECT coalesce(max(n), 0) FROM attempts WHERE intent_id = i.id)";
    assert_eq!(harness.column(journal), Vec::<String>::new());
}

/// Each file has its receipt, and nothing else lies in the spool directory.
fn assert_receipts(harness: &Installation, dropper: &Dropper<'_>) {
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(harness.path(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("spool"), [".claimed", "receipts", "rejected"]);
    assert_eq!(names("spool/.claimed"), Vec::<String>::new());
    assert_eq!(names("spool/rejected"), Vec::<String>::new());
    let receipts: Vec<String> = dropper.files.keys().map(|name| format!("{name}.json")).collect();
    assert_eq!(names("spool/receipts"), receipts);
    for (name, ids) in &dropper.files {
        let text = std::fs::read_to_string(harness.path(&format!("spool/receipts/{name}.json"))).unwrap();
        let receipt: Value = serde_json::from_str(&text).unwrap();
        let entries = receipt["intents"].as_array().unwrap();
        let told: Vec<&str> = entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert_eq!(&told, ids, "{name}");
        for entry in entries {
            let sql = format!("SELECT state FROM intents WHERE id = '{}'", entry["id"].as_str().unwrap());
            assert_eq!(entry["state"], json!(harness.one(&sql)), "{name} {entry}");
        }
    }
}
