//! Invariant 18: an event is a hint, never data. It causes one GET of its customer and nothing
//! else.
//!
//! Promises: invariant 18

mod answers;
mod daemon;
mod deletions;
mod disorder;
mod passes;
mod requests;
mod tail;

use jiff::SignedDuration;
use komoju_core::plan::lag::Consistency;
use komoju_testkit::InProcess;

/// How long reads may lag in the tests about lag.
const CONSISTENCY_S: u32 = 60;

/// Returns an account whose customers the mirror has known for an hour. Reads may lag.
async fn lagging(customers: u32) -> InProcess {
    let mut harness = InProcess::open(customers).await;
    harness.settings.consistency = Consistency::seconds(CONSISTENCY_S);
    harness.advance(SignedDuration::from_hours(1));
    harness.read_events().await;
    harness
}

/// Returns an account whose events are followed from now on. Reads do not lag.
async fn following(customers: u32) -> InProcess {
    let harness = InProcess::open(customers).await;
    harness.read_events().await;
    // No change is recorded in the millisecond of the first sweep.
    harness.advance(seconds(1));
    harness.sandbox.world().clear_requests();
    harness
}

/// Changes a customer at KOMOJU.
fn update(harness: &InProcess, id: &str, email: &str) {
    assert!(harness.sandbox.world().update(id, serde_json::json!({"email": email})));
}

/// Changes the first customers of the list at KOMOJU. Returns their ids.
fn update_first(harness: &InProcess, count: usize) -> Vec<String> {
    let ids: Vec<String> = harness.sandbox.world().ids().into_iter().take(count).collect();
    ids.iter().for_each(|id| update(harness, id, "new@example.com"));
    ids
}

/// Returns the ids of the customers that were requested, in order.
fn shown(harness: &InProcess) -> Vec<String> {
    let world = harness.sandbox.world();
    let shows = world.requests().iter().filter_map(|seen| seen.path.split_once("/customers/"));
    shows.map(|(_, id)| id.to_owned()).collect()
}

/// Returns the pages of the event list that were requested, in order.
fn event_pages(harness: &InProcess) -> Vec<u64> {
    let world = harness.sandbox.world();
    let lists = world.requests().iter().filter(|seen| seen.path.ends_with("/events"));
    lists.filter_map(|seen| seen.page).collect()
}

/// Returns how many hints are open.
fn open_hints(harness: &InProcess) -> String {
    harness.one("SELECT count(*) FROM hint WHERE due_at IS NOT NULL")
}

fn email(harness: &InProcess, id: &str) -> String {
    harness.one(&format!("SELECT email FROM customers WHERE id = '{id}'"))
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}
