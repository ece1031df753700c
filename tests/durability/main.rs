//! Power cuts: at every moment of a run the disk is a state that may be found, and each state must
//! contain what was acknowledged.
//!
//! Killing a process proves nothing here, because the kernel keeps its writes. So SQLite writes
//! through a VFS that records what was synced (`tests/lossy-vfs`). Any part of the unsynced writes
//! may be missing, torn at sectors. The control is the same run with `synchronous = NORMAL`. It
//! must lose something; otherwise this test detects nothing.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::print_stdout, reason = "the number of images is part of the result")]

mod check;
mod ledger;
mod life;

use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use komoju_sync::store::Store;
use komoju_sync::store::log::verify::verify;
use komoju_testkit::InProcess;
use lossy_vfs::{Disk, Keep, Synchronous};
use tempfile::TempDir;

use check::{Queue, Sum, check_image};
use ledger::Ledger;
use life::{ImageRecorder, Plan, World};

/// The number of threads that check images.
const CHECKERS: usize = 2;

/// The result of a run.
struct Ran {
    world: World,
    sum: Sum,
    lives: usize,
    _spool: TempDir,
}

async fn run(plan: Plan) -> Ran {
    lossy_vfs::install();
    let spool = TempDir::new().unwrap();
    let harness = InProcess::open(30).await;
    let ledger = Arc::new(Ledger::new(spool.path()));
    let (queue, sum) = (Arc::<Queue>::default(), Arc::new(Mutex::new(Sum::default())));
    let recorder =
        ImageRecorder::new(plan, Arc::clone(&harness.sandbox), Arc::clone(&ledger), Arc::clone(&queue));
    let checkers: Vec<_> = (0..CHECKERS)
        .map(|_| {
            let (queue, sum, ledger) = (Arc::clone(&queue), Arc::clone(&sum), Arc::clone(&ledger));
            std::thread::spawn(move || {
                while let Some(point) = queue.take() {
                    let loss = check_image(&point, &ledger);
                    sum.lock().unwrap().add(&point, loss);
                }
            })
        })
        .collect();
    let mut world = World::new(harness, Arc::new(recorder), spool.path(), plan);
    let mut lives = 0;
    while !world.recorder.is_over() {
        world.run().await;
        lives += 1;
    }
    for checker in checkers {
        checker.join().unwrap();
    }
    let sum = std::mem::take(&mut *sum.lock().unwrap());
    Ran { world, sum, lives, _spool: spool }
}

fn points(default: usize) -> usize {
    std::env::var("CRASH_POINTS").map_or(default, |points| points.parse().unwrap())
}

/// Promises: invariant 7
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_intents_survive_a_power_cut() {
    let points = points(400);
    // In a long run every operation is a crash point. By default the points are spread over a
    // longer run.
    let one_in = if points >= 10_000 { 1 } else { 4 };
    let plan = Plan { synchronous: Synchronous::AsAsked, points, power_cut_within: 400, one_in, seed: 11 };
    let Ran { mut world, sum, lives, _spool } = run(plan).await;
    let known = world.recorder.ledger.known(&world.harness.sandbox);
    println!(
        "{} crash points in {} operations and {lives} lives, {} with unsynced changes, by kind {:?}; {} intents \
         acknowledged, {} creates sent; nothing lost",
        sum.images(),
        world.recorder.operations(),
        sum.with_unsynced,
        sum.kinds,
        known.promises,
        known.keys,
    );
    assert_eq!(sum.losses, Vec::<String>::new());
    assert_eq!(sum.images(), points);
    assert!(sum.kinds.len() == 4 && sum.with_unsynced > points / 4 && known.keys > 0, "{sum:?}");

    // Finish what the last life left.
    let spool = world.spool();
    let stop = tokio_util::sync::CancellationToken::new();
    spool.drain(&stop).await.unwrap();
    world.harness.drain_on(50, SignedDuration::from_secs(60)).await;
    assert_eq!(world.harness.column("SELECT id || ' ' || state FROM intents WHERE state <> 'done'"), [""; 0]);
    world.recorder.ledger.known(&world.harness.sandbox);
    let there = world.harness.column("SELECT id FROM intents");
    for promise in &world.recorder.ledger.entries().promises {
        assert!(there.contains(&promise.id), "{promise:?}");
    }
    let creates = world.harness.one("SELECT count(*) FROM intents WHERE op = 'create'");
    assert_eq!(world.harness.sandbox.world().creates().to_string(), creates, "each create took effect once");
    assert!(world.harness.sweep().await.failure.is_none());
    world.harness.assert_true();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_with_synchronous_normal_loses_acknowledged_intents() {
    let points = points(400) / 4;
    let plan = Plan { synchronous: Synchronous::Normal, points, power_cut_within: 0, one_in: 4, seed: 12 };
    let Ran { world, sum, .. } = run(plan).await;
    let known = world.recorder.ledger.known(&world.harness.sandbox);
    println!(
        "control: of {} intents acknowledged {} are lost in some image, in {} of {} images; {} lost a key that was sent",
        known.promises,
        sum.lost_intents.len(),
        sum.images_with_lost_intents,
        sum.images(),
        sum.images_with_lost_keys,
    );
    assert_eq!(sum.findings, Vec::<String>::new(), "the control loses only the end");
    assert!(!sum.lost_intents.is_empty(), "the test detects no loss: {sum:?}");
    assert!(sum.images_with_lost_keys > 0, "the test detects no create that would be sent twice: {sum:?}");
}

#[test]
fn power_cut_within_the_first_start_is_repaired_by_the_next_start() {
    lossy_vfs::install();
    let directory = TempDir::new().unwrap();
    let disk = Disk::watch(directory.path(), Synchronous::AsAsked);
    let images = Arc::new(Mutex::new(vec![disk.image()]));
    let recorded = Arc::clone(&images);
    disk.observe(move |disk, _| recorded.lock().unwrap().push(disk.image()));
    Store::open(&directory.path().join("komoju.db")).unwrap().close();
    disk.forget();
    let images = std::mem::take(&mut *images.lock().unwrap());
    assert!(images.len() > 20, "only {} operations", images.len());
    let mut found = 0;
    for (operation, image) in images.iter().enumerate() {
        // The first four operations write the file's header.
        let tries = if operation < 4 { 16 } else { 1 };
        for seed in 0..tries {
            let keep = if operation % 3 == 2 { Keep::Nothing } else { Keep::SomeSectors };
            let directory = TempDir::new().unwrap();
            image.write_to(directory.path(), keep, seed).unwrap();
            let path = directory.path().join("komoju.db");
            let store = Store::open(&path)
                .unwrap_or_else(|e| panic!("after operation {operation}, {keep:?} seed {seed}: {e}"));
            store.close();
            let conn = rusqlite::Connection::open(&path).unwrap();
            assert_eq!(verify(&conn, None).unwrap().findings, Vec::<String>::new(), "{operation} {keep:?}");
            found += 1;
        }
    }
    println!(
        "the power was cut in a first start after each of {} operations: {found} images",
        images.len() - 1
    );
}
