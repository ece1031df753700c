//! Submits intents through every door, and records each accepted one.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::daemon::Installation;

/// The start of the emails of customers that intents create.
const OURS: &str = "soak-";

/// The start of tokens that are declined.
const DECLINED: &str = "tok_card_declined";

/// Whether a customer with this email was created by an intent.
pub fn is_ours(email: &str) -> bool {
    email.starts_with(OURS)
}

/// The door of an intent: six of ten by SQL, three by a file, one by a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    Sql,
    File,
    Cli,
}

/// An intent that was accepted, or that is in a file which was renamed into place.
pub struct Accepted {
    pub door: Door,
    /// As it was submitted.
    pub intent: Value,
}

impl Accepted {
    /// Returns the email of the customer that it creates.
    pub fn email(&self) -> Option<&str> {
        self.intent["body"]["email"].as_str().filter(|_| self.intent["op"] == "create")
    }

    /// Whether KOMOJU declines its token.
    pub fn is_declined(&self) -> bool {
        self.intent["body"]["payment_details"].as_str().is_some_and(|token| token.starts_with(DECLINED))
    }
}

/// Submits intents with increasing ids.
pub struct Dropper {
    seed: u64,
    count: u64,
    /// The accepted intents by id.
    pub intents: BTreeMap<String, Accepted>,
}

impl Dropper {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0, intents: BTreeMap::new() }
    }

    pub fn accepted(&self) -> usize {
        self.intents.len()
    }

    /// Submits one intent, or a create and its follower, through a random door.
    pub fn drop_any(&mut self, dice: &mut StdRng, harness: &Installation) {
        match dice.random_range(0..10) {
            0..3 => self.by_file(dice, harness),
            3 => self.by_cli(dice, harness),
            _ => self.by_sql(dice, harness),
        }
    }

    /// Draws an intent and its id.
    fn any(&mut self, dice: &mut StdRng, harness: &Installation) -> (String, Value) {
        self.count += 1;
        let id = format!("soak-{}-{}", self.seed, self.count);
        let world = harness.world();
        let ids = world.ids();
        let others = ids.choose_multiple(dice, 4);
        let customer = others.into_iter().find(|id| {
            world.get(id).is_some_and(|customer| !is_ours(customer["email"].as_str().unwrap_or_default()))
        });
        let intent = match (dice.random_range(0..10), customer) {
            (0..3, Some(customer)) => json!({
                "op": "update", "customer_id": customer, "body": {"metadata": {"soak": self.count.to_string()}},
            }),
            (3, Some(customer)) => json!({"op": "delete", "customer_id": customer}),
            _ => {
                let mut body = json!({"email": format!("{OURS}{}@example.jp", self.count)});
                match dice.random_range(0..10) {
                    0..3 => body["payment_details"] = json!(format!("tok_{}", self.count)),
                    3 => body["payment_details"] = json!(format!("{DECLINED}_{}", self.count)),
                    _ => {}
                }
                json!({"op": "create", "body": body})
            }
        };
        (id, intent)
    }

    /// Records an accepted intent.
    fn note(&mut self, id: String, door: Door, intent: &Value) {
        self.intents.insert(id, Accepted { door, intent: intent.clone() });
    }

    fn by_sql(&mut self, dice: &mut StdRng, harness: &Installation) {
        let (id, intent) = self.any(dice, harness);
        let conn = Connection::open(harness.database()).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        conn.execute(
            "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![
                id,
                intent["op"].as_str(),
                intent["customer_id"].as_str(),
                intent.get("body").map(Value::to_string)
            ],
        )
        .unwrap();
        self.note(id, Door::Sql, &intent);
    }

    /// Submits one intent, or a create with a follower, in a file.
    fn by_file(&mut self, dice: &mut StdRng, harness: &Installation) {
        let (id, mut intent) = self.any(dice, harness);
        intent["id"] = json!(id);
        let mut content = intent.to_string();
        let mut kind = "json";
        self.note(id.clone(), Door::File, &intent);
        if intent["op"] == "create" && dice.random_bool(0.3) {
            let follower = json!({
                "op": "update", "id": format!("{id}-next"), "customer_id": format!("@{id}"),
                "body": {"metadata": {"next": id}},
            });
            content = format!("{content}\n{follower}\n");
            kind = "jsonl";
            self.note(format!("{id}-next"), Door::File, &follower);
        }
        let spool = harness.path("spool");
        let hidden = spool.join(format!(".{id}"));
        std::fs::write(&hidden, content).unwrap();
        std::fs::rename(hidden, spool.join(format!("{id}.{kind}"))).unwrap();
    }

    fn by_cli(&mut self, dice: &mut StdRng, harness: &Installation) {
        let (id, intent) = self.any(dice, harness);
        let op = intent["op"].as_str().unwrap();
        let body = harness.path("body.json");
        let mut arguments = vec!["intent".to_owned(), op.to_owned(), "--id".to_owned(), id.clone()];
        arguments.extend(intent["customer_id"].as_str().map(str::to_owned));
        if let Some(text) = intent.get("body") {
            std::fs::write(&body, text.to_string()).unwrap();
            arguments.extend(["--body".to_owned(), format!("@{}", body.display())]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = harness.command(&arguments).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.note(id, Door::Cli, &intent);
    }
}
