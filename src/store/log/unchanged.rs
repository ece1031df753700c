//! The fingerprint cache: detects unchanged customers by the hash of their raw JSON, without
//! parsing it.
//!
//! [`FingerprintWindow::lookup`] looks up a customer of a page; [`note`] stores the fingerprint of
//! a text that was compared with the mirror. The table `listed` holds, for each row of the mirror,
//! the fingerprint of the text that last made no difference.
//!
//! Lists have about the same order each time. The mirror's rows have that order too, because they
//! were made in the order of a list. So the fingerprints around the last hit are kept in memory,
//! and nearly every customer of a page is found there. A page of the list then costs one or two
//! database pages of this table. A customer that is not in memory is looked up by its id.
//!
//! These designs were rejected:
//! - Looking up each customer by its id. Ids are random, so each look-up reads another database
//!   page.
//! - Fingerprints of whole pages, because one new customer shifts all others.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, params};

use crate::store::{Conn, StoreError, Tx};
use komoju_core::fingerprint::Fingerprint;
use komoju_core::{RawCustomer, Source};

/// SPAN controls how many rows are kept in memory.
const SPAN: i64 = 512;

/// BEHIND controls how many of them are before the current row while the list proceeds through the
/// rows.
const BEHIND: i64 = 64;

/// A customer whose text equals the one that was last compared with the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheHit {
    /// Its row in the mirror.
    pub row: i64,
    /// What the text says of its source.
    pub source: Source,
}

/// A text with a new format of content that the mirror already has. It is stored when the sweep
/// ends, at most once a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Reformatted {
    /// The customer's row in the mirror.
    pub row: i64,
    /// The change whose state has the same content.
    pub seq: i64,
    /// The text's fingerprint.
    pub fingerprint: Fingerprint,
    /// What the text says of the customer's source.
    pub source: Source,
}

impl Reformatted {
    /// Returns whether the customer is unchanged since the comparison.
    pub fn is_current(&self, conn: &Conn) -> Result<bool, StoreError> {
        let mut unchanged = conn.prepare_cached("SELECT 1 FROM mirror WHERE row = ?1 AND seq = ?2")?;
        Ok(unchanged.exists([self.row, self.seq])?)
    }
}

/// Returns whether a fingerprint is stored for this row.
pub fn is_noted(conn: &Conn, row: i64) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM listed WHERE row = ?1")?.exists([row])?)
}

/// Stores the fingerprint of a text of this row, which was compared with the mirror.
pub fn note(tx: &Tx<'_>, row: i64, fingerprint: &Fingerprint, source: Source) -> Result<(), StoreError> {
    let source = match source {
        Source::Shown => 0,
        Source::Absent => 1,
        Source::Retained => 2,
    };
    tx.prepare_cached(
        "INSERT INTO listed (row, fingerprint, source) VALUES (?1, ?2, ?3)
         ON CONFLICT (row) DO UPDATE SET fingerprint = excluded.fingerprint, source = excluded.source",
    )?
    .execute(params![row, fingerprint, source])?;
    Ok(())
}

/// The cache of one pass, with the fingerprints around the pass's place in the mirror.
#[derive(Debug, Default)]
pub struct FingerprintWindow {
    rows: Option<RangeInclusive<i64>>,
    by_fingerprint: HashMap<Fingerprint, CacheHit>,
    last_miss: Option<i64>,
}

