//! An unchanged sweep writes its `passes` row only.

use komoju_testkit::{Installation, own};

use crate::PROGRAM;

#[test]
fn unchanged_sweep_parses_no_customer_and_writes_only_its_own_row() {
    let harness = Installation::with(PROGRAM, 300);
    harness.expect(0, &["sync"]);
    let noted = |harness: &Installation| harness.column("SELECT hex(fingerprint) FROM listed ORDER BY row");
    let before = noted(&harness);
    assert_eq!(before.len(), 300);
    // Any write to a customer's row would meet this.
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "CREATE TRIGGER nobody_changes BEFORE UPDATE ON mirror BEGIN SELECT RAISE(ABORT, 'written'); END;
         CREATE TRIGGER nothing_is_noted BEFORE INSERT ON listed BEGIN SELECT RAISE(ABORT, 'noted'); END;
         UPDATE meta SET throttled_until = NULL",
    )
    .unwrap();
    drop(conn);
    harness.expect(0, &["sync"]);
    assert_eq!(noted(&harness), before);
    // And what is noted decides: with another text noted, the customer is read and found unchanged.
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "DROP TRIGGER nothing_is_noted; UPDATE listed SET fingerprint = zeroblob(16) WHERE row = 7",
    )
    .unwrap();
    drop(conn);
    harness.expect(0, &["sync"]);
    assert_eq!((noted(&harness), harness.head()), (before, 300), "a spelling is noted anew");
}
