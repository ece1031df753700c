//! What can happen, one `Op` at a time, and how often each does.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

use crate::pushes::PushTrouble;
use crate::remote::Trouble;

/// One step. Numbers pick a customer or an intent, whatever their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    // At KOMOJU.
    Create {
        with_card: bool,
    },
    Edit(usize),
    DropCard(usize),
    Delete(usize),
    DeleteMany(usize),
    /// One who was deleted is there again.
    ComeBack,
    /// Between the pages of the next pass: deletes, creates, edits, moves.
    Drift {
        deletes: usize,
        creates: usize,
        edits: usize,
        moves: usize,
    },
    Trouble(Trouble, u32),
    PushTrouble(PushTrouble, u32),
    ListsHideCards(bool),
    // Time.
    Advance(u64),
    WallClock(i64),
    /// So many minutes are over since the first attempt of the newest create that is open, unless it is later already.
    SinceFirst(u64),
    // The daemon.
    Sweep,
    Probe,
    Drain,
    /// A sweep and a drain at once.
    SweepAndDrain,
    Restart,
    /// The process ends within the next pass or drain, the n-th time that it waits for anything.
    Crash(u64),
    /// The same, when the next file is taken.
    CrashAtDoor(u64),
    /// Pushing is switched on or off, with the restart that this takes.
    Switch(bool),
    OtherKey,
    RightKey,
    // The doors.
    Drop(Door, IntentSpec),
    /// Nonsense of this kind.
    Bad(Door, usize),
    /// An intent once more, with the same content or with another.
    Again {
        door: Door,
        which: usize,
        same: bool,
    },
    // A person's words.
    Approve,
    Reject,
    /// A person's word after so many requests of the next pass.
    ApproveMidway(u64),
    RejectMidway(u64),
    Accept,
    Retry {
        which: usize,
        corrected: bool,
    },
    Cancel(usize),
    ApproveDeletes,
    Backup,
    /// One of the backups made so far, the older ones too.
    Restore(usize),
    Erase(usize),
    Rebuild,
}

/// By which way an intent comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Sql,
    File,
    Cli,
}

/// What is wanted, of whom and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntentSpec {
    pub kind: IntentKind,
    pub token: bool,
    /// Names what the customer is like, truly or not.
    pub expect: Option<bool>,
    /// Not before so many minutes from now.
    pub not_before: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum IntentKind {
    New,
    /// The content of the create before.
    Twin,
    Change(usize),
    Remove(usize),
    /// Of whom the newest create makes.
    ChangeMade,
    RemoveMade,
}

impl IntentSpec {
    fn any(dice: &mut StdRng) -> Self {
        let kind = match dice.random_range(0..20) {
            0..7 => IntentKind::New,
            7..9 => IntentKind::Twin,
            9..14 => IntentKind::Change(dice.random_range(0..100)),
            14..17 => IntentKind::Remove(dice.random_range(0..100)),
            17..19 => IntentKind::ChangeMade,
            _ => IntentKind::RemoveMade,
        };
        Self {
            kind,
            token: dice.random_range(0..3) == 0,
            expect: (dice.random_range(0..4) == 0).then(|| dice.random_range(0..3) > 0),
            not_before: (dice.random_range(0..6) == 0).then(|| dice.random_range(-60..300)),
        }
    }

    /// What of it is counted.
    pub fn kinds(self) -> Vec<&'static str> {
        let kind = match self.kind {
            IntentKind::New | IntentKind::Twin => "create",
            IntentKind::Change(_) | IntentKind::ChangeMade => "update",
            IntentKind::Remove(_) | IntentKind::RemoveMade => "delete",
        };
        let made = matches!(self.kind, IntentKind::ChangeMade | IntentKind::RemoveMade);
        let with = [
            (self.token && kind != "delete", "with a token"),
            (self.expect.is_some() && kind != "create", "with expect"),
            (self.not_before.is_some(), "with not_before"),
            (made, "of @ID"),
        ];
        std::iter::once(kind).chain(with.into_iter().filter_map(|(is, what)| is.then_some(what))).collect()
    }
}

