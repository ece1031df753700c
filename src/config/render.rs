//! The effective configuration as text, for `config show`.

use std::fmt::Display;
use std::path::PathBuf;

use toml::Value;
use tracing::Level;
use url::Url;

use super::cron::Cadence;
use super::types::{Format, Listen, Proxy};

/// Returns a table with all its keys. A key that is not set is a comment.
pub(super) fn table(name: &str, keys: &[(&str, Option<String>)]) -> String {
    let line = |(key, value): &(&str, Option<String>)| match value {
        Some(value) => format!("{key} = {value}\n"),
        None => format!("# {key} is not set\n"),
    };
    format!("[{name}]\n") + &keys.iter().map(line).collect::<String>()
}

/// The value of a key as TOML.
pub(super) trait Render {
    /// Returns the TOML text, or none where the key is not set.
    fn value(&self) -> Option<String>;
}

impl<T: Render> Render for Option<T> {
    fn value(&self) -> Option<String> {
        self.as_ref().and_then(Render::value)
    }
}

macro_rules! render {
    ($($Kind:ty),* => $text:expr) => {
        $(impl Render for $Kind {
            fn value(&self) -> Option<String> {
                Some($text(self))
            }
        })*
    };
}

render!(u32, u64, f64, bool => ToString::to_string);
render!(String, Url, Cadence, Proxy, Listen, Format => quoted);
render!(PathBuf => |path: &PathBuf| quoted(&path.display()));
render!(Level => |level: &Level| quoted(&level.as_str().to_lowercase()));
render!(Vec<String> => |words: &Vec<String>| Value::from(words.clone()).to_string());

/// Returns a TOML string, with the quotes and escapes it needs.
fn quoted(value: &impl Display) -> String {
    Value::String(value.to_string()).to_string()
}
