//! `doctor` reports each finding with advice and writes nothing.
//!
//! Promises: command doctor

mod api;
mod machine;

use std::process::Command;

use komoju_testkit::{Installation, KEY};
use serde_json::Value;

/// The output of one run. A check may have several findings.
struct DoctorReport {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl DoctorReport {
    fn levels(&self, check: &str) -> Vec<&str> {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    /// Returns the level and the text of the only finding of a check.
    fn one(&self, check: &str) -> (&str, String) {
        let found: Vec<_> = self.findings.iter().filter(|finding| finding["check"] == check).collect();
        assert_eq!(found.len(), 1, "{check}: {}", self.text);
        let texts = ["finding", "advice"].map(|part| found[0][part].as_str().unwrap_or_default());
        (found[0]["level"].as_str().unwrap(), texts.join(" → "))
    }

    /// Returns the checks with a warning or a failure, except `disk`. The machine that runs the
    /// tests may have a full disk or one in memory. Unit tests of that check cover its findings.
    fn complaints(&self) -> Vec<&str> {
        let bad =
            self.findings.iter().filter(|finding| finding["level"] == "warn" || finding["level"] == "fail");
        bad.map(|finding| finding["check"].as_str().unwrap()).filter(|check| *check != "disk").collect()
    }
}

fn doctor_of(command: &mut Command) -> DoctorReport {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !stdout.contains(&KEY[8..]) && !stderr.contains(&KEY[8..]),
        "the key is printed: {stdout}{stderr}"
    );
    let findings: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for finding in &findings {
        let needs_advice = ["warn", "fail"].contains(&finding["level"].as_str().unwrap());
        assert_eq!(finding["advice"].is_string(), needs_advice, "{finding}");
    }
    DoctorReport { code: output.status.code().unwrap(), findings, text: stdout + &stderr }
}

fn doctor(harness: &Installation) -> DoctorReport {
    doctor_of(&mut harness.command(&["doctor", "--json"]))
}
