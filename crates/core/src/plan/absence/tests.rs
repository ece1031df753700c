//! Checks that a table of answers drives, without I/O.

use std::collections::HashMap;

use super::check::STALE_ROUNDS;
use super::*;
use crate::PassKind;
use crate::plan::lookups::LookupBudget;

fn id(text: &str) -> CustomerId {
    CustomerId::new(text).unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A simulated API: how customers answer, and how long each answer takes.
struct Api<'a> {
    answers: &'a dyn Fn(i64) -> LookupAnswer,
    canaries: &'a dyn Fn(&CustomerId) -> bool,
    takes: Duration,
    budget: LookupBudget,
    now: Duration,
    requested: Vec<i64>,
    canaries_requested: Vec<String>,
    recorded: Vec<i64>,
    steps: Vec<String>,
}

impl<'a> Api<'a> {
    fn new(answers: &'a dyn Fn(i64) -> LookupAnswer) -> Self {
        Self {
            answers,
            canaries: &|_| true,
            takes: Duration::from_millis(100),
            budget: LookupBudget::unlimited(PassKind::Sweep),
            now: Duration::ZERO,
            requested: Vec::new(),
            canaries_requested: Vec::new(),
            recorded: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn drive(&mut self, mut check: AbsenceCheck) -> AbsenceFindings {
        loop {
            let step = check.next_step(self.now, &self.budget);
            self.steps.push(step.to_string());
            match step {
                AbsenceStep::Lookup(row) => {
                    let requested_at = self.now;
                    self.now += self.takes;
                    self.requested.push(row);
                    let answer = (self.answers)(row);
                    self.budget.spend(answer != LookupAnswer::Unclear);
                    check.answered(requested_at, answer);
                }
                AbsenceStep::Canary(canary) => {
                    self.now += self.takes;
                    self.budget.spend(true);
                    check.canary_answered((self.canaries)(&canary).then_some(self.now));
                    self.canaries_requested.push(canary.as_str().to_owned());
                }
                AbsenceStep::Record { mut rows, room } => {
                    let excess = rows.split_off(rows.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                    check.recorded(rows.len() as u64, excess);
                    self.recorded.extend(rows);
                }
                AbsenceStep::NoteImprecise { suspects } => {
                    assert_eq!(suspects, 30);
                    check.set_room(7);
                }
                AbsenceStep::Finish => return check.into_findings(),
            }
        }
    }
}

fn sweep(suspects: std::ops::RangeInclusive<i64>, limit: u64, policy: DeletePolicy) -> AbsenceCheck {
    let suspects: Vec<i64> = suspects.collect();
    let plan = AbsencePlan::new(suspects.len() as u64, 0, limit);
    AbsenceCheck::of_sweep(
        plan,
        suspects,
        &HashMap::new(),
        Vec::new(),
        policy,
        ["a", "b", "c"].map(id).into(),
    )
}

#[test]
fn limit_is_the_larger_of_count_and_share() {
    let cases =
        [((0, 10, 5), 10), ((199, 10, 5), 10), ((220, 10, 5), 11), ((1000, 10, 5), 50), ((1000, 0, 0), 0)];
    for ((live, count, percent), expected) in cases {
        assert_eq!(limit(live, count, percent), expected, "{live} live");
    }
    assert_eq!(limit(u64::MAX, 1, 100), u64::MAX);
}

#[test]
fn deletions_of_a_day_count_together_while_the_list_is_imprecise() {
    assert_eq!(room(10, false, 500), u64::MAX);
    assert_eq!([0, 4, 10, 11].map(|recorded| room(10, true, recorded)), [10, 6, 0, 0]);
}

#[test]
fn suspects_above_the_limit_are_sampled_and_those_left_to_a_push_count_too() {
    let plan = |suspects, pushed, limit| AbsencePlan::new(suspects, pushed, limit).to_string();
    assert_eq!(plan(0, 30, 10), "no customer is missing");
    assert_eq!(plan(10, 0, 10), "10 customers missing: request each");
    assert_eq!(plan(11, 0, 10), "11 customers missing, more than the limit of 10: request a sample of 11");
    assert_eq!(plan(1, 0, 0), "1 customer missing, more than the limit of 0: request a sample of 1");
    assert_eq!(plan(9, 2, 10), "9 customers missing, more than the limit of 10: request a sample of 9");
    assert_eq!(plan(500, 0, 10), "500 customers missing, more than the limit of 10: request a sample of 20");
}

#[test]
fn gone_suspects_are_recorded_after_one_canary_and_those_that_exist_are_not() {
    let answers = |row| if row == 2 { LookupAnswer::Exists } else { LookupAnswer::Gone };
    let mut api = Api::new(&answers);
    let findings = api.drive(sweep(1..=3, 10, DeletePolicy::Record));
    assert_eq!((api.recorded.as_slice(), findings), ([1, 3].as_slice(), AbsenceFindings::default()));
    assert_eq!(api.canaries_requested, ["a"]);
    assert_eq!(
        api.steps[3..],
        [
            "request a, which was listed, to confirm the answers before",
            "record 2 customers as deleted",
            "finish"
        ]
    );
}

#[test]
fn third_canary_is_the_last_and_without_one_the_deletion_is_held() {
    let gone = |_| LookupAnswer::Gone;
    for (policy, reason) in
        [(DeletePolicy::Record, HoldReason::Unproven), (DeletePolicy::Hold, HoldReason::Restored)]
    {
        let mut api = Api::new(&gone);
        api.canaries = &|_| false;
        let findings = api.drive(sweep(1..=1, 10, policy));
        assert_eq!(api.canaries_requested, ["a", "b", "c"]);
        assert_eq!(api.recorded, [0; 0]);
        assert_eq!(
            findings,
            AbsenceFindings { held: vec![(vec![1], reason)], unverified: 0, lacks_canary: true }
        );
    }
    let mut api = Api::new(&gone);
    api.canaries = &|canary| canary.as_str() == "c";
    assert_eq!(api.drive(sweep(1..=1, 10, DeletePolicy::Record)), AbsenceFindings::default());
    assert_eq!(api.recorded, [1]);
}

#[test]
fn list_that_showed_no_customer_leaves_no_canary_and_records_nothing() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api::new(&gone);
    let plan = AbsencePlan::new(1, 0, 10);
    let check =
        AbsenceCheck::of_sweep(plan, vec![1], &HashMap::new(), vec![], DeletePolicy::Record, Vec::new());
    let findings = api.drive(check);
    assert_eq!((api.recorded.len(), findings.held), (0, vec![(vec![1], HoldReason::Unproven)]));
}

#[test]
fn unclear_answer_requests_a_canary_at_once_and_leaves_its_customer_unverified() {
    let answers = |row| if row == 1 { LookupAnswer::Unclear } else { LookupAnswer::Gone };
    let mut api = Api::new(&answers);
    let findings = api.drive(sweep(1..=3, 10, DeletePolicy::Record));
    assert_eq!((api.recorded.as_slice(), findings.unverified), ([2, 3].as_slice(), 1));
    assert_eq!(
        api.canaries_requested,
        ["a", "b"],
        "one canary after the unclear answer, one for the two deletions"
    );

    // If nothing answers, the rest is not requested.
    let mut api = Api::new(&answers);
    api.canaries = &|_| false;
    let findings = api.drive(sweep(1..=3, 10, DeletePolicy::Record));
    assert_eq!((api.requested.as_slice(), findings.unverified), ([1].as_slice(), 3));
}

#[test]
fn suspects_are_verified_without_a_canary_if_one_of_them_exists() {
    let answers = |row| match row {
        1 => LookupAnswer::Exists,
        2 => LookupAnswer::Unclear,
        4 => LookupAnswer::Exists,
        _ => LookupAnswer::Gone,
    };
    let mut api = Api::new(&answers);
    api.canaries = &|_| false;
    let findings = api.drive(sweep(1..=4, 10, DeletePolicy::Record));
    assert_eq!(api.requested, [1, 2, 3, 4]);
    assert_eq!(findings.held, [(vec![3], HoldReason::Unproven)]);
    assert_eq!(
        (findings.unverified, api.canaries_requested.len()),
        (1, 3),
        "no canary is requested again for row 3"
    );
}

#[test]
fn canary_proves_only_what_was_requested_within_a_minute() {
    assert!(is_within(seconds(1), seconds(61)) && !is_within(seconds(0), seconds(61)));
    let gone = |_| LookupAnswer::Gone;
    // Each request takes longer than a minute, so the 404 is requested again, and held after three
    // rounds.
    let mut api = Api { takes: seconds(61), ..Api::new(&gone) };
    let findings = api.drive(sweep(1..=1, 10, DeletePolicy::Record));
    assert_eq!((api.requested.len(), api.recorded.len()), (STALE_ROUNDS, 0));
    assert_eq!(findings.held, [(vec![1], HoldReason::Unproven)]);
}

#[test]
fn canary_is_requested_long_before_the_minute_is_over() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api { takes: seconds(7), ..Api::new(&gone) };
    api.drive(sweep(1..=6, 10, DeletePolicy::Record));
    assert_eq!(api.canaries_requested.len(), 2, "after three requests of seven seconds each");
    assert_eq!(api.recorded, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn sample_that_is_gone_holds_all_suspects() {
    let answers = |row| if row % 2 == 0 { LookupAnswer::Gone } else { LookupAnswer::Unclear };
    for (policy, reason) in
        [(DeletePolicy::Record, HoldReason::TooMany), (DeletePolicy::Hold, HoldReason::Restored)]
    {
        let mut api = Api::new(&answers);
        let findings = api.drive(sweep(1..=30, 10, policy));
        assert_eq!(api.requested.len(), SAMPLE);
        assert_eq!(findings.held, [((1..=30).collect(), reason)]);
    }
}

#[test]
fn sample_without_a_clear_answer_decides_nothing() {
    let unclear = |_| LookupAnswer::Unclear;
    let mut api = Api::new(&unclear);
    let findings = api.drive(sweep(1..=30, 10, DeletePolicy::Record));
    assert_eq!(findings, AbsenceFindings { unverified: 30, ..AbsenceFindings::default() });
}

#[test]
fn existing_customer_in_the_sample_shows_an_imprecise_list_and_gone_ones_are_first() {
    let answers = |row| if row > 20 || row == 5 { LookupAnswer::Exists } else { LookupAnswer::Gone };
    let mut api = Api::new(&answers);
    let findings = api.drive(sweep(1..=30, 10, DeletePolicy::Record));
    assert_eq!(api.steps[20], "note that the list leaves out customers that exist");
    let gone: Vec<i64> = (1..=20).filter(|row| *row != 5).collect();
    assert_eq!(api.requested[20..39], gone, "gone ones are first, and row 5 is not requested again");
    assert_eq!(api.requested[39..], (21..=30).collect::<Vec<_>>());
    assert_eq!(api.recorded, gone[..7], "as many as the day's limit allows");
    assert_eq!(findings.held, [(gone[7..].to_vec(), HoldReason::TooMany)]);
}

#[test]
fn room_is_shared_by_all_records_of_a_check() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api { takes: seconds(12), ..Api::new(&gone) };
    let mut check = sweep(1..=4, 10, DeletePolicy::Record);
    check.set_room(3);
    let findings = api.drive(check);
    assert_eq!((api.recorded.as_slice(), api.canaries_requested.len()), ([1, 2, 3].as_slice(), 2));
    assert_eq!(findings.held, [(vec![4], HoldReason::TooMany)]);
}

#[test]
fn after_a_restore_no_deletion_is_recorded_whatever_the_room() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api::new(&gone);
    let mut check = sweep(1..=2, 10, DeletePolicy::Hold);
    check.set_room(u64::MAX);
    let findings = api.drive(check);
    assert_eq!((api.recorded.len(), findings.held), (0, vec![(vec![1, 2], HoldReason::Restored)]));
}

#[test]
fn customers_beyond_the_budget_are_unverified_and_gone_ones_are_proven() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api::new(&gone);
    api.budget.limit(0);
    (0..98).for_each(|_| api.budget.spend(true));
    let findings = api.drive(sweep(1..=5, 10, DeletePolicy::Record));
    assert_eq!((api.recorded.as_slice(), findings.unverified), ([1, 2].as_slice(), 3));
}

