//! Owns the fault: an effect, and the requests that it matches.

use serde::{Deserialize, Serialize};

use super::effect::Effect;

/// Something that goes wrong, for the requests it matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests; all when empty.
    #[serde(default)]
    pub on: Match,
    /// What happens to them.
    pub effect: Effect,
    /// So many matching requests are let through first.
    #[serde(default)]
    pub skip: u64,
    /// It fires so many times; without a number for ever.
    #[serde(default)]
    pub times: Option<u64>,
}

impl Fault {
    /// A fault that hits every request its effect can, for ever.
    pub fn new(effect: Effect) -> Self {
        Self { on: Match::default(), effect, skip: 0, times: None }
    }

    /// Only calls of this kind.
    pub fn call(mut self, call: Call) -> Self {
        self.on.call = Some(call);
        self
    }

    /// Only requests for this page.
    pub fn page(mut self, page: u64) -> Self {
        self.on.page = Some(page);
        self
    }

    /// Only so many times.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Only once.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Not the first so many.
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }
}

/// Names an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// What a request must be; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// `GET`, `POST`, … in either case.
    pub method: Option<String>,
    /// How the path below `/api/v1` begins, for example `/customers`.
    pub path: Option<String>,
    /// The kind of call.
    pub call: Option<Call>,
    /// The page asked for; a list without a page asks for 1.
    pub page: Option<u64>,
}

/// The calls of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
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
    use crate::faults::{Drift, Payload, Region, Work};

    #[test]
    fn faults_are_written_as_json_by_hand() {
        let fault: Fault = serde_json::from_value(json!({
            "on": {"call": "list", "page": 2},
            "effect": {"kind": "status", "status": 503, "body": "html", "retry_after": "120"},
            "times": 1,
        }))
        .unwrap();
        let Effect::Status { body, retry_after, work, .. } = &fault.effect else {
            panic!("{fault:?}");
        };
        assert_eq!((body, retry_after.as_deref(), *work), (&Payload::Html, Some("120"), Work::Skipped));

        let drift = json!({"effect": {"kind": "drift", "delete": 2, "place": "coming"}});
        let fault: Fault = serde_json::from_value(drift).unwrap();
        assert!(matches!(fault.effect, Effect::Drift(Drift { delete: 2, place: Region::Coming, .. })));

        for bad in [
            json!({"effect": {"kind": "sneeze"}}),
            json!({"effect": {"kind": "delay", "ms": 1, "mss": 2}}),
            json!({"effect": {"kind": "empty_list"}, "time": 1}),
        ] {
            assert!(serde_json::from_value::<Fault>(bad.clone()).is_err(), "{bad}");
        }
    }
}
