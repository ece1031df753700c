//! Verification that the log is whole and folds to the mirror, and the rebuild of the mirror from
//! the log.

use std::collections::HashSet;

use super::changes::{self, Head, SealedEntry};
use super::mirror;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::change::{EMPTY_CHAIN, ImpossibleChange, chain};
use komoju_core::{CustomerId, MirrorRow};

/// MAX_FINDINGS controls how many findings are kept. A log that is damaged throughout has one for
/// each entry.
const MAX_FINDINGS: usize = 100;

/// WATCH_INTERVAL controls after how many steps progress is reported.
const WATCH_INTERVAL: u64 = 1000;

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Entries read.
    pub entries: u64,
    /// Customers in the mirror, live and deleted.
    pub customers: u64,
    /// Where the log ends.
    pub head: Option<Head>,
    /// Each deviation as a sentence; the first hundred.
    pub findings: Vec<String>,
    /// How many deviations there are.
    pub finding_count: u64,
}

impl Verification {
    fn add(&mut self, finding: impl FnOnce() -> String) {
        self.finding_count += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding());
        }
    }
}

/// Checks the file's structure, the chain, each digest, each redaction, and that the log folds to
/// the mirror. With `known_head`, which was taken from the log earlier and kept elsewhere, also
/// that the log still holds it.
pub fn verify(conn: &Conn, known_head: Option<Head>) -> Result<Verification, StoreError> {
    verify_with_progress(conn, known_head, |_| {})
}

/// Like [`verify`]; reports to `watch` from time to time how many entries were read.
pub fn verify_with_progress(
    conn: &Conn,
    known_head: Option<Head>,
    watch: impl FnMut(u64),
) -> Result<Verification, StoreError> {
    let mut verified = Verification::default();
    check_structure(conn, &mut verified)?;
    check_chain(conn, known_head, &mut verified, watch)?;
    check_fold(conn, &mut verified)?;
    Ok(verified)
}

fn check_structure(conn: &Conn, verified: &mut Verification) -> Result<(), StoreError> {
    let mut statement = conn.prepare("PRAGMA integrity_check(10)")?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for line in lines.into_iter().filter(|line| line != "ok") {
        verified.add(|| format!("SQLite finds the file damaged: {line}"));
    }
    Ok(())
}

fn check_chain(
    conn: &Conn,
    known_head: Option<Head>,
    verified: &mut Verification,
    mut watch: impl FnMut(u64),
) -> Result<(), StoreError> {
    let listed = redaction_lists(conn, verified)?;
    let mut previous = Head { seq: 0, chain: EMPTY_CHAIN };
    let mut known_seen = known_head.is_none_or(|known| known.seq == 0);
    changes::each(conn, |sealed| {
        let seq = sealed.entry.seq;
        if seq != previous.seq + 1 {
            verified
                .add(|| format!("change {} is followed by change {seq}: entries are missing", previous.seq));
        }
        check_content(&sealed, &listed, verified);
        if chain(&previous.chain, &sealed.digest) != sealed.chain {
            verified.add(|| format!("the chain breaks at change {seq}: it or an earlier entry was replaced"));
        }
        if let Some(known) = known_head.filter(|known| known.seq == seq) {
            known_seen = true;
            if known.chain != sealed.chain {
                verified.add(|| {
                    format!("change {seq} has another chain value than the given one: this is another log")
                });
            }
        }
        verified.entries += 1;
        if verified.entries.is_multiple_of(WATCH_INTERVAL) {
            watch(verified.entries);
        }
        // Continue with the stored value, so that one break is reported once.
        previous = Head { seq, chain: sealed.chain };
        Ok(())
    })?;
    if let (false, Some(known)) = (known_seen, known_head) {
        verified.add(|| {
            format!("the log ends at change {}, before the given change {}", previous.seq, known.seq)
        });
    }
    verified.head = Some(previous);
    Ok(())
}

/// Returns the seqs that erasures say they redacted. They are read first, because an erasure comes
/// after the entries that it redacts.
fn redaction_lists(conn: &Conn, verified: &mut Verification) -> Result<HashSet<i64>, StoreError> {
    let mut listed = HashSet::new();
    let mut statement = conn.prepare("SELECT seq, redacts FROM change_log WHERE redacts IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, redacts): (i64, String) = (row.get(0)?, row.get(1)?);
        match serde_json::from_str::<Vec<i64>>(&redacts) {
            Ok(seqs) => listed.extend(seqs.into_iter().filter(|redacted| *redacted < seq)),
            Err(_) => {
                verified.add(|| format!("change {seq} lists redacted entries in a form that cannot be read"))
            }
        }
    }
    Ok(listed)
}

fn check_content(sealed: &SealedEntry, listed: &HashSet<i64>, verified: &mut Verification) {
    let seq = sealed.entry.seq;
    match &sealed.salt {
        Some(salt) if sealed.entry.digest(salt) != sealed.digest => {
            verified.add(|| format!("the content of change {seq} is not what was recorded"));
        }
        None if !listed.contains(&seq) => {
            verified.add(|| format!("change {seq} was redacted, but no erasure says so"));
        }
        Some(_) if listed.contains(&seq) => {
            verified
                .add(|| format!("an erasure says that change {seq} was redacted, but it still has content"));
        }
        _ => {}
    }
}

