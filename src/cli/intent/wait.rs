//! `--wait`: until an intent is settled, or a person has to decide.

use std::path::Path;
use std::time::Duration;

use crate::cli::{Exit, print, signals};
use crate::model::intent::lifecycle::State;
use crate::store::{Reader, queue};
use crate::watch::{LOOK_EVERY, Watch};

/// How soon after a change it is looked for first.
const SOONEST: Duration = Duration::from_millis(5);

/// Waits for what becomes of the intent with this id, says it, and exits by it. Ctrl-C ends the waiting and nothing else.
pub(super) fn until_settled(path: &Path, id: &str) -> anyhow::Result<Exit> {
    signals::until_stopped(Exit::Failed, |stop| async move {
        // Before the first look: what is committed after it is heard.
        let mut watch = Watch::on(path).unwrap_or_else(|_| Watch::by_the_clock());
        let reader = Reader::open(path)?;
        print::note("waiting for what becomes of it; Ctrl-C ends the waiting, not the intent");
        let (mut pause, mut told) = (SOONEST, None);
        loop {
            let Some((state, reason)) = reader.look(|conn| queue::standing(conn, id))? else {
                anyhow::bail!("intent {} is gone from the database", print::safe(id));
            };
            if let Some(exit) = exit_of(state) {
                let why = reason.map(|why| format!(": {}", print::safe(&why))).unwrap_or_default();
                let next = match state {
                    // Whom a create has made, nothing else says at once.
                    State::Done => {
                        let row = reader.look(|conn| queue::intent(conn, id))?;
                        let customer = row.as_ref().and_then(|row| row.text("result_customer_id"));
                        customer
                            .map(|customer| format!(": customer {}", print::safe(customer)))
                            .unwrap_or_default()
                    }
                    State::Parked => format!("; see `komoju-sync intent show {}`", print::safe(id)),
                    _ => String::new(),
                };
                print::note(&format!("{state}{why}{next}"));
                return Ok(exit);
            }
            // Whoever waits wants to know what for.
            if reason.is_some() && told != reason {
                let why = reason.as_deref().map(print::safe).unwrap_or_default();
                print::note(&format!("{state}: {why}"));
                told = reason;
            }
            tokio::select! {
                // A commit is told of before it can be read, so it is looked for a little later, and later again.
                () = watch.changed() => pause = SOONEST,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_EVERY),
                () = stop.cancelled() => {
                    print::note(&format!("no longer waiting; intent {} stays {state}", print::safe(id)));
                    return Ok(Exit::Failed);
                }
            }
        }
    })
}

/// What an outcome exits with; none while it is still to come.
fn exit_of(state: State) -> Option<Exit> {
    match state {
        State::Queued | State::Sending | State::Waiting => None,
        State::Done => Some(Exit::Fine),
        State::Rejected | State::Cancelled => Some(Exit::Failed),
        State::Parked => Some(Exit::Waits),
    }
}
