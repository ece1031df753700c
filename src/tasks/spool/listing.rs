//! What lies in the spool directory, in the order in which it was dropped, and which of it may be
//! taken now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::Duration;

use rustix::fs::FileType;

use super::Left;
use super::directories::{RECEIPTS, REJECTED};
use super::file::{self, Stamp};
use super::folder::Folder;
use super::redact::ByLine;
use crate::clock::Clock;

/// How long a file that was not renamed into place must be unchanged before it is taken.
const STILL: Duration = Duration::from_secs(1);

/// LONGEST_DELAY limits how long a file that is still being written delays the younger ones.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// MOST_NAMED limits the files that are reported by name; the others are counted.
pub const MOST_NAMED: usize = 100;

const NOT_UTF_8: &str = "has a name that is not UTF-8: give it another";

const NO_ENDING: &str = "must end in .json (one intent) or .jsonl (one a line): rename it";

/// Files that stay where they are: the first ones by name with the reason, the others as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    named: BTreeMap<String, String>,
    /// How many more there are.
    pub more: u64,
}

impl Leftovers {
    /// Adds a file.
    pub fn add(&mut self, name: &str, why: impl Into<String>) {
        self.named.insert(name.to_owned(), why.into());
        if self.named.len() > MOST_NAMED {
            self.named.pop_last();
            self.more += 1;
        }
    }

    /// Adds those of an earlier look that this one did not come to.
    pub(super) fn add_missing(&mut self, earlier: &Self) {
        for (name, why) in &earlier.named {
            if self.more == 0 && !self.named.contains_key(name) {
                self.add(name, why.as_str());
            }
        }
    }

    pub(super) fn why(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// Those that are named, by name.
    pub fn list(&self) -> Vec<Left> {
        self.named.iter().map(|(name, why)| Left { name: name.clone(), why: why.clone() }).collect()
    }
}

/// A file that may be taken once its time has come.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) stamp: Stamp,
}

/// What lies in the directory. Files that are none of ours cost no memory each: there may be very
/// many.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) candidates: Vec<Candidate>,
    pub(super) left: Leftovers,
}

/// Lists the directory.
///
/// # Errors
/// It cannot be read.
pub(super) fn list(spool: &Folder) -> io::Result<Listing> {
    let mut listing = Listing::default();
    spool.each(|name, kind| {
        let shown = name.to_string_lossy();
        if !is_dropped(&shown) {
            return;
        }
        match stray(name.to_str(), &shown, kind) {
            Some(why) => listing.left.add(&shown, why),
            None => match spool.metadata_of(name) {
                Err(_) => {}
                Ok(found) => match file::kind(&found) {
                    Some(why) => listing.left.add(&shown, why),
                    None => listing
                        .candidates
                        .push(Candidate { name: shown.into_owned(), stamp: Stamp::of(&found) }),
                },
            },
        }
    })?;
    Ok(listing)
}

/// Why a file is not taken, as far as its name and type say.
pub(super) fn stray(name: Option<&str>, shown: &str, kind: FileType) -> Option<&'static str> {
    match kind {
        _ if name.is_none() => Some(NOT_UTF_8),
        FileType::RegularFile if ending(shown).is_none() => Some(NO_ENDING),
        _ => None,
    }
}

/// A name without its ending, and what that says.
pub(super) fn ending(name: &str) -> Option<(&str, ByLine)> {
    match name.rsplit_once('.') {
        Some((stem, "json")) => Some((stem, ByLine::No)),
        Some((stem, "jsonl")) => Some((stem, ByLine::Yes)),
        _ => None,
    }
}

/// Whether a name is one of a dropped file: neither hidden nor ours.
pub(super) fn is_dropped(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/') && ![RECEIPTS, REJECTED].contains(&name)
}

/// Files that are being written, as seen by the looks so far.
#[derive(Debug, Default)]
pub(super) struct Unstill {
    files: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// Since when, by the steady clock, the file has this stamp.
    since: Duration,
    /// When, by the steady clock, it was seen first …
    first: Duration,
    /// … and what its drop time was then. It keeps its place while it grows.
    dropped: (i64, i64),
}

impl Unstill {
    /// How long a file must still be left alone; `None` where it may be taken. A file whose times
    /// lie in the future counts from when it was first seen so.
    pub(super) fn wait(&mut self, key: &str, stamp: Stamp, clock: &dyn Clock) -> Option<Duration> {
        // The file system stamps by the machine's clock, which may be wrong: both clocks must say that the file is old.
        let age = clock.now().min(clock.machine_time()).as_nanosecond() - stamp.touched();
        let age = u64::try_from(age).map_or(Duration::ZERO, Duration::from_nanos);
        if age >= STILL && !self.files.contains_key(key) {
            return None;
        }
        let now = clock.elapsed();
        let new = Seen { stamp, since: now, first: now, dropped: stamp.dropped() };
        let seen = self.files.entry(key.to_owned()).or_insert(new);
        if seen.stamp != stamp {
            (seen.stamp, seen.since) = (stamp, now);
        }
        let wait = STILL.saturating_sub(age.max(now.saturating_sub(seen.since)));
        Some(wait).filter(|wait| !wait.is_zero())
    }

    /// How long this file, which is being written, delays the younger ones; `None` where it does
    /// not any more.
    pub(super) fn delay(&self, key: &str, clock: &dyn Clock) -> Option<Duration> {
        let first = self.files.get(key)?.first;
        Some(LONGEST_DELAY.saturating_sub(clock.elapsed().saturating_sub(first)))
            .filter(|left| !left.is_zero())
    }

    /// Forgets a file.
    pub(super) fn forget(&mut self, key: &str) {
        self.files.remove(key);
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, keys: &HashSet<&str>) {
        self.files.retain(|key, _| keys.contains(key.as_str()));
    }

    /// Sorts files by drop time.
    pub(super) fn sort(&self, candidates: &mut [Candidate]) {
        let dropped = |candidate: &Candidate| {
            self.files.get(&candidate.name).map_or(candidate.stamp.dropped(), |seen| seen.dropped)
        };
        candidates
            .sort_by(|one, other| dropped(one).cmp(&dropped(other)).then_with(|| one.name.cmp(&other.name)));
    }
}
