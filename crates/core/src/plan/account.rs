//! The account guard: does this key read the account that the mirror belongs to?
//!
//! A key decides which customers are seen, and says nothing else about itself. A swapped key empties
//! every list and turns every GET into `not_found`, which looks exactly like the deletion of every
//! customer. So a key that was never seen must know at least one of the mirror's customers before
//! anything that it shows is believed.

use std::fmt;

use super::absence::LookupAnswer;
use crate::change::Hash;

/// KNOWN_REQUESTED controls how many known customers are requested with a new key.
pub const KNOWN_REQUESTED: usize = 5;

/// What the database says about keys.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The fingerprint of the key that the database is bound to.
    pub bound: Option<&'a Hash>,
    /// The fingerprint of a key that knew none of the customers, while everything is stopped because of it.
    pub refused: Option<&'a Hash>,
    /// How many customers are live.
    pub live: u64,
}

/// What is done about a key before a pass reads anything with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountPlan {
    /// It is the bound key.
    Proceed,
    /// It is the bound key, and another one had stopped everything.
    Resume,
    /// No customer is known: any key is bound.
    TakeOver,
    /// It is another key: known customers are requested with it.
    RequestKnown,
    /// It is the key that knew none of the customers: an operator decides.
    Refuse,
}

impl AccountPlan {
    /// Compares the fingerprint of the key at hand with the database.
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

/// What the answers about known customers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMatch {
    /// The key reads the same account.
    Same,
    /// It knows none of the customers: everything stops until an operator accepts it.
    Other,
    /// Nothing is known yet: the customers are requested again later.
    Unknown,
}

impl KeyMatch {
    /// Compares the answers. No answers at all (no id can be requested) mean another account: the key cannot prove itself.
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
    fn empty_mirror_takes_any_key_and_a_filled_one_only_its_own() {
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
    fn one_known_customer_accepts_a_key_only_all_unknown_stop_it_and_anything_else_waits() {
        use LookupAnswer::{Exists, Gone, Unclear, Unreadable};
        assert_eq!(KeyMatch::new(&[Gone, Unclear, Exists]), KeyMatch::Same);
        assert_eq!(KeyMatch::new(&[Gone, Unreadable]), KeyMatch::Same);
        assert_eq!(KeyMatch::new(&[Gone, Gone]), KeyMatch::Other);
        assert_eq!(KeyMatch::new(&[Gone, Unclear, Gone]), KeyMatch::Unknown);
        assert_eq!(KeyMatch::new(&[]), KeyMatch::Other, "no customer can vouch for it");
    }
}
