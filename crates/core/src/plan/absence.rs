//! Absence: what a sweep does about the customers that it did not list, decided one answer at a time.
//!
//! A list can leave a customer out for many reasons, and only one of them is that it is gone. So a
//! live customer that no round of a sweep has listed is a *suspect*: it is requested by itself. It is
//! recorded as deleted only if that answer says that it is gone **and**, after it and within a minute,
//! a *canary* answers: a customer that the sweep did list. The canary shows that the API tells the
//! truth about this account at that moment.
//!
//! ```text
//!   suspects ─▶ up to the limit ────────────────▶ each is requested
//!            └▶ more ─▶ a sample ─▶ all gone ───▶ all are held for an operator
//!                                └▶ one exists ─▶ the list is imprecise: as many as the budget allows are requested
//! ```
//!
//! [`AbsencePlan`] says which of these applies. [`AbsenceCheck`] then yields one [`Step`] after the
//! other and takes the answers; it never waits and never does I/O.
//!
//! Imprecision must not switch the guard off: where suspects exceeded the limit within a day, the
//! deletions of that day count together ([`room`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use super::lookups::LookupBudget;
use crate::CustomerId;
use crate::words::count;

/// CANARY_WITHIN controls how far apart a suspect's 404 and the canary's 200 may be.
pub const CANARY_WITHIN: Duration = Duration::from_secs(60);

/// CANARY_DUE controls after how long a 404 gets its canary, so that both fall well within [`CANARY_WITHIN`].
const CANARY_DUE: Duration = Duration::from_secs(20);

/// CANARIES controls how many canaries are tried before the deletions that wait for one are held.
pub const CANARIES: usize = 3;

/// SAMPLE controls how many suspects are requested where there are too many to request each.
pub const SAMPLE: usize = 20;

/// STALE_ROUNDS controls how often 404s may have grown too old when their canary answers.
const STALE_ROUNDS: usize = 3;

/// COUNTED_FOR controls for how long suspects above the limit make the deletions of several sweeps count together.
pub const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Returns how many suspects a sweep may settle by itself: the larger of a count and a share of the customers that were live
/// before it.
pub fn limit(live_before: u64, max_count: u64, max_percent: u32) -> u64 {
    let share = u128::from(live_before) * u128::from(max_percent) / 100;
    max_count.max(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Returns how many deletions a sweep may record by itself: all that are proven, unless the list was seen to be imprecise within
/// [`COUNTED_FOR`]. `recorded` is how many were recorded in that time.
pub fn room(limit: u64, is_imprecise: bool, recorded: u64) -> u64 {
    if is_imprecise { limit.saturating_sub(recorded) } else { u64::MAX }
}

/// Whether a canary that answered at `answered_at` proves a 404 that was requested at `requested_at`, both by a steady clock.
pub fn is_within(requested_at: Duration, answered_at: Duration) -> bool {
    answered_at.saturating_sub(requested_at) <= CANARY_WITHIN
}

/// Why a deletion is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// More customers were missing than a sweep may settle by itself: they wait for an operator.
    TooMany,
    /// The API said that the customer is gone while no canary answered: the next sweep requests it again, and may record it.
    Unproven,
    /// The database was restored from a backup: every deletion waits for an operator, however few there are. As long as any of
    /// them waits, later ones do too.
    Restored,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::TooMany, Self::Unproven, Self::Restored];

    /// The reasons for which only an operator's decision releases a deletion.
    pub const FOR_AN_OPERATOR: [Self; 2] = [Self::TooMany, Self::Restored];

    /// The word in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Unproven => "unproven",
            Self::Restored => "restored",
        }
    }
}

/// What a sweep may do about proven deletions by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePolicy {
    /// Record them.
    Record,
    /// Hold them all: the database was restored, and an operator has not yet decided about what the list lacks.
    Hold,
}

impl DeletePolicy {
    fn room(self, room: u64) -> u64 {
        match self {
            Self::Record => room,
            Self::Hold => 0,
        }
    }

    /// Why a deletion is held that would be recorded were there fewer.
    fn reason_for_excess(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::TooMany,
            Self::Hold => HoldReason::Restored,
        }
    }

    /// Why a deletion is held whose 404 no canary confirmed.
    fn reason_for_unproven(self) -> HoldReason {
        match self {
            Self::Record => HoldReason::Unproven,
            Self::Hold => HoldReason::Restored,
        }
    }
}

/// What a sweep does about its suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsencePlan {
    /// There are none.
    Nothing,
    /// Each suspect is requested.
    RequestEach {
        /// How many there are.
        suspects: u64,
    },
    /// Suspects exceed the limit: some are requested first.
    RequestSample {
        /// How many there are.
        suspects: u64,
        /// How many a sweep may settle by itself.
        limit: u64,
    },
}

