//! One line of the report: what was checked, its level, and what to do.

use std::fmt;

use serde::Serialize;

use super::Exit;
use crate::cli::print::safe;
use crate::secret::{MASK, Masker};
use komoju_core::Attention;

/// The level of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing is wrong.
    Ok,
    /// It works, and the operator should look at it.
    Warn,
    /// It prevents something from working.
    Fail,
    /// It could not be checked.
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
pub(super) struct DoctorFinding {
    /// The name of the check; one of a fixed set.
    pub(super) check: &'static str,
    /// The level.
    pub(super) level: Level,
    /// A sentence; it has several lines only where it quotes lines of a file.
    pub(super) finding: String,
    /// What to do; null where nothing is to be done.
    pub(super) advice: Option<String>,
    /// The exit code that this finding asks for.
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl DoctorFinding {
    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, finding: finding.into(), advice: None, exit: Exit::Fine }
    }

    pub(super) fn warn(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warn, advice: Some(advice.into()), ..Self::ok(check, finding) }
    }

    /// A warning about something that waits for an operator.
    pub(super) fn waits(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::fail(check, Exit::Waits, finding, advice)
    }

    /// A failure with this exit code; with [`Exit::Fine`] and [`Exit::Waits`] a warning.
    pub(super) fn fail(
        check: &'static str,
        exit: Exit,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let level = if let Exit::Fine | Exit::Waits = exit { Level::Warn } else { Level::Fail };
        Self { level, exit, ..Self::warn(check, finding, advice) }
    }

    /// A condition with its own sentence, more severe than a note.
    pub(super) fn about(check: &'static str, attention: &Attention, advice: impl Into<String>) -> Self {
        Self::fail(check, attention.severity().into(), safe(&attention.to_string()), advice)
    }

    /// A check that was left out, and why.
    pub(super) fn skip(check: &'static str, why: impl fmt::Display) -> Self {
        Self { level: Level::Skip, ..Self::ok(check, format!("left out: {why}")) }
    }

    /// Masks secrets and replaces control characters; keeps line breaks.
    pub(super) fn masked(self, masker: &Masker) -> Self {
        let clean = |text: &str| {
            let mut shown = text.to_owned();
            masker.spans(text).into_iter().rev().for_each(|span| shown.replace_range(span, MASK));
            shown.lines().map(safe).collect::<Vec<_>>().join("\n")
        };
        Self { finding: clean(&self.finding), advice: self.advice.as_deref().map(clean), ..self }
    }

    /// Returns the finding on a line, and the advice below it.
    pub(super) fn to_text(&self) -> String {
        const INDENT: &str = "\n                     ";
        let finding = self.finding.replace('\n', INDENT);
        let text = format!("{:<5} {:<14} {finding}", self.level, self.check);
        match &self.advice {
            Some(advice) => format!("{text}{INDENT}→ {}", advice.replace('\n', &format!("{INDENT}  "))),
            None => text,
        }
    }
}

/// The findings of one check, in the order of their discovery.
pub(super) struct DoctorFindings {
    check: &'static str,
    found: Vec<DoctorFinding>,
}

impl DoctorFindings {
    pub(super) fn of(check: &'static str) -> Self {
        Self { check, found: Vec::new() }
    }

    pub(super) fn warn(&mut self, finding: impl Into<String>, advice: impl Into<String>) {
        self.found.push(DoctorFinding::warn(self.check, finding, advice));
    }

    pub(super) fn fail(&mut self, exit: Exit, finding: impl Into<String>, advice: impl Into<String>) {
        self.found.push(DoctorFinding::fail(self.check, exit, finding, advice));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The findings; one with the level `ok` where there are none.
    pub(super) fn or_ok(mut self, finding: impl FnOnce() -> String) -> Vec<DoctorFinding> {
        if self.found.is_empty() {
            self.found.push(DoctorFinding::ok(self.check, finding()));
        }
        self.found
    }
}

impl Extend<DoctorFinding> for DoctorFindings {
    fn extend<I: IntoIterator<Item = DoctorFinding>>(&mut self, more: I) {
        self.found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_finding_keeps_its_lines() {
        let finding = DoctorFinding::warn("key", "one sk_live_abcdefgh\ntwo \u{1b}[2J", "do\nthat");
        let clean = finding.masked(&Masker::new(None));
        assert_eq!(clean.finding, "one ****\ntwo \u{fffd}[2J");
        assert_eq!(
            clean.to_text(),
            "warn  key            one ****\n                     two \u{fffd}[2J\n                     → do\n                       that"
        );
    }

    #[test]
    fn json_has_four_keys() {
        let json = serde_json::to_string(&DoctorFinding::ok("wal", "small")).unwrap();
        assert_eq!(json, r#"{"check":"wal","level":"ok","finding":"small","advice":null}"#);
    }
}
