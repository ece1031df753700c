//! Plans a scan of the spool directory: which files it takes, and in which order.
//!
//! Files are taken in drop order. Unfinished claims of an earlier scan or process are first. A file
//! that was written in place is taken when it was unchanged for a second. A file that is still
//! being written delays younger ones, for at most ten seconds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::format::count;

/// UNCHANGED_FOR controls how long a file that was not renamed into place must be unchanged before
/// it is taken.
const UNCHANGED_FOR: Duration = Duration::from_secs(1);

/// LONGEST_DELAY limits how long a file that is still being written delays younger ones.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// MOST_SHOWN limits the paths in the text of a plan: there may be very many files.
const MOST_SHOWN: usize = 20;

/// A file and its state. Two stamps are equal while the file is not touched. Device and inode alone
/// do not identify a file: ext4 may give the inode of a removed file to the next new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// The length in bytes.
    pub len: u64,
    /// The time of the last write: seconds and nanoseconds of Unix time.
    pub modified: (i64, i64),
    /// The time of the last write, rename or change of mode. This is a file's drop time.
    pub changed: (i64, i64),
}

impl Stamp {
    /// Whether this is the same file with the same content after our own rename, which sets only
    /// the time of change.
    pub fn is_same_content(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self } == *other
    }

    /// Whether this is the same file, even if its content changed.
    fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    fn age(&self, wall: Timestamp) -> Duration {
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        let touched = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        u64::try_from(wall.as_nanosecond() - touched).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// A file that may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// The name under which it was dropped.
    pub name: String,
    /// The claim, if the file is in `.claimed/`. Claims sort by drop time.
    pub claim: Option<String>,
    /// The file's state.
    pub stamp: Stamp,
}

impl FoundFile {
    /// Returns the path below the spool directory.
    pub fn path(&self) -> String {
        match &self.claim {
            Some(claim) => format!(".claimed/{claim}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The time of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanTime {
    /// The wall clock: the earlier of the machine's clock and the trusted one. The file system
    /// dates files by the machine's clock, which may be wrong.
    pub wall: Timestamp,
    /// The steady clock.
    pub steady: Duration,
}

/// What a scan does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolPlan {
    /// The files to take, in this order.
    pub take: Vec<FoundFile>,
    /// When the next file can be ready, if a file is still being written.
    pub again_in: Option<Duration>,
    /// Whether files wait for an older one that is still being written.
    pub is_cut: bool,
}

impl fmt::Display for SpoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.take.iter().take(MOST_SHOWN).map(FoundFile::path).collect();
        write!(f, "take {}: {}", count(self.take.len(), "file"), paths.join(", "))?;
        let more = self.take.len() - paths.len();
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        if let Some(wait) = self.again_in {
            write!(f, "; scan again in {wait:?}")?;
        }
        f.write_str(if self.is_cut { "; younger files wait" } else { "" })
    }
}

/// Files that are or were being written, as earlier scans saw them.
///
/// A file keeps its entry until it is taken or gone, also when a scan plans to take it. Otherwise a
/// file that changes again before it is taken would delay younger ones for another ten seconds.
#[derive(Debug, Default)]
pub struct ChangingFiles {
    files: HashMap<String, Changing>,
}

#[derive(Debug)]
struct Changing {
    stamp: Stamp,
    /// When the file was first seen with this stamp, by the steady clock.
    since: Duration,
    /// When the file was first seen, by the steady clock.
    first: Duration,
    /// The drop time at that moment. A file keeps its place in the order while it grows.
    dropped: (i64, i64),
}

impl Changing {
    fn new(stamp: Stamp, now: ScanTime) -> Self {
        Self { stamp, since: now.steady, first: now.steady, dropped: stamp.changed }
    }
}

impl ChangingFiles {
    /// Plans a scan. `renamed` names the files that were just renamed into place: they are
    /// complete.
    pub fn plan(&mut self, found: Vec<FoundFile>, renamed: &[String], now: ScanTime) -> SpoolPlan {
        self.follow_claims(&found);
        let paths: HashSet<String> = found.iter().map(FoundFile::path).collect();
        self.files.retain(|path, _| paths.contains(path));
        // Record the first sight of each file before the loop below ends early. Then several files
        // that are still being written delay younger ones together only as long as one does.
        let mut files: Vec<_> = found
            .into_iter()
            .map(|file| {
                let is_complete = file.claim.is_none() && renamed.contains(&file.name);
                let wait = if is_complete { None } else { self.wait(&file, now) };
                (file, wait)
            })
            .collect();
        files.sort_by_cached_key(|(file, _)| {
            let seen = self.files.get(&file.path()).filter(|seen| seen.stamp.is_same_file(&file.stamp));
            let dropped = seen.map_or(file.stamp.changed, |seen| seen.dropped);
            (file.claim.is_none(), file.claim.clone(), dropped, file.name.clone())
        });
        let (mut plan, mut unfinished) = (SpoolPlan::default(), HashSet::new());
        for (file, wait) in files {
            // An earlier file of this name must be taken first.
            if unfinished.contains(&file.name) {
                continue;
            }
            let Some(wait) = wait else {
                plan.take.push(file);
                continue;
            };
            let delay = self.delay(&file, now);
            let again_in = delay.map_or(wait, |delay| wait.min(delay));
            plan.again_in = Some(plan.again_in.map_or(again_in, |known| known.min(again_in)));
            if delay.is_some() {
                plan.is_cut = true;
                break;
            }
            unfinished.insert(file.name);
        }
        plan
    }

