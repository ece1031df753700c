//! The settings of the spool task, and the result of a scan of the directory.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Settings of the door that do not change.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Where files are dropped, absolute.
    pub dir: PathBuf,
    /// Whether anything is accepted.
    pub enabled: bool,
}

/// What a look at the directory came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Files whose intents were accepted.
    pub taken: u64,
    /// Intents that were not in the outbox before.
    pub intents: u64,
    /// Files that were refused and put aside.
    pub refused: u64,
    /// Files that stay though their time has come, and the directory itself where it cannot be
    /// used. At most [`super::MOST_NAMED`].
    pub left: Vec<Left>,
    /// How many more files stay.
    pub more_left: u64,
    /// In how long the next file can be ready, where one is still being written.
    pub again_in: Option<Duration>,
}

/// A file that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its name; the path where it is the directory itself.
    pub name: String,
    /// Why, and what to do; safe to show.
    pub why: String,
}
