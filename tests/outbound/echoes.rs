//! What we pushed does not come back as somebody else's change.

use komoju_core::Outcome;
use komoju_sandbox::{Call, Effect, Fault, Work};
use komoju_sync::tasks::push::Drained;
use serde_json::json;

use crate::desk::Desk;

/// A page is asked for and made up late: what the intents do settles before that.
async fn settles_within_a_page(prepare: impl Fn(&Desk) -> Vec<String>) -> Desk {
    let mut desk = Desk::open(4).await;
    let expected = prepare(&desk);
    let head = desk.head();
    let slow = desk.inject(Fault::new(Effect::Hold).call(Call::List).once());
    let pull = desk.pull();
    let sweep = pull.sweep();
    let push = async {
        desk.sandbox.until(|world| world.fired(slow) == 1).await;
        let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        let drained = pusher.drain().await.unwrap();
        desk.sandbox.world().remove_fault(slow);
        drained
    };
    let (report, drained) = tokio::join!(sweep, push);
    assert!(report.unwrap().failure.is_none());
    assert!(drained.done > 0);
    let mut changes = desk.changes_after(head);
    changes.sort();
    assert_eq!(changes, expected);
    drop(pull);
    // Nor does the next sweep find anything new.
    let head = desk.head();
    assert!(desk.sweep().await.failure.is_none());
    assert_eq!(desk.changes_after(head), Vec::<String>::new());
    desk.assert_true();
    desk
}

#[tokio::test]
async fn a_page_in_flight_while_pushes_settle_brings_nothing_new() {
    settles_within_a_page(|desk| {
        let ids = desk.sandbox.world().ids();
        desk.intend(
            "c",
            "create",
            None,
            Some(json!({"email": "new@example.com", "payment_details": "tok_x"})),
        );
        desk.intend(
            "u",
            "update",
            Some(&ids[0]),
            Some(json!({"email": "b@example.com", "payment_details": "tok_y"})),
        );
        desk.intend("d", "delete", Some(&ids[1]), None);
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
    let mut desk = Desk::open(4).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    let ids = desk.sandbox.world().ids();
    desk.inject(Fault::new(Effect::Date { ahead_s }));
    // The pusher has heard the server's time when it claims the create.
    desk.intend("first", "update", Some(&ids[1]), Some(json!({"email": "first@example.com"})));
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    assert_eq!(pusher.drain().await.unwrap().done, 1);
    desk.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    desk.intend("c", "create", None, Some(json!({"email": "new@example.com"})));
    let head = desk.head();
    let slow = [Call::Update, Call::Create]
        .map(|call| desk.inject(Fault::new(Effect::Drip { every_ms: 40, bytes: 40 }).call(call).once()));
    let pull = desk.pull();
    let sweep = async {
        desk.sandbox.until(|world| slow.iter().all(|slow| world.fired(*slow) == 1)).await;
        desk.sandbox.until(|world| world.creates() == 1 && world.updates() == 2).await;
        pull.sweep().await.unwrap()
    };
    let (drained, report) = tokio::join!(pusher.drain(), sweep);
    assert_eq!((drained.unwrap().done, report.failure.is_none()), (2, true));
    let mut changes = desk.changes_after(head);
    changes.sort();
    assert_eq!(changes, ["created intent c", "updated intent u"]);
    desk.assert_true();
}

#[tokio::test]
async fn a_card_that_only_the_answer_shows_outlives_the_sweep_that_was_under_way() {
    let desk = settles_within_a_page(|desk| {
        let id = desk.some_id();
        desk.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Hidden;
        desk.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_z"})));
        vec!["updated intent u".to_owned()]
    })
    .await;
    desk.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Shown;
}

#[tokio::test]
async fn somebody_elses_change_after_ours_is_seen() {
    let mut desk = Desk::open(2).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "ours@example.com"})));
    desk.drain().await;
    desk.sandbox.world().update(&id, json!({"email": "theirs@example.com"}));
    let head = desk.head();
    desk.sweep().await;
    assert_eq!(desk.changes_after(head), ["updated sweep"]);
}

#[tokio::test]
async fn a_sweep_that_saw_it_first_is_named_as_the_change_that_records_it() {
    let mut desk = Desk::open(2).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    desk.sweep().await;
    let head = desk.head();
    desk.advance(jiff::SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.head()), ("done".to_owned(), head));
    assert_eq!(desk.of("c", "change_seq"), head.to_string());
}

