//! Too many deletions are held; a hold only shrinks.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, own};
use serde_json::json;

use super::{delete, on_show};
use crate::PROGRAM;

/// Promises: exit code 3; command deletions list
#[test]
fn a_mass_deletion_is_held_while_creates_and_updates_apply() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    delete(&harness, 30);
    let new = harness.sandbox.world().create(json!({"email": "new@example.com"}));
    let ran = harness.expect(3, &["sync"]);
    assert!(ran.stderr.contains("30 deletions wait for an operator"), "{}", ran.stderr);
    assert!(harness.mirror().contains_key(&new));
    assert_eq!(harness.one("SELECT count(*) FROM customers"), "61");
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "30");

    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.column("SELECT DISTINCT hold_id FROM held_deletions"),
        ["1"],
        "the same set keeps its hold"
    );
    harness.expect(3, &["status"]);
    assert_eq!(harness.expect(3, &["deletions", "list", "--json"]).stdout.lines().count(), 30);
    let list = harness.expect(3, &["deletions", "list"]);
    let email =
        harness.one("SELECT max(email) FROM customers WHERE id IN (SELECT customer_id FROM held_deletions)");
    assert!(list.stdout.contains(&email), "{}", list.stdout);
    assert!(list.stderr.contains("30 deletions wait"), "{}", list.stderr);
}

#[test]
fn hold_only_shrinks() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let gone = delete(&harness, 30);
    harness.expect(3, &["sync"]);
    let later = delete(&harness, 1);
    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.column("SELECT id FROM deleted_customers"),
        later,
        "a later suspect has evidence of its own"
    );
    let held = "SELECT hold_id || ': ' || count(*) FROM held_deletions WHERE state = 'held' GROUP BY hold_id";
    assert_eq!(harness.column(held), ["1: 30"]);

    let more = delete(&harness, 11);
    harness.expect(3, &["sync"]);
    assert_eq!(
        harness.column(held),
        ["1: 30", "2: 11"],
        "later suspects above the limit form a further hold"
    );

    // One is listed again, and another one answers though the list does not show it.
    harness.sandbox.world().restore(&gone[0]);
    harness.sandbox.world().restore(&more[0]);
    let fault = harness.on_lists(FaultEffect::Hide { ids: vec![more[0].clone()], every: None });
    harness.expect(3, &["sync"]);
    assert_eq!(harness.column(held), ["1: 29", "2: 10"]);
    harness.sandbox.world().remove_fault(fault);
    for id in gone.iter().chain(&more) {
        harness.sandbox.world().restore(id);
    }
    harness.expect(0, &["sync"]);
    let ended = "SELECT state || ': ' || count(*) FROM held_deletions GROUP BY state";
    assert_eq!(harness.column(ended), ["alive: 41"]);
}

#[test]
fn customer_that_paging_skips_changes_no_hold() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    delete(&harness, 11);
    assert_eq!(harness.sweep().outcome, Outcome::Held);
    // The mirror grows, and the limit with it: they would be few enough now.
    for n in 0..300 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    assert_eq!(harness.sweep().outcome, Outcome::Held);
    let skipped = harness.sandbox.world().ids()[5].clone();
    let fault = harness.on_lists(FaultEffect::Hide { ids: vec![skipped.clone()], every: None });
    let swept = || {
        let report = harness.sweep();
        (report.outcome, report.tally.deleted, report.held, report.tally.unverified)
    };
    assert_eq!(swept(), (Outcome::Held, 0, 11, 0));
    assert!(harness.fired(fault) > 0);
    // It answered, so that two sweeps do not request it; then it gives no usable answer.
    let silent = harness.inject(on_show(FaultEffect::status(400), &skipped));
    assert_eq!([swept(), swept()], [(Outcome::Held, 0, 11, 0); 2]);
    assert_eq!(harness.fired(silent), 0);
    assert_eq!(swept(), (Outcome::Partial, 0, 11, 1));
    let holds =
        "SELECT hold_id || ': ' || count(*) FROM held_deletions WHERE state = 'held' GROUP BY hold_id";
    assert_eq!(harness.column(holds), ["1: 11"]);
    harness.sandbox.world().clear_faults();
    let another = delete(&harness, 1);
    assert_eq!(swept(), (Outcome::Held, 1, 11, 0));
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), another);
}

