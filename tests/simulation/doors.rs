//! The doors: intents by SQL, by a file and by the function of the command line; also invalid and
//! repeated ones.

use std::fs;
use std::path::Path;

use jiff::SignedDuration;
use komoju_core::intent::Intent;
use komoju_core::time;
use komoju_sync::clock::Clock as _;
use komoju_sync::store::StoreError;
use komoju_sync::store::outbox::accept::{Acceptance, Door as Way, accept};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::ops::{Door, IntentKind, IntentSpec};
use crate::world::{Checked, World, must};

/// An accepted intent, with what is needed to check its row.
#[derive(Clone, Debug)]
pub struct AcceptedIntent {
    /// The intent as it was dropped.
    pub json: Value,
    pub body: Option<Value>,
    /// Whether an operator gave it another body.
    pub is_corrected: bool,
    /// Whether a restored backup contained it. Then its token is gone, its outcome may be newer
    /// than the backup, and an operator checks it.
    pub is_restored: bool,
    /// How many customers it may create: one, and one more for each decision of an operator that
    /// allows it.
    pub may_make: usize,
}

/// A file in the spool.
#[derive(Clone, Debug)]
pub struct WaitingFile {
    pub name: String,
    pub intents: Vec<Value>,
}

impl AcceptedIntent {
    fn of(json: Value) -> Self {
        let body = json.get("body").filter(|body| !body.is_null()).cloned();
        Self { json, body, is_corrected: false, is_restored: false, may_make: 1 }
    }
}

/// Intents that every door refuses.
const NONSENSE: [&str; 14] = [
    r#"{"op": "replace", "body": {"email": "a"}}"#,
    r#"{"op": "create", "customer_id": "c", "body": {"email": "a"}}"#,
    r#"{"op": "create", "body": {"payment_details": {"number": "4111111111111111"}}}"#,
    r#"{"op": "create", "body": {"email": 7}}"#,
    r#"{"op": "create", "body": {"name": "a"}}"#,
    r#"{"op": "create", "body": {"metadata": {"k": 1}}}"#,
    r#"{"op": "create", "body": {"metadata": {"a key of more than thirty characters": "1"}}}"#,
    r#"{"op": "create", "body": {"email": "a"}, "expect": {"email": "a"}}"#,
    r#"{"op": "update", "customer_id": "c", "body": {}}"#,
    r#"{"op": "update", "body": {"email": "a"}}"#,
    r#"{"op": "update", "customer_id": "..", "body": {"email": "a"}}"#,
    r#"{"op": "update", "customer_id": "@none", "body": {"email": "a"}}"#,
    r#"{"op": "delete", "customer_id": "c", "body": {"email": "a"}}"#,
    r#"{"op": "delete", "customer_id": "c", "not_before": "2026-02-30T00:00:00Z"}"#,
];

/// The answer of a door.
#[derive(Debug, PartialEq)]
enum DoorAnswer {
    New,
    Known,
    Refused,
    /// The file is still there.
    Nothing,
}

