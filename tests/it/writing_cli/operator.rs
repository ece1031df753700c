//! `intent list|show|plan|approve|retry|cancel`: the operator's commands on the outbox.

use std::io::Write as _;

use komoju_testkit::{Installation, Ran};
use serde_json::{Value, json};

use super::{fed, lines};
use crate::PROGRAM;

/// Promises: command intent list
#[test]
fn long_list_is_in_order_and_reports_what_needs_an_operator() {
    let harness = Installation::swept(PROGRAM, 0);
    harness.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1203)
         INSERT INTO intents (id, op, customer_id) SELECT 'i' || i, 'delete', 'c' || i FROM n;
         UPDATE intents SET state = 'cancelled' WHERE id = 'i7';",
    );
    let ids = |ran: &Ran| -> Vec<String> {
        lines(&ran.stdout).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = harness.expect(0, &["intent", "list", "--all", "--json"]);
    assert_eq!(ids(&all), (1..=1203).map(|n| format!("i{n}")).collect::<Vec<_>>());
    let open = harness.expect(0, &["intent", "list"]);
    assert_eq!(open.stdout.lines().count(), 1202);
    assert!(open.stderr.is_empty(), "{}", open.stderr);
    assert_eq!(ids(&harness.expect(0, &["intent", "list", "--state", "cancelled", "--json"])), ["i7"]);

    harness.sql("UPDATE outbox SET held = 1 WHERE position = 1100");
    let held = harness.expect(3, &["intent", "list"]);
    assert!(held.stderr.contains("1 delete waits for `komoju-sync intent approve`"), "{}", held.stderr);
    harness.expect(0, &["intent", "list", "--state", "cancelled"]);
    harness.sql("UPDATE outbox SET held = 0; UPDATE intents SET state = 'parked', reason = 'why\nnot' WHERE id = 'i9'",
    );
    let parked = harness.expect(3, &["intent", "list"]);
    let line = parked.stdout.lines().find(|line| line.starts_with("i9 ")).unwrap();
    assert!(line.contains("parked") && line.contains("c9") && line.ends_with("why not"), "{line}");
    assert!(parked.stderr.contains("1 intent is parked"), "{}", parked.stderr);
}

/// Promises: command intent show
#[test]
fn conflict_is_shown_with_the_commands_that_settle_it() {
    let harness = Installation::swept(PROGRAM, 0);
    let unknown = harness.expect(1, &["intent", "show", "unknown"]);
    assert!(unknown.stderr.contains("there is no intent unknown"), "{}", unknown.stderr);
    harness.expect(0, &["intent", "update", "c", "--id", "n1", "--email", "mine", "--metadata", "k=new"]);
    let queued = harness.expect(0, &["intent", "show", "n1"]);
    assert!(
        queued.stderr.contains("intent cancel n1") && !queued.stderr.contains("retry"),
        "{}",
        queued.stderr
    );
    let detail = json!({"differs": ["email"], "base": {"email": "then"},
        "theirs": {"email": "now", "metadata": {"k": "old"}}, "ours": {"email": "mine", "metadata": {"k": "new"}}});
    harness.sql(&format!(
            "UPDATE meta SET engine = 1; UPDATE intents SET state = 'sending', attempts = 1;
             UPDATE intents SET state = 'parked', detail = '{detail}', reason = 'not as expected'; UPDATE meta SET engine = 0;
             INSERT INTO attempts VALUES ('n1', 1, '2026-01-31T09:30:00.000Z', NULL, 502, 'parked', 'bad gateway');"
        ),
    );
    let shown = harness.expect(3, &["intent", "show", "n1"]);
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
    let row = &lines(&harness.expect(3, &["intent", "show", "n1", "--json"]).stdout)[0];
    assert_eq!(row["detail"], detail);
}

/// Promises: command intent plan
#[test]
fn plan_shows_each_call_with_its_changes_and_its_wait() {
    let harness = Installation::swept(PROGRAM, 2);
    let requests = harness.sandbox.world().request_count();
    let ids = harness.sandbox.world().ids();
    let email = harness.mirror()[&ids[0]]["email"].as_str().unwrap().to_owned();
    for arguments in [
        &["create", "--id", "n1", "--email", "new@x"][..],
        &["update", &ids[0], "--id", "n2", "--email", "other@x", "--metadata", "k=v"],
        &["delete", &ids[0], "--id", "n3"],
        &["update", "@n1", "--id", "n4", "--email", "newer@x"],
        &["delete", "a+b:é", "--id", "n5", "--not-before", "2099-01-01T00:00:00Z"],
    ] {
        harness.expect(0, &[&["intent"], arguments].concat());
    }
    let plan = lines(&harness.expect(0, &["intent", "plan", "--json"]).stdout);
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
    let next_steps = [0, 1, 2].map(|n| plan[n]["next_step"].as_str().unwrap());
    assert_eq!(next_steps, ["send under its key", "send", "wait for intent n2"]);

    let shown = harness.expect(0, &["intent", "plan"]);
    for part in [
        "POST /customers  {\"email\":\"new@x\"}  with a new key",
        &format!("deletes {email}"),
        "-> \"other@x\"",
    ] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert!(
        shown.stderr.contains("2 calls would be sent now, 3 more wait; nothing was sent"),
        "{}",
        shown.stderr
    );

    harness.sql("UPDATE outbox SET key = 'k', tag = 'made_by' WHERE position = 1");
    std::fs::OpenOptions::new()
        .append(true)
        .open(harness.path("config.toml"))
        .unwrap()
        .write_all(b"hold_deletes_over = 1\nreconcile_tag = 'tag'\n")
        .unwrap();
    let plan = lines(&harness.expect(3, &["intent", "plan", "--json"]).stdout);
    assert_eq!((&plan[0]["key"], &plan[0]["body"]["metadata"]), (&json!("its"), &json!({"made_by": "n1"})));
    assert!(plan[2]["waits_for"].as_str().unwrap().contains("intent approve"), "{}", plan[2]);
    assert_eq!(harness.sandbox.world().request_count(), requests, "nothing was sent");
    assert_eq!(harness.one("SELECT count(*) FROM intents WHERE state = 'queued'"), "5");
}

