//! Waits and patience under a wall clock that is wrong for a while, whatever the process believes of it.

use jiff::SignedDuration;
use komoju_sandbox::{Call, Effect};
use komoju_sync::clock::Clock as _;
use serde_json::json;

use crate::desk::Desk;

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

impl Desk {
    fn set_wall_by(&self, by: SignedDuration) {
        self.clock.set_wall(self.clock.now() + by);
    }

    /// An update that failed once and waits.
    async fn waiting(&mut self) -> komoju_sandbox::FaultId {
        let id = self.some_id();
        self.intend("u", "update", Some(&id), Some(json!({"email": "x"})));
        let trouble = self.on(Call::Update, Effect::status(503));
        self.drain().await;
        assert_eq!(self.state("u"), "waiting");
        trouble
    }
}

#[tokio::test]
async fn wait_planned_by_a_clock_that_was_ahead_is_over_when_the_clock_is_right() {
    for ahead in [SignedDuration::from_hours(10), YEAR] {
        let mut desk = Desk::open(1).await;
        desk.set_wall_by(ahead);
        let trouble = desk.waiting().await;
        desk.sandbox.world().remove_fault(trouble);
        desk.set_wall_by(-ahead);
        desk.restart();
        desk.drain().await;
        assert_eq!(desk.state("u"), "done", "{ahead}");
    }
}

#[tokio::test]
async fn wait_planned_by_a_right_clock_lasts() {
    let mut desk = Desk::open(1).await;
    let trouble = desk.waiting().await;
    desk.sandbox.world().remove_fault(trouble);
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting", "the wait has just begun");
    desk.advance(SignedDuration::from_secs(2));
    desk.drain().await;
    assert_eq!(desk.state("u"), "done");
}

#[tokio::test]
async fn patience_is_counted_by_the_clock_of_the_boot() {
    for wrong in [YEAR, -YEAR] {
        let mut desk = Desk::open(1).await;
        desk.waiting().await;
        desk.advance(SignedDuration::from_hours(71));
        desk.set_wall_by(wrong);
        desk.restart();
        desk.drain().await;
        assert_eq!(desk.state("u"), "waiting", "{wrong}");
        desk.set_wall_by(-wrong);
        desk.advance(SignedDuration::from_mins(50));
        desk.drain().await;
        assert_eq!(desk.state("u"), "waiting", "{wrong}");
        desk.set_wall_by(wrong);
        desk.advance(SignedDuration::from_mins(15));
        desk.drain().await;
        assert_eq!(desk.state("u"), "parked", "{wrong}");
    }
}

#[tokio::test]
async fn patience_that_began_by_a_wrong_clock_is_not_used_up_when_the_clock_is_right() {
    for wrong in [YEAR, -YEAR] {
        let mut desk = Desk::open(1).await;
        desk.set_wall_by(wrong);
        desk.waiting().await;
        desk.set_wall_by(-wrong);
        desk.advance(SignedDuration::from_mins(20));
        desk.drain().await;
        assert_eq!(desk.state("u"), "waiting", "{wrong}");
        let from = desk.one("SELECT patience_from FROM outbox");
        assert_eq!(from, "2026-06-01T00:00:00.000Z", "{wrong}: the stored begin is corrected");
    }
}

#[tokio::test]
async fn time_under_a_refused_key_is_not_counted_by_the_clock_of_the_boot_either() {
    let mut desk = Desk::open(1).await;
    desk.waiting().await;
    let refusals = desk.on(Call::List, Effect::status(401));
    desk.sweep().await;
    desk.advance(SignedDuration::from_hours(100));
    desk.sandbox.world().remove_fault(refusals);
    desk.sweep().await;
    desk.advance(SignedDuration::from_hours(71));
    desk.drain().await;
    assert_eq!(desk.state("u"), "waiting");
    desk.advance(SignedDuration::from_hours(1));
    desk.drain().await;
    assert_eq!(desk.state("u"), "parked");
}