#[test]
fn a_404_that_proves_nothing_makes_no_other_set_of_those_who_wait() {
    let harness = Installation::with(PROGRAM, 60);
    harness.sweep();
    delete(&harness, 11);
    assert_eq!(harness.sweep().outcome, Outcome::Held);
    for n in 0..300 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.sweep();
    // Paging skips somebody, and an API in trouble says of everybody that there is no such customer.
    let skipped = harness.sandbox.world().ids()[5].clone();
    harness.on_lists(FaultEffect::Hide { ids: vec![skipped], every: None });
    let code = komoju_sandbox::Payload::Code("not_found".into());
    let nobody = FaultEffect::Status {
        status: 404,
        body: code,
        retry_after: None,
        headers: Default::default(),
        work: Default::default(),
    };
    let fault = harness.inject(Fault::new(nobody).call(FaultedCall::Show));
    harness.sweep();
    assert!(harness.fired(fault) > 1, "the customer and a canary");
    let holds = "SELECT because || ': ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' GROUP BY because";
    assert_eq!(harness.column(holds), ["too_many: 11", "unproven: 1"]);
    let list = harness.expect(3, &["deletions", "list"]).stderr;
    assert!(list.contains("12 deletions wait for"), "{list}");
    assert!(list.contains("; nothing is proven about 1 of them, and the next sweep asks again"), "{list}");
    harness.sandbox.world().clear_faults();
    assert_eq!((harness.sweep().held, harness.column(holds)), (11, vec!["too_many: 11".to_owned()]));
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
}

#[test]
fn after_a_restore_an_api_that_answers_nobody_is_not_asked_about_everybody() {
    let harness = Installation::with(PROGRAM, 600);
    harness.sweep();
    let gone = delete(&harness, 28);
    let conn = own(&harness.path("komoju.db"));
    conn.execute("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'", []).unwrap();
    drop(conn);
    harness.inject(Fault::new(FaultEffect::status(500)).call(FaultedCall::Show));
    harness.sandbox.world().clear_requests();
    assert_eq!(harness.sweep().outcome, Outcome::Partial);
    let asked: std::collections::HashSet<String> = {
        let world = harness.sandbox.world();
        let shows = world.requests().iter().filter(|seen| gone.iter().any(|id| seen.path.ends_with(id)));
        shows.map(|seen| seen.path.clone()).collect()
    };
    assert_eq!(asked.len(), 1, "where no canary answers either, nothing can be proven");
    harness.sandbox.world().clear_faults();
    assert_eq!(harness.sweep().outcome, Outcome::Held, "what a restored database lacks is held");
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "28");
}

#[test]
fn a_hold_stays_when_the_mirror_grows_and_the_limit_with_it() {
    let harness = Installation::with(PROGRAM, 8).inbound("max_delete_count = 0\nmax_delete_percent = 30");
    harness.expect(0, &["sync"]);
    delete(&harness, 4);
    for n in 0..10 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.expect(3, &["sync"]);
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    assert_eq!(harness.column("SELECT DISTINCT hold_id FROM held_deletions WHERE state = 'held'"), ["1"]);
    harness.expect(0, &["deletions", "approve"]);
    harness.expect(0, &["sync"]);
    harness.assert_true();
}

#[test]
fn a_probe_beside_a_hold_says_that_something_waits() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    delete(&harness, 30);
    harness.expect(3, &["sync"]);
    let ran = harness.expect(3, &["sync", "--probe"]);
    assert!(ran.stderr.contains("30 deletions wait"), "{}", ran.stderr);
}

#[test]
fn as_many_further_suspects_as_the_limit_allows_leave_a_hold_unchanged() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    delete(&harness, 30);
    harness.expect(3, &["sync"]);
    // The limit is ten; these are alive.
    let ids = harness.sandbox.world().ids()[..10].to_vec();
    let fault = harness.on_lists(FaultEffect::Hide { ids, every: None });
    let report = harness.sweep();
    assert!(harness.fired(fault) > 0);
    assert_eq!((report.outcome, report.tally.deleted, report.held), (Outcome::Held, 0, 30));
    assert_eq!(harness.one("SELECT count(DISTINCT hold_id) FROM held_deletions"), "1");
}

/// Promises: key inbound.max_delete_count
#[test]
fn deletions_of_a_day_count_together_though_the_sweep_that_saw_the_imprecise_list_was_killed() {
    let harness = Installation::with(PROGRAM, 60).inbound("max_delete_count = 3\nmax_delete_percent = 0");
    harness.expect(0, &["sync"]);
    // More than the limit are not listed, and they live. The sweep is killed while it requests one by one.
    let hidden = harness.sandbox.world().ids()[20..].to_vec();
    harness.on_lists(FaultEffect::Hide { ids: hidden, every: None });
    let waits = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(25));
    let mut sync = harness.spawn(&["sync"]);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(waits) > 0));
    sync.kill().unwrap();
    sync.wait().unwrap();
    harness.sandbox.world().clear_faults();
    // From here on the list is exact, and no sweep finds more missing than the limit.
    delete(&harness, 3);
    harness.expect(0, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "3");
    delete(&harness, 2);
    harness.expect(3, &["sync"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "3");
    assert_eq!(harness.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "2");
}
