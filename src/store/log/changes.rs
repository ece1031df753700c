//! The change log: appending to it, reading it, and the recorder that changes customers.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};

use super::holds::{self, HoldEnd};
use super::mirror::{self, StoredCustomer};
use super::unchanged;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::change::{EMPTY_CHAIN, Hash, chain};
use komoju_core::{ChangeEntry, ChangeKind, Customer, CustomerId, MirrorRow, Origin, Tally};

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry's number; 0 for an empty log.
    pub seq: i64,
    /// The last entry's chain value.
    pub chain: Hash,
}

/// Formats the head as `SEQ:CHAIN`, the form that `verify --head` takes.
impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.chain.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (seq, chain) = text.split_once(':')?;
            if chain.len() != 64 || !chain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let mut bytes = [0; 32];
            for (n, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&chain[2 * n..2 * n + 2], 16).ok()?;
            }
            Some(Self { seq: seq.parse().ok().filter(|seq| *seq >= 0)?, chain: bytes })
        };
        read().ok_or_else(|| "a head is SEQ:CHAIN, a number and 64 hexadecimal digits".to_owned())
    }
}

/// Returns where the log ends now.
pub fn head(conn: &Conn) -> Result<Head, StoreError> {
    let mut statement = conn.prepare_cached("SELECT seq, chain FROM change_log ORDER BY seq DESC LIMIT 1")?;
    let head = statement.query_row([], |row| Ok(Head { seq: row.get(0)?, chain: row.get(1)? })).optional()?;
    Ok(head.unwrap_or(Head { seq: 0, chain: EMPTY_CHAIN }))
}

/// Returns whether a sweep recorded this entry.
pub fn is_by_list(conn: &Conn, seq: i64) -> Result<bool, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT 1 FROM change_log WHERE seq = ?1 AND origin = 'sweep'")?;
    Ok(statement.exists([seq])?)
}

/// Returns how many deletions the log records after this entry.
pub fn deletions_after(conn: &Conn, seq: i64) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM change_log WHERE seq > ?1 AND kind = 'deleted'";
    let count: i64 = conn.query_row(count, [seq], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What the changes of one transaction have in common: when they were observed, and what caused
/// them.
#[derive(Clone, Debug)]
pub struct ChangeContext {
    /// When we observed them, in the text form of [`komoju_core::time`].
    pub observed_at: String,
    /// How we learned of them.
    pub origin: Origin,
    /// The pass that observed them.
    pub pass_id: Option<i64>,
    /// The intent that caused them.
    pub intent_id: Option<String>,
}

/// Runs `work` with a recorder at the end of the log. Returns the result of `work` and the counts
/// of what it recorded. Updates the mirror's counts in the same transaction.
pub fn recording<T>(
    tx: &Tx<'_>,
    context: ChangeContext,
    work: impl FnOnce(&mut Recorder<'_, '_>) -> Result<T, StoreError>,
) -> Result<(T, Tally), StoreError> {
    let mut recorder = Recorder { tx, context, head: head(tx)?, tally: Tally::default(), erased: 0 };
    let value = work(&mut recorder)?;
    let Tally { created, deleted, restored, .. } = recorder.tally;
    mirror::count(tx, created + restored, deleted, restored + recorder.erased)?;
    Ok((value, recorder.tally))
}

/// Records changes: log entry and mirror row together, within the caller's transaction. Only
/// [`recording`] makes one.
pub struct Recorder<'a, 'c> {
    tx: &'a Tx<'c>,
    context: ChangeContext,
    head: Head,
    tally: Tally,
    /// Counted apart, because the tally of a pass has no erasures.
    erased: u64,
}

/// What an erasure did to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// The entry that records the erasure.
    pub seq: i64,
    /// The entries whose content and salt were removed.
    pub redacted: Vec<i64>,
}

impl Recorder<'_, '_> {
    /// Returns the pass that causes the changes.
    pub fn pass_id(&self) -> Option<i64> {
        self.context.pass_id
    }

