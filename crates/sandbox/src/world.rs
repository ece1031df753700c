//! Owns the state of a sandbox: accounts, keys, clock, readings, faults and the request log.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::account::ordered::Ordered;
use crate::account::{Account, Reveal};
use crate::api::Counts;
use crate::api::idempotency::Store;
use crate::api::keys::{Keys, OldKey, Refusal};
use crate::clock::Clock;
use crate::faults::{Armed, Fault, FaultId, Faults};
use crate::limit::Limiter;
use crate::log::{Log, Seen};
use crate::options::Options;
use crate::readings::{Locale, Readings, Source};

mod arrival;
mod trickle;

/// What a sandbox holds. Customers are those of the default account; others are reached by [`World::account`].
#[derive(Debug)]
pub struct World {
    pub(crate) readings: Readings,
    /// The default account first.
    pub(crate) accounts: Vec<Account>,
    pub(crate) counts: Counts,
    pub(crate) log: Log,
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

impl World {
    pub(crate) fn new(options: &Options) -> Self {
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
    pub(crate) fn shown(&self) -> Reveal {
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
    pub(crate) fn tick(&mut self, account: usize) -> &mut Account {
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

    pub(crate) fn faults(&self) -> &[Armed] {
        self.faults.armed()
    }

    pub(crate) fn is_armed(&self, id: FaultId) -> bool {
        self.faults.is_armed(id)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn touch(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
