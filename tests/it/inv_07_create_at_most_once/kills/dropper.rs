//! A program that drops intents by every door, and remembers which were acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use komoju_testkit::Installation;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An intent that is about to be dropped.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) n: usize,
    pub(super) op: &'static str,
    /// Whom it is about, as far as the intents of one customer are concerned: an id, or `@` and a create's id.
    pub(super) target: Option<String>,
    /// How it is called in the intent.
    pub(super) customer: Option<String>,
    pub(super) body: Option<Value>,
    pub(super) declined: bool,
}

/// An intent that was acknowledged.
pub(super) struct Dropped {
    pub(super) id: String,
    pub(super) wish: Wish,
}

/// Whoever drops.
pub(super) struct Dropper<'a> {
    pub(super) harness: &'a Installation,
    pub(super) dice: StdRng,
    /// Used by other programs between restarts, and sometimes kept over them.
    pub(super) conn: Option<Connection>,
    pub(super) dropped: Vec<Dropped>,
    /// Names of the files, each with the ids of its intents.
    pub(super) files: BTreeMap<String, Vec<String>>,
    /// Who can be updated and deleted.
    pub(super) alive: Vec<String>,
    /// Creates whose token is declined.
    pub(super) declined: BTreeSet<String>,
    pub(super) count: usize,
}

impl<'a> Dropper<'a> {
    pub(super) fn new(harness: &'a Installation, seed: u64, alive: Vec<String>) -> Self {
        Self {
            harness,
            dice: StdRng::seed_from_u64(seed),
            conn: None,
            dropped: Vec::new(),
            files: BTreeMap::new(),
            alive,
            declined: BTreeSet::new(),
            count: 0,
        }
    }

    pub(super) fn create(&mut self) -> Wish {
        self.count += 1;
        let n = self.count;
        let mut body = json!({"email": format!("door-{n}@example.jp"), "metadata": {"n": n.to_string()}});
        let kind = self.dice.random_range(0..10);
        if kind < 3 {
            body["payment_details"] = json!(format!("tok_{n}"));
        } else if kind == 3 {
            body["payment_details"] = json!(format!("tok_card_declined_{n}"));
        }
        Wish { n, op: "create", target: None, customer: None, body: Some(body), declined: kind == 3 }
    }