    /// Records that `customer` was created, updated or restored; `before` is its row until now.
    /// Returns its row in the mirror.
    pub fn record(
        &mut self,
        kind: ChangeKind,
        customer: &Customer,
        before: Option<StoredCustomer>,
    ) -> Result<i64, StoreError> {
        let row = self.append(kind, customer.id(), Some(customer), before, None)?;
        row.ok_or_else(|| StoreError::Impossible(format!("{kind} left no customer {}", customer.id())))
    }

    /// Records that the customer is deleted. The mirror keeps its last known state as a tombstone,
    /// and a hold of it ends.
    pub fn record_deleted(&mut self, id: &CustomerId) -> Result<(), StoreError> {
        holds::end(self.tx, id, HoldEnd::Deleted)?;
        let before = mirror::find(self.tx, id)?;
        self.append(ChangeKind::Deleted, id, None, before, None).map(drop)
    }

    /// Redacts all entries of a deleted customer, records that, and removes the customer from the
    /// mirror.
    pub fn erase(&mut self, id: &CustomerId) -> Result<Redaction, StoreError> {
        let before = mirror::find(self.tx, id)?;
        let redacted = redact(self.tx, id)?;
        let list = serde_json::to_string(&redacted).unwrap_or_default();
        self.append(ChangeKind::Erased, id, None, before, Some(list))?;
        Ok(Redaction { seq: self.head.seq, redacted })
    }

    fn append(
        &mut self,
        kind: ChangeKind,
        id: &CustomerId,
        customer: Option<&Customer>,
        before: Option<StoredCustomer>,
        redacts: Option<String>,
    ) -> Result<Option<i64>, StoreError> {
        let entry = ChangeEntry {
            seq: self.head.seq + 1,
            customer_id: id.clone(),
            kind,
            observed_at: self.context.observed_at.clone(),
            origin: self.context.origin,
            pass_id: self.context.pass_id,
            intent_id: self.context.intent_id.clone(),
            after: customer.map(|customer| customer.body().to_owned()),
            redacts,
        };
        let salt: [u8; 16] = rand::random();
        let digest = entry.digest(&salt);
        let chained = chain(&self.head.chain, &digest);
        insert(self.tx, &entry, &salt, &digest, &chained)?;

        let (row, before) = before.map(|stored| (stored.row, stored.mirror_row)).unzip();
        if let Some(row) = row {
            unchanged::forget(self.tx, row)?;
        }
        let row = match MirrorRow::fold(before, &entry)? {
            Some(mirror_row) => Some(mirror::put(self.tx, row, id, &mirror_row, customer)?),
            None => {
                mirror::remove(self.tx, id)?;
                None
            }
        };
        self.head = Head { seq: entry.seq, chain: chained };
        match kind {
            ChangeKind::Created => self.tally.created += 1,
            ChangeKind::Updated => self.tally.updated += 1,
            ChangeKind::Deleted => self.tally.deleted += 1,
            ChangeKind::Restored => self.tally.restored += 1,
            ChangeKind::Erased => self.erased += 1,
        }
        Ok(row)
    }
}

/// Removes content and salt from all entries of a customer; returns the entries that had any.
/// Entries of earlier erasures are left unchanged: they hold only numbers, and their lists must
/// stay provable.
fn redact(tx: &Tx<'_>, id: &CustomerId) -> Result<Vec<i64>, StoreError> {
    let seqs: Vec<i64> = tx
        .prepare(
            "SELECT seq FROM change_log WHERE customer_id = ?1 AND kind <> 'erased' AND salt IS NOT NULL ORDER BY seq",
        )?
        .query_map([id.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut redact = tx.prepare("UPDATE change_log SET after = NULL, salt = NULL WHERE seq = ?1")?;
    for seq in &seqs {
        redact.execute([seq])?;
    }
    Ok(seqs)
}

fn insert(
    tx: &Tx<'_>,
    entry: &ChangeEntry,
    salt: &[u8],
    digest: &Hash,
    chain: &Hash,
) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO change_log
             (seq, customer_id, kind, observed_at, origin, pass_id, intent_id, after, redacts, salt, digest, chain)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    statement.execute(params![
        entry.seq,
        entry.customer_id.as_str(),
        entry.kind.word(),
        entry.observed_at,
        entry.origin.word(),
        entry.pass_id,
        entry.intent_id,
        entry.after,
        entry.redacts,
        salt,
        digest,
        chain,
    ])?;
    Ok(())
}

/// An entry with its salt, digest and chain, as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    /// The entry.
    pub entry: ChangeEntry,
    /// `None` once the entry is redacted.
    pub salt: Option<Vec<u8>>,
    /// The digest of the entry and its salt.
    pub digest: Hash,
    /// The chain value after this entry.
    pub chain: Hash,
}

