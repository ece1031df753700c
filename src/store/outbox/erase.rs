//! Erasure: removes the data of a deleted customer from log, mirror and outbox, and afterwards from
//! free pages and the WAL.
//!
//! Rows stay where they prove something: the log's entries without content and salt, and an
//! intent's row as a record of its existence and outcome. The customer's id stays in both, so that
//! it is known which customer was erased.
//!
//! An erasure is finished when no byte of the content is left in the file and its WAL
//! ([`crate::store::file::wipe`]). Until then it is unfinished; the daemon or the next `sync`
//! finishes it if the command cannot.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::spool;
use crate::store::file::wipe;
use crate::store::log::changes::{self, ChangeContext, Head, Redaction};
use crate::store::log::holds::{self, HoldEnd};
use crate::store::log::mirror;
use crate::store::outbox::engine::as_engine;
use crate::store::{Conn, StoreError, Tx};
use komoju_core::{ChangeKind, CustomerId, Origin, SearchText, Traces, json};

/// Replaces a reason or an error that may contain data of the customer.
const ERASED: &str = "erased with its customer";

/// MAX_NAMED controls how many open intents a refusal names.
const MAX_NAMED: usize = 5;

/// An intent's position, and why data in it stays.
pub type RetainedIntent = (i64, &'static str);

/// The result of an erasure.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// When the customer was erased; for a repeated erasure, when the first one was.
    pub erased_at: String,
    /// The entries that the erasure redacted.
    pub redaction: Redaction,
    /// Whether the customer had been erased before, so that only newer data was erased now.
    pub again: bool,
    /// How many intents lost their content now.
    pub intents: u64,
    /// Where the log ends now.
    pub head: Head,
    /// The values that identify the customer. They are needed to search files and are not stored.
    pub traces: Traces,
    /// Intents in which data stays, by position. Some contain one of the emails, and are about
    /// another customer or not settled. Others have a value in their id.
    pub kept: Vec<RetainedIntent>,
    /// Other customers in the mirror with one of the emails.
    pub same_email: Vec<CustomerId>,
}

/// Erases a customer, within the caller's transaction.
///
/// # Errors
/// [`StoreError::Refused`] for a customer that is unknown or live, and while intents for it are
/// open.
pub fn erase(tx: &Tx<'_>, id: &CustomerId, at: &str) -> Result<Erasure, StoreError> {
    let stored = mirror::find(tx, id)?;
    let before = match &stored {
        Some(stored) if stored.mirror_row.is_live() => return Err(StoreError::Refused(is_live(tx, id)?)),
        Some(_) => None,
        None => Some(erased_before(tx, id)?.ok_or_else(|| {
            StoreError::Refused(format!(
                "the change log knows no customer {id}; nothing was erased. `komoju-sync customers list` and the view \
                 deleted_customers show their ids"
            ))
        })?),
    };
    refuse_while_open(tx, id)?;
    let mut traces = Traces::of(id.as_str());
    changes::each_by_customer(tx, Some(id), i64::MAX, |sealed| {
        if let Some(body) = sealed.entry.after.and_then(|after| json::parse(after.as_bytes()).ok()) {
            traces.add(&body);
        }
        Ok(())
    })?;
    let (erased_at, redaction, again) = match before {
        Some((erased_at, redaction)) => (erased_at, redaction, true),
        None => {
            let context = ChangeContext {
                observed_at: at.to_owned(),
                origin: Origin::Operator,
                pass_id: None,
                intent_id: None,
            };
            let (redaction, _) = changes::recording(tx, context, |recorder| recorder.erase(id))?;
            holds::end(tx, id, HoldEnd::Deleted)?;
            (at.to_owned(), redaction, false)
        }
    };
    // The tombstone is gone, so values that are still in the mirror belong to other customers.
    let (of_customer, kept) = intents_of(tx, id, &mut traces)?;
    redact_intents(tx, &of_customer, &traces)?;
    for email in traces.emails() {
        tx.execute("UPDATE pass SET error = 'erased' WHERE instr(lower(error), lower(?1)) > 0", [email])?;
    }
    if !again || !of_customer.is_empty() {
        wipe::note_erasure(tx)?;
    }
    Ok(Erasure {
        erased_at,
        redaction,
        again,
        intents: u64::try_from(of_customer.len()).unwrap_or(0),
        head: changes::head(tx)?,
        same_email: others_with(tx, &traces)?,
        traces,
        kept,
    })
}

