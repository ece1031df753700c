//! A simulation: one `Op` at a time against a remote in memory, with all invariants checked after
//! each. Ops are changes by other clients, doors, passes, pushes, events, crashes, clocks,
//! operators and backups. At the end of each seed the faults end. Then mirror and remote must be
//! equal, and every intent is settled or waits for an operator.
//!
//! `SIMULATION_OPS=10000000 cargo test --release -p komoju-testkit --test simulation --
//! --nocapture` runs longer, and `SIMULATION_FROM` starts with another seed. A run prints how often
//! each op and fault happened, and fails if a kind is rarer than one in a hundred. A failure prints
//! its seed and a shortened list of its ops, to be added to
//! `recorded_histories_hold_every_invariant`.
//!
//! Promises: invariant 1; invariant 6; invariant 7; invariant 14; invariant 18

#![expect(clippy::result_large_err, reason = "the errors are those of the simulated traits")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::print_stdout, reason = "the counters are part of the report")]

mod checks;
mod count;
mod doors;
mod events;
mod heal;
mod log;
mod operator;
mod ops;
mod passes;
mod place;
mod play;
mod pushes;
mod remote;
mod server;
mod world;

use events::EventTrouble;
use ops::{Door, IntentKind, IntentSpec, Op};
use place::Place;
use pushes::PushTrouble;
use remote::Trouble;
use world::World;

/// The number of ops without `SIMULATION_OPS`, small enough for `cargo test`.
const OPS: u64 = 1_800;

/// The counted properties of intents; and the faults besides those of the remote: four shifts and
/// four places to crash.
const OF_INTENTS: usize = 7;
const OTHER_FAULTS: usize = 4 + 4;

#[test]
fn every_invariant_holds_after_every_op() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let ops = number("SIMULATION_OPS").unwrap_or(OPS);
    let count = play::all(number("SIMULATION_FROM").unwrap_or(0), ops);
    println!("{count}");
    let faults = Trouble::ALL.len() + PushTrouble::ALL.len() + EventTrouble::ALL.len() + OTHER_FAULTS;
    count.assert_every_kind_occurs([ops::KINDS, OF_INTENTS, faults]);
}

