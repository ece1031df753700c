//! Customers come, change, go and come back; the list moves while it is read.

use komoju_core::{Outcome, PassKind};
use komoju_sandbox::readings::{Order, PastEnd, PerPageOver};
use komoju_sandbox::{Call, Drift, Effect, Fault, Readings, Region};
use serde_json::json;

use crate::house::{House, own};

#[test]
fn the_first_sync_makes_a_true_mirror_and_the_second_changes_nothing() {
    let house = House::with(57);
    let ran = house.expect(0, &["sync"]);
    assert!(ran.stderr.contains("57 customers on 6 pages"), "{}", ran.stderr);
    house.assert_true();
    let head = house.head();
    house.expect(0, &["sync"]);
    assert_eq!(house.head(), head, "an unchanged sweep appends nothing");
    assert_eq!(house.column("SELECT outcome FROM passes ORDER BY id"), ["complete", "complete"]);
}

#[test]
fn after_the_first_sweep_readers_have_their_indexes() {
    let house = House::with(12);
    let fault = house.on_lists(komoju_sandbox::Effect::status(422));
    house.sweep();
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('change_log_by_customer', 'mirror_by_email')";
    assert_eq!((house.one(indexes), house.fired(fault)), ("0".to_owned(), 1));
    house.sandbox.world().clear_faults();
    house.sweep();
    assert_eq!(house.one(indexes), "2");
    let plan = |sql: &str| {
        let reader = house.reader();
        let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>("detail")).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (sql, index) in [
        ("SELECT * FROM customers WHERE id = 'x'", "sqlite_autoindex_mirror_1 (id=?)"),
        ("SELECT * FROM customers WHERE email = 'x'", "mirror_by_email (email=?)"),
        ("SELECT * FROM changes WHERE customer_id = 'x'", "change_log_by_customer (customer_id=?)"),
        ("SELECT count(*) FROM customers", "COVERING INDEX mirror_by_created_at"),
        (
            "SELECT strftime('%Y-%m', created_at) AS month, count(*) FROM customers GROUP BY month",
            "COVERING INDEX mirror_by_created_at",
        ),
    ] {
        assert!(plan(sql).contains(index), "{sql}: {}", plan(sql));
    }
    // What the daemon asks of each customer while many are held.
    for sql in [
        "SELECT 1 FROM held_customer WHERE state IN ('approved', 'rejected') AND customer_id = 'x'",
        "UPDATE held_customer SET state = 'seen' WHERE state IN ('held', 'approved', 'rejected') AND customer_id = 'x'",
        "SELECT count(DISTINCT customer_id) FROM held_customer WHERE state = 'held'",
    ] {
        assert!(plan(sql).contains("held_customer_by_state (state=?"), "{sql}: {}", plan(sql));
    }
}

#[test]
fn a_sweep_of_what_is_unchanged_reads_no_customer_and_writes_its_own_row_alone() {
    let house = House::with(300);
    house.expect(0, &["sync"]);
    let noted = |house: &House| house.column("SELECT hex(fingerprint) FROM listed ORDER BY row");
    let before = noted(&house);
    assert_eq!(before.len(), 300);
    // Any write to a customer's row would meet this.
    let conn = own(&house.path("komoju.db"));
    conn.execute_batch(
        "CREATE TRIGGER nobody_changes BEFORE UPDATE ON mirror BEGIN SELECT RAISE(ABORT, 'written'); END;
         CREATE TRIGGER nothing_is_noted BEFORE INSERT ON listed BEGIN SELECT RAISE(ABORT, 'noted'); END;
         UPDATE meta SET throttled_until = NULL",
    )
    .unwrap();
    drop(conn);
    house.expect(0, &["sync"]);
    assert_eq!(noted(&house), before);
    // And what is noted decides: with another text noted, the customer is read and found unchanged.
    let conn = own(&house.path("komoju.db"));
    conn.execute_batch(
        "DROP TRIGGER nothing_is_noted; UPDATE listed SET fingerprint = zeroblob(16) WHERE row = 7",
    )
    .unwrap();
    drop(conn);
    house.expect(0, &["sync"]);
    assert_eq!((noted(&house), house.head()), (before, 300), "a spelling is noted anew");
}

