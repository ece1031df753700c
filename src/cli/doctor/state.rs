//! What needs an operator, in a few lines; `status` reports the rest.

use super::api::ApiAnswers;
use super::database::DatabaseContent;
use super::{DoctorFinding, Exit};
use crate::cli::print::count;
use crate::daemon::status::EventsStatus;
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::{Attention, Severity};

const CHECK: &str = "state";
const EVENTS: &str = "events";
const LIST: &str = "list";

/// What `doctor` knows in addition to the database.
#[derive(Clone, Copy, Debug, Default)]
struct StateContext {
    /// Whether the API has just accepted the key.
    is_accepted: bool,
    /// Whether a process works on the database.
    is_in_use: bool,
}

/// Checks the list, the lag, unfinished wipes, waiting decisions, the key and the age of the
/// mirror.
pub(super) fn check(
    current: Option<&DatabaseContent>,
    is_in_use: bool,
    asked: Option<&ApiAnswers>,
) -> Vec<DoctorFinding> {
    let Some(DatabaseContent { status, .. }) = current else {
        return vec![DoctorFinding::skip(CHECK, "there is no database that can be read")];
    };
    let context = StateContext { is_accepted: asked.is_some_and(ApiAnswers::is_accepted), is_in_use };
    let list = status.list.is_imprecise().then(|| imprecise_list(&status.attention));
    let others = status.attention.iter().filter_map(lag_or_wipe);
    let events = events(&status.events, &status.attention);
    let state = classify(&status.attention, context, status.count_in(IntentState::Rejected));
    list.into_iter().chain(others).chain(events).chain([state]).collect()
}

/// Returns what events report, and what keeps them from it. No finding fails: sweeps find every
/// change.
fn events(events: &EventsStatus, attention: &[Attention]) -> Vec<DoctorFinding> {
    let warn = |attention: &Attention| {
        let advice = match attention {
            Attention::EventsOff { .. } => {
                "nothing has to be done. For a mirror that is fresh within seconds, set up a webhook \
                 (docs/operations.md)"
            }
            Attention::HintsPaused { .. } => {
                "compare the mode of the webhook in KOMOJU's dashboard (test or live) with the key"
            }
            Attention::PushesUnreported { .. } => {
                "subscribe a webhook to customer.*: KOMOJU may keep events only for webhooks"
            }
            _ => return None,
        };
        Some(DoctorFinding::warn(EVENTS, attention.to_string(), advice))
    };
    let mut findings: Vec<DoctorFinding> = attention.iter().filter_map(warn).collect();
    if findings.is_empty() {
        findings.extend(events.sentence().map(|sentence| DoctorFinding::ok(EVENTS, sentence)));
    }
    findings
}

/// Returns the finding about an imprecise list. Only an API that ignores `page` needs an operator.
fn imprecise_list(attention: &[Attention]) -> DoctorFinding {
    let about = |attention: &&Attention| {
        matches!(attention, Attention::ImpreciseList { .. } | Attention::LongUnlisted { .. })
    };
    let parts: Vec<String> = attention.iter().filter(about).map(Attention::to_string).collect();
    let finding = format!("KOMOJU's list: {}", parts.join("; "));
    if attention.contains(&Attention::PageIgnored) {
        let advice = "the mirror may hold the first page only: see that no proxy or cache in front of api.base_url \
                      drops `page`, then ask KOMOJU's support";
        return DoctorFinding::waits(LIST, finding, advice);
    }
    let advice = "no customer is deleted because the list leaves it out: each that the mirror knows is requested by \
                  itself. One that no list has ever shown is not known, and so not mirrored (docs/evidence.md). If it \
                  stays so, show KOMOJU's support these numbers";
    DoctorFinding::warn(LIST, finding, advice)
}

/// Returns the finding about reads that lag longer than configured, or about an unfinished wipe of
/// erased data or settled tokens.
fn lag_or_wipe(attention: &Attention) -> Option<DoctorFinding> {
    match attention {
        Attention::LagExceeded { .. } => {
            let advice = "change the configuration, then restart the daemon: systemctl restart komoju-sync";
            Some(DoctorFinding::about(LIST, attention, advice))
        }
        Attention::UnfinishedWipe(_) if attention.severity() == Severity::Note => {
            Some(DoctorFinding::ok("wipe", attention.to_string()))
        }
        Attention::UnfinishedWipe(_) => {
            let advice = "end what keeps the database open (a transaction in an SQL client, a report, Litestream), then \
                          `komoju-sync status`";
            Some(DoctorFinding::about("wipe", attention, advice))
        }
        _ => None,
    }
}

