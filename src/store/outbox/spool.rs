//! Files of the spool directory: their intents accepted, all or none, and what their receipts say.

use rusqlite::{OptionalExtension, Params, params};

use crate::store::file::wipe;
use crate::store::outbox::accept::{self, Door};
use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::intent::{Intent, IntentOp, Target};

/// An intent of a file, with an id.
#[derive(Clone, Debug)]
pub struct Line {
    /// From 1; blank lines count.
    pub number: u64,
    /// The intent.
    pub intent: Intent,
}

/// A line that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1; blank lines count.
    pub number: u64,
    /// The field and the rule.
    pub words: String,
}

/// MOST_KEPT limits the refused lines whose words are kept; the others are counted.
const MOST_KEPT: usize = 1000;

/// The lines of a file that are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    /// The first ones, in their order.
    pub first: Vec<BadLine>,
    /// How many there are in all.
    pub count: usize,
}

impl BadLines {
    /// Adds a line behind the others.
    pub fn push(&mut self, line: BadLine) {
        self.count += 1;
        if self.first.len() < MOST_KEPT {
            self.first.push(line);
        }
    }
}

/// A file that was read, to be accepted.
#[derive(Clone, Debug)]
pub struct SpoolFile<'a> {
    /// Its name, with the extension.
    pub name: &'a str,
    /// Its owner.
    pub by: &'a str,
    /// When it is accepted.
    pub at: &'a str,
    /// Identifies this drop: after a crash it says whether the file was accepted already.
    pub claim: &'a str,
    /// What is accepted of it: the first bytes, as many as it had when it was read.
    pub accepted: Accepted,
}

/// The content of an accepted file: a file that grew since begins with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many bytes.
    pub len: u64,
    /// Their digest, as in the ids that are made of it.
    pub digest: String,
}

/// The outcome of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum FileOutcome {
    /// All its intents are in the outbox.
    Taken {
        /// How many were not there before.
        new: u64,
        /// What its receipt says.
        receipt: Receipt,
    },
    /// None of its intents is accepted, because of these lines.
    Refused(BadLines),
    /// The database says that pushing is switched off.
    SwitchedOff,
}

/// The state of the intents of an accepted file.
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
    /// The customer that it created or is about.
    pub customer: Option<String>,
    /// The reason of its state.
    pub reason: Option<String>,
    /// Whether it had been accepted before this file.
    pub is_repeat: bool,
}

/// Accepts all intents of a file, or none. The lines are read as they are accepted: one line is in
/// memory at a time.
///
/// # Errors
/// The database failed.
pub fn accept_file(
    tx: &Tx<'_>,
    file: &SpoolFile<'_>,
    lines: impl Iterator<Item = Result<Line, BadLine>>,
) -> Result<FileOutcome, StoreError> {
    if !engine::is_enabled(tx)? {
        return Ok(FileOutcome::SwitchedOff);
    }
    tx.execute_batch("SAVEPOINT spool_file")?;
    note(tx, file)?;
    let (new, bad) = accept_lines(tx, file, lines)?;
    if bad.count > 0 {
        tx.execute_batch("ROLLBACK TO spool_file; RELEASE spool_file")?;
        // A long transaction spills into the WAL before its end.
        wipe::note_in_wal(tx)?;
        return Ok(FileOutcome::Refused(bad));
    }
    tx.execute_batch("RELEASE spool_file")?;
    let receipt = receipt(tx, file.name)?
        .ok_or_else(|| StoreError::Impossible(format!("no receipt of {}", file.name)))?;
    Ok(FileOutcome::Taken { new, receipt })
}

/// Accepts the lines that can be accepted, also behind one that cannot, so that all errors of a file
/// are reported at once. Returns how many intents are new, and the refused lines.
fn accept_lines(
    tx: &Tx<'_>,
    file: &SpoolFile<'_>,
    lines: impl Iterator<Item = Result<Line, BadLine>>,
) -> Result<(u64, BadLines), StoreError> {
    let (mut new, mut bad) = (0, BadLines::default());
    let sql = "INSERT INTO spool_intent (name, line, intent_id, is_repeat) VALUES (?1, ?2, ?3, ?4)";
    let mut note_line = tx.prepare_cached(sql)?;
    for line in lines {
        let Line { number, intent } = match line {
            Ok(line) => line,
            Err(line) => {
                bad.push(line);
                continue;
            }
        };
        match accept::accept(tx, &intent, Door::File, Some(file.by)) {
            Ok(accepted) => {
                let is_repeat = matches!(accepted, accept::Accepted::Known(_));
                new += u64::from(!is_repeat);
                note_line.execute(params![file.name, number, accepted.id(), is_repeat])?;
            }
            // A refused line may create the customer that this one refers to: then nothing is known
            // against this one.
            Err(StoreError::Refused(_)) if refers(&intent.op) && bad.count > 0 => {}
            Err(StoreError::Refused(words)) => bad.push(BadLine { number, words }),
            Err(other) => return Err(other),
        }
    }
    Ok((new, bad))
}

fn refers(op: &IntentOp) -> bool {
    matches!(op, IntentOp::Update(Target::CreatedBy(_), _) | IntentOp::Delete(Target::CreatedBy(_)))
}

