//! What is told: one JSON object (docs/alerts.md), its sentence for a person.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::daemon::status::{Intents, Standing};
use crate::secret::mask::harmless;
use crate::store::state::alerts::Untold;
use komoju_core::intent::lifecycle::State;
use komoju_core::time;
use komoju_core::words::count;

/// One kind of what stands, in words.
pub(super) struct Alert {
    kind: String,
    since: String,
    count: u64,
    new: u64,
    oldest: Option<String>,
    pub(super) sentence: String,
}

/// The kind of the alert that the database does not record.
pub(super) const DATABASE: &str = "database_unusable";

/// The database cannot be used since then, and the daemon waits for that to pass.
pub(super) fn of_database(since: &str, why: &str) -> Alert {
    Alert {
        kind: DATABASE.to_owned(),
        since: since.to_owned(),
        count: 1,
        new: 1,
        oldest: None,
        sentence: format!("nothing is read or pushed: {why}. The daemon tries again by itself"),
    }
}

/// `oldest`: the hold and the held delete intent that wait longest. None where `standing` does not show it.
pub(super) fn of(
    untold: &Untold,
    standing: &Standing,
    oldest: (Option<i64>, Option<String>),
) -> Option<Alert> {
    let Untold { kind, count: things, new, noticed_at, .. } = untold;
    let of = |since: &str, count: u64, oldest: Option<String>, sentence: String| Alert {
        kind: kind.clone(),
        since: since.to_owned(),
        count,
        new: *new,
        oldest,
        sentence,
    };
    let wait = |n: u64| if n == 1 { "waits" } else { "wait" };
    match kind.as_str() {
        "held_deletions" => {
            let (n, hold) = (standing.held_deletions, oldest.0?);
            (n > 0).then(|| {
                let sentence = format!(
                    "{} {} for an operator: look at `komoju-sync deletions list`, then `komoju-sync deletions approve` or \
                     `reject`",
                    count(n, "deletion"),
                    wait(n)
                );
                of(noticed_at, n, Some(hold.to_string()), sentence)
            })
        }
        "held_deletes" => {
            let n = standing.held_deletes;
            (n > 0).then(|| {
                let sentence = format!(
                    "{} {} for an operator, because more are open or were sent within an hour than outbound.hold_deletes_over allows: look at `komoju-sync intent \
                     plan`, then `komoju-sync intent approve`, or `cancel` those that are not meant",
                    count(n, "delete intent"),
                    wait(n)
                );
                of(noticed_at, n, oldest.1, sentence)
            })
        }
        "parked_intents" => match standing.intents.get(State::Parked.word()) {
            Some(Intents::Open { count: n, oldest: Some(id), .. }) if *n > 0 => {
                let sentence = format!(
                    "{} {} parked and {} for an operator: `komoju-sync intent list --state parked` and `komoju-sync intent show ID` \
                     tell why, then `komoju-sync intent retry ID` or `cancel ID`",
                    count(*n, "intent"),
                    if *n == 1 { "is" } else { "are" },
                    wait(*n)
                );
                let id: String = id.chars().map(harmless).collect();
                Some(of(noticed_at, (*n).max(*things), Some(id), sentence))
            }
            _ => None,
        },
        "key_refused" => standing.key_refused_since.as_deref().map(|since| {
            let sentence = "the API refuses the key, so nothing is read or pushed: put the right secret key in place and \
                            restart the service; it is tried again every 15 minutes";
            of(since, 1, None, sentence.to_owned())
        }),
        "account_stopped" => standing.account_stopped_since.as_deref().map(|since| {
            let sentence = "the key reads another account, so nothing is read or pushed: look at `komoju-sync account show`; put \
                            the right key back, or say `komoju-sync account accept`";
            of(since, 1, None, sentence.to_owned())
        }),
        "unfinished_wipe" => standing.wipe_sentence().map(|sentence| {
            let sentence = sentence.chars().map(harmless).collect();
            of(standing.wipe_unfinished_since.as_deref().unwrap_or(noticed_at), 1, None, sentence)
        }),
        "stale_mirror" => standing.stale.then(|| {
            let last = standing.mirror.text("last_sweep_at");
            let sentence = match last {
                Some(at) => format!(
                    "no sweep was complete since {at}, which is more than three periods ago: `komoju-sync status` tells what \
                     went wrong"
                ),
                None => "no sweep was complete yet, after more than three periods: `komoju-sync status` tells what went wrong"
                    .to_owned(),
            };
            of(last.unwrap_or(noticed_at), 1, None, sentence)
        }),
        _ => None,
    }
}

impl Alert {
    /// The object, as it is told at `at`.
    pub(super) fn note(&self, database: &Path, host: Option<&str>, at: Timestamp) -> Value {
        let Self { kind, since, count, new, oldest, sentence } = self;
        json!({
            "alert": kind,
            "at": time::written(at),
            "count": count,
            "database": database.to_string_lossy(),
            "host": host,
            "new": new,
            "oldest": oldest,
            "sentence": sentence,
            "since": since,
        })
    }
}
