//! Plays seeds on each core, and shortens a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::count::Count;
use crate::ops::Op;
use crate::place::Place;
use crate::world::World;

/// The number of ops of a seed. Healing costs about as much as forty ops.
const OPS_A_SEED: u64 = 240;

/// The most ops of one process. The product keeps a handle of every database that it ever opened,
/// and each restore makes one. A process plays one world at a time, because SQLite's page cache has
/// one lock for the whole process.
const OPS_A_PROCESS: u64 = 12_000;

/// The most replays to shorten a failure.
const TRIES_TO_SHORTEN: u32 = 400;

struct Failure {
    seed: u64,
    per_page: u32,
    ops: Vec<Op>,
    why: String,
}

/// The variable with the file for the counters of a part.
const COUNT: &str = "SIMULATION_COUNT";

/// Plays this number of ops, from this seed on.
pub fn all(from: u64, ops: u64) -> Count {
    if ops <= OPS_A_PROCESS {
        let count = here(from, ops.div_ceil(OPS_A_SEED)).unwrap_or_else(|failure| {
            let Failure { seed, per_page, ops, why } = shorten(failure);
            panic!("seed {seed} at {per_page} a page: {why}\nops: {ops:?}");
        });
        if let Some(path) = std::env::var_os(COUNT) {
            std::fs::write(path, count.to_json().to_string()).unwrap();
        }
        return count;
    }
    let next = AtomicU64::new(0);
    let counted = Mutex::new(Count::default());
    let work = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        loop {
            let done = next.fetch_add(OPS_A_PROCESS, Ordering::Relaxed);
            if done >= ops {
                break;
            }
            let played = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "every_invariant_holds_after_every_op", "--nocapture"])
                .env("SIMULATION_OPS", OPS_A_PROCESS.min(ops - done).to_string())
                .env("SIMULATION_FROM", (from + done / OPS_A_SEED).to_string())
                .env(COUNT, file.path())
                .output()
                .unwrap();
            if !played.status.success() {
                next.store(ops, Ordering::Relaxed);
                panic!("{}", String::from_utf8_lossy(&played.stderr));
            }
            let part = Count::from_json(&std::fs::read_to_string(file.path()).unwrap());
            counted.lock().unwrap().add(part);
        }
    };
    // A world sometimes waits for the thread of its writer, so use one process more than cores.
    let processes = 1 + std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..processes).for_each(|_| drop(scope.spawn(work))));
    counted.into_inner().unwrap()
}

/// Plays this number of seeds in this process.
fn here(from: u64, seeds: u64) -> Result<Count, Failure> {
    let place = Place::new();
    let mut counted = Count::default();
    for seed in from..from + seeds {
        let (per_page, mut ops) = of_seed(seed);
        let mut count = Count::default();
        if let Err((at, why)) = play(&place, seed, per_page, &ops, &mut count) {
            ops.truncate(at);
            return Err(Failure { seed, per_page, ops, why });
        }
        counted.add(count);
    }
    Ok(counted)
}

fn of_seed(seed: u64) -> (u32, Vec<Op>) {
    let mut dice = StdRng::seed_from_u64(seed);
    let per_page = dice.random_range(1..8);
    (per_page, (0..OPS_A_SEED).map(|_| Op::any(&mut dice)).collect())
}

/// Plays these ops and heals. An error contains the number of ops until the failure, and the
/// reason.
pub fn play(
    place: &Place,
    seed: u64,
    per_page: u32,
    ops: &[Op],
    count: &mut Count,
) -> Result<(), (usize, String)> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(place, seed, per_page);
        for (n, op) in ops.iter().enumerate() {
            count.op(op.kind());
            world.step(*op).map_err(|why| (n + 1, format!("{op:?}: {why}")))?;
        }
        world.heal().map_err(|why| (ops.len(), format!("at the end: {why}")))?;
        count.fired(world.fired());
        Ok(())
    }));
    // The panic has printed its message.
    played.unwrap_or_else(|_| Err((ops.len(), "it panicked".to_owned())))
}

/// Removes ops that the failure does not need. Threads make each run slightly different, so the
/// removal of an unrelated op may hide the failure.
fn shorten(mut failure: Failure) -> Failure {
    let place = Place::new();
    let (mut tries, mut size) = (0, failure.ops.len().div_ceil(2));
    while size > 0 {
        let mut from = 0;
        while from < failure.ops.len() && tries < TRIES_TO_SHORTEN {
            tries += 1;
            let mut fewer = failure.ops.clone();
            fewer.drain(from..(from + size).min(fewer.len()));
            let mut count = Count::default();
            match play(&place, failure.seed, failure.per_page, &fewer, &mut count) {
                Ok(()) => from += size,
                Err((at, why)) => {
                    fewer.truncate(at);
                    (failure.ops, failure.why) = (fewer, why);
                }
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    failure
}
