//! `kill -9` at any moment, again and again, while intents come in by every door: each is there once and takes effect once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use komoju_sandbox::{Call, Effect, Fault, Work};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::house::{House, Process};
use crate::{configure, eventually, looked_until, rename_into_spool, stop, within, writer};

/// An intent that is about to be dropped.
#[derive(Clone)]
struct Wish {
    n: usize,
    op: &'static str,
    /// Whom it is about, as far as the intents of one customer are concerned: an id, or `@` and a create's id.
    target: Option<String>,
    /// How it is called in the intent.
    customer: Option<String>,
    body: Option<Value>,
    declined: bool,
}

/// An intent that was acknowledged.
struct Dropped {
    id: String,
    wish: Wish,
}

/// Whoever drops.
struct Dropper<'a> {
    house: &'a House,
    dice: StdRng,
    /// Used by other programs between restarts, and sometimes kept over them.
    conn: Option<Connection>,
    dropped: Vec<Dropped>,
    /// Names of the files, each with the ids of its intents.
    files: BTreeMap<String, Vec<String>>,
    /// Who can be updated and deleted.
    alive: Vec<String>,
    /// Creates whose token is declined.
    declined: BTreeSet<String>,
    count: usize,
}

impl<'a> Dropper<'a> {
    fn new(house: &'a House, seed: u64, alive: Vec<String>) -> Self {
        Self {
            house,
            dice: StdRng::seed_from_u64(seed),
            conn: None,
            dropped: Vec::new(),
            files: BTreeMap::new(),
            alive,
            declined: BTreeSet::new(),
            count: 0,
        }
    }

    fn create(&mut self) -> Wish {
        self.count += 1;
        let n = self.count;
        let mut body = json!({"email": format!("door-{n}@example.jp"), "metadata": {"n": n.to_string()}});
        let kind = self.dice.random_range(0..10);
        if kind < 3 {
            body["payment_details"] = json!(format!("tok_{n}"));
        } else if kind == 3 {
            body["payment_details"] = json!(format!("tok_card_declined_{n}"));
        }
        Wish { n, op: "create", target: None, customer: None, body: Some(body), declined: kind == 3 }
    }

    /// How a target is called now: its create may be done already.
    fn called(&mut self, target: &str) -> String {
        let known = target.strip_prefix('@').and_then(|id| {
            let column = self.house.column(&format!(
                "SELECT result_customer_id FROM intents WHERE id = '{id}' AND result_customer_id IS NOT NULL"
            ));
            column.first().cloned()
        });
        match known {
            Some(known) if self.dice.random_bool(0.5) => known,
            _ => target.to_owned(),
        }
    }

    fn about(&mut self, op: &'static str, target: String) -> Wish {
        self.count += 1;
        let n = self.count;
        let customer = Some(self.called(&target));
        let body = (op == "update").then(|| json!({"metadata": {"last": n.to_string()}}));
        Wish { n, op, target: Some(target), customer, body, declined: false }
    }

    /// A customer, or a create that is accepted: what lies in the spool directory may not be yet.
    fn somebody(&mut self) -> String {
        loop {
            let target = &self.alive[self.dice.random_range(0..self.alive.len())];
            let Some(id) = target.strip_prefix('@') else { return target.clone() };
            if self.house.one(&format!("SELECT count(*) FROM intents WHERE id = '{id}'")) == "1" {
                return target.clone();
            }
        }
    }

    fn update(&mut self) -> Wish {
        let target = self.somebody();
        self.about("update", target)
    }

    fn any(&mut self) -> Wish {
        match self.dice.random_range(0..10) {
            0..=3 => self.create(),
            // So that some are left whatever happens.
            9 if self.alive.iter().filter(|alive| !alive.starts_with('@')).count() > 3 => {
                let target = self.somebody();
                self.about("delete", target)
            }
            _ => self.update(),
        }
    }

    fn note(&mut self, id: String, wish: Wish) {
        match (wish.op, &wish.target) {
            ("update", _) => {}
            ("delete", Some(target)) => self.alive.retain(|alive| alive != target),
            _ => {
                self.alive.push(format!("@{id}"));
                if wish.declined {
                    self.declined.insert(format!("@{id}"));
                }
            }
        }
        self.dropped.push(Dropped { id, wish });
    }

    /// By any door.
    fn drop_any(&mut self) {
        match self.dice.random_range(0..10) {
            0..=2 => self.by_file(),
            3 => drop(self.by_lines()),
            4 => {
                let wish = self.any();
                self.by_cli(wish);
            }
            _ => {
                let wish = self.any();
                self.by_sql(wish);
            }
        }
    }

