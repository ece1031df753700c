//! Unknown outcomes: the same key, the read-back, the reconciliation, and what only a person can decide.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use komoju_core::CustomerId;
use komoju_core::plan::lag::Consistency;
use komoju_core::{Page, PageQuery};
use komoju_sandbox::readings::{ServerErrors, Source};
use komoju_sandbox::{Call, Drift, Effect, Fault, Payload, Readings, Work};
use komoju_sync::clock::{Clock as _, ManualClock};
use komoju_sync::remote::{Http, Push, PushError, PushRemote, Pushed, Remote, RemoteError, Shown};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk, START};

fn lost(call: Call) -> Fault {
    Fault::new(Effect::Reset { work: Work::Done }).call(call).once()
}

fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

#[tokio::test]
async fn a_lost_answer_to_a_create_is_asked_for_again_under_the_same_key() {
    let mut desk = Desk::open(3).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com", "payment_details": "tok_once"})));
    desk.inject(lost(Call::Create));
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    // Somebody else has made one like it: which is whose, only the key tells.
    desk.sandbox.world().create(json!({"email": "a@example.com"}));
    desk.restart();
    desk.advance(minutes(19 * 60 + 58));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    let world = desk.sandbox.world();
    let posts: Vec<_> = world.requests().iter().filter(|seen| seen.method == "POST").collect();
    let keys: Vec<_> = posts.iter().map(|seen| seen.header("x-komoju-idempotency").unwrap()).collect();
    assert_eq!((posts.len(), keys[0], &posts[0].body), (2, keys[1], &posts[1].body));
}

/// Loses the first answer, waits so long, and goes on with this tag; returns the creates.
async fn create_after(
    wait: SignedDuration,
    tag: Option<&str>,
    effect: Effect,
    readings: Readings,
) -> (Desk, u64) {
    let mut desk = Desk::reading(3, readings).await;
    desk.settings.reconcile_tag = tag.map(str::to_owned);
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com", "metadata": {"n": "1"}})));
    let fault = desk.inject(Fault::new(effect).call(Call::Create).once());
    desk.drain().await;
    assert_eq!((desk.sandbox.world().fired(fault), desk.state("c")), (1, "waiting".to_owned()));
    desk.restart();
    desk.advance(wait);
    desk.drain_on(75, minutes(20)).await;
    let creates = desk.sandbox.world().creates();
    (desk, creates)
}

/// How often a create was sent.
fn posts(desk: &Desk) -> usize {
    desk.sandbox.world().requests().iter().filter(|seen| seen.method == "POST").count()
}

#[tokio::test]
async fn a_create_whose_customer_is_plain_to_see_is_not_sent_again() {
    for token in [None, Some("tok_once")] {
        let mut desk = Desk::open(3).await;
        desk.sandbox.world().readings_mut().list_source = Source::Hidden;
        let body = match token {
            Some(token) => json!({"email": "a@example.com", "payment_details": token}),
            None => json!({"email": "a@example.com"}),
        };
        desk.intend("c", "create", None, Some(body));
        // A server that keeps no 5xx under its key, and a process that ends before it has written down that it was one.
        let failed = Effect::Status {
            status: 500,
            body: Payload::Code("internal_server_error".to_owned()),
            retry_after: None,
            headers: Default::default(),
            work: Work::Done,
        };
        desk.inject(Fault::new(failed).call(Call::Create).once());
        end_at(&mut desk, Cut::AfterPush(0)).await;
        desk.advance(minutes(1));
        desk.drain().await;
        let creates = desk.sandbox.world().creates();
        let ended = (desk.state("c"), creates, posts(&desk));
        assert_eq!(ended, ("done".to_owned(), 1, 1), "{token:?}: {}", desk.of("c", "reason"));
        let card = "SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com'";
        assert_eq!(desk.one(card), if token.is_some() { "1" } else { "0" });
    }
}

#[tokio::test]
async fn somebody_elses_customer_without_the_card_is_not_the_creates() {
    let mut desk = Desk::open(3).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com", "payment_details": "tok_once"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Create).once());
    desk.drain().await;
    desk.sandbox.world().create(json!({"email": "a@example.com"}));
    desk.advance(minutes(1));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    desk.sweep().await;
    let card = "SELECT source IS NOT NULL FROM customers WHERE email = 'a@example.com' ORDER BY 1";
    assert_eq!(desk.column(card), ["0", "1"]);
}

