//! The outbox by hand: the real binary's `intent` commands on a database that its `sync` made.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "inbound/house.rs"]
#[allow(dead_code, reason = "not every test needs every room")]
mod house;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use house::{House, Process, Ran, own};
use serde_json::{Value, json};

/// A house whose mirror has `customers`.
fn swept(customers: u32) -> House {
    let house = House::with(customers);
    house.expect(0, &["sync"]);
    house
}

fn sql(house: &House, statements: &str) {
    own(&house.path("komoju.db")).execute_batch(statements).unwrap();
}

fn file(house: &House, name: &str, content: &str) -> String {
    let path = house.path(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// UTF-16 as Windows writes it, with its mark.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn fed(house: &House, arguments: &[&str], input: &str) -> Ran {
    let mut child = house
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn intents(house: &House) -> String {
    house.one("SELECT count(*) FROM intents")
}

#[test]
fn without_a_database_each_command_says_what_makes_one() {
    let house = House::with(0);
    let empty = file(&house, "none.jsonl", "");
    for arguments in [
        &["create", "--email", "a"][..],
        &["delete", "c"],
        &["import", &empty, "--yes"],
        &["list"],
        &["show", "x"],
        &["plan"],
        &["approve"],
        &["retry", "x"],
        &["cancel", "x"],
    ] {
        let ran = house.expect(5, &[&["intent"], arguments].concat());
        assert!(ran.stderr.contains("`komoju-sync sync`"), "{}", ran.stderr);
    }
    assert!(!house.path("komoju.db").exists());
}

#[test]
fn every_command_has_help_with_an_example() {
    let house = House::with(0);
    for name in ["create", "update", "delete", "import", "list", "show", "plan", "approve", "retry", "cancel"]
    {
        let help = house.expect(0, &["intent", name, "--help"]).stdout;
        assert!(help.contains("Example") && help.contains(&format!("intent {name}")), "{name}: {help}");
    }
}

#[test]
fn what_is_given_is_queued_as_it_is_and_its_id_is_printed() {
    let house = swept(1);
    let body =
        file(&house, "body.json", r#"{"email":"old@x","metadata":{"a":"1","b":"2"},"currency":"JPY"}"#);
    let body = format!("@{body}");
    let ran = house.expect(
        0,
        &[
            "intent",
            "create",
            "--body",
            &body,
            "--email",
            "",
            "--metadata",
            "b=3",
            "--metadata",
            "c=x=y",
            "--id",
            "n1",
            "--not-before",
            "2099-01-31T09:30:00+09:00",
        ],
    );
    assert_eq!(ran.stdout, "n1\n");
    assert!(
        ran.stderr
            .contains("queued; no daemon runs: `komoju-sync sync` or `komoju-sync run` sends what is due")
    );
    assert!(ran.stderr.contains("not before 2099-01-31T09:30:00+09:00"), "{}", ran.stderr);
    let id = "o'brien:\"quoted\"";
    let expect = r#"{"email":null,"metadata":{"k":null}}"#;
    let update = house.expect(0, &["intent", "update", id, "--metadata", "k=v", "--expect", expect]).stdout;
    let update = update.trim_end();
    let row = &lines(&house.expect(0, &["intent", "delete", "@n1", "--json"]).stdout)[0];
    assert_eq!(row["customer_id"], "@n1");
    let columns = house.column("SELECT name FROM pragma_table_info('intents')");
    let mut keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    let mut sorted = columns.clone();
    sorted.sort();
    keys.sort();
    assert_eq!(keys, sorted);

    let rows = lines(&house.expect(0, &["intent", "list", "--json"]).stdout);
    assert_eq!(
        rows.iter().map(|row| row["op"].as_str().unwrap()).collect::<Vec<_>>(),
        ["create", "update", "delete"]
    );
    assert_eq!(
        rows[0]["body"],
        json!({"currency": "JPY", "email": "", "metadata": {"a": "1", "b": "3", "c": "x=y"}})
    );
    assert_eq!(
        (&rows[0]["not_before"], &rows[0]["door"]),
        (&json!("2099-01-31T00:30:00.000Z"), &json!("cli"))
    );
    assert!(rows[0]["submitted_by"].as_str().unwrap().starts_with("uid "), "{}", rows[0]["submitted_by"]);
    assert_eq!((&rows[1]["id"], &rows[1]["customer_id"]), (&json!(update), &json!(id)));
    assert_eq!(rows[1]["expect"], json!({"email": null, "metadata": {"k": null}}));
}

#[test]
fn whoever_runs_it_through_sudo_is_named() {
    let house = swept(0);
    house
        .command(&["intent", "create", "--email", "a"])
        .env("SUDO_USER", "hanako")
        .env("USER", "root")
        .output()
        .unwrap();
    assert_eq!(house.one("SELECT submitted_by FROM intents"), "hanako");
}

#[test]
fn what_breaks_a_rule_is_refused_by_field_and_nothing_is_queued() {
    let house = swept(0);
    let card = file(&house, "card.json", r#"{"payment_details":{"number":"4111111111111111"}}"#);
    let odd = file(&house, "odd.json", "[1]");
    let (card, odd) = (format!("@{card}"), format!("@{odd}"));
    let empty = format!("@{}", file(&house, "empty.json", "{}"));
    let marked = format!("@{}", file(&house, "marked.json", "\u{feff}{\"email\":\"a\"}"));
    let comma = format!("@{}", file(&house, "comma.json", "{\"email\":\"a\",}"));
    std::fs::write(house.path("wide.json"), utf16(r#"{"email":"a"}"#)).unwrap();
    let wide = format!("@{}", house.path("wide.json").display());
    let long = format!("{}=x", "k".repeat(31));
    for (arguments, part) in [
        (&["update", "c"][..], "body: an update must change something"),
        (
            &["create"],
            "body: a create needs at least one parameter: currency, email, metadata, payment_details",
        ),
        (&["create", "--id", "n1", "--wait"], "body: a create needs at least one parameter"),
        (&["create", "--body", &empty], "body: a create needs at least one parameter"),
        (
            &["create", "--body", &marked],
            "--body: begins with a byte order mark; save it as UTF-8 without one",
        ),
        (&["create", "--body", &wide], "--body: is UTF-16; save it as UTF-8"),
        (&["create", "--body", &comma], "--body: must be JSON, and has a trailing comma at column 13"),
        (&["create", "--body", "-"], "--body: is empty"),
        (&["delete", "c", "--expect", &marked], "--expect: begins with a byte order mark"),
        (
            &["delete", "c", "--expect", r#"{"email":"a",}"#],
            "--expect: must be JSON, and has a trailing comma",
        ),
        (&["update", "..", "--email", "a"], "customer_id: must have 1 to 1024 bytes"),
        (&["update", "@nobody", "--email", "a"], "customer_id: must be @ and the id of a create"),
        (&["create", "--metadata", "k"], "--metadata: must be K=V"),
        (&["create", "--metadata", "k=1", "--metadata", "k=1"], "--metadata: k is given twice"),
        (&["create", "--metadata", &long], "body.metadata: a key has more than 30 characters"),
        (&["create", "--email", "a", "--id", "@x"], "id: must have"),
        (&["create", "--email", "a", "--not-before", "tomorrow"], "not_before: must be a time"),
        (&["create", "--email", "a", "--not-before", "2026-02-30T00:00:00Z"], "not_before: must be a time"),
        (&["create", "--body", &card], "body.payment_details: must be a payment token"),
        (&["create", "--body", &odd], "--body: must be a JSON object"),
        (&["create", "--body", r#"{"email":"a"}"#], "everybody on this machine can read a command line"),
        (&["create", "--payment-details", "x"], "--payment-details"),
        (&["create", "--expect", "{}"], "--expect"),
        (&["delete", "c", "--expect", "soon"], "--expect: must be JSON, and is not at column 1"),
        (&["delete", "c", "--expect", "7"], "--expect: must be a JSON object"),
        (&["delete", "c", "--expect", r#"{"id":"c"}"#], "expect.id: is not known here"),
        (&["delete", "c", "--email", "a"], "--email"),
        (&["list", "--state", "lost"], "a state is one of"),
    ] {
        let ran = house.expect(2, &[&["intent"], arguments].concat());
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("4111"), "{}", ran.stderr);
    }
    assert_eq!(intents(&house), "0");
    sql(&house, "UPDATE meta SET outbound_enabled = 0");
    let ran = house.expect(2, &["intent", "create", "--email", "a"]);
    assert!(ran.stderr.contains("pushing is switched off (outbound.enabled = false)"), "{}", ran.stderr);
}

#[test]
fn the_same_id_with_the_same_content_is_one_intent() {
    let house = swept(0);
    house.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    let again = house.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    assert_eq!(again.stdout, "n1\n");
    assert!(again.stderr.contains("accepted under this id before; it is queued"), "{}", again.stderr);
    let other = house.expect(2, &["intent", "create", "--email", "b", "--id", "n1"]);
    assert!(other.stderr.contains("id: n1 was used before"), "{}", other.stderr);
    assert_eq!(intents(&house), "1");
}

#[test]
fn a_token_is_in_no_output_of_any_command() {
    let house = swept(1);
    let token = "tok_canary8f3a";
    let shown = |ran: Ran| {
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(token), "{}{}", ran.stdout, ran.stderr);
        ran
    };
    let body = json!({"email": "a@x", "payment_details": token}).to_string();
    let at = format!("@{}", file(&house, "body.json", &body));
    let given = shown(fed(&house, &["intent", "create", "--body", "-", "--id", "n1", "--json"], &body));
    assert_eq!(lines(&given.stdout)[0]["body"]["payment_details"], "****");
    assert!(house.one("SELECT body FROM intents").contains(token), "the row must hold it until it is sent");
    let customer = house.sandbox.world().ids()[0].clone();
    shown(house.expect(0, &["intent", "update", &customer, "--body", &at, "--id", "n2"]));
    shown(house.expect(2, &["intent", "create", "--body", &body]));
    shown(house.expect(2, &["intent", "create", "--body", token]));
    let wrong = json!({"payment_details": token, "locale": "ja"}).to_string();
    shown(fed(&house, &["intent", "create", "--body", "-"], &wrong));
    shown(fed(&house, &["intent", "create", "--body", "-"], &format!("{{{token}")));
    let line = json!({"op": "create", "body": {"payment_details": token}}).to_string();
    shown(fed(&house, &["intent", "import", "-", "--yes"], &line));
    shown(fed(&house, &["intent", "import", "-", "--yes"], &format!("{line} {token}")));
    for arguments in [&["list"][..], &["list", "--json"], &["show", "n1"], &["show", "n1", "--json"]] {
        shown(house.expect(0, &[&["intent"], arguments].concat()));
    }
    for arguments in [&["plan"][..], &["plan", "--json"]] {
        let plan = shown(house.expect(0, &[&["intent"], arguments].concat()));
        assert!(plan.stdout.contains(r#""payment_details":"****""#), "{}", plan.stdout);
    }
    shown(house.expect(0, &["status"]));
    shown(house.expect(0, &["status", "--json"]));
    // A row that another program spoilt is not shown at all.
    sql(&house, "DROP TRIGGER intents_transitions");
    sql(&house, &format!("UPDATE intents SET body = 'x {token}' WHERE id = 'n2'"));
    for arguments in [&["list", "--json"][..], &["show", "n2"], &["plan"], &["plan", "--json"]] {
        shown(house.run(&[&["intent"], arguments].concat()));
    }
    shown(house.expect(0, &["intent", "cancel", "n1"]));
    shown(house.expect(1, &["intent", "retry", "n1", "--body", &at]));
}

/// Starts a command that waits; returns it once it does, with what it printed.
fn waiting(house: &House, arguments: &[&str]) -> (Process, BufReader<std::process::ChildStderr>) {
    let mut child = house.spawn(arguments);
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ctrl-C ends the waiting") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it ended without waiting");
    }
    (child, told)
}

fn ended(mut child: Process, mut told: BufReader<std::process::ChildStderr>) -> (Option<i32>, String) {
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

/// A daemon, started and idle. Intents with `LATER` stay queued beside it.
fn daemon(house: &House) -> Process {
    let daemon = house.spawn(&["run"]);
    let idle = "SELECT count(*) FROM pass WHERE id > 1 AND finished_at IS NOT NULL";
    assert!((0..20_000).any(|_| house.one(idle) != "0"), "the daemon does not sweep");
    daemon
}

const LATER: [&str; 2] = ["--not-before", "2099-01-01T00:00:00Z"];

/// `intent create` of a customer with this id for the intent, which waits.
fn create_and_wait(house: &House, id: &str) -> (Process, BufReader<std::process::ChildStderr>) {
    waiting(house, &[&["intent", "create", "--email", "a", "--id", id, "--wait"], &LATER[..]].concat())
}

#[test]
fn wait_without_a_daemon_ends_at_once_with_3() {
    let house = swept(0);
    let ran = house.expect(3, &["intent", "create", "--email", "a", "--id", "n1", "--wait", "--json"]);
    for part in ["not waiting, because no daemon runs; intent n1 stays queued", "intent show n1"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert_eq!(lines(&ran.stdout)[0]["state"], "queued");
}

#[test]
fn who_waits_exits_by_what_becomes_of_it() {
    let house = swept(0);
    let _daemon = daemon(&house);
    for (id, code, how) in [
        (
            "done",
            0,
            "BEGIN; UPDATE intents SET state = 'sending' WHERE id = 'done';
             UPDATE intents SET state = 'done' WHERE id = 'done'; COMMIT",
        ),
        (
            "rejected",
            1,
            "BEGIN; UPDATE intents SET state = 'sending' WHERE id = 'rejected';
             UPDATE intents SET state = 'rejected', reason = 'said no' WHERE id = 'rejected'; COMMIT",
        ),
        ("parked", 3, "UPDATE intents SET state = 'parked', reason = 'a conflict' WHERE id = 'parked'"),
    ] {
        let (child, told) = create_and_wait(&house, id);
        sql(&house, how);
        let (ended, rest) = ended(child, told);
        assert_eq!(ended, Some(code), "{id}: {rest}");
        assert!(rest.contains(id), "{rest}");
    }
    let (child, told) = create_and_wait(&house, "taken back");
    house.expect(0, &["intent", "cancel", "taken back"]);
    let (code, rest) = ended(child, told);
    assert_eq!(code, Some(1));
    assert!(rest.contains("cancelled by uid"), "{rest}");
    // What is settled already is told at once.
    let again =
        [&["intent", "create", "--email", "a", "--id", "parked", "--wait", "--json"], &LATER[..]].concat();
    let again = house.expect(3, &again);
    assert_eq!(lines(&again.stdout)[0]["state"], "parked");
    assert!(again.stderr.contains("a conflict"), "{}", again.stderr);
}

#[test]
fn ctrl_c_ends_the_waiting_and_not_the_intent() {
    let house = swept(0);
    let _daemon = daemon(&house);
    let (child, told) = create_and_wait(&house, "n1");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    let (code, rest) = ended(child, told);
    assert_eq!(code, Some(3));
    assert!(rest.contains("intent n1 stays queued"), "{rest}");
    assert_eq!(house.one("SELECT state FROM intents"), "queued");
}

#[test]
fn lists_come_in_order_however_long_and_tell_what_waits_for_a_person() {
    let house = swept(0);
    sql(
        &house,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1203)
         INSERT INTO intents (id, op, customer_id) SELECT 'i' || i, 'delete', 'c' || i FROM n;
         UPDATE intents SET state = 'cancelled' WHERE id = 'i7';",
    );
    let ids = |ran: &Ran| -> Vec<String> {
        lines(&ran.stdout).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = house.expect(0, &["intent", "list", "--all", "--json"]);
    assert_eq!(ids(&all), (1..=1203).map(|n| format!("i{n}")).collect::<Vec<_>>());
    let open = house.expect(0, &["intent", "list"]);
    assert_eq!(open.stdout.lines().count(), 1202);
    assert!(open.stderr.is_empty(), "{}", open.stderr);
    assert_eq!(ids(&house.expect(0, &["intent", "list", "--state", "cancelled", "--json"])), ["i7"]);

    sql(&house, "UPDATE outbox SET held = 1 WHERE position = 1100");
    let held = house.expect(3, &["intent", "list"]);
    assert!(held.stderr.contains("1 delete waits for `komoju-sync intent approve`"), "{}", held.stderr);
    house.expect(0, &["intent", "list", "--state", "cancelled"]);
    sql(
        &house,
        "UPDATE outbox SET held = 0; UPDATE intents SET state = 'parked', reason = 'why\nnot' WHERE id = 'i9'",
    );
    let parked = house.expect(3, &["intent", "list"]);
    let line = parked.stdout.lines().find(|line| line.starts_with("i9 ")).unwrap();
    assert!(line.contains("parked") && line.contains("c9") && line.ends_with("why not"), "{line}");
    assert!(parked.stderr.contains("1 intent is parked"), "{}", parked.stderr);
}

#[test]
fn a_conflict_is_laid_out_with_what_a_person_can_do() {
    let house = swept(0);
    let unknown = house.expect(1, &["intent", "show", "nobody"]);
    assert!(unknown.stderr.contains("there is no intent nobody"), "{}", unknown.stderr);
    house.expect(0, &["intent", "update", "c", "--id", "n1", "--email", "mine", "--metadata", "k=new"]);
    let queued = house.expect(0, &["intent", "show", "n1"]);
    assert!(
        queued.stderr.contains("intent cancel n1") && !queued.stderr.contains("retry"),
        "{}",
        queued.stderr
    );
    let detail = json!({"differs": ["email"], "base": {"email": "then"},
        "theirs": {"email": "now", "metadata": {"k": "old"}}, "ours": {"email": "mine", "metadata": {"k": "new"}}});
    sql(
        &house,
        &format!(
            "UPDATE meta SET engine = 1; UPDATE intents SET state = 'sending', attempts = 1;
             UPDATE intents SET state = 'parked', detail = '{detail}', reason = 'not as expected'; UPDATE meta SET engine = 0;
             INSERT INTO attempts VALUES ('n1', 1, '2026-01-31T09:30:00.000Z', NULL, 502, 'parked', 'bad gateway');"
        ),
    );
    let shown = house.expect(3, &["intent", "show", "n1"]);
    let row = |first: &str| {
        let line = shown.stdout.lines().find(|line| line.starts_with(first)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("email "), ["email", "\"then\"", "\"now\"", "\"mine\""]);
    assert_eq!(row("metadata.k"), ["metadata.k", "\"old\"", "\"new\""]);
    assert_eq!(row("attempt ")[..2], ["attempt", "1"]);
    assert!(shown.stdout.contains("HTTP 502   parked    bad gateway"), "{}", shown.stdout);
    for command in ["intent retry n1 [--body @FILE]", "intent cancel n1"] {
        assert!(shown.stderr.contains(command), "{}", shown.stderr);
    }
    let row = &lines(&house.expect(3, &["intent", "show", "n1", "--json"]).stdout)[0];
    assert_eq!(row["detail"], detail);
}

#[test]
fn a_plan_shows_each_call_what_it_changes_and_what_it_waits_for() {
    let house = swept(2);
    let requests = house.sandbox.world().request_count();
    let ids = house.sandbox.world().ids();
    let email = house.mirror()[&ids[0]]["email"].as_str().unwrap().to_owned();
    for arguments in [
        &["create", "--id", "n1", "--email", "new@x"][..],
        &["update", &ids[0], "--id", "n2", "--email", "other@x", "--metadata", "k=v"],
        &["delete", &ids[0], "--id", "n3"],
        &["update", "@n1", "--id", "n4", "--email", "newer@x"],
        &["delete", "a+b:é", "--id", "n5", "--not-before", "2099-01-01T00:00:00Z"],
    ] {
        house.expect(0, &[&["intent"], arguments].concat());
    }
    let plan = lines(&house.expect(0, &["intent", "plan", "--json"]).stdout);
    let call =
        |n: usize| format!("{} {}", plan[n]["method"].as_str().unwrap(), plan[n]["path"].as_str().unwrap());
    assert_eq!(call(0), "POST /customers");
    assert_eq!((&plan[0]["key"], &plan[0]["body"]), (&json!("new"), &json!({"email": "new@x"})));
    assert_eq!(call(1), format!("PATCH /customers/{}", ids[0]));
    assert_eq!(plan[1]["differs"]["email"], json!({"from": email, "to": "other@x"}));
    assert_eq!(plan[1]["differs"]["metadata.k"], json!({"from": null, "to": "v"}));
    assert_eq!(call(2), format!("DELETE /customers/{}", ids[0]));
    assert_eq!((&plan[2]["email"], &plan[2]["waits_for"]), (&json!(email), &json!("intent n2")));
    assert_eq!((call(3).as_str(), &plan[3]["waits_for"]), ("PATCH /customers/@n1", &json!("intent n1")));
    assert_eq!(call(4), "DELETE /customers/a%2Bb%3A%C3%A9");
    assert_eq!(plan[4]["waits_for"], "its time, 2099-01-01T00:00:00.000Z");
    assert_eq!((&plan[0]["waits_for"], &plan[1]["waits_for"]), (&Value::Null, &Value::Null));

    let told = house.expect(0, &["intent", "plan"]);
    for part in [
        "POST /customers  {\"email\":\"new@x\"}  with a new key",
        &format!("deletes {email}"),
        "-> \"other@x\"",
    ] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    assert!(
        told.stderr.contains("2 calls would be sent now, 3 more wait; nothing was sent"),
        "{}",
        told.stderr
    );

    sql(&house, "UPDATE outbox SET key = 'k', tag = 'made_by' WHERE position = 1");
    std::fs::OpenOptions::new()
        .append(true)
        .open(house.path("config.toml"))
        .unwrap()
        .write_all(b"hold_deletes_over = 1\nreconcile_tag = 'tag'\n")
        .unwrap();
    let plan = lines(&house.expect(3, &["intent", "plan", "--json"]).stdout);
    assert_eq!((&plan[0]["key"], &plan[0]["body"]["metadata"]), (&json!("its"), &json!({"made_by": "n1"})));
    assert!(plan[2]["waits_for"].as_str().unwrap().contains("intent approve"), "{}", plan[2]);
    assert_eq!(house.sandbox.world().request_count(), requests, "nothing was sent");
    assert_eq!(house.one("SELECT count(*) FROM intents WHERE state = 'queued'"), "5");
}

#[test]
fn a_person_approves_retries_and_takes_back() {
    let house = swept(0);
    for (id, customer) in [("d1", "a"), ("d2", "b"), ("d3", "c")] {
        house.expect(0, &["intent", "delete", customer, "--id", id]);
    }
    house.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    assert!(house.expect(0, &["intent", "approve"]).stderr.contains("no delete waits"));
    sql(&house, "UPDATE outbox SET held = 1 WHERE position < 4");
    let status: Value = serde_json::from_str(&house.expect(3, &["status", "--json"]).stdout).unwrap();
    assert_eq!(status["held_deletes"], 3);
    assert!(
        house.expect(0, &["intent", "approve", "d2"]).stderr.contains("1 delete approved: no daemon runs")
    );
    assert!(house.expect(0, &["intent", "approve"]).stderr.contains("2 deletes approved"));
    assert_eq!(house.one("SELECT count(*) FROM outbox WHERE approved = 1 AND held = 0"), "3");
    house.expect(0, &["status"]);
    let no_delete = house.expect(1, &["intent", "approve", "n1"]);
    assert!(no_delete.stderr.contains("n1 is not a delete"), "{}", no_delete.stderr);

    // At once, before anybody has looked at the outbox: by the rule that `import` tells, they wait.
    for id in ["d4", "d5"] {
        house.expect(0, &["intent", "delete", id, "--id", id]);
    }
    let config = house.path("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}hold_deletes_over = 1\n")).unwrap();
    assert!(house.expect(0, &["intent", "approve"]).stderr.contains("2 deletes approved"));

    let early = house.expect(1, &["intent", "retry", "n1"]);
    assert!(early.stderr.contains("n1: an intent that is queued cannot be retried"), "{}", early.stderr);
    sql(&house, "UPDATE intents SET state = 'parked' WHERE id = 'n1'");
    let ran = fed(&house, &["intent", "retry", "n1", "--body", "-"], r#"{"email":5}"#);
    assert_eq!((ran.code, ran.stderr.contains("body.email: must be a text or null")), (2, true));
    let ran = fed(&house, &["intent", "retry", "n1", "--body", "-"], "{}");
    assert_eq!(
        (ran.code, ran.stderr.contains("--body: needs at least one parameter")),
        (2, true),
        "{}",
        ran.stderr
    );
    let ran = fed(&house, &["intent", "retry", "n1", "--body", "-"], r#"{"email":"b"}"#);
    assert_eq!((ran.code, ran.stderr.contains("n1 is queued again")), (0, true), "{}", ran.stderr);
    assert_eq!(house.one("SELECT state || body FROM intents WHERE id = 'n1'"), r#"queued{"email":"b"}"#);
    sql(
        &house,
        "UPDATE intents SET state = 'parked' WHERE id = 'n1';
         UPDATE outbox SET outcome_unknown = 1, key = 'k' WHERE position = 4",
    );
    let ran = house.expect(0, &["intent", "retry", "n1"]);
    assert!(ran.stderr.contains("n1 waits to be tried again as the very same request"), "{}", ran.stderr);

    let both = house.expect(1, &["intent", "cancel", "d1", "nobody"]);
    assert!(both.stderr.contains("there is no intent nobody"), "{}", both.stderr);
    assert_eq!(house.one("SELECT state FROM intents WHERE id = 'd1'"), "queued", "all or none");
    assert_eq!(house.expect(0, &["intent", "cancel", "d1", "d2"]).stderr, "cancelled d1\ncancelled d2\n");
    sql(&house, "UPDATE intents SET state = 'parked' WHERE id = 'n1'");
    let unclear = house.expect(0, &["intent", "cancel", "n1"]);
    assert!(unclear.stderr.contains("whether an attempt took effect is not known"), "{}", unclear.stderr);
    house.expect(1, &["intent", "cancel", "n1"]);
}

#[test]
fn a_file_is_taken_whole_or_not_at_all() {
    let house = swept(0);
    let bad = [
        r#"{"op":"create","id":"n1","body":{"email":"a"}}"#,
        r#"{"op":"create","body":{"email":5}}"#,
        "",
        "nonsense",
        r#"{"op":"destroy"}"#,
    ];
    let ran = house.expect(2, &["intent", "import", &file(&house, "bad.jsonl", &bad.join("\n")), "--yes"]);
    for part in
        ["3 lines", "line 2: body.email: must be", "line 4: the intent: must be JSON", "line 5: op: must"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let unknown = file(
        &house,
        "unknown.jsonl",
        "{\"op\":\"create\",\"id\":\"n1\",\"body\":{\"email\":\"a\"}}\n{\"op\":\"delete\",\"customer_id\":\"@n2\"}\n",
    );
    let ran = house.expect(2, &["intent", "import", &unknown, "--yes"]);
    assert!(ran.stderr.contains("line 2: customer_id: must be @ and the id of a create"), "{}", ran.stderr);
    let long = format!(
        "{{\"op\":\"create\",\"body\":{{\"email\":\"a\"}}}}\n{}\n{{\"op\":\"nothing\"}}\n",
        "x".repeat(3 << 20)
    );
    let ran = house.expect(2, &["intent", "import", &file(&house, "long.jsonl", &long), "--yes"]);
    assert!(
        ran.stderr.contains("line 2: a line has at most") && ran.stderr.contains("line 3: op"),
        "{}",
        ran.stderr
    );
    assert_eq!(intents(&house), "0");

    let mut good = vec![r#"{"op":"create","id":"n1","body":{"email":"a"}}"#.to_owned(), "  ".to_owned()];
    good.push(r#"{"op":"update","customer_id":"@n1","body":{"email":"a"}}"#.to_owned());
    good.extend((0..25).map(|n| format!(r#"{{"op":"delete","customer_id":"c{n}"}}"#)));
    let good = file(&house, "good.jsonl", &good.join("\n"));
    let preview = house.expect(2, &["intent", "import", &good]);
    for part in [
        "27 intents: 1 create, 1 update and 25 deletes\n",
        "customers: 25 unknown to the mirror (c0, c1, c10, c11, c12, …), 1 that an intent creates\n",
        "these 25 deletes wait for `komoju-sync intent approve`",
        "PATCH /customers/@n1  {\"email\":\"a\"}",
        "DELETE /customers/c2\n",
        "… and 22 more",
        "add --yes",
    ] {
        assert!(preview.stderr.contains(part), "{part}: {}", preview.stderr);
    }
    assert_eq!((preview.stdout.as_str(), intents(&house).as_str()), ("", "0"));
    let taken = house.expect(0, &["intent", "import", &good, "--yes"]);
    assert_eq!(
        taken.stdout.lines().collect::<Vec<_>>(),
        house.column("SELECT id FROM intents ORDER BY position")
    );
    assert_eq!(taken.stdout.lines().count(), 27);
    assert!(taken.stderr.contains("queued 27 intents; no daemon runs"), "{}", taken.stderr);
    let again =
        fed(&house, &["intent", "import", "-", "--yes"], r#"{"op":"create","id":"n1","body":{"email":"a"}}"#);
    assert_eq!(again.stdout, "n1\n");
    assert!(again.stderr.contains("queued 0 intents (1 more were accepted before)"), "{}", again.stderr);
}

#[test]
fn import_that_is_only_tried_notes_that_its_tokens_may_be_left() {
    let house = House::with(1);
    house.expect(0, &["sync"]);
    let left = || house.one("SELECT left_over_tokens - wiped_tokens FROM meta");
    let line = |id: &str, more: &str| {
        format!(r#"{{"op":"create","id":"{id}","body":{{"email":"a@example.jp"{more}}}}}"#)
    };
    let plain = file(&house, "plain.jsonl", &line("plain", ""));
    house.expect(2, &["intent", "import", &plain]);
    assert_eq!(left(), "0");
    let token = file(&house, "token.jsonl", &line("token", r#","payment_details":"tok_1""#));
    house.expect(2, &["intent", "import", &token]);
    assert_eq!((left().as_str(), intents(&house).as_str()), ("1", "0"));
    house.expect(0, &["sync"]);
    assert_eq!(left(), "0");
    house.expect(0, &["intent", "import", &token, "--yes"]);
    assert_eq!((left().as_str(), intents(&house).as_str()), ("0", "1"), "nothing was taken back");
}

#[test]
fn import_without_an_intent_is_refused() {
    let house = swept(0);
    let before = intents(&house);
    for content in ["", "\n \r\n\n"] {
        let path = file(&house, "empty.jsonl", content);
        let ran = house.expect(2, &["intent", "import", &path, "--yes"]);
        assert!(
            ran.stderr.contains(&format!("nothing was queued; {path} holds no intent")),
            "{}",
            ran.stderr
        );
        let ran = fed(&house, &["intent", "import", "-", "--yes"], content);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains("nothing was queued; standard input holds no intent"), "{}", ran.stderr);
    }
    let directory = house.path("").display().to_string();
    let ran = house.expect(2, &["intent", "import", &directory, "--yes"]);
    assert!(ran.stderr.contains("cannot be read: is a directory"), "{}", ran.stderr);
    assert_eq!(intents(&house), before);
}

#[test]
fn import_names_the_fault_of_an_encoding_and_of_a_comma() {
    let house = swept(0);
    let line = r#"{"op":"create","body":{"email":"a"}}"#;
    std::fs::write(house.path("wide.jsonl"), utf16(&format!("{line}\r\n{line}\r\n"))).unwrap();
    for (path, part) in [
        (
            file(&house, "marked.jsonl", &format!("\u{feff}{line}\n{line}\n")),
            "marked.jsonl begins with a byte order mark",
        ),
        (house.path("wide.jsonl").display().to_string(), "wide.jsonl is UTF-16; save it as UTF-8"),
        (
            file(&house, "comma.jsonl", &format!("{line},\n{line}\n")),
            "line 1: the intent: must be JSON, and has a trailing comma at column 37",
        ),
    ] {
        let ran = house.expect(2, &["intent", "import", &path, "--yes"]);
        assert!(ran.stderr.contains(part) && ran.stderr.lines().count() < 3, "{part}: {}", ran.stderr);
    }
    assert_eq!(intents(&house), "0");
}

#[test]
fn import_tells_which_customers_the_mirror_knows() {
    let house = swept(3);
    let ids = house.sandbox.world().ids();
    house.sandbox.world().delete(&ids[1]);
    house.expect(0, &["sync"]);
    let line = |id: &str| format!("{}\n", json!({"op": "update", "customer_id": id, "body": {"email": "a"}}));
    let all: String = [&ids[0], &ids[1], &ids[2], "typo", &ids[0]].map(line).concat();
    let ran = fed(&house, &["intent", "import", "-", "--yes"], &all);
    let part = "customers: 2 in the mirror, 1 deleted at KOMOJU, 1 unknown to the mirror (typo)\n";
    assert!(ran.code == 0 && ran.stderr.contains(part), "{}", ran.stderr);
    let create = r#"{"op":"create","body":{"email":"a"}}"#;
    let ran = fed(&house, &["intent", "import", "-", "--yes"], create);
    assert!(ran.code == 0 && !ran.stderr.contains("customers:"), "{}", ran.stderr);
}

#[test]
fn status_counts_intents_and_names_the_files_that_nobody_takes() {
    let house = swept(1);
    let spool = house.path("spool");
    std::fs::create_dir_all(spool.join("rejected")).unwrap();
    for name in ["b.json", "a.jsonl", ".hidden.json"] {
        std::fs::write(spool.join(name), "{}").unwrap();
    }
    for id in ["n1", "n2", "n3"] {
        house.expect(0, &["intent", "create", "--email", "a", "--id", id]);
    }
    house.expect(0, &["intent", "cancel", "n3"]);
    sql(&house, "UPDATE intents SET reason = 'waits for its time' WHERE id = 'n1'");
    let status = |code: i32| -> Value {
        serde_json::from_str(&house.expect(code, &["status", "--json"]).stdout).unwrap()
    };
    let now = status(0);
    let queued = &now["intents"]["queued"];
    assert_eq!(
        (&queued["count"], &queued["oldest"], &queued["oldest_reason"]),
        (&json!(2), &json!("n1"), &json!("waits for its time"))
    );
    assert_eq!(queued["oldest_created_at"], house.one("SELECT created_at FROM intents WHERE id = 'n1'"));
    assert_eq!(now["intents"]["cancelled"], json!({"count": 1}));
    assert_eq!(now["intents"]["parked"]["oldest"], Value::Null);
    assert_eq!((&now["outbound_enabled"], &now["spool_files"]), (&json!(true), &json!([])));
    let told = house.expect(0, &["status"]).stdout;
    assert!(told.contains("2 queued; the oldest is n1 of ") && told.contains("1 cancelled"), "{told}");

    sql(&house, "UPDATE intents SET state = 'parked' WHERE id = 'n2'; UPDATE meta SET outbound_enabled = 0");
    let off = status(3);
    assert_eq!(
        (&off["outbound_enabled"], &off["spool_files"]),
        (&json!(false), &json!(["a.jsonl", "b.json"]))
    );
    let told = house.expect(3, &["status"]).stdout;
    assert!(told.contains("switched off") && told.contains("a.jsonl stays"), "{told}");
}

#[test]
fn status_names_stuck_and_refused_files_with_what_to_do() {
    let house = swept(1);
    let spool = house.path("spool");
    std::fs::create_dir_all(spool.join("rejected")).unwrap();
    std::fs::write(spool.join("notes.txt"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", spool.join("link.json")).unwrap();
    std::fs::write(spool.join("fine.json"), "{}").unwrap();
    std::fs::write(spool.join("rejected/bad.json"), "{").unwrap();
    std::fs::write(spool.join("rejected/bad.json.error"), "why").unwrap();
    let told = house.expect(0, &["status"]).stdout;
    let line = |part: &str| {
        told.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {told}"))
    };
    assert!(line("notes.txt").contains("must end in .json"), "{told}");
    assert!(line("link.json").contains("is a symbolic link"), "{told}");
    assert!(
        line("bad.json").contains("rejected/bad.json.error") && line("bad.json").contains("drop it again"),
        "{told}"
    );
    assert!(!told.contains("fine.json"), "{told}");
    let json: Value = serde_json::from_str(&house.expect(0, &["status", "--json"]).stdout).unwrap();
    assert_eq!(json["spool"]["problem"], Value::Null);
    let names: Vec<&str> = json["spool"]["stuck"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| left["name"].as_str().unwrap())
        .collect();
    assert_eq!((names, &json["spool"]["refused"]), (vec!["link.json", "notes.txt"], &json!(["bad.json"])));
    if std::os::unix::fs::chown(&spool, Some(12_345), None).is_ok() {
        let told = house.expect(0, &["status"]).stdout;
        assert!(told.contains("no file is taken") && told.contains("`chown root "), "{told}");
    }
}

#[test]
fn who_follows_the_log_is_told_what_is_new_and_ends_by_ctrl_c() {
    let house = swept(1);
    let mut follower = house.spawn(&["changes", "--follow", "--json"]);
    let mut told = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("\"created\""), "{line}");
    let id = house.sandbox.world().ids()[0].clone();
    house.sandbox.world().update(&id, json!({"email": "now@x"}));
    house.expect(0, &["sync"]);
    line.clear();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("now@x"), "{line}");
    let killed = Command::new("kill").args(["-INT", &follower.id().to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}