fn is_live(conn: &Conn, id: &CustomerId) -> Result<String, StoreError> {
    let how = match holds::held_because(conn, id)? {
        Some(_) => "approve its held deletion (`komoju-sync deletions list`)".to_owned(),
        None => format!("delete it at KOMOJU (`komoju-sync intent delete {id}`)"),
    };
    Ok(format!(
        "customer {id} is live as far as is known, and the next sweep would import it again; nothing was erased. \
         First {how}, wait until the deletion is recorded (`komoju-sync customers show {id}` shows it), then erase the customer"
    ))
}

/// Returns when a customer was erased, and what that redacted; `None` for one that the log does not
/// know, or that was created again since.
pub fn erased_before(conn: &Conn, id: &CustomerId) -> Result<Option<(String, Redaction)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, observed_at, redacts, kind FROM change_log WHERE customer_id = ?1 ORDER BY seq DESC LIMIT 1",
    )?;
    let last = statement.query_row([id.as_str()], |row| {
        let kind: String = row.get(3)?;
        Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?, kind))
    });
    Ok(last.optional()?.filter(|(.., kind)| kind == ChangeKind::Erased.word()).map(
        |(seq, at, redacts, _)| {
            let redacted = redacts.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default();
            (at, Redaction { seq, redacted })
        },
    ))
}

/// The customer's intents: by its id, by the customer that they created or changed, and by the
/// create that created it.
const OF_CUSTOMER: &str = "(customer_id = ?1 OR result_customer_id = ?1 OR lane = ?1
     OR substr(customer_id, 2) IN (SELECT made.id FROM intents AS made WHERE made.result_customer_id = ?1 AND made.op = 'create')
        AND customer_id GLOB '@*')";

fn refuse_while_open(conn: &Conn, id: &CustomerId) -> Result<(), StoreError> {
    let open: Vec<(String, String)> = conn
        .prepare(&format!(
            "SELECT id, state FROM outbox CROSS JOIN intents USING (position) WHERE is_open = 1 AND {OF_CUSTOMER} ORDER BY position"
        ))?
        .query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    if !open.is_empty() {
        let more = open.len().saturating_sub(MAX_NAMED);
        let mut named: Vec<String> = open
            .iter()
            .take(MAX_NAMED)
            .map(|(intent, state)| format!("{} ({state})", intent.escape_debug()))
            .collect();
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        return Err(StoreError::Refused(format!(
            "intents for customer {id} are not settled: {}; nothing was erased. Cancel those that are queued or parked with \
             `komoju-sync intent cancel`, wait for those that are sent or retried, then erase the customer",
            named.join(", ")
        )));
    }
    // The mirror decides whether such a create took effect, so this customer must stay in it until
    // then. Either clock may have been ahead at the first attempt, so the earlier time counts
    // (`creates::window_from`). A time that cannot be read excludes nothing.
    let unclear: Option<String> = conn
        .prepare(
            "SELECT intents.id FROM outbox CROSS JOIN intents USING (position) JOIN mirror ON mirror.id = ?1
             WHERE is_open = 1 AND op = 'create' AND (outcome_unknown = 1 OR is_sending = 1)
               AND NOT EXISTS (SELECT 1 FROM intents AS made WHERE made.result_customer_id = ?1 AND made.op = 'create')
               AND coalesce(julianday(mirror.created_at) >= -0.05 + min(
                       julianday(coalesce(first_server_at, first_attempt_at)),
                       julianday(coalesce(first_attempt_at, first_server_at))), 1)
             ORDER BY position LIMIT 1",
        )?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    match unclear {
        None => Ok(()),
        Some(intent) => Err(StoreError::Refused(format!(
            "it is not known yet whether the create {} made customer {id}; nothing was erased. Wait until that intent is settled \
             (`komoju-sync intent show` shows it), then erase the customer",
            intent.escape_debug()
        ))),
    }
}