/// Promises: command intent approve; command intent retry; command intent cancel
#[test]
fn operator_approves_retries_and_cancels_intents() {
    let harness = Installation::swept(PROGRAM, 0);
    for (id, customer) in [("d1", "a"), ("d2", "b"), ("d3", "c")] {
        harness.expect(0, &["intent", "delete", customer, "--id", id]);
    }
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "n1"]);
    assert!(harness.expect(0, &["intent", "approve"]).stderr.contains("no delete waits"));
    harness.sql("UPDATE outbox SET held = 1 WHERE position < 4");
    let status: Value = serde_json::from_str(&harness.expect(3, &["status", "--json"]).stdout).unwrap();
    assert_eq!(status["held_deletes"], 3);
    assert!(
        harness.expect(0, &["intent", "approve", "d2"]).stderr.contains("1 delete approved: no daemon runs")
    );
    assert!(harness.expect(0, &["intent", "approve"]).stderr.contains("2 deletes approved"));
    assert_eq!(harness.one("SELECT count(*) FROM outbox WHERE approved = 1 AND held = 0"), "3");
    harness.expect(0, &["status"]);
    let no_delete = harness.expect(1, &["intent", "approve", "n1"]);
    assert!(no_delete.stderr.contains("n1 is not a delete"), "{}", no_delete.stderr);

    // Approved at once, before a drain has held them: they wait by the rule that `import` reports.
    for id in ["d4", "d5"] {
        harness.expect(0, &["intent", "delete", id, "--id", id]);
    }
    let config = harness.path("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}hold_deletes_over = 1\n")).unwrap();
    assert!(harness.expect(0, &["intent", "approve"]).stderr.contains("2 deletes approved"));

    let early = harness.expect(1, &["intent", "retry", "n1"]);
    assert!(early.stderr.contains("n1: an intent that is queued cannot be retried"), "{}", early.stderr);
    harness.sql("UPDATE intents SET state = 'parked' WHERE id = 'n1'");
    let ran = fed(&harness, &["intent", "retry", "n1", "--body", "-"], r#"{"email":5}"#);
    assert_eq!((ran.code, ran.stderr.contains("body.email: must be a text or null")), (2, true));
    let ran = fed(&harness, &["intent", "retry", "n1", "--body", "-"], "{}");
    assert_eq!(
        (ran.code, ran.stderr.contains("--body: needs at least one parameter")),
        (2, true),
        "{}",
        ran.stderr
    );
    let ran = fed(&harness, &["intent", "retry", "n1", "--body", "-"], r#"{"email":"b"}"#);
    assert_eq!((ran.code, ran.stderr.contains("n1 is queued again")), (0, true), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT state || body FROM intents WHERE id = 'n1'"), r#"queued{"email":"b"}"#);
    harness.sql(
        "UPDATE intents SET state = 'parked' WHERE id = 'n1';
         UPDATE outbox SET outcome_unknown = 1, key = 'k' WHERE position = 4",
    );
    let ran = harness.expect(0, &["intent", "retry", "n1"]);
    assert!(ran.stderr.contains("n1 waits for a retry of the same request"), "{}", ran.stderr);

    let both = harness.expect(1, &["intent", "cancel", "d1", "unknown"]);
    assert!(both.stderr.contains("there is no intent unknown"), "{}", both.stderr);
    assert_eq!(
        harness.one("SELECT state FROM intents WHERE id = 'd1'"),
        "queued",
        "all are cancelled, or none"
    );
    assert_eq!(harness.expect(0, &["intent", "cancel", "d1", "d2"]).stderr, "cancelled d1\ncancelled d2\n");
    harness.sql("UPDATE intents SET state = 'parked' WHERE id = 'n1'");
    let unclear = harness.expect(0, &["intent", "cancel", "n1"]);
    assert!(unclear.stderr.contains("whether an attempt took effect is not known"), "{}", unclear.stderr);
    harness.expect(1, &["intent", "cancel", "n1"]);
}

#[test]
fn retry_of_a_delete_with_a_body_is_refused_and_leaves_it_parked() {
    let harness = Installation::swept(PROGRAM, 0);
    harness.expect(0, &["intent", "delete", "a", "--id", "d1"]);
    harness.sql("UPDATE intents SET state = 'parked' WHERE id = 'd1'");
    let ran = fed(&harness, &["intent", "retry", "d1", "--body", "-"], r#"{"email":"b"}"#);
    let refused = ran.stderr.contains("d1 is a delete: it has no body to correct");
    assert_eq!((ran.code, refused), (1, true), "{}", ran.stderr);
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'd1' AND body IS NULL"), "parked");
    harness.expect(0, &["intent", "retry", "d1"]);
}
