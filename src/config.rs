//! The configuration: one TOML file in, one checked [`Config`] out.
//!
//! Invariants:
//! - A [`Config`] that exists is usable: every value was checked when the file was read, and
//!   nobody checks again.
//! - Every problem is told at once ([`ConfigError::Invalid`]), with its line, a caret and what is
//!   allowed. A key that is not known is a problem, because it is a misspelt one.
//! - No secret is in the file, in an error about it, or in [`Config::render`]. The key is found by
//!   [`SecretKey::find`](crate::secret::SecretKey::find).
//! - `config.example.toml` is the reference of all keys; a test holds it to the defaults here.
//!
//! Rejected: overriding keys by environment variables (the file would no longer say what runs),
//! relative paths (a service starts in `/`, its operator does not), and reloading while running (a
//! restart resumes where it stopped).

mod check;
#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
mod cron;
mod document;
mod error;
mod read;
mod render;
mod source;
mod types;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use document::Document;

pub use cron::{Cadence, CadenceError};
pub use error::{ConfigError, Problem};
pub use types::{
    Alerts, Api, Config, Database, Format, Http, Inbound, Level, Listen, Log, Outbound, Proxy, RateLimit,
};

/// The most that is read of a file: ten times the commented example.
const MOST_BYTES: u64 = 64 * 1024;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        let path = path.to_owned();
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ConfigError::Missing(path));
            }
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
            Ok(length) if length as u64 > MOST_BYTES => {
                return Err(ConfigError::TooLong { path, limit: MOST_BYTES });
            }
            Ok(_) => {}
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &path),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                Err(ConfigError::NotText { path, line })
            }
        }
    }

    /// Checks the text of a file; `origin` is its name in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with every problem.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        let mut file = Document::new(text);
        let config = read::config(&mut file);
        file.finish(origin)?;
        Ok(config)
    }

    /// The effective configuration as TOML that parses back to the same, but for a proxy's user
    /// name and password, which are masked.
    pub fn render(&self) -> String {
        render::render(self)
    }

    /// Every key there is, `table.key`, in the order of the example.
    pub fn keys() -> Vec<String> {
        let mut file = Document::new("");
        read::config(&mut file);
        file.keys()
    }
}

#[cfg(test)]
mod tests;
