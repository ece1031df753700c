//! One key and many tokens pass through every command at log level `trace`; afterwards no file
//! contains them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload};
use komoju_testkit::search::{Canary, below};
use komoju_testkit::{Installation, KEY, eventually, stop};
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PROGRAM;

/// A harness with processes that write their output to files beside it.
struct SecretsHarness {
    harness: Installation,
    /// A directory that is not searched: the key file and the bodies of intents.
    outside: TempDir,
    /// The standard output and standard error of every process.
    output: TempDir,
    dice: StdRng,
    canaries: Vec<Canary>,
    processes: usize,
}

impl SecretsHarness {
    fn new(format: &str) -> Self {
        let harness = Installation::with(PROGRAM, 6);
        let outside = TempDir::new().unwrap();
        let key = outside.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = std::fs::read_to_string(harness.path("config.toml")).unwrap();
        let named = format!("[api]\nsecret_key_file = '{}'\n", key.display());
        std::fs::write(harness.path("config.toml"), config.replace("[api]\n", &named)).unwrap();
        harness.append_config(&format!("[log]\nlevel = \"trace\"\nformat = \"{format}\""));
        let canaries = vec![Canary::new("the key", KEY)];
        let output = TempDir::new().unwrap();
        Self { harness, outside, output, dice: StdRng::seed_from_u64(23), canaries, processes: 0 }
    }

    /// Returns a new token.
    fn token(&mut self, prefix: &str) -> String {
        let random: String = (0..24).map(|_| char::from(self.dice.sample(Alphanumeric))).collect();
        let token = format!("{prefix}{random}");
        self.canaries.push(Canary::new(&token, &token));
        token
    }

    /// Returns a body with this token that is longer than a page of the database.
    fn body(token: &str) -> Value {
        let long = "x".repeat(1900);
        json!({"email": "a@example.jp", "payment_details": token, "metadata": {"a": long, "b": long, "c": long}})
    }

    fn spawn(&mut self, arguments: &[&str], input: &str) -> Child {
        self.processes += 1;
        let log = |stream: &str| {
            let name =
                format!("{}-{}.{stream}", self.processes, arguments[..arguments.len().min(2)].join("-"));
            File::create(self.output.path().join(name.replace('/', "_"))).unwrap()
        };
        let (out, err) = (log("out"), log("err"));
        let mut child = self
            .harness
            .command(arguments)
            .env_remove("KOMOJU_SECRET_KEY")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        // The write fails if the process has ended; its exit code shows why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    /// Runs a command and returns its exit code.
    fn run(&mut self, arguments: &[&str], input: &str) -> Option<i32> {
        self.spawn(arguments, input).wait().unwrap().code()
    }

    /// Asserts that the arguments and the environment of a process contain no secret.
    fn assert_hidden(&self, process: &Child) {
        for what in ["cmdline", "environ"] {
            let seen = std::fs::read(format!("/proc/{}/{what}", process.id())).unwrap();
            assert!(what == "environ" || !seen.is_empty());
            for canary in &self.canaries {
                assert_eq!(canary.found(&seen), Vec::<String>::new(), "{what}");
            }
        }
    }

    fn by_sql(&self, id: &str, op: &str, customer: Option<&str>, body: &Value) {
        self.harness.intend(id, op, customer, Some(body.clone()));
    }

    /// Returns a connection as of another program: its SQLite does not overwrite what it frees.
    fn writer_without_secure_delete(&self) -> Connection {
        let conn = self.harness.writer();
        conn.execute_batch("PRAGMA secure_delete = OFF").unwrap();
        conn
    }

    fn state(&self, id: &str) -> String {
        self.harness.column(&format!("SELECT state FROM intents WHERE id = '{id}'")).join(",")
    }

    fn eventually(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), || self.state(id) == state);
    }

    /// Runs every reading command.
    fn run_reading_commands(&mut self) {
        for arguments in [
            "intent list --all",
            "intent list --all --json",
            "intent plan",
            "intent plan --json",
            "status",
            "status --json",
            "changes",
            "changes --json",
            "export --format csv",
            "export --format jsonl",
            "customers list --json",
            "deletions list",
            "account show",
            "config show",
            "config check",
            "verify",
        ] {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            let code = self.run(&arguments, "");
            assert!(matches!(code, Some(0 | 3)), "{arguments:?}: {code:?}");
        }
        for id in self.harness.column("SELECT id FROM intents") {
            for arguments in [&["intent", "show", &id][..], &["intent", "show", &id, "--json"]] {
                assert!(matches!(self.run(arguments, ""), Some(0 | 3)), "{arguments:?}");
            }
        }
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }
}

