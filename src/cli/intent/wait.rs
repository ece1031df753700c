//! `--wait`: waits until an intent is settled, waits for an operator, or is not sent by any
//! process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Sender, sender};
use crate::cli::{Exit, print, signals};
use crate::clock::{Clock, SystemClock};
use crate::store::Reader;
use crate::store::outbox::queue;
use crate::watch::{LOOK_EVERY, Watch};
use komoju_core::intent::lifecycle::IntentState;

/// SOONEST controls how soon after a change the intent is read first.
const SOONEST: Duration = Duration::from_millis(5);

/// LONGEST controls when the wait ends although the intent is not settled. A script must not hang
/// while the API is down.
const LONGEST: Duration = Duration::from_secs(600);

/// RESTART controls how long a daemon that ran may be absent. systemd restarts it after 5 s, and a
/// start takes a moment.
const RESTART: Duration = Duration::from_secs(15);

/// Waits until the intent with this id is settled or parked, reports that, and exits by it. Ctrl-C
/// ends the waiting and nothing else.
pub(super) fn until_settled(path: &Path, id: &str) -> anyhow::Result<Exit> {
    signals::until_stopped(Exit::Failed, |stop| wait(path, id, SystemClock::shared(), stop))
}

async fn wait(path: &Path, id: &str, clock: Arc<dyn Clock>, stop: CancellationToken) -> anyhow::Result<Exit> {
    // Start the watch before the first read, so that no later commit is missed.
    let mut watch = Watch::of_path(path).unwrap_or_else(|_| Watch::polling());
    let reader = Reader::open(path)?;
    let shown = print::safe(id);
    let mut limit = WaitLimit { since: clock.elapsed(), sender_seen_at: None };
    let (mut pause, mut reported, mut is_announced) = (SOONEST, None, false);
    loop {
        // Read the sender first: what it settles before it ends is then seen below.
        let has_sender = sender(path)? != Sender::None;
        let Some((state, reason)) = reader.query(|conn| queue::state_and_reason(conn, id))? else {
            anyhow::bail!("intent {shown} is gone from the database");
        };
        if let Some(exit) = exit_of(state) {
            report(&reader, id, state, reason)?;
            return Ok(exit);
        }
        let give_up = |why: &str| {
            print::note(&format!(
                "{why}; intent {shown} stays {state}: see `komoju-sync intent show {shown}`"
            ));
            Ok(Exit::Waits)
        };
        if let Some(end) = limit.end(clock.elapsed(), has_sender) {
            return give_up(end.sentence());
        }
        if !is_announced {
            print::note(
                "waiting for the outcome for at most 10 minutes; Ctrl-C ends the waiting, not the intent",
            );
            is_announced = true;
        }
        if let Some(why) = reason.as_ref().filter(|_| reported != reason) {
            print::note(&format!("{state}: {}", print::safe(why)));
            reported = reason;
        }
        tokio::select! {
            // A commit is signalled before it can be read, so the row is read again a little later.
            () = watch.changed() => pause = SOONEST,
            () = clock.sleep(pause) => pause = (pause * 2).min(LOOK_EVERY),
            () = stop.cancelled() => return give_up("no longer waiting"),
        }
    }
}

/// Reports how an intent ended.
fn report(reader: &Reader, id: &str, state: IntentState, reason: Option<String>) -> anyhow::Result<()> {
    let why = reason.map(|why| format!(": {}", print::safe(&why))).unwrap_or_default();
    let next = match state {
        IntentState::Done => {
            let row = reader.query(|conn| queue::intent(conn, id))?;
            let customer = row.as_ref().and_then(|row| row.text("result_customer_id"));
            customer.map(|customer| format!(": customer {}", print::safe(customer))).unwrap_or_default()
        }
        IntentState::Parked => format!("; see `komoju-sync intent show {}`", print::safe(id)),
        _ => String::new(),
    };
    print::note(&format!("{state}{why}{next}"));
    Ok(())
}

