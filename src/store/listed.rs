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

use super::{Conn, StoreError, Tx};
use crate::model::listed::Fingerprint;
use crate::model::{Listed, Source};

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
pub(super) fn forget(tx: &Tx<'_>, row: i64) -> Result<(), StoreError> {
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
