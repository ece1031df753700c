//! A property of every intent that the parser accepts, for tests and fuzzers: the SQL door accepts
//! it too, with the same meaning.

use std::cell::RefCell;

use super::{Door, accept};
use crate::store::Conn;
use crate::store::file::migrations::MIGRATIONS;
use crate::store::file::signature;
use crate::store::outbox::rows::{digest, intent_in};
use komoju_core::intent::{Intent, IntentOp, Target};

thread_local! {
    static DATABASE: RefCell<Conn> = RefCell::new(empty());
}

fn empty() -> Conn {
    let mut conn = Conn::open_in_memory().expect("memory opens");
    signature::sign(&conn).expect("there is memory");
    MIGRATIONS.to_latest(&mut conn).expect("the migrations are right");
    conn
}

/// Queues the intent in an outbox that holds at most the create that it refers to, and reads it
/// back.
///
/// # Panics
/// The triggers refuse it, or it reads back as another intent.
pub(crate) fn passes_the_triggers(intent: &Intent) {
    DATABASE.with_borrow_mut(|conn| {
        let tx = conn.transaction().expect("a transaction");
        if let IntentOp::Update(Target::CreatedBy(create), _) | IntentOp::Delete(Target::CreatedBy(create)) =
            &intent.op
        {
            if intent.id.as_ref() == Some(create) {
                // It refers to itself, and no door can accept that.
                return;
            }
            tx.execute(
                "INSERT INTO intents (id, op, body) VALUES (?1, 'create', '{\"currency\": \"JPY\"}')",
                [create.as_str()],
            )
            .expect("what may be referred to may be an id");
        }
        let accepted = accept(&tx, intent, Door::File, Some("submitter"));
        let accepted = accepted.unwrap_or_else(|why| panic!("{intent:?}: {why}"));
        let sql = "SELECT op, customer_id, body, expect, not_before FROM intents WHERE id = ?1";
        let back = tx.query_row(sql, [accepted.id()], |row| Ok(intent_in(row, 0)));
        let back = back.expect("its row").unwrap_or_else(|why| panic!("{intent:?} reads back as: {why}"));
        assert_eq!((&back.op, &back.expect), (&intent.op, &intent.expect));
        assert_eq!(digest(&back), digest(intent));
        let again = accept(&tx, intent, Door::File, None).expect("the same is taken again");
        assert_eq!(
            again.id() == accepted.id(),
            intent.id.is_some(),
            "the same id with the same content is the same"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_digit_for_digit() {
        let dropped = r#"{"op": "delete", "id": "d", "customer_id": "c", "expect": {"source": {"month": [1E1, -0.0, 1.10]}}}"#;
        passes_the_triggers(&Intent::parse(dropped).unwrap());
    }

    #[test]
    #[should_panic(expected = "body: a create needs at least one parameter")]
    fn intent_that_the_triggers_refuse_panics() {
        passes_the_triggers(&Intent::stored(br#"{"op": "create"}"#).unwrap());
    }

    #[test]
    fn intent_that_refers_to_itself_is_skipped() {
        let dropped = r#"{"op": "delete", "id": "d", "customer_id": "@d"}"#;
        passes_the_triggers(&Intent::parse(dropped).unwrap());
    }
}