/// Returns an error of the API that repeats this text.
fn error_that_repeats(status: u16, text: &str) -> Fault {
    let body = Payload::Text(format!(
        r#"{{"error": {{"code": "invalid_parameter", "message": "{text} is wrong", "param": "{text}"}}}}"#
    ));
    let effect = FaultEffect::Status {
        status,
        body,
        retry_after: None,
        headers: Default::default(),
        work: FaultedWork::Skipped,
    };
    Fault::new(effect).call(FaultedCall::Create).once()
}

fn assert_absent(what: &str, directory: &Path, canaries: &[Canary]) {
    let found = below(directory, canaries);
    assert!(found.is_empty(), "{what}: {found:#?}");
}

fn check_no_secret_is_left(format: &str) {
    let mut secrets = SecretsHarness::new(format);
    assert_eq!(secrets.run(&["sync"], ""), Some(0));
    let ids = secrets.harness.sandbox.world().ids();
    let mut tokens = |prefix: &str| secrets.token(prefix);
    let [by_sql, by_stdin, by_file_of_body, cancelled, by_sync] = [(); 5].map(|()| tokens("tok_"));
    let [declined, expired] = [tokens("tok_card_declined_"), tokens("tok_card_expired_")];
    let [by_json, by_jsonl, in_object, in_broken, in_bad_line] = [(); 5].map(|()| tokens("tok_"));
    let [conflicting, lost, killed, repeated, repeated_later, late] = [(); 6].map(|()| tokens("tok_"));
    let opaque = tokens("opaque-");

    // While no daemon runs.
    secrets.by_sql("sql", "create", None, &SecretsHarness::body(&by_sql));
    secrets.by_sql("cancelled", "create", None, &SecretsHarness::body(&cancelled));
    assert_eq!(
        secrets.run(
            &["intent", "create", "--id", "stdin", "--body", "-", "--json"],
            &SecretsHarness::body(&by_stdin).to_string()
        ),
        Some(0)
    );
    std::fs::write(secrets.outside("body.json"), SecretsHarness::body(&by_file_of_body).to_string()).unwrap();
    let at = format!("@{}", secrets.outside("body.json").display());
    assert_eq!(secrets.run(&["intent", "update", &ids[0], "--id", "at", "--body", &at], ""), Some(0));
    secrets.run_reading_commands();
    let own = below(secrets.harness.directory.path(), &secrets.canaries);
    assert!(!own.is_empty(), "the search does not find the tokens of open intents");
    secrets
        .writer_without_secure_delete()
        .execute_batch("UPDATE intents SET state = 'cancelled' WHERE id = 'cancelled'")
        .unwrap();
    secrets.by_sql("sync", "create", None, &SecretsHarness::body(&by_sync));
    secrets.run(&["sync", "--dry-run"], "");
    assert_eq!(secrets.run(&["sync"], ""), Some(0));
    assert_eq!(secrets.state("sync"), "done");

    // While the daemon runs.
    let mut daemon = secrets.spawn(&["run"], "");
    let line = |id: &str, body: &Value| json!({"op": "create", "id": id, "body": body}).to_string();
    secrets.by_sql("declined", "create", None, &SecretsHarness::body(&declined));
    secrets.by_sql("expired", "update", Some(&ids[1]), &SecretsHarness::body(&expired));
    secrets.by_sql("opaque", "create", None, &SecretsHarness::body(&opaque));
    secrets.harness.drop_file("good.json", &line("json", &SecretsHarness::body(&by_json)));
    let two = format!(
        "{}\n{}\n",
        line("jsonl", &SecretsHarness::body(&by_jsonl)),
        r#"{"op": "create", "id": "plain", "body": {"email": "a"}}"#
    );
    secrets.harness.drop_file("good.jsonl", &two);
    let card = json!({"type": "credit_card", "number": "4242424242424242", "note": in_object});
    secrets.harness.drop_file("card.json", &line("card", &json!({"email": "a", "payment_details": card})));
    secrets.harness.drop_file("broken.json", &format!("{{\"payment_details\": \"{in_broken}"));
    let bad = format!("{}\n{{\"op\": \"destroy\"}}\n", line("bad", &SecretsHarness::body(&in_bad_line)));
    secrets.harness.drop_file("bad.jsonl", &bad);
    let refused = json!({"payment_details": card}).to_string();
    assert_eq!(secrets.run(&["intent", "create", "--body", "-"], &refused), Some(2));
    for (id, state) in [
        ("sql", "done"),
        ("stdin", "done"),
        ("at", "done"),
        ("declined", "rejected"),
        ("expired", "rejected"),
        ("opaque", "rejected"),
        ("json", "done"),
        ("jsonl", "done"),
    ] {
        secrets.eventually(id, state);
    }
    secrets.assert_hidden(&daemon);

    // A conflict, lost answers, a kill during a request, and an API that repeats what it receives.
    let expect = "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('conflict', 'update', ?1, ?2, '{\"email\": \"never\"}')";
    secrets
        .harness
        .writer()
        .execute(expect, rusqlite::params![ids[2], SecretsHarness::body(&conflicting).to_string()])
        .unwrap();
    secrets.eventually("conflict", "parked");
    secrets
        .harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    let mut waiter = secrets.spawn(
        &["intent", "create", "--id", "lost", "--body", "-", "--wait"],
        &SecretsHarness::body(&lost).to_string(),
    );
    eventually("the intent is recorded", || !secrets.state("lost").is_empty());
    secrets.assert_hidden(&waiter);
    secrets.eventually("lost", "done");
    assert_eq!(waiter.wait().unwrap().code(), Some(0));
    let all = format!("{repeated} and {KEY}");
    secrets.harness.inject(error_that_repeats(422, &all));
    secrets.by_sql("repeated", "create", None, &SecretsHarness::body(&repeated));
    secrets.eventually("repeated", "rejected");
    secrets.harness.inject(error_that_repeats(500, &repeated_later));
    secrets.by_sql("repeated later", "create", None, &SecretsHarness::body(&repeated_later));
    secrets.eventually("repeated later", "done");
    let held = secrets.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    secrets.by_sql("killed", "create", None, &SecretsHarness::body(&killed));
    let is_held = secrets.harness.within(Duration::from_secs(10), |world| world.fired(held) > 0);
    assert!(is_held, "the create is never sent");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    secrets.harness.sandbox.world().remove_fault(held);
    let mut daemon = secrets.spawn(&["run"], "");
    secrets.eventually("killed", "done");

    // The other program cancels an intent with a future `not_before` while the daemon runs.
    let later = "INSERT INTO intents (id, op, body, not_before) VALUES ('late', 'create', ?1, '2099-01-01T00:00:00Z')";
    let writer_without_secure_delete = secrets.writer_without_secure_delete();
    writer_without_secure_delete.execute(later, [SecretsHarness::body(&late).to_string()]).unwrap();
    secrets.run_reading_commands();
    writer_without_secure_delete
        .execute_batch("UPDATE intents SET state = 'cancelled' WHERE id = 'late'")
        .unwrap();
    drop(writer_without_secure_delete);
    assert_eq!(secrets.run(&["intent", "cancel", "conflict"], ""), Some(0));
    secrets.run_reading_commands();
    let open = "SELECT count(*) FROM intents WHERE state NOT IN ('done', 'rejected', 'cancelled')";
    eventually("all is settled", || secrets.harness.one(open) == "0");
    eventually("all files are processed", || {
        std::fs::read_dir(secrets.harness.path("spool")).unwrap().count() == 3
            && std::fs::read_dir(secrets.harness.path("spool/.claimed")).unwrap().count() == 0
    });
    secrets.assert_hidden(&daemon);
    assert_eq!(stop(&mut daemon), Some(0));

    assert_absent("the output", secrets.output.path(), &secrets.canaries);
    assert_absent("the installation", secrets.harness.directory.path(), &secrets.canaries);
    // No file contains the card number.
    for directory in [secrets.output.path(), secrets.harness.directory.path()] {
        for path in komoju_testkit::search::files(directory) {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(16).any(|window| window == b"4242424242424242"), "{}", path.display());
        }
    }
    // The search had something to find: each refused file has its error, and the logs are long.
    for name in ["card.json", "broken.json", "bad.jsonl"] {
        assert!(secrets.harness.path(&format!("spool/rejected/{name}.error")).exists(), "{name}");
    }
    let logs: u64 = komoju_testkit::search::files(secrets.output.path())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(logs > 10_000, "the logs have only {logs} bytes");
}

#[test]
fn no_secret_is_left_anywhere_with_a_text_log() {
    check_no_secret_is_left("text");
}

#[test]
fn no_secret_is_left_anywhere_with_a_json_log() {
    check_no_secret_is_left("json");
}
