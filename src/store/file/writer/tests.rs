use super::*;

const ENDLESS: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test]
async fn long_work_that_is_stopped_is_rolled_back() {
    let directory = tempfile::TempDir::new().unwrap();
    let store = Store::open(&directory.path().join("komoju.db")).unwrap();
    let (began, begun) = oneshot::channel();
    let work = |tx: &Tx<'_>| {
        tx.execute("UPDATE meta SET throttled_until = 'x'", [])?;
        let _ = began.send(());
        Ok(tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))?)
    };
    let stop = async {
        let _ = begun.await;
    };
    assert_eq!(store.run_unless(stop, |conn| transact(conn, work)).await.unwrap(), None);
    let read = |conn: &Conn| {
        Ok(conn.query_row("SELECT throttled_until FROM meta", [], |row| row.get::<_, Option<String>>(0))?)
    };
    assert_eq!(store.read(read).await.unwrap(), None, "it was rolled back");
    assert_eq!(store.run_unless(std::future::pending(), |_| Ok(7)).await.unwrap(), Some(7));
}

#[tokio::test]
async fn triggers_fire_again_after_a_pass_has_written() {
    let directory = tempfile::TempDir::new().unwrap();
    let store = Store::open(&directory.path().join("komoju.db")).unwrap();
    let intent =
        |tx: &Tx<'_>| Ok(tx.execute("INSERT INTO intents (op, customer_id) VALUES ('delete', 'c')", [])?);
    let bad = |tx: &Tx<'_>| Ok(tx.execute("INSERT INTO intents (op) VALUES ('destroy')", [])?);
    let places =
        |conn: &Conn| Ok(conn.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0))?);
    let pass = |tx: &Tx<'_>| Ok(tx.execute("INSERT INTO pass (kind, started_at) VALUES ('sweep', 'x')", [])?);
    for round in 1..=2 {
        assert_eq!(store.write_pass(pass).await.unwrap(), 1);
        assert!(format!("{:?}", store.write(bad).await.unwrap_err()).contains("op: must be"));
        store.write(intent).await.unwrap();
        assert_eq!(store.read(places).await.unwrap(), round);
    }
}

#[tokio::test]
async fn work_cancelled_in_the_queue_does_not_run() {
    let directory = tempfile::TempDir::new().unwrap();
    let store = Store::open(&directory.path().join("komoju.db")).unwrap();
    let (began, begun) = oneshot::channel();
    let (resume, resumed) = mpsc::channel();
    let ran = Arc::new(AtomicBool::new(false));
    let it = Arc::clone(&ran);
    // A statement is in the middle of its rows while the other work is cancelled.
    let others = move |conn: &Conn| {
        let mut statement = conn.prepare(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) SELECT i FROM n",
        )?;
        let mut rows = statement.query([])?;
        rows.next()?;
        let _ = began.send(());
        let _ = resumed.recv();
        let mut count = 1;
        while rows.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    let cancelling = async {
        begun.await.unwrap();
        // Cancel it once it is in the queue.
        let cancelled = store.run_unless(tokio::task::yield_now(), move |_| {
            it.store(true, Ordering::Relaxed);
            Ok(7)
        });
        let cancelled = tokio::time::timeout(Duration::from_secs(30), cancelled).await;
        resume.send(()).unwrap();
        cancelled
    };
    let (count, cancelled) = tokio::join!(store.read(others), cancelling);
    assert_eq!(cancelled.unwrap().unwrap(), None);
    assert_eq!(count.unwrap(), 99);
    // When this read has run, all earlier work of the queue is done.
    store.read(|_| Ok(())).await.unwrap();
    assert!(!ran.load(Ordering::Relaxed), "it was cancelled");
}