const SEALED: &str = "SELECT seq, customer_id, kind, observed_at, origin, pass_id, intent_id, after, redacts, salt, digest, chain FROM change_log";

/// Shows `visit` every entry, in the order of the log.
pub fn each(conn: &Conn, visit: impl FnMut(SealedEntry) -> Result<(), StoreError>) -> Result<(), StoreError> {
    visit_sealed(conn, &format!("{SEALED} ORDER BY seq"), [], visit)
}

/// Returns where the log ended at a moment (in the text form of [`komoju_core::time`]): the last
/// entry with a time up to it. All entries before that one count too, whatever their times are,
/// because a wall clock can be set back. So the log is always cut at one place.
pub fn seq_at(conn: &Conn, moment: &str) -> Result<i64, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT seq FROM change_log WHERE observed_at <= ?1 ORDER BY seq DESC LIMIT 1")?;
    Ok(statement.query_row([moment], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Shows `visit` every entry up to `last_seq`, grouped by customer, each customer's entries in the
/// order of the log. With `customer`, only that customer's.
pub fn each_by_customer(
    conn: &Conn,
    customer: Option<&CustomerId>,
    last_seq: i64,
    visit: impl FnMut(SealedEntry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match customer {
        Some(id) => {
            let sql = format!("{SEALED} WHERE seq <= ?1 AND customer_id = ?2 ORDER BY seq");
            visit_sealed(conn, &sql, params![last_seq, id.as_str()], visit)
        }
        // The `+` keeps SQLite from using the order by `seq`: it would then sort the whole log.
        None => {
            let sql = format!("{SEALED} WHERE +seq <= ?1 ORDER BY customer_id, seq");
            visit_sealed(conn, &sql, params![last_seq], visit)
        }
    }
}

fn visit_sealed(
    conn: &Conn,
    sql: &str,
    parameters: impl rusqlite::Params,
    mut visit: impl FnMut(SealedEntry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        visit(sealed_entry_in(row)?)?;
    }
    Ok(())
}

fn sealed_entry_in(row: &Row<'_>) -> rusqlite::Result<SealedEntry> {
    Ok(SealedEntry {
        entry: ChangeEntry {
            seq: row.get(0)?,
            customer_id: mirror::id_in(row, 1)?,
            kind: word_in(row, 2, ChangeKind::from_word)?,
            observed_at: row.get(3)?,
            origin: word_in(row, 4, Origin::from_word)?,
            pass_id: row.get(5)?,
            intent_id: row.get(6)?,
            after: row.get(7)?,
            redacts: row.get(8)?,
        },
        salt: row.get(9)?,
        digest: row.get(10)?,
        chain: row.get(11)?,
    })
}

fn word_in<T>(row: &Row<'_>, column: usize, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    let unknown = || {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            Type::Text,
            format!("unknown value {word:?}").into(),
        )
    };
    read(&word).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn recorder_names_the_pass_of_its_context() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        for pass_id in [None, Some(7)] {
            let context =
                ChangeContext { observed_at: String::new(), origin: Origin::Sweep, pass_id, intent_id: None };
            let (named, _) = recording(&tx, context, |recorder| Ok(recorder.pass_id())).unwrap();
            assert_eq!(named, pass_id);
        }
    }
}
