//! Which content is erased, from which rows, and what stays.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use serde_json::json;

use super::{EraseCase, VALUES, assert_nowhere, body, found, head, receipt};

#[test]
fn erased_customer_is_in_no_byte_and_the_log_verifies() {
    let case = EraseCase::deleted(30);
    let (harness, id) = (&case.harness, &case.id);
    assert!(found(harness, &VALUES).len() > 4);
    let (before, deleted) = (head(harness), harness.one("SELECT deleted FROM mirror_info"));
    let then = harness
        .one(&format!("SELECT observed_at FROM changes WHERE customer_id = '{id}' AND kind = 'updated'"));
    let others = harness.mirror();

    let receipt = case.erase(0);
    assert_nowhere(harness);
    harness.expect(0, &["verify"]);
    harness.expect(0, &["verify", "--head", &before]);
    assert_eq!(receipt["redacted"], json!([31, 32, 33]));
    assert_eq!(
        (&receipt["seq"], &receipt["customer_id"], &receipt["again"]),
        (&json!(34), &json!(id), &json!(false))
    );
    assert_eq!(
        (&receipt["free_pages_clean"], &receipt["wal_clean"], &receipt["left"]),
        (&json!(true), &json!(true), &json!([]))
    );
    assert_eq!(receipt["head"], head(harness));
    assert_eq!(harness.one("SELECT observed_at FROM changes WHERE seq = 34"), receipt["erased_at"]);
    assert_eq!(harness.one("SELECT kind || ' ' || origin FROM changes WHERE seq = 34"), "erased operator");
    assert_eq!((deleted, harness.one("SELECT deleted FROM mirror_info")), ("1".into(), "0".into()));
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    assert_eq!(harness.mirror(), others);
    let contents =
        "SELECT count(*) FROM changes WHERE seq > 30 AND coalesce(diff, before, after) IS NOT NULL";
    assert_eq!(harness.one(contents), "0");
    assert_eq!(
        harness
            .one("SELECT count(*) FROM meta WHERE unscrubbed_erasure IS NOT NULL OR wipe_since IS NOT NULL"),
        "0",
        "the wipe is finished"
    );

    harness.expect(0, &["rebuild"]);
    harness.expect(0, &["verify"]);
    assert_eq!(harness.mirror(), others);
    assert_eq!(harness.one("SELECT deleted FROM mirror_info"), "0");
    let history = harness.expect(0, &["customers", "history", id]).stdout;
    assert_eq!((history.lines().count(), history.matches("(erased)").count()), (4, 3), "{history}");
    let shown = harness.expect(0, &["customers", "show", id, "--as-of", &then]);
    assert!(shown.stderr.contains("erased since") && shown.stdout.contains(id), "{}", shown.stderr);
    let listed = harness.expect(0, &["customers", "list", "--as-of", &then]).stdout;
    assert_eq!((listed.lines().count(), listed.matches("(erased)").count()), (31, 1), "{listed}");
    harness.expect(0, &["export", "--format", "csv", "--as-of", &then]);
    harness.expect(0, &["changes", "--json"]);
    assert!(harness.expect(1, &["customers", "show", id]).stderr.contains("was erased at"));
    harness.assert_true();
}

#[test]
fn erasure_removes_remains_of_moved_rows() {
    // Growing customers, and emails that change their place in the index, move other rows between
    // pages.
    let case = EraseCase::live(80);
    let ids = case.harness.sandbox.world().ids();
    for round in 1..4 {
        for (n, id) in ids.iter().enumerate().filter(|(_, id)| **id != case.id) {
            let email = format!("hanako.{}-{round}@example.jp", n * 7 % 80);
            let patch = json!({"email": email, "metadata": {"grown": "y".repeat(120 * round)}});
            case.harness.sandbox.world().update(id, patch);
        }
        case.harness.sandbox.world().update(&case.id, json!({"email": VALUES[round % 3]}));
        case.harness.expect(0, &["sync"]);
    }
    case.delete();
    case.erase(0);
    assert_nowhere(&case.harness);
    case.harness.assert_true();
}

