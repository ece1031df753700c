//! Checks an image of the disk against what was certain when the image was taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Condvar, Mutex};

use komoju_sync::store::Store;
use komoju_sync::store::log::verify::verify;
use lossy_vfs::{Image, Keep};
use rusqlite::Connection;
use serde_json::Value;

use crate::ledger::{Ledger, Promise, Watermark};

/// One image in this number is also opened as the daemon opens its database.
const OPENED_ONE_IN: u64 = 40;

/// The length from which on the queue counts as long: enough for the checkers.
const LONG: usize = 32;

/// A moment at which the power may be cut.
pub struct CrashPoint {
    pub image: Image,
    pub known: Watermark,
    pub keep: Keep,
    pub seed: u64,
}

/// Crash points that wait for a checker. Putting one never blocks, because the thread may hold the
/// lock of the database. The droppers wait instead.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    points: VecDeque<CrashPoint>,
    is_closed: bool,
}

impl Queue {
    pub fn put(&self, point: CrashPoint) {
        self.waiting.lock().unwrap().points.push_back(point);
        self.changed.notify_all();
    }

    /// Marks the queue as complete.
    pub fn close(&self) {
        self.waiting.lock().unwrap().is_closed = true;
        self.changed.notify_all();
    }

    /// Takes the next one. Returns `None` after the last.
    pub fn take(&self) -> Option<CrashPoint> {
        let has_none = |waiting: &mut Waiting| waiting.points.is_empty() && !waiting.is_closed;
        let mut waiting = self.changed.wait_while(self.waiting.lock().unwrap(), has_none).unwrap();
        self.changed.notify_all();
        waiting.points.pop_front()
    }

    /// Waits until the queue is short.
    pub fn wait_until_short(&self) {
        let is_long = |waiting: &mut Waiting| waiting.points.len() > LONG;
        drop(self.changed.wait_while(self.waiting.lock().unwrap(), is_long).unwrap());
    }
}

/// What an image has lost, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Accepted intents that are missing, or differ from what was dropped.
    pub intents: Vec<String>,
    /// Keys of creates that reached the API and are missing: these creates would be sent again as
    /// new ones.
    pub keys: Vec<String>,
    /// Other findings: damage, a log that does not fold to the mirror or does not contain its head.
    pub findings: Vec<String>,
}

impl Loss {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The results of all images.
#[derive(Debug, Default)]
pub struct Sum {
    pub kinds: BTreeMap<Keep, usize>,
    /// Images with unsynced changes.
    pub with_unsynced: usize,
    /// Intents that an image has lost, and the number of such images.
    pub lost_intents: BTreeSet<String>,
    pub images_with_lost_intents: usize,
    pub images_with_lost_keys: usize,
    /// The first five losses.
    pub losses: Vec<String>,
    pub findings: Vec<String>,
}

impl Sum {
    pub fn add(&mut self, point: &CrashPoint, loss: Loss) {
        *self.kinds.entry(point.keep).or_default() += 1;
        self.with_unsynced += usize::from(point.image.unsynced() > 0);
        self.images_with_lost_intents += usize::from(!loss.intents.is_empty());
        self.images_with_lost_keys += usize::from(!loss.keys.is_empty());
        if !loss.is_none() && self.losses.len() < 5 {
            self.losses.push(format!("{:?} seed {}: {loss:?}", point.keep, point.seed));
        }
        self.lost_intents.extend(loss.intents);
        self.findings.extend(loss.findings);
    }

    pub fn images(&self) -> usize {
        self.kinds.values().sum()
    }
}

/// Writes the directory that may be found after the power cut, and checks it.
pub fn check_image(point: &CrashPoint, ledger: &Ledger) -> Loss {
    let directory = tempfile::TempDir::new().unwrap();
    point.image.write_to(directory.path(), point.keep, point.seed).unwrap();
    let path = directory.path().join("komoju.db");
    let mut loss = Loss::default();
    if point.seed.is_multiple_of(OPENED_ONE_IN)
        && let Err(error) = Store::open(&path)
    {
        loss.findings.push(error.to_string());
    }
    if let Err(error) = compare(&path, point.known, ledger, &mut loss) {
        loss.findings.push(error.to_string());
    }
    loss
}

fn compare(
    path: &Path,
    known: Watermark,
    ledger: &Ledger,
    loss: &mut Loss,
) -> Result<(), Box<dyn std::error::Error>> {
    let conn = Connection::open(path)?;
    loss.findings.extend(verify(&conn, known.head)?.findings);
    let mut statement = conn
        .prepare("SELECT id, op, customer_id, body, state, key FROM intents JOIN outbox USING (position)")?;
    let mut rows_by_id = HashMap::new();
    let mut keys = HashMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, op): (String, String) = (row.get(0)?, row.get(1)?);
        let (customer, body): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        if let Some(key) = row.get::<_, Option<String>>(5)? {
            keys.insert(key, row.get::<_, String>(4)?);
        }
        rows_by_id.insert(id, (op, customer, body));
    }
    let (promises, sent) = ledger.below(known);
    for promise in promises {
        let is_kept = rows_by_id.get(&promise.id).is_some_and(|(op, customer, body)| {
            op == promise.op && *customer == promise.customer && same_body(&promise, body.as_deref())
        });
        if !is_kept {
            loss.intents.push(promise.id.clone());
        }
    }
    for key in sent {
        // A key is committed before its first byte is sent, and kept as long as the create may be
        // sent again.
        if keys.get(&*key).is_none_or(|state| state == "queued") {
            loss.keys.push(key.to_string());
        }
    }
    Ok(())
}

/// Whether a row contains what was dropped. A token is wiped when its intent settles.
fn same_body(promise: &Promise, body: Option<&str>) -> bool {
    if promise.body.as_ref().map(Value::to_string).as_deref() == body {
        return true;
    }
    let without_token = |body: Option<Value>| {
        body.map(|mut body| {
            body.as_object_mut().map(|fields| fields.remove("payment_details"));
            body
        })
    };
    without_token(promise.body.clone())
        == without_token(body.and_then(|body| serde_json::from_str(body).ok()))
}