#[test]
fn longest_unverified_suspects_are_requested_first() {
    let exists = |_| LookupAnswer::Exists;
    let verified = HashMap::from([(1, 9), (2, 4), (4, 6)]);
    let mut api = Api::new(&exists);
    let plan = AbsencePlan::new(4, 0, 10);
    let suspects = vec![1, 2, 3, 4];
    api.drive(AbsenceCheck::of_sweep(plan, suspects, &verified, vec![], DeletePolicy::Record, vec![id("a")]));
    assert_eq!(api.requested, [3, 2, 4, 1]);
}

#[test]
fn customer_that_is_no_longer_live_is_neither_held_nor_unverified() {
    let answers = |row| if row == 1 { LookupAnswer::NotLive } else { LookupAnswer::Gone };
    for suspects in [1..=2, 1..=30] {
        let mut api = Api::new(&answers);
        let findings = api.drive(sweep(suspects, 10, DeletePolicy::Record));
        assert_eq!(findings.unverified, 0);
        assert!(findings.held.iter().all(|(rows, _)| !rows.contains(&1)), "{findings:?}");
    }
}

#[test]
fn held_customers_are_requested_last_with_the_rest_of_the_budget() {
    let gone = |_| LookupAnswer::Gone;
    let check = || {
        let plan = AbsencePlan::new(1, 0, 10);
        let held = vec![8, 9];
        AbsenceCheck::of_sweep(plan, vec![1], &HashMap::new(), held, DeletePolicy::Record, vec![id("a")])
    };
    let mut api = Api::new(&gone);
    let findings = api.drive(check());
    assert_eq!((api.requested.as_slice(), api.recorded.as_slice()), ([1, 8, 9].as_slice(), [1].as_slice()));
    assert_eq!(findings, AbsenceFindings::default(), "a held customer that is gone stays held");

    let mut api = Api::new(&gone);
    api.budget.limit(0);
    (0..97).for_each(|_| api.budget.spend(true));
    api.drive(check());
    assert_eq!(api.requested, [1, 8]);
}