impl World<'_> {
    pub fn drop_one(&mut self, door: Door, spec: IntentSpec) -> Checked {
        spec.kinds().into_iter().for_each(|kind| self.count(&format!("Intent::{kind}")));
        self.dropped += 1;
        let n = self.dropped;
        let mut intents = vec![self.intent(n, spec)];
        if door == Door::File && spec.kind == IntentKind::New && n.is_multiple_of(2) {
            let more = json!({"id": format!("i{n}+"), "op": "update", "customer_id": format!("@i{n}"),
                "body": {"metadata": {"of": "the same file"}}});
            intents.push(more);
        }
        let refers = |intent: &Value| {
            intent["customer_id"].as_str().and_then(|id| id.strip_prefix('@').map(str::to_owned))
        };
        let is_fine = intents.iter().all(|intent| {
            refers(intent).is_none_or(|of| of == format!("i{n}") || self.accepted.contains_key(&of))
        });
        let answer = self.give(door, &intents)?;
        let expected = match (self.enabled, is_fine) {
            (true, true) => DoorAnswer::New,
            (false, _) if door == Door::File => DoorAnswer::Nothing,
            _ => DoorAnswer::Refused,
        };
        // A file may also wait for an older one in the same list.
        let may_crash = (self.crashed || self.waiting.len() > 1) && answer == DoorAnswer::Nothing;
        must!(
            answer == expected || may_crash,
            "{door:?} answered {answer:?} to {intents:?}, not {expected:?}"
        );
        if answer == DoorAnswer::New {
            self.remember(intents);
        }
        Ok(())
    }

    fn remember(&mut self, intents: Vec<Value>) {
        for intent in intents {
            let id = intent["id"].as_str().unwrap().to_owned();
            self.accepted.entry(id).or_insert_with(|| AcceptedIntent::of(intent));
        }
    }

    fn intent(&self, n: u64, spec: IntentSpec) -> Value {
        let created = |is: &(&String, &AcceptedIntent)| is.1.json["op"] == "create";
        let newest = self.newest_first().find(created).map_or("none", |(id, _)| id.as_str());
        let any_customer = |place| self.server.lock().unwrap().any_customer(place);
        let (op, customer, theirs) = match spec.kind {
            IntentKind::New | IntentKind::Twin => ("create", None, Value::Null),
            IntentKind::Change(place) => {
                let (id, theirs) = any_customer(place);
                ("update", Some(id), theirs)
            }
            IntentKind::Remove(place) => {
                let (id, theirs) = any_customer(place);
                ("delete", Some(id), theirs)
            }
            IntentKind::ChangeMade => ("update", Some(format!("@{newest}")), Value::Null),
            IntentKind::RemoveMade => ("delete", Some(format!("@{newest}")), Value::Null),
        };
        let mut body = Map::new();
        let like = match spec.kind {
            IntentKind::Twin => self.accepted.get(newest).and_then(|known| known.json.get("body").cloned()),
            _ => None,
        };
        match (op, like) {
            ("create", Some(Value::Object(like))) => {
                body = like;
                body.remove("payment_details");
            }
            ("create", _) => {
                body.insert("email".into(), format!("new{n}@example.com").into());
                body.insert("metadata".into(), json!({"n": n.to_string()}));
            }
            ("update", _) if n.is_multiple_of(2) => {
                body.insert("email".into(), format!("changed{n}@example.com").into());
            }
            ("update", _) if !(spec.token && n.is_multiple_of(3)) => {
                body.insert("metadata".into(), json!({"k": n.to_string()}));
            }
            _ => {}
        }
        if spec.token && op != "delete" {
            body.insert("payment_details".into(), format!("tok_{}n{n}", self.seed).into());
        }
        let mut intent = json!({"id": format!("i{n}"), "op": op});
        if let Some(customer) = customer {
            intent["customer_id"] = customer.into();
        }
        if op != "delete" {
            intent["body"] = body.into();
        }
        if let (Some(truly), "update" | "delete") = (spec.expect, op) {
            intent["expect"] = match truly {
                true => json!({"email": theirs.get("email").cloned().unwrap_or_default()}),
                false => json!({"metadata": {"k": "never"}}),
            };
        }
        if let Some(minutes) = spec.not_before {
            let then = self.clock.now() + SignedDuration::from_mins(minutes);
            intent["not_before"] = time::written(then).into();
        }
        intent
    }

    /// Returns the accepted intents, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (&String, &AcceptedIntent)> {
        let number = |id: &str| id[1..].trim_end_matches('+').parse::<u64>().unwrap_or(0);
        let mut all: Vec<_> = self.accepted.iter().collect();
        all.sort_by_key(|(id, _)| std::cmp::Reverse(number(id)));
        all.into_iter()
    }

    /// Gives intents to a door; several only in one file. Returns the answer, and checks it against
    /// the rows.
    fn give(&mut self, door: Door, intents: &[Value]) -> Result<DoorAnswer, String> {
        let before = self.intents();
        let answer = match door {
            Door::Sql => self.give_by_sql(&intents[0]),
            Door::Cli => self.give_by_command(&intents[0]),
            Door::File => self.give_by_file(intents),
        };
        let new = match answer {
            DoorAnswer::New => intents.len() as u64,
            _ => 0,
        };
        let more = self.intents() - before;
        must!(more == new, "{door:?} answered {answer:?}, and there are {more} intents more");
        Ok(answer)
    }

    fn intents(&self) -> u64 {
        self.look(|reader| reader.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).unwrap())
    }

    fn give_by_sql(&mut self, intent: &Value) -> DoorAnswer {
        let text = |name: &str| match &intent[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let client = self.client.as_ref().unwrap();
        let sql = "INSERT INTO intents (id, op, customer_id, body, expect, not_before) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = ["id", "op", "customer_id", "body", "expect", "not_before"].map(text);
        let inserted = client.prepare_cached(sql).unwrap().execute(rusqlite::params_from_iter(values));
        match inserted {
            Ok(_) => DoorAnswer::New,
            Err(rusqlite::Error::SqliteFailure(failure, _))
                if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER =>
            {
                DoorAnswer::Refused
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn give_by_command(&mut self, intent: &Value) -> DoorAnswer {
        let Ok(intent) = Intent::parse(&intent.to_string()) else { return DoorAnswer::Refused };
        match self.write(|tx| accept(tx, &intent, Way::Cli, Some("simulation"))) {
            Ok(Acceptance::New(_)) => DoorAnswer::New,
            Ok(Acceptance::Repeat(_)) => DoorAnswer::Known,
            Err(StoreError::Refused(_)) => DoorAnswer::Refused,
            Err(error) => panic!("{error}"),
        }
    }

    fn give_by_file(&mut self, intents: &[Value]) -> DoorAnswer {
        self.dropped += 1;
        let extension = if intents.len() == 1 { "json" } else { "jsonl" };
        let name = format!("f{}.{extension}", self.dropped);
        let spool = self.place.spool();
        fs::create_dir_all(&spool).unwrap();
        let lines: Vec<String> = intents.iter().map(Value::to_string).collect();
        let made = spool.join(format!(".{name}"));
        fs::write(&made, lines.join("\n")).unwrap();
        fs::rename(made, spool.join(&name)).unwrap();
        let before = self.intents();
        let names = [name.clone()];
        let crash_at = std::mem::replace(&mut self.crash_at, self.crash_at_door.take());
        if self.run(async |process| process.spool.take(&names).await.unwrap()).is_none() {
            self.count("Crash at the door");
        }
        self.crash_at = crash_at;
        self.waiting.push(WaitingFile { name, intents: intents.to_vec() });
        let is_there = is_pending(&spool, &self.waiting.last().unwrap().name);
        let answer = match self.intents() - before {
            0 if is_there => DoorAnswer::Nothing,
            0 if is_rejected_copy(&spool, &self.waiting.last().unwrap().name) => DoorAnswer::Refused,
            0 => DoorAnswer::Known,
            _ => DoorAnswer::New,
        };
        // A crash between commit and receipt leaves the file, and the next scan finishes it.
        if answer != DoorAnswer::Nothing && !is_there {
            self.waiting.pop();
        }
        answer
    }

    /// Takes the waiting files, as the daemon does at its start: they are accepted before anything
    /// newer.
    pub fn take_waiting(&mut self) -> Checked {
        if self.waiting.is_empty() || !self.enabled {
            return Ok(());
        }
        let crash_at = self.crash_at.take();
        self.run(async |process| process.spool.drain(&CancellationToken::new()).await.unwrap());
        self.crash_at = crash_at;
        self.check_waiting_files()
    }

    /// Checks that no file that waited is gone without its intents.
    pub fn check_waiting_files(&mut self) -> Checked {
        let spool = self.place.spool();
        for waiting in std::mem::take(&mut self.waiting) {
            let is_accepted = |intent: &Value| {
                let id = intent["id"].as_str().unwrap_or_default();
                self.look(|reader| {
                    let sql = "SELECT EXISTS (SELECT 1 FROM intents WHERE id = ?1)";
                    reader.prepare_cached(sql).unwrap().query_row([id], |row| row.get::<_, bool>(0)).unwrap()
                })
            };
            let is_taken = waiting.intents.iter().all(is_accepted);
            let is_there = is_pending(&spool, &waiting.name);
            let is_refused = is_rejected_copy(&spool, &waiting.name);
            must!(is_taken || is_there || is_refused, "{waiting:?} is gone without its intents");
            if is_taken {
                self.remember(waiting.intents.clone());
            }
            if is_there {
                self.waiting.push(waiting);
            } else if is_refused && !is_taken {
                // A refusal is right if its `@ID` is unknown by now or its id is used.
                let refers = waiting
                    .intents
                    .iter()
                    .any(|intent| intent["customer_id"].as_str().is_some_and(|id| id.starts_with('@')));
                let is_nonsense = waiting.intents[0]["id"].is_null();
                let was_used =
                    self.accepted.contains_key(waiting.intents[0]["id"].as_str().unwrap_or_default());
                must!(refers || is_nonsense || was_used, "{waiting:?} was refused");
            }
        }
        Ok(())
    }

    pub fn drop_nonsense(&mut self, door: Door, which: usize) -> Checked {
        let text = NONSENSE[which % NONSENSE.len()];
        let intent: Value = serde_json::from_str(text).unwrap();
        let answer = self.give(door, &[intent])?;
        let waits = door == Door::File
            && (self.crashed || !self.enabled || self.waiting.len() > 1)
            && answer == DoorAnswer::Nothing;
        must!(answer == DoorAnswer::Refused || waits, "{door:?} answered {answer:?} to {text}");
        Ok(())
    }

    pub fn drop_again(&mut self, door: Door, which: usize, same: bool) -> Checked {
        let Some((id, known)) = self.newest_first().nth(which % self.accepted.len().max(1)) else {
            return Ok(());
        };
        let (id, known) = (id.clone(), known.clone());
        let mut intent = known.json.clone();
        if !same {
            intent["not_before"] = "2030-01-01T00:00:00Z".into();
        }
        // An intent by SQL that was cancelled before it was sent has no token any more, and never
        // had a digest.
        let (is_erased, is_masked) = self.look(|reader| {
            let sql = "SELECT erased, content IS NULL AND coalesce(body GLOB '*\"****\"*', 0)
                FROM outbox JOIN intents USING (position) WHERE id = ?1";
            let read =
                reader.query_row(sql, [&id], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)));
            read.unwrap()
        });
        let answer = self.give(door, &[intent])?;
        let waits = door == Door::File
            && (self.crashed || !self.enabled || self.waiting.len() > 1)
            && answer == DoorAnswer::Nothing;
        let fits = match door {
            Door::Sql => answer == DoorAnswer::Refused,
            _ if !same || is_erased => answer == DoorAnswer::Refused,
            // The content to compare with may be gone: the token with a backup, the first content
            // with a correction.
            _ if known.is_corrected || known.is_restored || is_masked => {
                answer == DoorAnswer::Known || answer == DoorAnswer::Refused
            }
            _ => answer == DoorAnswer::Known,
        };
        must!(fits || waits, "{door:?} answered {answer:?} to {id} again, the same: {same}");
        Ok(())
    }
}

/// Whether the file waits to be taken, or its acceptance has begun.
fn is_pending(spool: &Path, name: &str) -> bool {
    let claims = fs::read_dir(spool.join(".claimed")).into_iter().flatten().flatten();
    spool.join(name).exists() || claims.map(|claim| claim.path().join(name)).any(|path| path.exists())
}

fn is_rejected_copy(spool: &Path, name: &str) -> bool {
    spool.join("rejected").join(name).exists()
}
