//! One line of the report: what was looked at, how it is, and what to do.

use std::fmt;

use serde::Serialize;

use super::Exit;
use crate::cli::print::safe;
use crate::secret::{MASK, Masker};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and a person should look at it.
    Warn,
    /// It keeps something from working.
    Fail,
    /// It could not be looked at.
    Skip,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        })
    }
}

/// One finding, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at; one word of a small set.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) level: Level,
    /// What is so, as a sentence; of more than one line only where the file's own lines are shown.
    pub(super) finding: String,
    /// What to do; null where nothing is to be done.
    pub(super) advice: Option<String>,
    /// What the command exits with because of it.
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl Finding {
    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, finding: finding.into(), advice: None, exit: Exit::Fine }
    }

    pub(super) fn warn(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warn, advice: Some(advice.into()), ..Self::ok(check, finding) }
    }

    /// Something waits for a person.
    pub(super) fn waits(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit: Exit::Waits, ..Self::warn(check, finding, advice) }
    }

    pub(super) fn fail(
        check: &'static str,
        exit: Exit,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, exit, ..Self::warn(check, finding, advice) }
    }

    /// `why` it was left out.
    pub(super) fn skip(check: &'static str, why: impl fmt::Display) -> Self {
        Self { level: Level::Skip, ..Self::ok(check, format!("left out: {why}")) }
    }

    /// Without anything secret, and harmless on a terminal; its lines stay.
    pub(super) fn masked(self, masker: &Masker) -> Self {
        let clean = |text: &str| {
            let mut shown = String::with_capacity(text.len());
            let mut from = 0;
            for span in masker.spans(text) {
                shown.push_str(&text[from..span.start]);
                shown.push_str(MASK);
                from = span.end;
            }
            shown.push_str(&text[from..]);
            shown.lines().map(safe).collect::<Vec<_>>().join("\n")
        };
        Self { finding: clean(&self.finding), advice: self.advice.as_deref().map(clean), ..self }
    }

    /// A line, what to do below it.
    pub(super) fn for_people(&self) -> String {
        const INDENT: &str = "                     ";
        let Self { check, level, .. } = self;
        let mut lines = self.finding.lines();
        let mut text = format!("{level:<5} {check:<14} {}", lines.next().unwrap_or_default());
        lines.for_each(|line| text += &format!("\n{INDENT}{line}"));
        for (n, line) in self.advice.iter().flat_map(|advice| advice.lines()).enumerate() {
            text += &format!("\n{INDENT}{} {line}", if n == 0 { "→" } else { " " });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_keeps_its_lines_and_loses_secrets_and_escapes() {
        let finding = Finding::warn("key", "one sk_live_abcdefgh\ntwo \u{1b}[2J", "do\nthat");
        let clean = finding.masked(&Masker::new(None));
        assert_eq!(clean.finding, "one ****\ntwo \u{fffd}[2J");
        assert_eq!(
            clean.for_people(),
            "warn  key            one ****\n                     two \u{fffd}[2J\n                     → do\n                       that"
        );
    }

    #[test]
    fn json_has_four_keys() {
        let json = serde_json::to_string(&Finding::ok("wal", "small")).unwrap();
        assert_eq!(json, r#"{"check":"wal","level":"ok","finding":"small","advice":null}"#);
    }
}