#[test]
fn approved_deletions_need_no_canary_if_no_customer_is_left() {
    let gone = |_| LookupAnswer::Gone;
    let mut api = Api::new(&gone);
    let findings = api.drive(AbsenceCheck::of_approved(vec![1, 2], Canaries::NoneLeft));
    assert_eq!((api.recorded.as_slice(), findings), ([1, 2].as_slice(), AbsenceFindings::default()));
    assert_eq!(api.canaries_requested.len(), 0);

    let mut api = Api::new(&gone);
    api.canaries = &|_| false;
    let findings = api.drive(AbsenceCheck::of_approved(vec![1, 2], Canaries::Among(vec![id("a")])));
    assert_eq!(api.recorded.len(), 0);
    assert!(findings.lacks_canary);
}

#[test]
fn reasons_have_the_names_that_the_database_holds() {
    assert_eq!(HoldReason::ALL.map(HoldReason::word), ["too_many", "unproven", "restored"]);
}

#[test]
fn check_counts_the_customers_that_may_still_be_requested() {
    let plan = AbsencePlan::new(3, 0, 10);
    let check = AbsenceCheck::of_sweep(
        plan,
        vec![1, 2, 3],
        &HashMap::new(),
        vec![7, 8],
        DeletePolicy::Record,
        vec![id("a")],
    );
    assert_eq!(check.left(), 5);
}
