//! The state of a sandbox: accounts, keys, clock, readings, faults and the request log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::account::ordered::Ordered;
use crate::account::{EventIds, Reveal, SandboxAccount};
use crate::api::Counts;
use crate::api::idempotency::IdempotencyStore;
use crate::api::keys::{KeyRefusal, Keys, OldKey};
use crate::clock::SandboxClock;
use crate::faults::{ArmedFault, Fault, FaultId, Faults};
use crate::limit::FirewallLimiter;
use crate::log::{Log, LoggedRequest};
use crate::options::Options;
use crate::readings::{Locale, Readings, Source};

mod arrival;
mod trickle;
mod webhooks;

pub(crate) use webhooks::NewWebhook;

/// The state of a sandbox. Customers are those of the default account; [`World::account`] returns
/// other accounts.
#[derive(Debug)]
pub struct World {
    pub(crate) readings: Readings,
    /// The default account first.
    pub(crate) accounts: Vec<SandboxAccount>,
    pub(crate) counts: Counts,
    pub(crate) log: Log,
    clock: SandboxClock,
    key: String,
    keys: Keys,
    faults: Faults,
    limiter: FirewallLimiter,
    idempotency: IdempotencyStore,
    latency: Duration,
    new_webhooks: Vec<NewWebhook>,
    webhook_registered: Arc<Notify>,
    /// Counts the changes for which [`Sandbox::until`](crate::Sandbox::until) waits.
    changes: watch::Sender<u64>,
}

