//! The time of queries on a mirror with five changes for each customer.

use std::time::{Duration, Instant};

use komoju_core::{ChangeKind, Customer, Origin};
use komoju_sync::store::Store;
use komoju_sync::store::file::indexes;
use komoju_sync::store::log::changes;
use komoju_sync::store::log::changes::Cause;
use komoju_sync::store::log::mirror;
use rusqlite::Connection;
use serde_json::json;

use crate::{Plan, millis};

const CHANGES_EACH: u32 = 5;

pub fn main(plan: &Plan) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("komoju.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(&path).unwrap();
    for change in 0..CHANGES_EACH {
        let mut n = 0;
        while n < plan.customers {
            let (first, last) = (n, (n + 10_000).min(plan.customers));
            let work = move |tx: &komoju_sync::store::Tx<'_>| {
                let cause = Cause {
                    observed_at: format!("2026-01-0{}T00:00:00.000Z", change + 1),
                    origin: Origin::Sweep,
                    pass_id: None,
                    intent_id: None,
                };
                changes::recording(tx, cause, |recorder| {
                    for n in first..last {
                        let customer = customer(n, change);
                        let stored = mirror::find(tx, customer.id())?;
                        let kind = if stored.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
                        recorder.record(kind, &customer, stored)?;
                    }
                    Ok(())
                })
            };
            runtime.block_on(store.write(work)).unwrap();
            n = last;
        }
        eprintln!("change {} of {CHANGES_EACH} recorded", change + 1);
    }
    for index in indexes::ALL {
        runtime.block_on(store.make_index_unless(std::future::pending(), index)).unwrap();
    }
    store.close();

    let conn = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    println!(
        "{} customers, {} changes; milliseconds, median of 100 (of 5 for whole tables)\n",
        plan.customers,
        plan.customers * CHANGES_EACH
    );
    let id = |n: u32| customer(n * 7919 % plan.customers, 0).id().as_str().to_owned();
    let email = |n: u32| format!("{}-{}@example.com", n * 7919 % plan.customers, CHANGES_EACH - 1);
    type Case<'a> = (&'a str, &'a str, f64, Option<&'a dyn Fn(u32) -> String>);
    let cases: [Case<'_>; 6] = [
        ("a customer by id", "SELECT * FROM customers WHERE id = ?1", 1.0, Some(&id)),
        ("customers by email", "SELECT * FROM customers WHERE email = ?1", 1.0, Some(&email)),
        (
            "one customer's history",
            "SELECT * FROM changes WHERE customer_id = ?1 ORDER BY seq",
            5.0,
            Some(&id),
        ),
        ("count(*)", "SELECT count(*) FROM customers", 1000.0, None),
        (
            "count by month",
            "SELECT strftime('%Y-%m', created_at) AS month, count(*) FROM customers GROUP BY month",
            1000.0,
            None,
        ),
        ("mirror_info", "SELECT * FROM mirror_info", 50.0, None),
    ];
    for (what, sql, target, argument) in cases {
        let mut statement = conn.prepare(sql).unwrap();
        let times = if argument.is_some() { 100 } else { 5 };
        let mut took: Vec<Duration> = (0..times)
            .map(|n| {
                let started = Instant::now();
                let mut rows = match argument {
                    Some(argument) => statement.query([argument(n + 1)]).unwrap(),
                    None => statement.query([]).unwrap(),
                };
                let mut found = 0;
                while let Some(row) = rows.next().unwrap() {
                    // Read every column, because a view computes a column only then.
                    for column in 0..row.as_ref().column_count() {
                        let _ = row.get_ref(column).unwrap();
                    }
                    found += 1;
                }
                assert!(found > 0, "{sql}");
                started.elapsed()
            })
            .collect();
        took.sort();
        println!("{what:<44} {:>9.3}  (target {target})", millis(took[took.len() / 2]));
    }
}

fn customer(n: u32, change: u32) -> Customer {
    let mixed = u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let body = json!({
        "id": format!("{mixed:016x}cus{n:06}"), "resource": "customer", "email": format!("{n}-{change}@example.com"),
        "source": {"type": "credit_card", "brand": "visa", "last_four_digits": "4242", "month": 11, "year": 2031},
        "metadata": {"order_id": n.to_string()}, "locale": "ja",
        "created_at": format!("20{:02}-{:02}-01T00:00:00Z", 10 + n % 16, 1 + n % 12),
    });
    Customer::from_value(body).unwrap()
}
