//! Customers that a list does not show: short lists, mass deletions, holds, and an operator's decisions.

use komoju_core::Outcome;
use komoju_sandbox::{Call, Effect, Fault};
use serde_json::json;

use crate::house::{House, own};

fn delete(house: &House, count: usize) -> Vec<String> {
    let ids: Vec<String> = house.sandbox.world().ids().into_iter().take(count).collect();
    for id in &ids {
        assert!(house.sandbox.world().delete(id));
    }
    ids
}

#[test]
fn short_and_empty_lists_delete_no_customer_and_are_reported() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    for effect in [Effect::ShortList { keep: 20 }, Effect::EmptyList] {
        let fault = house.on_lists(effect);
        // Fewer than a hundred are missing, so that each is verified.
        let ran = house.expect(0, &["sync"]);
        assert!(house.fired(fault) > 0);
        assert!(ran.stderr.contains("the list leaves out"), "{}", ran.stderr);
        house.sandbox.world().clear_faults();
    }
    house.assert_true();
    assert_eq!(house.head(), 60);
}

#[test]
fn a_few_customers_hidden_from_the_list_are_asked_for_and_stay() {
    let house = House::with(60);
    house.sweep();
    let ids = house.sandbox.world().ids()[..5].to_vec();
    let fault = house.on_lists(Effect::Hide { ids, every: None });
    let report = house.sweep();
    assert!(house.fired(fault) > 0);
    assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 0));
    house.assert_true();
}

#[test]
fn a_suspect_that_changed_meanwhile_is_updated_by_its_own_lookup() {
    let house = House::with(20);
    house.sweep();
    let id = house.sandbox.world().ids()[2].clone();
    house.sandbox.world().update(&id, json!({"email": "looked@example.com"}));
    house.on_lists(Effect::Hide { ids: vec![id.clone()], every: None });
    house.sweep();
    assert_eq!(house.one("SELECT origin FROM changes WHERE kind = 'updated'"), "lookup");
    house.assert_true();
}

#[test]
fn a_mass_deletion_is_held_while_creates_and_updates_apply() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    delete(&house, 30);
    let new = house.sandbox.world().create(json!({"email": "new@example.com"}));
    let ran = house.expect(3, &["sync"]);
    assert!(ran.stderr.contains("30 deletions wait for an operator"), "{}", ran.stderr);
    assert!(house.mirror().contains_key(&new));
    assert_eq!(house.one("SELECT count(*) FROM customers"), "61");
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "30");

    house.expect(3, &["sync"]);
    assert_eq!(
        house.column("SELECT DISTINCT hold_id FROM held_deletions"),
        ["1"],
        "the same set keeps its hold"
    );
    house.expect(3, &["status"]);
    assert_eq!(house.expect(3, &["deletions", "list", "--json"]).stdout.lines().count(), 30);
    let list = house.expect(3, &["deletions", "list"]);
    let email =
        house.one("SELECT max(email) FROM customers WHERE id IN (SELECT customer_id FROM held_deletions)");
    assert!(list.stdout.contains(&email), "{}", list.stdout);
    assert!(list.stderr.contains("30 deletions wait"), "{}", list.stderr);
}

