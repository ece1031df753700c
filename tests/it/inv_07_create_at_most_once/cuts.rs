//! A create whose connection is cut at every byte of its request and of its answer, at every age of its key.
//!
//! `cargo test` cuts at every sixteenth byte, at one age of the key each, by turns. `CUT_STEP=1` cuts at each byte, and `ALL_CUTS=1` at
//! each byte at every age, which takes more than ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::SignedDuration;
use komoju_sandbox::readings::ServerErrors;
use komoju_sandbox::{Fault, FaultEffect, FaultedCall, FaultedWork, Payload, Readings};
use komoju_testkit::InProcess;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Between client and server; lets so many bytes through each way, then closes both sides.
struct Scissors {
    address: std::net::SocketAddr,
    up: Arc<AtomicUsize>,
    down: Arc<AtomicUsize>,
    /// What passed, at most.
    seen: Arc<[AtomicU64; 2]>,
    _tasks: TaskTracker,
}

const EVERYTHING: usize = usize::MAX;

impl Scissors {
    async fn before(server: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, down) = (Arc::new(AtomicUsize::new(EVERYTHING)), Arc::new(AtomicUsize::new(EVERYTHING)));
        let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (ups, downs, sums) = (Arc::clone(&up), Arc::clone(&down), Arc::clone(&seen));
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (up, down) = (ups.load(Ordering::SeqCst), downs.load(Ordering::SeqCst));
                connections.spawn(pass(client, server, up, down, Arc::clone(&sums)));
            }
        });
        Self { address, up, down, seen, _tasks: tasks }
    }

    fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }
}

async fn pass(
    client: TcpStream,
    server: std::net::SocketAddr,
    up: usize,
    down: usize,
    seen: Arc<[AtomicU64; 2]>,
) {
    let server = TcpStream::connect(server).await.unwrap();
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    // Whichever way is cut first ends both.
    tokio::select! {
        () = some(client_reads, server_writes, up, &seen[0]) => {}
        () = some(server_reads, client_writes, down, &seen[1]) => {}
    }
}

/// Copies up to `most` bytes.
async fn some(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    most: usize,
    seen: &AtomicU64,
) {
    let mut left = most;
    let mut piece = [0; 4096];
    let mut passed = 0;
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut piece).await else { return };
        let read = read.min(left);
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
        left -= read;
        passed += read as u64;
        seen.fetch_max(passed, Ordering::SeqCst);
    }
    // What was let through arrives before the end does.
    let _ = to.shutdown().await;
}

/// Where a create is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Request(usize),
    Answer(usize),
}

async fn create_once(
    harness: &mut InProcess,
    scissors: &Scissors,
    n: usize,
    cut: Option<Cut>,
    age: SignedDuration,
) {
    let id = format!("i{n}");
    let email = format!("{n}@example.com");
    harness.intend(&id, "create", None, Some(json!({"email": email, "metadata": {"n": n.to_string()}})));
    let (up, down) = match cut {
        None => (EVERYTHING, EVERYTHING),
        Some(Cut::Request(bytes)) => (bytes, EVERYTHING),
        Some(Cut::Answer(bytes)) => (EVERYTHING, bytes),
    };
    scissors.up.store(up, Ordering::SeqCst);
    scissors.down.store(down, Ordering::SeqCst);
    let before = harness.sandbox.world().creates();
    harness.drain_at(&scissors.base_url()).await;
    harness.advance(age);
    harness.drain_on(80, SignedDuration::from_mins(20)).await;
    let case = format!("{cut:?} at {age}: {}", harness.of(&id, "reason"));
    assert_eq!(
        (harness.state(&id).as_str(), harness.sandbox.world().creates() - before),
        ("done", 1),
        "{case}"
    );
    let made = harness.of(&id, "result_customer_id");
    assert_eq!(harness.sandbox.world().get(&made).unwrap()["email"], email, "{case}");
    // The next one's window begins after this one.
    harness.advance(SignedDuration::from_mins(30));
}

#[tokio::test]
async fn a_create_cut_at_any_byte_is_made_once_where_server_errors_are_kept() {
    cut_everywhere(ServerErrors::Stored, None).await;
}

#[tokio::test]
async fn a_create_cut_at_any_byte_is_made_once_where_server_errors_are_forgotten_and_creates_tagged() {
    cut_everywhere(ServerErrors::Forgotten, Some("intent")).await;
}

async fn cut_everywhere(stored: ServerErrors, tag: Option<&str>) {
    let all = std::env::var_os("ALL_CUTS").is_some();
    let step = match std::env::var("CUT_STEP") {
        _ if all => 1,
        Ok(step) => step.parse().unwrap(),
        Err(_) => 16,
    };
    let mut cuts_made = 0;
    let mut harness = InProcess::reading(2, Readings { server_errors: stored, ..Readings::default() }).await;
    harness.settings.reconcile_tag = tag.map(str::to_owned);
    let scissors = Scissors::before(harness.sandbox.address()).await;
    create_once(&mut harness, &scissors, 0, None, SignedDuration::ZERO).await;
    let [request, answer] =
        [0, 1].map(|way| usize::try_from(scissors.seen[way].load(Ordering::SeqCst)).unwrap());
    assert!(request > 200 && answer > 200, "{request} {answer}");
    let mut n = 1;
    let cuts = (0..request).map(Cut::Request).chain((0..answer).map(Cut::Answer));
    for (place, cut) in cuts.enumerate().filter(|(place, _)| place % step == 0) {
        let ages = [1, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1];
        let ages = if all { &ages[..] } else { &ages[place / step % ages.len()..][..1] };
        for age in ages {
            create_once(&mut harness, &scissors, n, Some(cut), SignedDuration::from_mins(*age)).await;
            n += 1;
            cuts_made += 1;
        }
    }
    // And the same where the API itself fails after it has made the customer, or before.
    for work in [FaultedWork::Done, FaultedWork::Skipped] {
        for age in [1, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1] {
            let effect = FaultEffect::Status {
                status: 500,
                body: Payload::Error,
                retry_after: None,
                headers: Default::default(),
                work,
            };
            harness.inject(Fault::new(effect).call(FaultedCall::Create).once());
            create_once(&mut harness, &scissors, n, None, SignedDuration::from_mins(age)).await;
            n += 1;
        }
    }
    harness.sweep().await;
    harness.assert_true();
    assert!(cuts_made > 25, "{cuts_made}");
}
