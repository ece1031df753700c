//! The parameters of a fault's effect: bodies, redirects, how a connection ends, drift.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many customers change after a page was served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drift {
    /// How many are deleted.
    pub delete: usize,
    /// How many are created.
    pub insert: usize,
    /// How many get another email.
    pub update: usize,
    /// How many are moved: from served pages to the end of the list, from later pages to its start.
    pub reorder: usize,
    /// The pages of these customers.
    pub place: Region,
}

/// A part of a list, relative to the page that was just served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// The pages up to this one.
    #[default]
    Served,
    /// The later pages.
    Coming,
}

/// Whether a request takes effect although its answer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultedWork {
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
    /// By an orderly close (FIN).
    #[default]
    Close,
    /// By a reset (RST).
    Reset,
}

/// The value of `page` in the envelope if another page is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Echo {
    /// The requested page.
    #[default]
    Asked,
    /// The answered page.
    Answered,
}

/// The target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectTarget {
    /// The same path, without a host.
    SameHost,
    /// The same path at another name of this machine: `localhost` for an address, an address for
    /// `localhost`.
    OtherHost,
    /// The same path with the scheme `http`.
    PlainHttp,
    /// Any URL.
    Url(String),
}

/// The body of an answer that a fault sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// KOMOJU's error JSON for the status.
    #[default]
    Error,
    /// KOMOJU's error JSON with this code.
    Code(String),
    /// A web page, as firewalls send it.
    Html,
    /// No body.
    Empty,
    /// Any JSON.
    Json(Value),
    /// Any text, with the content type of JSON.
    Text(String),
    /// Any bytes, with the content type of JSON.
    Bytes(Vec<u8>),
}

impl Drift {
    /// Whether it changes no customer.
    pub(crate) fn is_nothing(&self) -> bool {
        self.delete + self.insert + self.update + self.reorder == 0
    }
}