    /// Forgets a file that was taken.
    pub fn forget(&mut self, file: &FoundFile) {
        self.files.remove(&file.path());
    }

    /// Notes that a planned file changed before it was taken. Returns how long it still delays
    /// younger ones; `None` if it no longer does.
    pub fn note_change(&mut self, file: &FoundFile, now: ScanTime) -> Option<Duration> {
        self.files.entry(file.path()).or_insert_with(|| Changing::new(file.stamp, now));
        self.delay(file, now)
    }

    /// Moves the entry of a dropped file to its claim. The claim is the same file, so it does not
    /// delay younger ones for another ten seconds.
    fn follow_claims(&mut self, found: &[FoundFile]) {
        for file in found.iter().filter(|file| file.claim.is_some()) {
            let is_it = |seen: &Changing| seen.stamp.is_same_file(&file.stamp);
            if self.files.get(&file.name).is_some_and(is_it)
                && let Some(seen) = self.files.remove(&file.name)
            {
                self.files.insert(file.path(), seen);
            }
        }
    }

    /// Returns how long a file must still be unchanged; `None` if it may be taken. A file whose
    /// times are in the future counts from when it was first seen with them.
    fn wait(&mut self, file: &FoundFile, now: ScanTime) -> Option<Duration> {
        let (path, stamp, age) = (file.path(), file.stamp, file.stamp.age(now.wall));
        if age >= UNCHANGED_FOR && !self.files.contains_key(&path) {
            return None;
        }
        let seen = self.files.entry(path).or_insert_with(|| Changing::new(stamp, now));
        if !seen.stamp.is_same_file(&stamp) {
            // Another file with this name is younger, and does not get ten seconds of its own.
            seen.dropped = stamp.changed;
        }
        if seen.stamp != stamp {
            (seen.stamp, seen.since) = (stamp, now.steady);
        }
        let unchanged = age.max(now.steady.saturating_sub(seen.since));
        Some(UNCHANGED_FOR.saturating_sub(unchanged)).filter(|wait| !wait.is_zero())
    }