/// Returns the exit code of a final state; none while the outcome is open.
fn exit_of(state: IntentState) -> Option<Exit> {
    match state {
        IntentState::Queued | IntentState::Sending | IntentState::Waiting => None,
        IntentState::Done => Some(Exit::Fine),
        IntentState::Rejected | IntentState::Cancelled => Some(Exit::Failed),
        IntentState::Parked => Some(Exit::Waits),
    }
}

/// Why the waiting ends before the intent is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitEnd {
    /// No sending process was there at the start.
    NoSender,
    /// The sending process has ended, and none was started again.
    SenderGone,
    /// It took longer than [`LONGEST`].
    TooLong,
}

impl WaitEnd {
    fn sentence(self) -> &'static str {
        match self {
            Self::NoSender => "not waiting, because no daemon runs",
            Self::SenderGone => "no longer waiting, because the daemon has stopped",
            Self::TooLong => "no longer waiting after 10 minutes",
        }
    }
}

/// Limits the wait, by a steady clock.
struct WaitLimit {
    since: Duration,
    sender_seen_at: Option<Duration>,
}

impl WaitLimit {
    fn end(&mut self, now: Duration, has_sender: bool) -> Option<WaitEnd> {
        if has_sender {
            self.sender_seen_at = Some(now);
        }
        match self.sender_seen_at {
            None => Some(WaitEnd::NoSender),
            Some(_) if now.saturating_sub(self.since) >= LONGEST => Some(WaitEnd::TooLong),
            Some(seen) if now.saturating_sub(seen) >= RESTART => Some(WaitEnd::SenderGone),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::outbox::accept::{Door, accept};
    use crate::store::{Instance, Store, write_as_operator};
    use jiff::Timestamp;
    use komoju_core::intent::Intent;

    #[test]
    fn wait_without_a_sender_ends_at_once_and_survives_a_restart() {
        let ends = |begin: u64, seen: &[(u64, bool)]| {
            let mut limit = WaitLimit { since: Duration::from_secs(begin), sender_seen_at: None };
            let ends = seen.iter().map(|(now, has)| limit.end(Duration::from_secs(*now), *has));
            ends.collect::<Vec<_>>()
        };
        assert_eq!(ends(5, &[(5, false)]), [Some(WaitEnd::NoSender)]);
        let restarts = [(0, true), (1, false), (14, false), (15, true), (29, false), (30, false)];
        assert_eq!(ends(0, &restarts), [None, None, None, None, None, Some(WaitEnd::SenderGone)]);
        assert_eq!(ends(100, &[(699, true), (700, true)]), [None, Some(WaitEnd::TooLong)]);
    }

    /// Waits by a clock that moves by itself for an intent that nothing sends; returns the exit
    /// code and the time that passed.
    async fn waited(holder: Option<&str>) -> (Exit, Duration) {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        drop(Store::open(&path).unwrap());
        let intent = Intent::parse(r#"{"op": "create", "id": "n1", "body": {"email": "a"}}"#).unwrap();
        write_as_operator(&path, |tx| accept(tx, &intent, Door::Cli, None)).unwrap();
        let _held = holder.map(|command| Instance::take(&path, command, Timestamp::UNIX_EPOCH).unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let exit = wait(&path, "n1", Arc::clone(&clock) as Arc<dyn Clock>, CancellationToken::new()).await;
        (exit.unwrap(), clock.elapsed())
    }

    #[tokio::test]
    async fn wait_for_an_intent_that_is_never_settled_ends_with_3() {
        assert_eq!(waited(None).await, (Exit::Waits, Duration::ZERO));
        assert_eq!(waited(Some("restore")).await, (Exit::Waits, Duration::ZERO), "a restore sends nothing");
        let (exit, took) = waited(Some("run")).await;
        assert_eq!(exit, Exit::Waits);
        assert!(took >= LONGEST && took < LONGEST + 2 * LOOK_EVERY, "{took:?}");
    }
}
