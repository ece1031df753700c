//! The floors: programs that do only the unavoidable part of the work.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use futures_util::{StreamExt, stream};
use komoju_sync::store::Store;
use komoju_sync::store::file::indexes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use serde::Deserialize;

/// Returns the command of a floor.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("floor").args(arguments);
    command
}

pub fn main(arguments: &[&str]) {
    match arguments {
        ["client", url, pages, in_flight] => client(url, pages.parse().unwrap(), in_flight.parse().unwrap()),
        ["updates", url, ids, in_flight] => updates(url, Path::new(ids), in_flight.parse().unwrap()),
        ["inserts", customers, path] => inserts(Path::new(path), customers.parse().unwrap()),
        ["bare", customers, path] => bare(Path::new(path), customers.parse().unwrap()),
        other => panic!("no such floor: {other:?}"),
    }
}

#[derive(Deserialize)]
struct Page {
    total: u64,
    page: u64,
    per_page: u64,
    last_page: u64,
    data: Vec<Customer>,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
    resource: String,
    email: Option<String>,
    source: Option<Source>,
    metadata: Option<HashMap<String, String>>,
    created_at: String,
    locale: Option<String>,
}

#[derive(Deserialize)]
struct Source {
    r#type: Option<String>,
    brand: Option<String>,
    last_four_digits: Option<String>,
    month: Option<u32>,
    year: Option<u32>,
}

/// Requests and parses every page, several at once, and drops them.
fn client(url: &str, pages: u32, in_flight: usize) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(std::iter::empty()).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = runtime.block_on(async {
        let ask = |page: u32| {
            let request = client
                .get(format!("{url}/customers?page={page}&per_page=100"))
                .basic_auth("sk_test_sandbox", Some(""));
            async move {
                let bytes = request.send().await.unwrap().bytes().await.unwrap();
                serde_json::from_slice::<Page>(&bytes).unwrap()
            }
        };
        stream::iter(1..=pages)
            .map(ask)
            .buffered(in_flight)
            .fold(0, |seen, page| async move { seen + weigh(&page) })
            .await
    });
    assert!(seen > 0);
}

/// Updates each of these customers once, several at once, and parses the answers.
fn updates(url: &str, ids: &Path, in_flight: usize) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(std::iter::empty()).build().unwrap();
    let ids = std::fs::read_to_string(ids).unwrap();
    let change = |id: &str| {
        let request = client
            .patch(format!("{url}/customers/{id}"))
            .basic_auth("sk_test_sandbox", Some(""))
            .header("content-type", "application/json")
            .body(r#"{"metadata":{"by":"floor"}}"#);
        async move {
            let bytes = request.send().await.unwrap().bytes().await.unwrap();
            serde_json::from_slice::<Customer>(&bytes).unwrap().id.len()
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen: usize = runtime.block_on(
        stream::iter(ids.lines())
            .map(change)
            .buffer_unordered(in_flight)
            .fold(0, |a, b| async move { a + b }),
    );
    assert!(seen > 0);
}

/// Reads every field, so that the compiler cannot remove the parsing.
fn weigh(page: &Page) -> u64 {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let customers: usize = page
        .data
        .iter()
        .map(|customer| {
            let source = customer.source.as_ref().map_or(0, |source| {
                length(&source.r#type)
                    + length(&source.brand)
                    + length(&source.last_four_digits)
                    + (source.month.unwrap_or(0) + source.year.unwrap_or(0)) as usize
            });
            customer.id.len()
                + customer.resource.len()
                + customer.created_at.len()
                + length(&customer.email)
                + length(&customer.locale)
                + customer.metadata.as_ref().map_or(0, HashMap::len)
                + source
        })
        .sum();
    page.total + page.page + page.per_page + page.last_page + customers as u64
}

/// A customer of about the sandbox's size, its id as random as ids are.
fn row(n: u32) -> (String, String, String, String) {
    let mixed = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).rotate_left(61);
    let id: String = (0..25)
        .map(|place| char::from(b'a' + ((mixed >> (place * 5)) as u8 & 15) + place as u8 % 10))
        .collect();
    let (email, created_at) =
        (format!("{id}@example.com"), format!("2025-01-01T00:{:02}:{:02}.000Z", n / 60 % 60, n % 60));
    let body = format!(
        r#"{{"created_at":"{created_at}","email":"{email}","id":"{id}","locale":"ja","metadata":{{"order_id":"{n}"}},"resource":"customer","source":{{"brand":"visa","last_four_digits":"4242","month":11,"type":"credit_card","year":2031}}}}"#
    );
    (id, email, created_at, body)
}

/// Plain inserts into the product's own schema: its indexes, its triggers, its durability, a page a
/// transaction.
fn inserts(path: &Path, customers: u32) {
    let store = Store::open(path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for index in indexes::ALL {
        runtime.block_on(store.make_index_unless(std::future::pending(), index)).unwrap();
    }
    store.close();
    let mut conn = durable(path);
    // The value of the product. The bare tables use the default of SQLite.
    conn.pragma_update(None, "wal_autocheckpoint", 4000).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    let mut n = 0;
    while n < customers {
        let tx = conn.transaction().unwrap();
        {
            let mut log = tx
                .prepare_cached(
                    "INSERT INTO change_log (seq, customer_id, kind, observed_at, origin, pass_id, after, salt, digest, chain)
                     VALUES (?1, ?2, 'created', ?3, 'sweep', 1, ?4, ?5, ?6, ?6)",
                )
                .unwrap();
            let mut mirror = tx
                .prepare_cached(
                    "INSERT INTO mirror (row, id, email, created_at, body, first_seen_at, changed_at, live_seq, seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?1, ?1)",
                )
                .unwrap();
            let mut listed = tx
                .prepare_cached("INSERT INTO listed (row, fingerprint, source) VALUES (?1, ?2, 0)")
                .unwrap();
            for n in n + 1..=(n + 100).min(customers) {
                let (id, email, created_at, body) = row(n);
                log.execute(params![n, id, created_at, body, [7_u8; 16], [7_u8; 32]]).unwrap();
                mirror.execute(params![n, id, email, created_at, body, created_at]).unwrap();
                listed.execute(params![n, [7_u8; 16]]).unwrap();
            }
        }
        tx.commit().unwrap();
        n += 100;
    }
}

/// Plain inserts into two tables with the same content and no index but the id.
fn bare(path: &Path, customers: u32) {
    let mut conn = durable(path);
    conn.execute_batch(
        "CREATE TABLE customer (id TEXT PRIMARY KEY, body TEXT); CREATE TABLE log (seq INTEGER PRIMARY KEY, id TEXT, body TEXT)",
    )
    .unwrap();
    let mut n = 0;
    while n < customers {
        let tx = conn.transaction().unwrap();
        for n in n + 1..=(n + 100).min(customers) {
            let (id, _, _, body) = row(n);
            tx.prepare_cached("INSERT INTO customer VALUES (?1, ?2)")
                .unwrap()
                .execute(params![id, body])
                .unwrap();
            tx.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3)")
                .unwrap()
                .execute(params![n, id, body])
                .unwrap();
        }
        tx.commit().unwrap();
        n += 100;
    }
}

fn durable(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.pragma_update(None, "synchronous", "full").unwrap();
    conn
}
