//! Proof that the log is whole and folds to the mirror, and the way back when the mirror is not.

use std::collections::HashSet;

use super::changes::{self, Head, Sealed};
use super::mirror;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::change::{EMPTY_CHAIN, ImpossibleChange, chain};
use komoju_core::{CustomerId, MirrorRow};

/// How many findings are told one by one; a wholly damaged log has as many as entries.
const TOLD: usize = 100;

/// After how many steps a watcher is told.
const WATCH_EVERY: u64 = 1000;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries read.
    pub entries: u64,
    /// Customers in the mirror, live and deleted.
    pub customers: u64,
    /// Where the log ends.
    pub head: Option<Head>,
    /// Everything that is not as it should be, one sentence each; the first hundred.
    pub findings: Vec<String>,
    /// How many there are.
    pub finding_count: u64,
}

impl Verified {
    fn find(&mut self, finding: impl FnOnce() -> String) {
        self.finding_count += 1;
        if self.findings.len() < TOLD {
            self.findings.push(finding());
        }
    }
}

/// Checks the file's structure, the chain, each digest, each redaction, that the log folds to the mirror, and that the log
/// still holds `known_head`, taken from it earlier and kept elsewhere.
pub fn verify(conn: &Conn, known_head: Option<Head>) -> Result<Verified, StoreError> {
    verify_watched(conn, known_head, |_| {})
}

/// The same, telling `watch` now and then which entry it has come to.
pub fn verify_watched(
    conn: &Conn,
    known_head: Option<Head>,
    watch: impl FnMut(u64),
) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    check_structure(conn, &mut verified)?;
    check_chain(conn, known_head, &mut verified, watch)?;
    check_fold(conn, &mut verified)?;
    Ok(verified)
}

fn check_structure(conn: &Conn, verified: &mut Verified) -> Result<(), StoreError> {
    let mut statement = conn.prepare("PRAGMA integrity_check(10)")?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for line in lines.into_iter().filter(|line| line != "ok") {
        verified.find(|| format!("SQLite finds the file damaged: {line}"));
    }
    Ok(())
}

fn check_chain(
    conn: &Conn,
    known_head: Option<Head>,
    verified: &mut Verified,
    mut watch: impl FnMut(u64),
) -> Result<(), StoreError> {
    let listed = redaction_lists(conn, verified)?;
    let mut previous = Head { seq: 0, chain: EMPTY_CHAIN };
    let mut known_seen = known_head.is_none_or(|known| known.seq == 0);
    changes::each(conn, |sealed| {
        let seq = sealed.entry.seq;
        if seq != previous.seq + 1 {
            verified
                .find(|| format!("change {} is followed by change {seq}: entries are missing", previous.seq));
        }
        check_content(&sealed, &listed, verified);
        if chain(&previous.chain, &sealed.digest) != sealed.chain {
            verified
                .find(|| format!("the chain breaks at change {seq}: it or an earlier entry was replaced"));
        }
        if let Some(known) = known_head.filter(|known| known.seq == seq) {
            known_seen = true;
            if known.chain != sealed.chain {
                verified.find(|| {
                    format!("change {seq} does not carry the chain that you gave: the log is another one")
                });
            }
        }
        verified.entries += 1;
        if verified.entries.is_multiple_of(WATCH_EVERY) {
            watch(verified.entries);
        }
        // Going on from what is stored tells one break once.
        previous = Head { seq, chain: sealed.chain };
        Ok(())
    })?;
    if let (false, Some(known)) = (known_seen, known_head) {
        verified.find(|| {
            format!("the log ends at change {}, before the change {} that you gave", previous.seq, known.seq)
        });
    }
    verified.head = Some(previous);
    Ok(())
}

/// The seqs that erasures say they redacted. Read first, since an erasure comes after what it redacts.
fn redaction_lists(conn: &Conn, verified: &mut Verified) -> Result<HashSet<i64>, StoreError> {
    let mut listed = HashSet::new();
    let mut statement = conn.prepare("SELECT seq, redacts FROM change_log WHERE redacts IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, redacts): (i64, String) = (row.get(0)?, row.get(1)?);
        match serde_json::from_str::<Vec<i64>>(&redacts) {
            Ok(seqs) => listed.extend(seqs.into_iter().filter(|redacted| *redacted < seq)),
            Err(_) => {
                verified.find(|| format!("change {seq} lists redacted entries in a form that cannot be read"))
            }
        }
    }
    Ok(listed)
}