impl AbsencePlan {
    /// Chooses the plan. `left_to_push` is how many more customers are missing and are left to an open push of ours: they count
    /// towards the limit.
    pub fn new(suspects: u64, left_to_push: u64, limit: u64) -> Self {
        match suspects {
            0 => Self::Nothing,
            _ if suspects.saturating_add(left_to_push) <= limit => Self::RequestEach { suspects },
            _ => Self::RequestSample { suspects, limit },
        }
    }
}

impl fmt::Display for AbsencePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => f.write_str("no customer is missing"),
            Self::RequestEach { suspects } => {
                write!(f, "{} missing: request each", count(suspects, "customer"))
            }
            Self::RequestSample { suspects, limit } => write!(
                f,
                "{} missing, more than the limit of {limit}: request a sample of {}",
                count(suspects, "customer"),
                suspects.min(SAMPLE as u64)
            ),
        }
    }
}

/// What a request for one customer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// The customer exists and can be read.
    Exists,
    /// The customer exists, and what is shown of it cannot be read: it proves nothing about other customers.
    Unreadable,
    /// The API says that the customer is gone.
    Gone,
    /// No usable answer.
    Unclear,
    /// Not requested: the mirror does not have the customer as live any more.
    NotLive,
}

/// Which customers may serve as a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canaries {
    /// One of these must answer; they are tried in this order, round and round.
    Among(Vec<CustomerId>),
    /// None is left, and an operator has approved that: nothing needs to answer.
    NoneLeft,
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Request the customer in this row of the mirror, then call [`AbsenceCheck::answered`].
    Lookup(i64),
    /// Request this canary, then call [`AbsenceCheck::canary_answered`].
    Canary(CustomerId),
    /// Record these rows as deleted, at most `room` of them, then call [`AbsenceCheck::recorded`].
    Record {
        /// Proven gone.
        rows: Vec<i64>,
        /// How many may be recorded.
        room: u64,
    },
    /// Note that the list leaves out customers that exist, then call [`AbsenceCheck::set_room`].
    NoteImprecise {
        /// How many customers it left out.
        suspects: u64,
    },
    /// Nothing: take the [`Findings`].
    Finish,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(row) => write!(f, "request the missing customer in row {row}"),
            Self::Canary(id) => write!(f, "request {id}, which was listed, to confirm the answers before"),
            Self::Record { rows, .. } => {
                write!(f, "record {} as deleted", count(rows.len() as u64, "customer"))
            }
            Self::NoteImprecise { .. } => f.write_str("note that the list leaves out customers that exist"),
            Self::Finish => f.write_str("finish"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Deletions to hold: rows, and why.
    pub held: Vec<(Vec<i64>, HoldReason)>,
    /// How many customers are neither verified, held nor recorded.
    pub unverified: u64,
    /// Whether no canary answered: nothing can be proven at the moment.
    pub lacks_canary: bool,
}

/// Where a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A sample of too many suspects is requested.
    Sample,
    /// The sample has shown an imprecise list, which the caller notes.
    Imprecise,
    /// Suspects are requested, and their 404s proven.
    Suspects,
    /// Customers that are held already are requested.
    Held,
}

/// A sample of too many suspects.
#[derive(Clone, Debug, Default)]
struct Sample {
    open: VecDeque<i64>,
    exist: HashSet<i64>,
    gone: Vec<i64>,
}

/// Decides, answer by answer, what is proven about missing customers. A customer without a usable answer, or a canary that does not
/// answer, delays no other customer.
#[derive(Clone, Debug)]
pub struct AbsenceCheck {
    policy: DeletePolicy,
    suspects: u64,
    canaries: Canaries,
    next_canary: usize,
    phase: Phase,
    sample: Sample,
    /// Suspects to request, in this order.
    queue: VecDeque<i64>,
    /// Held customers to request, in this order.
    held: VecDeque<i64>,
    /// How many deletions may be recorded.
    room: u64,
    /// Suspects that are gone by their own answer, and when they were requested; each still needs a canary.
    gone: Vec<(i64, Duration)>,
    proven: Vec<i64>,
    /// How many canaries may still be tried for what waits now.
    canaries_left: usize,
    /// Whether the last answer was unclear: a canary tells whether anything answers.
    is_in_doubt: bool,
    any_exists: bool,
    stale_rounds: usize,
    unproven: Vec<i64>,
    excess: Vec<i64>,
    findings: Findings,
}