fn classify(attention: &[Attention], context: StateContext, rejected: u64) -> DoctorFinding {
    let (mut exit, mut text, mut advice) = (Exit::Fine, Vec::new(), Vec::new());
    let waiting: Vec<_> = attention.iter().filter(waits).filter_map(Attention::brief).collect();
    if !waiting.is_empty() {
        exit = Exit::Waits;
        text.push(format!("waiting for an operator: {}", waiting.join(", ")));
    }
    advice.push("`komoju-sync status` shows more, and the command to decide with");
    for condition in attention {
        match condition {
            Attention::KeyRefused { since, .. } if context.is_accepted => {
                text.push(format!(
                    "the API refused the daemon's key since {since}, and accepts the one found here"
                ));
                advice.push(
                    "restart the daemon, which reads the key when it starts: systemctl restart komoju-sync",
                );
            }
            // Before the first sweep nothing has failed.
            Attention::StaleMirror { last_sweep_at: None, .. } => text.push(condition.to_string()),
            Attention::KeyRefused { .. } | Attention::StaleMirror { .. } => {
                exit = exit.and(condition.severity().into());
                text.push(condition.to_string());
                if !context.is_in_use && matches!(condition, Attention::StaleMirror { .. }) {
                    advice.push("no daemon runs: systemctl start komoju-sync");
                }
            }
            Attention::PartialSweep { .. } => text.push(format!("the last sweep is {condition}")),
            _ => {}
        }
    }
    if !text.is_empty() {
        return DoctorFinding::fail(CHECK, exit, text.join("; "), advice.join("\n"));
    }
    let so_far = match rejected {
        0 => String::new(),
        n => format!("; the API rejected {} so far", count(n, "intent")),
    };
    DoctorFinding::ok(CHECK, format!("the mirror is up to date, and nothing waits for an operator{so_far}"))
}

/// Whether an operator has to look at it. Other checks report the other conditions.
fn waits(attention: &&Attention) -> bool {
    attention.waiting().is_some() || matches!(attention, Attention::UnreadableCustomers { new: 1.., .. })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use komoju_core::attention::PendingItems;

    fn classified(attention: Attention) -> (Level, Exit) {
        let finding = classify(&[attention], StateContext::default(), 0);
        (finding.level, finding.exit)
    }

    fn stale(last_sweep_at: Option<&str>) -> Attention {
        Attention::StaleMirror { last_sweep_at: last_sweep_at.map(str::to_owned), is_overdue: false }
    }

    #[test]
    fn condition_is_a_warning_or_a_failure_with_its_exit_code() {
        let waiting = || PendingItems { count: 1, oldest: None };
        for (attention, level, exit) in [
            (Attention::HeldDeletions(waiting()), Level::Warn, Exit::Waits),
            (Attention::HeldDeletes(waiting()), Level::Warn, Exit::Waits),
            (Attention::ParkedIntents(waiting()), Level::Warn, Exit::Waits),
            (Attention::UnreadableCustomers { count: 2, new: 1 }, Level::Warn, Exit::Waits),
            (Attention::UnreadableCustomers { count: 2, new: 0 }, Level::Ok, Exit::Fine),
            (Attention::PartialSweep { id: 1, unverified: 1 }, Level::Warn, Exit::Fine),
            (stale(None), Level::Warn, Exit::Fine),
            (stale(Some("then")), Level::Fail, Exit::Failed),
            (Attention::Unobserved, Level::Ok, Exit::Fine),
        ] {
            assert_eq!(classified(attention.clone()), (level, exit), "{attention:?}");
        }
    }

    #[test]
    fn rejected_intents_need_no_operator() {
        let finding = classify(&[], StateContext::default(), 4);
        assert_eq!((finding.level, finding.exit), (Level::Ok, Exit::Fine));
        assert!(finding.finding.ends_with("; the API rejected 4 intents so far"), "{}", finding.finding);
    }

    #[test]
    fn most_severe_condition_sets_level_and_exit_code() {
        let parked = Attention::ParkedIntents(PendingItems { count: 2, oldest: None });
        let finding = classify(&[parked, stale(Some("then"))], StateContext::default(), 0);
        assert_eq!((finding.level, finding.exit), (Level::Fail, Exit::Failed));
        assert!(
            finding.finding.starts_with("waiting for an operator: 2 parked intents; "),
            "{}",
            finding.finding
        );
        assert!(finding.advice.unwrap().contains("no daemon runs: systemctl start"));
    }

    #[test]
    fn refused_key_fails_unless_the_api_accepts_the_one_found_here() {
        let refused = Attention::KeyRefused { since: "then".into(), has_daemon: true };
        assert_eq!(classified(refused.clone()), (Level::Fail, Exit::KeyRefused));
        let accepted = classify(&[refused], StateContext { is_accepted: true, is_in_use: true }, 0);
        assert_eq!((accepted.level, accepted.exit), (Level::Warn, Exit::Fine));
        assert!(accepted.advice.unwrap().contains("restart the daemon"));
    }
}