/// The columns of an intent that an erasure considers.
struct IntentContent {
    position: i64,
    id: String,
    customer_id: Option<String>,
    is_open: bool,
    is_erased: bool,
    is_of_customer: bool,
    /// A create without a customer as its result.
    made_no_customer: bool,
    parts: Vec<Value>,
}

/// Returns the intents whose content is erased, and those that keep data of the customer. A settled
/// create without a customer is erased too if it has one of the emails, because it holds the
/// same personal data.
fn intents_of(
    conn: &Conn,
    id: &CustomerId,
    traces: &mut Traces,
) -> Result<(Vec<i64>, Vec<RetainedIntent>), StoreError> {
    each_content(conn, id, |content| {
        if content.is_of_customer {
            content.parts.iter().for_each(|part| traces.add(part));
        }
        Ok(())
    })?;
    let (mut to_erase, mut kept) = (Vec::new(), Vec::new());
    // The creates without a customer that are erased, in the form in which their followers refer to
    // them.
    let mut erased_creates = HashSet::new();
    each_content(conn, id, |content| {
        let names_email = content.parts.iter().any(|part| {
            part.get("email").and_then(Value::as_str).is_some_and(|email| traces.is_email(email))
        });
        let is_unmatched = content.made_no_customer && names_email
            || content.customer_id.as_ref().is_some_and(|customer| erased_creates.contains(customer));
        let is_erased_now = content.is_of_customer || (is_unmatched && !content.is_open);
        if is_unmatched && is_erased_now && content.made_no_customer {
            erased_creates.insert(format!("@{}", content.id));
        }
        if is_erased_now && !content.is_erased {
            to_erase.push(content.position);
        }
        if traces.value_in(&SearchText::new(content.id.as_bytes()), |value| is_rare(conn, value))? {
            kept.push((content.position, "its id holds a value of this customer, and ids are never changed"));
        } else if names_email && !is_erased_now {
            kept.push((
                content.position,
                match content.is_open {
                    true => "it is not settled, is not about this customer, and has the same email",
                    false => "it is about another customer with the same email",
                },
            ));
        }
        Ok(())
    })?;
    Ok((to_erase, kept))
}

fn each_content(
    conn: &Conn,
    id: &CustomerId,
    mut visit: impl FnMut(IntentContent) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare(&format!(
        "SELECT position, id, customer_id, is_open, erased, {OF_CUSTOMER}, op = 'create' AND result_customer_id IS NULL, body, expect, detail
         FROM outbox CROSS JOIN intents USING (position) ORDER BY position"
    ))?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let part = |at: usize| match row.get_ref(at) {
            Ok(value) => value.as_str().ok().and_then(|text| json::parse(text.as_bytes()).ok()),
            Err(_) => None,
        };
        visit(IntentContent {
            position: row.get(0)?,
            id: row.get(1)?,
            customer_id: row.get(2)?,
            is_open: row.get(3)?,
            is_erased: row.get(4)?,
            is_of_customer: row.get::<_, Option<bool>>(5)?.unwrap_or(false),
            made_no_customer: row.get::<_, Option<bool>>(6)?.unwrap_or(false),
            parts: (7..10).filter_map(part).collect(),
        })?;
    }
    Ok(())
}

