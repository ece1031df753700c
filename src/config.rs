//! The configuration: one TOML file in, one checked [`Config`] out.
//!
//! Invariants:
//! - Every value of a [`Config`] is checked when the file is read. No other code checks it again.
//! - All problems are reported at once ([`ConfigError::Invalid`]), each with its line, a caret and
//!   what is allowed. An unknown key is a problem, because it is a misspelt one.
//! - The file, the errors about it and [`Config::render`] contain no secret. The key is found by
//!   [`SecretKey::find`](crate::secret::SecretKey::find), the webhook's secret by
//!   [`WebhookSecret::find`](crate::secret::WebhookSecret::find).
//! - The table in `keys` is the only list of keys. Tests compare it with `config.example.toml`.
//!
//! These designs were rejected:
//! - Environment variables that override keys. The file would no longer show what is in effect.
//! - Relative paths. A service starts in `/`, its operator does not.
//! - Reloading while running. A restart resumes where it stopped.

mod check;
#[cfg(any(test, fuzzing))]
pub(crate) mod checks;
mod cron;
mod document;
mod error;
mod keys;
mod names;
mod render;
mod source;
mod types;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use document::Document;
use error::ValueProblem;
use names::Key;

pub use cron::{Cadence, CadenceError};
pub use error::{ConfigError, Problem};
pub use keys::{Alerts, Api, Config, Database, Http, Inbound, Log, Outbound, RateLimit, Webhook};
pub use types::{Format, Listen, Proxy};

/// MOST_BYTES controls how many bytes a file may have. It is ten times the commented example.
const MOST_BYTES: u64 = 64 * 1024;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        let name = path.to_owned();
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ConfigError::Missing(name)),
            Err(source) => return Err(ConfigError::Unreadable { path: name, source }),
            Ok(length) if length as u64 > MOST_BYTES => {
                return Err(ConfigError::TooLong { path: name, limit: MOST_BYTES });
            }
            Ok(_) => {}
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::NotText { path: name, line }
        })?;
        Self::parse(text, path)
    }

    /// Checks the text of a file; `origin` is its name in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with every problem.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        let mut file = Document::parse(text);
        let config = keys::read(&mut file);
        check_combinations(&config, &mut file);
        let problems = file.finish(keys::KEYS);
        if problems.is_empty() { Ok(config) } else { Err(error::invalid(origin, text, problems)) }
    }

    /// Returns the names of all keys, `table.key`, in the order of the example.
    pub fn keys() -> Vec<String> {
        keys::KEYS.iter().map(Key::to_string).collect()
    }
}

/// Reports keys with values that are valid alone but not together.
fn check_combinations(config: &Config, file: &mut Document<'_>) {
    if config.database.path.starts_with(&config.outbound.spool_dir) {
        file.report_at_last(
            [Key::new("database", "path"), Key::new("outbound", "spool_dir")],
            ValueProblem::new("the database must not be in the spool directory")
                .help("every member of the group may replace files there"),
        );
    }
    if config.webhook.listen.as_ref().is_some_and(Listen::is_public) && !config.webhook.allow_public {
        let listen = Key::new("webhook", "listen");
        file.report_at_last(
            [listen, listen],
            ValueProblem::new("other machines can reach this address")
                .help("listen at 127.0.0.1 behind a proxy with TLS, or set webhook.allow_public = true"),
        );
    }
    if config.api.proxy.is_some() && config.api.base_url.scheme() == "http" {
        file.report_at_last(
            [Key::new("api", "proxy"), Key::new("api", "base_url")],
            ValueProblem::new("an http:// base_url must not go through a proxy").help(
                "the proxy would receive the secret key unencrypted; leave api.proxy out for the local sandbox",
            ),
        );
    }
}

#[cfg(test)]
mod tests;
