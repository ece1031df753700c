//! By what a listed customer is recognised without being read: the fingerprints of the texts that lists last showed.
//!
//! Lists come in much the same order each time, and so do the mirror's rows, which were made in the order of a list. So the
//! fingerprints around the last recognised customer are kept in a [`Window`], and nearly every customer of nearly every page is found
//! there: a page of the list costs a page or two of this table and nothing else. Who is not there is looked up by id.
//!
//! Rejected: looking each customer up by its id (ids are random: a page of the database each), and fingerprints of whole pages
//! (one new customer moves all others on).

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, params};

use crate::store::{Conn, StoreError, Tx};
use komoju_core::fingerprint::Fingerprint;
use komoju_core::{Listed, Source};

/// How many rows a window spans.
const SPAN: i64 = 512;

/// How many of them lie behind, when the list moves on through the rows.
const BEHIND: i64 = 64;

/// A customer whose text is the one that was compared with the mirror before, and made no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Its row in the mirror.
    pub row: i64,
    /// What the text says of its source.
    pub source: Source,
}

/// The fingerprints around where a pass is in the mirror.
#[derive(Debug, Default)]
pub struct Window {
    rows: Option<RangeInclusive<i64>>,
    by_fingerprint: HashMap<Fingerprint, Recognised>,
    last_miss: Option<i64>,
}

impl Window {
    /// Recognises each customer of a page, or not.
    pub fn recognise(&mut self, conn: &Conn, page: &[Listed]) -> Result<Vec<Option<Recognised>>, StoreError> {
        page.iter().map(|listed| self.recognise_one(conn, listed)).collect()
    }

    fn recognise_one(&mut self, conn: &Conn, listed: &Listed) -> Result<Option<Recognised>, StoreError> {
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
        self.look_around(conn, row)?;
        let same = known == Some(fingerprint);
        Ok(source.filter(|_| same).map(|source| Recognised { row, source: source_of(source) }))
    }

    /// Moves to where the list goes on: once two customers in a row are found in one place outside, for one may only have moved.
    fn look_around(&mut self, conn: &Conn, row: i64) -> Result<(), StoreError> {
        if self.rows.as_ref().is_some_and(|rows| rows.contains(&row)) {
            return Ok(());
        }
        let near = self.last_miss.replace(row).is_some_and(|last| (last - row).abs() < SPAN);
        if !near {
            return Ok(());
        }
        let last = self.last_miss.take().unwrap_or(row);
        let onwards = self.rows.as_ref().is_none_or(|rows| *rows.start() <= last);
        let first = if onwards { row - BEHIND } else { row + BEHIND - SPAN };
        let rows = first..=first + SPAN - 1;
        self.by_fingerprint.clear();
        let mut statement =
            conn.prepare_cached("SELECT fingerprint, row, source FROM listed WHERE row BETWEEN ?1 AND ?2")?;
        let found = statement.query_map(params![rows.start(), rows.end()], |row| {
            Ok((row.get(0)?, Recognised { row: row.get(1)?, source: source_of(row.get(2)?) }))
        })?;
        for entry in found {
            let (fingerprint, recognised) = entry?;
            self.by_fingerprint.insert(fingerprint, recognised);
        }
        self.rows = Some(rows);
        Ok(())
    }

    /// A row has changed: what was known of it is no longer so.
    pub fn forget(&mut self, changed: i64) {
        if self.rows.as_ref().is_some_and(|rows| rows.contains(&changed)) {
            self.by_fingerprint.retain(|_, known| known.row != changed);
        }
    }
}

/// A customer whose text is spelled otherwise than before and says the same.
#[derive(Clone, Copy, Debug)]
pub struct Respelled {
    /// Its row in the mirror.
    pub row: i64,
    /// The change of it with which the text was compared.
    pub seq: i64,
    /// By what it is recognised now.
    pub fingerprint: Fingerprint,
    /// What the text says of its source.
    pub source: Source,
}

impl Respelled {
    /// Notes it, unless the customer has changed since.
    pub fn note(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        let mut unchanged = tx.prepare_cached("SELECT 1 FROM mirror WHERE row = ?1 AND seq = ?2")?;
        match unchanged.exists([self.row, self.seq])? {
            true => note(tx, self.row, &self.fingerprint, self.source),
            false => Ok(()),
        }
    }
}

/// Notes by what the customer in this row is recognised from now on.
pub fn note(tx: &Tx<'_>, row: i64, fingerprint: &Fingerprint, source: Source) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO listed (row, fingerprint, source) VALUES (?1, ?2, ?3)
         ON CONFLICT (row) DO UPDATE SET fingerprint = excluded.fingerprint, source = excluded.source",
    )?;
    let source = match source {
        Source::Shown => 0,
        Source::Absent => 1,
        Source::CarriedOn => 2,
    };
    statement.execute(params![row, fingerprint, source])?;
    Ok(())
}

/// Whether anything is noted about this row.
pub fn is_noted(conn: &Conn, row: i64) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM listed WHERE row = ?1")?.exists([row])?)
}

/// The customer in this row has changed: its text will have to be read again.
pub(in crate::store) fn forget(tx: &Tx<'_>, row: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM listed WHERE row = ?1")?.execute([row])?;
    Ok(())
}

