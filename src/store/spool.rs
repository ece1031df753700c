//! Files of the spool directory: their intents accepted, all or none, and what their receipts say.

use rusqlite::{OptionalExtension, params};

use super::intents::{Accepted, Door, accept};
use super::{Conn, StoreError, Tx};
use crate::model::intent::{Intent, Target, Wish};

/// An intent of a file, its id set.
#[derive(Clone, Debug)]
pub struct Line {
    /// From 1; blank lines count.
    pub number: u64,
    /// What it says.
    pub intent: Intent,
}

/// A line that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1; blank lines count.
    pub number: u64,
    /// Field and rule.
    pub words: String,
}

/// A file as it was read, to be judged.
#[derive(Clone, Debug)]
pub struct SpoolFile {
    /// Its name, with the extension.
    pub name: String,
    /// Who wrote it.
    pub by: String,
    /// When it was taken.
    pub at: String,
    /// What can be read of it, in its order.
    pub lines: Vec<Line>,
    /// What cannot, in its order.
    pub bad: Vec<BadLine>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// All its intents are in the outbox.
    Taken {
        /// How many were not there before.
        new: u64,
        /// What its receipt says.
        receipt: Receipt,
    },
    /// None of them is: these lines are in the way.
    Refused(Vec<BadLine>),
    /// Nothing is accepted just now: the database says that pushing is switched off.
    SwitchedOff,
}

/// What became of the intents of a file that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The file's name.
    pub name: String,
    /// When it was taken.
    pub taken_at: String,
    /// Its intents, in its order.
    pub intents: Vec<Entry>,
}

/// One intent on a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its line; 1 where the file is one intent.
    pub line: u64,
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The customer that it made or is about.
    pub customer: Option<String>,
    /// Why it is where it is.
    pub reason: Option<String>,
}

/// Accepts all intents of a file, or none.
pub fn accept_file(tx: &Tx<'_>, file: &SpoolFile) -> Result<Judged, StoreError> {
    let is_open: bool = tx.query_row("SELECT outbound_enabled FROM meta", [], |row| row.get(0))?;
    if !is_open {
        return Ok(Judged::SwitchedOff);
    }
    let mut bad = file.bad.clone();
    let mut first_bad = bad.iter().map(|bad| bad.number).min();
    let mut ids = Vec::with_capacity(file.lines.len());
    let mut new = 0;
    // Also where a line cannot be read, the others are judged, so that all that is wrong is said at once.
    tx.execute_batch("SAVEPOINT spool_file")?;
    for line in &file.lines {
        match accept(tx, &line.intent, Door::File, Some(&file.by)) {
            Ok(accepted) => {
                new += u64::from(matches!(accepted, Accepted::New(_)));
                ids.push((line.number, accepted.id().to_owned()));
            }
            Err(StoreError::Refused(words)) => {
                // Whom it refers to may be made by a line that is refused itself: then nothing is known against this one.
                let is_in_doubt =
                    refers(&line.intent.wish) && first_bad.is_some_and(|first| first < line.number);
                if !is_in_doubt {
                    first_bad = Some(first_bad.map_or(line.number, |first| first.min(line.number)));
                    bad.push(BadLine { number: line.number, words });
                }
            }
            Err(other) => return Err(other),
        }
    }
    if !bad.is_empty() {
        tx.execute_batch("ROLLBACK TO spool_file; RELEASE spool_file")?;
        // A long transaction spills into the WAL before its end.
        tx.execute("UPDATE meta SET left_over_tokens = max(left_over_tokens, 1)", [])?;
        bad.sort_by_key(|bad| bad.number);
        return Ok(Judged::Refused(bad));
    }
    tx.execute_batch("RELEASE spool_file")?;
    note(tx, file, &ids)?;
    let receipt = receipt(tx, &file.name)?
        .ok_or_else(|| StoreError::Impossible(format!("no receipt of {}", file.name)))?;
    Ok(Judged::Taken { new, receipt })
}

fn refers(wish: &Wish) -> bool {
    matches!(wish, Wish::Update(Target::CreatedBy(_), _) | Wish::Delete(Target::CreatedBy(_)))
}