impl AbsenceCheck {
    /// A check of a sweep's suspects, and then of customers that are held already; both lists are in a random order, so that a
    /// sample is one. `verified` tells in which sweep a suspect that no list showed answered last: those that were verified longest
    /// ago, or never, are requested first.
    pub fn of_sweep(
        plan: AbsencePlan,
        mut suspects: Vec<i64>,
        verified: &HashMap<i64, i64>,
        held: Vec<i64>,
        policy: DeletePolicy,
        canaries: Vec<CustomerId>,
    ) -> Self {
        let sample = match plan {
            AbsencePlan::RequestSample { .. } => suspects.iter().copied().take(SAMPLE).collect(),
            AbsencePlan::Nothing | AbsencePlan::RequestEach { .. } => VecDeque::new(),
        };
        suspects.sort_by_key(|row| verified.get(row).copied().unwrap_or(i64::MIN));
        let mut check = Self::new(suspects, Canaries::Among(canaries), policy);
        check.held = held.into();
        if !sample.is_empty() {
            check.phase = Phase::Sample;
            check.sample.open = sample;
        }
        check
    }

    /// A check of deletions that an operator has approved.
    pub fn of_approved(approved: Vec<i64>, canaries: Canaries) -> Self {
        Self::new(approved, canaries, DeletePolicy::Record)
    }

