//! The fault: an effect, and the requests that it matches.

use serde::{Deserialize, Serialize};

use super::effect::FaultEffect;

/// An effect on the requests that it matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The requests; all if it is empty.
    #[serde(default)]
    pub on: Match,
    /// The effect.
    pub effect: FaultEffect,
    /// How many matching requests are skipped first.
    #[serde(default)]
    pub skip: u64,
    /// How often it fires; no limit without a number.
    #[serde(default)]
    pub times: Option<u64>,
}

impl Fault {
    /// Returns a fault for every request to which its effect applies, without a limit.
    pub fn new(effect: FaultEffect) -> Self {
        Self { on: Match::default(), effect, skip: 0, times: None }
    }

    /// Limits the fault to one kind of call.
    pub fn call(mut self, call: FaultedCall) -> Self {
        self.on.call = Some(call);
        self
    }

    /// Limits the fault to requests for one page.
    pub fn page(mut self, page: u64) -> Self {
        self.on.page = Some(page);
        self
    }

    /// Limits how often the fault fires.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Limits the fault to one request.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Skips the first matching requests.
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }
}

/// The id of an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// The properties of matching requests. An absent property matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The method, in upper or lower case.
    pub method: Option<String>,
    /// The start of the path below `/api/v1`, for example `/customers`.
    pub path: Option<String>,
    /// The kind of call.
    pub call: Option<FaultedCall>,
    /// The requested page; 1 for a list without a page.
    pub page: Option<u64>,
}

/// The calls of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultedCall {
    /// `GET /customers`
    List,
    /// `GET /customers/{id}`
    Show,
    /// `POST /customers`
    Create,
    /// `PATCH /customers/{id}`
    Update,
    /// `DELETE /customers/{id}`
    Delete,
    /// `GET /events`
    Events,
    /// `GET /events/{id}`
    Event,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::faults::{Drift, FaultedWork, Payload, Region};

    #[test]
    fn fault_is_read_from_short_json() {
        let fault: Fault = serde_json::from_value(json!({
            "on": {"call": "list", "page": 2},
            "effect": {"kind": "status", "status": 503, "body": "html", "retry_after": "120"},
            "times": 1,
        }))
        .unwrap();
        let FaultEffect::Status { body, retry_after, work, .. } = &fault.effect else {
            panic!("{fault:?}");
        };
        assert_eq!(
            (body, retry_after.as_deref(), *work),
            (&Payload::Html, Some("120"), FaultedWork::Skipped)
        );

        let drift = json!({"effect": {"kind": "drift", "delete": 2, "place": "coming"}});
        let fault: Fault = serde_json::from_value(drift).unwrap();
        assert!(matches!(fault.effect, FaultEffect::Drift(Drift { delete: 2, place: Region::Coming, .. })));

        for bad in [
            json!({"effect": {"kind": "sneeze"}}),
            json!({"effect": {"kind": "delay", "ms": 1, "mss": 2}}),
            json!({"effect": {"kind": "empty_list"}, "time": 1}),
        ] {
            assert!(serde_json::from_value::<Fault>(bad.clone()).is_err(), "{bad}");
        }
    }
}
