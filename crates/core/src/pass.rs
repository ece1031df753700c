//! A pass: one reading of the customers list, from its first request to its report.

use std::fmt;

/// The number of a pass; rises by one with each.
pub type PassId = i64;

/// What a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// The whole list. Only a sweep can notice that a customer is gone.
    Sweep,
    /// The newest customers. Nothing is concluded from what it does not see.
    Probe,
}

impl PassKind {
    /// The word in SQL, logs and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Probe => "probe",
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    /// Everything was read and everything that was found is recorded.
    Complete,
    /// Everything was read; deletions wait for an operator.
    Held,
    /// Everything was read, and live customers were neither listed nor verified by a request of their own.
    Partial,
    /// Stopped on the way, by us or by a crash.
    Interrupted,
    /// Something could not be read or believed; `error` says what.
    Failed,
}

impl PassOutcome {
    /// The word in SQL, logs and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Held => "held",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for PassKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for PassOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a pass has done so far: the numbers of its row in `passes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages answered validly.
    pub pages: u64,
    /// Requests sent, tries included.
    pub requests: u64,
    /// Different customers listed.
    pub customers_seen: u64,
    /// Customers recorded as new.
    pub created: u64,
    /// Customers recorded as changed.
    pub updated: u64,
    /// Customers recorded as gone.
    pub deleted: u64,
    /// Customers recorded as back.
    pub restored: u64,
    /// Different customers that could not be read.
    pub unreadable: u64,
    /// Live customers that were neither listed nor verified.
    pub unverified: u64,
}

impl Tally {
    /// How many changes the pass recorded.
    pub fn changes(&self) -> u64 {
        self.created + self.updated + self.deleted + self.restored
    }

    /// Adds the changes that `recorded` counts.
    pub fn add_changes(&mut self, recorded: &Self) {
        self.created += recorded.created;
        self.updated += recorded.updated;
        self.deleted += recorded.deleted;
        self.restored += recorded.restored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_and_their_outcomes_have_the_words_of_the_schema() {
        assert_eq!([PassKind::Sweep, PassKind::Probe].map(|kind| kind.to_string()), ["sweep", "probe"]);
        let outcomes = [
            PassOutcome::Complete,
            PassOutcome::Held,
            PassOutcome::Partial,
            PassOutcome::Interrupted,
            PassOutcome::Failed,
        ];
        let words = outcomes.map(|outcome| outcome.to_string());
        assert_eq!(words, ["complete", "held", "partial", "interrupted", "failed"]);
    }

    #[test]
    fn changes_are_counted_by_kind_and_all_together() {
        let recorded = Tally { created: 1, updated: 20, deleted: 300, restored: 4000, ..Tally::default() };
        assert_eq!(recorded.changes(), 4321);
        let mut tally =
            Tally { pages: 7, created: 5, updated: 5, deleted: 5, restored: 5, ..Tally::default() };
        tally.add_changes(&recorded);
        let sum =
            Tally { pages: 7, created: 6, updated: 25, deleted: 305, restored: 4005, ..Tally::default() };
        assert_eq!(tally, sum);
    }
}
