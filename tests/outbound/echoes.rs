//! What we pushed does not come back as somebody else's change.

use komoju_sync::sandbox::{Call, Effect, Fault, Work};
use serde_json::json;

use crate::desk::Desk;

/// A page is asked for and answered late: what the intents do settles before it comes.
async fn settles_within_a_page(prepare: impl Fn(&Desk) -> Vec<String>) -> Desk {
    let mut desk = Desk::open(4).await;
    let expected = prepare(&desk);
    let head = desk.head();
    // Made up before, sent after: as a slow answer is.
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
    swept_within_a_push(None).await;
    // Whom a tagged create makes carries the tag, too.
    swept_within_a_push(Some("intent")).await;
}

/// The push takes effect and its answer is held; a sweep reads the list meanwhile, whole.
async fn swept_within_a_push(tag: Option<&str>) {
    let mut desk = Desk::open(4).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    let ids = desk.sandbox.world().ids();
    desk.intend("u", "update", Some(&ids[0]), Some(json!({"email": "b@example.com"})));
    desk.intend("c", "create", None, Some(json!({"email": "new@example.com"})));
    let head = desk.head();
    let slow = [Call::Update, Call::Create]
        .map(|call| desk.inject(Fault::new(Effect::Drip { every_ms: 40, bytes: 40 }).call(call).once()));
    let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
    pusher.recover().await.unwrap();
    let pull = desk.pull();
    let sweep = async {
        desk.sandbox.until(|world| slow.iter().all(|slow| world.fired(*slow) == 1)).await;
        desk.sandbox.until(|world| world.creates() == 1 && world.updates() == 1).await;
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
        desk.sandbox.world().readings_mut().list_source = komoju_sync::sandbox::readings::Source::Hidden;
        desk.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_z"})));
        vec!["updated intent u".to_owned()]
    })
    .await;
    desk.sandbox.world().readings_mut().list_source = komoju_sync::sandbox::readings::Source::Shown;
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
    desk.sandbox.world().readings_mut().list_source = komoju_sync::sandbox::readings::Source::Hidden;
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

/// A sweep that is held where `held` fires, while everything that is due is pushed.
async fn push_within_a_sweep(desk: &Desk, held: Fault) {
    let slow = desk.inject(held);
    let pull = desk.pull();
    let push = async {
        desk.sandbox.until(|world| world.fired(slow) == 1).await;
        let pusher = desk.pusher_at(&desk.sandbox.base_url(), Default::default());
        pusher.recover().await.unwrap();
        assert_eq!(pusher.drain().await.unwrap().done, 1);
        desk.sandbox.world().remove_fault(slow);
    };
    let (report, ()) = tokio::join!(pull.sweep(), push);
    let report = report.unwrap();
    assert!(report.failure.is_none(), "{}", report.sentence());
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
