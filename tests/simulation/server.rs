//! KOMOJU behind its API: the customers of two accounts, their versions, and a clock that no op
//! changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use komoju_core::{Customer, time};
use komoju_sync::clock::{Clock as _, ManualClock};
use komoju_sync::store::log::holds::Decision;
use serde_json::{Value, json};

use crate::events::{EventTrouble, ListedEvent};
use crate::pushes::{PushTrouble, RunningCreate, UsedKey};
use crate::remote::Trouble;

/// A change of the list after one of its pages was answered.
#[derive(Clone, Copy, Debug)]
pub enum Shift {
    Delete,
    Create,
    Edit,
    Move,
}

/// A push that took effect.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The intent, as the database named it when the push arrived.
    pub intent: String,
    pub account: usize,
    pub is_create: bool,
    pub customer: String,
    /// Whether a process that still runs got a clear answer.
    pub is_acknowledged: bool,
}

/// A state of a customer, and the effect that made it if that was ours.
pub type Version = (Option<String>, Option<usize>);

pub struct Server {
    /// Newest first.
    pub lists: [Vec<Value>; 2],
    pub gone: Vec<Value>,
    pub versions: HashMap<String, Vec<Version>>,
    pub trouble: Option<(Trouble, u32)>,
    pub push_trouble: Option<(PushTrouble, u32)>,
    /// The fault of this number of further events.
    pub event_trouble: Option<(EventTrouble, u32)>,
    /// Oldest first.
    pub events: Vec<ListedEvent>,
    pub shifts: VecDeque<Shift>,
    pub lists_hide_cards: bool,
    /// A decision of the operator after this number of further requests.
    pub midway: Option<(Decision, u64)>,
    pub fired: BTreeMap<String, u64>,
    pub requests: u64,
    /// The idempotency keys of each account.
    pub keys: HashMap<(usize, String), UsedKey>,
    pub running: Vec<RunningCreate>,
    pub tokens: BTreeSet<String>,
    pub effects: Vec<Effect>,
    /// Effects that no read could show when the same create was sent again.
    pub excused: BTreeSet<usize>,
    /// The intents of the pushes that arrived.
    pub senders: BTreeSet<String>,
    /// The reason why nothing may be pushed now, if there is one.
    pub closed: Option<&'static str>,
    /// Whether no other client changes anything meanwhile, so that a checked expectation still
    /// holds when the push arrives.
    pub is_quiet: bool,
    /// The pushes that must not have been sent.
    pub broken: Vec<String>,
    clock: Arc<ManualClock>,
    made: u64,
}

/// The time of KOMOJU's clock when the daemon's steady clock starts.
const BEGAN: &str = "2026-02-01T00:00:00Z";