#[tokio::test]
async fn at_every_age_of_the_key_one_create_is_made() {
    let effects = [
        Effect::Reset { work: Work::Done },
        Effect::Reset { work: Work::Skipped },
        Effect::Status {
            status: 500,
            body: Default::default(),
            retry_after: None,
            headers: Default::default(),
            work: Work::Done,
        },
        Effect::status(500),
    ];
    for stored in [ServerErrors::Stored, ServerErrors::Forgotten] {
        for age in [1, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1, 50 * 60] {
            for tag in [None, Some("intent")] {
                for effect in &effects {
                    let readings = Readings { server_errors: stored, ..Readings::default() };
                    let (desk, creates) = create_after(minutes(age), tag, effect.clone(), readings).await;
                    let case = format!("{stored:?} {age} {tag:?} {effect:?}: {:?}", desk.of("c", "reason"));
                    assert_eq!((desk.state("c").as_str(), creates), ("done", 1), "{case}");
                    assert_eq!(desk.sandbox.world().len(), 4, "{case}");
                    let made = desk.of("c", "result_customer_id");
                    assert_eq!(desk.sandbox.world().get(&made).unwrap()["email"], "a@example.com", "{case}");
                    desk.assert_true();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_gives_no_key_more_time() {
    // A day passed. The wall clock says: an hour before the first attempt; half a minute after it.
    for wall in ["2026-05-31T23:00:00Z", "2026-06-01T00:00:30Z"] {
        let mut desk = Desk::open(1).await;
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        desk.inject(lost(Call::Create));
        desk.drain().await;
        desk.restart();
        // Another boot: the steady clock says nothing.
        desk.sql("UPDATE outbox SET first_boot = 'another'; UPDATE intents SET next_attempt_at = NULL");
        desk.sandbox.world().advance(std::time::Duration::from_secs(25 * 3600));
        desk.clock.set_wall(wall.parse().unwrap());
        desk.drain().await;
        let case = format!("{wall}: {}", desk.of("c", "reason"));
        assert_eq!((desk.state("c").as_str(), desk.sandbox.world().creates()), ("done", 1), "{case}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_back_a_year_keeps_nothing_waiting_so_long() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
    desk.inject(Fault::new(Effect::status(503)).call(Call::Update).once());
    desk.drain().await;
    desk.clock.set_wall("2025-06-01T00:00:00Z".parse().unwrap());
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
}

#[tokio::test]
async fn what_nobody_can_know_is_parked() {
    // Another customer that could be it came to be meanwhile, and there is no tag.
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(lost(Call::Create));
    desk.drain().await;
    desk.sandbox.world().create(json!({"email": "A@example.com"}));
    desk.advance(minutes(21 * 60));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("parked".to_owned(), 1));
    assert!(
        desk.of("c", "reason").contains("2 customers that were created since could be it"),
        "{}",
        desk.of("c", "reason")
    );
    assert_eq!(desk.detail("c")["unclaimed"].as_array().unwrap().len(), 2);

    // The same without the other, but for a twin whose outcome is unknown too.
    let mut desk = Desk::open(1).await;
    for id in ["c", "twin"] {
        desk.intend(id, "create", None, Some(json!({"email": "a@example.com"})));
    }
    desk.settings.max_concurrent_requests = 1;
    desk.inject(lost(Call::Create));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.states(), ["c waiting", "twin waiting"]);
    desk.advance(minutes(21 * 60));
    desk.drain().await;
    assert_eq!(desk.states(), ["c parked", "twin parked"]);
    assert_eq!(desk.sandbox.world().creates(), 1);

    // A customer that was made and is gone already.
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(lost(Call::Create));
    desk.drain().await;
    desk.sweep().await;
    let made = desk.one("SELECT id FROM customers WHERE email = 'a@example.com'");
    desk.sandbox.world().delete(&made);
    desk.sweep().await;
    desk.advance(minutes(21 * 60));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("parked".to_owned(), 1));
}

#[tokio::test]
async fn customers_that_other_intents_made_are_accounted_for() {
    let mut desk = Desk::open(1).await;
    desk.settings.max_concurrent_requests = 1;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.intend("d", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.states(), ["c waiting", "d done"]);
    desk.advance(minutes(21 * 60));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 2));
    assert_ne!(desk.of("c", "result_customer_id"), desk.of("d", "result_customer_id"));
}

#[tokio::test]
async fn a_window_that_keeps_moving_proves_nothing() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Reset { work: Work::Skipped }).call(Call::Create).once());
    desk.drain().await;
    desk.advance(minutes(21 * 60));
    let posts = desk.sandbox.world().creates();
    let short =
        desk.inject(Fault::new(Effect::Body { body: komoju_sandbox::Payload::Html }).call(Call::List));
    desk.drain().await;
    assert!(desk.sandbox.world().fired(short) > 0);
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("waiting".to_owned(), posts));
    desk.sandbox.world().remove_fault(short);
    desk.advance(minutes(10));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), posts + 1));
}

