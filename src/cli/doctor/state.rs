//! What needs an operator, in a few lines; `status` reports the rest.

use super::api::Asked;
use super::database::Looked;
use super::{Exit, Finding};
use crate::cli::print::count;
use crate::daemon::status::Standing;
use komoju_core::intent::lifecycle::State;
use komoju_core::{Attention, Severity};

const CHECK: &str = "state";
const LIST: &str = "list";

/// What `doctor` knows beside the database.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Whether the API has just accepted the key.
    is_accepted: bool,
    /// Whether a process works on the database.
    is_in_use: bool,
}

fn status(looked: Option<&Looked>) -> Option<&Standing> {
    Some(&looked?.current.as_ref()?.status)
}

/// Decisions that wait, the key, and the age of the mirror.
pub(super) fn check(looked: Option<&Looked>, is_in_use: bool, asked: Option<&Asked>) -> Finding {
    let Some(status) = status(looked) else {
        return Finding::skip(CHECK, "there is no database that can be read");
    };
    let seen = Seen { is_accepted: asked.is_some_and(Asked::is_accepted), is_in_use };
    judge(&status.attention, seen, status.count_in(State::Rejected))
}

/// A list that is imprecise, and reads that lag longer than the configuration allows for; nothing
/// if neither is so. Neither keeps anything from working, but for an API that ignores `page`.
pub(super) fn check_list(looked: Option<&Looked>) -> Vec<Finding> {
    let Some(status) = status(looked) else { return Vec::new() };
    let imprecise = status.list.is_imprecise().then(|| judge_list(&status.attention));
    let lag = status.attention.iter().find(|attention| matches!(attention, Attention::LagExceeded { .. }));
    let advice = "raise inbound.consistency_s in the configuration and restart the daemon: systemctl restart komoju-sync";
    imprecise.into_iter().chain(lag.map(|lag| Finding::warn(LIST, lag.to_string(), advice))).collect()
}

fn judge_list(attention: &[Attention]) -> Finding {
    let about = |attention: &&Attention| {
        matches!(attention, Attention::ImpreciseList { .. } | Attention::LongUnlisted { .. })
    };
    let parts: Vec<String> = attention.iter().filter(about).map(Attention::to_string).collect();
    let finding = format!("KOMOJU's list: {}", parts.join("; "));
    if attention.contains(&Attention::PageIgnored) {
        let advice = "the mirror may hold the first page only: see that no proxy or cache in front of api.base_url \
                      drops `page`, then ask KOMOJU's support";
        return Finding::waits(LIST, finding, advice);
    }
    let advice = "no customer is deleted because the list leaves it out: each that the mirror knows is requested by \
                  itself. One that no list has ever shown is not known, and so not mirrored (docs/evidence.md). If it \
                  stays so, show KOMOJU's support these numbers";
    Finding::warn(LIST, finding, advice)
}

/// Copies of erased data and settled tokens that could not be removed yet; nothing if there are
/// none.
pub(super) fn check_wipe(looked: Option<&Looked>) -> Option<Finding> {
    let is_wipe = |attention: &&Attention| matches!(attention, Attention::UnfinishedWipe(_));
    let wipe = status(looked)?.attention.iter().find(is_wipe)?;
    let advice = "end what keeps the database open (a transaction in an SQL client, a report, Litestream), then `komoju-sync status`";
    Some(match wipe.severity() {
        Severity::Note => Finding::ok("wipe", wipe.to_string()),
        _ => Finding::waits("wipe", wipe.to_string(), advice),
    })
}

fn judge(attention: &[Attention], seen: Seen, rejected: u64) -> Finding {
    let waiting: Vec<_> = attention.iter().filter(waits).filter_map(Attention::brief).collect();
    let mut parts = Vec::new();
    if !waiting.is_empty() {
        parts.push(format!("waiting for an operator: {}", waiting.join(", ")));
    }
    parts.extend(attention.iter().filter_map(|attention| part(attention, seen)));
    let mut advice = vec!["`komoju-sync status` tells more, and which command decides"];
    advice.extend(attention.iter().filter_map(|attention| advice_on(attention, seen)));
    let exit = attention.iter().fold(Exit::Fine, |exit, attention| exit.and(exit_of(attention, seen)));
    finding(exit, parts.join("; "), advice.join("\n"), rejected)
}