#[test]
fn what_changes_goes_and_comes_back_is_recorded_once_each() {
    let house = House::with(30);
    house.expect(0, &["sync"]);
    let ids = house.sandbox.world().ids();
    let head = house.head();

    house.sandbox.world().update(&ids[3], json!({"email": "new@example.com"}));
    house.sandbox.world().delete(&ids[7]);
    let new = house.sandbox.world().create(json!({"email": "late@example.com"}));
    house.expect(0, &["sync"]);
    let mut kinds = house.kinds_after(head);
    kinds.sort();
    assert_eq!(kinds, ["created", "deleted", "updated"]);
    assert_eq!(
        house.one("SELECT diff ->> '$.email.to' FROM changes WHERE kind = 'updated'"),
        "new@example.com"
    );
    assert_eq!(house.one("SELECT id FROM deleted_customers"), ids[7]);
    assert!(house.mirror().contains_key(&new));
    house.assert_true();

    house.sandbox.world().restore(&ids[7]);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT kind FROM changes ORDER BY seq DESC LIMIT 1"), "restored");
    house.assert_true();
}

#[test]
fn a_probe_sees_the_newest_and_concludes_nothing_from_who_is_missing() {
    let house = House::with(30);
    let ran = house.expect(1, &["sync", "--probe"]);
    assert!(
        ran.stderr.contains("komoju-sync sync"),
        "a probe rests until one sweep is complete: {}",
        ran.stderr
    );
    house.expect(0, &["sync"]);
    let newest = house.sandbox.world().ids()[0].clone();
    house.sandbox.world().delete(&newest);
    let new = house.sandbox.world().create(json!({"email": "late@example.com"}));
    house.sandbox.world().clear_requests();
    house.expect(0, &["sync", "--probe"]);
    assert!(house.mirror().contains_key(&new));
    assert!(house.mirror().contains_key(&newest), "a probe never deletes");
    assert_eq!(house.one("SELECT origin FROM changes ORDER BY seq DESC LIMIT 1"), "probe");
    assert!(house.sandbox.world().requests().iter().all(|seen| seen.query.contains("start_time=")));
}

#[test]
fn customers_skipped_because_the_list_moved_are_asked_for_and_stay() {
    for order in [Order::NewestFirst, Order::OldestFirst, Order::ById] {
        let house = House::reading(60, Readings { order, ..Readings::default() });
        assert_eq!(house.sweep().outcome, Outcome::Complete);
        let drift = Drift { delete: 3, place: Region::Served, ..Drift::default() };
        let fault = house.inject(Fault::new(Effect::Drift(drift)).call(Call::List).page(2).once());
        let report = house.sweep();
        assert_eq!(house.fired(fault), 1);
        assert_eq!(report.outcome, Outcome::Complete, "{order:?}: {}", report.sentence());
        // Whoever was deleted before the end and not listed is proven gone; whoever was skipped answers and stays.
        let truth = house.sandbox.world().truth();
        for id in house.column("SELECT id FROM deleted_customers") {
            assert!(!truth.contains_key(&id), "{order:?}: {id} is alive");
        }
        house.sweep();
        house.assert_true();
    }
}

#[test]
fn inserts_and_reorders_between_pages_delete_nobody() {
    let house = House::with(60);
    house.sweep();
    let everything = Effect::RandomDrift { seed: 7, delete: 0, insert: 2, update: 2, reorder: 3 };
    let fault = house.on_lists(everything);
    for _ in 0..5 {
        house.sweep();
    }
    assert!(house.fired(fault) >= 20);
    assert_eq!(house.one("SELECT count(*) FROM deleted_customers"), "0");
    house.sandbox.world().clear_faults();
    assert_eq!(house.sweep().outcome, Outcome::Complete);
    house.assert_true();
}