#[tokio::test]
async fn a_create_that_is_answered_again_does_not_bring_back_what_its_customer_was() {
    for is_deleted in [false, true] {
        let mut desk = Desk::open(2).await;
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com", "payment_details": "tok_c"})));
        desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
        desk.drain().await;
        desk.sweep().await;
        let made = desk.one("SELECT id FROM customers WHERE email = 'a@example.com'");
        match is_deleted {
            true => desk.intend("then", "delete", Some(&made), None),
            false => desk.intend("then", "update", Some(&made), Some(json!({"email": "b@example.com"}))),
        }
        desk.drain().await;
        assert_eq!((desk.state("c"), desk.state("then")), ("waiting".to_owned(), "done".to_owned()));
        let head = desk.head();
        desk.advance(jiff::SignedDuration::from_secs(5));
        desk.drain().await;
        assert_eq!((desk.state("c"), desk.of("c", "result_customer_id")), ("done".to_owned(), made));
        assert_eq!(desk.changes_after(head), Vec::<String>::new());
        desk.assert_true();
    }
}

#[tokio::test]
async fn a_card_that_the_list_does_not_show_is_taken_from_the_second_answer_too() {
    let mut desk = Desk::open(2).await;
    desk.sandbox.world().readings_mut().list_source = komoju_sandbox::readings::Source::Hidden;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com", "payment_details": "tok_c"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Done }).call(Call::Create).once());
    desk.drain().await;
    desk.sweep().await;
    let card =
        |desk: &Desk| desk.one("SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com'");
    assert_eq!(card(&desk), "0");
    desk.advance(jiff::SignedDuration::from_secs(5));
    desk.drain().await;
    assert_eq!((desk.state("c"), card(&desk)), ("done".to_owned(), "1".to_owned()));
}

/// A sweep that is held where `held` fires, while everything that is due is pushed: one intent, which is done.
async fn push_within_a_sweep(desk: &Desk, held: Fault) {
    assert_eq!(pushed_within_a_sweep(desk, held).await.done, 1);
}

async fn pushed_within_a_sweep(desk: &Desk, held: Fault) -> Drained {
    let slow = desk.inject(held);
    let pull = desk.pull();
    let push = async {
        desk.sandbox.until(|world| world.fired(slow) == 1).await;
        let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        let drained = pusher.drain().await.unwrap();
        desk.sandbox.world().remove_fault(slow);
        drained
    };
    let (report, drained) = tokio::join!(pull.sweep(), push);
    let report = report.unwrap();
    assert!(report.failure.is_none(), "{}", report.sentence());
    drained
}

#[tokio::test]
async fn a_card_that_was_pushed_after_its_customer_was_listed_without_one_stays() {
    let mut desk = Desk::open(15).await;
    let listed_first =
        desk.one("SELECT id FROM customers WHERE source IS NOT NULL ORDER BY created_at DESC LIMIT 1");
    desk.sandbox.world().update(&listed_first, json!({"source": null}));
    desk.intend("u", "update", Some(&listed_first), Some(json!({"payment_details": "tok_new"})));
    let head = desk.head();
    push_within_a_sweep(&desk, Fault::new(Effect::Hold).call(Call::List).page(2).once()).await;
    assert_eq!(desk.changes_after(head), ["updated intent u"]);
    desk.assert_true();
    desk.sweep().await;
    desk.assert_true();
}

#[tokio::test]
async fn our_own_delete_within_an_inquest_is_recorded_once_and_as_ours() {
    let desk = Desk::open(5).await;
    let gone = desk.some_id();
    desk.sandbox.world().delete(&gone);
    desk.intend("d", "delete", Some(&gone), None);
    let head = desk.head();
    push_within_a_sweep(&desk, Fault::new(Effect::Hold).call(Call::Show).once()).await;
    assert_eq!(desk.changes_after(head), ["deleted intent d"]);
    desk.assert_true();
}

/// What is held, a line for each reason.
fn held(desk: &Desk) -> Vec<String> {
    desk.column(
        "SELECT because || ': ' || count(*) FROM held_customer JOIN hold ON hold.id = hold_id WHERE state = 'held' GROUP BY because",
    )
}

/// Sixty customers, of whom the first eleven are gone: one more than a sweep may settle by itself.
async fn eleven_are_gone() -> (Desk, Vec<String>) {
    let desk = Desk::open(60).await;
    let ids = desk.sandbox.world().ids();
    for id in &ids[..11] {
        desk.sandbox.world().delete(id);
    }
    (desk, ids)
}

