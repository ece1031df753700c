//! The outbox after a restore: unfinished intents park, and a create keeps its idempotency key.
//!
//! Promises: command restore

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use komoju_testkit::Installation;

use super::backup;
use crate::PROGRAM;

#[test]
fn restore_parks_unfinished_intents_and_sends_nothing_before_a_retry() {
    let harness = Installation::swept(PROGRAM, 5);
    let customer = harness.sandbox.world().ids()[0].clone();
    harness
        .inject(Fault::new(FaultEffect::Close { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.expect(0, &["intent", "create", "--email", "w@example.com", "--id", "waits"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT state FROM intents"), "waiting");
    let key = harness.one("SELECT key FROM outbox");
    harness.expect(0, &["intent", "create", "--email", "q@example.com", "--id", "queued"]);
    harness.expect(0, &["intent", "update", "@queued", "--email", "f@example.com", "--id", "follows"]);
    harness.expect(
        0,
        &[
            "intent",
            "update",
            &customer,
            "--email",
            "u@example.com",
            "--expect",
            r#"{"email":"other"}"#,
            "--id",
            "parked",
        ],
    );
    harness.expect(0, &["intent", "delete", &customer, "--id", "gone"]);
    let old_log = harness.one("SELECT log_id FROM mirror_info");
    harness.sql("UPDATE meta SET refused_since = '2026-01-01T00:00:00.000Z', throttled_until = '2099-01-01T00:00:00.000Z';
         UPDATE intents SET state = 'parked', reason = 'a conflict' WHERE id = 'parked'",
    );
    let made = backup(&harness, "b.db");
    harness.sql("UPDATE meta SET refused_since = NULL, throttled_until = NULL");
    harness.expect(0, &["intent", "cancel", "parked"]);
    // The open intents are done after the backup is made.
    harness.sql("UPDATE intents SET next_attempt_at = NULL WHERE id = 'waits'");
    harness.expect(0, &["sync"]);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.column("SELECT DISTINCT state FROM intents WHERE id <> 'parked'"), ["done"]);
    let there = harness.sandbox.world().ids().len();
    assert_eq!(there, 5 + 2 - 1);

    let ran = harness.expect(3, &["restore", &made]);
    assert!(ran.stderr.contains("5 intents are parked"), "{}", ran.stderr);
    assert_eq!(harness.column("SELECT DISTINCT state FROM intents"), ["parked"]);
    for id in ["waits", "queued", "follows", "gone"] {
        let reason = harness.one(&format!("SELECT reason FROM intents WHERE id = '{id}'"));
        assert!(
            reason.contains("restored from a backup") && reason.contains("may have been carried out"),
            "{reason}"
        );
    }
    let reason = harness.one("SELECT reason FROM intents WHERE id = 'parked'");
    assert!(reason.contains("may have been tried again") && reason.contains("a conflict"), "{reason}");
    let new_log = harness.one("SELECT log_id FROM mirror_info");
    assert!(ran.stderr.contains(&new_log) && new_log != old_log && new_log.len() == 32);
    assert_eq!(
        harness.one("SELECT refused_since IS NULL AND throttled_until IS NULL AND is_backup = 0 FROM meta"),
        "1"
    );
    assert_eq!(
        harness.one("SELECT count(*) FROM outbox WHERE is_head = 1"),
        "3",
        "the queues of the customers are unchanged"
    );
    assert_eq!(harness.one("SELECT key FROM outbox WHERE position = 1"), key);

    // The sweep finds that the customer of the delete intent is gone, and holds the deletion.
    harness.sandbox.world().clear_requests();
    harness.expect(3, &["sync"]);
    harness.expect(3, &["sync"]);
    let pushes = || harness.sandbox.world().requests().iter().filter(|seen| seen.method != "GET").count();
    assert_eq!((pushes(), harness.sandbox.world().ids().len()), (0, there));
    harness.expect(3, &["status"]);

    // A byte of this create may have been sent. So the retry sends the same request under the same
    // key, and no second customer is created.
    harness.expect(0, &["intent", "retry", "waits"]);
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'waits'"), "waiting");
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'waits'"), "done");
    assert_eq!(harness.sandbox.world().ids().len(), there, "the customer existed already");
    // These intents were not sent before the backup. The operator retries them, so each is sent
    // once more.
    harness.expect(0, &["intent", "retry", "queued"]);
    harness.expect(0, &["intent", "retry", "follows"]);
    harness.expect(3, &["sync"]);
    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.column("SELECT state FROM intents WHERE id IN ('queued', 'follows')"),
        ["done", "done"]
    );
    assert_eq!(harness.sandbox.world().ids().len(), there + 1);
    harness.expect(0, &["intent", "cancel", "parked", "gone"]);
    harness.assert_proven();
}

#[test]
fn restored_create_that_was_being_sent_keeps_its_key_and_is_made_once() {
    let harness = Installation::swept(PROGRAM, 1);
    harness.expect(0, &["intent", "create", "--email", "s@example.com", "--id", "sent"]);
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    assert_eq!(harness.one("SELECT state FROM intents"), "sending");
    let made = backup(&harness, "b.db");
    harness.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(
        (harness.one("SELECT state FROM intents"), harness.sandbox.world().ids().len()),
        ("done".into(), 2)
    );
    harness.expect(3, &["restore", &made]);
    assert_eq!(harness.one("SELECT state FROM intents"), "parked");
    assert_eq!(harness.one("SELECT count(*) FROM attempts WHERE finished_at IS NULL"), "0");
    harness.expect(3, &["sync"]);
    harness.expect(0, &["intent", "retry", "sent"]);
    assert_eq!(harness.one("SELECT state FROM intents"), "waiting");
    harness.expect(0, &["sync"]);
    assert_eq!(
        (harness.one("SELECT state FROM intents"), harness.sandbox.world().ids().len()),
        ("done".into(), 2)
    );
    harness.assert_true();
}

#[test]
fn restored_create_that_was_refused_keeps_its_key_and_is_made_once() {
    for (case, status) in [("too many", 429), ("the key is refused", 401), ("never sent", 0)] {
        let harness = Installation::swept(PROGRAM, 1);
        harness.expect(0, &["intent", "create", "--email", "t@example.com", "--id", "turned"]);
        let away = harness.inject(
            Fault::new(FaultEffect::Status {
                status: if status == 0 { 429 } else { status },
                body: Payload::Error,
                retry_after: None,
                headers: Default::default(),
                work: FaultedWork::Skipped,
            })
            .call(FaultedCall::Create),
        );
        harness.run(&["sync"]);
        assert!(harness.fired(away) > 0, "{case}");
        harness.sandbox.world().clear_faults();
        let unsent = match status {
            // The state after a process ended between claim and answer: the server's time is not
            // recorded yet.
            0 => {
                "UPDATE outbox SET first_server_at = NULL; UPDATE meta SET engine = 1;
                  UPDATE intents SET state = 'sending'; UPDATE meta SET engine = 0; UPDATE attempts SET finished_at = NULL"
            }
            _ => "",
        };
        harness.sql(unsent);
        assert_eq!(harness.one("SELECT outcome_unknown FROM outbox"), "0", "{case}");
        let key = harness.one("SELECT key FROM outbox");
        let made = backup(&harness, "b.db");
        harness.sql("UPDATE meta SET refused_since = NULL, throttled_until = NULL; UPDATE intents SET next_attempt_at = NULL",
        );
        harness.expect(0, &["sync"]);
        assert_eq!(harness.one("SELECT state FROM intents"), "done", "{case}");
        assert_eq!(harness.sandbox.world().ids().len(), 2, "{case}");
        harness.expect(3, &["restore", &made]);
        harness.expect(3, &["sync"]);
        // SQL cannot requeue it, which would send it under another key.
        assert!(harness.writer().execute("UPDATE intents SET state = 'queued'", []).is_err(), "{case}");
        harness.expect(0, &["intent", "retry", "turned"]);
        assert_eq!(
            harness.one("SELECT state || ' ' || key FROM intents JOIN outbox USING (position)"),
            format!("waiting {key}")
        );
        harness.expect(0, &["sync"]);
        assert_eq!(harness.one("SELECT state FROM intents"), "done", "{case}");
        assert_eq!(harness.sandbox.world().ids().len(), 2, "{case}: made once");
        harness.assert_true();
    }
}

#[test]
fn restored_parked_create_keeps_its_key_when_retried() {
    let harness = Installation::swept(PROGRAM, 1);
    harness.expect(0, &["intent", "create", "--email", "p@example.com", "--id", "p"]);
    let fault = Fault::new(FaultEffect::Status {
        status: 429,
        body: Payload::Error,
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    });
    harness.inject(fault.call(FaultedCall::Create));
    harness.run(&["sync"]);
    harness.sandbox.world().clear_faults();
    // Parked before the backup was made, and retried after it.
    harness.sql("UPDATE intents SET state = 'parked', next_attempt_at = NULL");
    let made = backup(&harness, "b.db");
    harness.expect(3, &["restore", &made]);
    assert_eq!(harness.one("SELECT outcome_unknown FROM outbox"), "1");
    harness.expect(0, &["intent", "retry", "p"]);
    assert_eq!(harness.one("SELECT state FROM intents"), "waiting");
}

#[test]
fn restore_clears_the_alerts_that_were_sent() {
    let harness = Installation::swept(PROGRAM, 1);
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "waits"]);
    harness.sql("UPDATE intents SET state = 'parked';
         INSERT INTO alert VALUES ('parked_intents', 'waits', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')",
    );
    let made = backup(&harness, "b.db");
    harness.expect(3, &["restore", &made]);
    assert_eq!(harness.one("SELECT count(*) FROM alert"), "0");
}

#[test]
fn cancel_of_a_restored_create_parks_its_follower() {
    let harness = Installation::swept(PROGRAM, 1);
    harness.expect(0, &["intent", "create", "--email", "a", "--id", "made"]);
    harness.expect(0, &["intent", "update", "@made", "--email", "f@example.com", "--id", "follows"]);
    let made = backup(&harness, "b.db");
    harness.expect(3, &["restore", &made]);
    harness.expect(0, &["intent", "cancel", "made"]);
    harness.expect(0, &["intent", "retry", "follows"]);
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT state FROM intents WHERE id = 'follows'"), "parked");
    let reason = harness.one("SELECT reason FROM intents WHERE id = 'follows'");
    assert!(reason.contains("the create that it waits for was rejected or cancelled"), "{reason}");
}