#[test]
fn an_approved_hold_is_asked_for_again_and_only_who_is_still_gone_is_deleted() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    let gone = delete(&house, 30);
    house.expect(3, &["sync"]);
    house.sandbox.world().restore(&gone[0]);
    house.expect(0, &["deletions", "approve", "1"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'deleted'"), "29");
    assert_eq!(house.one("SELECT customer_id FROM held_deletions WHERE state = 'alive'"), gone[0]);
    house.assert_true();
    let ran = house.expect(1, &["deletions", "approve", "1"]);
    assert!(ran.stderr.contains("no deletion to decide"), "{}", ran.stderr);
}

#[test]
fn a_rejected_hold_keeps_its_customers_unreported_until_they_are_seen_again() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    let gone = delete(&house, 30);
    house.expect(3, &["sync"]);
    house.expect(0, &["deletions", "reject"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM customers"), "60");

    house.sandbox.world().restore(&gone[0]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT customer_id FROM held_deletions WHERE state = 'seen'"), gone[0]);
    house.sandbox.world().delete(&gone[0]);
    house.expect(0, &["sync"]);
    assert_eq!(
        house.column("SELECT id FROM deleted_customers"),
        [gone[0].clone()],
        "seen again, it counts again"
    );
}

#[test]
fn hold_only_shrinks() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    let gone = delete(&house, 30);
    house.expect(3, &["sync"]);
    let later = delete(&house, 1);
    house.expect(3, &["sync"]);
    assert_eq!(
        house.column("SELECT id FROM deleted_customers"),
        later,
        "a later suspect has evidence of its own"
    );
    let held = "SELECT hold_id || ': ' || count(*) FROM held_deletions WHERE state = 'held' GROUP BY hold_id";
    assert_eq!(house.column(held), ["1: 30"]);

    let more = delete(&house, 11);
    house.expect(3, &["sync"]);
    assert_eq!(house.column(held), ["1: 30", "2: 11"], "later suspects above the limit form a further hold");

    // One is listed again, and another one answers though the list does not show it.
    house.sandbox.world().restore(&gone[0]);
    house.sandbox.world().restore(&more[0]);
    let fault = house.on_lists(Effect::Hide { ids: vec![more[0].clone()], every: None });
    house.expect(3, &["sync"]);
    assert_eq!(house.column(held), ["1: 29", "2: 10"]);
    house.sandbox.world().remove_fault(fault);
    for id in gone.iter().chain(&more) {
        house.sandbox.world().restore(id);
    }
    house.expect(0, &["sync"]);
    let ended = "SELECT state || ': ' || count(*) FROM held_deletions GROUP BY state";
    assert_eq!(house.column(ended), ["alive: 41"]);
}

#[test]
fn without_a_canary_nothing_is_deleted_but_held() {
    let house = House::with(6);
    house.expect(0, &["sync"]);
    house.sandbox.world().remove_all();
    let ran = house.expect(3, &["sync"]);
    assert!(ran.stderr.contains("6 deletions wait"), "{}", ran.stderr);
    assert_eq!(house.one("SELECT count(*) FROM customers"), "6");
    // Nobody lives, so a person's word needs no canary.
    house.expect(0, &["deletions", "approve"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "6");
    house.assert_true();
}

#[test]
fn an_approved_deletion_waits_while_no_other_live_customer_answers() {
    let house = House::with(30);
    house.expect(0, &["sync"]);
    let rejected = delete(&house, 15);
    house.expect(3, &["sync"]);
    house.expect(0, &["deletions", "reject"]);
    delete(&house, 15);
    house.expect(3, &["sync"]);
    house.expect(0, &["deletions", "approve"]);
    // The rejected ones are live here, and none of them answers: nothing vouches for the API.
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'approved'"), "15");

    house.sandbox.world().restore(&rejected[0]);
    house.expect(0, &["sync"]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "15");
    house.assert_proven();
}

#[test]
fn a_deletion_asks_for_a_canary_after_the_suspect() {
    let house = House::with(30);
    house.sweep();
    let gone = delete(&house, 1);
    house.sandbox.world().clear_requests();
    house.sweep();
    let shows: Vec<String> = house
        .sandbox
        .world()
        .requests()
        .iter()
        .filter_map(|seen| seen.path.split_once("/customers/"))
        .map(|(_, id)| id.to_owned())
        .collect();
    assert_eq!(shows.len(), 2, "{shows:?}");
    assert_eq!(shows[0], gone[0]);
    assert!(house.sandbox.world().get(&shows[1]).is_some());
}

#[test]
fn answer_that_is_not_the_apis_own_is_no_evidence() {
    use komoju_sandbox::Payload;
    for body in [Payload::Html, Payload::Empty, Payload::Json(json!({}))] {
        for status in [404, 410] {
            let house = House::with(30);
            house.sweep();
            let gone = delete(&house, 1);
            let fault = house.inject(Fault::new(answered(status, body.clone())).call(Call::Show));
            let report = house.sweep();
            assert!(house.fired(fault) > 0);
            let outcome = (report.outcome, report.held, report.tally.unverified);
            assert_eq!(outcome, (Outcome::Partial, 0, 1), "{status} {body:?}: {}", report.sentence());
            assert!(house.mirror().contains_key(&gone[0]));

            house.sandbox.world().clear_faults();
            assert_eq!(house.sweep().outcome, Outcome::Complete, "the next sweep requests it again");
            house.assert_true();
        }
    }
}

#[test]
fn customer_is_gone_by_a_json_404_or_410_of_any_code_beside_a_living_canary() {
    use komoju_sandbox::Payload;
    for (status, code) in [(404, "not_found"), (404, "resource_missing"), (410, "gone")] {
        let house = House::with(30);
        house.sweep();
        let gone = delete(&house, 1);
        let effect = answered(status, Payload::Code(code.into()));
        // While every customer answers so, there is no canary: the deletion is held.
        house.inject(Fault::new(effect.clone()).call(Call::Show));
        let report = house.sweep();
        assert_eq!(
            (report.outcome, report.held),
            (Outcome::Held, 1),
            "{status} {code}: {}",
            report.sentence()
        );
        assert!(house.mirror().contains_key(&gone[0]));

        house.sandbox.world().clear_faults();
        house.inject(on_show(effect, &gone[0]));
        let report = house.sweep();
        assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 1), "{}", report.sentence());
        house.assert_true();
        assert_eq!(house.one("SELECT state FROM held_deletions"), "deleted", "no operator is needed");
    }
}

/// An answer of this status and body.
fn answered(status: u16, body: komoju_sandbox::Payload) -> Effect {
    Effect::Status { status, body, retry_after: None, headers: Default::default(), work: Default::default() }
}

/// A fault on one customer's own GET.
fn on_show(effect: Effect, id: &str) -> Fault {
    let mut fault = Fault::new(effect).call(Call::Show);
    fault.on.path = Some(format!("/customers/{id}"));
    fault
}

fn unusable() -> [Effect; 3] {
    [Effect::status(400), Effect::status(500), answered(404, komoju_sandbox::Payload::Html)]
}

#[test]
fn a_suspect_that_cannot_be_asked_hides_no_other_deletion() {
    for effect in unusable() {
        let house = House::with(30);
        house.sweep();
        let gone = delete(&house, 5);
        for odd in &gone[..4] {
            house.inject(on_show(effect.clone(), odd));
        }
        let report = house.sweep();
        let found = (report.outcome, report.held, report.tally.unverified, report.tally.deleted);
        assert_eq!(found, (Outcome::Partial, 0, 4, 1), "{effect:?}");
        assert_eq!(house.column("SELECT id FROM deleted_customers"), gone[4..]);

        house.sandbox.world().clear_faults();
        assert_eq!(house.sweep().outcome, Outcome::Complete);
        house.assert_true();
    }
}

#[test]
fn customer_that_paging_skips_changes_no_hold() {
    let house = House::with(60);
    house.sweep();
    delete(&house, 11);
    assert_eq!(house.sweep().outcome, Outcome::Held);
    // The mirror grows, and the limit with it: they would be few enough now.
    for n in 0..300 {
        house.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    assert_eq!(house.sweep().outcome, Outcome::Held);
    let skipped = house.sandbox.world().ids()[5].clone();
    let fault = house.on_lists(Effect::Hide { ids: vec![skipped.clone()], every: None });
    let swept = || {
        let report = house.sweep();
        (report.outcome, report.tally.deleted, report.held, report.tally.unverified)
    };
    assert_eq!(swept(), (Outcome::Held, 0, 11, 0));
    assert!(house.fired(fault) > 0);
    // It answered, so that two sweeps do not request it; then it gives no usable answer.
    let silent = house.inject(on_show(Effect::status(400), &skipped));
    assert_eq!([swept(), swept()], [(Outcome::Held, 0, 11, 0); 2]);
    assert_eq!(house.fired(silent), 0);
    assert_eq!(swept(), (Outcome::Partial, 0, 11, 1));
    let holds =
        "SELECT hold_id || ': ' || count(*) FROM held_deletions WHERE state = 'held' GROUP BY hold_id";
    assert_eq!(house.column(holds), ["1: 11"]);
    house.sandbox.world().clear_faults();
    let another = delete(&house, 1);
    assert_eq!(swept(), (Outcome::Held, 1, 11, 0));
    assert_eq!(house.column("SELECT id FROM deleted_customers"), another);
}

#[test]
fn a_404_that_proves_nothing_makes_no_other_set_of_those_who_wait() {
    let house = House::with(60);
    house.sweep();
    delete(&house, 11);
    assert_eq!(house.sweep().outcome, Outcome::Held);
    for n in 0..300 {
        house.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    house.sweep();
    // Paging skips somebody, and an API in trouble says of everybody that there is no such customer.
    let skipped = house.sandbox.world().ids()[5].clone();
    house.on_lists(Effect::Hide { ids: vec![skipped], every: None });
    let code = komoju_sandbox::Payload::Code("not_found".into());
    let nobody = Effect::Status {
        status: 404,
        body: code,
        retry_after: None,
        headers: Default::default(),
        work: Default::default(),
    };
    let fault = house.inject(Fault::new(nobody).call(Call::Show));
    house.sweep();
    assert!(house.fired(fault) > 1, "the customer and a canary");
    let holds = "SELECT because || ': ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' GROUP BY because";
    assert_eq!(house.column(holds), ["too_many: 11", "unproven: 1"]);
    let list = house.expect(3, &["deletions", "list"]).stderr;
    assert!(list.contains("12 deletions wait for"), "{list}");
    assert!(list.contains("; nothing is proven about 1 of them, and the next sweep asks again"), "{list}");
    house.sandbox.world().clear_faults();
    assert_eq!((house.sweep().held, house.column(holds)), (11, vec!["too_many: 11".to_owned()]));
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
}

#[test]
fn after_a_restore_an_api_that_answers_nobody_is_not_asked_about_everybody() {
    let house = House::with(600);
    house.sweep();
    let gone = delete(&house, 28);
    let conn = own(&house.path("komoju.db"));
    conn.execute("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'", []).unwrap();
    drop(conn);
    house.inject(Fault::new(Effect::status(500)).call(Call::Show));
    house.sandbox.world().clear_requests();
    assert_eq!(house.sweep().outcome, Outcome::Partial);
    let asked: std::collections::HashSet<String> = {
        let world = house.sandbox.world();
        let shows = world.requests().iter().filter(|seen| gone.iter().any(|id| seen.path.ends_with(id)));
        shows.map(|seen| seen.path.clone()).collect()
    };
    assert_eq!(asked.len(), 1, "where no canary answers either, nothing can be proven");
    house.sandbox.world().clear_faults();
    assert_eq!(house.sweep().outcome, Outcome::Held, "what a restored database lacks is held");
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "28");
}

#[test]
fn a_canary_without_an_answer_makes_room_for_the_next() {
    let house = House::with(3);
    house.sweep();
    let gone = delete(&house, 1);
    let left = house.sandbox.world().ids();
    // One of the two that are left never answers: either, so that one of them is asked first.
    let mut fired = 0;
    for silent in &left {
        let fault = house.inject(on_show(Effect::status(500), silent));
        let report = house.sweep();
        assert_eq!(report.outcome, Outcome::Complete, "{}", report.sentence());
        assert_eq!(report.tally.deleted, 1);
        fired += house.fired(fault);
        house.sandbox.world().clear_faults();
        house.sandbox.world().restore(&gone[0]);
        house.sweep();
        house.sandbox.world().delete(&gone[0]);
    }
    assert!(fired > 0, "neither was asked first");
}

#[test]
fn an_approval_ends_when_the_customer_is_listed_again() {
    let house = House::with(60);
    house.sweep();
    let gone = delete(&house, 30);
    house.sweep();
    house.expect(0, &["deletions", "approve"]);
    house.inject(on_show(Effect::status(400), &gone[3]));
    house.sweep();
    house.sandbox.world().restore(&gone[3]);
    house.sweep();
    assert_eq!(
        house.one(&format!("SELECT state FROM held_deletions WHERE customer_id = '{}'", gone[3])),
        "alive"
    );
    house.sandbox.world().clear_faults();
    house.sandbox.world().delete(&gone[3]);
    house.sweep();
    let last = "SELECT kind || ' ' || origin FROM changes ORDER BY seq DESC LIMIT 1";
    assert_eq!(house.one(last), "deleted sweep", "it takes a suspicion of its own");
}

#[test]
fn a_rejected_customer_counts_as_seen_whatever_becomes_of_that_pass() {
    let house = House::with(60);
    house.sweep();
    let gone = delete(&house, 30);
    house.sweep();
    house.expect(0, &["deletions", "reject"]);
    house.sandbox.world().restore(&gone[0]);
    let fault = house.inject(Fault::new(Effect::status(500)).call(Call::List).page(4));
    assert_eq!(house.sweep().outcome, Outcome::Failed);
    house.sandbox.world().remove_fault(fault);
    house.sandbox.world().delete(&gone[0]);
    house.sweep();
    assert_eq!(house.column("SELECT id FROM deleted_customers"), [gone[0].clone()]);
}

#[test]
fn one_forbidden_customer_is_no_refused_key() {
    let house = House::with(30);
    house.sweep();
    let gone = delete(&house, 3);
    house.inject(on_show(Effect::status(403), &gone[0]));
    let new = house.sandbox.world().create(json!({"email": "new@example.com"}));
    let ran = house.expect(1, &["sync"]);
    assert!(ran.stderr.contains("1 customer was neither listed nor verified"), "{}", ran.stderr);
    assert!(house.mirror().contains_key(&new));
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "2");
    assert_eq!(
        house.one("SELECT outcome || ' ' || unverified FROM passes ORDER BY id DESC LIMIT 1"),
        "partial 1"
    );
    house.sandbox.world().clear_faults();
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn decision_can_be_reversed_by_the_number_of_its_hold() {
    let house = House::with(30);
    house.sweep();
    let gone = delete(&house, 11);
    house.expect(3, &["sync"]);
    house.inject(on_show(Effect::status(403), &gone[0]));
    house.expect(0, &["deletions", "approve"]);
    house.expect(0, &["sync"]);
    let status = house.expect(0, &["status"]).stdout;
    assert!(status.contains("approved  1 deletion, not proven yet"), "{status}");
    house.expect(1, &["deletions", "reject"]);
    house.expect(0, &["deletions", "reject", "1"]);
    house.sandbox.world().clear_faults();
    house.expect(0, &["sync"]);
    assert!(house.mirror().contains_key(&gone[0]));
    let status = house.expect(0, &["status"]).stdout;
    assert!(status.contains("rejected  1 deletion"), "{status}");
    house.expect(0, &["deletions", "approve", "1"]);
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn an_id_that_looks_like_a_secret_is_in_no_message() {
    let house = House::with(12);
    let id = "tok_41111111secretsecret";
    house.sandbox.world().put_raw(json!({"id": id, "resource": "customer"}));
    house.expect(0, &["sync"]);
    let fault = house.inject(on_show(Effect::status(400), id));
    house.on_lists(Effect::Hide { ids: vec![id.to_owned()], every: None });
    let ran = house.expect(1, &["sync"]);
    assert_eq!(house.fired(fault), 1);
    assert!(ran.stderr.contains("GET /customers/****") && !ran.stderr.contains("tok_4111"), "{}", ran.stderr);

    house.sandbox.world().clear_faults();
    house.on_lists(Effect::Hide { ids: vec![id.to_owned()], every: Some(2) });
    let house = house.inbound("max_delete_count = 0\nmax_delete_percent = 0");
    let ran = house.expect(0, &["sync"]);
    assert!(ran.stderr.contains("the list leaves out") && !ran.stderr.contains("tok_4111"), "{}", ran.stderr);
}

#[test]
fn many_customers_without_a_clear_answer_do_not_take_hours() {
    let house = House::with(120);
    house.sweep();
    delete(&house, 90);
    let fault = house.inject(Fault::new(Effect::status(500)).call(Call::Show));
    let report = house.sweep();
    assert_eq!((report.outcome, report.held), (Outcome::Partial, 0), "{}", report.sentence());
    assert!(house.fired(fault) <= 3 * 10 + 20, "{} requests", house.fired(fault));
    house.sandbox.world().clear_faults();
    assert_eq!(house.sweep().held, 90);
    house.expect(0, &["deletions", "approve"]);
    // Now canaries answer, and none of the approved: each pass asks some, and begins with others.
    let gone: Vec<String> = house.column("SELECT customer_id FROM held_deletions");
    let faults: Vec<_> = gone.iter().map(|id| house.inject(on_show(Effect::status(400), id))).collect();
    let asked = || faults.iter().filter(|fault| house.fired(**fault) > 0).count();
    assert_eq!(house.sweep().outcome, Outcome::Complete);
    assert!((64..90).contains(&asked()), "{} of 90 were asked", asked());
    // The tests' passes roll the same dice each time; a daemon's do not.
    for _ in 0..5 {
        house.expect(0, &["sync"]);
    }
    assert_eq!(asked(), 90, "nobody is kept waiting by those before");
    house.sandbox.world().clear_faults();
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_no_during_a_sweep_ends_when_that_sweep_lists_the_customer() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    let gone = delete(&house, 30);
    house.expect(3, &["sync"]);
    let waits = house.on_lists(Effect::Hold);
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(waits) > 0));
    house.expect(0, &["deletions", "reject"]);
    house.sandbox.world().restore(&gone[0]);
    house.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert_eq!(house.one("SELECT customer_id FROM held_deletions WHERE state = 'seen'"), gone[0]);
    house.sandbox.world().delete(&gone[0]);
    house.expect(0, &["sync"]);
    assert_eq!(house.column("SELECT id FROM deleted_customers"), [gone[0].clone()], "it counts again");
}

#[test]
fn an_approved_customer_that_cannot_be_asked_keeps_nothing_else_from_being_done() {
    for effect in unusable() {
        let house = House::with(60);
        house.sweep();
        let gone = delete(&house, 30);
        house.sweep();
        house.expect(0, &["deletions", "approve"]);
        house.inject(on_show(effect, &gone[3]));
        let new = house.sandbox.world().create(json!({"email": "new@example.com"}));
        let report = house.sweep();
        assert_eq!((report.outcome, report.tally.deleted), (Outcome::Complete, 29), "{}", report.sentence());
        assert!(house.mirror().contains_key(&new));
        assert_eq!(house.one("SELECT customer_id FROM held_deletions WHERE state = 'approved'"), gone[3]);

        house.sandbox.world().clear_faults();
        house.sweep();
        house.assert_true();
    }
}

#[test]
fn a_hold_stays_when_the_mirror_grows_and_the_limit_with_it() {
    let house = House::with(8).inbound("max_delete_count = 0\nmax_delete_percent = 30");
    house.expect(0, &["sync"]);
    delete(&house, 4);
    for n in 0..10 {
        house.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    house.expect(3, &["sync"]);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
    assert_eq!(house.column("SELECT DISTINCT hold_id FROM held_deletions WHERE state = 'held'"), ["1"]);
    house.expect(0, &["deletions", "approve"]);
    house.expect(0, &["sync"]);
    house.assert_true();
}

#[test]
fn a_persons_word_during_a_sweep_is_not_asked_for_anew() {
    for word in ["approve", "reject"] {
        let house = House::with(60);
        house.expect(0, &["sync"]);
        delete(&house, 30);
        house.expect(3, &["sync"]);
        // The next sweep samples them; while it waits for an answer, a person decides.
        let waits = house.inject(Fault::new(Effect::Hold).call(Call::Show));
        let mut sync = house.spawn(&["sync"]);
        house.runtime.block_on(house.sandbox.until(|world| world.fired(waits) > 0));
        house.expect(0, &["deletions", word]);
        house.sandbox.world().clear_faults();
        assert!(sync.wait().unwrap().success(), "no deletion waits for an operator any more");
        assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "0");
        house.expect(0, &["sync"]);
        let deleted = if word == "approve" { "30" } else { "0" };
        assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), deleted);
    }
}

