//! Queue, read and follow in each language, with the same steps and the same results.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use komoju_testkit::{Daemon, Installation, eventually};
use serde_json::{Value, json};

use super::{ProgramRun, end, example, installed, is_hidden, not_tested, read, start};
use crate::PROGRAM;

/// An interpreter and the examples of one folder.
struct Language {
    interpreter: PathBuf,
    folder: &'static str,
    ending: &'static str,
}

impl Language {
    /// Returns the language where the interpreter exits 0 with the arguments `check`.
    fn find(interpreter: &Path, check: &[&str], folder: &'static str, ending: &'static str) -> Option<Self> {
        let why = match Command::new(interpreter).args(check).output() {
            Ok(ran) if ran.status.success() => {
                return Some(Self { interpreter: interpreter.to_owned(), folder, ending });
            }
            Ok(ran) => String::from_utf8_lossy(&ran.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        not_tested(&format!("examples/{folder} with {}", interpreter.display()), &why);
        None
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(example(self.folder).join(format!("{program}.{}", self.ending)));
        command
    }

    fn queue(&self, harness: &Installation, id: &str) -> Command {
        let mut command = self.command("queue_intent");
        command.arg(harness.path("spool")).arg(id);
        command
    }

    /// Queues an intent; returns the output of the program.
    fn queued(&self, harness: &Installation, id: &str, intent: &Value) -> ProgramRun {
        end(start(&mut self.queue(harness, id), &intent.to_string()))
    }

    /// Queues an intent that is carried out; returns its entry in the receipt.
    fn done(&self, harness: &Installation, id: &str, intent: &Value) -> Value {
        let [entry] = <[Value; 1]>::try_from(self.queued(harness, id, intent).json()).unwrap();
        assert_eq!((&entry["id"], &entry["state"]), (&json!(id), &json!("done")));
        entry
    }

    /// Asserts that the rows that `read_mirror` prints equal the mirror.
    fn assert_reads(&self, harness: &Installation) {
        let rows = read(harness, self.command("read_mirror").arg(harness.database())).json();
        let shown = |customer: &Value| {
            let metadata = customer.get("metadata").filter(|value| !value.is_null());
            (
                customer["id"].clone(),
                customer["email"].clone(),
                metadata.cloned().unwrap_or_else(|| json!({})),
            )
        };
        let mirror: Vec<_> = harness.mirror().values().map(shown).collect();
        assert_eq!(rows.iter().map(shown).collect::<Vec<_>>(), mirror);
    }

    /// Returns what `follow_changes` prints in one run.
    fn follow(&self, harness: &Installation) -> Vec<Value> {
        let mut command = self.command("follow_changes");
        read(harness, command.arg(harness.database()).arg(harness.path("cursor.json"))).json()
    }
}

/// Asserts that a program printed the whole log, as after a start over.
fn assert_whole_log(harness: &Installation, printed: &[Value]) {
    assert_eq!(printed[0], json!({"start_over": harness.one("SELECT log_id FROM mirror_info")}));
    let seqs: Vec<_> = printed[1..].iter().map(|change| change["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=harness.head()).collect::<Vec<_>>());
}

/// Queues while the service is stopped; the program waits for the service. Its file is readable for
/// the group.
fn queue_before_the_start(language: &Language, harness: &Installation) -> (Daemon, String) {
    let create = json!({"op": "create", "body": {"email": "first@例え.jp", "metadata": {"ticket": "1"}}});
    let mut command = Command::new("sh");
    let queue = language.queue(harness, "ticket-1");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(queue.get_program()).args(queue.get_args());
    let waiting = start(&mut command, &create.to_string());
    let dropped = || {
        let entries = std::fs::read_dir(harness.path("spool")).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.path()).find(|path| path.is_file() && !is_hidden(path))
    };
    eventually("the file is in place", || dropped().is_some());
    let mode = std::fs::metadata(dropped().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the file is readable for the service under any umask");
    let daemon = Daemon::start(harness);
    let entry = end(waiting).json().remove(0);
    assert_eq!(entry["state"], "done");
    let customer = entry["customer"].as_str().unwrap().to_owned();
    let truth = harness.sandbox.world().truth();
    assert_eq!(
        (&truth[&customer]["email"], &truth[&customer]["metadata"]),
        (&json!("first@例え.jp"), &json!({"ticket": "1"}))
    );
    (daemon, customer)
}

/// Runs each example of a language, from the first read to the start over after a restore.
fn run_examples(language: &Language) {
    let harness = &Installation::swept(PROGRAM, 5);
    language.assert_reads(harness);
    assert_whole_log(harness, &language.follow(harness));
    assert_eq!(language.follow(harness), Vec::<Value>::new(), "the cursor is stored");

    let head = harness.head();
    let (mut daemon, customer) = queue_before_the_start(language, harness);
    let create = json!({"op": "create", "body": {"email": "first@例え.jp", "metadata": {"ticket": "1"}}});
    assert_eq!(language.done(harness, "ticket-1", &create)["repeated"], true, "an id is accepted once");
    let update = json!({"op": "update", "customer_id": customer, "body": {"email": "second@example.com"}});
    language.done(harness, "ticket-2", &update);
    assert_eq!(harness.sandbox.world().truth()[&customer]["email"], "second@example.com");
    language.done(harness, "ticket-3", &json!({"op": "delete", "customer_id": "@ticket-1"}));
    assert!(!harness.sandbox.world().truth().contains_key(&customer));

    let refused = language.queued(harness, "ticket-4", &json!({"op": "create", "body": {"emial": "x"}}));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("body.emial: is not known here"), "{}", refused.stdout);
    let rejected = language.queued(harness, "ticket-5", &json!({"op": "delete", "customer_id": "unknown"}));
    assert_eq!(rejected.code, Some(1), "{}", rejected.stderr);
    assert!(rejected.stdout.contains("rejected"), "{}", rejected.stdout);

    let changes = language.follow(harness);
    let kinds: Vec<_> = changes.iter().map(|change| change["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "updated", "deleted"]);
    assert_eq!(kinds, harness.kinds_after(head));
    assert_eq!(changes[1]["diff"]["email"], json!({"from": "first@例え.jp", "to": "second@example.com"}));
    assert_eq!(
        (&changes[1]["after"]["email"], &changes[2]["after"]),
        (&json!("second@example.com"), &Value::Null)
    );
    assert_eq!(daemon.stop(), Some(0));
    language.assert_reads(harness);

    let backup = harness.path("backup.db");
    harness.expect(0, &["backup", backup.to_str().unwrap()]);
    harness.expect(0, &["restore", backup.to_str().unwrap()]);
    assert_whole_log(harness, &language.follow(harness));
    assert_eq!(language.follow(harness), Vec::<Value>::new());
}

#[test]
fn python_examples_queue_read_and_follow() {
    if let Some(language) = Language::find(Path::new("python3"), &["-c", "import sqlite3"], "python", "py") {
        run_examples(&language);
    }
}

#[test]
fn php_examples_queue_read_and_follow() {
    let check = "exit(extension_loaded('pdo_sqlite') ? 0 : fwrite(STDERR, 'pdo_sqlite is missing'));";
    if let Some(language) = Language::find(Path::new("php"), &["-r", check], "php", "php") {
        run_examples(&language);
    }
}

/// Uses the Node.js of this machine. Without `node:sqlite` the examples use the shell `sqlite3`.
#[test]
fn node_examples_queue_read_and_follow() {
    let check = "const [major, minor] = process.versions.node.split('.').map(Number);
        if (major < 22 || (major === 22 && minor < 13)) require('child_process').execFileSync('sqlite3', ['--version'])";
    if let Some(language) = Language::find(Path::new("node"), &["-e", check], "node", "mjs") {
        run_examples(&language);
    }
}

/// Uses a Node.js with `node:sqlite` from npm.
#[test]
fn node_examples_with_its_own_sqlite_queue_read_and_follow() {
    let folder = installed("examples-node", |path| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "node@22", "--prefix"]).arg(path);
        npm
    });
    let node = folder.map(|folder| folder.join("node_modules/node/bin/node"));
    match node {
        Ok(node) => {
            if let Some(language) = Language::find(&node, &["-e", "require('node:sqlite')"], "node", "mjs") {
                run_examples(&language);
            }
        }
        Err(why) => not_tested("examples/node with node:sqlite", &why),
    }
}