/// Notes which intents came with a file; an older file of its name is forgotten.
fn note(tx: &Tx<'_>, file: &SpoolFile, ids: &[(u64, String)]) -> Result<(), StoreError> {
    forget(tx, &file.name)?;
    tx.prepare_cached("INSERT INTO spool_file (name, taken_at) VALUES (?1, ?2)")?
        .execute([&file.name, &file.at])?;
    let mut insert =
        tx.prepare_cached("INSERT INTO spool_intent (name, line, intent_id) VALUES (?1, ?2, ?3)")?;
    for (line, id) in ids {
        insert.execute(params![file.name, line, id])?;
    }
    Ok(())
}

/// What the receipt of a file says now.
pub fn receipt(conn: &Conn, name: &str) -> Result<Option<Receipt>, StoreError> {
    let taken_at = conn
        .prepare_cached("SELECT taken_at FROM spool_file WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let Some(taken_at) = taken_at else { return Ok(None) };
    let mut statement = conn.prepare_cached(
        "SELECT line, intent_id, state, coalesce(result_customer_id, customer_id), reason
         FROM spool_intent JOIN intents ON id = intent_id WHERE name = ?1 ORDER BY line",
    )?;
    let entries = statement.query_map([name], |row| {
        Ok(Entry {
            line: row.get(0)?,
            id: row.get(1)?,
            state: row.get(2)?,
            customer: row.get(3)?,
            reason: row.get(4)?,
        })
    })?;
    let intents = entries.collect::<Result<_, _>>()?;
    Ok(Some(Receipt { name: name.to_owned(), taken_at, intents }))
}

/// The files all of whose intents are settled, while their receipts do not say so yet.
pub fn newly_settled(conn: &Conn) -> Result<Vec<String>, StoreError> {
    // Intents settle about in their order: whoever looks from the end finds an open one at once.
    let mut statement = conn.prepare_cached(
        "SELECT name FROM spool_file
         WHERE is_settled = 0 AND NOT EXISTS (
             SELECT 1 FROM (SELECT intent_id FROM spool_intent WHERE spool_intent.name = spool_file.name ORDER BY line DESC)
             JOIN intents ON id = intent_id JOIN outbox USING (position) WHERE is_open = 1)
         ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The receipt of this file says that all is settled.
pub fn note_settled(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    // One may have been tried again since the receipt was read.
    tx.prepare_cached(
        "UPDATE spool_file SET is_settled = 1
         WHERE name = ?1 AND NOT EXISTS (
             SELECT 1 FROM spool_intent JOIN intents ON id = intent_id JOIN outbox USING (position)
             WHERE spool_intent.name = ?1 AND is_open = 1)",
    )?
    .execute([name])?;
    Ok(())
}

/// A settled intent is tried again, or is erased: receipts that name it are written once more when it is settled.
pub(super) fn reopen(tx: &Tx<'_>, intent_id: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE spool_file SET is_settled = 0
         WHERE is_settled = 1 AND name IN (SELECT name FROM spool_intent WHERE intent_id = ?1)",
        [intent_id],
    )?;
    Ok(())
}

/// The files that were taken, and whose last intent was settled, before this moment.
pub fn settled_before(conn: &Conn, moment: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT name FROM spool_file
         WHERE is_settled = 1 AND taken_at < ?1 AND NOT EXISTS (
             SELECT 1 FROM spool_intent JOIN intents ON id = intent_id
             WHERE spool_intent.name = spool_file.name AND settled_at >= ?1)
         ORDER BY name",
    )?;
    let names = statement.query_map([moment], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The files that name an intent whose content was erased with its customer, each with whether all its intents are such.
pub fn of_erased(conn: &Conn) -> Result<Vec<(String, bool)>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT name, min(erased) FROM spool_intent JOIN intents ON id = intent_id JOIN outbox USING (position)
         GROUP BY name HAVING max(erased) = 1 ORDER BY name",
    )?;
    let files = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(files.collect::<Result<_, _>>()?)
}

/// Forgets a file; its intents stay.
pub fn forget(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    // Not left to the foreign key, which a connection may not heed.
    tx.prepare_cached("DELETE FROM spool_intent WHERE name = ?1")?.execute([name])?;
    tx.prepare_cached("DELETE FROM spool_file WHERE name = ?1")?.execute([name])?;
    Ok(())
}