impl World {
    /// Returns the state of a sandbox with these options.
    pub(crate) fn new(options: &Options) -> Self {
        let clock = SandboxClock::new(options.now);
        let account = SandboxAccount::new(options.seed, 0, options.customers, clock.now());
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
            limiter: FirewallLimiter::default(),
            idempotency: IdempotencyStore::default(),
            latency: options.latency,
            new_webhooks: Vec::new(),
            webhook_registered: Arc::new(Notify::new()),
            changes: watch::Sender::new(0),
        }
    }

    /// Returns the ids of all customers, newest first.
    pub fn ids(&self) -> Vec<String> {
        self.accounts[0].ids()
    }

    /// Returns the number of customers.
    pub fn len(&self) -> usize {
        self.accounts[0].len()
    }

    /// Whether there is no customer.
    pub fn is_empty(&self) -> bool {
        self.accounts[0].is_empty()
    }

    /// Returns a customer's JSON text, with its keys in the order of the API.
    pub fn text(&self, id: &str) -> Option<String> {
        self.get(id).map(|customer| serde_json::to_string(&Ordered(&customer)).unwrap_or_default())
    }

    /// Returns a customer with all fields, also those that the readings hide.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.accounts[0].get(id)
    }

    /// Returns the answer of show for each customer with an id.
    pub fn truth(&self) -> BTreeMap<String, Value> {
        self.accounts[0].truth(self.shown())
    }

    /// Returns which fields show shows to a client of the newest version.
    pub(crate) fn shown(&self) -> Reveal {
        Reveal {
            source: self.readings.show_source == Source::Shown,
            locale: self.readings.locale != Locale::Hidden,
        }
    }

    /// Creates a customer and returns its id; see [`SandboxAccount::create`].
    pub fn create(&mut self, fields: Value) -> String {
        let now = self.now();
        self.tick(0).create(now, fields)
    }

    /// Sets some fields of a customer without checks. Returns false if there is no such customer.
    pub fn update(&mut self, id: &str, patch: Value) -> bool {
        let now = self.now();
        self.tick(0).update(now, id, patch)
    }

    /// Deletes a customer. Returns false if there is no such customer.
    pub fn delete(&mut self, id: &str) -> bool {
        let now = self.now();
        self.tick(0).delete(now, id)
    }

    /// Restores a deleted customer unchanged. Returns false if no customer with this id was
    /// deleted.
    pub fn restore(&mut self, id: &str) -> bool {
        self.tick(0).restore(id)
    }

    /// Stores any JSON value as a customer; see [`SandboxAccount::put_raw`].
    pub fn put_raw(&mut self, customer: Value) {
        let now = self.now();
        self.tick(0).put_raw(now, customer);
    }

    /// Emits an event for any id, without a change; see [`SandboxAccount::emit`].
    pub fn emit(&mut self, kind: &str, id: &str) {
        let now = self.now();
        self.tick(0).emit(now, kind, id);
    }

    /// Emits many events at once, without changes; see [`SandboxAccount::flood`].
    pub fn flood(&mut self, count: u32, ids: EventIds, rng: &mut impl Rng) {
        let now = self.now();
        self.tick(0).flood(now, count, ids, rng);
    }

    /// Deletes every customer at once, without events.
    pub fn remove_all(&mut self) {
        self.tick(0).remove_all();
    }

    /// Returns the account of a key.
    pub fn account(&mut self, key: &str) -> Option<&mut SandboxAccount> {
        let number = self.keys.account(key)?;
        Some(self.tick(number))
    }

    /// Returns an account after passing it the time and the lags. Call this before each change of
    /// an account; otherwise its replicas would miss the change.
    pub(crate) fn tick(&mut self, account: usize) -> &mut SandboxAccount {
        let now = self.now();
        let account = &mut self.accounts[account];
        account.tick(now, &self.readings);
        account
    }

    /// Adds an account. Even with the same seed it shares no customer with another account.
    pub fn add_account(&mut self, key: &str, seed: u64, customers: u32) {
        let number = self.accounts.len();
        self.accounts.push(SandboxAccount::new(seed, number as u64, customers, self.now()));
        self.keys.add(key, number);
    }

    /// Returns the newest key of the default account.
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

    /// Refuses every key, until this is called with none.
    pub fn refuse_key(&mut self, refusal: Option<KeyRefusal>) {
        self.keys.refusal = refusal;
    }

    /// Returns the readings. A change applies from the next request on.
    pub fn readings_mut(&mut self) -> &mut Readings {
        // A request that hangs checks whether this changes the reading.
        self.touch();
        &mut self.readings
    }

    /// Returns the sandbox's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock forward.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    /// Sets the clock.
    pub fn set_now(&mut self, to: Timestamp) {
        self.clock.set(to);
    }

    /// Returns the least time of each request.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Sets the least time of each request.
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// Returns the latest requests to the API, at least 5,000 of them.
    pub fn requests(&self) -> &[LoggedRequest] {
        self.log.requests()
    }

    /// Returns the number of requests to the API.
    pub fn request_count(&self) -> u64 {
        self.log.count()
    }

    /// Drops the logged requests, and keeps their count.
    pub fn clear_requests(&mut self) {
        self.log.clear();
    }

    /// Returns how many creates of requests took effect.
    pub fn creates(&self) -> u64 {
        self.counts.creates
    }

    /// Returns how many updates of requests took effect.
    pub fn updates(&self) -> u64 {
        self.counts.updates
    }

    /// Returns how many deletes of requests took effect.
    pub fn deletes(&self) -> u64 {
        self.counts.deletes
    }

    /// Adds a fault, which applies from the next request on.
    pub fn inject(&mut self, fault: Fault) -> FaultId {
        self.faults.inject(fault)
    }

    /// Removes a fault, and keeps its counters. Returns false if there is no such fault.
    pub fn remove_fault(&mut self, id: FaultId) -> bool {
        self.touch();
        self.faults.remove(id)
    }

    /// Removes all faults, and keeps their counters.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.touch();
    }

    /// Returns how often a fault has fired.
    pub fn fired(&self, id: FaultId) -> u64 {
        self.faults.fired(id)
    }

    /// Returns how often the faults of each kind have fired, removed ones included.
    pub fn fired_by_kind(&self) -> BTreeMap<String, u64> {
        self.faults.fired_by_kind()
    }

    /// Returns the faults that are not removed.
    pub(crate) fn faults(&self) -> &[ArmedFault] {
        self.faults.armed()
    }

    /// Whether a fault is not removed.
    pub(crate) fn is_armed(&self, id: FaultId) -> bool {
        self.faults.is_armed(id)
    }

    /// Returns the counter of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Counts a change.
    pub(crate) fn touch(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
