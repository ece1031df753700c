//! What waits for a person, in one line each; `status` tells the whole.

use jiff::Timestamp;

use super::api::Asked;
use super::database::Looked;
use super::{Exit, Finding};
use crate::cli::print::count;
use crate::daemon::status::List;
use komoju_core::intent::lifecycle::State;
use komoju_core::words::duration;

const CHECK: &str = "state";
const LIST: &str = "list";

/// What is judged of `status`.
#[derive(Clone, Debug, Default)]
struct Waiting {
    held: u64,
    held_deletes: u64,
    parked: u64,
    unreadable: u64,
    rejected: u64,
    /// Whether no sweep was ever complete; else, since how many seconds, where that is too long.
    never_swept: bool,
    stale_s: Option<i64>,
    /// What the last sweep left open, where it was partial.
    partial: Option<String>,
    /// Since when the API refuses the key.
    refused_since: Option<String>,
    /// Whether it has just taken it.
    is_accepted: bool,
    is_in_use: bool,
}

pub(super) fn check(looked: Option<&Looked>, is_in_use: bool, asked: Option<&Asked>) -> Finding {
    let Some(current) = looked.and_then(|looked| looked.current.as_ref()) else {
        return Finding::skip(CHECK, "there is no database that can be read");
    };
    let status = &current.status;
    judge(&Waiting {
        held: status.held_deletions,
        held_deletes: status.held_deletes,
        parked: status.parked(),
        unreadable: status.unreadable_new,
        rejected: status.count_in(State::Rejected),
        never_swept: status.last_sweep_age_s.is_none(),
        stale_s: status.last_sweep_age_s.filter(|_| status.stale),
        partial: status.partial_sentence(),
        refused_since: status.key_refused_since.clone(),
        is_accepted: asked.is_some_and(Asked::is_accepted),
        is_in_use,
    })
}

/// A list that is imprecise, and reads that lag longer than is reckoned with; nothing where neither is so. Neither keeps anything
/// from working, but for an API that ignores `page`.
pub(super) fn check_list(looked: Option<&Looked>, consistency_s: u32, now: Timestamp) -> Vec<Finding> {
    let list = looked.and_then(|looked| looked.current.as_ref()).map(|current| &current.status.list);
    list.map(|list| judge_list(list, consistency_s, now)).unwrap_or_default()
}

