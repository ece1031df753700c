//! The account guard: does this key read the account that the mirror belongs to?
//!
//! Keys decide which customers are seen, and say nothing else about themselves. A swapped key empties every list and turns every
//! GET into `not_found`, which looks exactly like the deletion of everybody. So a key that was never seen has to know at least
//! one of the mirror's customers before anything it says is believed.

use super::evidence::Answer;

/// How many known customers a new key is asked about.
pub const KNOWN_ASKED: usize = 5;

/// What the database says about a key before anything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the key that this database is bound to.
    Bound,
    /// Nobody is known yet: any key will do, and binds.
    Free,
    /// Another key: known customers are asked about.
    Unknown,
}

/// Compares fingerprints; `bound` is the database's own, if it has one, and `live` how many customers are known.
pub fn standing<T: PartialEq>(bound: Option<&T>, presented: &T, live: u64) -> Standing {
    match bound {
        Some(bound) if bound == presented => Standing::Bound,
        _ if live == 0 => Standing::Free,
        _ => Standing::Unknown,
    }
}

/// What the answers about known customers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key reads the same account.
    Accept,
    /// It knows none of them: everything stops until a person says that this is right.
    Stop,
    /// Nothing can be said yet.
    AskLater,
}

/// Judges them; `None` is a question that brought no clear answer.
pub fn verdict(answers: &[Option<Answer>]) -> Verdict {
    if answers.contains(&Some(Answer::Alive)) {
        Verdict::Accept
    } else if answers.iter().all(|answer| *answer == Some(Answer::Gone)) {
        // Also where nobody could be asked (ids that cannot travel): the key cannot prove itself, so a person decides.
        Verdict::Stop
    } else {
        Verdict::AskLater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_mirror_takes_any_key_and_a_full_one_only_its_own() {
        assert_eq!(standing(None, &1, 0), Standing::Free);
        assert_eq!(standing(Some(&1), &2, 0), Standing::Free);
        assert_eq!(standing(Some(&1), &1, 9), Standing::Bound);
        assert_eq!(standing(Some(&1), &2, 9), Standing::Unknown);
        assert_eq!(standing(None, &2, 9), Standing::Unknown);
    }

    #[test]
    fn one_known_customer_accepts_only_all_unknown_stop_and_anything_else_waits() {
        let (alive, gone) = (Some(Answer::Alive), Some(Answer::Gone));
        assert_eq!(verdict(&[gone, None, alive]), Verdict::Accept);
        assert_eq!(verdict(&[gone, gone]), Verdict::Stop);
        assert_eq!(verdict(&[gone, None, gone]), Verdict::AskLater);
        assert_eq!(verdict(&[]), Verdict::Stop, "nobody can vouch for it");
    }
}