fn check_content(sealed: &Sealed, listed: &HashSet<i64>, verified: &mut Verified) {
    let seq = sealed.entry.seq;
    match &sealed.salt {
        Some(salt) if sealed.entry.digest(salt) != sealed.digest => {
            verified.find(|| format!("the content of change {seq} is not what was recorded"));
        }
        None if !listed.contains(&seq) => {
            verified.find(|| format!("change {seq} was redacted, but no erasure says so"));
        }
        Some(_) if listed.contains(&seq) => {
            verified
                .find(|| format!("an erasure says that change {seq} was redacted, and its content is there"));
        }
        _ => {}
    }
}

fn check_fold(conn: &Conn, verified: &mut Verified) -> Result<(), StoreError> {
    let mut folded_count = 0_u64;
    each_folded(conn, |id, folded| {
        let folded = match folded {
            Ok(folded) => folded,
            Err(impossible) => {
                verified.find(|| impossible.to_string());
                return Ok(());
            }
        };
        folded_count += u64::from(folded.is_some());
        if mirror::find(conn, &id)?.map(|stored| stored.standing) != folded {
            verified.find(|| format!("the mirror does not say of customer {id} what the log says"));
        } else if folded.is_some() && !mirror::columns_agree(conn, &id)? {
            verified.find(|| {
                format!("the mirror's email or created_at of customer {id} is not the one in its body")
            });
        }
        Ok(())
    })?;
    let (live, deleted) = mirror::counted(conn)?;
    let in_mirror = live + deleted;
    verified.customers = u64::try_from(in_mirror).unwrap_or(0);
    let told: (i64, i64) =
        conn.query_row("SELECT live, deleted FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if told != (live, deleted) {
        verified.find(|| {
            format!(
                "the mirror holds {live} live and {deleted} deleted customers, its counts say {} and {}",
                told.0, told.1
            )
        });
    }
    if verified.customers != folded_count {
        verified.find(|| format!("the mirror holds {in_mirror} customers, the log folds to {folded_count}"));
    }
    Ok(())
}

/// Makes the mirror anew from the log, within the caller's transaction; returns how many customers it then holds. What
/// `verify` finds wrong with the log itself stays wrong.
pub fn rebuild(tx: &Tx<'_>) -> Result<u64, StoreError> {
    rebuild_watched(tx, |_| {})
}

/// The same, telling `watch` now and then how many customers it has made.
pub fn rebuild_watched(tx: &Tx<'_>, mut watch: impl FnMut(u64)) -> Result<u64, StoreError> {
    mirror::clear(tx)?;
    let mut count = 0_u64;
    // In the order in which they came, so that the rows stay in about the order of the list.
    let mut created = tx.prepare("SELECT customer_id FROM change_log WHERE kind = 'created' ORDER BY seq")?;
    let mut rows = created.query([])?;
    while let Some(row) = rows.next()? {
        let id = mirror::id_in(row, 0)?;
        // Whoever was erased may have been created a second time.
        if mirror::find(tx, &id)?.is_some() {
            continue;
        }
        if let Some(standing) = folded_until(tx, &id, i64::MAX)? {
            mirror::put(tx, None, &id, &standing, None)?;
            count += 1;
            if u64::is_multiple_of(count, WATCH_EVERY) {
                watch(count);
            }
        }
    }
    mirror::recount(tx)?;
    Ok(count)
}

type Folded = Result<Option<MirrorRow>, ImpossibleChange>;

/// Shows `visit` what each customer's entries fold to. One customer is held in memory at a time.
fn each_folded(
    conn: &Conn,
    visit: impl FnMut(CustomerId, Folded) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    each_folded_until(conn, i64::MAX, visit)
}

/// The same from the log as it was when this was its last entry.
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

/// What one customer's entries up to this one fold to.
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
