//! Invariant 15: no file contains a byte of an erased customer, and the log still verifies.
//!
//! Promises: invariant 15; command erase

mod content;
mod files;
mod refusals;
mod unfinished;

use std::path::{Path, PathBuf};

use komoju_testkit::Installation;
use serde_json::{Value, json};

use crate::PROGRAM;

/// VALUES must be in no file: emails, a name, a number, and the end of a value that fills several
/// pages of the database.
const VALUES: [&str; 7] = [
    "hanako.first@example.jp",
    "hanako.second@example.jp",
    "hanako.third@example.jp",
    "花子ヤマダ",
    "090-5550-1234",
    "END-OF-A-LONG-VALUE",
    "wrong-hanako@",
];

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// Returns the files that contain one of these values, in their name or content.
fn found(harness: &Installation, values: &[&str]) -> Vec<String> {
    found_in(harness, files(harness.directory.path()), values)
}

/// Returns those of these files that contain one of the values, in their name or content.
fn found_in(harness: &Installation, files: Vec<PathBuf>, values: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let name = path.strip_prefix(harness.directory.path()).unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        for value in values {
            // Compare without regard to case, and also the JSON escapes.
            let escaped: String = value
                .chars()
                .map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", c as u32) })
                .collect();
            for form in [(*value).to_owned(), escaped, value.replace('@', "\\u0040")] {
                let (form, bytes) = (form.to_ascii_lowercase(), bytes.to_ascii_lowercase());
                if bytes.windows(form.len()).any(|window| window == form.as_bytes())
                    || name.to_ascii_lowercase().contains(&form)
                {
                    found.push(format!("{name}: {value}"));
                    break;
                }
            }
        }
    }
    found
}

fn assert_nowhere(harness: &Installation) {
    assert_eq!(found(harness, &VALUES), Vec::<String>::new());
}

fn head(harness: &Installation) -> String {
    harness.expect(0, &["verify"]).stdout.lines().last().unwrap().trim_start_matches("head ").to_owned()
}

fn body(email: &str) -> Value {
    let long = format!("{}END-OF-A-LONG-VALUE", "x".repeat(1900));
    json!({"email": email, "metadata": {"name": "花子ヤマダ", "tel": "090-5550-1234", "plan": "standard", "a": long, "b": long, "c": long, "d": long}})
}

fn receipt(text: &str) -> Value {
    assert!(VALUES.iter().all(|value| !text.contains(value)), "{text}");
    serde_json::from_str(text).unwrap()
}

/// A harness and a customer that was created, updated and, with `deleted`, deleted.
struct EraseCase {
    harness: Installation,
    id: String,
}

impl EraseCase {
    /// Returns a live customer that had two emails, among this many others.
    fn live(others: u32) -> Self {
        let harness = Installation::with(PROGRAM, others);
        harness.expect(0, &["sync"]);
        let id = harness.sandbox.world().create(body(VALUES[0]));
        harness.expect(0, &["sync"]);
        harness.sandbox.world().update(&id, json!({"email": VALUES[1]}));
        harness.expect(0, &["sync"]);
        Self { harness, id }
    }

    /// Returns such a customer that is deleted.
    fn deleted(others: u32) -> Self {
        let case = Self::live(others);
        case.delete();
        case
    }

    fn delete(&self) {
        self.harness.sandbox.world().delete(&self.id);
        self.harness.expect(0, &["sync"]);
        let gone = format!("SELECT count(*) FROM deleted_customers WHERE id = '{}'", self.id);
        assert_eq!(self.harness.one(&gone), "1");
    }

    fn erase(&self, code: i32) -> Value {
        receipt(&self.harness.expect(code, &["erase", &self.id, "--json"]).stdout)
    }

    /// Inserts an intent as another program.
    fn intend(&self, id: &str, op: &str, customer: Option<&str>, body: Option<Value>) {
        let sql = "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)";
        let body = body.map(|body| body.to_string());
        self.harness.writer().execute(sql, rusqlite::params![id, op, customer, body]).unwrap();
    }
}
