//! The checks after each op. `log` checks the change log and the mirror.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use komoju_sync::store::read::Record;
use serde_json::Value;

use crate::log;
use crate::ops::Op;
use crate::server::{Effect, Server, text};
use crate::world::{Checked, World, must};

/// The transitions of the contract, and the automatic retries.
const LEGAL: [(&str, &str); 14] = [
    ("queued", "sending"),
    ("queued", "parked"),
    ("queued", "cancelled"),
    ("sending", "waiting"),
    ("sending", "done"),
    ("sending", "rejected"),
    ("sending", "parked"),
    ("waiting", "sending"),
    ("waiting", "done"),
    ("waiting", "parked"),
    ("rejected", "queued"),
    ("parked", "queued"),
    ("parked", "waiting"),
    ("parked", "cancelled"),
];

/// A row of the outbox.
struct Row {
    position: i64,
    id: String,
    customer: Option<String>,
    body: Option<String>,
    state: String,
    lane: String,
    is_open: bool,
    is_head: bool,
    is_erased: bool,
    /// What is wrong with this row, checked without other rows.
    wrong: Option<String>,
    was_rejected: bool,
}

const ROWS: &str = "SELECT position, id, customer_id, body, state, lane, is_open, is_head, erased,
     CASE WHEN is_open IS NOT (state IN ('queued', 'sending', 'waiting', 'parked')) THEN 'is_open'
          WHEN (settled_at IS NULL) IS NOT is_open THEN 'settled_at'
          WHEN (state = 'done') IS NOT (result_customer_id IS NOT NULL) THEN 'result_customer_id'
          WHEN attempts IS NOT (SELECT count(*) FROM attempts WHERE intent_id = id) THEN 'attempts'
          WHEN is_open = 0 AND (body GLOB '*tok_*' OR base IS NOT NULL OR detail GLOB '*tok_*' OR reason GLOB '*tok_*') THEN 'a token'
          WHEN op = 'create' AND state IN ('sending', 'waiting') AND key IS NULL THEN 'key'
          WHEN state = 'sending' THEN 'sending without a sender'
          WHEN EXISTS (SELECT 1 FROM attempts WHERE intent_id = id AND finished_at IS NULL) THEN 'an attempt does not end'
          WHEN held = 1 AND state NOT IN ('queued', 'waiting') THEN 'held' END,
     EXISTS (SELECT 1 FROM seen WHERE seen.position = intents.position AND was IN ('rejected', 'parked'))
     FROM intents LEFT JOIN outbox USING (position) ORDER BY position";