#[test]
fn a_list_that_shrinks_below_the_page_asked_for_is_whole_under_every_reading() {
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        for (customers, delete, page) in [(21, 1, 2), (41, 11, 4), (41, 31, 4)] {
            let house = House::reading(customers, Readings { past_end, ..Readings::default() })
                .inbound("max_delete_percent = 100");
            house.sweep();
            let drift = Drift { delete, place: Region::Served, ..Drift::default() };
            let fault = house.inject(Fault::new(Effect::Drift(drift)).call(Call::List).page(page).once());
            // Whole, though those who were picked as canaries may be among the deleted: then these are held, and asked again.
            let ran = house.run(&["sync"]);
            assert!(matches!(ran.code, 0 | 3), "{past_end:?}, {delete} deleted: {}", ran.stderr);
            assert_eq!(house.fired(fault), 1);
            house.expect(0, &["sync"]);
            house.assert_true();
        }
    }
}

#[test]
fn as_many_inserts_as_a_page_holds_do_not_look_like_the_same_page_again() {
    let house = House::with(40);
    house.sweep();
    let drift = Drift { insert: 10, place: Region::Served, ..Drift::default() };
    let fault = house.inject(Fault::new(Effect::Drift(drift)).call(Call::List).page(2).once());
    let report = house.sweep();
    assert_eq!((house.fired(fault), report.outcome), (1, Outcome::Complete), "{}", report.sentence());
    house.sweep();
    house.assert_true();
}

#[test]
fn one_creation_time_in_the_future_does_not_blind_the_probe() {
    let house = House::with(12);
    house
        .sandbox
        .world()
        .put_raw(json!({"id": "tomorrow", "resource": "customer", "created_at": "2099-01-01T00:00:00Z"}));
    house.expect(0, &["sync"]);
    house.sandbox.world().clear_requests();
    house.expect(0, &["sync", "--probe"]);
    let newest = house.one("SELECT max(created_at) FROM customers WHERE created_at < '2099'");
    let from = &newest[..newest.len() - 8];
    let asked = house.sandbox.world().requests()[0].query.clone();
    let day = asked.split("start_time=").nth(1).unwrap()[..10].to_owned();
    assert!(from.starts_with(&day) || day.as_str() < &from[..10], "{asked}, the newest is {newest}");
}

#[test]
fn unknown_fields_odd_values_and_odd_ids_are_mirrored_as_they_came() {
    let house = House::with(3);
    let odd: serde_json::Value = serde_json::from_str(
        r#"{"id":"a/../b?c#d%2e é","resource":"customer","email":null,"created_at":"2025-01-01T00:00:00Z",
            "metadata":null,"loyalty":{"points":1e400,"rate":0.10},"tags":["x"]}"#,
    )
    .unwrap();
    house.sandbox.world().put_raw(odd);
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT count(*) FROM customers"), "4");
    assert!(house.one("SELECT body FROM customers WHERE id LIKE 'a/%'").contains(r#""rate":0.10"#));
    house.sandbox.world().delete("a/../b?c#d%2e é");
    house.expect(0, &["sync"]);
    assert_eq!(house.one("SELECT id FROM deleted_customers"), "a/../b?c#d%2e é");
}

#[test]
fn a_server_that_allows_only_small_pages_is_read_at_its_size() {
    let house = House::reading(23, Readings { per_page_max: 4, ..Readings::default() });
    let report = house.sweep();
    assert_eq!((report.outcome, report.tally.pages), (Outcome::Complete, 6));
    house.assert_true();
    assert_eq!(house.pass(PassKind::Probe).outcome, Outcome::Complete);
}

#[test]
fn a_server_that_refuses_large_pages_is_read_at_its_own_size() {
    let readings = Readings { per_page_max: 10, per_page_over: PerPageOver::Refused, ..Readings::default() };
    let house = House::reading(23, readings);
    house.expect(0, &["sync"]);
    let text = std::fs::read_to_string(house.path("config.toml")).unwrap();
    std::fs::write(house.path("config.toml"), text.replace("per_page = 10", "per_page = 100")).unwrap();
    house.sandbox.world().create(json!({"email": "late@example.com"}));
    let ran = house.expect(0, &["sync"]);
    assert!(ran.stderr.contains("lower api.per_page"), "{}", ran.stderr);
    house.assert_true();
}
