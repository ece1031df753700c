//! Our own pushes are not recorded again as remote changes.

use komoju_core::PassOutcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::tasks::push::DrainSummary;
use komoju_testkit::InProcess;
use serde_json::json;

/// Holds a list request while the intents of `prepare` settle. `prepare` returns the expected
/// changes.
async fn push_during_a_list_request(prepare: impl Fn(&InProcess) -> Vec<String>) -> InProcess {
    let mut harness = InProcess::open(4).await;
    let expected = prepare(&harness);
    let head = harness.head();
    let slow = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).once());
    let pull = harness.pull();
    let sweep = pull.sweep();
    let push = async {
        harness.sandbox.until(|world| world.fired(slow) == 1).await;
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        let drained = pusher.drain().await.unwrap();
        harness.sandbox.world().remove_fault(slow);
        drained
    };
    let (report, drained) = tokio::join!(sweep, push);
    assert!(report.unwrap().failure.is_none());
    assert!(drained.done > 0);
    let mut changes = harness.changes_after(head);
    changes.sort();
    assert_eq!(changes, expected);
    drop(pull);
    // The next sweep finds no change either.
    let head = harness.head();
    assert!(harness.sweep().await.failure.is_none());
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    harness.assert_true();
    harness
}

#[tokio::test]
async fn page_requested_before_a_push_settles_adds_no_change() {
    push_during_a_list_request(|harness| {
        let ids = harness.sandbox.world().ids();
        harness.intend(
            "c",
            "create",
            None,
            Some(json!({"email": "new@example.com", "payment_details": "tok_x"})),
        );
        harness.intend(
            "u",
            "update",
            Some(&ids[0]),
            Some(json!({"email": "b@example.com", "payment_details": "tok_y"})),
        );
        harness.intend("d", "delete", Some(&ids[1]), None);
        vec!["created intent c".to_owned(), "deleted intent d".to_owned(), "updated intent u".to_owned()]
    })
    .await;
}

#[tokio::test]
async fn page_read_during_a_push_is_not_applied_to_its_customer() {
    sweep_during_a_push(None, 0).await;
    // The customer of a tagged create also carries the tag.
    sweep_during_a_push(Some("intent"), 0).await;
}

#[tokio::test]
async fn new_customer_waits_for_a_create_in_flight_with_a_fast_server_date() {
    sweep_during_a_push(None, 1800).await;
}

/// Reads the whole list in a sweep while the answers of an update and a create are delayed.
async fn sweep_during_a_push(tag: Option<&str>, ahead_s: i64) {
    let mut harness = InProcess::open(4).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    let ids = harness.sandbox.world().ids();
    harness.inject(Fault::new(FaultEffect::Date { ahead_s }));
    // The pusher knows the server's time before it claims the create.
    harness.intend("first", "update", Some(&ids[1]), Some(json!({"email": "first@example.com"})));
    let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    assert_eq!(pusher.drain().await.unwrap().done, 1);
    harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    harness.intend("c", "create", None, Some(json!({"email": "new@example.com"})));
    let head = harness.head();
    let slow = [FaultedCall::Update, FaultedCall::Create].map(|call| {
        harness.inject(Fault::new(FaultEffect::Drip { every_ms: 40, bytes: 40 }).call(call).once())
    });
    let pull = harness.pull();
    let sweep = async {
        harness.sandbox.until(|world| slow.iter().all(|slow| world.fired(*slow) == 1)).await;
        harness.sandbox.until(|world| world.creates() == 1 && world.updates() == 2).await;
        pull.sweep().await.unwrap()
    };
    let (drained, report) = tokio::join!(pusher.drain(), sweep);
    assert_eq!((drained.unwrap().done, report.failure.is_none()), (2, true));
    let mut changes = harness.changes_after(head);
    changes.sort();
    assert_eq!(changes, ["created intent c", "updated intent u"]);
    harness.assert_true();
}

#[tokio::test]
async fn card_shown_only_by_the_push_answer_survives_the_running_sweep() {
    let harness = push_during_a_list_request(|harness| {
        let id = harness.some_id();
        harness.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Hidden;
        harness.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_z"})));
        vec!["updated intent u".to_owned()]
    })
    .await;
    harness.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Shown;
}

#[tokio::test]
async fn remote_change_after_our_push_is_recorded() {
    let mut harness = InProcess::open(2).await;
    let id = harness.some_id();
    harness.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    harness.drain().await;
    harness.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    let head = harness.head();
    harness.sweep().await;
    assert_eq!(harness.changes_after(head), ["updated sweep"]);
}