    fn new(suspects: Vec<i64>, canaries: Canaries, policy: DeletePolicy) -> Self {
        Self {
            policy,
            suspects: suspects.len() as u64,
            canaries,
            next_canary: 0,
            phase: Phase::Suspects,
            sample: Sample::default(),
            queue: suspects.into(),
            held: VecDeque::new(),
            room: policy.room(u64::MAX),
            gone: Vec::new(),
            proven: Vec::new(),
            canaries_left: 0,
            is_in_doubt: false,
            any_exists: false,
            stale_rounds: 0,
            unproven: Vec::new(),
            excess: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Sets how many deletions may be recorded from here on; [`DeletePolicy::Hold`] allows none.
    pub fn set_room(&mut self, room: u64) {
        self.room = self.policy.room(room);
        if self.phase == Phase::Imprecise {
            self.phase = Phase::Suspects;
        }
    }

    /// How many customers are still to be requested, at most, as far as is known.
    pub fn left(&self) -> u64 {
        let left = match self.phase {
            Phase::Sample => self.sample.open.len(),
            Phase::Imprecise | Phase::Suspects | Phase::Held => self.queue.len() + self.held.len(),
        };
        left as u64
    }

    /// The next step. `now` is a steady clock's time.
    pub fn next_step(&mut self, now: Duration, budget: &LookupBudget) -> Step {
        loop {
            let step = match self.phase {
                Phase::Sample => self.next_of_sample(budget),
                Phase::Imprecise => Some(Step::NoteImprecise { suspects: self.suspects }),
                Phase::Suspects => self.next_of_suspects(now, budget),
                Phase::Held => Some(self.next_of_held(budget)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn next_of_sample(&mut self, budget: &LookupBudget) -> Option<Step> {
        if let Some(row) = self.sample.open.front().filter(|_| budget.may_request()) {
            return Some(Step::Lookup(*row));
        }
        let Sample { exist, gone, .. } = std::mem::take(&mut self.sample);
        self.queue.retain(|row| !exist.contains(row));
        self.phase = match (exist.is_empty(), gone.is_empty()) {
            // One exists: the list leaves out customers that exist. Those that are probably gone come first.
            (false, _) => {
                let rest: HashSet<i64> = gone.iter().copied().collect();
                self.queue.retain(|row| !rest.contains(row));
                gone.into_iter().rev().for_each(|row| self.queue.push_front(row));
                Phase::Imprecise
            }
            // Those that answered clearly are gone: perhaps all are.
            (true, false) => {
                let held = std::mem::take(&mut self.queue).into();
                self.findings.held.push((held, self.policy.reason_for_excess()));
                Phase::Held
            }
            (true, true) => {
                self.give_up();
                Phase::Held
            }
        };
        None
    }

    fn next_of_suspects(&mut self, now: Duration, budget: &LookupBudget) -> Option<Step> {
        if !budget.may_request() {
            self.give_up();
        }
        if !self.proven.is_empty() {
            return Some(Step::Record { rows: std::mem::take(&mut self.proven), room: self.room });
        }
        if self.canaries_left > 0 {
            return self.next_canary();
        }
        if self.needs_canary(now) {
            self.begin_canaries(now);
            return None;
        }
        if let Some(row) = self.queue.front() {
            return Some(Step::Lookup(*row));
        }
        self.conclude_suspects();
        None
    }

    fn next_of_held(&mut self, budget: &LookupBudget) -> Step {
        match self.held.front() {
            Some(row) if budget.may_request() => Step::Lookup(*row),
            _ => Step::Finish,
        }
    }

    /// What is not requested stays unverified.
    fn give_up(&mut self) {
        self.findings.unverified += self.queue.drain(..).len() as u64;
    }

    fn needs_canary(&self, now: Duration) -> bool {
        let oldest = self.gone.first().map(|(_, requested_at)| now.saturating_sub(*requested_at));
        match oldest {
            Some(age) => self.is_in_doubt || self.queue.is_empty() || age >= CANARY_DUE,
            // Without one, nothing more is proven. An unclear answer is no reason to try again.
            None => self.is_in_doubt && !self.findings.lacks_canary,
        }
    }

    fn begin_canaries(&mut self, now: Duration) {
        match &self.canaries {
            Canaries::NoneLeft => self.prove(now),
            Canaries::Among(canaries) if canaries.is_empty() => self.lack_canary(),
            Canaries::Among(canaries) => self.canaries_left = canaries.len().min(CANARIES),
        }
    }

    fn next_canary(&mut self) -> Option<Step> {
        let Canaries::Among(canaries) = &self.canaries else { return None };
        let canary = canaries.get(self.next_canary % canaries.len().max(1))?.clone();
        self.next_canary += 1;
        Some(Step::Canary(canary))
    }

    fn conclude_suspects(&mut self) {
        let (unproven, excess) = (std::mem::take(&mut self.unproven), std::mem::take(&mut self.excess));
        for (rows, reason) in
            [(unproven, self.policy.reason_for_unproven()), (excess, self.policy.reason_for_excess())]
        {
            if !rows.is_empty() {
                self.findings.held.push((rows, reason));
            }
        }
        self.phase = Phase::Held;
    }

    /// Takes the answer to the last [`Step::Lookup`], which was requested at `requested_at`.
    pub fn answered(&mut self, requested_at: Duration, answer: LookupAnswer) {
        match self.phase {
            Phase::Sample => self.sample_answered(answer),
            Phase::Suspects | Phase::Imprecise => self.suspect_answered(requested_at, answer),
            // A customer that exists leaves its hold when it is recorded.
            Phase::Held => drop(self.held.pop_front()),
        }
    }

    fn sample_answered(&mut self, answer: LookupAnswer) {
        let Some(row) = self.sample.open.pop_front() else { return };
        match answer {
            LookupAnswer::Exists | LookupAnswer::Unreadable => drop(self.sample.exist.insert(row)),
            LookupAnswer::Gone => self.sample.gone.push(row),
            LookupAnswer::Unclear => {}
            LookupAnswer::NotLive => self.queue.retain(|queued| *queued != row),
        }
    }

    fn suspect_answered(&mut self, requested_at: Duration, answer: LookupAnswer) {
        let Some(row) = self.queue.pop_front() else { return };
        match answer {
            LookupAnswer::Exists => self.any_exists = true,
            LookupAnswer::Unreadable | LookupAnswer::NotLive => {}
            LookupAnswer::Gone if self.findings.lacks_canary => self.unproven.push(row),
            LookupAnswer::Gone => self.gone.push((row, requested_at)),
            LookupAnswer::Unclear => {
                self.findings.unverified += 1;
                self.is_in_doubt = true;
            }
        }
    }

    /// Takes the answer to the last [`Step::Canary`]: when it answered, by the steady clock; `None` where it did not.
    pub fn canary_answered(&mut self, answered_at: Option<Duration>) {
        self.canaries_left = self.canaries_left.saturating_sub(1);
        match answered_at {
            Some(at) => self.prove(at),
            None if self.canaries_left == 0 => self.lack_canary(),
            None => {}
        }
    }

    fn prove(&mut self, answered_at: Duration) {
        (self.canaries_left, self.is_in_doubt) = (0, false);
        let (proven, stale): (Vec<_>, Vec<_>) =
            self.gone.drain(..).partition(|(_, requested_at)| is_within(*requested_at, answered_at));
        self.proven.extend(proven.into_iter().map(|(row, _)| row));
        if stale.is_empty() {
            return;
        }
        self.stale_rounds += 1;
        let stale = stale.into_iter().map(|(row, _)| row);
        if self.stale_rounds < STALE_ROUNDS {
            self.queue.extend(stale);
        } else {
            self.unproven.extend(stale);
        }
    }

    fn lack_canary(&mut self) {
        self.is_in_doubt = false;
        self.findings.lacks_canary = true;
        self.unproven.extend(self.gone.drain(..).map(|(row, _)| row));
        // Where some customers exist, the others are verified all the same. Where none does, nothing answers.
        if !self.any_exists {
            self.give_up();
        }
    }

    /// Takes what became of the last [`Step::Record`]: how many were recorded, and the rows for which there was no room.
    pub fn recorded(&mut self, deleted: u64, excess: Vec<i64>) {
        self.room = self.room.saturating_sub(deleted);
        self.excess.extend(excess);
    }

    /// What the check found.
    pub fn into_findings(self) -> Findings {
        self.findings
    }
}

#[cfg(test)]
mod tests;