/// Removes the content of these intents. Their digests go too: a digest would prove a guessed
/// email.
fn redact_intents(tx: &Tx<'_>, positions: &[i64], traces: &Traces) -> Result<(), StoreError> {
    as_engine(tx, || {
        for position in positions {
            let by: Option<String> =
                tx.query_row("SELECT submitted_by FROM intents WHERE position = ?1", [position], |row| {
                    row.get(0)
                })?;
            let by = match by {
                Some(by)
                    if traces.value_in(&SearchText::new(by.as_bytes()), |value| is_rare(tx, value))? =>
                {
                    None
                }
                by => by,
            };
            tx.prepare_cached(
                "UPDATE intents SET body = NULL, expect = NULL, detail = NULL, reason = ?2, submitted_by = ?3 WHERE position = ?1",
            )?
            .execute(params![position, ERASED, by])?;
            tx.prepare_cached(
                "UPDATE outbox SET content = NULL, base = NULL, erased = 1 WHERE position = ?1",
            )?
            .execute([position])?;
            tx.prepare_cached(
                "UPDATE attempts SET error = ?2
                 WHERE error IS NOT NULL AND intent_id = (SELECT id FROM intents WHERE position = ?1)",
            )?
            .execute(params![position, ERASED])?;
            // The daemon may be writing a receipt from what it read before this transaction, so the
            // receipt must be written once more.
            let id: String =
                tx.query_row("SELECT id FROM intents WHERE position = ?1", [position], |row| row.get(0))?;
            spool::reopen(tx, &id)?;
        }
        Ok(())
    })
}

fn others_with(conn: &Conn, traces: &Traces) -> Result<Vec<CustomerId>, StoreError> {
    let mut others = Vec::new();
    let mut statement = conn.prepare("SELECT id FROM mirror WHERE email = ?1 ORDER BY id LIMIT 20")?;
    for email in traces.emails() {
        for id in statement.query_map([email], |row| mirror::id_in(row, 0))? {
            others.push(id?);
        }
    }
    others.sort();
    others.dedup();
    Ok(others)
}

/// Returns whether no customer in the mirror has this value, so that it identifies the erased one.
pub fn is_rare(conn: &Conn, value: &str) -> Result<bool, StoreError> {
    // As the text of a body contains it.
    let spelled = serde_json::to_string(value).unwrap_or_default();
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM mirror WHERE instr(body, ?1) > 0)";
    Ok(conn.prepare_cached(sql)?.query_row([spelled.trim_matches('"')], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn only_a_settled_create_with_the_email_is_erased_with_the_customer() {
        let mut conn = open::in_memory();
        let tx = conn.transaction().unwrap();
        for (id, op, customer, email) in [
            ("of-others", "create", None, "other@example.com"),
            ("of-another", "update", Some("another"), "same@example.com"),
            ("of-customer", "create", None, "same@example.com"),
        ] {
            let body = serde_json::json!({ "email": email }).to_string();
            tx.execute(
                "INSERT INTO intents (id, op, customer_id, body) VALUES (?1, ?2, ?3, ?4)",
                (id, op, customer, body),
            )
            .unwrap();
        }
        as_engine(&tx, || Ok(tx.execute("UPDATE intents SET state = 'cancelled'", [])?)).unwrap();
        let mut traces = Traces::of("erased");
        traces.add(&serde_json::json!({ "email": "same@example.com" }));
        let id = CustomerId::new("erased").unwrap();
        let (to_erase, kept) = intents_of(&tx, &id, &mut traces).unwrap();
        let named = |position: &i64| -> String {
            tx.query_row("SELECT id FROM intents WHERE position = ?1", [position], |row| row.get(0)).unwrap()
        };
        assert_eq!(to_erase.iter().map(named).collect::<Vec<_>>(), ["of-customer"]);
        assert_eq!(kept.iter().map(|(at, _)| named(at)).collect::<Vec<_>>(), ["of-another"]);
    }
}
