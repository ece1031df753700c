//! The conditions that follow from a status.

use jiff::Timestamp;

use super::{Intents, Status};
use crate::store::log::list_state::ListState;
use crate::store::read::Record;
use crate::tasks::spool;
use komoju_core::attention::PendingItems;
use komoju_core::intent::lifecycle::IntentState;
use komoju_core::{Attention, PassKind, PassOutcome, time};

/// The oldest ids that wait for an operator, where the status does not contain them.
pub(super) struct OldestHeldIds {
    pub(super) hold: Option<String>,
    pub(super) held_delete: Option<String>,
}

/// Returns the conditions of a status. Those that stop all work are first.
pub(super) fn of(
    status: &Status,
    oldest: OldestHeldIds,
    consistency_s: u32,
    now: Timestamp,
) -> Vec<Attention> {
    let mut found: Vec<Attention> = stops(status).into_iter().flatten().collect();
    found.extend(decisions(status, oldest).into_iter().flatten());
    found.extend(passes(status).into_iter().flatten());
    found.extend(list(&status.list, consistency_s, now).into_iter().flatten());
    found.extend(status.events.attention());
    found.extend(files(&status.spool));
    found
}

/// Returns the conditions that stop all work, and an unfinished wipe.
fn stops(status: &Status) -> [Option<Attention>; 4] {
    let has_daemon = status.instance.is_some();
    let wipe = &status.wipe;
    [
        status.database_trouble.clone().map(Attention::DatabaseUnusable),
        status.key_refused_since.clone().map(|since| Attention::KeyRefused { since, has_daemon }),
        status.account_stopped_since.clone().map(Attention::AccountStopped),
        (wipe.erasure || wipe.tokens).then(|| Attention::UnfinishedWipe(wipe.clone())),
    ]
}

/// Returns the conditions that wait for a decision.
fn decisions(status: &Status, oldest: OldestHeldIds) -> [Option<Attention>; 4] {
    let waiting = |count: u64, oldest| (count > 0).then_some(PendingItems { count, oldest });
    let parked = match status.intents.get(IntentState::Parked.word()) {
        Some(Intents::Open { count, oldest, .. }) => waiting(*count, oldest.clone()),
        _ => None,
    };
    let (count, new) = (status.unreadable, status.unreadable_new);
    [
        waiting(status.held_deletions, oldest.hold).map(Attention::HeldDeletions),
        waiting(status.held_deletes, oldest.held_delete).map(Attention::HeldDeletes),
        parked.map(Attention::ParkedIntents),
        (count > 0).then_some(Attention::UnreadableCustomers { count, new }),
    ]
}

/// Returns the conditions of the last passes, and a stale mirror.
fn passes(status: &Status) -> [Option<Attention>; 5] {
    let failed = |kind: PassKind, pass: &Option<Record>| {
        let pass = pass.as_ref()?;
        let (id, error) = (pass.number("id"), pass.text("error")?.to_owned());
        let outcome = pass.text("outcome").unwrap_or_default().to_owned();
        Some(Attention::FailedPass { kind, id, outcome, error })
    };
    let partial =
        status.last_sweep.as_ref().filter(|pass| pass.text("outcome") == Some(PassOutcome::Partial.word()));
    let partial = partial.map(|pass| Attention::PartialSweep {
        id: pass.number("id"),
        unverified: u64::try_from(pass.number("unverified")).unwrap_or(0),
    });
    let last_sweep_at = status.mirror.text("last_sweep_at").map(str::to_owned);
    [
        failed(PassKind::Sweep, &status.last_sweep),
        failed(PassKind::Probe, &status.last_probe),
        partial,
        status.list.ignores_page.then_some(Attention::PageIgnored),
        status.stale.then_some(Attention::StaleMirror { last_sweep_at, is_overdue: false }),
    ]
}

/// Returns the conditions of KOMOJU's list and of its reads.
fn list(list: &ListState, consistency_s: u32, now: Timestamp) -> [Option<Attention>; 3] {
    let verified_at = list.verified_at.as_deref().and_then(time::read);
    let imprecise = Attention::ImpreciseList {
        phrases: list.imprecise.clone(),
        verified: list.verified,
        verified_ago_s: verified_at.map_or(0, |at| now.duration_since(at).as_secs()),
        long_unlisted: list.long_unlisted,
    };
    let (count, at) = (list.long_unlisted, list.lag_exceeded_at.clone());
    [
        (!list.imprecise.is_empty() || list.verified > 0).then_some(imprecise),
        list.long_unlisted_first.clone().map(|first| Attention::LongUnlisted { count, first }),
        at.map(|at| Attention::LagExceeded { at, consistency_s }),
    ]
}

/// Returns the conditions of the spool directory: why no file is taken, and each file that needs an
/// operator.
fn files(spool: &spool::Overview) -> impl Iterator<Item = Attention> {
    let blocked = spool.problem.clone().map(Attention::SpoolBlocked);
    let stuck = spool.stuck.iter().cloned();
    let stuck = stuck.map(|spool::SkippedFile { name, why }| Attention::StuckFile { name, why });
    let refused = spool.refused.iter().cloned().map(Attention::RefusedFile);
    blocked.into_iter().chain(stuck).chain(refused)
}
