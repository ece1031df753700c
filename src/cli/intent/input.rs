//! What a command reads besides its arguments. No message here repeats what was read: it may hold a token.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::exit::UsageError;
use komoju_core::intent::{Body, text};

/// The longest single intent, in bytes: far above what KOMOJU's lengths allow.
pub(super) const LONGEST: usize = 1024 * 1024;

/// Where a text comes from.
enum Source<'a> {
    File(&'a str),
    StandardInput,
}

impl Source<'_> {
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        let bytes = match self {
            Self::File(name) => {
                let open = || format!("{name} cannot be read");
                let file = File::open(Path::new(name)).map_err(|e| UsageError(format!("{}: {e}", open())))?;
                bounded(file).with_context(open)?
            }
            Self::StandardInput => bounded(io::stdin().lock()).context("standard input cannot be read")?,
        };
        match bytes.len() {
            0..=LONGEST => Ok(bytes),
            _ => Err(UsageError(format!("{self} has more than {LONGEST} bytes: that is no intent")).into()),
        }
    }
}

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) => f.write_str(&crate::cli::print::safe(name)),
            Self::StandardInput => f.write_str("standard input"),
        }
    }
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `--body @FILE|-`: the JSON in it. It may hold a token, so it is never taken from the command line, which everybody on this
/// machine can read.
pub(super) fn body(argument: &str) -> anyhow::Result<Value> {
    let source = match argument.strip_prefix('@') {
        Some(file) => Source::File(file),
        None if argument == "-" => Source::StandardInput,
        None => {
            return Err(UsageError(
                "--body: must be @FILE, or - for standard input; a body may hold a payment token, and everybody on this \
                 machine can read a command line"
                    .to_owned(),
            )
            .into());
        }
    };
    parsed("--body", &source.read()?)
}

/// The same, as checked parameters; at least one.
pub(super) fn whole_body(argument: &str) -> anyhow::Result<Body> {
    let body = Body::new(body(argument)?).map_err(UsageError::from)?;
    match body.fields().is_empty() {
        true => Err(UsageError("--body: needs at least one parameter".to_owned()).into()),
        false => Ok(body),
    }
}

/// `--expect JSON`, or `@FILE`.
pub(super) fn expect(argument: &str) -> anyhow::Result<Value> {
    match argument.strip_prefix('@') {
        Some(file) => parsed("--expect", &Source::File(file).read()?),
        None => parsed("--expect", argument.as_bytes()),
    }
}

fn parsed(option: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    match text::parse(bytes) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(UsageError(format!("{option}: must be a JSON object")).into()),
        Err(fault) => Err(UsageError(format!("{option}: {fault}")).into()),
    }
}
