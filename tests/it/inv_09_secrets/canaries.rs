//! One key and many tokens go through everything at the most talkative level: afterwards they are nowhere.

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

/// A harness whose processes write what they say beside it.
struct Stage {
    harness: Installation,
    /// What is not searched: the key's file and the bodies of intents.
    outside: TempDir,
    /// What every process said.
    said: TempDir,
    dice: StdRng,
    canaries: Vec<Canary>,
    processes: usize,
}

impl Stage {
    fn set(format: &str) -> Self {
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
        let said = TempDir::new().unwrap();
        Self { harness, outside, said, dice: StdRng::seed_from_u64(23), canaries, processes: 0 }
    }

    /// A new token.
    fn token(&mut self, prefix: &str) -> String {
        let random: String = (0..24).map(|_| char::from(self.dice.sample(Alphanumeric))).collect();
        let token = format!("{prefix}{random}");
        self.canaries.push(Canary::new(&token, &token));
        token
    }

    /// A body with this token, too long for one page of the database.
    fn body(token: &str) -> Value {
        let long = "x".repeat(1900);
        json!({"email": "a@example.jp", "payment_details": token, "metadata": {"a": long, "b": long, "c": long}})
    }

    fn spawn(&mut self, arguments: &[&str], input: &str) -> Child {
        self.processes += 1;
        let log = |stream: &str| {
            let name =
                format!("{}-{}.{stream}", self.processes, arguments[..arguments.len().min(2)].join("-"));
            File::create(self.said.path().join(name.replace('/', "_"))).unwrap()
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
        // Who does not read it has ended; its code says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    /// Runs a command and returns its exit code.
    fn run(&mut self, arguments: &[&str], input: &str) -> Option<i32> {
        self.spawn(arguments, input).wait().unwrap().code()
    }

    /// Looks at what everybody on this machine can see of a process.
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

    /// Another program whose SQLite leaves what it frees.
    fn careless(&self) -> Connection {
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

    /// Every way of looking at things.
    fn look(&mut self) {
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

/// An error of the API that repeats what it was sent.
fn repeating(status: u16, text: &str) -> Fault {
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

fn searched(what: &str, directory: &Path, canaries: &[Canary]) {
    let found = below(directory, canaries);
    assert!(found.is_empty(), "{what}: {found:#?}");
}

fn nothing_is_left(format: &str) {
    let mut stage = Stage::set(format);
    assert_eq!(stage.run(&["sync"], ""), Some(0));
    let ids = stage.harness.sandbox.world().ids();
    let mut tokens = |prefix: &str| stage.token(prefix);
    let [by_sql, by_stdin, by_file_of_body, cancelled, by_sync] = [(); 5].map(|()| tokens("tok_"));
    let [declined, expired] = [tokens("tok_card_declined_"), tokens("tok_card_expired_")];
    let [by_json, by_jsonl, in_object, in_broken, in_bad_line] = [(); 5].map(|()| tokens("tok_"));
    let [conflicting, lost, killed, repeated, repeated_later, late] = [(); 6].map(|()| tokens("tok_"));
    let opaque = tokens("opaque-");

    // While nobody runs.
    stage.by_sql("sql", "create", None, &Stage::body(&by_sql));
    stage.by_sql("cancelled", "create", None, &Stage::body(&cancelled));
    assert_eq!(
        stage.run(
            &["intent", "create", "--id", "stdin", "--body", "-", "--json"],
            &Stage::body(&by_stdin).to_string()
        ),
        Some(0)
    );
    std::fs::write(stage.outside("body.json"), Stage::body(&by_file_of_body).to_string()).unwrap();
    let at = format!("@{}", stage.outside("body.json").display());
    assert_eq!(stage.run(&["intent", "update", &ids[0], "--id", "at", "--body", &at], ""), Some(0));
    stage.look();
    let own = below(stage.harness.directory.path(), &stage.canaries);
    assert!(!own.is_empty(), "unsettled intents hold their tokens: the search must find them");
    stage.careless().execute_batch("UPDATE intents SET state = 'cancelled' WHERE id = 'cancelled'").unwrap();
    stage.by_sql("sync", "create", None, &Stage::body(&by_sync));
    stage.run(&["sync", "--dry-run"], "");
    assert_eq!(stage.run(&["sync"], ""), Some(0));
    assert_eq!(stage.state("sync"), "done");

    // While it runs.
    let mut daemon = stage.spawn(&["run"], "");
    let line = |id: &str, body: &Value| json!({"op": "create", "id": id, "body": body}).to_string();
    stage.by_sql("declined", "create", None, &Stage::body(&declined));
    stage.by_sql("expired", "update", Some(&ids[1]), &Stage::body(&expired));
    stage.by_sql("opaque", "create", None, &Stage::body(&opaque));
    stage.harness.drop_file("good.json", &line("json", &Stage::body(&by_json)));
    let two = format!(
        "{}\n{}\n",
        line("jsonl", &Stage::body(&by_jsonl)),
        r#"{"op": "create", "id": "plain", "body": {"email": "a"}}"#
    );
    stage.harness.drop_file("good.jsonl", &two);
    let card = json!({"type": "credit_card", "number": "4242424242424242", "note": in_object});
    stage.harness.drop_file("card.json", &line("card", &json!({"email": "a", "payment_details": card})));
    stage.harness.drop_file("broken.json", &format!("{{\"payment_details\": \"{in_broken}"));
    let bad = format!("{}\n{{\"op\": \"destroy\"}}\n", line("bad", &Stage::body(&in_bad_line)));
    stage.harness.drop_file("bad.jsonl", &bad);
    let refused = json!({"payment_details": card}).to_string();
    assert_eq!(stage.run(&["intent", "create", "--body", "-"], &refused), Some(2));
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
        stage.eventually(id, state);
    }
    stage.assert_hidden(&daemon);

    // A conflict, lost answers, a kill within a request, and an API that repeats what it is told.
    let expect = "INSERT INTO intents (id, op, customer_id, body, expect) VALUES ('conflict', 'update', ?1, ?2, '{\"email\": \"never\"}')";
    stage
        .harness
        .writer()
        .execute(expect, rusqlite::params![ids[2], Stage::body(&conflicting).to_string()])
        .unwrap();
    stage.eventually("conflict", "parked");
    stage
        .harness
        .inject(Fault::new(FaultEffect::Reset { work: FaultedWork::Done }).call(FaultedCall::Create).once());
    let mut waiter = stage.spawn(
        &["intent", "create", "--id", "lost", "--body", "-", "--wait"],
        &Stage::body(&lost).to_string(),
    );
    eventually("it waits", || !stage.state("lost").is_empty());
    stage.assert_hidden(&waiter);
    stage.eventually("lost", "done");
    assert_eq!(waiter.wait().unwrap().code(), Some(0));
    let all = format!("{repeated} and {KEY}");
    stage.harness.inject(repeating(422, &all));
    stage.by_sql("repeated", "create", None, &Stage::body(&repeated));
    stage.eventually("repeated", "rejected");
    stage.harness.inject(repeating(500, &repeated_later));
    stage.by_sql("repeated later", "create", None, &Stage::body(&repeated_later));
    stage.eventually("repeated later", "done");
    let held = stage.harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    stage.by_sql("killed", "create", None, &Stage::body(&killed));
    let is_held = stage.harness.within(Duration::from_secs(10), |world| world.fired(held) > 0);
    assert!(is_held, "it is never sent");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    stage.harness.sandbox.world().remove_fault(held);
    let mut daemon = stage.spawn(&["run"], "");
    stage.eventually("killed", "done");

    // What waits for its time is taken back by the careless program while the daemon runs.
    let later = "INSERT INTO intents (id, op, body, not_before) VALUES ('late', 'create', ?1, '2099-01-01T00:00:00Z')";
    let careless = stage.careless();
    careless.execute(later, [Stage::body(&late).to_string()]).unwrap();
    stage.look();
    careless.execute_batch("UPDATE intents SET state = 'cancelled' WHERE id = 'late'").unwrap();
    drop(careless);
    assert_eq!(stage.run(&["intent", "cancel", "conflict"], ""), Some(0));
    stage.look();
    let open = "SELECT count(*) FROM intents WHERE state NOT IN ('done', 'rejected', 'cancelled')";
    eventually("all is settled", || stage.harness.one(open) == "0");
    eventually("all files are dealt with", || {
        std::fs::read_dir(stage.harness.path("spool")).unwrap().count() == 3
            && std::fs::read_dir(stage.harness.path("spool/.claimed")).unwrap().count() == 0
    });
    stage.assert_hidden(&daemon);
    assert_eq!(stop(&mut daemon), Some(0));

    searched("what was said", stage.said.path(), &stage.canaries);
    searched("what is kept", stage.harness.directory.path(), &stage.canaries);
    // And no card number.
    for directory in [stage.said.path(), stage.harness.directory.path()] {
        for path in komoju_testkit::search::files(directory) {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(16).any(|window| window == b"4242424242424242"), "{}", path.display());
        }
    }
    // What was said is all there is: each refused file is explained, and the log is the most talkative one.
    for name in ["card.json", "broken.json", "bad.jsonl"] {
        assert!(stage.harness.path(&format!("spool/rejected/{name}.error")).exists(), "{name}");
    }
    let logs: u64 = komoju_testkit::search::files(stage.said.path())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(logs > 10_000, "{logs} bytes were said");
}

#[test]
fn no_secret_is_left_anywhere_by_a_log_of_text() {
    nothing_is_left("text");
}

#[test]
fn no_secret_is_left_anywhere_by_a_log_of_json() {
    nothing_is_left("json");
}
