//! The ops and their weights.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

use crate::events::EventTrouble;
use crate::pushes::PushTrouble;
use crate::remote::Trouble;

/// One step. An index picks a customer or an intent, whatever its value.
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
    /// A deleted customer is back.
    ComeBack,
    /// Changes between the pages of the next pass.
    Drift {
        deletes: usize,
        creates: usize,
        edits: usize,
        moves: usize,
    },
    Trouble(Trouble, u32),
    PushTrouble(PushTrouble, u32),
    EventTrouble(EventTrouble, u32),
    /// An event about a customer that did not change, is deleted, or never existed.
    FalseEvent(usize),
    ListsHideCards(bool),
    // Time.
    Advance(u64),
    WallClock(i64),
    /// Advances the clock to this number of minutes after the first attempt of the newest open
    /// create, unless it is later already.
    SinceFirst(u64),
    // The daemon.
    Sweep,
    Probe,
    Drain,
    /// A sweep and a drain at the same time.
    SweepAndDrain,
    /// Reads the event list.
    ReadEvents,
    /// Requests the customers that events named.
    ReadHinted,
    /// A sweep, while the event list is read and its customers are requested.
    SweepWithEvents,
    Restart,
    /// The process ends within the next pass, drain or reading of events, at its n-th wait.
    Crash(u64),
    /// The process ends while it takes the next file, at its n-th wait.
    CrashAtDoor(u64),
    /// Enables or disables pushing, which needs a restart.
    Switch(bool),
    OtherKey,
    RightKey,
    // The doors.
    Drop(Door, IntentSpec),
    /// An invalid intent of this kind.
    Bad(Door, usize),
    /// An intent again, with the same content or other content.
    Again {
        door: Door,
        which: usize,
        same: bool,
    },
    // The operator.
    Approve,
    Reject,
    /// A decision of the operator after this number of requests of the next pass.
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
    /// One of the kept backups.
    Restore(usize),
    Erase(usize),
    Rebuild,
}

/// The door of an intent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Sql,
    File,
    Cli,
}

/// The properties of an intent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntentSpec {
    pub kind: IntentKind,
    pub token: bool,
    /// Whether `expect` names the customer's state, right or wrong.
    pub expect: Option<bool>,
    /// `not_before`, in minutes from now.
    pub not_before: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum IntentKind {
    New,
    /// A create with the content of the previous create.
    Twin,
    Change(usize),
    Remove(usize),
    /// An update of the customer that the newest create creates.
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

    /// Returns the counted properties.
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

/// Ages of a create's key: young, a minute before and after our own limit of 20 hours, and before
/// and after KOMOJU forgets it.
const KEY_MINUTES: [u64; 5] = [5, 19 * 60 + 59, 20 * 60 + 1, 23 * 60 + 59, 24 * 60 + 1];

const A_YEAR: i64 = 365 * 24 * 60 * 60;

type Make = fn(&mut StdRng) -> Op;

fn door(dice: &mut StdRng) -> Door {
    *[Door::Sql, Door::File, Door::Cli].choose(dice).expect("there are three")
}

fn any_index(dice: &mut StdRng) -> usize {
    dice.random_range(0..100)
}

/// Each kind of op with its weight. No kind is rarer than one in a hundred; the count at the end
/// asserts that.
const WEIGHTS: [(u32, Make); 43] = [
    (50, |dice| Op::Create { with_card: dice.random() }),
    (40, |dice| Op::Edit(any_index(dice))),
    (30, |dice| Op::DropCard(any_index(dice))),
    (35, |dice| Op::Delete(any_index(dice))),
    (30, |dice| Op::DeleteMany(dice.random_range(3..8))),
    (30, |_| Op::ComeBack),
    (45, |dice| Op::Drift {
        deletes: dice.random_range(0..2),
        creates: dice.random_range(0..3),
        edits: dice.random_range(0..2),
        moves: dice.random_range(0..2),
    }),
    (55, |dice| Op::Trouble(Trouble::any(dice), dice.random_range(1..8))),
    (220, |dice| Op::PushTrouble(PushTrouble::any(dice), dice.random_range(1..4))),
    (30, |dice| Op::EventTrouble(EventTrouble::any(dice), dice.random_range(1..3))),
    (30, |dice| Op::FalseEvent(any_index(dice))),
    (30, |dice| Op::ListsHideCards(dice.random())),
    (30, |dice| Op::Advance(dice.random_range(1..100_000))),
    (30, |dice| match dice.random_range(0..4) {
        0 => Op::WallClock(A_YEAR),
        1 => Op::WallClock(-A_YEAR),
        _ => Op::WallClock(dice.random_range(-200_000..200_000)),
    }),
    (45, |dice| Op::SinceFirst(*KEY_MINUTES.choose(dice).expect("there are some"))),
    (100, |_| Op::Sweep),
    (30, |_| Op::Probe),
    (240, |_| Op::Drain),
    (45, |_| Op::SweepAndDrain),
    (75, |_| Op::ReadEvents),
    (100, |_| Op::ReadHinted),
    (45, |_| Op::SweepWithEvents),
    (30, |_| Op::Restart),
    (85, |dice| Op::Crash(if dice.random() { dice.random_range(0..6) } else { dice.random_range(6..40) })),
    (60, |dice| Op::CrashAtDoor(dice.random_range(0..5))),
    (30, |dice| Op::Switch(dice.random_range(0..3) > 0)),
    (30, |_| Op::OtherKey),
    (30, |_| Op::RightKey),
    (220, |dice| Op::Drop(door(dice), IntentSpec::any(dice))),
    (30, |dice| Op::Bad(door(dice), any_index(dice))),
    (30, |dice| Op::Again { door: door(dice), which: any_index(dice), same: dice.random() }),
    (30, |_| Op::Approve),
    (30, |_| Op::Reject),
    (30, |dice| Op::ApproveMidway(dice.random_range(1..12))),
    (30, |dice| Op::RejectMidway(dice.random_range(1..12))),
    (30, |_| Op::Accept),
    (45, |dice| Op::Retry { which: any_index(dice), corrected: dice.random_range(0..3) == 0 }),
    (30, |dice| Op::Cancel(any_index(dice))),
    (30, |_| Op::ApproveDeletes),
    (30, |_| Op::Backup),
    (30, |dice| Op::Restore(any_index(dice))),
    (30, |dice| Op::Erase(any_index(dice))),
    (30, |_| Op::Rebuild),
];

/// The number of kinds of ops.
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

    /// Returns the kind, as it is counted.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_owned()
    }
}