/// A moment in the life of a create's key: a minute before and after it must not be counted on, and KOMOJU forgets it.
const KEY_MINUTES: [u64; 5] = [5, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1];

const A_YEAR: i64 = 365 * 24 * 60 * 60;

type Make = fn(&mut StdRng) -> Op;

fn door(dice: &mut StdRng) -> Door {
    *[Door::Sql, Door::File, Door::Cli].choose(dice).expect("there are three")
}

fn any_index(dice: &mut StdRng) -> usize {
    dice.random_range(0..100)
}

/// Each kind of op with its weight. None is rarer than one in a hundred: the count at the end holds that.
const WEIGHTS: [(u32, Make); 38] = [
    (50, |dice| Op::Create { with_card: dice.random() }),
    (40, |dice| Op::Edit(any_index(dice))),
    (20, |dice| Op::DropCard(any_index(dice))),
    (35, |dice| Op::Delete(any_index(dice))),
    (20, |dice| Op::DeleteMany(dice.random_range(3..8))),
    (25, |_| Op::ComeBack),
    (45, |dice| Op::Drift {
        deletes: dice.random_range(0..2),
        creates: dice.random_range(0..3),
        edits: dice.random_range(0..2),
        moves: dice.random_range(0..2),
    }),
    (55, |dice| Op::Trouble(Trouble::any(dice), dice.random_range(1..8))),
    (150, |dice| Op::PushTrouble(PushTrouble::any(dice), dice.random_range(1..4))),
    (20, |dice| Op::ListsHideCards(dice.random())),
    (30, |dice| Op::Advance(dice.random_range(1..100_000))),
    (20, |dice| match dice.random_range(0..4) {
        0 => Op::WallClock(A_YEAR),
        1 => Op::WallClock(-A_YEAR),
        _ => Op::WallClock(dice.random_range(-200_000..200_000)),
    }),
    (45, |dice| Op::SinceFirst(*KEY_MINUTES.choose(dice).expect("there are some"))),
    (100, |_| Op::Sweep),
    (30, |_| Op::Probe),
    (180, |_| Op::Drain),
    (45, |_| Op::SweepAndDrain),
    (20, |_| Op::Restart),
    (70, |dice| Op::Crash(if dice.random() { dice.random_range(0..6) } else { dice.random_range(6..40) })),
    (60, |dice| Op::CrashAtDoor(dice.random_range(0..5))),
    (20, |dice| Op::Switch(dice.random_range(0..3) > 0)),
    (20, |_| Op::OtherKey),
    (25, |_| Op::RightKey),
    (220, |dice| Op::Drop(door(dice), IntentSpec::any(dice))),
    (25, |dice| Op::Bad(door(dice), any_index(dice))),
    (20, |dice| Op::Again { door: door(dice), which: any_index(dice), same: dice.random() }),
    (25, |_| Op::Approve),
    (20, |_| Op::Reject),
    (20, |dice| Op::ApproveMidway(dice.random_range(1..12))),
    (20, |dice| Op::RejectMidway(dice.random_range(1..12))),
    (20, |_| Op::Accept),
    (45, |dice| Op::Retry { which: any_index(dice), corrected: dice.random_range(0..3) == 0 }),
    (22, |dice| Op::Cancel(any_index(dice))),
    (25, |_| Op::ApproveDeletes),
    (25, |_| Op::Backup),
    (22, |dice| Op::Restore(any_index(dice))),
    (25, |dice| Op::Erase(any_index(dice))),
    (20, |_| Op::Rebuild),
];

/// How many kinds of op there are.
pub const KINDS: usize = WEIGHTS.len();

impl Op {
    pub fn any(dice: &mut StdRng) -> Self {
        let sum: u32 = WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut at = dice.next_u32() % sum;
        for (weight, make) in WEIGHTS {
            match at.checked_sub(weight) {
                Some(left) => at = left,
                None => return make(dice),
            }
        }
        unreachable!("less than the sum")
    }

    /// The kind, as it is counted.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_owned()
    }
}
