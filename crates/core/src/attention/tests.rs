use std::collections::BTreeSet;

use super::*;
use Attention::*;

fn stale(last_sweep_at: Option<&str>, is_overdue: bool) -> Attention {
    StaleMirror { last_sweep_at: last_sweep_at.map(str::to_owned), is_overdue }
}

fn waiting(count: u64, oldest: &str) -> PendingItems {
    PendingItems { count, oldest: Some(oldest.to_owned()) }
}

fn failed(kind: PassKind) -> Attention {
    FailedPass { kind, id: 7, outcome: "failed".into(), error: "timeout".into() }
}

fn refused(has_daemon: bool) -> Attention {
    KeyRefused { since: "T".into(), has_daemon }
}

/// Every condition, in each form of its sentence.
fn conditions() -> Vec<Attention> {
    let phrases = vec!["total says 253, 250 are listed".into(), "last_page is missing".into()];
    let tokens = Wipe { tokens: true, has_daemon: true, ..Wipe::default() };
    let readers = vec!["a (process 1)".into(), "b (process 2)".into()];
    let erasure = Wipe { erasure: true, since: Some("T".into()), readers, ..tokens.clone() };
    vec![
        DatabaseUnusable("since T: no room".into()),
        refused(true),
        refused(false),
        AccountStopped("T".into()),
        UnfinishedWipe(tokens.clone()),
        UnfinishedWipe(Wipe { is_blocked: true, ..tokens.clone() }),
        UnfinishedWipe(Wipe { has_daemon: false, ..tokens }),
        UnfinishedWipe(Wipe { tokens: false, readers: Vec::new(), ..erasure.clone() }),
        UnfinishedWipe(erasure),
        HeldDeletions(waiting(20, "1")),
        HeldDeletes(waiting(1, "d1")),
        ParkedIntents(waiting(1, "p0")),
        ParkedIntents(waiting(2, "p0")),
        UnreadableCustomers { count: 2, new: 0 },
        UnreadableCustomers { count: 2, new: 1 },
        failed(PassKind::Sweep),
        failed(PassKind::Probe),
        PartialSweep { id: 7, unverified: 0 },
        PartialSweep { id: 7, unverified: 1 },
        PartialSweep { id: 7, unverified: 2 },
        PageIgnored,
        stale(Some("T"), false),
        stale(Some("T"), true),
        stale(None, false),
        stale(None, true),
        ImpreciseList { phrases, verified: 41, verified_ago_s: 720, long_unlisted: 0 },
        ImpreciseList { phrases: Vec::new(), verified: 1, verified_ago_s: 720, long_unlisted: 0 },
        ImpreciseList { phrases: Vec::new(), verified: 2, verified_ago_s: 720, long_unlisted: 1 },
        LongUnlisted { count: 1, first: "a".into() },
        LongUnlisted { count: 3, first: "a".into() },
        LagExceeded { at: "T".into(), consistency_s: 120 },
        EventsOff { since: "T".into(), reason: "GET /events page 1: answered HTTP 500".into() },
        HintsPaused { until: "T".into(), reason: "many unknown customers".into() },
        PushesUnreported { pushes: 3 },
        SpoolBlocked("`chown root spool`".into()),
        StuckFile { name: "a.txt".into(), why: "must end in .json".into() },
        RefusedFile("a.json".into()),
        Unobserved,
        DatabaseLocked { for_s: 91 },
    ]
}

