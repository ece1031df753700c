//! What a running pass reports of its progress.

use komoju_sandbox::readings::{LastPage, Total};
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, Readings};
use komoju_sync::tasks::pull::{PassProgress, Phase};
use komoju_testkit::{InProcess, eventually_in_task};
use serde_json::json;

/// Changes every customer, so that each page writes the position of the pass.
fn update_all(harness: &InProcess) {
    let ids = harness.sandbox.world().ids();
    for id in ids {
        harness.sandbox.world().update(&id, json!({"email": "new@example.com"}));
    }
}

/// Returns a column of the row of the last pass.
fn last_pass(harness: &InProcess, column: &str) -> String {
    harness.one(&format!("SELECT {column} FROM pass ORDER BY id DESC LIMIT 1"))
}

/// Runs a second sweep with the same process, and looks at it when two pages are applied and the
/// third one is requested.
async fn look_after_two_pages<T>(harness: &InProcess, look: impl FnOnce() -> T) -> T {
    let pull = harness.pull();
    pull.sweep().await.unwrap();
    update_all(harness);
    harness.sandbox.world().clear_requests();
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::List).page(3));
    let looking = async {
        let is_there = || last_pass(harness, "finished_at IS NULL AND pages = 2") == "1";
        eventually_in_task(is_there).await;
        let looked = look();
        harness.sandbox.world().remove_fault(held);
        looked
    };
    let (report, looked) = tokio::join!(pull.sweep(), looking);
    assert!(report.unwrap().failure.is_none());
    looked
}

#[tokio::test]
async fn requests_of_a_running_pass_do_not_include_those_of_earlier_passes() {
    let harness = InProcess::open(40).await;
    let look = || last_pass(&harness, "requests").parse::<usize>().unwrap();
    let requests = look_after_two_pages(&harness, look).await;
    let sent = harness.sandbox.world().requests().len();
    assert!((2..=sent).contains(&requests), "{requests} of {sent}");
}

#[tokio::test]
async fn length_of_a_list_that_promises_none_is_reported_as_unknown() {
    let readings = Readings { total: Total::Missing, last_page: LastPage::Missing, ..Readings::default() };
    let harness = InProcess::reading(40, readings).await;
    assert_eq!(look_after_two_pages(&harness, || last_pass(&harness, "last_page")).await, "0");
}

#[tokio::test]
async fn progress_counts_the_missing_customers_that_are_left() {
    let harness = InProcess::open(20).await;
    let ids = harness.sandbox.world().ids()[..5].to_vec();
    harness.on(FaultedCall::List, FaultEffect::Hide { ids, every: None });
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Show).skip(3));
    let pull = harness.pull();
    let looking = async {
        harness.sandbox.until(|world| world.fired(held) == 1).await;
        assert_eq!(*pull.progress().borrow(), PassProgress { phase: Phase::Verifying, done: 3, of: 5 });
        harness.sandbox.world().remove_fault(held);
    };
    let (report, ()) = tokio::join!(pull.sweep(), looking);
    assert!(report.unwrap().failure.is_none());
}
