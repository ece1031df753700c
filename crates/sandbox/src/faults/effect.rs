//! Owns the effects that a fault can have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::terms::{Drift, Echo, Ending, Payload, Whither, Work};

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

    /// Whether it only makes sense for the list of customers.
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

/// The longest delay, so that a typing error does not hold a test for a century.
pub(crate) fn milliseconds(ms: u64) -> Duration {
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
    use super::*;

    #[test]
    fn every_effect_survives_json_under_its_kind() {
        let text = include_str!("every_effect.json");
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
