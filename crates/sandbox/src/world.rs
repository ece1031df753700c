//! Everything a sandbox knows, under one lock: accounts, keys, clock, readings, faults and what was asked.
//!
//! A request meets the world twice and holds the lock only then: when it arrives (faults fire, the key is looked at, the
//! idempotency key is taken) and, after any delay, when it takes effect. So a slow request is in flight as a real one is.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::Options;
use super::account::{Account, Reveal};
use super::answer::Answer;
use super::auth::{Keys, OldKey, Refusal};
use super::clock::Clock;
use super::customers;
use super::fault::{Armed, Effect, Fault, FaultId, Faults, Fired, Work, milliseconds};
use super::idempotency::{Store, Ticket};
use super::limit::Limiter;
use super::ordered::Ordered;
use super::outcome::Outcome;
use super::readings::{Locale, Readings, ServerErrors, Source};
use super::request::{Log, Request, Route, Seen};

/// What a sandbox holds. Customers are those of the default account; others are reached by [`World::account`].
#[derive(Debug)]
pub struct World {
    pub(super) readings: Readings,
    /// The default account first.
    pub(super) accounts: Vec<Account>,
    pub(super) counts: Counts,
    pub(super) log: Log,
    clock: Clock,
    key: String,
    keys: Keys,
    faults: Faults,
    limiter: Limiter,
    idempotency: Store,
    latency: Duration,
    /// Counts changes that somebody may wait for.
    changes: watch::Sender<u64>,
}

