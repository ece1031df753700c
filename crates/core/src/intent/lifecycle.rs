//! The states of an intent, and one function for each legal transition.
//!
//! ```text
//!              claim              take effect
//!   queued ──────────▶ sending ──────────────▶ done ◀─┐
//!     │ ▲   ┌────────── │  │ └──▶ rejected ──┐        │ take effect (found by reconciliation or read-back)
//!     │ │   │ claim     │  └──────────────┐  │ retry  │
//!     │ │   └─ waiting ◀┘ wait, interrupt │  └▶ queued│
//!     │ │        │  └────────────────────────────────┘
//!     │ └──────┐ │ park                   │ park
//!     │ park   │ ▼                        ▼
//!     └──────▶ parked ──▶ cancelled    (retry: to queued, or to waiting with its key where a byte may have left)
//! ```

use std::fmt;

/// The state of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntentState {
    /// Accepted; no byte of it was sent.
    Queued,
    /// An attempt is in progress. This state is committed before the first byte is sent.
    Sending,
    /// An attempt failed temporarily, or its outcome is unknown. Another attempt follows.
    Waiting,
    /// The intent took effect, or its effect was already there.
    Done,
    /// The API refused the intent permanently.
    Rejected,
    /// An operator must decide.
    Parked,
    /// An operator cancelled the intent.
    Cancelled,
}

impl IntentState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Sending,
        Self::Waiting,
        Self::Done,
        Self::Rejected,
        Self::Parked,
        Self::Cancelled,
    ];

    /// Returns the name that SQL, receipts and messages use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Parked => "parked",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses the name that [`Self::word`] returns.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether the intent is finished unless an operator retries it. Its token is no longer needed.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Rejected | Self::Cancelled)
    }

    /// Whether the intent blocks later intents of the same customer.
    pub fn blocks_followers(self) -> bool {
        matches!(self, Self::Queued | Self::Sending | Self::Waiting | Self::Parked)
    }
}

impl fmt::Display for IntentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether the outcome of every attempt is known. While one is unknown, a create keeps its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeStatus {
    /// Every outcome is known; no attempt is in progress.
    Known,
    /// An attempt may have taken effect.
    Unknown,
}

/// The body that an operator retries with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryBody {
    /// The same body. A key that was used is kept.
    Same,
    /// A new body, and so a new key. The operator has checked the result of the earlier attempts.
    Corrected,
}

/// The state of an intent, with the facts that its transitions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// The state.
    pub state: IntentState,
    /// Whether the outcome of an attempt is unknown.
    pub outcome: OutcomeStatus,
    /// The number of attempts.
    pub attempts: u32,
}

/// A transition that is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an intent that is {from} cannot {what}")]
pub struct IllegalTransition {
    /// The state before it.
    pub from: IntentState,
    /// The attempted transition, as a predicate.
    pub what: &'static str,
}

impl Lifecycle {
    /// An intent that was just accepted.
    pub fn accepted() -> Self {
        Self { state: IntentState::Queued, outcome: OutcomeStatus::Known, attempts: 0 }
    }

    /// Starts an attempt. Commit this state before the first byte is sent.
    ///
    /// # Errors
    /// The intent is neither queued nor waiting.
    pub fn claim(self) -> Result<Self, IllegalTransition> {
        let next =
            self.from(&[IntentState::Queued, IntentState::Waiting], IntentState::Sending, "be sent")?;
        Ok(Self { attempts: self.attempts.saturating_add(1), ..next })
    }

    /// Records that the intent took effect, by the answer, by reconciliation or by reading back.
    ///
    /// # Errors
    /// The intent is neither sending nor waiting.
    pub fn take_effect(self) -> Result<Self, IllegalTransition> {
        let next =
            self.from(&[IntentState::Sending, IntentState::Waiting], IntentState::Done, "take effect")?;
        Ok(Self { outcome: OutcomeStatus::Known, ..next })
    }

    /// Records that the API refused the intent permanently.
    ///
    /// # Errors
    /// The intent is not sending.
    pub fn reject(self) -> Result<Self, IllegalTransition> {
        let next = self.from(&[IntentState::Sending], IntentState::Rejected, "be rejected")?;
        Ok(Self { outcome: OutcomeStatus::Known, ..next })
    }

