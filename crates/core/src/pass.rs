//! A pass: one reading of the customers list, from its first request to its report.

use std::fmt;

/// The number of a pass. Each pass gets the next number.
pub type PassId = i64;

/// What a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// The whole list. Only a sweep can find that a customer is gone.
    Sweep,
    /// The newest customers. Absence from a probe proves nothing.
    Probe,
}

impl PassKind {
    /// Returns the name that SQL, logs and messages use.
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
    /// Everything was read, and every result is recorded.
    Complete,
    /// Everything was read; deletions are held for an operator.
    Held,
    /// Everything was read, but some live customers were neither listed nor verified by single
    /// requests.
    Partial,
    /// Our own stop or a crash interrupted it.
    Interrupted,
    /// A request failed, or an answer was not usable; `error` gives the reason.
    Failed,
}

impl PassOutcome {
    /// Returns the name that SQL, logs and messages use.
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

/// The counts of a pass so far: the numbers of its row in `passes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages with a valid answer.
    pub pages: u64,
    /// Requests sent, including retries.
    pub requests: u64,
    /// Distinct customers listed.
    pub customers_seen: u64,
    /// Customers recorded as new.
    pub created: u64,
    /// Customers recorded as changed.
    pub updated: u64,
    /// Customers recorded as deleted.
    pub deleted: u64,
    /// Customers recorded as restored.
    pub restored: u64,
    /// Distinct unreadable customers.
    pub unreadable: u64,
    /// Live customers that were neither listed nor verified.
    pub unverified: u64,
}

impl Tally {
    /// Returns the number of recorded changes.
    pub fn changes(&self) -> u64 {
        self.created + self.updated + self.deleted + self.restored
    }

    /// Adds the changes of `recorded`.
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
    fn passes_and_their_outcomes_have_the_names_of_the_schema() {
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