/// Writes done by requests, in all accounts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) creates: u64,
    pub(super) updates: u64,
    pub(super) deletes: u64,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let clock = Clock::new(options.now);
        let account = Account::new(options.seed, 0, options.customers, clock.now());
        let mut keys = Keys::default();
        keys.add(&options.key, 0);
        Self {
            readings: options.readings.clone(),
            accounts: vec![account],
            counts: Counts::default(),
            log: Log::default(),
            clock,
            key: options.key.clone(),
            keys,
            faults: Faults::default(),
            limiter: Limiter::default(),
            idempotency: Store::default(),
            latency: options.latency,
            changes: watch::Sender::new(0),
        }
    }

    /// The ids of all customers, newest first.
    pub fn ids(&self) -> Vec<String> {
        self.accounts[0].ids()
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.accounts[0].len()
    }

    /// Whether there is no customer.
    pub fn is_empty(&self) -> bool {
        self.accounts[0].is_empty()
    }

    /// The customer's JSON text, its keys in the order in which the API writes them.
    pub fn text(&self, id: &str) -> Option<String> {
        self.get(id).map(|customer| serde_json::to_string(&Ordered(&customer)).unwrap_or_default())
    }

    /// A customer with everything it has, whatever the readings hide.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.accounts[0].get(id)
    }

    /// What a show would answer, for every customer that a show can name.
    pub fn truth(&self) -> BTreeMap<String, Value> {
        self.accounts[0].truth(self.shown())
    }

    /// What a show reveals to a client of the newest version.
    pub(super) fn shown(&self) -> Reveal {
        Reveal {
            source: self.readings.show_source == Source::Shown,
            locale: self.readings.locale != Locale::Hidden,
        }
    }

    /// Creates a customer from the fields given, of which none is checked, and answers its id.
    pub fn create(&mut self, fields: Value) -> String {
        let now = self.now();
        self.tick(0).create(now, fields)
    }

    /// Sets some fields of a customer, of which none is checked. False when there is no such customer.
    pub fn update(&mut self, id: &str, patch: Value) -> bool {
        let now = self.now();
        self.tick(0).update(now, id, patch)
    }

    /// Deletes a customer. False when there is none.
    pub fn delete(&mut self, id: &str) -> bool {
        let now = self.now();
        self.tick(0).delete(now, id)
    }

    /// Brings a deleted customer back as it was. False when none of this id was deleted.
    pub fn restore(&mut self, id: &str) -> bool {
        self.tick(0).restore(id)
    }

    /// Puts in any value whatever as a customer; see [`Account::put_raw`].
    pub fn put_raw(&mut self, customer: Value) {
        let now = self.now();
        self.tick(0).put_raw(now, customer);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.tick(0).remove_all();
    }

    /// The account that a key opens.
    pub fn account(&mut self, key: &str) -> Option<&mut Account> {
        let number = self.keys.account(key)?;
        Some(self.tick(number))
    }

    /// An account that knows what time it is and how far reads are behind. Nothing changes an account before this: what
    /// a replica has to learn later would be lost.
    pub(super) fn tick(&mut self, account: usize) -> &mut Account {
        let now = self.now();
        let account = &mut self.accounts[account];
        account.tick(now, self.readings.list_lag_s, self.readings.show_lag_s);
        account
    }

    /// Another account with customers of its own; even with the same seed it shares none with the others.
    pub fn add_account(&mut self, key: &str, seed: u64, customers: u32) {
        let number = self.accounts.len();
        self.accounts.push(Account::new(seed, number as u64, customers, self.now()));
        self.keys.add(key, number);
    }

    /// The default account's newest key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Gives the default account a new key.
    pub fn rotate_key(&mut self, new: &str, old: OldKey) {
        if old == OldKey::Revoked {
            self.keys.revoke(&self.key);
        }
        self.keys.add(new, 0);
        self.key = new.to_owned();
    }

    /// Refuses every key, until told `None`.
    pub fn refuse_key(&mut self, refusal: Option<Refusal>) {
        self.keys.refusal = refusal;
    }

    /// The readings, to be changed from the next request on.
    pub fn readings_mut(&mut self) -> &mut Readings {
        &mut self.readings
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock forward.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    /// Moves the clock anywhere.
    pub fn set_now(&mut self, to: Timestamp) {
        self.clock.set(to);
    }

    /// How long every request takes at least.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Makes every request take so long at least.
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// The latest requests to the API, some thousands of them.
    pub fn requests(&self) -> &[Seen] {
        self.log.seen()
    }

    /// How many requests to the API there were.
    pub fn request_count(&self) -> u64 {
        self.log.count()
    }

    /// Forgets the requests, not their count.
    pub fn clear_requests(&mut self) {
        self.log.clear();
    }

    /// How many creates took effect by a request.
    pub fn creates(&self) -> u64 {
        self.counts.creates
    }

    /// How many updates took effect by a request.
    pub fn updates(&self) -> u64 {
        self.counts.updates
    }

    /// How many deletes took effect by a request.
    pub fn deletes(&self) -> u64 {
        self.counts.deletes
    }

    /// Lets a fault happen from the next request on.
    pub fn inject(&mut self, fault: Fault) -> FaultId {
        self.faults.inject(fault)
    }

    /// Ends a fault; its counters stay. False when it has ended already.
    pub fn remove_fault(&mut self, id: FaultId) -> bool {
        self.touch();
        self.faults.remove(id)
    }

    /// Ends every fault; their counters stay.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.touch();
    }

    /// How often a fault has fired.
    pub fn fired(&self, id: FaultId) -> u64 {
        self.faults.fired(id)
    }

    /// How often the faults of each kind have fired, also those that have ended.
    pub fn fired_by_kind(&self) -> BTreeMap<String, u64> {
        self.faults.fired_by_kind()
    }

    pub(super) fn faults(&self) -> &[Armed] {
        self.faults.armed()
    }

    pub(super) fn is_armed(&self, id: FaultId) -> bool {
        self.faults.is_armed(id)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn touch(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A request came in.
    pub(super) fn arrive(&mut self, request: &Request, route: Route) -> Arrival {
        let asked = request.asked(&route);
        let (now, latency) = (self.now(), self.latency);
        let number = self.log.add(request, asked.page, now);
        if let Some(limit) = &self.readings.rate_limit
            && let Err(refused) = self.limiter.admit(limit, now)
        {
            self.touch();
            let gate = Gate::Answered(refused);
            return Arrival { number, route, fired: Vec::new(), gate, wait: latency, holds: Vec::new() };
        }
        let fired = self.faults.fire(&asked);
        self.touch();
        let gate = self.gate(request, &route, &fired);
        let mut wait = latency;
        let mut holds = Vec::new();
        for fired in &fired {
            match fired.effect {
                Effect::Delay { ms } => wait += milliseconds(ms),
                Effect::Hold => holds.push(fired.id),
                _ => {}
            }
        }
        Arrival { number, route, fired, gate, wait, holds }
    }

    fn gate(&mut self, request: &Request, route: &Route, fired: &[Fired]) -> Gate {
        if fired.iter().any(|fired| fired.effect.stops_in_front()) {
            return Gate::Closed;
        }
        let account = match self.keys.admit(request.header("authorization")) {
            Ok(account) => account,
            Err(refused) => return Gate::Answered(refused),
        };
        let key = request.headers.get("x-komoju-idempotency").filter(|_| *route == Route::Create);
        let Some(key) = key else {
            return Gate::Open { account, ticket: None };
        };
        let key = String::from_utf8_lossy(key.as_bytes());
        match self.idempotency.begin(account, &key, &request.body, self.now()) {
            Ok(ticket) => Gate::Open { account, ticket: Some(ticket) },
            Err(answer) => Gate::Answered(answer),
        }
    }

    /// A request takes effect, or is denied it, and is answered.
    pub(super) fn complete(&mut self, request: &Request, arrival: Arrival) -> Outcome {
        let Arrival { number, route, fired, gate, .. } = arrival;
        let answer = match gate {
            Gate::Closed => None,
            Gate::Answered(answer) => Some(answer),
            Gate::Open { account, ticket } => {
                let skipped = fired.iter().any(|fired| fired.effect.work() == Work::Skipped);
                let done =
                    (!skipped).then(|| customers::answer(self, account, request, number, &route, &fired));
                // An error of the API itself is what its idempotency store sees.
                let error = fired.iter().find_map(|fired| fired.effect.server_error());
                let answer = error.or(done);
                if let (Some(ticket), Some(answer)) = (&ticket, &answer) {
                    self.keep(ticket, answer);
                }
                answer
            }
        };
        let outcome = Outcome::new(answer, request, self.now(), &fired);
        if let Some(status) = outcome.status() {
            self.log.answered(number, status.as_u16());
        }
        self.touch();
        outcome
    }

    fn keep(&mut self, ticket: &Ticket, answer: &Answer) {
        let error = answer.status >= StatusCode::INTERNAL_SERVER_ERROR;
        if error && self.readings.server_errors == ServerErrors::Forgotten {
            self.idempotency.forget(ticket);
        } else {
            self.idempotency.finish(ticket, answer);
        }
    }
}

/// A request between its arrival and its answer.
#[derive(Debug)]
pub(super) struct Arrival {
    number: u64,
    route: Route,
    fired: Vec<Fired>,
    gate: Gate,
    /// How long it takes at least.
    pub(super) wait: Duration,
    /// It does not go on while one of these faults is there.
    pub(super) holds: Vec<FaultId>,
}

#[derive(Debug)]
enum Gate {
    /// A fault in front of the API keeps it from everything.
    Closed,
    /// Refused, or answered from the idempotency store.
    Answered(Answer),
    /// It may take effect.
    Open { account: usize, ticket: Option<Ticket> },
}
