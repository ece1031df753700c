//! `doctor`: each finding with what to do, and nothing is written.
//!
//! Promises: command doctor

mod api;
mod machine;

use std::process::Command;

use komoju_testkit::{Installation, KEY};
use serde_json::Value;

/// What it said, by check; a check may say several things.
struct Told {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Told {
    fn levels(&self, check: &str) -> Vec<&str> {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    /// The one thing that is said of a check: its level, and all its words.
    fn one(&self, check: &str) -> (&str, String) {
        let found: Vec<_> = self.findings.iter().filter(|finding| finding["check"] == check).collect();
        assert_eq!(found.len(), 1, "{check}: {}", self.text);
        let words = ["finding", "advice"].map(|part| found[0][part].as_str().unwrap_or_default());
        (found[0]["level"].as_str().unwrap(), words.join(" → "))
    }

    /// Everything that is not as it should be, by check. But for the disk of the machine that runs the tests: it may be nearly full,
    /// or in memory, and that it is said is right. What is said of which disk is held beside that check.
    fn complaints(&self) -> Vec<&str> {
        let bad =
            self.findings.iter().filter(|finding| finding["level"] == "warn" || finding["level"] == "fail");
        bad.map(|finding| finding["check"].as_str().unwrap()).filter(|check| *check != "disk").collect()
    }
}

fn doctor_of(command: &mut Command) -> Told {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (told, aside) = (text(&output.stdout), text(&output.stderr));
    assert!(!told.contains(&KEY[8..]) && !aside.contains(&KEY[8..]), "the key is printed: {told}{aside}");
    let findings: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for finding in &findings {
        let needs_advice = ["warn", "fail"].contains(&finding["level"].as_str().unwrap());
        assert_eq!(finding["advice"].is_string(), needs_advice, "{finding}");
    }
    Told { code: output.status.code().unwrap(), findings, text: told + &aside }
}

fn doctor(harness: &Installation) -> Told {
    doctor_of(&mut harness.command(&["doctor", "--json"]))
}