    /// Records that the attempt failed temporarily.
    ///
    /// # Errors
    /// The intent is not sending.
    pub fn wait(self, outcome: OutcomeStatus) -> Result<Self, IllegalTransition> {
        let next = self.from(&[IntentState::Sending], IntentState::Waiting, "wait for another attempt")?;
        // An unknown outcome stays unknown until a later step finds it out.
        let outcome = if self.outcome == OutcomeStatus::Unknown { OutcomeStatus::Unknown } else { outcome };
        Ok(Self { outcome, ..next })
    }

    /// Records that our own stop or crash interrupted the attempt. Its outcome is unknown.
    ///
    /// # Errors
    /// The intent is not sending.
    pub fn interrupt(self) -> Result<Self, IllegalTransition> {
        self.wait(OutcomeStatus::Unknown)
    }

    /// Records that reconciliation found no effect of any attempt. The outcome is known again.
    ///
    /// # Errors
    /// The intent is not waiting.
    pub fn confirm_absent(self) -> Result<Self, IllegalTransition> {
        let next = self.from(&[IntentState::Waiting], IntentState::Waiting, "be found absent")?;
        Ok(Self { outcome: OutcomeStatus::Known, ..next })
    }

    /// Parks the intent for an operator's decision.
    ///
    /// # Errors
    /// The intent is settled or already parked.
    pub fn park(self) -> Result<Self, IllegalTransition> {
        self.from(
            &[IntentState::Queued, IntentState::Sending, IntentState::Waiting],
            IntentState::Parked,
            "be parked",
        )
    }

    /// Cancels the intent.
    ///
    /// # Errors
    /// The intent is neither queued nor parked.
    pub fn cancel(self) -> Result<Self, IllegalTransition> {
        self.from(&[IntentState::Queued, IntentState::Parked], IntentState::Cancelled, "be cancelled")
    }

    /// Retries the intent at an operator's command.
    ///
    /// # Errors
    /// The intent is neither rejected nor parked.
    pub fn retry(self, with: RetryBody) -> Result<Self, IllegalTransition> {
        match (self.state, self.outcome, with) {
            (IntentState::Parked, OutcomeStatus::Unknown, RetryBody::Same) => {
                Ok(Self { state: IntentState::Waiting, ..self })
            }
            _ => {
                let next = self.from(
                    &[IntentState::Rejected, IntentState::Parked],
                    IntentState::Queued,
                    "be retried",
                )?;
                Ok(Self { outcome: OutcomeStatus::Known, ..next })
            }
        }
    }

