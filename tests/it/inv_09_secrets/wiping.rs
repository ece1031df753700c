//! No file contains a byte of a settled token, for any writer of the rows and any order of
//! settling.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use komoju_testkit::InProcess;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;
use serde_json::json;
use tokio::runtime::Runtime;

/// Returns the tokens in the files of a directory, each with its file.
fn found(directory: &Path) -> Vec<(String, String)> {
    // Search in another process, because closing the file here would release this process's locks.
    let grep =
        Command::new("grep").args(["-raoE", "tok_canary_[0-9]+_end", "."]).current_dir(directory).output();
    let lines = String::from_utf8(grep.unwrap().stdout).unwrap();
    lines
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, token)| (token.into(), file.into()))
        .collect()
}

fn token(n: usize) -> String {
    format!("tok_canary_{n}_end")
}

/// One step of a history. A `client` is one of four open connections: one with `secure_delete` as
/// the daemon's, and three of other programs.
#[derive(Clone, Debug)]
enum Step {
    /// Inserts intents in one transaction, each with a token and this many further bytes.
    Insert { client: usize, lengths: Vec<usize> },
    /// Cancels one of the queued intents.
    Cancel { client: usize, nth: usize },
    /// Writes rows of another program's table, which reuse free pages.
    Others { client: usize, rows: usize, length: usize },
    /// Empties that table.
    Clear { client: usize },
    /// Sends the queued intents and wipes.
    Drain,
}

fn client() -> impl Strategy<Value = usize> {
    0..4_usize
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![3 => 0..400_usize, 2 => 400..2000_usize, 1 => 2000..9000_usize];
    prop_oneof![
        5 => (client(), prop::collection::vec(length, 1..40))
            .prop_map(|(client, lengths)| Step::Insert { client, lengths }),
        4 => (client(), any::<usize>()).prop_map(|(client, nth)| Step::Cancel { client, nth }),
        2 => (client(), 1..60_usize, 1..6000_usize)
            .prop_map(|(client, rows, length)| Step::Others { client, rows, length }),
        1 => client().prop_map(|client| Step::Clear { client }),
        1 => Just(Step::Drain),
    ]
}

struct History {
    harness: InProcess,
    clients: Vec<Connection>,
    customers: Vec<String>,
    n: usize,
}

impl History {
    async fn new() -> Self {
        let harness = InProcess::open(2).await;
        let customers = harness.sandbox.world().ids();
        harness.sql("CREATE TABLE notes (text)");
        let clients = ["ON", "OFF", "OFF", "FAST"].map(|secure_delete| {
            let conn = harness.writer();
            conn.execute_batch(&format!("PRAGMA secure_delete = {secure_delete}")).unwrap();
            conn
        });
        Self { harness, clients: clients.into(), customers, n: 0 }
    }

    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Insert { client, lengths } => {
                let conn = &self.clients[*client];
                conn.execute_batch("BEGIN IMMEDIATE").unwrap();
                for length in lengths {
                    let n = self.n;
                    self.n += 1;
                    // Values of metadata have at most 2000 characters.
                    let mut metadata = serde_json::Map::new();
                    for part in 0..length.div_ceil(1900) {
                        metadata
                            .insert(format!("m{part}"), json!("x".repeat((length - part * 1900).min(1900))));
                    }
                    let body = json!({"payment_details": token(n), "metadata": metadata}).to_string();
                    let (op, customer) = match n % 3 {
                        0 => ("create", None),
                        _ => ("update", Some(&self.customers[n % 2])),
                    };
                    conn.execute(
                        "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
                        (format!("i{n}"), op, customer, body),
                    )
                    .unwrap();
                }
                conn.execute_batch("COMMIT").unwrap();
            }
            Step::Cancel { client, nth } => {
                let queued =
                    self.harness.column("SELECT id FROM intents WHERE state = 'queued' ORDER BY position");
                if !queued.is_empty() {
                    self.clients[*client]
                        .execute(
                            "UPDATE intents SET state = 'cancelled' WHERE id = ?1",
                            [&queued[nth % queued.len()]],
                        )
                        .unwrap();
                }
            }
            Step::Others { client, rows, length } => {
                let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                     INSERT INTO notes SELECT replace(hex(zeroblob(?2 / 2)), '0', 'y') FROM n";
                self.clients[*client].execute(sql, (rows, length)).unwrap();
            }
            Step::Clear { client } => drop(self.clients[*client].execute("DELETE FROM notes", []).unwrap()),
            Step::Drain => self.drain().await,
        }
    }

    async fn drain(&mut self) {
        let queued = self.harness.one("SELECT count(*) FROM intents WHERE state = 'queued'");
        assert!(
            queued == "0" || !found(self.harness.directory.path()).is_empty(),
            "the search does not find the queued tokens"
        );
        self.harness.drain().await;
        assert_eq!(self.left(), []);
    }

    /// Returns the tokens of settled intents that a file still contains.
    fn left(&self) -> Vec<(String, String)> {
        let settled = "SELECT 'tok_canary_' || substr(id, 2) || '_end' FROM intents WHERE state IN ('done', 'rejected', 'cancelled')";
        let settled: HashSet<String> = self.harness.column(settled).into_iter().collect();
        found(self.harness.directory.path())
            .into_iter()
            .filter(|(token, _)| settled.contains(token))
            .collect()
    }
}

