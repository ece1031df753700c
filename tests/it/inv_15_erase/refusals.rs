//! When `erase` refuses, and what a second erasure does.

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_testkit::{Installation, own};
use serde_json::json;

use super::{Story, VALUES, assert_nowhere, found};
use crate::PROGRAM;

#[test]
fn who_lives_is_unknown_or_has_open_intents_is_refused_and_nothing_is_erased() {
    let story = Story::living(3);
    let (harness, id) = (&story.harness, story.id.as_str());
    let head = harness.head();
    let live = harness.expect(1, &["erase", id]).stderr;
    assert!(live.contains("is live") && live.contains(&format!("intent delete {id}")), "{live}");
    let unknown = harness.expect(1, &["erase", "nobody"]).stderr;
    assert!(unknown.contains("knows no customer nobody"), "{unknown}");
    story.delete();
    story.intend("q", "update", Some(id), Some(json!({"email": VALUES[2]})));
    let open = harness.expect(1, &["erase", id]).stderr;
    assert!(open.contains("q (queued)") && open.contains("intent cancel"), "{open}");
    assert_eq!(harness.head(), head + 1, "only its deletion came");
    assert!(!found(harness, &[VALUES[0]]).is_empty());
    harness.expect(0, &["intent", "cancel", "q"]);
    story.erase(0);
    assert_nowhere(harness);
}

/// A create takes effect and its answer is lost, at a server whose `Date` is so many seconds ahead meanwhile. Then its customer is
/// deleted, and cannot be erased.
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
    // Without its tombstone the create would look as if it had made nobody, and be made again.
    let told = harness.expect(1, &["erase", &id]).stderr;
    assert!(told.contains("whether the create c made"), "{told}");
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [id.as_str()]);
    assert!(harness.fired(lost) > 0);
}

#[test]
fn a_create_that_may_have_made_the_customer_is_decided_first() {
    erasure_waits_for_the_create(0);
}

#[test]
fn create_at_a_server_whose_date_was_ahead_is_decided_before_the_erasure() {
    erasure_waits_for_the_create(2 * 60 * 60);
}

#[test]
fn erased_twice_says_when_and_does_what_came_since() {
    let story = Story::told(3);
    let (harness, id) = (&story.harness, story.id.as_str());
    let first = story.erase(0);
    let second = story.erase(0);
    assert_eq!(
        (&second["again"], &second["erased_at"], &second["seq"]),
        (&json!(true), &first["erased_at"], &first["seq"])
    );
    assert_eq!((&second["redacted"], &second["head"]), (&first["redacted"], &first["head"]));
    // Somebody who has not heard of it.
    story.intend("late", "update", Some(id), Some(json!({"email": VALUES[2]})));
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT state FROM intents"), "rejected");
    assert_eq!(story.erase(0)["intents"], json!(1));
    assert_nowhere(harness);
    assert!(harness.expect(0, &["erase", id]).stdout.contains("was erased already"));
    harness.assert_true();
}

#[test]
fn an_erased_customer_that_is_seen_again_is_a_new_one_and_can_be_erased_again() {
    let story = Story::told(5);
    let (harness, id) = (&story.harness, story.id.as_str());
    // A "no" about it from before it was deleted must not keep its next deletion from being seen.
    own(&harness.path("komoju.db"))
        .execute_batch(&format!(
            "INSERT INTO hold (pass_id, opened_at, because) VALUES (1, 'x', 'too_many');
             INSERT INTO held_customer VALUES (1, '{id}', 'rejected')"
        ))
        .unwrap();
    let first = story.erase(0);
    harness.sandbox.world().restore(id);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.kinds_after(first["seq"].as_i64().unwrap()), ["created"]);
    harness.assert_true();
    harness.expect(0, &["rebuild"]);
    harness.assert_true();
    harness.expect(1, &["erase", id]);
    story.delete();
    let second = story.erase(0);
    assert_eq!(second["redacted"], json!([10, 11]), "what the first erasure says stays provable");
    assert_eq!(
        harness.one("SELECT count(*) FROM change_log WHERE kind = 'erased' AND salt IS NOT NULL"),
        "2"
    );
    assert_nowhere(harness);
    harness.expect(0, &["rebuild"]);
    harness.expect(0, &["verify"]);
    harness.assert_true();
}