#[tokio::test]
async fn create_seen_by_a_sweep_first_refers_to_the_change_of_that_sweep() {
    let mut harness = InProcess::open(2).await;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    harness.sweep().await;
    let head = harness.head();
    harness.advance(jiff::SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!((harness.state("c"), harness.head()), ("done".to_owned(), head));
    assert_eq!(harness.of("c", "change_seq"), head.to_string());
}

#[tokio::test]
async fn repeated_create_answer_does_not_restore_an_older_state() {
    for is_deleted in [false, true] {
        let mut harness = InProcess::open(2).await;
        harness.intend(
            "c",
            "create",
            None,
            Some(json!({"email": "a@example.com", "payment_details": "tok_c"})),
        );
        harness.inject(
            Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once(),
        );
        harness.drain().await;
        harness.sweep().await;
        let made = harness.one("SELECT id FROM customers WHERE email = 'a@example.com'");
        match is_deleted {
            true => harness.intend("then", "delete", Some(&made), None),
            false => harness.intend("then", "update", Some(&made), Some(json!({"email": "b@example.com"}))),
        }
        harness.drain().await;
        assert_eq!((harness.state("c"), harness.state("then")), ("waiting".to_owned(), "done".to_owned()));
        let head = harness.head();
        harness.advance(jiff::SignedDuration::from_secs(5));
        harness.drain().await;
        assert_eq!((harness.state("c"), harness.of("c", "result_customer_id")), ("done".to_owned(), made));
        assert_eq!(harness.changes_after(head), Vec::<String>::new());
        harness.assert_true();
    }
}

#[tokio::test]
async fn card_hidden_by_the_list_is_taken_from_a_repeated_answer() {
    let mut harness = InProcess::open(2).await;
    harness.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Hidden;
    harness.intend("c", "create", None, Some(json!({"email": "a@example.com", "payment_details": "tok_c"})));
    harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    harness.drain().await;
    harness.sweep().await;
    let card = |harness: &InProcess| {
        harness.one("SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com'")
    };
    assert_eq!(card(&harness), "0");
    harness.advance(jiff::SignedDuration::from_secs(5));
    harness.drain().await;
    assert_eq!((harness.state("c"), card(&harness)), ("done".to_owned(), "1".to_owned()));
}

/// Holds a sweep at `held` while one intent is pushed and done.
async fn push_during_a_sweep(harness: &InProcess, held: Fault) {
    assert_eq!(drain_during_a_sweep(harness, held).await.done, 1);
}

async fn drain_during_a_sweep(harness: &InProcess, held: Fault) -> DrainSummary {
    let slow = harness.inject(held);
    let pull = harness.pull();
    let push = async {
        harness.sandbox.until(|world| world.fired(slow) == 1).await;
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        let drained = pusher.drain().await.unwrap();
        harness.sandbox.world().remove_fault(slow);
        drained
    };
    let (report, drained) = tokio::join!(pull.sweep(), push);
    let report = report.unwrap();
    assert!(report.failure.is_none(), "{}", report.sentence());
    drained
}

#[tokio::test]
async fn card_pushed_after_a_listing_without_one_stays() {
    let mut harness = InProcess::open(15).await;
    let listed_first =
        harness.one("SELECT id FROM customers WHERE source IS NOT NULL ORDER BY created_at DESC LIMIT 1");
    harness.sandbox.world().update(&listed_first, json!({"source": null}));
    harness.intend("u", "update", Some(&listed_first), Some(json!({"payment_details": "tok_new"})));
    let head = harness.head();
    push_during_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once()).await;
    assert_eq!(harness.changes_after(head), ["updated intent u"]);
    harness.assert_true();
    harness.sweep().await;
    harness.assert_true();
}

#[tokio::test]
async fn own_delete_during_an_absence_check_is_recorded_once_as_intent() {
    let harness = InProcess::open(5).await;
    let gone = harness.some_id();
    harness.sandbox.world().delete(&gone);
    harness.intend("d", "delete", Some(&gone), None);
    let head = harness.head();
    push_during_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::Show).once()).await;
    assert_eq!(harness.changes_after(head), ["deleted intent d"]);
    harness.assert_true();
}

/// Returns the number of held deletions by reason.
fn held(harness: &InProcess) -> Vec<String> {
    harness.column(
        "SELECT because || ': ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' GROUP BY because",
    )
}

/// Returns a harness with sixty customers, of which the first eleven are gone: one above the limit.
async fn harness_with_eleven_gone() -> (InProcess, Vec<String>) {
    let harness = InProcess::open(60).await;
    let ids = harness.sandbox.world().ids();
    for id in &ids[..11] {
        harness.sandbox.world().delete(id);
    }
    (harness, ids)
}

