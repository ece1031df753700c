//! Faults: which requests they hit, what they do, and how often they did.
//!
//! A fault is data, the same in-process and as JSON. Faults are asked in the order they were injected; each that matches
//! fires, until one replaces the answer: behind that one nobody is asked, so put delays first. Small effects that combine
//! are preferred to large ones that know each other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod armed;

pub(super) use armed::{Armed, Asked, Faults, Fired};

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

/// What a fault does. In JSON, `kind` names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// Answers with this status. 500 and above with a JSON body come from the API itself, so they meet the idempotency
    /// key; all others come from in front of it.
    Status {
        /// Any from 200 to 999; others become 500.
        status: u16,
        /// The body; KOMOJU's error JSON when absent.
        #[serde(default)]
        body: Payload,
        /// The text of a `Retry-After` header, whatever it says.
        #[serde(default)]
        retry_after: Option<String>,
        /// More headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Whether the request takes effect.
        #[serde(default)]
        work: Work,
    },
    /// Resets the connection (RST) instead of answering.
    Reset {
        /// Whether the request takes effect.
        #[serde(default)]
        work: Work,
    },
    /// Closes the connection instead of answering.
    Close {
        /// Whether the request takes effect.
        #[serde(default)]
        work: Work,
    },
    /// Redirects.
    Redirect {
        /// 301, 302, 303, 307, 308.
        status: u16,
        /// Where to.
        to: Whither,
        /// Whether the request takes effect.
        #[serde(default)]
        work: Work,
    },
    /// 200 with another body. The request takes effect.
    Body {
        /// The body.
        body: Payload,
    },
    /// 200 with a streamed body of so many bytes: the beginning of a list, then white space.
    HugeBody {
        /// How many.
        bytes: u64,
    },
    /// 200 with a gzip body that inflates to at least so many bytes, and is less than a hundredth of that on the wire.
    GzipBomb {
        /// How many.
        bytes: u64,
    },
    /// Ends the body after so many bytes, against `Content-Length`.
    Cut {
        /// How many bytes are sent, at most all but one.
        after: usize,
        /// How the connection ends.
        #[serde(default)]
        ending: Ending,
    },
    /// Sends the body piece by piece.
    Drip {
        /// Milliseconds between pieces.
        every_ms: u64,
        /// Bytes a piece.
        #[serde(default = "one")]
        bytes: usize,
    },
    /// Adds a header of so many bytes to the answer.
    HugeHeader {
        /// How many.
        bytes: usize,
    },
    /// Sets the answer's `Date` header apart from the sandbox's clock, as an edge server with a wrong clock does.
    Date {
        /// By so many seconds; negative: behind.
        ahead_s: i64,
    },
    /// Waits before the request takes effect.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Waits before the request takes effect until this fault is removed.
    Hold,
    /// Sets fields of a list's envelope, as any JSON.
    Envelope {
        /// Which fields, and to what.
        fields: Map<String, Value>,
    },
    /// Answers one page's customers whatever page was asked for.
    SamePage {
        /// Which one.
        #[serde(default = "first")]
        page: u64,
        /// What `page` says.
        #[serde(default)]
        echo: Echo,
    },
    /// Only the first so many customers exist, as far as lists know.
    ShortList {
        /// How many.
        keep: usize,
    },
    /// No customers exist, as far as lists know.
    EmptyList,
    /// These customers are not in lists, though show still answers.
    Hide {
        /// Their ids.
        #[serde(default)]
        ids: Vec<String>,
        /// And every so many-th customer, counted by age; the same ones each time.
        #[serde(default)]
        every: Option<u32>,
    },
    /// The first customer of the page is on it a second time, at its end, with other content.
    Twice {
        /// The fields that differ.
        #[serde(default = "another_email")]
        change: Map<String, Value>,
    },
    /// Puts any value among the customers of a page.
    Splice {
        /// The value.
        customer: Value,
        /// At which position of the page; at its end when absent or beyond.
        #[serde(default)]
        at: Option<usize>,
    },
    /// Replaces a text wherever it stands in the answer, so that an answer can hold what no JSON value can.
    Rewrite {
        /// What is replaced, byte for byte as the answer spells it.
        find: String,
        /// What stands there instead.
        with: Payload,
    },
    /// After the page was served, customers change.
    Drift(Drift),
    /// After each page, some customers change at random places.
    RandomDrift {
        /// The same seed drifts in the same way.
        seed: u64,
        /// At most so many are deleted a page.
        #[serde(default)]
        delete: u64,
        /// At most so many are created a page.
        #[serde(default)]
        insert: u64,
        /// At most so many are updated a page.
        #[serde(default)]
        update: u64,
        /// At most so many are moved a page.
        #[serde(default)]
        reorder: u64,
    },
}

