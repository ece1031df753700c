//! The check of missing customers: a state machine that yields steps and takes answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::{
    AbsenceFindings, AbsencePlan, AbsenceStep, CANARIES, Canaries, DeletePolicy, LookupAnswer, SAMPLE,
    is_within,
};
use crate::CustomerId;
use crate::plan::lookups::LookupBudget;

/// CANARY_DUE controls how long after a 404 its canary is requested. Both then fall well within
/// [`CANARY_WITHIN`](super::CANARY_WITHIN).
const CANARY_DUE: Duration = Duration::from_secs(20);

/// STALE_ROUNDS controls how many times a canary may answer too late for some 404s. After that,
/// those deletions are held.
pub(super) const STALE_ROUNDS: usize = 3;

/// The phase of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A sample of the suspects is requested.
    Sample,
    /// The sample showed that the list is imprecise; the caller must note it.
    Imprecise,
    /// Suspects are requested, and canaries prove their 404s.
    Suspects,
    /// Customers whose deletion is already held are requested.
    Held,
}

/// The sample, when suspects exceed the limit.
#[derive(Clone, Debug, Default)]
struct Sample {
    open: VecDeque<i64>,
    exist: HashSet<i64>,
    gone: Vec<i64>,
}

/// Decides, answer by answer, what is proven about missing customers. A customer without a usable
/// answer, or a canary that does not answer, delays no other customer.
#[derive(Clone, Debug)]
pub struct AbsenceCheck {
    policy: DeletePolicy,
    suspects: u64,
    canaries: Canaries,
    next_canary: usize,
    phase: Phase,
    sample: Sample,
    /// The suspects to request, in this order.
    queue: VecDeque<i64>,
    /// The held customers to request, in this order.
    held: VecDeque<i64>,
    /// The number of deletions that may be recorded.
    room: u64,
    /// The suspects whose own answer says that they are gone, and when each was requested. Each
    /// still needs a canary.
    gone: Vec<(i64, Duration)>,
    proven: Vec<i64>,
    /// The number of canaries that may still be tried for the deletions that need one now.
    canaries_left: usize,
    /// Whether the last answer was unclear. A canary then shows whether the API answers at all.
    was_unclear: bool,
    any_exists: bool,
    stale_rounds: usize,
    unproven: Vec<i64>,
    excess: Vec<i64>,
    findings: AbsenceFindings,
}

impl AbsenceCheck {
    /// Creates a check of the suspects, followed by the customers whose deletion is already held.
    /// Both lists are in random order, so that their first entries are a random sample. `verified`
    /// maps a suspect to the sweep in which it last answered a request of its own. Suspects that
    /// never answered are requested first, then those whose last answer is the oldest.
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