    /// How a target is called now: its create may be done already.
    pub(super) fn called(&mut self, target: &str) -> String {
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

    pub(super) fn about(&mut self, op: &'static str, target: String) -> Wish {
        self.count += 1;
        let n = self.count;
        let customer = Some(self.called(&target));
        let body = (op == "update").then(|| json!({"metadata": {"last": n.to_string()}}));
        Wish { n, op, target: Some(target), customer, body, declined: false }
    }

    /// A customer, or a create that is accepted: what lies in the spool directory may not be yet.
    pub(super) fn somebody(&mut self) -> String {
        loop {
            let target = &self.alive[self.dice.random_range(0..self.alive.len())];
            let Some(id) = target.strip_prefix('@') else { return target.clone() };
            if self.harness.one(&format!("SELECT count(*) FROM intents WHERE id = '{id}'")) == "1" {
                return target.clone();
            }
        }
    }

    pub(super) fn update(&mut self) -> Wish {
        let target = self.somebody();
        self.about("update", target)
    }

    pub(super) fn any(&mut self) -> Wish {
        match self.dice.random_range(0..10) {
            0..=3 => self.create(),
            // So that some are left whatever happens.
            9 if self.alive.iter().filter(|alive| !alive.starts_with('@')).count() > 3 => {
                let target = self.somebody();
                self.about("delete", target)
            }
            _ => self.update(),
        }
    }

    pub(super) fn note(&mut self, id: String, wish: Wish) {
        match (wish.op, &wish.target) {
            ("update", _) => {}
            ("delete", Some(target)) => self.alive.retain(|alive| alive != target),
            _ => {
                self.alive.push(format!("@{id}"));
                if wish.declined {
                    self.declined.insert(format!("@{id}"));
                }
            }
        }
        self.dropped.push(Dropped { id, wish });
    }

    /// By any door.
    pub(super) fn drop_any(&mut self) {
        match self.dice.random_range(0..10) {
            0..=2 => self.by_file(),
            3 => drop(self.by_lines()),
            4 => {
                let wish = self.any();
                self.by_cli(wish);
            }
            _ => {
                let wish = self.any();
                self.by_sql(wish);
            }
        }
    }

    pub(super) fn by_sql(&mut self, wish: Wish) {
        if self.dice.random_bool(0.3) {
            self.conn = None;
        }
        let harness = self.harness;
        let conn = self.conn.get_or_insert_with(|| harness.writer());
        let body = wish.body.as_ref().map(Value::to_string);
        let id: String = match self.dice.random_bool(0.5) {
            true => {
                let sql =
                    "INSERT INTO intents (op, customer_id, body, id) VALUES (?1, ?2, ?3, ?4) RETURNING id";
                let id = format!("sql-{}", wish.n);
                conn.query_row(sql, rusqlite::params![wish.op, wish.customer, body, id], |row| row.get(0))
            }
            false => {
                let sql = "INSERT INTO intents (op, customer_id, body) VALUES (?1, ?2, ?3) RETURNING id";
                conn.query_row(sql, rusqlite::params![wish.op, wish.customer, body], |row| row.get(0))
            }
        }
        .unwrap();
        self.note(id, wish);
    }

    pub(super) fn by_cli(&mut self, wish: Wish) {
        let mut arguments = vec!["intent".to_owned(), wish.op.to_owned()];
        arguments.extend(wish.customer.clone());
        if let Some(body) = &wish.body {
            std::fs::write(self.harness.path("body.json"), body.to_string()).unwrap();
            arguments.extend(["--body".to_owned(), format!("@{}", self.harness.path("body.json").display())]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let id = self.harness.expect(0, &arguments).stdout.trim_end().to_owned();
        self.note(id, wish);
    }

    /// One intent, `NAME.json`.
    pub(super) fn by_file(&mut self) {
        let wish = self.any();
        let name = format!("one-{}", wish.n);
        let content = json_of(&wish, None).to_string();
        let id = format!("{name}@{}", digest(&content));
        let file = format!("{name}.json");
        self.harness.drop_file(&file, &content);
        self.files.insert(file, vec![id.clone()]);
        self.note(id, wish);
    }

    /// A create, its follower, and one more, `NAME.jsonl`. Returns the file's name.
    pub(super) fn by_lines(&mut self) -> String {
        let create = self.create();
        let name = format!("lines-{}", create.n);
        let id = format!("made-{}", create.n);
        let first = json_of(&create, Some(&id));
        self.note(id.clone(), create);
        let follower = self.about("update", format!("@{id}"));
        let more = self.any();
        let content = format!("{first}\n{}\n{}\n", json_of(&follower, None), json_of(&more, None));
        let digest = digest(&content);
        let file = format!("{name}.jsonl");
        self.harness.drop_file(&file, &content);
        let ids = [id, format!("{name}@{digest}:2"), format!("{name}@{digest}:3")];
        self.files.insert(file.clone(), ids.to_vec());
        self.note(ids[1].clone(), follower);
        self.note(ids[2].clone(), more);
        file
    }
}

pub(super) fn json_of(wish: &Wish, id: Option<&str>) -> Value {
    let mut intent = json!({"op": wish.op});
    for (name, value) in [
        ("customer_id", wish.customer.clone().map(Value::from)),
        ("body", wish.body.clone()),
        ("id", id.map(Value::from)),
    ] {
        if let Some(value) = value {
            intent[name] = value;
        }
    }
    intent
}

pub(super) fn digest(content: &str) -> String {
    Sha256::digest(content)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