    /// Returns how long this file still delays younger ones; `None` if it no longer does.
    fn delay(&self, file: &FoundFile, now: ScanTime) -> Option<Duration> {
        let delayed = now.steady.saturating_sub(self.files.get(&file.path())?.first);
        Some(LONGEST_DELAY.saturating_sub(delayed)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The drop times below count from here, in seconds of Unix time.
    const START: i64 = 1_000_000;

    fn file(name: &str, claim: Option<&str>, dropped: i64) -> FoundFile {
        let stamp = Stamp { len: 1, changed: (START + dropped, 0), ..Stamp::default() };
        FoundFile { name: name.to_owned(), claim: claim.map(str::to_owned), stamp }
    }

    fn at(seconds: i64) -> ScanTime {
        let steady = Duration::from_secs(seconds.unsigned_abs());
        ScanTime { wall: Timestamp::from_second(START + seconds).unwrap(), steady }
    }

    fn paths(plan: &SpoolPlan) -> Vec<String> {
        plan.take.iter().map(FoundFile::path).collect()
    }

    #[test]
    fn claims_are_first_and_other_files_follow_in_drop_order() {
        let found = vec![
            file("b.json", None, 1),
            file("a.json", None, 2),
            file("z.json", Some("2"), 9),
            file("y.json", Some("1"), 9),
        ];
        let plan = ChangingFiles::default().plan(found, &[], at(10));
        assert_eq!(paths(&plan), [".claimed/1/y.json", ".claimed/2/z.json", "b.json", "a.json"]);
        let text = "take 4 files: .claimed/1/y.json, .claimed/2/z.json, b.json, a.json";
        assert_eq!(plan.to_string(), text);
    }

    #[test]
    fn text_of_a_plan_names_the_first_files() {
        let take = (10..42).map(|number| file(&format!("{number}.json"), None, 0)).collect();
        let text = SpoolPlan { take, ..SpoolPlan::default() }.to_string();
        assert!(text.starts_with("take 32 files: 10.json, 11.json, "), "{text}");
        assert!(text.ends_with(", 29.json and 12 more"), "{text}");
    }

    #[test]
    fn changing_file_delays_younger_ones_for_ten_seconds_and_keeps_its_place() {
        let mut changing = ChangingFiles::default();
        let renamed = ["new.json".to_owned()];
        for second in 0..10 {
            // The file is written to at each scan.
            let found = vec![file("new.json", None, 1), file("grows.json", None, second)];
            let plan = changing.plan(found, &renamed, at(second));
            assert_eq!((paths(&plan), plan.again_in, plan.is_cut), (vec![], Some(SECOND), true));
        }
        let found = vec![file("new.json", None, 1), file("grows.json", None, 10)];
        let plan = changing.plan(found.clone(), &renamed, at(10));
        assert_eq!(
            (paths(&plan), plan.again_in, plan.is_cut),
            (vec!["new.json".into()], Some(SECOND), false)
        );
        assert_eq!(plan.to_string(), "take 1 file: new.json; scan again in 1s");
        let plan = changing.plan(found, &[], at(11));
        assert_eq!(paths(&plan), ["grows.json", "new.json"], "its drop time is the first one");
    }

    #[test]
    fn file_dated_in_the_future_is_taken_after_it_was_unchanged_for_a_second() {
        let mut changing = ChangingFiles::default();
        let found = vec![file("a.json", None, 500)];
        assert_eq!(changing.plan(found.clone(), &[], at(0)).again_in, Some(SECOND));
        assert_eq!(paths(&changing.plan(found, &[], at(1))), ["a.json"]);
    }

    #[test]
    fn planned_file_that_changes_again_delays_younger_ones_for_ten_seconds_in_all() {
        for claim in [None, Some("1")] {
            let mut changing = ChangingFiles::default();
            for second in 0..=10 {
                // The file is unchanged for a second when the scan sees it, and is written to
                // before it is taken.
                let grows = file("grows.json", claim.filter(|_| second > 4), second - 1);
                let found = vec![grows.clone(), file("new.json", None, 2)];
                let plan = changing.plan(found, &[], at(second));
                assert_eq!(plan.take.first(), Some(&grows), "it keeps its place at {second} s");
                let delay = changing.note_change(&grows, at(second));
                assert_eq!(delay, (second < 10).then(|| SECOND * u32::try_from(10 - second).unwrap()));
            }
        }
    }

    #[test]
    fn grown_file_that_was_planned_and_not_reached_keeps_its_drop_time() {
        let mut changing = ChangingFiles::default();
        changing.plan(vec![file("grows.json", None, 0)], &[], at(0));
        let found = vec![file("grows.json", None, 5), file("new.json", None, 2)];
        assert_eq!(paths(&changing.plan(found.clone(), &[], at(5))), [""; 0]);
        for second in [6, 7] {
            let plan = changing.plan(found.clone(), &[], at(second));
            assert_eq!(paths(&plan), ["grows.json", "new.json"], "at {second} s");
        }
        changing.forget(&found[0]);
        assert_eq!(paths(&changing.plan(found, &[], at(8))), ["new.json", "grows.json"], "another file");
    }

    #[test]
    fn replacement_of_a_stuck_file_has_its_own_drop_time() {
        let mut changing = ChangingFiles::default();
        for second in 0..2 {
            changing.plan(vec![file("a.json", None, 0)], &[], at(second));
        }
        let mut replacement = file("a.json", None, 5);
        replacement.stamp.ino = 7;
        let found = vec![replacement, file("b.json", None, 4)];
        for renamed in [vec!["a.json".to_owned()], vec![]] {
            let plan = changing.plan(found.clone(), &renamed, at(9));
            assert_eq!(paths(&plan), ["b.json", "a.json"]);
        }
    }

    #[test]
    fn stuck_file_dated_in_the_future_does_not_delay_younger_ones_again() {
        let mut changing = ChangingFiles::default();
        let found = vec![file("stuck.json", None, 500), file("younger.json", None, 501)];
        changing.plan(found.clone(), &[], at(0));
        for second in 1..20 {
            let plan = changing.plan(found.clone(), &[], at(second));
            assert_eq!((paths(&plan).len(), plan.is_cut), (2, false), "at {second} s");
        }
    }

    #[test]
    fn file_waits_for_an_unfinished_claim_of_its_name() {
        let mut changing = ChangingFiles::default();
        let found = |second| vec![file("a.json", Some("1"), second), file("a.json", None, 0)];
        for second in 0..=10 {
            let plan = changing.plan(found(second), &[], at(second));
            assert_eq!((paths(&plan), plan.is_cut), (vec![], second < 10), "after {second} s");
        }
    }

    #[test]
    fn age_counts_from_the_last_touch_to_the_nanosecond() {
        let touched = Stamp { modified: (START, 7), changed: (START + 1, 250_000_000), ..Stamp::default() };
        let wall = Timestamp::from_second(START + 3).unwrap();
        assert_eq!(touched.age(wall), Duration::from_millis(1750));
        assert_eq!(touched.age(Timestamp::from_second(START).unwrap()), Duration::ZERO, "a clock set back");
    }

    #[test]
    fn content_is_the_same_after_a_rename_and_not_after_a_write() {
        let read = Stamp { dev: 1, ino: 2, len: 3, modified: (4, 5), changed: (4, 5) };
        assert!(read.is_same_content(&Stamp { changed: (9, 0), ..read }));
        for written in [
            Stamp { len: 4, ..read },
            Stamp { modified: (4, 6), ..read },
            Stamp { ino: 3, ..read },
            Stamp { dev: 2, ..read },
        ] {
            assert!(!read.is_same_content(&written), "{written:?}");
        }
    }
}