#[test]
fn intents_of_an_erased_customer_stay_without_content() {
    let case = EraseCase::live(3);
    let (harness, id) = (&case.harness, case.id.as_str());
    let other = harness.sandbox.world().ids().into_iter().find(|other| other != id).unwrap();
    case.intend("u", "update", Some(id), Some(json!({"email": VALUES[2]})));
    harness.writer()
        .execute(
            "INSERT INTO intents (id, op, customer_id, body, submitted_by) VALUES ('x', 'update', ?1, ?2, 'nightly job')",
            [id, &json!({"email": "wrong-hanako@ and no host"}).to_string()],
        )
        .unwrap();
    case.intend(
        "b",
        "create",
        None,
        Some(json!({"email": VALUES[2], "payment_details": "tok_card_declined"})),
    );
    harness.writer().execute_batch("UPDATE intents SET submitted_by = submitted_by").unwrap();
    harness.writer()
        .execute(
            "INSERT INTO intents (id, op, customer_id, body, expect, submitted_by) VALUES ('e', 'update', ?1, ?2, ?3, ?4)",
            [id, &body("x@y").to_string(), &json!({"email": VALUES[1]}).to_string(), VALUES[2]],
        )
        .unwrap();
    // The message of the API is stored in reason, detail and attempts.
    let error = format!(
        r#"{{"error": {{"code": "bad_request", "message": "{} is wrong", "param": "email"}}}}"#,
        VALUES[2]
    );
    let effect = FaultEffect::Status {
        status: 400,
        body: Payload::Text(error),
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    };
    harness.inject(Fault::new(effect).call(FaultedCall::Update).once());
    harness.expect(3, &["sync"]);
    // Not before, because the fault would hit either of the first two updates.
    case.intend("o", "update", Some(&other), Some(json!({"email": "other@example.jp"})));
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'e'"), "parked");
    let ran = harness.expect(1, &["erase", id]);
    assert!(ran.stderr.contains("is live") || ran.stderr.contains("e (parked)"), "{}", ran.stderr);
    case.intend("d", "delete", Some(id), None);
    harness.expect(0, &["intent", "cancel", "e"]);
    harness.expect(0, &["sync"]);
    // Cancelled by another program: its SQLite does not overwrite what it frees.
    case.intend("z", "create", None, Some(body(VALUES[2])));
    harness
        .writer()
        .execute_batch("PRAGMA secure_delete = OFF; UPDATE intents SET state = 'cancelled' WHERE id = 'z'")
        .unwrap();
    let records = "SELECT id || ' ' || op || ' ' || state || ' ' || coalesce(customer_id, '') || ' ' || attempts || settled_at FROM intents ORDER BY position";
    let before = harness.column(records);

    // "b" made no customer and has the same email; "o" concerns another customer.
    assert_eq!(case.erase(0)["intents"], json!(6));
    assert_nowhere(harness);
    assert_eq!(harness.column(records), before);
    assert_eq!(
        harness.column("SELECT id FROM intents WHERE coalesce(body, expect, detail) IS NOT NULL"),
        ["o"],
        "only intents of other customers have content"
    );
    let reasons = harness.column("SELECT DISTINCT reason FROM intents WHERE id <> 'o'");
    assert_eq!(reasons, ["erased with its customer"]);
    let submitters = harness
        .column("SELECT submitted_by FROM intents WHERE id IN ('x', 'e') AND submitted_by IS NOT NULL");
    assert_eq!(submitters, ["nightly job"], "only a name that holds a value of the customer is removed");
    let digests = "SELECT count(*) FROM outbox WHERE erased = 1 AND coalesce(content, base) IS NOT NULL";
    assert_eq!(harness.one(digests), "0", "a digest would allow an email to be guessed");
    for arguments in
        [&["intent", "list", "--all"][..], &["intent", "show", "u"], &["status"], &["intent", "plan"]]
    {
        harness.run(arguments);
    }

    // None of them can be retried or submitted again, by any door.
    let rejected = harness.column("SELECT id FROM intents WHERE state = 'rejected'");
    assert!(!rejected.is_empty());
    for intent in rejected {
        assert!(
            harness.expect(1, &["intent", "retry", &intent]).stderr.contains("was erased with its customer")
        );
        let sql = format!("UPDATE intents SET state = 'queued' WHERE id = '{intent}'");
        assert!(
            harness
                .writer()
                .execute_batch(&sql)
                .unwrap_err()
                .to_string()
                .contains("was erased with its customer")
        );
    }
    let again = harness.run(&["intent", "update", id, "--id", "u", "--email", VALUES[2]]);
    assert!(again.code != 0 && again.stderr.contains("was used before"), "{}", again.stderr);
    harness.assert_true();
}

#[test]
fn erasure_includes_the_create_and_its_followers() {
    let case = EraseCase::deleted(2);
    let harness = &case.harness;
    case.intend("c", "create", None, Some(body(VALUES[2])));
    case.intend("f", "update", Some("@c"), Some(json!({"metadata": {"tel": VALUES[4]}})));
    harness.expect(0, &["sync"]);
    let id = harness.one("SELECT result_customer_id FROM intents WHERE id = 'c'");
    harness.sandbox.world().delete(&id);
    harness.expect(0, &["sync"]);
    let receipt = receipt(&harness.expect(0, &["erase", &id, "--json"]).stdout);
    assert_eq!(receipt["intents"], json!(2));
    assert_eq!(found(harness, &[VALUES[2]]), Vec::<String>::new());
    case.erase(0);
    assert_nowhere(harness);
    assert_eq!(harness.column("SELECT state FROM intents"), ["done", "done"]);
    harness.assert_true();
}

#[test]
fn erasure_names_other_customers_with_the_same_email_and_keeps_them() {
    let case = EraseCase::deleted(3);
    let harness = &case.harness;
    let twin = harness.sandbox.world().create(json!({"email": VALUES[0]}));
    harness.expect(0, &["sync"]);
    let receipt = receipt(&harness.expect(3, &["erase", &case.id, "--json"]).stdout);
    assert_eq!(receipt["left"].as_array().unwrap().len(), 1);
    assert_eq!(receipt["left"][0]["what"], format!("customer {twin}"));
    assert_eq!(harness.one(&format!("SELECT email FROM customers WHERE id = '{twin}'")), VALUES[0]);
    harness.assert_true();
}