#[test]
fn a_no_during_the_question_itself_is_heard() {
    let house = House::with(30);
    house.sweep();
    let gone = delete(&house, 1);
    let none = answered(404, komoju_sandbox::Payload::Code("not_found".into()));
    let fault = house.inject(Fault::new(none).call(Call::Show));
    assert_eq!(house.sweep().held, 1, "without a canary");
    house.sandbox.world().remove_fault(fault);
    let waits = house.inject(Fault::new(Effect::Hold).call(Call::Show));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(waits) > 0));
    house.expect(0, &["deletions", "reject"]);
    house.sandbox.world().clear_faults();
    assert!(sync.wait().unwrap().success());
    assert!(house.mirror().contains_key(&gone[0]), "a person said that it stays");
}

#[test]
fn a_probe_beside_a_hold_says_that_something_waits() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    delete(&house, 30);
    house.expect(3, &["sync"]);
    let ran = house.expect(3, &["sync", "--probe"]);
    assert!(ran.stderr.contains("30 deletions wait"), "{}", ran.stderr);
}

#[test]
fn missing_customer_whose_id_is_no_path_segment_is_never_requested() {
    let house = House::with(12);
    house.sandbox.world().put_raw(json!({"id": "..", "resource": "customer"}));
    house.sweep();
    assert!(house.sandbox.world().delete(".."));
    house.sandbox.world().clear_requests();
    let report = house.sweep();
    assert_eq!((report.outcome, report.tally.deleted, report.held), (Outcome::Complete, 0, 0));
    assert!(house.mirror().contains_key(".."));
    assert!(house.sandbox.world().requests().iter().all(|seen| seen.path.ends_with("/customers")));
}

