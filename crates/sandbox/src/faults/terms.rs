//! Owns the values inside an effect: bodies, redirects, how a connection ends, drift.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

impl Drift {
    pub(crate) fn is_nothing(&self) -> bool {
        self.delete + self.insert + self.update + self.reorder == 0
    }
}
