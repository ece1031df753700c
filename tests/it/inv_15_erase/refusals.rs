//! When `erase` refuses, and the effect of a second erasure.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::{Installation, own};
use serde_json::json;

use super::{EraseCase, VALUES, assert_nowhere, found};
use crate::PROGRAM;

#[test]
fn erase_of_a_live_unknown_or_busy_customer_is_refused() {
    let case = EraseCase::live(3);
    let (harness, id) = (&case.harness, case.id.as_str());
    let head = harness.head();
    let live = harness.expect(1, &["erase", id]).stderr;
    assert!(live.contains("is live") && live.contains(&format!("intent delete {id}")), "{live}");
    let unknown = harness.expect(1, &["erase", "unknown"]).stderr;
    assert!(unknown.contains("knows no customer unknown"), "{unknown}");
    case.delete();
    case.intend("q", "update", Some(id), Some(json!({"email": VALUES[2]})));
    let open = harness.expect(1, &["erase", id]).stderr;
    assert!(open.contains("q (queued)") && open.contains("intent cancel"), "{open}");
    assert_eq!(harness.head(), head + 1, "only the deletion is recorded");
    assert!(!found(harness, &[VALUES[0]]).is_empty());
    harness.expect(0, &["intent", "cancel", "q"]);
    case.erase(0);
    assert_nowhere(harness);
}

/// A create takes effect and its answer is lost. The `Date` of the server is `ahead_s` seconds
/// fast. Then its customer is deleted, and `erase` refuses.
fn erasure_waits_for_the_create(ahead_s: i64) {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let before = harness.sandbox.world().ids();
    harness.inject(Fault::new(FaultEffect::Date { ahead_s }));
    let lost =
        harness.inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create));
    harness.expect(0, &["intent", "create", "--id", "c", "--email", VALUES[0]]);
    harness.expect(0, &["sync"]);
    let id = harness.sandbox.world().ids().into_iter().find(|id| !before.contains(id)).unwrap();
    harness.expect(0, &["sync"]);
    harness.sandbox.world().delete(&id);
    harness.expect(0, &["sync"]);
    assert_eq!(
        harness.one("SELECT state || outcome_unknown FROM intents JOIN outbox USING (position)"),
        "waiting1"
    );
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id.as_str()]);
    // Without the tombstone the create would seem to have made no customer, and would be sent
    // again.
    let stderr = harness.expect(1, &["erase", &id]).stderr;
    assert!(stderr.contains("whether the create c made"), "{stderr}");
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id.as_str()]);
    assert!(harness.fired(lost) > 0);
}

#[test]
fn erase_before_a_possible_create_is_settled_is_refused() {
    erasure_waits_for_the_create(0);
}

#[test]
fn erase_before_a_create_with_a_fast_server_date_is_settled_is_refused() {
    erasure_waits_for_the_create(2 * 60 * 60);
}

#[test]
fn second_erasure_reports_the_first_and_erases_later_intents() {
    let case = EraseCase::deleted(3);
    let (harness, id) = (&case.harness, case.id.as_str());
    let first = case.erase(0);
    let second = case.erase(0);
    assert_eq!(
        (&second["again"], &second["erased_at"], &second["seq"]),
        (&json!(true), &first["erased_at"], &first["seq"])
    );
    assert_eq!((&second["redacted"], &second["head"]), (&first["redacted"], &first["head"]));
    // Another program submits an update after the erasure.
    case.intend("late", "update", Some(id), Some(json!({"email": VALUES[2]})));
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT state FROM intents"), "rejected");
    assert_eq!(case.erase(0)["intents"], json!(1));
    assert_nowhere(harness);
    assert!(harness.expect(0, &["erase", id]).stdout.contains("was erased already"));
    harness.assert_true();
}

#[test]
fn erased_customer_that_is_listed_again_is_created_and_erasable() {
    let case = EraseCase::deleted(5);
    let (harness, id) = (&case.harness, case.id.as_str());
    // An old rejection must not hide the next deletion of this customer.
    own(&harness.path("komoju.db"))
        .execute_batch(&format!(
            "INSERT INTO hold (pass_id, opened_at, because) VALUES (1, 'x', 'too_many');
             INSERT INTO held_customer VALUES (1, '{id}', 'rejected')"
        ))
        .unwrap();
    let first = case.erase(0);
    harness.sandbox.world().restore(id);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.kinds_after(first["seq"].as_i64().unwrap()), ["created"]);
    harness.assert_true();
    harness.expect(0, &["rebuild"]);
    harness.assert_true();
    harness.expect(1, &["erase", id]);
    case.delete();
    let second = case.erase(0);
    assert_eq!(second["redacted"], json!([10, 11]), "the second erasure redacts only later changes");
    assert_eq!(
        harness.one("SELECT count(*) FROM change_log WHERE kind = 'erased' AND salt IS NOT NULL"),
        "2"
    );
    assert_nowhere(harness);
    harness.expect(0, &["rebuild"]);
    harness.expect(0, &["verify"]);
    harness.assert_true();
}