impl FingerprintWindow {
    /// Returns the row of a listed customer if its text is unchanged.
    pub fn lookup(&mut self, conn: &Conn, listed: &RawCustomer) -> Result<Option<CacheHit>, StoreError> {
        let fingerprint = listed.fingerprint();
        if let Some(found) = self.by_fingerprint.get(&fingerprint) {
            return Ok(Some(*found));
        }
        let mut by_id = conn.prepare_cached(
            "SELECT mirror.row, fingerprint, source FROM mirror LEFT JOIN listed ON listed.row = mirror.row WHERE id = ?1",
        )?;
        let found: Option<(i64, Option<Fingerprint>, Option<i64>)> = by_id
            .query_row([listed.id().as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((row, known, source)) = found else { return Ok(None) };
        self.move_window(conn, row)?;
        let same = known == Some(fingerprint);
        Ok(source.filter(|_| same).map(|source| CacheHit { row, source: source_of(source) }))
    }

    /// Moves the window to where the list continues, once two customers in a row are found outside
    /// of it in one place. A single one may only have moved within the list.
    fn move_window(&mut self, conn: &Conn, row: i64) -> Result<(), StoreError> {
        if self.rows.as_ref().is_some_and(|rows| rows.contains(&row)) {
            return Ok(());
        }
        let Some(last) = self.last_miss.replace(row).filter(|last| (last - row).abs() < SPAN) else {
            return Ok(());
        };
        self.last_miss = None;
        let onwards = self.rows.as_ref().is_none_or(|rows| *rows.start() <= last);
        let first = if onwards { row - BEHIND } else { row + BEHIND - SPAN };
        let rows = first..=first + SPAN - 1;
        let mut around =
            conn.prepare_cached("SELECT fingerprint, row, source FROM listed WHERE row BETWEEN ?1 AND ?2")?;
        let found = around.query_map(params![rows.start(), rows.end()], |row| {
            Ok((row.get(0)?, CacheHit { row: row.get(1)?, source: source_of(row.get(2)?) }))
        })?;
        self.by_fingerprint = found.collect::<Result<_, _>>()?;
        self.rows = Some(rows);
        Ok(())
    }

    /// Removes the fingerprint of a row whose customer has changed.
    pub fn forget(&mut self, changed: i64) {
        if self.rows.as_ref().is_some_and(|rows| rows.contains(&changed)) {
            self.by_fingerprint.retain(|_, known| known.row != changed);
        }
    }
}

/// Deletes the stored fingerprint of a row whose customer has changed, so that its next text is
/// parsed.
pub(in crate::store) fn forget(tx: &Tx<'_>, row: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM listed WHERE row = ?1")?.execute([row])?;
    Ok(())
}

fn source_of(number: i64) -> Source {
    match number {
        0 => Source::Shown,
        1 => Source::Absent,
        _ => Source::Retained,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::file::open;
    use crate::store::log::changes;
    use crate::store::log::changes::{ChangeContext, Recorder};
    use crate::store::log::mirror;
    use komoju_core::{ChangeKind, Origin};

    fn listed(n: i64, email: &str) -> RawCustomer {
        RawCustomer::from_value(&json!({"id": format!("c{n}"), "email": email})).unwrap()
    }

    fn cause() -> ChangeContext {
        ChangeContext {
            observed_at: "2026-01-01T00:00:00.000Z".into(),
            origin: Origin::Sweep,
            pass_id: None,
            intent_id: None,
        }
    }

    /// Records this number of customers and stores the fingerprint of each.
    fn imported(conn: &mut Conn, count: i64) {
        let tx = conn.transaction().unwrap();
        let import = |recorder: &mut Recorder<'_, '_>| {
            for n in 1..=count {
                let listed = listed(n, "a");
                let row = recorder.record(ChangeKind::Created, &listed.read().unwrap(), None)?;
                let (fingerprint, source) = (listed.fingerprint(), Source::Absent);
                note(&tx, row, &fingerprint, source)?;
            }
            Ok(())
        };
        changes::recording(&tx, cause(), import).unwrap();
        tx.commit().unwrap();
    }

    fn rows(cache: &mut FingerprintWindow, conn: &Conn, page: &[RawCustomer]) -> Vec<Option<i64>> {
        let known = |listed| cache.lookup(conn, listed).unwrap();
        page.iter().map(known).map(|known| known.map(|hit| hit.row)).collect()
    }

    #[test]
    fn unchanged_texts_hit_in_any_order_and_changed_ones_miss() {
        let mut conn = open::in_memory();
        imported(&mut conn, 2000);
        let orders: [Vec<i64>; 4] = [
            (1..=2000).collect(),
            (1..=2000).rev().collect(),
            (0..2000).map(|n| n * 7 % 2000 + 1).collect(),
            (1..=10).chain(1990..=2000).chain(11..1990).collect(),
        ];
        for order in orders {
            let mut cache = FingerprintWindow::default();
            let page: Vec<RawCustomer> = order.iter().map(|n| listed(*n, "a")).collect();
            let expected: Vec<Option<i64>> = order.iter().copied().map(Some).collect();
            assert_eq!(rows(&mut cache, &conn, &page), expected);
        }
        let mut cache = FingerprintWindow::default();
        let page: Vec<RawCustomer> = (1..=100).map(|n| listed(n, if n == 50 { "b" } else { "a" })).collect();
        let found = rows(&mut cache, &conn, &page);
        assert_eq!((found[49], found[48], found[50]), (None, Some(49), Some(51)));
        assert_eq!(rows(&mut cache, &conn, &[listed(2001, "a")]), [None]);
    }

    #[test]
    fn list_in_the_order_of_the_rows_is_found_in_memory() {
        let mut conn = open::in_memory();
        imported(&mut conn, 3000);
        for turned in [false, true] {
            let mut cache = FingerprintWindow::default();
            let mut missed = 0;
            for n in 1..=3000 {
                let listed = listed(if turned { 3001 - n } else { n }, "a");
                missed += u32::from(!cache.by_fingerprint.contains_key(&listed.fingerprint()));
                rows(&mut cache, &conn, &[listed]);
            }
            assert!(missed <= 2 * (3000 / 448 + 2), "{missed} of 3000 were looked up by id");
        }
    }

    #[test]
    fn changed_customer_is_read_again() {
        let mut conn = open::in_memory();
        imported(&mut conn, 10);
        let mut cache = FingerprintWindow::default();
        let page: Vec<RawCustomer> = (1..=10).map(|n| listed(n, "a")).collect();
        rows(&mut cache, &conn, &page);
        let tx = conn.transaction().unwrap();
        let stored = mirror::find(&tx, page[3].id()).unwrap();
        let changed = listed(4, "b").read().unwrap();
        changes::recording(&tx, cause(), |recorder| recorder.record(ChangeKind::Updated, &changed, stored))
            .unwrap();
        changes::recording(&tx, cause(), |recorder| recorder.record_deleted(page[6].id())).unwrap();
        tx.commit().unwrap();
        for (row, listed) in [(4, &page[3]), (7, &page[6])] {
            assert_eq!(
                rows(&mut cache, &conn, std::slice::from_ref(listed)),
                [Some(row)],
                "by the memory alone"
            );
            cache.forget(row);
            assert_eq!(rows(&mut cache, &conn, std::slice::from_ref(listed)), [None]);
        }
        assert_eq!(
            rows(&mut FingerprintWindow::default(), &conn, &page[..5]),
            [Some(1), Some(2), Some(3), None, Some(5)]
        );
    }

    #[test]
    fn fingerprint_is_noted_until_the_customer_changes() {
        let mut conn = open::in_memory();
        imported(&mut conn, 1);
        assert!(is_noted(&conn, 1).unwrap() && !is_noted(&conn, 2).unwrap());
        let tx = conn.transaction().unwrap();
        let id = listed(1, "a").id().clone();
        changes::recording(&tx, cause(), |recorder| recorder.record_deleted(&id)).unwrap();
        assert!(!is_noted(&tx, 1).unwrap());
    }

    #[test]
    fn new_format_is_current_unless_the_customer_changed_since() {
        let mut conn = open::in_memory();
        imported(&mut conn, 2);
        let tx = conn.transaction().unwrap();
        for (row, seq, is_current) in [(1, 1, true), (2, 1, false)] {
            let text = Reformatted { row, seq, fingerprint: [9; 16], source: Source::Shown };
            assert_eq!(text.is_current(&tx).unwrap(), is_current);
        }
    }
}
