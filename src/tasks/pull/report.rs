//! The report of a pass.

use super::Failure;
use komoju_core::{PassId, PassKind, PassOutcome, Tally};

/// The report of a pass.
#[derive(Debug)]
pub struct Report {
    /// The number of the pass. `None` for a dry run, and for a pass that the account guard
    /// prevented.
    pub pass: Option<PassId>,
    /// Whether it was a sweep or a probe.
    pub kind: PassKind,
    /// Its outcome.
    pub outcome: PassOutcome,
    /// What it read and recorded.
    pub tally: Tally,
    /// The number of deletions that wait for an operator now, of all passes.
    pub held: u64,
    /// The number of unreadable customers that are new since the complete sweep before the last
    /// one.
    pub new_unreadable: u64,
    /// Whether the second page repeated the first although the list reports more customers: the API
    /// may ignore `page`.
    pub ignores_page: bool,
    /// Why it failed or was interrupted, if it did.
    pub failure: Option<Failure>,
}

impl Report {
    /// Returns the report as one sentence.
    pub fn sentence(&self) -> String {
        let Self { kind, outcome, tally, .. } = self;
        let number = self.pass.map(|pass| format!(" {pass}")).unwrap_or_default();
        if let Some(failure) = &self.failure {
            return format!("{kind}{number} {outcome}: {failure}");
        }
        let held = match self.held {
            0 => String::new(),
            1 => "; 1 deletion waits for an operator: see `komoju-sync deletions list`".to_owned(),
            n => format!("; {n} deletions wait for an operator: see `komoju-sync deletions list`"),
        };
        let count = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let unreadable = match tally.unreadable {
            0 => String::new(),
            1 => "; 1 customer is unreadable: see `komoju-sync status`".to_owned(),
            n => format!("; {n} customers are unreadable: see `komoju-sync status`"),
        };
        let unverified = match tally.unverified {
            0 if *outcome == PassOutcome::Partial => {
                "; the list has far more pages than it promised, and was not read to its end: the next sweep reads it again".to_owned()
            }
            0 => String::new(),
            1 => "; 1 customer was neither listed nor verified: the next sweep requests it".to_owned(),
            n => format!("; {n} customers were neither listed nor verified: the next sweeps request them"),
        };
        let repeated = match self.ignores_page {
            true => "; page 2 repeated page 1: the API may ignore `page`, and there may be more customers",
            false => "",
        };
        format!(
            "{kind}{number} {outcome}: {} on {} in {}; {} created, {} updated, {} deleted, {} restored\
             {held}{unreadable}{unverified}{repeated}",
            count(tally.customers_seen, "customer"),
            count(tally.pages, "page"),
            count(tally.requests, "request"),
            tally.created,
            tally.updated,
            tally.deleted,
            tally.restored
        )
    }
}
