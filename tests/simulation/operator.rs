//! Decisions of the operator, backups, restores, erasures and rebuilds, as the commands do them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use komoju_core::intent::IntentBody;
use komoju_core::{CustomerId, time};
use komoju_sync::clock::Clock as _;
use komoju_sync::store::file::copy_job::CopyJob;
use komoju_sync::store::file::{backup, restore};
use komoju_sync::store::log::holds;
use komoju_sync::store::log::holds::Decision;
use komoju_sync::store::log::verify;
use komoju_sync::store::outbox::erase;
use komoju_sync::store::outbox::operator;
use komoju_sync::store::state::account;
use komoju_sync::store::{Instance, OperatorConnection, Store, StoreError, Tx, WipeOutcome, write_and_wipe};
use komoju_sync::tasks::spool::erase as files;
use serde_json::json;

use crate::doors::AcceptedIntent;
use crate::log::{self, Log};
use crate::place::remove_database;
use crate::world::{Checked, World, must};

/// A backup, and the accepted intents when it was made.
pub struct KeptBackup {
    file: PathBuf,
    accepted: BTreeMap<String, AcceptedIntent>,
}

/// The number of backups that are kept.
const BACKUPS: usize = 3;

impl World<'_> {
    /// Writes as a command does. One connection serves many writes, because opening one takes
    /// longer than most of them.
    pub fn write<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut harness = self.harness.borrow_mut();
        harness.get_or_insert_with(|| OperatorConnection::open(&self.place.database()).unwrap()).write(work)
    }

    fn as_operator<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Option<T> {
        match self.write(work) {
            Ok(value) => Some(value),
            // The command would print this refusal.
            Err(StoreError::Refused(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn decide(&self, decision: Decision) {
        self.as_operator(|tx| holds::decide(tx, None, decision, "t", "simulation"));
    }

    pub fn accept_account(&self) -> Option<[u8; 32]> {
        // A hinted deletion compares this time with the last whole sweep.
        let at = time::written(self.clock.now());
        self.as_operator(|tx| account::accept(tx, &at))
    }

    pub fn approve_deletes(&self) {
        self.as_operator(|tx| operator::approve(tx, &[]));
    }

    fn pick(&self, which: usize) -> Option<String> {
        self.newest_first().nth(which % self.accepted.len().max(1)).map(|(id, _)| id.clone())
    }

    pub fn retry(&mut self, which: usize, corrected: bool) -> Checked {
        // An operator mostly retries parked and rejected intents.
        let stuck: Vec<String> = self.look(|reader| {
            let sql = "SELECT id FROM intents WHERE state IN ('parked', 'rejected') ORDER BY position";
            let mut statement = reader.prepare_cached(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        });
        let id = match stuck.len() {
            0 => self.pick(which),
            n => Some(stuck[which % n].clone()),
        };
        let Some(id) = id else { return Ok(()) };
        let (state, is_unknown, has_key): (String, bool, bool) = self.look(|reader| {
            let sql = "SELECT state, outcome_unknown, key IS NOT NULL FROM intents JOIN outbox USING (position) WHERE id = ?1";
            reader.query_row(sql, [&id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
        });
        self.dropped += 1;
        let n = self.dropped;
        let body = corrected.then(|| {
            let body = json!({"email": format!("fixed{n}@example.com"), "payment_details": format!("tok_{}r{n}", self.seed)});
            IntentBody::new(body).unwrap()
        });
        let Some(life) = self.as_operator(|tx| operator::retry(tx, &id, body.as_ref())) else {
            return Ok(());
        };
        let legal = matches!(state.as_str(), "parked" | "rejected");
        must!(legal, "{id} was {state}, and a retry made it {}", life.state);
        let was_set_back = self.was_set_back;
        let known = self.accepted.get_mut(&id).unwrap();
        // To correct the body, or to continue a restored intent, the operator has checked KOMOJU.
        let keeps_key = !corrected && state == "parked" && is_unknown && has_key;
        if (is_unknown && (corrected || self.was_swapped))
            || (known.is_restored && (!keeps_key || was_set_back))
        {
            known.may_make += 1;
        }
        if let Some(body) = body {
            known.body = Some(body.fields().clone().into());
            known.is_corrected = true;
        }
        if !keeps_key {
            known.is_restored = false;
        }
        Ok(())
    }

    pub fn cancel(&mut self, which: usize) -> Checked {
        let Some(id) = self.pick(which) else { return Ok(()) };
        let before: String = self.state_of(&id);
        let at = time::written(self.clock.now());
        let done = match which.is_multiple_of(2) {
            true => self.as_operator(|tx| operator::cancel(tx, &id, &at, "simulation")).is_some(),
            false => {
                let sql = "UPDATE intents SET state = 'cancelled' WHERE id = ?1";
                self.client.as_ref().unwrap().execute(sql, [&id]).is_ok()
            }
        };
        let may = matches!(before.as_str(), "queued" | "parked" | "cancelled");
        must!(!done || may, "{id} was {before}, and was cancelled");
        Ok(())
    }

    fn state_of(&self, id: &str) -> String {
        let sql = "SELECT state FROM intents WHERE id = ?1";
        self.look(|reader| reader.query_row(sql, [id], |row| row.get(0)).unwrap())
    }

    pub fn backup(&mut self) -> Checked {
        self.dropped += 1;
        let file = self.place.path().join(format!("backup{}.db", self.dropped));
        let made = backup::make(&self.place.database(), &file, &CopyJob::default()).unwrap();
        must!(made.verified.finding_count == 0, "{:?}", made.verified.findings);
        // Invariant 9. The file is closed, so its bytes can be read directly.
        let bytes = fs::read(&file).unwrap();
        must!(!bytes.windows(4).any(|four| four == b"tok_"), "a token is in a backup");
        let accepted = self.accepted.clone();
        self.backups.push(KeptBackup { file, accepted });
        if self.backups.len() > BACKUPS {
            remove_database(&self.backups.remove(0).file);
        }
        Ok(())
    }

    pub fn restore(&mut self, which: usize) -> Checked {
        if self.backups.is_empty() {
            return Ok(());
        }
        let path = self.place.database();
        let made: BTreeMap<String, usize> =
            self.accepted.iter().map(|(id, known)| (id.clone(), known.may_make)).collect();
        self.close_connections();
        let kept = &self.backups[which % self.backups.len()];
        let now = self.clock.now();
        let instance = Instance::take(&path, "restore", now).unwrap();
        let copy = self.place.path().join("copy.db");
        restore::prepare(&kept.file, &copy, &time::written(now), &CopyJob::default()).unwrap();
        restore::give_to_owner(&copy, &path).unwrap();
        let placed = restore::put_in_place(&copy, &path, "then").unwrap();
        drop(instance);
        self.accepted = kept.accepted.clone();
        for (id, known) in &mut self.accepted {
            known.is_restored = true;
            // Decisions of operators since the backup still count.
            known.may_make = known.may_make.max(made.get(id).copied().unwrap_or(1));
        }
        if let Some(old) = placed.kept {
            for suffix in ["-wal", "-shm"] {
                let _ = fs::remove_file(komoju_sync::store::sibling(&old, suffix));
            }
            remove_database(&old);
        }
        self.log = Log::default();
        self.needs_operator = BTreeSet::new();
        // The restored database lacks later acknowledgements.
        self.server.lock().unwrap().effects.iter_mut().for_each(|effect| effect.is_acknowledged = false);
        self.restart();
        self.seen = self.look(|reader| {
            reader.query_row("SELECT coalesce(max(n), 0) FROM seen", [], |row| row.get(0)).unwrap()
        });
        Ok(())
    }

    pub fn erase(&mut self, place: usize) -> Checked {
        let gone: Vec<String> = self.look(|reader| {
            let sql = "SELECT id FROM deleted_customers ORDER BY id";
            let mut statement = reader.prepare_cached(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        });
        let id = match gone.len() {
            // A live or unknown customer is not erased.
            0 => self.server.lock().unwrap().any_customer(place).0,
            n => gone[place % n].clone(),
        };
        let id = CustomerId::new(id).unwrap();
        let at = time::written(self.clock.now());
        let spool = self.place.spool();
        let erased = write_and_wipe(&self.place.database(), |tx| {
            let erasure = erase::erase(tx, &id, &at)?;
            files::erase(tx, &spool, &erasure.traces)
        });
        match erased {
            Ok((_, wiped)) => {
                must!(!matches!(wiped, WipeOutcome::Failed(_)), "{wiped:?}");
                self.look(Log::check_whole)?;
                let left = self.look(log::live).contains_key(id.as_str());
                must!(!left, "{id} was erased, and is live");
                Ok(())
            }
            Err(StoreError::Refused(_)) => Ok(()),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn rebuild(&mut self) -> Checked {
        let before = self.look(log::live);
        self.stop();
        let store = Store::open(&self.place.database()).unwrap();
        self.place.runtime.block_on(store.write(verify::rebuild)).unwrap();
        store.close();
        self.restart();
        must!(self.look(log::live) == before, "the rebuilt mirror differs");
        self.look(Log::check_whole)
    }
}
