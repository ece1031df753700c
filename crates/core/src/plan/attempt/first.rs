//! The first step of an attempt, for a plan that is printed.

use super::{AttemptFacts, AttemptStep, next_step};
use crate::lag::Consistency;
use crate::open_intent::OpenIntent;
use crate::park_timer::Moment;

/// Returns the first step at `now` that the API or an operator would see. It assumes that the API's
/// clock shows the same time. A create without a key gets an empty one.
pub fn first_step(open: &OpenIntent, consistency: Consistency, now: Moment) -> AttemptStep {
    let mut open = open.clone();
    open.frozen.key.get_or_insert_default();
    let server_time = Some(now.wall);
    let mut facts = AttemptFacts { server_time, ..AttemptFacts::new(open, consistency, 0.5, now) };
    match next_step(&facts) {
        AttemptStep::FreezeFirstAttempt => {
            facts.is_dated = true;
            next_step(&facts)
        }
        step => step,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::intent::Intent;
    use crate::intent::lifecycle::{IntentState, Lifecycle, OutcomeStatus};
    use crate::open_intent::FrozenRequest;
    use crate::{CustomerId, time};

    fn open(intent: &str) -> OpenIntent {
        OpenIntent {
            position: 1,
            id: "i".into(),
            intent: Ok(Intent::parse(intent).unwrap()),
            life: Lifecycle { state: IntentState::Queued, outcome: OutcomeStatus::Known, attempts: 0 },
            customer: CustomerId::new("c").ok(),
            frozen: FrozenRequest::default(),
            park_timer: None,
            met_server_error: false,
            last_attempt_at: None,
        }
    }

    fn first(open: &OpenIntent) -> String {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let now = Moment { wall, boot: None, is_confirmed: true };
        first_step(open, Consistency::seconds(120), now).to_string()
    }

    #[test]
    fn first_step_sends_or_finds_out_an_earlier_outcome() {
        let create = r#"{"op": "create", "body": {"email": "a"}}"#;
        assert_eq!(first(&open(create)), "send under its key");
        assert_eq!(first(&open(r#"{"op": "delete", "customer_id": "c"}"#)), "send");
        let expecting = r#"{"op": "delete", "customer_id": "c", "expect": {"email": "a"}}"#;
        assert_eq!(first(&open(expecting)), "read customer c");
        let mut unclear = open(create);
        unclear.life.outcome = OutcomeStatus::Unknown;
        let first_at = time::written(Timestamp::from_second(1_800_000_000 - 100_000).unwrap());
        unclear.frozen = FrozenRequest {
            key: Some("k".into()),
            first_attempt_at: Some(first_at.clone()),
            first_server_at: Some(first_at),
            ..FrozenRequest::default()
        };
        assert!(first(&unclear).starts_with("look for its customer first"), "{}", first(&unclear));
    }
}