    fn by_sql(&mut self, wish: Wish) {
        if self.dice.random_bool(0.3) {
            self.conn = None;
        }
        let house = self.house;
        let conn = self.conn.get_or_insert_with(|| writer(house));
        let body = wish.body.as_ref().map(Value::to_string);
        let id: String = match self.dice.random_bool(0.5) {
            true => {
                let sql =
                    "INSERT INTO intents (op, customer_id, body, id) VALUES (?1, ?2, ?3, ?4) RETURNING id";
                let id = format!("sql-{}", wish.n);
                conn.query_row(sql, rusqlite::params![wish.op, wish.customer, body, id], |row| row.get(0))
            }
            false => {
                let sql = "INSERT INTO intents (op, customer_id, body) VALUES (?1, ?2, ?3) RETURNING id";
                conn.query_row(sql, rusqlite::params![wish.op, wish.customer, body], |row| row.get(0))
            }
        }
        .unwrap();
        self.note(id, wish);
    }

    fn by_cli(&mut self, wish: Wish) {
        let mut arguments = vec!["intent".to_owned(), wish.op.to_owned()];
        arguments.extend(wish.customer.clone());
        if let Some(body) = &wish.body {
            std::fs::write(self.house.path("body.json"), body.to_string()).unwrap();
            arguments.extend(["--body".to_owned(), format!("@{}", self.house.path("body.json").display())]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let id = self.house.expect(0, &arguments).stdout.trim_end().to_owned();
        self.note(id, wish);
    }

    /// One intent, `NAME.json`.
    fn by_file(&mut self) {
        let wish = self.any();
        let name = format!("one-{}", wish.n);
        let content = json_of(&wish, None).to_string();
        let id = format!("{name}@{}", digest(&content));
        let file = format!("{name}.json");
        rename_into_spool(self.house, &file, &content);
        self.files.insert(file, vec![id.clone()]);
        self.note(id, wish);
    }

    /// A create, its follower, and one more, `NAME.jsonl`. Returns the file's name.
    fn by_lines(&mut self) -> String {
        let create = self.create();
        let name = format!("lines-{}", create.n);
        let id = format!("made-{}", create.n);
        let first = json_of(&create, Some(&id));
        self.note(id.clone(), create);
        let follower = self.about("update", format!("@{id}"));
        let more = self.any();
        let content = format!("{first}\n{}\n{}\n", json_of(&follower, None), json_of(&more, None));
        let digest = digest(&content);
        let file = format!("{name}.jsonl");
        rename_into_spool(self.house, &file, &content);
        let ids = [id, format!("{name}@{digest}:2"), format!("{name}@{digest}:3")];
        self.files.insert(file.clone(), ids.to_vec());
        self.note(ids[1].clone(), follower);
        self.note(ids[2].clone(), more);
        file
    }
}

fn json_of(wish: &Wish, id: Option<&str>) -> Value {
    let mut intent = json!({"op": wish.op});
    for (name, value) in [
        ("customer_id", wish.customer.clone().map(Value::from)),
        ("body", wish.body.clone()),
        ("id", id.map(Value::from)),
    ] {
        if let Some(value) = value {
            intent[name] = value;
        }
    }
    intent
}

fn digest(content: &str) -> String {
    Sha256::digest(content)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn start(house: &House) -> Process {
    let log = File::options().create(true).append(true).open(house.path("daemon.log")).unwrap();
    Process::start(house.command(&["run"]).stdout(Stdio::null()).stderr(log))
}

fn kill(daemon: &mut Process) {
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// The intents that are not settled, and the end of the daemon's log, for a failure's message.
fn open_intents(house: &House) -> String {
    let open = "SELECT id || ' ' || state || ' ' || coalesce(customer_id, '') || ' ' || coalesce(reason, '')
        || ' after ' || attempts || ' attempts, next at ' || coalesce(next_attempt_at, '') FROM intents
        WHERE state IN ('queued', 'sending', 'waiting')";
    let log = std::fs::read_to_string(house.path("daemon.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    format!("{:#?}, open at {}\n{end}", house.column(open), house.one("SELECT datetime('now')"))
}

/// What goes wrong now and then. Each happens once, for each costs a second.
fn fault(dice: &mut StdRng) -> Option<Fault> {
    let call = [Call::Create, Call::Update, Call::Delete][dice.random_range(0..3)];
    let effect = match dice.random_range(0..10) {
        0 | 1 => Effect::Reset { work: Work::Done },
        2 => Effect::Reset { work: Work::Skipped },
        3 => Effect::status(500),
        4 => Effect::status(409),
        _ => return None,
    };
    Some(Fault::new(effect).call(call).once())
}

/// The values that each customer was sent, in their order.
type Sent = BTreeMap<String, Vec<usize>>;

/// Takes up what was sent; first everything that is under way there has its effect.
fn take_up(house: &House, sent: &mut Sent) {
    let is_under_way = |world: &komoju_sandbox::World| {
        let cut = world.fired_by_kind().get("reset").copied().unwrap_or(0);
        let open = world.requests().iter().filter(|seen| seen.method != "GET" && seen.status.is_none());
        open.count() as u64 > cut
    };
    assert!(within(house, Duration::from_secs(5), |world| !is_under_way(world)), "a request never ends");
    let mut world = house.sandbox.world();
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
    let house = House::with(12);
    configure(&house, "hold_deletes_over = 100000");
    house.expect(0, &["sync"]);
    let mut ids = house.sandbox.world().ids();
    let disputed = ids.pop().unwrap();
    let mut dropper = Dropper::new(&house, seed, ids);
    let mut dice = StdRng::seed_from_u64(seed + 1);
    let mut sent = Sent::new();
    let conflict = "INSERT INTO intents (id, op, customer_id, body, expect) VALUES
        ('conflict', 'update', ?1, '{\"email\": \"b\"}', '{\"email\": \"never\"}')";
    writer(&house).execute(conflict, [&disputed]).unwrap();

    let mut moments = BTreeMap::<&str, usize>::new();
    for round in 0..kills {
        for _ in 0..dice.random_range(0..3) {
            dropper.drop_any();
        }
        if let Some(fault) = fault(&mut dice) {
            house.inject(fault);
        }
        let mut daemon = start(&house);
        let moment = match round % 7 {
            0 | 1 => {
                let call = if round % 7 == 0 { Call::Create } else { Call::Update };
                // Each fault that is left over from earlier rounds delays it by a backoff: four of them by 15 s.
                house.sandbox.world().clear_faults();
                let held = house.inject(Fault::new(Effect::Hold).call(call));
                let wish = if call == Call::Create { dropper.create() } else { dropper.update() };
                dropper.by_sql(wish);
                let longest = Duration::from_secs(if call == Call::Create { 60 } else { 10 });
                let fired = within(&house, longest, |world| world.fired(held) > 0);
                // Its customer may wait behind a create that is declined.
                assert!(fired || call == Call::Update, "the create is never sent: {}", open_intents(&house));
                if dice.random_bool(0.5) {
                    dropper.drop_any();
                }
                kill(&mut daemon);
                house.sandbox.world().remove_fault(held);
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
                let until = house.sandbox.world().request_count() + dice.random_range(1..25);
                within(&house, Duration::from_secs(1), |world| world.request_count() >= until);
                kill(&mut daemon);
                "after some requests"
            }
            4 => {
                let wish = dropper.create();
                dropper.by_sql(wish);
                (0..500).any(|_| house.one("SELECT count(*) FROM intents WHERE state = 'sending'") != "0");
                kill(&mut daemon);
                "as it is claimed"
            }
            5 => {
                // It is watched from when the first look is over; before that it may be the first look that takes it.
                let file = dropper.by_lines();
                let claimed = house.path("spool/.claimed");
                let id = dropper.files[&file][1].clone();
                let taken = format!("SELECT count(*) FROM intents WHERE id = '{id}'");
                eventually("the file is taken", || house.one(&taken) == "1");
                kill(&mut daemon);
                let is_claimed = std::fs::read_dir(claimed).unwrap().next().is_some();
                if is_claimed { "between commit and unlink" } else { "after unlink" }
            }
            _ => {
                let effects =
                    |world: &komoju_sandbox::World| world.creates() + world.updates() + world.deletes();
                let until = effects(&house.sandbox.world()) + dice.random_range(1..4);
                for _ in 0..3 {
                    dropper.drop_any();
                }
                within(&house, Duration::from_secs(1), |world| effects(world) >= until);
                kill(&mut daemon);
                "as it takes effect"
            }
        };
        *moments.entry(moment).or_default() += 1;
        take_up(&house, &mut sent);
    }

    house.sandbox.world().clear_faults();
    let mut daemon = start(&house);
    let settled = || {
        let lies = std::fs::read_dir(house.path("spool")).unwrap().any(|entry| {
            let entry = entry.unwrap();
            entry.file_type().unwrap().is_file() && !entry.file_name().to_string_lossy().starts_with('.')
        });
        let is_claimed = std::fs::read_dir(house.path("spool/.claimed")).unwrap().next().is_some();
        !lies && !is_claimed && house.one(OPEN) == "0"
    };
    // What failed, or was killed, again and again is tried again after minutes: so a look that began with such a wait is followed by another.
    let waits = "SELECT count(*) FROM intents WHERE julianday(next_attempt_at) > julianday('now')";
    let ended = (0..40).any(|_| {
        let will_be_tried = house.one(waits) != "0";
        looked_until(settled) || !will_be_tried
    });
    if !ended || !settled() {
        let lies: Vec<_> = std::fs::read_dir(house.path("spool")).unwrap().collect();
        panic!("not settled: {lies:?} {}", open_intents(&house));
    }
    assert_eq!(stop(&mut daemon), Some(0));
    take_up(&house, &mut sent);

    let parked: Vec<String> = house.column("SELECT id FROM intents WHERE state = 'parked'");
    let mut cancel = vec!["intent", "cancel"];
    cancel.extend(parked.iter().map(String::as_str));
    compare(&house, &dropper, &sent);
    house.expect(0, &cancel);
    house.expect(0, &["sync"]);
    house.assert_true();
    house.expect(0, &["verify"]);
    papers(&house, &dropper);
}

/// What became of everything that was dropped.
fn compare(house: &House, dropper: &Dropper<'_>, sent: &Sent) {
    let mut dropped: Vec<String> = dropper.dropped.iter().map(|dropped| dropped.id.clone()).collect();
    dropped.push("conflict".to_owned());
    dropped.sort();
    let mut there = house.column("SELECT id FROM intents");
    there.sort();
    assert_eq!(dropped, there, "each is an intent, once");
    let strange = "SELECT id || ' ' || state || ' ' || coalesce(reason, '') FROM intents
        WHERE NOT (state = 'done' OR (state IN ('rejected', 'parked') AND coalesce(reason, '') <> ''))";
    assert_eq!(house.column(strange), Vec::<String>::new());

    // What counts is the order in which they were accepted: a file may be taken later than it was dropped.
    let position = |id: &str| -> u64 {
        house.one(&format!("SELECT position FROM intents WHERE id = '{id}'")).parse().unwrap()
    };
    let positions: Vec<u64> = dropper.dropped.iter().map(|dropped| position(&dropped.id)).collect();
    let (mut deleted, mut last) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, (u64, usize)>::new());
    for (Dropped { wish, .. }, position) in dropper.dropped.iter().zip(&positions) {
        if let (Some(target), "delete") = (&wish.target, wish.op) {
            deleted.insert(target, *position);
        }
    }
    let truth = house.sandbox.world().truth();
    let mut done_creates = 0;
    let mut made = BTreeMap::<String, String>::new();
    for (Dropped { id, wish }, position) in dropper.dropped.iter().zip(&positions) {
        let state = house.one(&format!("SELECT state FROM intents WHERE id = '{id}'"));
        let target = wish.target.as_deref();
        let is_late = target.and_then(|target| deleted.get(target)).is_some_and(|deleted| deleted < position);
        let expected = match () {
            () if wish.declined => "rejected",
            () if target.is_some_and(|target| dropper.declined.contains(target)) => "parked",
            () if is_late => "rejected",
            () => "done",
        };
        let reason = house.one(&format!("SELECT coalesce(reason, '') FROM intents WHERE id = '{id}'"));
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
        let result = house.one(&format!("SELECT result_customer_id FROM intents WHERE id = '{id}'"));
        match state == "done" && !deleted.contains_key(target.as_str()) {
            true => assert_eq!(known, [&result], "{id}"),
            false => assert_eq!(known, Vec::<&String>::new(), "{id} was rejected or deleted"),
        }
        if state == "done" {
            done_creates += 1;
            made.insert(target, result);
        }
    }
    assert_eq!(house.sandbox.world().creates(), done_creates, "each create once");
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
    assert_eq!(house.column(journal), Vec::<String>::new());
    let journal =
        "SELECT id FROM intents AS i WHERE attempts <> (SELECT count(*) FROM attempts WHERE intent_id = i.id)
        OR attempts <> (SELECT coalesce(max(n), 0) FROM attempts WHERE intent_id = i.id)";
    assert_eq!(house.column(journal), Vec::<String>::new());
}

/// Each file has its receipt, and nothing else lies in the spool directory.
fn papers(house: &House, dropper: &Dropper<'_>) {
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(house.path(path)).unwrap();
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
        let text = std::fs::read_to_string(house.path(&format!("spool/receipts/{name}.json"))).unwrap();
        let receipt: Value = serde_json::from_str(&text).unwrap();
        let entries = receipt["intents"].as_array().unwrap();
        let told: Vec<&str> = entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert_eq!(&told, ids, "{name}");
        for entry in entries {
            let sql = format!("SELECT state FROM intents WHERE id = '{}'", entry["id"].as_str().unwrap());
            assert_eq!(entry["state"], json!(house.one(&sql)), "{name} {entry}");
        }
    }
}
