//! Waits for a condition. [`Installation::until`](crate::Installation::until) waits for the signal
//! of the local KOMOJU. The functions here poll, because another process, its files and its
//! database give no signal.

use std::time::Duration;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// How many looks fit into the half minute that a test waits.
const LOOKS: usize = 3000;

/// Polls for at most half a minute; returns whether the condition held.
pub fn looked_until(mut holds: impl FnMut() -> bool) -> bool {
    (0..LOOKS).any(|_| {
        let held = holds();
        if !held {
            std::thread::sleep(INTERVAL);
        }
        held
    })
}

/// Polls for at most half a minute; panics with `what` if the condition did not hold.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(looked_until(holds), "never: {what}");
}

/// Polls for at most a minute, and lets other tasks of the runtime run meanwhile; panics if the
/// condition did not hold.
pub async fn eventually_in_task(mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap();
}