impl World<'_> {
    /// Checks everything after this op. `head` is the end of the log before it.
    pub fn check(&mut self, op: &Op, head: i64) -> Checked {
        self.check_waiting_files()?;
        self.check_server()?;
        // An unchanged database was checked before.
        let version = Some(self.look(|reader| reader.data_version().unwrap()));
        if version == self.log.version {
            return Ok(());
        }
        let reader = std::sync::Arc::clone(&self.reader);
        let guard = reader.lock().unwrap();
        let reader = guard.as_ref().unwrap();
        let is_another = matches!(op, Op::Restore(_));
        let head = if is_another { 0 } else { head };
        self.log.check(reader)?;
        self.log.version = version;
        if !self.checking {
            return Ok(());
        }
        let changes = match is_another {
            true => Vec::new(),
            false => log::changes_after(reader, head),
        };
        drop(guard);
        let records = matches!(
            op,
            Op::Sweep
                | Op::Probe
                | Op::Drain
                | Op::SweepAndDrain
                | Op::ReadHinted
                | Op::SweepWithEvents
                | Op::Erase(_)
                | Op::Restore(_)
        );
        must!(records || changes.is_empty(), "{op:?} recorded a change by itself");
        log::check_view(&changes)?;
        self.check_origins(&changes)?;
        self.check_intents()
    }

    /// Checks that each push was allowed, and that no intent created more customers than it may.
    fn check_server(&mut self) -> Checked {
        let ledger = std::sync::Arc::clone(&self.server);
        let mut server = ledger.lock().unwrap();
        server.closed = None;
        must!(server.broken.is_empty(), "{:?}", server.broken);
        // When customers of two accounts share one mirror and both keys are accepted, each account
        // counts for itself.
        let account_of = |effect: &Effect| if self.is_mixed { effect.account } else { 0 };
        let mut made: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
        for (n, effect) in server.effects.iter().enumerate().filter(|(_, effect)| effect.is_create) {
            made.entry((effect.intent.as_str(), account_of(effect))).or_default().push(n);
        }
        let mut excused = BTreeSet::new();
        for ((intent, _), mut effects) in made {
            let may = self.accepted.get(intent).map_or(usize::MAX, |known| known.may_make);
            effects.retain(|n| !server.excused.contains(n));
            if effects.len() > may {
                // A customer that was deleted at KOMOJU before any read here showed it leaves no
                // trace. The create cannot be recognised by it.
                let is_traceless = |n: &usize| self.is_traceless(&server, &server.effects[*n].customer);
                let (traceless, others): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_traceless);
                must!(others.len() <= may, "{intent} made {} customers, and may make {may}", others.len());
                excused.extend(traceless);
            }
        }
        server.excused.extend(excused);
        Ok(())
    }

    fn is_traceless(&self, server: &Server, customer: &str) -> bool {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM change_log WHERE customer_id = ?1)";
        (0..2).all(|account| server.find(account, customer).is_none())
            && self.look(|reader| reader.query_row(sql, [customer], |row| row.get(0)).unwrap())
    }

    /// Invariant 6: an acknowledged push of ours does not return as a change of another client.
    fn check_origins(&self, changes: &[Record]) -> Checked {
        let server = self.server.lock().unwrap();
        let mut settled: BTreeSet<&str> = BTreeSet::new();
        for change in changes {
            if let Some(intent) = change.text("intent_id") {
                must!(change.text("origin") == Some("intent"), "{change:?}");
                must!(server.senders.contains(intent), "{intent} is recorded, and nothing was pushed for it");
                settled.insert(intent);
                // Invariant 4: our own delete is evidence where KOMOJU itself answered it, because
                // then the customer is gone.
                if change.text("kind") == Some("deleted") {
                    let customer = change.text("customer_id").unwrap();
                    let has_deleted =
                        |effect: &Effect| effect.intent == intent && effect.customer == customer;
                    let is_gone = server.find(self.account, customer).is_none();
                    let took_effect = is_gone || server.effects.iter().any(has_deleted);
                    must!(took_effect, "{intent} deleted {customer} only in the mirror: {change:?}");
                }
                continue;
            }
            must!(change.text("origin") != Some("intent"), "{change:?} by no intent");
            // A customer that is gone from one account, and perhaps erased since, returns with the
            // key of the other account, unchanged.
            let is_swapped_back =
                self.was_swapped && matches!(change.text("kind"), Some("restored" | "created"));
            // Invariant 5: an answer to a push does not show that a card is gone. The next sweep
            // that shows cards does.
            let is_card_alone = change
                .get("diff")
                .as_object()
                .is_some_and(|diff| diff.keys().eq(["source"]) && diff["source"]["to"].is_null());
            if change.text("kind") == Some("erased") || is_swapped_back || is_card_alone {
                continue;
            }
            let customer = change.text("customer_id").unwrap();
            let was_unknown = changes.iter().any(|other| {
                other.text("customer_id") == Some(customer) && other.text("kind") == Some("created")
            });
            let new_from = if was_unknown { usize::MAX } else { self.effects_before };
            if let Some(why) = echo(&server, customer, change, &settled, new_from) {
                return Err(format!("{why}: {change:?}"));
            }
        }
        Ok(())
    }

    fn check_intents(&mut self) -> Checked {
        let (rows, steps) = self.look(|reader| {
            let mut statement = reader.prepare_cached(ROWS).unwrap();
            let rows = statement.query_map([], |row| {
                Ok(Row {
                    position: row.get(0)?,
                    id: row.get(1)?,
                    customer: row.get(2)?,
                    body: row.get(3)?,
                    state: row.get(4)?,
                    lane: row.get(5)?,
                    is_open: row.get(6)?,
                    is_head: row.get(7)?,
                    is_erased: row.get(8)?,
                    wrong: row.get(9)?,
                    was_rejected: row.get(10)?,
                })
            });
            let rows: Vec<Row> = rows.unwrap().collect::<Result<_, _>>().unwrap();
            let sql = "SELECT n, was, became FROM seen WHERE n > ?1 ORDER BY n";
            let mut statement = reader.prepare_cached(sql).unwrap();
            let steps = statement.query_map([self.seen], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            let steps: Vec<(i64, String, String)> = steps.unwrap().collect::<Result<_, _>>().unwrap();
            (rows, steps)
        });
        for (n, was, became) in steps {
            must!(
                LEGAL.contains(&(was.as_str(), became.as_str())),
                "an intent that was {was} became {became}"
            );
            self.seen = n;
        }
        // No intent is lost, and none appears without being dropped.
        must!(
            rows.len() == self.accepted.len(),
            "{} intents are there, {} were accepted",
            rows.len(),
            self.accepted.len()
        );
        let mut heads: HashMap<&str, i64> = HashMap::new();
        for row in &rows {
            let Row { id, state, .. } = row;
            must!(row.wrong.is_none(), "{id}, which is {state}, has a wrong {:?}", row.wrong);
            let Some(known) = self.accepted.get(id) else { return Err(format!("{id} was never dropped")) };
            let customer = known.json.get("customer_id").and_then(Value::as_str);
            must!(row.customer.as_deref() == customer, "{id} is about {:?}", row.customer);
            let body = row.body.as_deref().map(|body| serde_json::from_str::<Value>(body).unwrap());
            let mut expected = known.body.clone();
            if (!row.is_open || known.is_restored)
                && body.as_ref().is_some_and(|body| body["payment_details"] == "****")
                && let Some(token) = expected.as_mut().and_then(|body| body.get_mut("payment_details"))
            {
                *token = "****".into();
            }
            must!(row.is_erased || body == expected, "the body of {id}, which is {state}, differs");
            if row.is_open {
                let is_first = *heads.entry(&row.lane).or_insert(row.position) == row.position;
                must!(row.is_head == is_first, "{id}: is_head is {}", row.is_head);
            } else {
                must!(!row.is_head, "{id} is {state}, and is a head");
            }
        }
        in_order(&rows)
    }
}