/// Ops before a pass with every kind of work: customers that are new, changed, without their card,
/// deleted, held and approved.
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
fn crash_at_any_wait_of_a_pass_loses_nothing_and_the_next_pass_heals() {
    let place = Place::new();
    for (pass, setup) in
        [(Op::Sweep, busy()), (Op::Probe, busy()), (Op::Sweep, vec![Op::Create { with_card: true }; 9])]
    {
        let mut crashes = 0;
        loop {
            let mut world = World::new(&place, 3, 1);
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
        assert!(crashes > 8, "{pass:?} had only {crashes} waits");
    }
}

/// An intent that creates a customer.
const NEW: Op =
    Op::Drop(Door::Sql, IntentSpec { kind: IntentKind::New, token: false, expect: None, not_before: None });

/// Histories that found a defect, or that reviewers considered risky.
#[test]
fn recorded_histories_hold_every_invariant() {
    let place = Place::new();
    let histories: [&[Op]; 17] = [
        // Found by seed 433: deletions wait, the limit grows, and then paging skips a live
        // customer.
        &[
            Op::Sweep,
            Op::DeleteMany(5),
            Op::Sweep,
            Op::Drift { deletes: 0, creates: 8, edits: 0, moves: 0 },
            Op::Sweep,
            Op::Drift { deletes: 0, creates: 8, edits: 0, moves: 0 },
            Op::Sweep,
            Op::Trouble(Trouble::Hidden, 1),
            Op::Sweep,
        ],
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
        // A list that repeats two pages without an end.
        &[Op::Sweep, Op::Trouble(Trouble::Endless, 1), Op::Sweep, Op::Trouble(Trouble::Hidden, 2), Op::Sweep],
        // A swapped key while a hold is open, and an approval meanwhile.
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
        // An approved deletion. Its customer is back before it is requested again.
        &[Op::Sweep, Op::DeleteMany(6), Op::Sweep, Op::Approve, Op::ComeBack, Op::Sweep, Op::Probe],
        // A rejected deletion. Its customer is restored and deleted again.
        &[
            Op::Sweep,
            Op::DeleteMany(6),
            Op::Sweep,
            Op::Reject,
            Op::Sweep,
            Op::ComeBack,
            Op::Sweep,
            Op::Delete(0),
            Op::Sweep,
        ],
        // Found by seed 10: rejected customers are mostly gone, and were used as canaries.
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
        // Found by seed 101: a create that may have taken effect in one account was looked for, and
        // sent, in the other one.
        &[Op::OtherKey, Op::PushTrouble(PushTrouble::Gateway, 1), NEW, Op::SweepAndDrain],
        // Our own delete of a customer that the mirror does not know yet; then the create of that
        // customer is answered again.
        &[
            Op::Sweep,
            Op::PushTrouble(PushTrouble::Gateway, 3),
            NEW,
            Op::Drain,
            Op::Drop(
                Door::Sql,
                IntentSpec { kind: IntentKind::Remove(0), token: false, expect: None, not_before: None },
            ),
            Op::Drain,
            Op::Advance(60),
            Op::Drain,
        ],
        // Found by seed 135: the list is empty, some customers are live, more than the limit are
        // gone, and no listed customer can be the canary.
        &[Op::Sweep, Op::DeleteMany(7), Op::Trouble(Trouble::EmptyList, 5), Op::Sweep],
        // Found by seed 38: a customer of the other account answered in a sweep that crashed, and
        // then the right key was accepted.
        &[
            Op::Trouble(Trouble::Endless, 2),
            Op::DeleteMany(7),
            Op::OtherKey,
            Op::Sweep,
            Op::Accept,
            Op::Trouble(Trouble::Hidden, 9),
            Op::Crash(37),
            Op::Sweep,
        ],
        // Found by seed 322: a deletion was held after a restore. Its customer is back before an
        // operator has decided, and another customer is gone.
        &[
            Op::Sweep,
            Op::Backup,
            Op::Restore(0),
            Op::Delete(0),
            Op::Sweep,
            Op::ComeBack,
            Op::Delete(1),
            Op::Sweep,
        ],
        // Found by seed 112: a card is removed, and the customer's last change is dated in the
        // future.
        &[
            Op::WallClock(365 * 24 * 60 * 60),
            Op::Sweep,
            Op::DropCard(2),
            Op::WallClock(-365 * 24 * 60 * 60),
            Op::Sweep,
        ],
        // Considered after seed 0, with a tag: the customer of a create was seen and is gone, and
        // the create was sent again.
        &[
            Op::Sweep,
            Op::PushTrouble(PushTrouble::LostAnswer, 1),
            NEW,
            Op::Drain,
            Op::Sweep,
            Op::Delete(0),
            Op::Sweep,
            Op::SinceFirst(20 * 60 + 1),
            Op::Drain,
        ],
        // Events report more deletions between two sweeps than one sweep may record.
        &[
            Op::Sweep,
            Op::Advance(3600),
            Op::ReadEvents,
            Op::DeleteMany(5),
            Op::ReadEvents,
            Op::ReadHinted,
            Op::DeleteMany(5),
            Op::ReadEvents,
            Op::ReadHinted,
            Op::Delete(0),
            Op::ReadEvents,
            Op::ReadHinted,
        ],
        // The key of another account is accepted, and an event names a customer of the previous
        // account before a sweep.
        &[
            Op::Sweep,
            Op::Advance(3600),
            Op::OtherKey,
            Op::Sweep,
            Op::Accept,
            Op::ReadEvents,
            NEW,
            NEW,
            Op::EventTrouble(EventTrouble::OtherCustomer, 1),
            Op::Drain,
            Op::ReadEvents,
            Op::ReadHinted,
        ],
    ];
    for (n, ops) in histories.into_iter().enumerate() {
        for per_page in 1..8 {
            let mut world = World::new(&place, n as u64, per_page);
            for op in [Op::Create { with_card: true }; 12].iter().chain(ops) {
                world
                    .step(*op)
                    .unwrap_or_else(|why| panic!("history {n} at {per_page} a page, {op:?}: {why}"));
            }
            world.heal().unwrap_or_else(|why| panic!("history {n} at {per_page} a page, at the end: {why}"));
        }
    }
}
