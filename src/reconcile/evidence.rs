//! Evidence of absence.
//!
//! A list can be short for many reasons, and only one of them is that customers are gone. So a customer that a sweep did not see
//! is a *suspect*, and is recorded as deleted only when its own GET answers `not_found` **and**, within the same minute, a
//! customer that the sweep did see still answers (the *canary*: it shows that the API is telling the truth about this account
//! just now). Too many suspects are not asked one by one: a sample tells a short list from a mass deletion, and a mass deletion
//! is held for a person. What is held because it was too many stays too many until a person has decided or the set is another
//! one, even when the mirror has grown meanwhile and the limit with it. Who else is missing makes another set only where it is proven
//! to be gone.

use std::time::Duration;

use crate::model::CustomerId;

/// How far apart a suspect's 404 and the canary's 200 may be.
pub const CANARY_WITHIN: Duration = Duration::from_secs(60);

/// Whether a canary that answered at `answered_at` proves a 404 that was asked for at `asked_at`, both by a steady clock.
pub fn is_within(asked_at: Duration, answered_at: Duration) -> bool {
    answered_at.saturating_sub(asked_at) <= CANARY_WITHIN
}

/// After how long a 404 should get its canary, so that both fall well within [`CANARY_WITHIN`].
const CANARY_DUE: Duration = Duration::from_secs(20);

/// How many canaries are tried before deletions are held.
pub const CANARIES: usize = 3;

/// How many suspects are asked when there are too many to ask each.
pub const SAMPLE: usize = 20;

/// How many suspects a sweep may settle by itself: the larger of a count and a share of the customers live before it.
pub fn limit(live_before: u64, max_count: u64, max_percent: u32) -> u64 {
    let share = u128::from(live_before) * u128::from(max_percent) / 100;
    max_count.max(u64::try_from(share).unwrap_or(u64::MAX))
}

/// What is done about the suspects of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// There are none.
    Nothing,
    /// Each is asked.
    AskEach,
    /// Too many: some are asked.
    AskSample,
    /// Each is asked, and whoever is gone waits for a person.
    AskEachAndHold,
    /// They wait already, and go on waiting.
    KeepHolding,
}

/// What a sweep may do about deletions by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Licence {
    /// Record them where each is proven and they are few.
    Record,
    /// Hold them all: the database was restored, and a person has yet to look at what it misses.
    Hold,
}

/// Whether a sweep's suspects are those that wait for a person already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These were held by an earlier sweep, and only a person lets them go; who is missing besides them is not known to be gone.
    TheSame,
    /// Others, more who are gone, fewer, or none.
    Others,
}

/// Chooses the course.
pub fn course(suspects: u64, limit: u64, waiting: Waiting, licence: Licence) -> Course {
    match (suspects, licence, waiting) {
        (0, ..) => Course::Nothing,
        (n, Licence::Record, Waiting::Others) if n <= limit => Course::AskEach,
        (n, Licence::Hold, Waiting::Others) if n <= limit => Course::AskEachAndHold,
        // Nothing would be recorded, and whoever approves has them asked.
        (n, Licence::Hold, Waiting::TheSame) if n <= limit => Course::KeepHolding,
        _ => Course::AskSample,
    }
}

/// What one question about a customer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers.
    Alive,
    /// JSON `not_found`.
    Gone,
}

/// The suspects that answered `not_found` and still need a canary.
#[derive(Clone, Debug, Default)]
pub struct Inquest {
    gone: Vec<(CustomerId, Duration)>,
}

/// What a canary's answer settles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Proven gone.
    pub proven: Vec<CustomerId>,
    /// Their 404 is too old by now; they must be asked again.
    pub stale: Vec<CustomerId>,
}

impl Inquest {
    /// Notes a suspect's `not_found`; `asked_at` is a steady clock's time from before the question.
    pub fn gone(&mut self, suspect: CustomerId, asked_at: Duration) {
        self.gone.push((suspect, asked_at));
    }

    /// Whether nobody waits for a canary.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }

    /// Whether a canary should be asked now.
    pub fn is_due(&self, now: Duration) -> bool {
        self.gone.first().is_some_and(|(_, asked_at)| now.saturating_sub(*asked_at) >= CANARY_DUE)
    }

    /// No canary could be had: hands back whoever still waits for one, unproven.
    pub fn take_unproven(&mut self) -> Vec<CustomerId> {
        self.gone.drain(..).map(|(id, _)| id).collect()
    }

    /// Takes a canary's 200, answered at `answered_at` by the same steady clock.
    pub fn canary(&mut self, answered_at: Duration) -> Proof {
        let (proven, stale): (Vec<_>, Vec<_>) =
            self.gone.drain(..).partition(|(_, asked_at)| is_within(*asked_at, answered_at));
        let ids = |list: Vec<(CustomerId, Duration)>| list.into_iter().map(|(id, _)| id).collect();
        Proof { proven: ids(proven), stale: ids(stale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> CustomerId {
        CustomerId::new(text).unwrap()
    }

    #[test]
    fn the_limit_is_the_larger_of_count_and_share() {
        let cases = [
            ((0, 10, 5), 10),
            ((199, 10, 5), 10),
            ((220, 10, 5), 11),
            ((1000, 10, 5), 50),
            ((1000, 0, 0), 0),
        ];
        for ((live, count, percent), expected) in cases {
            assert_eq!(limit(live, count, percent), expected, "{live} live");
        }
        assert_eq!(limit(u64::MAX, 1, 100), u64::MAX);
    }

    #[test]
    fn more_suspects_than_the_limit_are_sampled() {
        assert_eq!(
            [0, 1, 10, 11].map(|n| course(n, 10, Waiting::Others, Licence::Record)),
            [Course::Nothing, Course::AskEach, Course::AskEach, Course::AskSample]
        );
        assert_eq!(course(1, 0, Waiting::Others, Licence::Record), Course::AskSample);
        let same = course(4, 10, Waiting::TheSame, Licence::Record);
        assert_eq!(same, Course::AskSample, "a limit that grew releases nobody");
    }

    #[test]
    fn after_a_restore_nobody_is_recorded_however_few_they_are() {
        assert_eq!(
            [0, 1, 10, 11].map(|n| course(n, 10, Waiting::Others, Licence::Hold)),
            [Course::Nothing, Course::AskEachAndHold, Course::AskEachAndHold, Course::AskSample]
        );
        assert_eq!(
            [0, 1, 10, 11].map(|n| course(n, 10, Waiting::TheSame, Licence::Hold)),
            [Course::Nothing, Course::KeepHolding, Course::KeepHolding, Course::AskSample]
        );
    }

    #[test]
    fn a_canary_proves_only_what_was_asked_within_the_minute() {
        let mut inquest = Inquest::default();
        inquest.gone(id("old"), Duration::from_secs(0));
        inquest.gone(id("fresh"), Duration::from_secs(1));
        assert!(!inquest.is_empty());
        let proof = inquest.canary(Duration::from_secs(61));
        assert_eq!(proof, Proof { proven: vec![id("fresh")], stale: vec![id("old")] });
        assert!(inquest.is_empty());
    }

    #[test]
    fn whoever_finds_no_canary_is_handed_back_unproven() {
        let mut inquest = Inquest::default();
        inquest.gone(id("a"), Duration::ZERO);
        inquest.gone(id("b"), Duration::ZERO);
        assert_eq!(inquest.take_unproven(), [id("a"), id("b")]);
        assert!(inquest.is_empty());
    }

    #[test]
    fn a_canary_is_due_long_before_the_minute_is_over() {
        let mut inquest = Inquest::default();
        assert!(!inquest.is_due(Duration::from_secs(1000)), "nobody waits");
        inquest.gone(id("a"), Duration::from_secs(10));
        assert!(!inquest.is_due(Duration::from_secs(29)));
        assert!(inquest.is_due(Duration::from_secs(30)));
    }
}
