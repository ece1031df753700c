//! How a pass ended.

use super::Failure;
use komoju_core::{PassId, PassKind, PassOutcome, Tally};

/// How a pass ended.
#[derive(Debug)]
pub struct Report {
    /// Its number; none where it ended before it began.
    pub pass: Option<PassId>,
    /// What it read.
    pub kind: PassKind,
    /// How it ended.
    pub outcome: PassOutcome,
    /// What it did.
    pub tally: Tally,
    /// Deletions that wait for an operator now, whichever pass held them.
    pub held: u64,
    /// Unreadable customers that are new since the complete sweep before the last one.
    pub new_unreadable: u64,
    /// Whether the second page repeated the first though the list counts more customers: the API may ignore `page`.
    pub ignores_page: bool,
    /// Why it failed or was interrupted.
    pub failure: Option<Failure>,
}

impl Report {
    /// The report as one sentence.
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