#[test]
fn settled_token_is_in_no_byte_after_any_history() {
    let cases = std::env::var("WIPE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runtime = Runtime::new().unwrap();
    let ran = runner.run(&prop::collection::vec(step(), 1..12), |steps| {
        runtime.block_on(async {
            let mut history = History::new().await;
            for step in &steps {
                history.apply(step).await;
            }
            history.drain().await;
            // The wiped file is still an intact database.
            assert_eq!(history.harness.one("PRAGMA integrity_check"), "ok");
        });
        Ok(())
    });
    if let Err(found) = ran {
        panic!("{found}");
    }
}

#[tokio::test]
async fn rows_of_many_lengths_without_secure_delete_leave_no_token() {
    for rows in [1, 3, 20, 60, 200] {
        let mut history = History::new().await;
        let lengths = (0..rows).map(|n| 37 * n % 700).collect();
        history.apply(&Step::Insert { client: 1, lengths }).await;
        history.drain().await;
    }
}

#[tokio::test]
async fn names_and_columns_of_another_program_do_not_stop_the_wipe() {
    let mut history = History::new().await;
    history.harness.sql(
        r#"CREATE TABLE scrubbed (x); CREATE TABLE filler (x); INSERT INTO filler VALUES ('precious');
           CREATE TABLE "it's; ""odd""" (x);
           CREATE TRIGGER "notify-me" AFTER UPDATE ON intents BEGIN INSERT INTO scrubbed VALUES (NEW.id); END;
           CREATE INDEX "by body" ON intents (body);
           ALTER TABLE intents ADD COLUMN mail TEXT GENERATED ALWAYS AS (body ->> '$.email') VIRTUAL;
           CREATE VIEW broken AS SELECT * FROM nowhere;
           CREATE VIRTUAL TABLE words USING fts5 (x);"#,
    );
    history.apply(&Step::Insert { client: 1, lengths: vec![0, 500, 1000, 5000, 10, 300] }).await;
    history.apply(&Step::Cancel { client: 1, nth: 2 }).await;
    history.drain().await;
    assert_eq!(history.harness.one("SELECT x FROM filler"), "precious");
    assert_ne!(
        history.harness.one("SELECT count(*) FROM scrubbed"),
        "0",
        "the trigger does not fire any more"
    );
    assert_eq!(history.harness.one("PRAGMA integrity_check"), "ok");
}

#[tokio::test]
async fn token_that_one_short_read_keeps_is_not_reported_as_blocked() {
    let mut history = History::new().await;
    history.apply(&Step::Insert { client: 1, lengths: vec![100] }).await;
    let reader = history.harness.writer();
    reader.execute_batch("BEGIN; SELECT * FROM change_log;").unwrap();
    history.harness.drain().await;
    let meta = "SELECT (wipe_since IS NOT NULL) || ' ' || wipe_blocked FROM meta";
    assert_eq!(history.harness.one(meta), "1 0", "a token is left, and no action is needed");
    reader.execute_batch("COMMIT").unwrap();
    history.drain().await;
}
