//! Evidence of absence.
//!
//! A list can leave customers out for many reasons, and only one of them is that they are gone. So a live customer that no round of a
//! sweep has listed is a *suspect*: it is requested by itself. It is recorded as deleted only when that answer says that it is gone
//! **and**, after it and within a minute, a customer that the sweep did list answers (the *canary*: it shows that the API tells the
//! truth about this account just now).
//!
//! ```text
//!   suspects ─▶ up to the limit ────────────────▶ each is requested
//!            └▶ more ─▶ a sample ─▶ all gone ───▶ all are held for an operator
//!                                └▶ one alive ──▶ the list is imprecise: as many as the budget allows are requested
//! ```
//!
//! Imprecision must not switch the guard off: while suspects were above the limit within a day, the deletions of that day count
//! together.

use std::time::Duration;

use jiff::SignedDuration;

use crate::CustomerId;

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

/// For how long suspects above the limit make the deletions of several sweeps count together.
pub const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// How many single requests a sweep may make at least.
const LEAST_BUDGET: u64 = 100;

/// How many single requests a sweep may make that has read so many pages.
pub fn budget(pages: u64) -> u64 {
    pages.max(LEAST_BUDGET)
}

/// How many deletions a sweep may record by itself: all that are proven, unless the list was seen to be imprecise within
/// [`COUNTED_FOR`]; `recorded` were recorded in that time.
pub fn room(limit: u64, is_imprecise: bool, recorded: u64) -> u64 {
    if is_imprecise { limit.saturating_sub(recorded) } else { u64::MAX }
}

/// What is done about the suspects of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// There are none.
    Nothing,
    /// Each is requested.
    AskEach,
    /// They are more than the limit: some are requested.
    AskSample,
}

/// What a sweep may do about deletions by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Licence {
    /// Record those that are proven.
    Record,
    /// Hold them all: the database was restored, and an operator has yet to look at what the list lacks.
    Hold,
}

/// Chooses the course.
pub fn course(suspects: u64, limit: u64) -> Course {
    match suspects {
        0 => Course::Nothing,
        n if n <= limit => Course::AskEach,
        _ => Course::AskSample,
    }
}

/// What a sample of too many suspects says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Those that answered clearly are gone: perhaps all are. All are held.
    Gone,
    /// One is alive: the list leaves out customers that exist.
    Imprecise,
    /// None answered clearly.
    Unknown,
}

/// Judges a sample by how many of it were alive and gone.
pub fn sampled(alive: usize, gone: usize) -> Sampled {
    match (alive, gone) {
        (0, 0) => Sampled::Unknown,
        (0, _) => Sampled::Gone,
        _ => Sampled::Imprecise,
    }
}

/// What one question about a customer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers.
    Alive,
    /// It says that it is gone.
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
    /// Notes a suspect's 404; `asked_at` is a steady clock's time from before the question.
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
            [0, 1, 10, 11].map(|n| course(n, 10)),
            [Course::Nothing, Course::AskEach, Course::AskEach, Course::AskSample]
        );
        assert_eq!(course(1, 0), Course::AskSample);
    }

    #[test]
    fn one_of_a_sample_that_is_alive_shows_an_imprecise_list() {
        let sampled = [(0, 0), (0, 1), (0, 20), (1, 19), (20, 0)].map(|(alive, gone)| sampled(alive, gone));
        use Sampled::{Gone, Imprecise, Unknown};
        assert_eq!(sampled, [Unknown, Gone, Gone, Imprecise, Imprecise]);
    }

    #[test]
    fn deletions_of_a_day_count_together_while_the_list_is_imprecise() {
        assert_eq!(room(10, false, 500), u64::MAX);
        assert_eq!([0, 4, 10, 11].map(|recorded| room(10, true, recorded)), [10, 6, 0, 0]);
    }

    #[test]
    fn single_requests_are_as_many_as_pages_and_at_least_a_hundred() {
        assert_eq!([0, 99, 100, 5000].map(budget), [100, 100, 100, 5000]);
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
