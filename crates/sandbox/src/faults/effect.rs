//! The effects that a fault can have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::terms::{Drift, Echo, Ending, FaultedWork, Payload, RedirectTarget};

/// The effect of a fault. In JSON, `kind` is its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultEffect {
    /// Answers with this status. With 500 and above and a JSON body, the answer is from the API
    /// itself, so its idempotency store sees it. Any other answer is from a server in front.
    Status {
        /// From 200 to 999; any other number is 500.
        status: u16,
        /// The body; KOMOJU's error JSON when absent.
        #[serde(default)]
        body: Payload,
        /// Any text of a `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
        /// More headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Whether the request takes effect.
        #[serde(default)]
        work: FaultedWork,
    },
    /// Resets the connection (RST) instead of answering.
    Reset {
        /// Whether the request takes effect.
        #[serde(default)]
        work: FaultedWork,
    },
    /// Closes the connection instead of answering.
    Close {
        /// Whether the request takes effect.
        #[serde(default)]
        work: FaultedWork,
    },
    /// Redirects.
    Redirect {
        /// 301, 302, 303, 307, 308.
        status: u16,
        /// The target.
        to: RedirectTarget,
        /// Whether the request takes effect.
        #[serde(default)]
        work: FaultedWork,
    },
    /// Answers 200 with another body. The request takes effect.
    Body {
        /// The body.
        body: Payload,
    },
    /// Answers 200 with a long streamed body: the start of a list, then white space.
    HugeBody {
        /// The length.
        bytes: u64,
    },
    /// Answers 200 with a gzip body that is at least a hundred times as long after decoding.
    GzipBomb {
        /// The least length after decoding.
        bytes: u64,
    },
    /// Ends the body before the length in `Content-Length`.
    Cut {
        /// How many bytes are sent; at most all but one.
        after: usize,
        /// How the connection ends.
        #[serde(default)]
        ending: Ending,
    },
    /// Sends the body in pieces.
    Drip {
        /// Milliseconds between two pieces.
        every_ms: u64,
        /// The bytes of each piece.
        #[serde(default = "one")]
        bytes: usize,
    },
    /// Adds a long header to the answer.
    HugeHeader {
        /// The length of its value.
        bytes: usize,
    },
    /// Makes the `Date` header differ from the sandbox's clock, as of an edge server with a wrong
    /// clock.
    Date {
        /// The difference in seconds; negative: behind.
        ahead_s: i64,
    },
    /// Waits before the request takes effect.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Waits before the request takes effect, until this fault is removed.
    Hold,
    /// Sets fields of a list's envelope to any JSON.
    Envelope {
        /// The fields and their values.
        fields: Map<String, Value>,
    },
    /// Answers each page with the customers of one page.
    SamePage {
        /// That page.
        #[serde(default = "first")]
        page: u64,
        /// The value of `page` in the envelope.
        #[serde(default)]
        echo: Echo,
    },
    /// Lists only the first customers.
    ShortList {
        /// How many.
        keep: usize,
    },
    /// Lists no customers.
    EmptyList,
    /// Leaves customers out of lists. Show still answers them.
    Hide {
        /// Their ids.
        #[serde(default)]
        ids: Vec<String>,
        /// Also every n-th customer by age, the same ones each time.
        #[serde(default)]
        every: Option<u32>,
    },
    /// Repeats the first customer of the page at its end, with other content.
    Twice {
        /// The fields that differ.
        #[serde(default = "another_email")]
        change: Map<String, Value>,
    },
    /// Inserts any value between the customers of a page.
    Splice {
        /// The value.
        customer: Value,
        /// Its position; the end of the page if it is absent or too large.
        #[serde(default)]
        at: Option<usize>,
    },
    /// Replaces a text everywhere in the answer, also by bytes that no JSON value contains.
    Rewrite {
        /// The text, byte for byte.
        find: String,
        /// Its replacement.
        with: Payload,
    },
    /// Changes customers after the page was served.
    Drift(Drift),
    /// Changes customers at random places after each page.
    RandomDrift {
        /// The seed. The same seed makes the same changes.
        seed: u64,
        /// How many customers are deleted after a page at most.
        #[serde(default)]
        delete: u64,
        /// How many customers are created after a page at most.
        #[serde(default)]
        insert: u64,
        /// How many customers are updated after a page at most.
        #[serde(default)]
        update: u64,
        /// How many customers are moved after a page at most.
        #[serde(default)]
        reorder: u64,
    },
}

impl FaultEffect {
    /// Returns the name in JSON, by which firings are counted.
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

    /// Returns an error status whose request takes no effect.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            body: Payload::Error,
            retry_after: None,
            headers: BTreeMap::new(),
            work: FaultedWork::Skipped,
        }
    }

    /// Whether it replaces the answer, so that later faults do not fire.
    pub(crate) fn replaces_answer(&self) -> bool {
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

    /// Whether it applies only to the list of customers.
    pub(crate) fn shapes_lists(&self) -> bool {
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

/// Returns a delay of at most a day, so that a typing error does not block a test without end.
pub(crate) fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms.min(24 * 60 * 60 * 1000))
}

/// Returns the default size of the pieces of a drip.
fn one() -> usize {
    1
}

/// Returns the default page.
fn first() -> u64 {
    1
}

/// Returns the default change of a repeated customer.
fn another_email() -> Map<String, Value> {
    Map::from_iter([("email".to_owned(), "twice@example.com".into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_effect_reads_back_from_json_by_its_kind() {
        let text = include_str!("every_effect.json");
        let effects: Vec<Value> = serde_json::from_str(text).unwrap();
        for written in &effects {
            let effect: FaultEffect = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(written["kind"], effect.kind());
            let again = serde_json::to_value(&effect).unwrap();
            assert_eq!(serde_json::from_value::<FaultEffect>(again).unwrap(), effect);
        }
        assert_eq!(effects.len(), 23, "an effect is missing from the file");
    }
}
