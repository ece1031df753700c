//! What a command reads besides its arguments. No message repeats what was read: it may hold a
//! token.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::exit::UsageError;
use crate::cli::print::safe;
use komoju_core::intent::{IntentBody, text};

/// LONGEST limits a single intent, in bytes; KOMOJU's own limits are far below.
pub(super) const LONGEST: usize = 1024 * 1024;

/// Reads a source to its end; `name` is its name in messages.
fn read(source: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take(LONGEST as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("{name} cannot be read"))?;
    if bytes.len() > LONGEST {
        return Err(UsageError(format!("{name} has more than {LONGEST} bytes: that is no intent")).into());
    }
    Ok(bytes)
}

fn read_file(name: &str) -> anyhow::Result<Vec<u8>> {
    let shown = safe(name);
    let file = File::open(name).map_err(|e| UsageError(format!("{shown} cannot be read: {e}")))?;
    read(file, &shown)
}

/// Reads the JSON that `--body @FILE|-` names. It may hold a token, so it is never on the command
/// line, which every user of this machine can read.
pub(super) fn body(argument: &str) -> anyhow::Result<Value> {
    let bytes = match argument.strip_prefix('@') {
        Some(file) => read_file(file)?,
        None if argument == "-" => read(io::stdin().lock(), "standard input")?,
        None => {
            return Err(UsageError(
                "--body: must be @FILE, or - for standard input; a body may hold a payment token, and everybody on this \
                 machine can read a command line"
                    .to_owned(),
            )
            .into());
        }
    };
    parsed("--body", &bytes)
}

/// Reads `--body` as checked parameters, at least one.
pub(super) fn whole_body(argument: &str) -> anyhow::Result<IntentBody> {
    let body = IntentBody::new(body(argument)?).map_err(UsageError::from)?;
    if body.fields().is_empty() {
        return Err(UsageError("--body: needs at least one parameter".to_owned()).into());
    }
    Ok(body)
}

/// Reads `--expect JSON`, or `@FILE`.
pub(super) fn expect(argument: &str) -> anyhow::Result<Value> {
    match argument.strip_prefix('@') {
        Some(file) => parsed("--expect", &read_file(file)?),
        None => parsed("--expect", argument.as_bytes()),
    }
}

fn parsed(option: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let fault = match text::parse(bytes) {
        Ok(object @ Value::Object(_)) => return Ok(object),
        Ok(_) => "must be a JSON object".to_owned(),
        Err(fault) => fault.to_string(),
    };
    Err(UsageError(format!("{option}: {fault}")).into())
}
