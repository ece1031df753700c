//! What we pushed does not come back as somebody else's change.

use komoju_core::Outcome;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork};
use komoju_sync::tasks::push::Drained;
use komoju_testkit::InProcess;
use serde_json::json;

/// A page is asked for and made up late: what the intents do settles before that.
async fn settles_within_a_page(prepare: impl Fn(&InProcess) -> Vec<String>) -> InProcess {
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
    // Nor does the next sweep find anything new.
    let head = harness.head();
    assert!(harness.sweep().await.failure.is_none());
    assert_eq!(harness.changes_after(head), Vec::<String>::new());
    harness.assert_true();
    harness
}

#[tokio::test]
async fn a_page_in_flight_while_pushes_settle_brings_nothing_new() {
    settles_within_a_page(|harness| {
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
async fn a_page_answered_before_and_applied_within_a_push_is_not_applied_to_its_customer() {
    swept_within_a_push(None, 0).await;
    // Whom a tagged create makes carries the tag, too.
    swept_within_a_push(Some("intent"), 0).await;
}

#[tokio::test]
async fn customer_of_a_create_in_flight_waits_for_its_answer_though_the_servers_date_is_ahead() {
    swept_within_a_push(None, 1800).await;
}

/// The push takes effect and its answer is held; a sweep reads the list meanwhile, whole.
async fn swept_within_a_push(tag: Option<&str>, ahead_s: i64) {
    let mut harness = InProcess::open(4).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    let ids = harness.sandbox.world().ids();
    harness.inject(Fault::new(FaultEffect::Date { ahead_s }));
    // The pusher has heard the server's time when it claims the create.
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
async fn a_card_that_only_the_answer_shows_outlives_the_sweep_that_was_under_way() {
    let harness = settles_within_a_page(|harness| {
        let id = harness.some_id();
        harness.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Hidden;
        harness.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_z"})));
        vec!["updated intent u".to_owned()]
    })
    .await;
    harness.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Shown;
}

#[tokio::test]
async fn somebody_elses_change_after_ours_is_seen() {
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
async fn a_sweep_that_saw_it_first_is_named_as_the_change_that_records_it() {
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
async fn a_create_that_is_answered_again_does_not_bring_back_what_its_customer_was() {
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
async fn a_card_that_the_list_does_not_show_is_taken_from_the_second_answer_too() {
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

/// A sweep that is held where `held` fires, while everything that is due is pushed: one intent, which is done.
async fn push_within_a_sweep(harness: &InProcess, held: Fault) {
    assert_eq!(pushed_within_a_sweep(harness, held).await.done, 1);
}

async fn pushed_within_a_sweep(harness: &InProcess, held: Fault) -> Drained {
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
async fn a_card_that_was_pushed_after_its_customer_was_listed_without_one_stays() {
    let mut harness = InProcess::open(15).await;
    let listed_first =
        harness.one("SELECT id FROM customers WHERE source IS NOT NULL ORDER BY created_at DESC LIMIT 1");
    harness.sandbox.world().update(&listed_first, json!({"source": null}));
    harness.intend("u", "update", Some(&listed_first), Some(json!({"payment_details": "tok_new"})));
    let head = harness.head();
    push_within_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once()).await;
    assert_eq!(harness.changes_after(head), ["updated intent u"]);
    harness.assert_true();
    harness.sweep().await;
    harness.assert_true();
}

#[tokio::test]
async fn our_own_delete_during_an_absence_check_is_recorded_once_and_as_ours() {
    let harness = InProcess::open(5).await;
    let gone = harness.some_id();
    harness.sandbox.world().delete(&gone);
    harness.intend("d", "delete", Some(&gone), None);
    let head = harness.head();
    push_within_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::Show).once()).await;
    assert_eq!(harness.changes_after(head), ["deleted intent d"]);
    harness.assert_true();
}

/// What is held, a line for each reason.
fn held(harness: &InProcess) -> Vec<String> {
    harness.column(
        "SELECT because || ': ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' GROUP BY because",
    )
}

/// Sixty customers, of whom the first eleven are gone: one more than a sweep may settle by itself.
async fn eleven_are_gone() -> (InProcess, Vec<String>) {
    let harness = InProcess::open(60).await;
    let ids = harness.sandbox.world().ids();
    for id in &ids[..11] {
        harness.sandbox.world().delete(id);
    }
    (harness, ids)
}

/// Makes the database one that was restored, and these customers gone.
fn restored(harness: &InProcess, gone: &[String]) {
    harness.sql("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'");
    for id in gone {
        harness.sandbox.world().delete(id);
    }
}

#[tokio::test]
async fn our_own_delete_of_somebody_who_was_listed_lets_nobody_go_who_waits_for_a_person() {
    let mut harness = InProcess::open(15).await;
    let listed = harness.column("SELECT id FROM customers ORDER BY created_at DESC");
    restored(&harness, &listed[12..13]);
    harness.sweep().await;
    assert_eq!(held(&harness), ["restored: 1"]);
    // As many are live then as were listed, and one of those is missing all the same.
    harness.intend("d", "delete", Some(&listed[0]), None);
    let slow = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once());
    let pull = harness.pull();
    let mut progress = pull.progress();
    let push = async {
        progress.wait_for(|progress| progress.done == 10).await.unwrap();
        let pusher = harness.pusher_at(&harness.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        assert_eq!(pusher.drain().await.unwrap().done, 1);
        // So that the next page skips nobody.
        harness.sandbox.world().create(json!({"email": "new@example.com"}));
        harness.sandbox.world().remove_fault(slow);
    };
    let (report, ()) = tokio::join!(pull.sweep(), push);
    assert_eq!(report.unwrap().outcome, Outcome::Held);
    harness.sweep().await;
    assert_eq!(held(&harness), ["restored: 1"]);
}

#[tokio::test]
async fn after_a_restore_a_push_to_somebody_who_is_missing_lets_nobody_go() {
    for is_held_before in [false, true] {
        let mut harness = InProcess::open(15).await;
        let ids = harness.sandbox.world().ids();
        restored(&harness, &ids[..1]);
        if is_held_before {
            harness.sweep().await;
        }
        harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
        let late = Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once();
        assert_eq!(pushed_within_a_sweep(&harness, late).await.rejected, 1);
        harness.sweep().await;
        assert_eq!(held(&harness), ["restored: 1"], "held before: {is_held_before}");
        assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "0");
    }
}

#[tokio::test]
async fn our_own_delete_of_one_who_is_held_lets_the_others_wait() {
    let (mut harness, ids) = eleven_are_gone().await;
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 11"]);
    harness.intend("d", "delete", Some(&ids[0]), None);
    harness.drain().await;
    assert_eq!(held(&harness), ["too_many: 10"], "nobody need decide about the one that is deleted");
    // They would be few enough.
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 10"]);
    assert_eq!(harness.one("SELECT count(*) FROM deleted_customers"), "1");
    assert_eq!(harness.one("SELECT count(DISTINCT hold_id) FROM held_deletions"), "1");
}

#[tokio::test]
async fn our_own_delete_of_somebody_whom_paging_skips_makes_no_other_set_of_those_who_wait() {
    let (mut harness, ids) = eleven_are_gone().await;
    harness.sweep().await;
    // The mirror grows, and the limit with it: they would be few enough.
    for n in 0..300 {
        harness.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    harness.sweep().await;
    let skipped = ids[20].clone();
    harness.inject(
        Fault::new(FaultEffect::Hide { ids: vec![skipped.clone()], every: None }).call(FaultedCall::List),
    );
    harness.intend("d", "delete", Some(&skipped), None);
    // Asked for, and answered after our delete: with 404.
    push_within_a_sweep(&harness, Fault::new(FaultEffect::Hold).call(FaultedCall::Show).once()).await;
    assert_eq!(held(&harness), ["too_many: 11"]);
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), [skipped]);
}

#[tokio::test]
async fn whom_we_push_to_counts_among_those_who_are_too_many() {
    let (mut harness, ids) = eleven_are_gone().await;
    harness.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    let late = Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(2).once();
    assert_eq!(pushed_within_a_sweep(&harness, late).await.rejected, 1);
    // It counts, and is left to its push.
    assert_eq!(held(&harness), ["too_many: 10"]);
    harness.sweep().await;
    assert_eq!(held(&harness), ["too_many: 10"]);
    assert_eq!(harness.column("SELECT id FROM deleted_customers"), ids[..1]);
}