/// The key, exit code, short form and sentence of each condition.
const TABLE: &str = "\
database_unusable 1 | the database cannot be used since T: no room | the database cannot be used since T: no room; the daemon retries by itself
key_refused 4 | key refused since T | the API refuses the key since T, so nothing is read or pushed: install the right secret key and restart the service; the daemon retries every 15 minutes
key_refused 4 | key refused since T | the API refuses the key since T, so nothing is read or pushed: install the right secret key; no daemon runs: the next `komoju-sync sync` or `komoju-sync run` retries
account_stopped 3 | stopped since T: the key reads another account | everything is stopped since T, because the key reads another account: run `komoju-sync account show`; install the right key again, or run `komoju-sync account accept`
unfinished_wipe 0 | - | payment tokens of settled intents are still in the database file or its WAL; the daemon removes them
unfinished_wipe 3 | wiping of tokens unfinished | payment tokens of settled intents are still in the database file or its WAL; the daemon could not remove them yet: a process of another user reads the database, or the log says why
unfinished_wipe 3 | wiping of tokens unfinished | payment tokens of settled intents are still in the database file or its WAL; `komoju-sync sync` or the daemon removes them
unfinished_wipe 3 | erasure unfinished | erased data are still in the database file or its WAL since T; the daemon removes them
unfinished_wipe 3 | erasure unfinished | erased data and payment tokens of settled intents are still in the database file or its WAL since T; a (process 1) and b (process 2) read an old state of the database: end that transaction or program
held_deletions 3 | 20 held deletions | 20 deletions wait for an operator: see `komoju-sync deletions list`, then run `komoju-sync deletions approve` or `reject`
held_deletes 3 | 1 held delete intent | 1 delete intent waits for an operator, because more are open or were sent within an hour than outbound.hold_deletes_over allows: see `komoju-sync intent plan`, then run `komoju-sync intent approve`, or `cancel` the wrong ones
parked_intents 3 | 1 parked intent | 1 intent is parked and waits for an operator: `komoju-sync intent list --state parked` and `komoju-sync intent show ID` show why; then run `komoju-sync intent retry ID` or `cancel ID`
parked_intents 3 | 2 parked intents | 2 intents are parked and wait for an operator: `komoju-sync intent list --state parked` and `komoju-sync intent show ID` show why; then run `komoju-sync intent retry ID` or `cancel ID`
unreadable_customers 0 | 2 unreadable customers | 2 unreadable customers: the mirror keeps their last known state; ask KOMOJU's support to correct them
unreadable_customers 3 | 1 new unreadable customer | 2 unreadable customers: the mirror keeps their last known state; ask KOMOJU's support to correct them
failed_pass 0 | sweep 7 failed: timeout | sweep 7 failed: timeout
failed_pass 0 | - | probe 7 failed: timeout
partial_sweep 0 | sweep 7 partial: the list was not read to its end | partial: the list was not read to its end
partial_sweep 0 | sweep 7 partial: 1 customer was neither listed nor verified | partial: 1 customer was neither listed nor verified
partial_sweep 0 | sweep 7 partial: 2 customers were neither listed nor verified | partial: 2 customers were neither listed nor verified
page_ignored 3 | the API may ignore `page` | there may be more customers than are listed: ask KOMOJU, and see `komoju-sync doctor`
stale_mirror 1 | stale: last complete sweep T | the last complete sweep ended at T, longer ago than three periods of inbound.sweep_cron: see `komoju-sync status`
stale_mirror 1 | stale: last complete sweep T | no sweep was complete since T, which is more than three periods ago: `komoju-sync status` shows what failed
stale_mirror 1 | no complete sweep yet | no sweep is complete yet: `komoju-sync status` shows the progress of the first one
stale_mirror 1 | no complete sweep yet | no sweep was complete yet, after more than three periods: `komoju-sync status` shows what failed
imprecise_list 0 | - | imprecise: total says 253, 250 are listed, last_page is missing; 41 customers are verified by single requests, the last 12 min ago
imprecise_list 0 | - | 1 customer is verified by a single request, 12 min ago
imprecise_list 0 | - | imprecise: 2 customers are verified by single requests, the last 12 min ago
long_unlisted 0 | - | 1 customer answers and was not listed for three sweeps: a
long_unlisted 0 | - | 3 customers answer and were not listed for three sweeps: a (and 2 more)
lag_exceeded 0 | - | reads may lag longer than inbound.consistency_s (120 s), last seen at T: raise it
events_off 0 | - | the event list could not be read since T: GET /events page 1: answered HTTP 500; changes are found by sweeps and probes meanwhile
hints_paused 0 | - | customers that events name are not requested until T: many unknown customers
pushes_unreported 0 | - | none of 3 pushes in the last day was reported as an event: in KOMOJU's dashboard, subscribe a webhook to customer.* (docs/operations.md)
spool_blocked 0 | - | no file is taken: `chown root spool`
stuck_file 0 | - | a.txt in outbound.spool_dir: it must end in .json
refused_file 0 | - | a.json: rejected/a.json.error in outbound.spool_dir gives the reason; correct the file and drop it again, or remove both
unobserved 0 | - | the daemon has just started and has not read the database yet
database_locked 0 | - | the database could not be read for 91 s: another program keeps it locked
";

