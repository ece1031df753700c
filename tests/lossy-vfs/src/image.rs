//! The state of a disk at one moment, and the directories that may result from it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::Change;

/// The bytes that a disk writes completely or not at all.
const SECTOR: usize = 512;

/// The part of the unsynced changes that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// None of them.
    Nothing,
    /// All of them, as after a process was killed.
    Everything,
    /// Some of the writes, each complete.
    SomeWrites,
    /// Some sectors of some writes: torn writes.
    SomeSectors,
}

/// What a disk may contain at one moment. Cheap to take, because contents are shared.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) files: BTreeMap<String, Stored>,
}

/// A file: its content at its last sync, and the changes since.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    synced: Arc<Vec<u8>>,
    since: Vec<Arc<Change>>,
    pub(crate) is_lasting: bool,
    pub(crate) is_deleted: bool,
}

impl Stored {
    pub(crate) fn new(synced: Vec<u8>, is_lasting: bool) -> Self {
        Self { synced: Arc::new(synced), since: Vec::new(), is_lasting, is_deleted: false }
    }

    pub(crate) fn is_there(&self) -> bool {
        !self.is_deleted
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.since.push(Arc::new(change));
    }

    pub(crate) fn sync(&mut self) {
        let content = Arc::make_mut(&mut self.synced);
        for change in self.since.drain(..) {
            apply(content, &change, |_| true);
        }
    }
}

impl Image {
    /// Returns the number of unsynced changes.
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|file| file.since.len()).sum()
    }

    /// Writes one of the possible directories into `directory`, which is empty. The same `seed`
    /// makes the same one.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_to(&self, directory: &Path, keep: Keep, seed: u64) -> io::Result<()> {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut kept = |of: Keep| match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            _ => keep != of || dice.random_bool(0.5),
        };
        for (name, file) in &self.files {
            // A name may exist or not, if its directory was not synced after its creation or
            // removal.
            let is_there = match (file.is_lasting, file.is_deleted) {
                (true, false) => true,
                (true, true) => !kept(keep),
                (false, deleted) => kept(keep) && !deleted,
            };
            if !is_there {
                continue;
            }
            let mut content = file.synced.to_vec();
            for change in &file.since {
                if kept(Keep::SomeWrites) {
                    apply(&mut content, change, |_| kept(Keep::SomeSectors));
                }
            }
            std::fs::write(directory.join(name), content)?;
        }
        Ok(())
    }
}

/// Applies a change to `content`, for those sectors that reached the disk.
fn apply(content: &mut Vec<u8>, change: &Change, mut reached: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate { len } => {
            if reached(len / SECTOR) {
                content.resize(*len, 0);
            }
        }
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            let mut from = *at;
            while from < end {
                let to = end.min((from / SECTOR + 1) * SECTOR);
                if reached(from / SECTOR) {
                    if content.len() < to {
                        content.resize(to, 0);
                    }
                    content[from..to].copy_from_slice(&bytes[from - at..to - at]);
                }
                from = to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn image(synced: &[u8], since: Vec<Change>) -> Image {
        let mut file = Stored::new(synced.to_vec(), true);
        since.into_iter().for_each(|change| file.change(change));
        Image { files: BTreeMap::from([("a".to_owned(), file)]) }
    }

    fn found(image: &Image, keep: Keep, seed: u64) -> Vec<u8> {
        // Tests run in parallel.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("lossy-{}-{n}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        image.write_to(&directory, keep, seed).unwrap();
        let content = std::fs::read(directory.join("a")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        content
    }

    #[test]
    fn unsynced_writes_may_be_kept_in_part() {
        let write = |at, byte, len| Change::Write { at, bytes: vec![byte; len] };
        let image = image(&[1; 1024], vec![write(0, 2, 1024), write(1024, 3, 512), write(100, 4, 8)]);
        assert_eq!(image.unsynced(), 3);
        assert_eq!(found(&image, Keep::Nothing, 0), [1; 1024]);
        let all = found(&image, Keep::Everything, 0);
        assert_eq!((all.len(), all[0], all[100], all[108], all[1024]), (1536, 2, 4, 2, 3));
        let torn: Vec<Vec<u8>> = (0..64).map(|seed| found(&image, Keep::SomeSectors, seed)).collect();
        assert!(torn.iter().any(|torn| (torn[0], torn[512]) == (1, 2)), "a later sector alone");
        assert!(torn.iter().any(|torn| torn[100] == 4 && torn[0] == 1), "a later write alone");
        let whole: Vec<Vec<u8>> = (64..128).map(|seed| found(&image, Keep::SomeWrites, seed)).collect();
        assert!(whole.iter().all(|whole| whole[0] == whole[512]), "writes are complete");
        assert!(whole.iter().any(|whole| whole[0] == 1 && whole.len() == 1536));
    }

    #[test]
    fn unsynced_truncation_may_be_lost() {
        let image = image(&[1; 1024], vec![Change::Truncate { len: 0 }]);
        let lengths: Vec<usize> = (0..16).map(|seed| found(&image, Keep::SomeSectors, seed).len()).collect();
        assert!(lengths.contains(&0) && lengths.contains(&1024));
    }
}
