//! The account guard: does this key read the account that the mirror belongs to?
//!
//! A key decides which customers are visible, and nothing else identifies its account. A key of
//! another account empties every list and makes every GET answer `not_found`. That looks exactly
//! like the deletion of every customer. So a new key must show at least one of the mirror's
//! customers before its answers are used.

use std::fmt;

use super::absence::LookupAnswer;
use crate::change::Hash;

/// KNOWN_REQUESTED controls how many known customers are requested with a new key.
pub const KNOWN_REQUESTED: usize = 5;

/// The database's state about keys.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The fingerprint of the key that the database is bound to.
    pub bound: Option<&'a Hash>,
    /// The fingerprint of a key that showed none of the customers, while it stops everything.
    pub refused: Option<&'a Hash>,
    /// The number of live customers.
    pub live: u64,
}

/// What is done about a key before a pass reads anything with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountPlan {
    /// The key is the bound one.
    Proceed,
    /// The key is the bound one, after another key had stopped everything.
    Resume,
    /// The mirror has no customer, so any key is bound.
    TakeOver,
    /// The key is a new one, so known customers are requested with it.
    RequestKnown,
    /// The key showed none of the known customers. An operator must decide.
    Refuse,
}

impl AccountPlan {
    /// Compares the fingerprint of the current key with the database.
    pub fn new(binding: Binding<'_>, presented: &Hash) -> Self {
        match binding.bound {
            Some(bound) if bound == presented && binding.refused.is_some() => Self::Resume,
            Some(bound) if bound == presented => Self::Proceed,
            _ if binding.live == 0 => Self::TakeOver,
            _ if binding.refused == Some(presented) => Self::Refuse,
            _ => Self::RequestKnown,
        }
    }
}

impl fmt::Display for AccountPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proceed => "the key is the one that this database is bound to",
            Self::Resume => "the key that this database is bound to is back",
            Self::TakeOver => "no customer is known: the key is bound to this database",
            Self::RequestKnown => "the key is new: request customers that the mirror knows",
            Self::Refuse => "the key knows none of the mirror's customers: an operator decides",
        })
    }
}

/// The conclusion from the answers about known customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMatch {
    /// The key reads the same account.
    Same,
    /// The key shows none of the customers. Everything stops until an operator accepts the key.
    Other,
    /// Nothing is known yet. The customers are requested again later.
    Unknown,
}

impl KeyMatch {
    /// Evaluates the answers. If there are none, because no id can be requested, the key counts as
    /// one of another account: it cannot prove itself.
    pub fn new(answers: &[LookupAnswer]) -> Self {
        let exists =
            |answer: &LookupAnswer| matches!(answer, LookupAnswer::Exists | LookupAnswer::Unreadable);
        if answers.iter().any(exists) {
            Self::Same
        } else if answers.iter().all(|answer| *answer == LookupAnswer::Gone) {
            Self::Other
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_mirror_accepts_any_key_and_a_filled_one_only_its_own() {
        const A: Hash = [1; 32];
        const B: Hash = [2; 32];
        let cases = [
            (None, None, 0, AccountPlan::TakeOver),
            (Some(&B), None, 0, AccountPlan::TakeOver),
            (Some(&B), Some(&A), 0, AccountPlan::TakeOver),
            (Some(&A), None, 9, AccountPlan::Proceed),
            (Some(&A), None, 0, AccountPlan::Proceed),
            (Some(&A), Some(&B), 9, AccountPlan::Resume),
            (Some(&B), None, 9, AccountPlan::RequestKnown),
            (None, None, 9, AccountPlan::RequestKnown),
            (Some(&B), Some(&A), 9, AccountPlan::Refuse),
            (Some(&B), Some(&[3; 32]), 9, AccountPlan::RequestKnown),
        ];
        for (bound, refused, live, expected) in cases {
            assert_eq!(
                AccountPlan::new(Binding { bound, refused, live }, &A),
                expected,
                "{bound:?} {refused:?}"
            );
        }
    }

    #[test]
    fn key_is_accepted_by_one_known_customer_and_stopped_only_if_all_are_gone() {
        use LookupAnswer::{Exists, Gone, Unclear, Unreadable};
        assert_eq!(KeyMatch::new(&[Gone, Unclear, Exists]), KeyMatch::Same);
        assert_eq!(KeyMatch::new(&[Gone, Unreadable]), KeyMatch::Same);
        assert_eq!(KeyMatch::new(&[Gone, Gone]), KeyMatch::Other);
        assert_eq!(KeyMatch::new(&[Gone, Unclear, Gone]), KeyMatch::Unknown);
        assert_eq!(KeyMatch::new(&[]), KeyMatch::Other, "no customer can prove the account");
    }

    #[test]
    fn each_plan_has_a_sentence_of_its_own() {
        use AccountPlan::{Proceed, Refuse, RequestKnown, Resume, TakeOver};
        let sentences = [Proceed, Resume, TakeOver, RequestKnown, Refuse].map(|plan| plan.to_string());
        assert!(sentences.iter().all(|sentence| sentence.contains("key")), "{sentences:?}");
        let distinct: std::collections::BTreeSet<_> = sentences.iter().collect();
        assert_eq!(distinct.len(), sentences.len());
    }
}