fn source_of(number: i64) -> Source {
    match number {
        0 => Source::Shown,
        1 => Source::Absent,
        _ => Source::CarriedOn,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::file::open;
    use crate::store::log::changes;
    use crate::store::log::changes::{Cause, Recorder};
    use crate::store::log::mirror;
    use komoju_core::{Kind, Origin};

    fn listed(n: i64, email: &str) -> Listed {
        Listed::from_value(&json!({"id": format!("c{n}"), "email": email})).unwrap()
    }

    fn cause() -> Cause {
        Cause {
            observed_at: "2026-01-01T00:00:00.000Z".into(),
            origin: Origin::Sweep,
            pass_id: None,
            intent_id: None,
        }
    }

    /// So many customers, each noted by its text.
    fn imported(conn: &mut Conn, count: i64) {
        let tx = conn.transaction().unwrap();
        let import = |recorder: &mut Recorder<'_, '_>| {
            for n in 1..=count {
                let listed = listed(n, "a");
                let row = recorder.record(Kind::Created, &listed.read().unwrap(), None)?;
                note(&tx, row, &listed.fingerprint(), Source::Absent)?;
            }
            Ok(())
        };
        changes::recording(&tx, cause(), import).unwrap();
        tx.commit().unwrap();
    }

    fn rows(window: &mut Window, conn: &Conn, page: &[Listed]) -> Vec<Option<i64>> {
        let recognised = window.recognise(conn, page).unwrap();
        recognised.into_iter().map(|known| known.map(|known| known.row)).collect()
    }

    #[test]
    fn the_same_texts_are_recognised_in_any_order_and_others_are_not() {
        let mut conn = open::in_memory();
        imported(&mut conn, 2000);
        let orders: [Vec<i64>; 4] = [
            (1..=2000).collect(),
            (1..=2000).rev().collect(),
            (0..2000).map(|n| n * 7 % 2000 + 1).collect(),
            (1..=10).chain(1990..=2000).chain(11..1990).collect(),
        ];
        for order in orders {
            let mut window = Window::default();
            let page: Vec<Listed> = order.iter().map(|n| listed(*n, "a")).collect();
            let expected: Vec<Option<i64>> = order.iter().copied().map(Some).collect();
            assert_eq!(rows(&mut window, &conn, &page), expected);
        }
        let mut window = Window::default();
        let page: Vec<Listed> = (1..=100).map(|n| listed(n, if n == 50 { "b" } else { "a" })).collect();
        let found = rows(&mut window, &conn, &page);
        assert_eq!((found[49], found[48], found[50]), (None, Some(49), Some(51)));
        assert_eq!(rows(&mut window, &conn, &[listed(2001, "a")]), [None]);
    }

    #[test]
    fn nearly_all_of_a_list_in_the_order_of_the_rows_is_found_in_the_window() {
        let mut conn = open::in_memory();
        imported(&mut conn, 3000);
        for turned in [false, true] {
            let mut window = Window::default();
            let mut missed = 0;
            for n in 1..=3000 {
                let listed = listed(if turned { 3001 - n } else { n }, "a");
                missed += u32::from(!window.by_fingerprint.contains_key(&listed.fingerprint()));
                rows(&mut window, &conn, &[listed]);
            }
            assert!(missed <= 2 * (3000 / 448 + 2), "{missed} of 3000 were looked up by id");
        }
    }

    #[test]
    fn whoever_changed_is_read_again() {
        let mut conn = open::in_memory();
        imported(&mut conn, 10);
        let mut window = Window::default();
        let page: Vec<Listed> = (1..=10).map(|n| listed(n, "a")).collect();
        rows(&mut window, &conn, &page);
        let tx = conn.transaction().unwrap();
        let stored = mirror::find(&tx, page[3].id()).unwrap();
        let changed = listed(4, "b").read().unwrap();
        changes::recording(&tx, cause(), |recorder| recorder.record(Kind::Updated, &changed, stored))
            .unwrap();
        changes::recording(&tx, cause(), |recorder| recorder.record_deleted(page[6].id())).unwrap();
        tx.commit().unwrap();
        for (row, listed) in [(4, &page[3]), (7, &page[6])] {
            assert_eq!(
                rows(&mut window, &conn, std::slice::from_ref(listed)),
                [Some(row)],
                "by the window alone"
            );
            window.forget(row);
            assert_eq!(rows(&mut window, &conn, std::slice::from_ref(listed)), [None]);
        }
        assert_eq!(
            rows(&mut Window::default(), &conn, &page[..5]),
            [Some(1), Some(2), Some(3), None, Some(5)]
        );
    }

    #[test]
    fn another_spelling_is_noted_unless_the_customer_changed_since() {
        let mut conn = open::in_memory();
        imported(&mut conn, 2);
        let tx = conn.transaction().unwrap();
        for (row, seq, noted) in [(1, 1, true), (2, 1, false)] {
            let respelled = Respelled { row, seq, fingerprint: [9; 16], source: Source::Shown };
            respelled.note(&tx).unwrap();
            let known: Fingerprint = tx
                .query_row("SELECT fingerprint FROM listed WHERE row = ?1", [row], |row| row.get(0))
                .unwrap();
            assert_eq!(known == [9; 16], noted);
        }
    }
}