/// How many customers change after a page was served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drift {
    /// Deleted.
    pub delete: usize,
    /// Created.
    pub insert: usize,
    /// Given another email.
    pub update: usize,
    /// Moved: from pages already served to the end of the list, from pages still to come to its beginning.
    pub reorder: usize,
    /// On which pages.
    pub place: Region,
}

/// The pages of a list around the one just served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Those up to this one.
    #[default]
    Served,
    /// Those after it.
    Coming,
}

/// Whether a request takes effect although its answer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It does not.
    #[default]
    Skipped,
    /// It does.
    Done,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// In order (FIN).
    #[default]
    Close,
    /// At once (RST).
    Reset,
}

/// What `page` says when another page is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Echo {
    /// The page that was asked for.
    #[default]
    Asked,
    /// The page that is answered.
    Answered,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whither {
    /// To the same path, without naming a host.
    SameHost,
    /// To the same path under another name of this machine: `localhost` for an address, an address for `localhost`.
    OtherHost,
    /// To the same path with the scheme `http`.
    PlainHttp,
    /// To any URL.
    Url(String),
}

/// The body of a replaced answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// KOMOJU's error JSON that goes with the status.
    #[default]
    Error,
    /// KOMOJU's error JSON with this code.
    Code(String),
    /// A page such as firewalls send.
    Html,
    /// Nothing.
    Empty,
    /// Any JSON.
    Json(Value),
    /// Any text, said to be JSON.
    Text(String),
    /// Any bytes, said to be JSON.
    Bytes(Vec<u8>),
}

impl Effect {
    /// The name it has in JSON, by which firings are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Reset { .. } => "reset",
            Self::Close { .. } => "close",
            Self::Redirect { .. } => "redirect",
            Self::Body { .. } => "body",
            Self::HugeBody { .. } => "huge_body",
            Self::GzipBomb { .. } => "gzip_bomb",
            Self::Cut { .. } => "cut",
            Self::Drip { .. } => "drip",
            Self::HugeHeader { .. } => "huge_header",
            Self::Date { .. } => "date",
            Self::Delay { .. } => "delay",
            Self::Hold => "hold",
            Self::Envelope { .. } => "envelope",
            Self::SamePage { .. } => "same_page",
            Self::ShortList { .. } => "short_list",
            Self::EmptyList => "empty_list",
            Self::Hide { .. } => "hide",
            Self::Twice { .. } => "twice",
            Self::Splice { .. } => "splice",
            Self::Rewrite { .. } => "rewrite",
            Self::Drift(_) => "drift",
            Self::RandomDrift { .. } => "random_drift",
        }
    }

    /// An error status that answers before anything is done.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            body: Payload::Error,
            retry_after: None,
            headers: BTreeMap::new(),
            work: Work::Skipped,
        }
    }

    /// Whether it stands in for the answer, so that later faults are not asked.
    fn replaces_answer(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::Reset { .. }
                | Self::Close { .. }
                | Self::Redirect { .. }
                | Self::Body { .. }
                | Self::HugeBody { .. }
                | Self::GzipBomb { .. }
        )
    }

    /// Whether it only makes sense for the list of customers.
    fn shapes_lists(&self) -> bool {
        matches!(
            self,
            Self::Envelope { .. }
                | Self::SamePage { .. }
                | Self::ShortList { .. }
                | Self::EmptyList
                | Self::Hide { .. }
                | Self::Twice { .. }
                | Self::Splice { .. }
                | Self::Drift(_)
                | Self::RandomDrift { .. }
        )
    }
}

impl Drift {
    pub(super) fn is_nothing(&self) -> bool {
        self.delete + self.insert + self.update + self.reorder == 0
    }
}

/// The longest delay, so that a typing error does not hold a test for a century.
pub(super) fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms.min(24 * 60 * 60 * 1000))
}

fn one() -> usize {
    1
}

fn first() -> u64 {
    1
}

fn another_email() -> Map<String, Value> {
    Map::from_iter([("email".to_owned(), "twice@example.com".into())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[test]
    fn every_effect_survives_json_under_its_kind() {
        let text = include_str!("fault/every_effect.json");
        let effects: Vec<Value> = serde_json::from_str(text).unwrap();
        for written in &effects {
            let effect: Effect = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(written["kind"], effect.kind());
            let again = serde_json::to_value(&effect).unwrap();
            assert_eq!(serde_json::from_value::<Effect>(again).unwrap(), effect);
        }
        assert_eq!(effects.len(), 23, "an effect is missing from the file");
    }
}