#[tokio::test]
async fn a_window_that_keeps_moving_is_looked_at_again_about_every_minute() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::status(500)).call(Call::Create).once());
    desk.drain().await;
    let drift = Drift { insert: 1, ..Drift::default() };
    let moving = desk.inject(Fault::new(Effect::Drift(drift)).call(Call::List));
    for attempts in 2..=12 {
        desk.advance(minutes(2));
        desk.drain().await;
        assert_eq!(desk.one("SELECT max(n) FROM attempts"), attempts.to_string());
        let reason = desk.of("c", "reason");
        assert!(reason.contains("the list keeps moving"), "{reason}");
    }
    assert!(desk.sandbox.world().fired(moving) > 0);
    let next: jiff::Timestamp = desk.of("c", "next_attempt_at").parse().unwrap();
    let wait = next.duration_since(desk.clock.now());
    assert!(wait > SignedDuration::from_secs(40) && wait < SignedDuration::from_secs(80), "{wait:?}");
    // One that takes long to read is left alone for longer: others want to ask something, too.
    desk.advance(minutes(2));
    let slow = Ending { list_takes: Duration::from_secs(30), ..Ending::of(&desk, None) };
    drain_until_over(&mut desk, slow).await;
    let next: jiff::Timestamp = desk.of("c", "next_attempt_at").parse().unwrap();
    let wait = next.duration_since(desk.clock.now());
    assert!(wait >= SignedDuration::from_secs(4 * 30) && wait < SignedDuration::from_mins(30), "{wait:?}");
    desk.sandbox.world().remove_fault(moving);
    desk.advance(wait);
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn a_delete_that_is_repeated_says_no_more_than_is_known() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("d", "delete", Some(&id), None);
    desk.inject(lost(Call::Delete));
    desk.drain().await;
    desk.advance(minutes(1));
    desk.drain().await;
    assert_eq!(desk.state("d"), "done");
    let reason = desk.of("d", "reason");
    assert!(reason.contains("an attempt whose answer was lost deleted it, or somebody else did"), "{reason}");
    desk.assert_true();
}

#[tokio::test]
async fn an_update_with_a_token_is_read_back_before_anything_is_repeated() {
    let token = |token: &str| json!({"email": "b@example.com", "payment_details": token});
    for (work, patches) in [(Work::Done, 1), (Work::Skipped, 2)] {
        let mut desk = Desk::open(1).await;
        let id = desk.some_id();
        desk.intend("u", "update", Some(&id), Some(token("tok_a")));
        desk.inject(Fault::new(Effect::Reset { work }).call(Call::Update).once());
        desk.drain().await;
        desk.restart();
        desk.advance(minutes(1));
        desk.drain().await;
        assert_eq!(desk.state("u"), "done", "{work:?} {}", desk.of("u", "reason"));
        let calls = desk.calls();
        assert_eq!(calls.iter().filter(|call| call.starts_with("PATCH")).count(), patches, "{calls:?}");
        assert_eq!(desk.sandbox.world().updates(), 1);
    }
    // Nothing but the token was asked for, and the API does not show cards: nobody can tell.
    let hidden = Readings { list_source: Source::Hidden, show_source: Source::Hidden, ..Readings::default() };
    let mut desk = Desk::reading(1, hidden).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"payment_details": "tok_b"})));
    desk.inject(lost(Call::Update));
    desk.drain().await;
    desk.advance(minutes(1));
    desk.drain().await;
    assert_eq!((desk.state("u"), desk.sandbox.world().updates()), ("parked".to_owned(), 1));
    assert!(desk.of("u", "reason").contains("payment token can be used once"), "{}", desk.of("u", "reason"));
    // As it is it would be looked at once more; with another token it is a new update.
    let body = komoju_core::intent::Body::new(json!({"payment_details": "tok_c"})).unwrap();
    desk.store()
        .write(move |tx| komoju_sync::store::outbox::operator::retry(tx, "u", Some(&body)))
        .await
        .unwrap();
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
}

