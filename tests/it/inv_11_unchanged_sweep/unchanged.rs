//! An unchanged sweep writes only its `passes` row.

use komoju_testkit::{Installation, own};

use crate::PROGRAM;

#[test]
fn unchanged_sweep_parses_no_customer_and_writes_only_its_own_row() {
    let harness = Installation::with(PROGRAM, 300);
    harness.expect(0, &["sync"]);
    let fingerprints =
        |harness: &Installation| harness.column("SELECT hex(fingerprint) FROM listed ORDER BY row");
    let before = fingerprints(&harness);
    assert_eq!(before.len(), 300);
    // Each write to a customer's row would fail in one of these triggers.
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "CREATE TRIGGER mirror_is_unchanged BEFORE UPDATE ON mirror BEGIN SELECT RAISE(ABORT, 'written'); END;
         CREATE TRIGGER no_fingerprint_is_stored BEFORE INSERT ON listed BEGIN SELECT RAISE(ABORT, 'stored'); END;
         UPDATE meta SET throttled_until = NULL",
    )
    .unwrap();
    drop(conn);
    harness.expect(0, &["sync"]);
    assert_eq!(fingerprints(&harness), before);
    // The stored fingerprint decides: with another one, the customer is parsed and found unchanged.
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "DROP TRIGGER no_fingerprint_is_stored; UPDATE listed SET fingerprint = zeroblob(16) WHERE row = 7",
    )
    .unwrap();
    drop(conn);
    harness.expect(0, &["sync"]);
    assert_eq!(
        (fingerprints(&harness), harness.head()),
        (before, 300),
        "the fingerprint is not stored again"
    );
}
