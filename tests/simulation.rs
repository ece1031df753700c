//! A simulation: one `Op` at a time against a remote that is a plain list, all invariants checked after each.
//!
//! `SIMULATION_SEEDS=1000 cargo test --test simulation` runs longer. A failure prints its seed and its ops as a literal list, to
//! be kept in `found_before`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::print_stdout, reason = "how often what happened is part of the report")]

#[path = "simulation/remote.rs"]
mod remote;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use remote::Trouble;
use world::World;

/// One step. Numbers pick a customer, whatever their range.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Create {
        with_card: bool,
    },
    Edit(usize),
    DropCard(usize),
    Delete(usize),
    DeleteMany(usize),
    Restore,
    /// Between the pages of the next pass: deletes, creates, edits, moves.
    Drift {
        deletes: usize,
        creates: usize,
        edits: usize,
        moves: usize,
    },
    Trouble(Trouble, u32),
    ListsHideCards(bool),
    Advance(u64),
    WallClock(i64),
    Sweep,
    Probe,
    Restart,
    Approve,
    Reject,
    /// A person's word after so many requests of the next pass.
    ApproveMidway(u64),
    RejectMidway(u64),
    /// The process ends within the next pass, the n-th time that it waits for anything.
    Crash(u64),
    OtherKey,
    RightKey,
}

fn any_op(dice: &mut StdRng) -> Op {
    match dice.random_range(0..100) {
        0..14 => Op::Create { with_card: dice.random() },
        14..22 => Op::Edit(dice.random_range(0..100)),
        22..25 => Op::DropCard(dice.random_range(0..100)),
        25..31 => Op::Delete(dice.random_range(0..100)),
        31..34 => Op::DeleteMany(dice.random_range(3..8)),
        34..37 => Op::Restore,
        37..46 => Op::Drift {
            deletes: dice.random_range(0..3),
            creates: dice.random_range(0..9),
            edits: dice.random_range(0..2),
            moves: dice.random_range(0..3),
        },
        46..56 => Op::Trouble(*Trouble::ALL.choose(dice).unwrap(), dice.random_range(1..14)),
        56..59 => Op::ListsHideCards(dice.random()),
        59..61 => Op::Advance(dice.random_range(1..100_000)),
        61..63 => Op::Crash(dice.random_range(0..40)),
        63..64 => Op::WallClock(dice.random_range(-40_000_000..40_000_000)),
        64..82 => Op::Sweep,
        82..88 => Op::Probe,
        88..91 => Op::Restart,
        91..93 => Op::Approve,
        93..94 => Op::ApproveMidway(dice.random_range(1..12)),
        94..95 => Op::RejectMidway(dice.random_range(1..12)),
        95..96 => Op::Reject,
        96..98 => Op::OtherKey,
        _ => Op::RightKey,
    }
}