#[tokio::test]
async fn an_answer_without_a_customer_is_asked_for_again() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(Fault::new(Effect::Body { body: komoju_sandbox::Payload::Html }).call(Call::Create).once());
    desk.drain().await;
    assert_eq!(desk.state("c"), "waiting");
    desk.advance(minutes(1));
    desk.drain().await;
    assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    desk.assert_true();
}

/// Where a process may end between two commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    BeforePush(usize),
    AfterPush(usize),
    BeforeList(usize),
}

/// The real remote, and a process that ends at one point of its way.
struct Ending {
    remote: Http,
    cut: Option<Cut>,
    /// Whether the answers say what time it is there.
    tells_time: bool,
    /// How long a page takes, by the desk's clock.
    list_takes: Duration,
    clock: Arc<ManualClock>,
    over: CancellationToken,
    pushes: std::sync::atomic::AtomicUsize,
    lists: std::sync::atomic::AtomicUsize,
}

impl Ending {
    fn of(desk: &Desk, cut: Option<Cut>) -> Self {
        Self {
            remote: desk.remote_at(&desk.sandbox.base_url()),
            cut,
            tells_time: true,
            list_takes: Duration::ZERO,
            clock: Arc::clone(&desk.clock),
            over: CancellationToken::new(),
            pushes: Default::default(),
            lists: Default::default(),
        }
    }

    async fn here(&self, cut: Cut) {
        if Some(cut) == self.cut {
            self.over.cancel();
            std::future::pending::<()>().await;
        }
    }
}

impl Remote for Ending {
    async fn list(&self, query: PageQuery) -> Result<Page, RemoteError> {
        self.here(Cut::BeforeList(self.lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed))).await;
        self.clock.advance(self.list_takes);
        self.remote.list(query).await
    }

    async fn show(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.remote.show(id).await
    }

    fn requests(&self) -> u64 {
        self.remote.requests()
    }

    fn throttled_until(&self) -> Option<jiff::Timestamp> {
        self.remote.throttled_until()
    }

    fn server_time(&self) -> Option<jiff::Timestamp> {
        self.remote.server_time().filter(|_| self.tells_time)
    }
}

impl PushRemote for Ending {
    async fn push(&self, push: &Push) -> Result<Pushed, PushError> {
        let n = self.pushes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.here(Cut::BeforePush(n)).await;
        let pushed = self.remote.push(push).await;
        self.here(Cut::AfterPush(n)).await;
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.remote.look(id).await
    }
}

/// A process that ends at `cut`, if it comes there.
pub async fn end_at(desk: &mut Desk, cut: Cut) {
    let remote = Ending::of(desk, Some(cut));
    drain_until_over(desk, remote).await;
}

async fn drain_until_over(desk: &mut Desk, remote: Ending) {
    let over = remote.over.clone();
    let pusher = Arc::new(desk.pusher_on(remote, CancellationToken::new()));
    pusher.recover().await.unwrap();
    tokio::select! {
        drained = pusher.drain() => drop(drained.unwrap()),
        () = over.cancelled() => {}
    }
    drop(pusher);
    desk.restart();
}

#[tokio::test]
async fn a_process_that_ends_between_any_two_commits_of_a_create_makes_one() {
    let cuts = [Cut::BeforePush(0), Cut::AfterPush(0), Cut::BeforeList(0), Cut::BeforeList(1)];
    for age in [0, 19 * 60 + 59, 20 * 60 + 1, 24 * 60 + 1] {
        for first in cuts {
            for second in cuts {
                let mut desk = Desk::open(1).await;
                desk.intend(
                    "c",
                    "create",
                    None,
                    Some(json!({"email": "a@example.com", "payment_details": "tok_1"})),
                );
                end_at(&mut desk, first).await;
                let case = format!("{age} {first:?} {second:?}");
                assert_eq!(desk.one("SELECT count(*) FROM attempts"), "1", "{case}");
                desk.advance(minutes(age));
                end_at(&mut desk, second).await;
                desk.advance(minutes(age));
                desk.drain_on(75, minutes(20)).await;
                assert_eq!(
                    (desk.state("c").as_str(), desk.sandbox.world().creates()),
                    ("done", 1),
                    "{case}: {}",
                    desk.of("c", "reason")
                );
                desk.assert_true();
            }
        }
    }
}

