//! Submits intents by every door and records those that were acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use komoju_testkit::Installation;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An intent to submit.
#[derive(Clone)]
pub(super) struct NewIntent {
    pub(super) n: usize,
    pub(super) op: &'static str,
    /// The customer that orders this intent among others: an id, or `@` and the id of a create.
    pub(super) target: Option<String>,
    /// The customer as the intent names it: the id, or `@` and the id of a create.
    pub(super) customer: Option<String>,
    pub(super) body: Option<Value>,
    pub(super) declined: bool,
}

/// An intent that was acknowledged.
pub(super) struct SubmittedIntent {
    pub(super) id: String,
    pub(super) intent: NewIntent,
}

/// Submits intents at random, by each door.
pub(super) struct Submitter<'a> {
    pub(super) harness: &'a Installation,
    pub(super) dice: StdRng,
    /// The connection of another program. It is sometimes kept open across restarts of the daemon.
    pub(super) conn: Option<Connection>,
    pub(super) submitted: Vec<SubmittedIntent>,
    /// The files by name, each with the ids of its intents.
    pub(super) files: BTreeMap<String, Vec<String>>,
    /// Customers and creates that can be updated and deleted.
    pub(super) targets: Vec<String>,
    /// Creates with a declined token.
    pub(super) declined: BTreeSet<String>,
    pub(super) count: usize,
}

impl<'a> Submitter<'a> {
    pub(super) fn new(harness: &'a Installation, seed: u64, targets: Vec<String>) -> Self {
        Self {
            harness,
            dice: StdRng::seed_from_u64(seed),
            conn: None,
            submitted: Vec::new(),
            files: BTreeMap::new(),
            targets,
            declined: BTreeSet::new(),
            count: 0,
        }
    }

    pub(super) fn create(&mut self) -> NewIntent {
        self.count += 1;
        let n = self.count;
        let mut body = json!({"email": format!("door-{n}@example.jp"), "metadata": {"n": n.to_string()}});
        let kind = self.dice.random_range(0..10);
        if kind < 3 {
            body["payment_details"] = json!(format!("tok_{n}"));
        } else if kind == 3 {
            body["payment_details"] = json!(format!("tok_card_declined_{n}"));
        }
        NewIntent { n, op: "create", target: None, customer: None, body: Some(body), declined: kind == 3 }
    }

    /// Returns a name of the target: `@` and the id of its create, or its own id where the create
    /// is done.
    pub(super) fn name_of(&mut self, target: &str) -> String {
        let known = target.strip_prefix('@').and_then(|id| {
            let column = self.harness.column(&format!(
                "SELECT result_customer_id FROM intents WHERE id = '{id}' AND result_customer_id IS NOT NULL"
            ));
            column.first().cloned()
        });
        match known {
            Some(known) if self.dice.random_bool(0.5) => known,
            _ => target.to_owned(),
        }
    }

    pub(super) fn intent_for(&mut self, op: &'static str, target: String) -> NewIntent {
        self.count += 1;
        let n = self.count;
        let customer = Some(self.name_of(&target));
        let body = (op == "update").then(|| json!({"metadata": {"last": n.to_string()}}));
        NewIntent { n, op, target: Some(target), customer, body, declined: false }
    }

    /// Returns a customer, or a create that is accepted. A create in the spool directory may not be
    /// accepted yet.
    pub(super) fn any_target(&mut self) -> String {
        loop {
            let target = &self.targets[self.dice.random_range(0..self.targets.len())];
            let Some(id) = target.strip_prefix('@') else { return target.clone() };
            if self.harness.one(&format!("SELECT count(*) FROM intents WHERE id = '{id}'")) == "1" {
                return target.clone();
            }
        }
    }

    pub(super) fn update(&mut self) -> NewIntent {
        let target = self.any_target();
        self.intent_for("update", target)
    }

    pub(super) fn any(&mut self) -> NewIntent {
        match self.dice.random_range(0..10) {
            0..=3 => self.create(),
            // Keeps some customers that exist from the start.
            9 if self.targets.iter().filter(|target| !target.starts_with('@')).count() > 3 => {
                let target = self.any_target();
                self.intent_for("delete", target)
            }
            _ => self.update(),
        }
    }