/// Makes the database one that was restored, and these customers gone.
fn restored(desk: &Desk, gone: &[String]) {
    desk.sql("UPDATE meta SET restored_at = '2026-06-01T00:00:00.000Z'");
    for id in gone {
        desk.sandbox.world().delete(id);
    }
}

#[tokio::test]
async fn our_own_delete_of_somebody_who_was_listed_lets_nobody_go_who_waits_for_a_person() {
    let mut desk = Desk::open(15).await;
    let listed = desk.column("SELECT id FROM customers ORDER BY created_at DESC");
    restored(&desk, &listed[12..13]);
    desk.sweep().await;
    assert_eq!(held(&desk), ["restored: 1"]);
    // As many are live then as were listed, and one of those is missing all the same.
    desk.intend("d", "delete", Some(&listed[0]), None);
    let slow = desk.inject(Fault::new(Effect::Hold).call(Call::List).page(2).once());
    let pull = desk.pull();
    let mut progress = pull.progress();
    let push = async {
        progress.wait_for(|progress| progress.done == 10).await.unwrap();
        let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        assert_eq!(pusher.drain().await.unwrap().done, 1);
        // So that the next page skips nobody.
        desk.sandbox.world().create(json!({"email": "new@example.com"}));
        desk.sandbox.world().remove_fault(slow);
    };
    let (report, ()) = tokio::join!(pull.sweep(), push);
    assert_eq!(report.unwrap().outcome, Outcome::Held);
    desk.sweep().await;
    assert_eq!(held(&desk), ["restored: 1"]);
}

#[tokio::test]
async fn after_a_restore_a_push_to_somebody_who_is_missing_lets_nobody_go() {
    for is_held_before in [false, true] {
        let mut desk = Desk::open(15).await;
        let ids = desk.sandbox.world().ids();
        restored(&desk, &ids[..1]);
        if is_held_before {
            desk.sweep().await;
        }
        desk.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
        let late = Fault::new(Effect::Hold).call(Call::List).page(2).once();
        assert_eq!(pushed_within_a_sweep(&desk, late).await.rejected, 1);
        desk.sweep().await;
        assert_eq!(held(&desk), ["restored: 1"], "held before: {is_held_before}");
        assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), "0");
    }
}

#[tokio::test]
async fn our_own_delete_of_one_who_is_held_lets_the_others_wait() {
    let (mut desk, ids) = eleven_are_gone().await;
    desk.sweep().await;
    assert_eq!(held(&desk), ["too_many: 11"]);
    desk.intend("d", "delete", Some(&ids[0]), None);
    desk.drain().await;
    assert_eq!(held(&desk), ["too_many: 10"], "nobody need decide about the one that is deleted");
    // They would be few enough.
    desk.sweep().await;
    assert_eq!(held(&desk), ["too_many: 10"]);
    assert_eq!(desk.one("SELECT count(*) FROM deleted_customers"), "1");
    assert_eq!(desk.one("SELECT count(DISTINCT hold_id) FROM held_deletions"), "1");
}

#[tokio::test]
async fn our_own_delete_of_somebody_whom_paging_skips_makes_no_other_set_of_those_who_wait() {
    let (mut desk, ids) = eleven_are_gone().await;
    desk.sweep().await;
    // The mirror grows, and the limit with it: they would be few enough.
    for n in 0..300 {
        desk.sandbox.world().create(json!({"email": format!("{n}@example.com")}));
    }
    desk.sweep().await;
    let skipped = ids[20].clone();
    desk.inject(Fault::new(Effect::Hide { ids: vec![skipped.clone()], every: None }).call(Call::List));
    desk.intend("d", "delete", Some(&skipped), None);
    // Asked for, and answered after our delete: with 404.
    push_within_a_sweep(&desk, Fault::new(Effect::Hold).call(Call::Show).once()).await;
    assert_eq!(held(&desk), ["too_many: 11"]);
    assert_eq!(desk.column("SELECT id FROM deleted_customers"), [skipped]);
}

#[tokio::test]
async fn whom_we_push_to_counts_among_those_who_are_too_many() {
    let (mut desk, ids) = eleven_are_gone().await;
    desk.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    let late = Fault::new(Effect::Hold).call(Call::List).page(2).once();
    assert_eq!(pushed_within_a_sweep(&desk, late).await.rejected, 1);
    // It counts, and is left to its push.
    assert_eq!(held(&desk), ["too_many: 10"]);
    desk.sweep().await;
    assert_eq!(held(&desk), ["too_many: 10"]);
    assert_eq!(desk.column("SELECT id FROM deleted_customers"), ids[..1]);
}