fn check_fold(conn: &Conn, verified: &mut Verification) -> Result<(), StoreError> {
    let mut folded_count = 0_u64;
    each_folded(conn, |id, folded| {
        let folded = match folded {
            Ok(folded) => folded,
            Err(impossible) => {
                verified.add(|| impossible.to_string());
                return Ok(());
            }
        };
        folded_count += u64::from(folded.is_some());
        if mirror::find(conn, &id)?.map(|stored| stored.mirror_row) != folded {
            verified.add(|| format!("the mirror's row of customer {id} differs from the log"));
        } else if folded.is_some() && !mirror::columns_agree(conn, &id)? {
            verified
                .add(|| format!("the mirror's email or created_at of customer {id} differs from its body"));
        }
        Ok(())
    })?;
    let (live, deleted) = mirror::counted(conn)?;
    let in_mirror = live + deleted;
    verified.customers = u64::try_from(in_mirror).unwrap_or(0);
    let stored: (i64, i64) =
        conn.query_row("SELECT live, deleted FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if stored != (live, deleted) {
        verified.add(|| {
            format!(
                "the mirror holds {live} live and {deleted} deleted customers, but its counts are {} and {}",
                stored.0, stored.1
            )
        });
    }
    if verified.customers != folded_count {
        verified.add(|| format!("the mirror holds {in_mirror} customers, the log folds to {folded_count}"));
    }
    Ok(())
}

/// Rebuilds the mirror from the log, within the caller's transaction. Returns how many customers it
/// then holds. It does not correct errors in the log itself.
pub fn rebuild(tx: &Tx<'_>) -> Result<u64, StoreError> {
    rebuild_with_progress(tx, |_| {})
}

/// Like [`rebuild`]; reports to `watch` from time to time how many customers were written.
pub fn rebuild_with_progress(tx: &Tx<'_>, mut watch: impl FnMut(u64)) -> Result<u64, StoreError> {
    mirror::clear(tx)?;
    let mut count = 0_u64;
    // In the order of their creation, so that the rows keep about the order of the list.
    let mut created = tx.prepare("SELECT customer_id FROM change_log WHERE kind = 'created' ORDER BY seq")?;
    let mut rows = created.query([])?;
    while let Some(row) = rows.next()? {
        let id = mirror::id_in(row, 0)?;
        // An erased customer may have been created a second time.
        if mirror::find(tx, &id)?.is_some() {
            continue;
        }
        if let Some(mirror_row) = folded_until(tx, &id, i64::MAX)? {
            mirror::put(tx, None, &id, &mirror_row, None)?;
            count += 1;
            if u64::is_multiple_of(count, WATCH_INTERVAL) {
                watch(count);
            }
        }
    }
    mirror::recount(tx)?;
    Ok(count)
}

type Folded = Result<Option<MirrorRow>, ImpossibleChange>;

/// Shows `visit` the state that each customer's entries fold to. One customer is in memory at a
/// time.
fn each_folded(
    conn: &Conn,
    visit: impl FnMut(CustomerId, Folded) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    each_folded_until(conn, i64::MAX, visit)
}

/// Like [`each_folded`], with the entries up to `last_seq`.
pub(in crate::store) fn each_folded_until(
    conn: &Conn,
    last_seq: i64,
    mut visit: impl FnMut(CustomerId, Folded) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut current: Option<(CustomerId, Folded)> = None;
    changes::each_by_customer(conn, None, last_seq, |sealed| {
        let entry = sealed.entry;
        let before = match current.take() {
            Some((id, folded)) if id == entry.customer_id => folded,
            done => {
                if let Some((id, folded)) = done {
                    visit(id, folded)?;
                }
                Ok(None)
            }
        };
        let folded = before.and_then(|before| MirrorRow::fold(before, &entry));
        current = Some((entry.customer_id, folded));
        Ok(())
    })?;
    match current {
        Some((id, folded)) => visit(id, folded),
        None => Ok(()),
    }
}

/// Returns the state that one customer's entries up to `last_seq` fold to.
pub(in crate::store) fn folded_until(
    conn: &Conn,
    id: &CustomerId,
    last_seq: i64,
) -> Result<Option<MirrorRow>, StoreError> {
    let mut folded = None;
    changes::each_by_customer(conn, Some(id), last_seq, |sealed| {
        folded = MirrorRow::fold(folded.take(), &sealed.entry)?;
        Ok(())
    })?;
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn erasure_that_lists_itself_does_not_excuse_its_own_redaction() {
        let conn = open::in_memory();
        conn.execute(
            "INSERT INTO change_log (seq, customer_id, kind, observed_at, origin, redacts, salt, digest, chain)
             VALUES (1, 'c', 'erased', '2026-01-01T00:00:00.000Z', 'operator', '[1]', NULL, zeroblob(32), zeroblob(32))",
            [],
        )
        .unwrap();
        let findings = verify(&conn, None).unwrap().findings;
        let expected = "change 1 was redacted, but no erasure says so";
        assert!(findings.iter().any(|finding| finding == expected), "{findings:?}");
    }
}