fn waits(attention: &&Attention) -> bool {
    attention.waiting().is_some() || matches!(attention, Attention::UnreadableCustomers { new: 1.., .. })
}

/// The sentence of a condition that needs no decision; `None` if another check reports it.
fn part(attention: &Attention, seen: Seen) -> Option<String> {
    match attention {
        Attention::KeyRefused { since, .. } if seen.is_accepted => {
            Some(format!("the API refused the daemon's key since {since}, and takes the one found here"))
        }
        Attention::KeyRefused { .. } | Attention::StaleMirror { .. } => Some(attention.to_string()),
        Attention::PartialSweep { .. } => Some(format!("the last sweep is {attention}")),
        _ => None,
    }
}

fn advice_on(attention: &Attention, seen: Seen) -> Option<&'static str> {
    match attention {
        Attention::KeyRefused { .. } if seen.is_accepted => {
            Some("restart the daemon, which reads the key when it starts: systemctl restart komoju-sync")
        }
        Attention::StaleMirror { last_sweep_at: Some(_), .. } if !seen.is_in_use => {
            Some("no daemon runs: systemctl start komoju-sync")
        }
        Attention::PartialSweep { .. } => {
            Some("the next sweeps request these customers again; the log says why they could not be verified")
        }
        _ => None,
    }
}

fn exit_of(attention: &Attention, seen: Seen) -> Exit {
    match attention {
        Attention::KeyRefused { .. } if seen.is_accepted => Exit::Fine,
        // Before the first sweep nothing has failed.
        Attention::StaleMirror { last_sweep_at: None, .. } => Exit::Fine,
        _ if waits(&attention) || part(attention, seen).is_some() => attention.severity().into(),
        _ => Exit::Fine,
    }
}

/// A finding of this exit code; an empty text says that nothing needs an operator.
fn finding(exit: Exit, text: String, advice: String, rejected: u64) -> Finding {
    let so_far = match rejected {
        0 => String::new(),
        n => format!("; the API rejected {} so far", count(n, "intent")),
    };
    match exit {
        Exit::Fine if text.is_empty() => {
            Finding::ok(CHECK, format!("the mirror is up to date, and nothing waits for an operator{so_far}"))
        }
        Exit::Fine => Finding::warn(CHECK, text, advice),
        Exit::Waits => Finding::waits(CHECK, text, advice),
        exit => Finding::fail(CHECK, exit, text, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use komoju_core::attention::Waiting;

    fn judged(attention: Attention) -> (Level, Exit) {
        let finding = judge(&[attention], Seen::default(), 0);
        (finding.level, finding.exit)
    }

    fn stale(last_sweep_at: Option<&str>) -> Attention {
        Attention::StaleMirror { last_sweep_at: last_sweep_at.map(str::to_owned), is_overdue: false }
    }

    #[test]
    fn condition_is_a_warning_or_a_failure_with_its_exit_code() {
        let waiting = || Waiting { count: 1, oldest: None };
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
            assert_eq!(judged(attention.clone()), (level, exit), "{attention:?}");
        }
    }

    #[test]
    fn rejected_intents_need_no_operator() {
        let finding = judge(&[], Seen::default(), 4);
        assert_eq!((finding.level, finding.exit), (Level::Ok, Exit::Fine));
        assert!(finding.finding.ends_with("; the API rejected 4 intents so far"), "{}", finding.finding);
    }

    #[test]
    fn graver_condition_sets_level_and_exit_code() {
        let parked = Attention::ParkedIntents(Waiting { count: 2, oldest: None });
        let finding = judge(&[parked, stale(Some("then"))], Seen::default(), 0);
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
        assert_eq!(judged(refused.clone()), (Level::Fail, Exit::KeyRefused));
        let accepted = judge(&[refused], Seen { is_accepted: true, is_in_use: true }, 0);
        assert_eq!((accepted.level, accepted.exit), (Level::Warn, Exit::Fine));
        assert!(accepted.advice.unwrap().contains("restart the daemon"));
    }
}