/// Marks the database as restored, and deletes these customers at the API.
fn mark_restored(harness: &InProcess, gone: &[String]) {
    harness.sql("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'");
    for id in gone {
        harness.sandbox.world().delete(id);
    }
}

/// Runs a sweep of two pages. Our push deletes this customer of the first page after that page is
/// applied.
async fn sweep_with_own_delete_after_the_first_page(harness: &InProcess, listed: &str) -> PassOutcome {
    harness.intend("d", "delete", Some(listed), None);
    let slow = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once());
    let pull = harness.pull();
    let mut progress = pull.progress();
    let push = async {
        progress.wait_for(|progress| progress.done == 10).await.unwrap();
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        assert_eq!(pusher.drain().await.unwrap().done, 1);
        // Keeps the next page from skipping a customer.
        harness.sandbox.world().create(json!({"email": "new@example.com"}));
        harness.sandbox.world().remove_fault(slow);
    };
    let (report, ()) = tokio::join!(pull.sweep(), push);
    report.unwrap().outcome
}

#[tokio::test]
async fn own_delete_of_a_listed_customer_releases_no_hold() {
    let mut harness = InProcess::open(15).await;
    let listed = harness.column("SELECT id FROM customers ORDER BY created_at DESC");
    mark_restored(&harness, &listed[12..13]);
    harness.sweep().await;
    assert_eq!(held(&harness), ["restored: 1"]);
    // Then as many customers are live as were listed, but one live customer is missing.
    let outcome = sweep_with_own_delete_after_the_first_page(&harness, &listed[0]).await;
    assert_eq!(outcome, PassOutcome::Held);
    harness.sweep().await;
    assert_eq!(held(&harness), ["restored: 1"]);
}

#[tokio::test]
async fn own_delete_of_a_listed_customer_hides_no_missing_customer() {
    let harness = InProcess::open(15).await;
    let listed = harness.column("SELECT id FROM customers ORDER BY created_at DESC");
    let head = harness.head();
    harness.sandbox.world().delete(&listed[12]);
    // As many customers are live as were listed, but one live customer is missing.
    let outcome = sweep_with_own_delete_after_the_first_page(&harness, &listed[0]).await;
    assert_eq!(outcome, PassOutcome::Complete);
    assert_eq!(harness.changes_after(head), ["deleted intent d", "deleted sweep"]);
}

#[tokio::test]
async fn push_to_a_missing_customer_after_a_restore_releases_no_hold() {
    for is_held_before in [false, true] {
        let mut harness = InProcess::open(15).await;
        let ids = harness.sandbox.world().ids();
        mark_restored(&harness, &ids[..1]);
        if is_held_before {
            harness.sweep().await;
        }
        harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
        let late = Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once();
        assert_eq!(drain_during_a_sweep(&harness, late).await.rejected, 1);
        harness.sweep().await;
        assert_eq!(held(&harness), ["restored: 1"], "held before: {is_held_before}");
        assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    }
}

#[tokio::test]
async fn own_delete_of_a_held_customer_leaves_the_others_held() {
    let (mut harness, ids) = harness_with_eleven_gone().await;
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 11"]);
    harness.intend("d", "delete", Some(&ids[0]), None);
    harness.drain().await;
    assert_eq!(held(&harness), ["too_many: 10"], "the deleted customer leaves the hold");
    // The rest would be within the limit.
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 10"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "1");
    assert_eq!(harness.one("SELECT count(DISTINCT hold_id) FROM held_deletions"), "1");
}

#[tokio::test]
async fn own_delete_of_a_customer_skipped_by_paging_leaves_the_hold_unchanged() {
    let (mut harness, ids) = harness_with_eleven_gone().await;
    harness.sweep().await;
    // The mirror grows, and with it the limit, which the hold would no longer exceed.
    for n in 0..300 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.sweep().await;
    let skipped = ids[20].clone();
    harness.inject(
        Fault::new(FaultEffect::Hide { ids: vec![skipped.clone()], every: None }).call(FaultedCall::List),
    );
    harness.intend("d", "delete", Some(&skipped), None);
    // The sweep requests it, and the answer after our delete is a 404.
    push_during_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::Show).once()).await;
    assert_eq!(held(&harness), ["too_many: 11"]);
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [skipped]);
}

#[tokio::test]
async fn missing_customer_with_a_push_counts_against_the_limit() {
    let (mut harness, ids) = harness_with_eleven_gone().await;
    harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    let late = Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once();
    assert_eq!(drain_during_a_sweep(&harness, late).await.rejected, 1);
    // It counts against the limit, but is not held while its push is open.
    assert_eq!(held(&harness), ["too_many: 10"]);
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 10"]);
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), ids[..1]);
}