    /// A check of deletions that an operator approved.
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
            was_unclear: false,
            any_exists: false,
            stale_rounds: 0,
            unproven: Vec::new(),
            excess: Vec::new(),
            findings: AbsenceFindings::default(),
        }
    }

    /// Sets how many deletions may be recorded from now on. [`DeletePolicy::Hold`] allows none.
    pub fn set_room(&mut self, room: u64) {
        self.room = self.policy.room(room);
        if self.phase == Phase::Imprecise {
            self.phase = Phase::Suspects;
        }
    }

    /// Returns the maximum number of customers to request yet, as far as it is known.
    pub fn left(&self) -> u64 {
        let left = match self.phase {
            Phase::Sample => self.sample.open.len(),
            Phase::Imprecise | Phase::Suspects | Phase::Held => self.queue.len() + self.held.len(),
        };
        left as u64
    }

    /// Returns the next step. `now` is the time by a steady clock.
    pub fn next_step(&mut self, now: Duration, budget: &LookupBudget) -> AbsenceStep {
        loop {
            let step = match self.phase {
                Phase::Sample => self.next_of_sample(budget),
                Phase::Imprecise => Some(AbsenceStep::NoteImprecise { suspects: self.suspects }),
                Phase::Suspects => self.next_of_suspects(now, budget),
                Phase::Held => Some(self.next_of_held(budget)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn next_of_sample(&mut self, budget: &LookupBudget) -> Option<AbsenceStep> {
        if let Some(row) = self.sample.open.front().filter(|_| budget.may_request()) {
            return Some(AbsenceStep::Lookup(*row));
        }
        let Sample { exist, gone, .. } = std::mem::take(&mut self.sample);
        self.queue.retain(|row| !exist.contains(row));
        self.phase = match (exist.is_empty(), gone.is_empty()) {
            // One exists, so the list is imprecise. Request the customers that are probably gone
            // first.
            (false, _) => {
                let rest: HashSet<i64> = gone.iter().copied().collect();
                self.queue.retain(|row| !rest.contains(row));
                gone.into_iter().rev().for_each(|row| self.queue.push_front(row));
                Phase::Imprecise
            }
            // Every clear answer says gone, so all suspects may be gone.
            (true, false) => {
                let held = std::mem::take(&mut self.queue).into();
                self.findings.held.push((held, self.policy.reason_for_excess()));
                Phase::Held
            }
            (true, true) => {
                self.leave_unverified();
                Phase::Held
            }
        };
        None
    }

    fn next_of_suspects(&mut self, now: Duration, budget: &LookupBudget) -> Option<AbsenceStep> {
        if !budget.may_request() {
            self.leave_unverified();
        }
        if !self.proven.is_empty() {
            return Some(AbsenceStep::Record { rows: std::mem::take(&mut self.proven), room: self.room });
        }
        if self.canaries_left > 0 {
            return self.next_canary();
        }
        if self.needs_canary(now) {
            self.begin_canaries(now);
            return None;
        }
        if let Some(row) = self.queue.front() {
            return Some(AbsenceStep::Lookup(*row));
        }
        self.conclude_suspects();
        None
    }

    fn next_of_held(&mut self, budget: &LookupBudget) -> AbsenceStep {
        match self.held.front() {
            Some(row) if budget.may_request() => AbsenceStep::Lookup(*row),
            _ => AbsenceStep::Finish,
        }
    }

    /// Leaves the customers that were not requested unverified.
    fn leave_unverified(&mut self) {
        self.findings.unverified += self.queue.drain(..).len() as u64;
    }

    fn needs_canary(&self, now: Duration) -> bool {
        let oldest = self.gone.first().map(|(_, requested_at)| now.saturating_sub(*requested_at));
        match oldest {
            Some(age) => self.was_unclear || self.queue.is_empty() || age >= CANARY_DUE,
            // Without a canary nothing more can be proven, so an unclear answer does not cause
            // another try.
            None => self.was_unclear && !self.findings.lacks_canary,
        }
    }

    fn begin_canaries(&mut self, now: Duration) {
        match &self.canaries {
            Canaries::NoneLeft => self.prove(now),
            Canaries::Among(canaries) if canaries.is_empty() => self.note_lack_of_canary(),
            Canaries::Among(canaries) => self.canaries_left = canaries.len().min(CANARIES),
        }
    }

    fn next_canary(&mut self) -> Option<AbsenceStep> {
        let Canaries::Among(canaries) = &self.canaries else { return None };
        let canary = canaries.get(self.next_canary % canaries.len().max(1))?.clone();
        self.next_canary += 1;
        Some(AbsenceStep::Canary(canary))
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

    /// Takes the answer to the last [`AbsenceStep::Lookup`], which was requested at `requested_at`.
    pub fn answered(&mut self, requested_at: Duration, answer: LookupAnswer) {
        match self.phase {
            Phase::Sample => self.sample_answered(answer),
            Phase::Suspects | Phase::Imprecise => self.suspect_answered(requested_at, answer),
            // Recording the customer's answer ends its hold.
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
                self.was_unclear = true;
            }
        }
    }

    /// Takes the answer to the last [`AbsenceStep::Canary`]: the time of the answer by the steady
    /// clock, or `None` without an answer.
    pub fn canary_answered(&mut self, answered_at: Option<Duration>) {
        self.canaries_left = self.canaries_left.saturating_sub(1);
        match answered_at {
            Some(at) => self.prove(at),
            None if self.canaries_left == 0 => self.note_lack_of_canary(),
            None => {}
        }
    }

    fn prove(&mut self, answered_at: Duration) {
        (self.canaries_left, self.was_unclear) = (0, false);
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

    fn note_lack_of_canary(&mut self) {
        self.was_unclear = false;
        self.findings.lacks_canary = true;
        self.unproven.extend(self.gone.drain(..).map(|(row, _)| row));
        // If another suspect exists, the API answers, so the rest is still verified. If none
        // exists, the API may be down.
        if !self.any_exists {
            self.leave_unverified();
        }
    }

    /// Takes the result of the last [`AbsenceStep::Record`]: the number of recorded deletions, and
    /// the rows that exceeded `room`.
    pub fn recorded(&mut self, deleted: u64, excess: Vec<i64>) {
        self.room = self.room.saturating_sub(deleted);
        self.excess.extend(excess);
    }

    /// Returns the result of the check.
    pub fn into_findings(self) -> AbsenceFindings {
        self.findings
    }
}