/// Checks that the intents of one customer were sent in order. A retry of a rejected or parked
/// intent may be sent later. An intent of an `@ID` could not be ordered while its customer was not
/// known yet.
fn in_order(rows: &[Row]) -> Checked {
    let refers = |row: &Row| row.customer.as_deref().is_some_and(|id| id.starts_with('@'));
    let mut stuck: HashMap<&str, &str> = HashMap::new();
    for row in rows {
        let was_sent = matches!(row.state.as_str(), "sending" | "waiting" | "done");
        if let (true, Some(earlier)) = (was_sent, stuck.get(row.lane.as_str())) {
            return Err(format!("{} was sent before {earlier}", row.id));
        }
        if row.is_open && !row.was_rejected && !refers(row) {
            stuck.entry(&row.lane).or_insert(&row.id);
        }
    }
    Ok(())
}

/// Whether a pass recorded a change that is no change of another client: our own push, or the state
/// before it. `new_from` is the first effect of this op.
fn echo(
    server: &Server,
    customer: &str,
    change: &Record,
    settled: &BTreeSet<&str>,
    new_from: usize,
) -> Option<&'static str> {
    let versions = server.versions.get(customer)?;
    let after = match change.get("after") {
        Value::Null => None,
        after => Some(text(after)),
    };
    let at = versions.iter().rposition(|(version, _)| *version == after)?;
    let is_acknowledged =
        |effect: &Option<usize>| effect.is_some_and(|effect| server.effects[effect].is_acknowledged);
    if change.text("kind") == Some("deleted") {
        // A customer that is gone for other reasons may be recorded. If no read had shown the
        // customer when our delete settled, the delete recorded nothing.
        let is_last = at + 1 == versions.len();
        let is_new = versions[at].1.is_some_and(|effect| effect >= new_from);
        return (is_last && is_new && is_acknowledged(&versions[at].1)).then_some("our own delete came back");
    }
    // Invariant 5: a customer that is restored without a card keeps the known one, so its state may
    // equal the one before its card was removed.
    let without_card = |after: &Value| {
        let mut after = after.clone();
        after["source"] = Value::Null;
        text(&after)
    };
    if change.text("kind") == Some("restored")
        && versions.last().is_some_and(|(last, _)| *last == Some(without_card(change.get("after"))))
        && versions[at].0 != versions.last().and_then(|(last, _)| last.clone())
    {
        return None;
    }
    // A list that moves can show one customer on two pages, the newer state first. So the newer
    // state was recorded before.
    let before = Some(change.get("before")).filter(|before| before.is_object()).map(text);
    if versions[at + 1..].iter().any(|(version, effect)| effect.is_none() && *version == before) {
        return None;
    }
    // After a lost answer a state may belong to any client, until the same push is acknowledged.
    if versions.iter().filter(|(version, _)| *version == after).all(|(_, effect)| is_acknowledged(effect)) {
        return Some("our own push came back");
    }
    let is_settled = |effect: &Option<usize>| {
        effect.is_some_and(|effect| {
            let effect = &server.effects[effect];
            effect.is_acknowledged && settled.contains(effect.intent.as_str())
        })
    };
    versions[at + 1..]
        .iter()
        .any(|(_, effect)| is_settled(effect))
        .then_some("what was there before our own push came back")
}
