//! Checks of the change log and the mirror after each op: new entries from the last head on, and
//! the whole mirror. At intervals `verify` of the product checks everything.

use std::collections::{BTreeMap, BTreeSet};

use komoju_core::change::{EMPTY_CHAIN, chain};
use komoju_core::{ChangeEntry, ChangeKind, CustomerId, Diff, MirrorRow, Origin};
use komoju_sync::store::log::changes;
use komoju_sync::store::log::changes::Head;
use komoju_sync::store::log::verify::verify;
use komoju_sync::store::read::{self, ChangeFilter, Record};
use komoju_sync::store::{Reader, StoreError};
use rusqlite::Row;
use serde_json::{Map, Value};

use crate::world::{Checked, must};

/// What was checked so far.
pub struct Log {
    pub head: Head,
    /// The fold of the log, by customer.
    pub mirror_rows: BTreeMap<String, MirrorRow>,
    /// The database's version at the last check.
    pub version: Option<i64>,
    checks: u64,
}

impl Default for Log {
    fn default() -> Self {
        let head = Head { seq: 0, chain: EMPTY_CHAIN };
        Self { head, mirror_rows: BTreeMap::new(), version: None, checks: 0 }
    }
}

/// The number of incremental checks between two whole ones.
const WHOLE_EVERY: u64 = 25;

type Sealed = (ChangeEntry, Option<Vec<u8>>, [u8; 32], [u8; 32]);

fn sealed(row: &Row<'_>) -> rusqlite::Result<Sealed> {
    let (kind, origin): (String, String) = (row.get(2)?, row.get(4)?);
    let entry = ChangeEntry {
        seq: row.get(0)?,
        customer_id: CustomerId::new(row.get::<_, String>(1)?).unwrap(),
        kind: ChangeKind::from_word(&kind).unwrap(),
        observed_at: row.get(3)?,
        origin: Origin::from_word(&origin).unwrap(),
        pass_id: row.get(5)?,
        intent_id: row.get(6)?,
        after: row.get(7)?,
        redacts: row.get(8)?,
    };
    Ok((entry, row.get(9)?, row.get(10)?, row.get(11)?))
}

impl Log {
    /// Invariants 1 and 14: the log is whole and folds to the mirror. Continues from the last
    /// check.
    pub fn check(&mut self, reader: &Reader) -> Checked {
        let mut statement = reader
            .prepare_cached(
                "SELECT seq, customer_id, kind, observed_at, origin, pass_id, intent_id, after, redacts, salt, digest, chain
                 FROM change_log WHERE seq > ?1 ORDER BY seq",
            )
            .unwrap();
        let entries: Vec<Sealed> =
            statement.query_map([self.head.seq], sealed).unwrap().collect::<Result<_, _>>().unwrap();
        for (entry, salt, digest, chained) in entries {
            let seq = entry.seq;
            must!(seq == self.head.seq + 1, "change {} is followed by {seq}", self.head.seq);
            // The whole check covers redacted entries, and the erasures that list them.
            if let Some(salt) = salt {
                must!(entry.digest(&salt) == digest, "the digest of change {seq} differs");
            }
            must!(chain(&self.head.chain, &digest) == chained, "the chain breaks at change {seq}");
            let id = entry.customer_id.as_str().to_owned();
            let folded = MirrorRow::fold(self.mirror_rows.remove(&id), &entry).map_err(|e| e.to_string())?;
            if let Some(folded) = folded {
                self.mirror_rows.insert(id, folded);
            }
            self.head = Head { seq, chain: chained };
        }
        let mirror = mirrored(reader);
        must!(
            mirror == self.mirror_rows,
            "the mirror is not what the log folds to: {mirror:?}\n{:?}",
            self.mirror_rows
        );
        self.checks += 1;
        match self.checks % WHOLE_EVERY {
            0 => Self::check_whole(reader),
            _ => Ok(()),
        }
    }

    pub fn check_whole(reader: &Reader) -> Checked {
        let verified = verify(reader, None).unwrap();
        must!(verified.finding_count == 0, "{:?}", verified.findings);
        // A pass that recorded changes counts them. The row of any other pass may be removed.
        let wrong: i64 = reader
            .query_row(
                "SELECT count(*) FROM (SELECT pass_id, count(*) AS changes FROM change_log
                     WHERE pass_id IS NOT NULL GROUP BY pass_id) AS log
                 LEFT JOIN passes ON passes.id = log.pass_id
                 WHERE created + updated + deleted + restored IS NOT changes",
                [],
                |row| row.get(0),
            )
            .unwrap();
        must!(wrong == 0, "{wrong} passes do not say what they recorded");
        Ok(())
    }
}

fn mirrored(reader: &Reader) -> BTreeMap<String, MirrorRow> {
    let mut statement = reader
        .prepare_cached("SELECT id, body, first_seen_at, changed_at, deleted_at, live_seq, seq FROM mirror")
        .unwrap();
    let rows = statement.query_map([], |row| {
        let mirror_row = MirrorRow {
            body: row.get(1)?,
            first_seen_at: row.get(2)?,
            changed_at: row.get(3)?,
            deleted_at: row.get(4)?,
            live_seq: row.get(5)?,
            seq: row.get(6)?,
        };
        Ok((row.get(0)?, mirror_row))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Returns the changes after this one.
pub fn changes_after(reader: &Reader, seq: i64) -> Vec<Record> {
    let mut changes = Vec::new();
    // The view is slow, so check for new changes first.
    if changes::head(reader).unwrap().seq == seq {
        return changes;
    }
    let filter = ChangeFilter { since: seq, ..ChangeFilter::default() };
    read::changes(reader, &filter, |record| {
        changes.push(record);
        Ok(())
    })
    .unwrap();
    changes
}

/// Checks that diff, before and after of the view agree with the model.
pub fn check_view(changes: &[Record]) -> Checked {
    for change in changes.iter().filter(|change| change.text("kind") != Some("erased")) {
        let state = |name: &str| change.get(name).as_object().cloned().unwrap_or_else(Map::new);
        let diff = Diff::between(&state("before"), &state("after")).to_json();
        must!(*change.get("diff") == diff, "the view says {}, the model {diff}", change.get("diff"));
    }
    Ok(())
}

impl Log {
    /// Returns the live customers by the fold.
    pub fn live(&self) -> BTreeSet<String> {
        let live = self.mirror_rows.iter().filter(|(_, mirror_row)| mirror_row.is_live());
        live.map(|(id, _)| id.clone()).collect()
    }
}

/// Returns the live customers, by id.
pub fn live(reader: &Reader) -> BTreeMap<String, Value> {
    let mut live = BTreeMap::new();
    let visited: Result<(), StoreError> = read::customers(reader, |record| {
        live.insert(record.text("id").unwrap().to_owned(), record.get("body").clone());
        Ok(())
    });
    visited.unwrap();
    live
}