/// Notes that this file is accepted; an older file of its name is forgotten.
fn note(tx: &Tx<'_>, file: &SpoolFile<'_>) -> Result<(), StoreError> {
    forget(tx, file.name)?;
    let Accepted { len, digest } = &file.accepted;
    tx.prepare_cached(
        "INSERT INTO spool_file (name, taken_at, claim, accepted_bytes, accepted_digest) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![file.name, file.at, file.claim, len, digest])?;
    Ok(())
}

/// Returns what was accepted of this drop of a file; `None` where nothing was yet.
///
/// # Errors
/// The database failed.
pub fn accepted(conn: &Conn, name: &str, claim: &str) -> Result<Option<Accepted>, StoreError> {
    let sql = "SELECT accepted_bytes, accepted_digest FROM spool_file WHERE name = ?1 AND claim = ?2";
    let found = conn
        .prepare_cached(sql)?
        .query_row([name, claim], |row| Ok(Accepted { len: row.get(0)?, digest: row.get(1)? }));
    Ok(found.optional()?)
}

/// Returns why no file is taken, as the daemon last recorded; `None` where files are taken.
///
/// # Errors
/// The database failed.
pub fn problem(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT spool_problem FROM meta", [], |row| row.get(0))?)
}

/// Records why no file is taken, for `status` and `doctor`.
///
/// # Errors
/// The database failed.
pub fn set_problem(tx: &Tx<'_>, why: Option<&str>) -> Result<(), StoreError> {
    tx.execute("UPDATE meta SET spool_problem = ?1 WHERE spool_problem IS NOT ?1", [why])?;
    Ok(())
}

/// Returns the content of a file's receipt as of now.
pub fn receipt(conn: &Conn, name: &str) -> Result<Option<Receipt>, StoreError> {
    let taken_at = conn
        .prepare_cached("SELECT taken_at FROM spool_file WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let Some(taken_at) = taken_at else { return Ok(None) };
    let mut statement = conn.prepare_cached(
        "SELECT line, intent_id, state, coalesce(result_customer_id, customer_id), reason, is_repeat
         FROM spool_intent JOIN intents ON id = intent_id WHERE name = ?1 ORDER BY line",
    )?;
    let entries = statement.query_map([name], |row| {
        Ok(Entry {
            line: row.get(0)?,
            id: row.get(1)?,
            state: row.get(2)?,
            customer: row.get(3)?,
            reason: row.get(4)?,
            is_repeat: row.get(5)?,
        })
    })?;
    let intents = entries.collect::<Result<_, _>>()?;
    Ok(Some(Receipt { name: name.to_owned(), taken_at, intents }))
}

/// Returns the files whose intents are all settled, while their receipts do not say so yet.
pub fn newly_settled(conn: &Conn) -> Result<Vec<String>, StoreError> {
    // Intents settle about in their order: from the end, an open one is found at once.
    let sql = "SELECT name FROM spool_file
         WHERE is_settled = 0 AND NOT EXISTS (
             SELECT 1 FROM (SELECT intent_id FROM spool_intent WHERE spool_intent.name = spool_file.name ORDER BY line DESC)
             JOIN intents ON id = intent_id JOIN outbox USING (position) WHERE is_open = 1)
         ORDER BY name";
    names(conn, sql, [])
}

/// Notes that the receipt of this file says that all is settled.
pub fn note_settled(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    // An intent may have been retried since the receipt was read.
    tx.prepare_cached(
        "UPDATE spool_file SET is_settled = 1
         WHERE name = ?1 AND NOT EXISTS (
             SELECT 1 FROM spool_intent JOIN intents ON id = intent_id JOIN outbox USING (position)
             WHERE spool_intent.name = ?1 AND is_open = 1)",
    )?
    .execute([name])?;
    Ok(())
}

/// Notes that a settled intent is retried or erased: receipts that name it are rewritten when it is
/// settled.
pub(in crate::store) fn reopen(tx: &Tx<'_>, intent_id: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE spool_file SET is_settled = 0
         WHERE is_settled = 1 AND name IN (SELECT name FROM spool_intent WHERE intent_id = ?1)",
        [intent_id],
    )?;
    Ok(())
}

/// Returns the files that were accepted, and whose last intent was settled, before this moment.
pub fn settled_before(conn: &Conn, moment: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT name FROM spool_file
         WHERE is_settled = 1 AND taken_at < ?1 AND NOT EXISTS (
             SELECT 1 FROM spool_intent JOIN intents ON id = intent_id
             WHERE spool_intent.name = spool_file.name AND settled_at >= ?1)
         ORDER BY name";
    names(conn, sql, [moment])
}

fn names(conn: &Conn, sql: &str, parameters: impl Params) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let names = statement.query_map(parameters, |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Returns the files that name an intent whose content was erased with its customer, each with
/// whether all its intents are such.
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
    // A connection may not enforce the foreign key.
    tx.prepare_cached("DELETE FROM spool_intent WHERE name = ?1")?.execute([name])?;
    tx.prepare_cached("DELETE FROM spool_file WHERE name = ?1")?.execute([name])?;
    Ok(())
}