    fn from(
        self,
        states: &[IntentState],
        to: IntentState,
        what: &'static str,
    ) -> Result<Self, IllegalTransition> {
        match states.contains(&self.state) {
            true => Ok(Self { state: to, ..self }),
            false => Err(IllegalTransition { from: self.state, what }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Claim,
        TakeEffect,
        Reject,
        Wait(OutcomeStatus),
        Interrupt,
        ConfirmAbsent,
        Park,
        Cancel,
        Retry(RetryBody),
    }

    const STEPS: [Step; 11] = [
        Step::Claim,
        Step::TakeEffect,
        Step::Reject,
        Step::Wait(OutcomeStatus::Known),
        Step::Wait(OutcomeStatus::Unknown),
        Step::Interrupt,
        Step::ConfirmAbsent,
        Step::Park,
        Step::Cancel,
        Step::Retry(RetryBody::Same),
        Step::Retry(RetryBody::Corrected),
    ];

    fn take(life: Lifecycle, step: Step) -> Result<Lifecycle, IllegalTransition> {
        match step {
            Step::Claim => life.claim(),
            Step::TakeEffect => life.take_effect(),
            Step::Reject => life.reject(),
            Step::Wait(outcome) => life.wait(outcome),
            Step::Interrupt => life.interrupt(),
            Step::ConfirmAbsent => life.confirm_absent(),
            Step::Park => life.park(),
            Step::Cancel => life.cancel(),
            Step::Retry(with) => life.retry(with),
        }
    }

    /// The table of the contract: the legal pairs of states.
    fn is_in_the_contract(from: IntentState, to: IntentState) -> bool {
        use IntentState::{Cancelled, Done, Parked, Queued, Rejected, Sending, Waiting};
        match from {
            Queued => matches!(to, Sending | Parked | Cancelled),
            Sending => matches!(to, Waiting | Done | Rejected | Parked),
            Waiting => matches!(to, Sending | Done | Parked | Waiting),
            Rejected => to == Queued,
            Parked => matches!(to, Queued | Waiting | Cancelled),
            Done | Cancelled => false,
        }
    }

    #[test]
    fn transitions_are_those_of_the_contract() {
        let mut made = std::collections::HashSet::new();
        for state in IntentState::ALL {
            for outcome in [OutcomeStatus::Known, OutcomeStatus::Unknown] {
                for step in STEPS {
                    let life = Lifecycle { state, outcome, attempts: 1 };
                    if let Ok(next) = take(life, step) {
                        assert!(
                            is_in_the_contract(state, next.state),
                            "{step:?} from {state} to {}",
                            next.state
                        );
                        made.insert((state, next.state));
                    }
                }
            }
        }
        for from in IntentState::ALL {
            for to in IntentState::ALL {
                assert_eq!(made.contains(&(from, to)), is_in_the_contract(from, to), "{from} to {to}");
            }
        }
    }

    proptest! {
        #[test]
        fn unknown_outcome_ends_only_when_it_is_found_out(
            steps in prop::collection::vec(prop::sample::select(STEPS.to_vec()), 0..40)
        ) {
            let mut life = Lifecycle::accepted();
            for step in steps {
                let Ok(next) = take(life, step) else { continue };
                let clears = matches!(
                    step,
                    Step::TakeEffect | Step::Reject | Step::ConfirmAbsent | Step::Retry(RetryBody::Corrected)
                );
                if life.outcome == OutcomeStatus::Unknown && !clears {
                    prop_assert_eq!(next.outcome, OutcomeStatus::Unknown, "{:?}", step);
                }
                // A queued intent has no attempt that may have taken effect.
                if next.state == IntentState::Queued {
                    prop_assert_eq!(next.outcome, OutcomeStatus::Known);
                }
                if next.state.is_settled() && next.state != IntentState::Cancelled {
                    prop_assert_eq!(next.outcome, OutcomeStatus::Known);
                }
                prop_assert_eq!(next.attempts, life.attempts + u32::from(matches!(step, Step::Claim)));
                life = next;
            }
        }
    }

    #[test]
    fn wait_keeps_an_unknown_outcome_until_absence_is_confirmed() {
        let waits = |outcome| Lifecycle::accepted().claim().unwrap().wait(outcome).unwrap();
        assert_eq!(waits(OutcomeStatus::Known).outcome, OutcomeStatus::Known);
        assert_eq!(waits(OutcomeStatus::Unknown).outcome, OutcomeStatus::Unknown);
        assert_eq!(
            Lifecycle::accepted().claim().unwrap().interrupt().unwrap().outcome,
            OutcomeStatus::Unknown
        );
        let confirm_absent = waits(OutcomeStatus::Unknown).confirm_absent().unwrap();
        assert_eq!(
            (confirm_absent.state, confirm_absent.outcome),
            (IntentState::Waiting, OutcomeStatus::Known)
        );
    }

    #[test]
    fn state_either_blocks_followers_or_is_settled() {
        for state in IntentState::ALL {
            let is_open = matches!(
                state,
                IntentState::Queued | IntentState::Sending | IntentState::Waiting | IntentState::Parked
            );
            assert_eq!((state.blocks_followers(), state.is_settled()), (is_open, !is_open), "{state}");
        }
    }

    #[test]
    fn state_names_are_parsed_back() {
        for state in IntentState::ALL {
            assert_eq!(IntentState::from_word(&state.to_string()), Some(state));
        }
        assert_eq!(IntentState::from_word("lost"), None);
    }
}