impl Server {
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            lists: Default::default(),
            gone: Vec::new(),
            versions: HashMap::new(),
            trouble: None,
            push_trouble: None,
            event_trouble: None,
            events: Vec::new(),
            shifts: VecDeque::new(),
            lists_hide_cards: false,
            midway: None,
            fired: BTreeMap::new(),
            requests: 0,
            keys: HashMap::new(),
            running: Vec::new(),
            tokens: BTreeSet::new(),
            effects: Vec::new(),
            excused: BTreeSet::new(),
            senders: BTreeSet::new(),
            closed: None,
            is_quiet: false,
            broken: Vec::new(),
            clock,
            made: 0,
        }
    }

    pub fn now(&self) -> Timestamp {
        let began: Timestamp = BEGAN.parse().unwrap();
        began.checked_add(self.clock.elapsed()).unwrap()
    }

    pub fn count(&mut self, name: String) {
        *self.fired.entry(name).or_default() += 1;
    }

    /// Creates a customer as another client, at this time before now.
    pub fn make(&mut self, account: usize, with_card: bool, ago: Duration) {
        self.made += 1;
        let card = json!({"brand": "visa", "last_four_digits": format!("{:04}", self.made)});
        let created = self.now().checked_sub(ago).unwrap();
        let customer = json!({
            "id": format!("c{account}x{}", self.made * 7919 % 10_007), "resource": "customer", "n": self.made,
            "email": format!("{}@example.com", self.made), "metadata": {},
            "source": if with_card { card } else { Value::Null }, "created_at": written(created),
        });
        self.note(&customer, None);
        self.lists[account].insert(0, customer);
    }

    /// Creates a customer for our own push.
    pub fn make_ours(&mut self, account: usize, body: &Value) -> Value {
        self.made += 1;
        let created = written(self.now());
        let mut customer = json!({
            "id": format!("c{account}p{}", self.made), "resource": "customer", "n": self.made, "email": null, "metadata": {},
            "source": null, "created_at": created,
        });
        self.change(&mut customer, body);
        self.lists[account].insert(0, customer.clone());
        customer
    }

    /// Applies the body of a create or an update to a customer.
    pub fn change(&mut self, customer: &mut Value, body: &Value) {
        if let Some(email) = body.get("email") {
            customer["email"] = email.clone();
        }
        for (key, value) in body.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            match (value, customer["metadata"].as_object_mut()) {
                (Value::Null, Some(metadata)) => drop(metadata.remove(key)),
                (value, _) => customer["metadata"][key.as_str()] = value.clone(),
            }
        }
        if let Some(token) = body.get("payment_details").and_then(Value::as_str) {
            self.tokens.insert(token.to_owned());
            let four = format!("{:04}", self.tokens.len());
            customer["source"] = json!({"brand": "master", "last_four_digits": four});
        }
    }

    /// Records the new state of a customer, and its effect if it was ours.
    pub fn note(&mut self, customer: &Value, effect: Option<usize>) {
        let id = customer["id"].as_str().unwrap().to_owned();
        self.emit(&id);
        self.versions.entry(id).or_default().push((Some(text(customer)), effect));
    }

    pub fn note_gone(&mut self, id: &str, effect: Option<usize>) {
        self.emit(id);
        self.versions.entry(id.to_owned()).or_default().push((None, effect));
    }

    pub fn find(&self, account: usize, id: &str) -> Option<usize> {
        self.lists[account].iter().position(|customer| customer["id"] == id)
    }

    pub fn edit(&mut self, place: usize, field: &str, value: Value) {
        let len = self.lists[0].len();
        if len > 0 {
            self.lists[0][place % len][field] = value;
            let edited = self.lists[0][place % len].clone();
            self.note(&edited, None);
        }
    }

    pub fn delete(&mut self, place: usize) {
        let len = self.lists[0].len();
        if len > 0 {
            let gone = self.lists[0].remove(place % len);
            self.note_gone(gone["id"].as_str().unwrap(), None);
            self.gone.push(gone);
        }
    }

    pub fn come_back(&mut self) {
        if let Some(back) = self.gone.pop() {
            self.note(&back, None);
            self.lists[0].insert(0, back);
        }
    }

    /// Returns a customer for an intent, live or deleted.
    pub fn any_customer(&self, place: usize) -> (String, Value) {
        let count = self.lists[0].len() + self.gone.len();
        let customer = match count {
            0 => return ("none".to_owned(), Value::Null),
            n => self.lists[0].iter().chain(&self.gone).nth(place % n).unwrap(),
        };
        (customer["id"].as_str().unwrap().to_owned(), customer.clone())
    }

    pub fn shift(&mut self) {
        let Some(shift) = self.shifts.pop_front() else { return };
        self.count(format!("Shift::{shift:?}"));
        match shift {
            Shift::Delete => self.delete(1),
            Shift::Create => self.make(0, true, Duration::ZERO),
            Shift::Edit => self.edit(2, "email", json!(format!("{}@edited.example", self.requests))),
            Shift::Move => {
                if let Some(last) = self.lists[0].pop() {
                    self.lists[0].insert(0, last);
                }
            }
        }
    }
}

/// Returns a customer in its canonical form.
pub fn text(customer: &Value) -> String {
    Customer::from_value(customer.clone()).unwrap().body().to_owned()
}

/// Formats a time as KOMOJU does: whole seconds.
fn written(moment: Timestamp) -> String {
    format!("{moment:.0}")
}

/// Whether a customer was created since, as a filter on the list sees it.
pub fn is_since(customer: &Value, from: Option<Timestamp>) -> bool {
    let made = customer["created_at"].as_str().and_then(time::read).unwrap();
    from.is_none_or(|from| made >= from)
}