fn seeds() -> u64 {
    std::env::var("SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

#[test]
fn every_invariant_holds_after_every_op() {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..seeds() {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut world = World::new(seed, dice.random_range(1..8));
        let ops: Vec<Op> = (0..60).map(|_| any_op(&mut dice)).collect();
        for (n, op) in ops.iter().enumerate() {
            let name = format!("{op:?}").split([' ', '(']).next().unwrap().to_owned();
            *counted.entry(name).or_default() += 1;
            if let Err(why) = world.step(*op) {
                panic!("seed {seed}, after op {n}: {why}\nops: {:?}", &ops[..=n]);
            }
        }
        if let Err(why) = world.heal() {
            panic!("seed {seed}, at the end: {why}\nops: {ops:?}");
        }
        for (name, fired) in world.fired() {
            *counted.entry(name).or_default() += fired;
        }
    }
    println!("{counted:#?}");
    let kinds = 21 + Trouble::ALL.len() + 4;
    assert_eq!(counted.len(), kinds, "each kind of op, trouble and drift must occur: {counted:?}");
}

/// A pass that has everything to do: customers that came, changed, lost their card, are gone, are held and were approved.
fn busy() -> Vec<Op> {
    let mut ops = vec![Op::Create { with_card: true }; 14];
    ops.extend([
        Op::Sweep,
        Op::DeleteMany(5),
        Op::Sweep,
        Op::Approve,
        Op::Create { with_card: false },
        Op::Create { with_card: true },
        Op::Edit(4),
        Op::DropCard(6),
        Op::Delete(7),
        Op::Drift { deletes: 1, creates: 1, edits: 1, moves: 1 },
    ]);
    ops
}

#[test]
fn a_crash_at_every_wait_of_a_pass_loses_nothing_and_the_next_pass_heals() {
    for (pass, setup) in
        [(Op::Sweep, busy()), (Op::Probe, busy()), (Op::Sweep, vec![Op::Create { with_card: true }; 9])]
    {
        let mut crashes = 0;
        loop {
            let mut world = World::new(3, 2);
            for op in setup.iter().copied().chain([Op::Crash(crashes), pass]) {
                world.checking = op == pass;
                world
                    .step(op)
                    .unwrap_or_else(|why| panic!("{pass:?} crashed at wait {crashes}, {op:?}: {why}"));
            }
            let crashed = world.crashed;
            world
                .heal()
                .unwrap_or_else(|why| panic!("{pass:?} crashed at wait {crashes}, at the end: {why}"));
            if !crashed {
                break;
            }
            crashes += 1;
        }
        assert!(crashes > 8, "{pass:?} waited only {crashes} times");
    }
}

/// Histories that found a mistake once, or that a reader of the code would fear.
#[test]
fn found_before() {
    let feared: [&[Op]; 7] = [
        // The mirror grows while deletions are held, and the limit with it.
        &[
            Op::Sweep,
            Op::DeleteMany(4),
            Op::Drift { deletes: 0, creates: 8, edits: 0, moves: 0 },
            Op::Sweep,
            Op::Create { with_card: true },
            Op::Create { with_card: true },
            Op::Create { with_card: true },
            Op::Create { with_card: true },
            Op::Sweep,
            Op::Sweep,
        ],
        // A list that goes in a circle.
        &[Op::Sweep, Op::Trouble(Trouble::Endless, 1), Op::Sweep, Op::Trouble(Trouble::Hidden, 2), Op::Sweep],
        // A swapped key while a hold is open, and a person who approves meanwhile.
        &[
            Op::Sweep,
            Op::DeleteMany(6),
            Op::Sweep,
            Op::OtherKey,
            Op::Sweep,
            Op::Approve,
            Op::Sweep,
            Op::RightKey,
            Op::Sweep,
        ],
        // Approved, then back before it is asked for again.
        &[Op::Sweep, Op::DeleteMany(6), Op::Sweep, Op::Approve, Op::Restore, Op::Sweep, Op::Probe],
        // Rejected, restored, deleted again.
        &[
            Op::Sweep,
            Op::DeleteMany(6),
            Op::Sweep,
            Op::Reject,
            Op::Sweep,
            Op::Restore,
            Op::Sweep,
            Op::Delete(0),
            Op::Sweep,
        ],
        // Found by seed 10: rejected customers are mostly gone, and were asked to vouch for the API.
        &[
            Op::Sweep,
            Op::DeleteMany(5),
            Op::Sweep,
            Op::Reject,
            Op::Sweep,
            Op::DeleteMany(5),
            Op::Sweep,
            Op::Approve,
            Op::Sweep,
        ],
        // A short list right after cards were hidden.
        &[
            Op::Sweep,
            Op::ListsHideCards(true),
            Op::Trouble(Trouble::ShortList, 9),
            Op::Sweep,
            Op::DropCard(1),
            Op::Sweep,
        ],
    ];
    for (n, ops) in feared.into_iter().enumerate() {
        for per_page in 1..8 {
            let mut world = World::new(n as u64, per_page);
            for op in [Op::Create { with_card: true }; 12].iter().chain(ops) {
                world
                    .step(*op)
                    .unwrap_or_else(|why| panic!("history {n} at {per_page} a page, {op:?}: {why}"));
            }
            world.heal().unwrap_or_else(|why| panic!("history {n} at {per_page} a page, at the end: {why}"));
        }
    }
}