/// The number of variants, and the index of each. A new variant does not compile until it is listed
/// here.
const VARIANTS: usize = 23;

fn index(attention: &Attention) -> usize {
    match attention {
        DatabaseUnusable(_) => 0,
        KeyRefused { .. } => 1,
        AccountStopped(_) => 2,
        UnfinishedWipe(_) => 3,
        HeldDeletions(_) => 4,
        HeldDeletes(_) => 5,
        ParkedIntents(_) => 6,
        UnreadableCustomers { .. } => 7,
        FailedPass { .. } => 8,
        PartialSweep { .. } => 9,
        PageIgnored => 10,
        StaleMirror { .. } => 11,
        ImpreciseList { .. } => 12,
        LongUnlisted { .. } => 13,
        LagExceeded { .. } => 14,
        SpoolBlocked(_) => 15,
        StuckFile { .. } => 16,
        RefusedFile(_) => 17,
        Unobserved => 18,
        DatabaseLocked { .. } => 19,
        EventsOff { .. } => 20,
        HintsPaused { .. } => 21,
        PushesUnreported { .. } => 22,
    }
}

#[test]
fn each_condition_has_its_key_exit_code_short_form_and_sentence() {
    let conditions = conditions();
    let rows = conditions.iter().map(|attention| {
        let (key, code) = (attention.key(), attention.severity().exit_code());
        format!("{key} {code} | {} | {attention}", attention.brief().as_deref().unwrap_or("-"))
    });
    assert_eq!(rows.collect::<Vec<_>>(), TABLE.lines().collect::<Vec<_>>());
    let places: BTreeSet<usize> = conditions.iter().map(index).collect();
    assert_eq!(places, (0..VARIANTS).collect(), "the table lists every variant");
    let keys: BTreeSet<&str> = conditions.iter().map(Attention::key).collect();
    assert_eq!(keys.len(), VARIANTS, "each variant has a key of its own");
}

#[test]
fn more_severe_condition_sets_the_exit_code() {
    let severities: BTreeSet<Severity> = conditions().iter().map(Attention::severity).collect();
    assert_eq!(
        severities.iter().rev().map(|severity| severity.exit_code()).collect::<Vec<_>>(),
        [4, 1, 3, 0]
    );
}

#[test]
fn only_a_condition_with_an_unreliable_mirror_makes_unready() {
    let conditions = conditions();
    let unready = conditions.iter().filter(|attention| attention.makes_unready()).map(Attention::key);
    let expected = ["account_stopped", "database_locked", "key_refused", "stale_mirror", "unobserved"];
    assert_eq!(unready.collect::<BTreeSet<_>>(), expected.into());
}

#[test]
fn condition_has_its_time_and_the_count_of_its_items() {
    for (attention, since, count) in [
        (HeldDeletions(waiting(20, "1")), None, 20),
        (UnreadableCustomers { count: 2, new: 1 }, None, 2),
        (refused(true), Some("T"), 1),
        (AccountStopped("T".into()), Some("T"), 1),
        (UnfinishedWipe(Wipe { since: Some("T".into()), ..Wipe::default() }), Some("T"), 1),
        (stale(Some("T"), false), Some("T"), 1),
        (stale(None, false), None, 1),
    ] {
        assert_eq!((attention.since(), attention.count()), (since, count), "{attention:?}");
    }
}

#[test]
fn imprecise_list_without_verified_customers_ends_with_its_last_phrase() {
    let list = |phrases: &[&str], verified| Attention::ImpreciseList {
        phrases: phrases.iter().map(|phrase| (*phrase).to_owned()).collect(),
        verified,
        verified_ago_s: 720,
        long_unlisted: 0,
    };
    assert_eq!(list(&["total is missing"], 0).to_string(), "imprecise: total is missing");
    assert_eq!(
        list(&["total is missing"], 1).to_string(),
        "imprecise: total is missing; 1 customer is verified by a single request, 12 min ago"
    );
}