    pub(super) fn record(&mut self, id: String, intent: NewIntent) {
        match (intent.op, &intent.target) {
            ("update", _) => {}
            ("delete", Some(target)) => self.targets.retain(|known| known != target),
            _ => {
                self.targets.push(format!("@{id}"));
                if intent.declined {
                    self.declined.insert(format!("@{id}"));
                }
            }
        }
        self.submitted.push(SubmittedIntent { id, intent });
    }

    /// Submits an intent by a random door.
    pub(super) fn submit_any(&mut self) {
        match self.dice.random_range(0..10) {
            0..=2 => self.by_file(),
            3 => drop(self.by_lines()),
            4 => {
                let intent = self.any();
                self.by_cli(intent);
            }
            _ => {
                let intent = self.any();
                self.by_sql(intent);
            }
        }
    }

    pub(super) fn by_sql(&mut self, intent: NewIntent) {
        if self.dice.random_bool(0.3) {
            self.conn = None;
        }
        let harness = self.harness;
        let conn = self.conn.get_or_insert_with(|| harness.writer());
        let body = intent.body.as_ref().map(Value::to_string);
        let id: String = match self.dice.random_bool(0.5) {
            true => {
                let sql =
                    "INSERT INTO intents (op, customer_id, body, id) VALUES (?1, ?2, ?3, ?4) RETURNING id";
                let id = format!("sql-{}", intent.n);
                conn.query_row(sql, rusqlite::params![intent.op, intent.customer, body, id], |row| row.get(0))
            }
            false => {
                let sql = "INSERT INTO intents (op, customer_id, body) VALUES (?1, ?2, ?3) RETURNING id";
                conn.query_row(sql, rusqlite::params![intent.op, intent.customer, body], |row| row.get(0))
            }
        }
        .unwrap();
        self.record(id, intent);
    }

    pub(super) fn by_cli(&mut self, intent: NewIntent) {
        let mut arguments = vec!["intent".to_owned(), intent.op.to_owned()];
        arguments.extend(intent.customer.clone());
        if let Some(body) = &intent.body {
            std::fs::write(self.harness.path("body.json"), body.to_string()).unwrap();
            arguments.extend(["--body".to_owned(), format!("@{}", self.harness.path("body.json").display())]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let id = self.harness.expect(0, &arguments).stdout.trim_end().to_owned();
        self.record(id, intent);
    }

    /// Submits one intent as `NAME.json`.
    pub(super) fn by_file(&mut self) {
        let intent = self.any();
        let name = format!("one-{}", intent.n);
        let content = json_of(&intent, None).to_string();
        let id = format!("{name}@{}", digest(&content));
        let file = format!("{name}.json");
        self.harness.drop_file(&file, &content);
        self.files.insert(file, vec![id.clone()]);
        self.record(id, intent);
    }

    /// Submits a create, its follower and one more intent as `NAME.jsonl`. Returns the name of the
    /// file.
    pub(super) fn by_lines(&mut self) -> String {
        let create = self.create();
        let name = format!("lines-{}", create.n);
        let id = format!("made-{}", create.n);
        let first = json_of(&create, Some(&id));
        self.record(id.clone(), create);
        let follower = self.intent_for("update", format!("@{id}"));
        let more = self.any();
        let content = format!("{first}\n{}\n{}\n", json_of(&follower, None), json_of(&more, None));
        let digest = digest(&content);
        let file = format!("{name}.jsonl");
        self.harness.drop_file(&file, &content);
        let ids = [id, format!("{name}@{digest}:2"), format!("{name}@{digest}:3")];
        self.files.insert(file.clone(), ids.to_vec());
        self.record(ids[1].clone(), follower);
        self.record(ids[2].clone(), more);
        file
    }
}

pub(super) fn json_of(intent: &NewIntent, id: Option<&str>) -> Value {
    let mut object = json!({"op": intent.op});
    for (name, value) in [
        ("customer_id", intent.customer.clone().map(Value::from)),
        ("body", intent.body.clone()),
        ("id", id.map(Value::from)),
    ] {
        if let Some(value) = value {
            object[name] = value;
        }
    }
    object
}

pub(super) fn digest(content: &str) -> String {
    Sha256::digest(content)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