#[tokio::test]
async fn a_create_that_was_cut_off_at_a_server_that_tells_no_time_is_not_made_twice() {
    // Sent or not; looked for while its key is good, or when it may be forgotten.
    for (cut, tag, after, expected) in [
        (Cut::BeforePush(0), None, minutes(5), ("done", 1)),
        (Cut::AfterPush(0), None, minutes(5), ("done", 1)),
        (Cut::AfterPush(0), Some("intent"), minutes(5), ("done", 1)),
        (Cut::BeforePush(0), None, minutes(25 * 60), ("parked", 0)),
        (Cut::AfterPush(0), None, minutes(25 * 60), ("parked", 1)),
    ] {
        let mut desk = Desk::open(1).await;
        desk.settings.reconcile_tag = tag.map(str::to_owned);
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        let silent = Ending { tells_time: false, ..Ending::of(&desk, Some(cut)) };
        drain_until_over(&mut desk, silent).await;
        desk.advance(after);
        // This one tells the time again: it is not that of the first attempt.
        desk.drain().await;
        desk.advance(minutes(25 * 60));
        desk.drain().await;
        let ended = (desk.state("c"), desk.sandbox.world().creates());
        assert_eq!(
            (ended.0.as_str(), ended.1),
            expected,
            "{cut:?} {tag:?} {after}: {}",
            desk.of("c", "reason")
        );
        if expected.0 == "parked" {
            let reason = desk.of("c", "reason");
            assert!(reason.contains("by KOMOJU's clock, is not known: look for the customer"), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_at_a_server_that_tells_no_time_is_dated_by_no_later_attempt() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(lost(Call::Create));
    let silent = Ending { tells_time: false, ..Ending::of(&desk, None) };
    drain_until_over(&mut desk, silent).await;
    // The answer is lost again, now that the time is told.
    desk.inject(lost(Call::Create));
    desk.advance(minutes(60));
    desk.drain().await;
    desk.advance(minutes(25 * 60));
    desk.drain().await;
    assert_eq!((desk.state("c").as_str(), desk.sandbox.world().creates()), ("parked", 1));
}

#[tokio::test]
async fn what_was_cut_off_is_due_at_once_with_its_key_and_says_so() {
    let mut desk = Desk::open(1).await;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    end_at(&mut desk, Cut::BeforePush(0)).await;
    assert_eq!(desk.state("c"), "sending");
    let key = desk.one("SELECT key FROM outbox");
    desk.drain().await;
    assert_eq!(desk.state("c"), "done");
    assert_eq!(desk.one("SELECT key FROM outbox"), key);
    assert_eq!(desk.column("SELECT outcome FROM attempts ORDER BY n"), ["waiting", "done"]);
    assert_eq!(desk.column("SELECT error FROM attempts ORDER BY n")[0], "the process ended within it");
}

#[tokio::test]
async fn a_clock_that_was_ahead_at_the_first_attempt_hides_nobody() {
    for (ahead, later, tag, lag_s) in [
        (60, 0, None, 0),
        (60, 0, Some("intent"), 0),
        (25 * 60, 0, None, 0),
        (6 * 60, 27 * 60, None, 0),
        (25 * 60, 0, None, 30),
        (60, 0, Some("intent"), 30),
    ] {
        let mut desk = Desk::open(1).await;
        desk.settings.reconcile_tag = tag.map(str::to_owned);
        if lag_s > 0 {
            desk.settings.consistency = Consistency::seconds(60);
            desk.sandbox.world().readings_mut().list_lag_s = lag_s;
            desk.advance(minutes(10));
        }
        desk.clock.set_wall(START.parse::<jiff::Timestamp>().unwrap() + minutes(ahead));
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        desk.inject(lost(Call::Create));
        desk.drain().await;
        desk.restart();
        desk.clock.set_wall(START.parse().unwrap());
        desk.advance(minutes(later));
        // Where reads lag, the wait is `consistency_s`, and not until the clock reaches the time that it told at first.
        desk.drain_on(if lag_s > 0 { 4 } else { 80 }, minutes(30)).await;
        let case = format!("{ahead} {later} {tag:?} {lag_s}: {}", desk.of("c", "reason"));
        assert_eq!((desk.state("c").as_str(), desk.sandbox.world().creates()), ("done", 1), "{case}");
    }
}

#[tokio::test]
async fn a_503_that_asks_to_wait_may_have_taken_effect_all_the_same() {
    let busy = || Effect::Status {
        status: 503,
        body: komoju_sandbox::Payload::Html,
        retry_after: Some("5".to_owned()),
        headers: Default::default(),
        work: Work::Done,
    };
    for age in [60, 25 * 60] {
        let mut desk = Desk::open(1).await;
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        desk.inject(Fault::new(busy()).call(Call::Create).once());
        desk.drain().await;
        desk.advance(minutes(age));
        desk.drain_on(80, minutes(20)).await;
        assert_eq!((desk.state("c"), desk.sandbox.world().creates()), ("done".to_owned(), 1));
    }
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x", "payment_details": "tok_5"})));
    desk.inject(Fault::new(busy()).call(Call::Update).once());
    desk.drain().await;
    desk.advance(minutes(60));
    desk.drain().await;
    assert_eq!((desk.state("u"), desk.sandbox.world().updates()), ("done".to_owned(), 1));
}

#[tokio::test]
async fn after_a_server_error_strangers_stand_in_nobodys_way_and_a_likeness_is_for_a_person() {
    let failed = || Effect::Status {
        status: 500,
        body: Default::default(),
        retry_after: None,
        headers: Default::default(),
        work: Work::Done,
    };
    for (stranger, state, creates) in [("other@example.com", "done", 1), ("A@example.com", "parked", 1)] {
        let mut desk = Desk::open(1).await;
        desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
        desk.inject(Fault::new(failed()).call(Call::Create).once());
        desk.drain().await;
        desk.sandbox.world().create(json!({"email": stranger}));
        desk.advance(minutes(1));
        desk.drain().await;
        assert_eq!(
            (desk.state("c").as_str(), desk.sandbox.world().creates()),
            (state, creates),
            "{stranger}"
        );
    }
}

#[tokio::test]
async fn whom_the_mirror_knew_before_the_first_attempt_no_create_has_made() {
    for (wait, effect) in [(1, Effect::status(500)), (21 * 60, Effect::Reset { work: Work::Skipped })] {
        let mut desk = Desk::open(1).await;
        let wanted = json!({"email": "a@example.com"});
        let theirs = desk.sandbox.world().create(wanted.clone());
        // Somebody else came and went.
        let gone = desk.sandbox.world().create(wanted.clone());
        desk.sweep().await;
        desk.sandbox.world().delete(&gone);
        desk.sweep().await;
        desk.intend("c", "create", None, Some(wanted));
        let fault = desk.inject(Fault::new(effect).call(Call::Create).once());
        desk.drain().await;
        assert_eq!((desk.sandbox.world().fired(fault), desk.state("c").as_str()), (1, "waiting"));
        desk.advance(minutes(wait));
        desk.drain().await;
        assert_eq!(desk.state("c"), "done", "{wait}: {}", desk.of("c", "reason"));
        assert_eq!(desk.sandbox.world().creates(), 1, "{wait}");
        assert_ne!(desk.of("c", "result_customer_id"), theirs, "{wait}");
        desk.assert_true();
    }
}

#[tokio::test]
async fn what_our_own_reads_are_refused_rejects_no_intent() {
    use komoju_sandbox::readings::PerPageOver;
    let small = Readings { per_page_over: PerPageOver::Refused, per_page_max: 10, ..Readings::default() };
    let mut desk = Desk::reading(1, small).await;
    desk.settings.per_page = 100;
    desk.intend("c", "create", None, Some(json!({"email": "a@example.com"})));
    desk.inject(lost(Call::Create));
    desk.drain().await;
    desk.advance(minutes(21 * 60));
    desk.drain().await;
    assert_eq!(
        (desk.state("c"), desk.sandbox.world().creates()),
        ("done".to_owned(), 1),
        "{}",
        desk.of("c", "reason")
    );

    let id = desk.some_id();
    desk.sql(&format!(
        "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('e', 'update', '{id}', '{{\"email\": \"x\"}}', '{{\"locale\": null}}')"
    ));
    desk.inject(Fault::new(Effect::status(422)).call(Call::Show).once());
    desk.drain().await;
    assert_eq!(desk.state("e"), "waiting", "{}", desk.of("e", "reason"));
}

#[tokio::test]
async fn an_update_that_took_effect_unseen_is_looked_at_until_it_is_seen() {
    let mut desk = Desk::open(1).await;
    let id = desk.some_id();
    desk.intend("u", "update", Some(&id), Some(json!({"email": "x@example.com"})));
    desk.inject(Fault::new(Effect::Body { body: komoju_sandbox::Payload::Empty }).call(Call::Update).once());
    desk.inject(Fault::new(Effect::status(503)).call(Call::Show).once());
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting");
    desk.advance(minutes(1));
    let head = desk.head();
    desk.drain().await;
    assert_eq!(
        (desk.state("u"), desk.changes_after(head)),
        ("done".to_owned(), vec!["updated intent u".to_owned()])
    );
}