fn judge_list(list: &List, consistency_s: u32, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    if list.is_imprecise() {
        let parts = [list.imprecision(now), list.long_unlisted_sentence()];
        let finding =
            format!("KOMOJU's list: {}", parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
        findings.push(match list.ignores_page {
            true => Finding::waits(
                LIST,
                finding,
                "the mirror may hold the first page only: see that no proxy or cache in front of api.base_url drops `page`, then \
                 ask KOMOJU's support",
            ),
            false => Finding::warn(
                LIST,
                finding,
                "no customer is deleted because the list leaves it out: each that the mirror knows is requested by itself. One that no \
                 list has ever shown is not known, and so not mirrored (docs/evidence.md). If it stays so, show KOMOJU's support these \
                 numbers",
            ),
        });
    }
    if let Some(finding) = list.lag_exceeded_sentence(consistency_s) {
        let lag = list.lag_sentence().map(|lag| format!("{lag}; ")).unwrap_or_default();
        findings.push(Finding::warn(
            LIST,
            format!("{lag}{finding}"),
            "raise inbound.consistency_s in the configuration and restart the daemon: systemctl restart komoju-sync",
        ));
    }
    findings
}

/// Copies of erased data and settled tokens that could not be removed yet; nothing where there are none.
pub(super) fn check_wipe(looked: Option<&Looked>) -> Option<Finding> {
    let status = &looked?.current.as_ref()?.status;
    let sentence = status.wipe_sentence()?;
    let advice = "end what keeps the database open (a transaction in an SQL client, a report, Litestream), then `komoju-sync status`";
    Some(match status.wipe_needs_operator() {
        true => Finding::waits("wipe", sentence, advice),
        false => Finding::ok("wipe", sentence),
    })
}

fn judge(waiting: &Waiting) -> Finding {
    let mut parts = Vec::new();
    let mut exit = Exit::Fine;
    for (n, one) in [
        (waiting.held, "held deletion"),
        (waiting.held_deletes, "held delete intent"),
        (waiting.parked, "parked intent"),
        (waiting.unreadable, "new unreadable customer"),
    ] {
        if n > 0 {
            exit = Exit::Waits;
            parts.push(count(n, one));
        }
    }
    if !parts.is_empty() {
        parts = vec![format!("waiting for an operator: {}", parts.join(", "))];
    }
    let mut advice = vec!["`komoju-sync status` tells more, and which command decides"];
    if let Some(since) = &waiting.refused_since {
        if waiting.is_accepted {
            parts.push(format!(
                "the API refused the daemon's key since {since}, and takes the one found here"
            ));
            advice.push(
                "restart the daemon, which reads the key when it starts: systemctl restart komoju-sync",
            );
        } else {
            exit = exit.and(Exit::KeyRefused);
            parts.push(format!("the API refuses the key since {since}"));
        }
    }
    if let Some(age) = waiting.stale_s {
        exit = exit.and(Exit::Failed);
        parts.push(format!("the last complete sweep ended {} ago, which is too long", duration(age)));
        if !waiting.is_in_use {
            advice.push("no daemon runs: systemctl start komoju-sync");
        }
    }
    if let Some(partial) = &waiting.partial {
        parts.push(format!("the last sweep is {partial}"));
        advice.push(
            "the next sweeps request these customers again; the log says why they could not be verified",
        );
    }
    if waiting.never_swept {
        parts.push("no sweep is complete yet".to_owned());
    }
    if parts.is_empty() {
        let rejected = match waiting.rejected {
            0 => String::new(),
            n => format!("; the API rejected {} so far", count(n, "intent")),
        };
        return Finding::ok(
            CHECK,
            format!("the mirror is up to date, and nothing waits for an operator{rejected}"),
        );
    }
    let (finding, advice) = (parts.join("; "), advice.join("\n"));
    match exit {
        Exit::Fine => Finding::warn(CHECK, finding, advice),
        Exit::Waits => Finding::waits(CHECK, finding, advice),
        exit => Finding::fail(CHECK, exit, finding, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn judged(waiting: Waiting) -> (Level, Exit) {
        let finding = judge(&waiting);
        (finding.level, finding.exit)
    }

    #[test]
    fn what_waits_is_a_warning_with_its_own_exit_code() {
        let none = Waiting::default;
        assert_eq!(judged(none()), (Level::Ok, Exit::Fine));
        assert_eq!(judged(Waiting { rejected: 4, ..none() }), (Level::Ok, Exit::Fine));
        assert_eq!(judged(Waiting { never_swept: true, ..none() }), (Level::Warn, Exit::Fine));
        assert_eq!(judged(Waiting { partial: Some("partial".into()), ..none() }), (Level::Warn, Exit::Fine));
        for waiting in [
            Waiting { held: 1, ..none() },
            Waiting { held_deletes: 1, ..none() },
            Waiting { parked: 1, ..none() },
        ] {
            assert_eq!(judged(waiting), (Level::Warn, Exit::Waits));
        }
    }

    #[test]
    fn a_stale_mirror_fails_and_a_refused_key_does_unless_it_is_taken_now() {
        let stale = Waiting { stale_s: Some(9000), parked: 2, ..Waiting::default() };
        assert_eq!(judged(stale), (Level::Fail, Exit::Failed));
        let refused = Waiting { refused_since: Some("then".into()), ..Waiting::default() };
        assert_eq!(judged(refused.clone()), (Level::Fail, Exit::KeyRefused));
        let taken = Waiting { is_accepted: true, ..refused };
        assert_eq!(judged(taken.clone()), (Level::Warn, Exit::Fine));
        assert!(judge(&taken).advice.unwrap().contains("restart the daemon"));
    }
}