#[test]
fn as_many_further_suspects_as_the_limit_allows_leave_a_hold_unchanged() {
    let house = House::with(60);
    house.expect(0, &["sync"]);
    delete(&house, 30);
    house.expect(3, &["sync"]);
    // The limit is ten; these are alive.
    let ids = house.sandbox.world().ids()[..10].to_vec();
    let fault = house.on_lists(Effect::Hide { ids, every: None });
    let report = house.sweep();
    assert!(house.fired(fault) > 0);
    assert_eq!((report.outcome, report.tally.deleted, report.held), (Outcome::Held, 0, 30));
    assert_eq!(house.one("SELECT count(DISTINCT hold_id) FROM held_deletions"), "1");
}

#[test]
fn deletions_of_a_day_count_together_though_the_sweep_that_saw_the_imprecise_list_was_killed() {
    let house = House::with(60).inbound("max_delete_count = 3\nmax_delete_percent = 0");
    house.expect(0, &["sync"]);
    // More than the limit are not listed, and they live. The sweep is killed while it requests one by one.
    let hidden = house.sandbox.world().ids()[20..].to_vec();
    house.on_lists(Effect::Hide { ids: hidden, every: None });
    let waits = house.inject(Fault::new(Effect::Hold).call(Call::Show).skip(25));
    let mut sync = house.spawn(&["sync"]);
    house.runtime.block_on(house.sandbox.until(|world| world.fired(waits) > 0));
    sync.kill().unwrap();
    sync.wait().unwrap();
    house.sandbox.world().clear_faults();
    // From here on the list is exact, and no sweep finds more missing than the limit.
    delete(&house, 3);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "3");
    delete(&house, 2);
    house.expect(3, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "3");
    assert_eq!(house.one("SELECT count(*) FROM held_deletions WHERE state = 'held'"), "2");
}
