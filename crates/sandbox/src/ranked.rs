//! A sorted list that answers "which is the n-th?" quickly and still takes inserts and removals anywhere.
//!
//! Pages need ranks, which `BTreeMap` does not have, and a plain sorted `Vec` would move a million entries for each insert
//! near its front. So: sorted chunks of some hundred keys. Finding a rank walks over the chunk lengths, about two thousand
//! for a million keys, which costs a few microseconds a page.

use std::ops::Range;

/// Chunks are filled to half of this when loaded, and split when they exceed it.
const CHUNK_MOST: usize = 1024;

/// Distinct keys in order.
#[derive(Debug, Clone)]
pub(super) struct Ranked<K> {
    /// Never holds an empty chunk.
    chunks: Vec<Vec<K>>,
    len: usize,
}

impl<K: Ord + Clone> Ranked<K> {
    /// Takes keys that already are in order and distinct.
    pub(super) fn from_sorted(keys: impl Iterator<Item = K>) -> Self {
        let mut ranked = Self { chunks: Vec::new(), len: 0 };
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let chunk: Vec<K> = keys.by_ref().take(CHUNK_MOST / 2).collect();
            ranked.len += chunk.len();
            ranked.chunks.push(chunk);
        }
        ranked
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Inserts a key; one that is there already stays as it is.
    pub(super) fn insert(&mut self, key: K) {
        let at = self.chunk_for(&key).min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(vec![key]);
            self.len = 1;
            return;
        };
        let Err(place) = chunk.binary_search(&key) else {
            return;
        };
        chunk.insert(place, key);
        self.len += 1;
        if chunk.len() > CHUNK_MOST {
            let upper = chunk.split_off(CHUNK_MOST / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Removes a key; false when it was not there.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let at = self.chunk_for(key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return false;
        };
        let Ok(place) = chunk.binary_search(key) else {
            return false;
        };
        chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        true
    }

    /// How many keys are below this one.
    pub(super) fn rank(&self, key: &K) -> usize {
        let at = self.chunk_for(key);
        let before: usize = self.chunks[..at].iter().map(Vec::len).sum();
        before + self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(|other| other < key))
    }

    /// The keys of these ranks, in order; ranks past the end are left out.
    pub(super) fn slice(&self, ranks: Range<usize>) -> Vec<K> {
        let mut skip = ranks.start;
        let mut wanted = ranks.end.min(self.len).saturating_sub(ranks.start);
        let mut keys = Vec::with_capacity(wanted);
        for chunk in &self.chunks {
            if wanted == 0 {
                break;
            }
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let part = &chunk[skip..chunk.len().min(skip + wanted)];
            keys.extend_from_slice(part);
            wanted -= part.len();
            skip = 0;
        }
        keys
    }

    /// The first chunk whose last key is not below `key`; past the end when there is none.
    fn chunk_for(&self, key: &K) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last < key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_sorted_list(
            start in proptest::collection::btree_set(0u32..5_000, 0..2_000),
            moves in proptest::collection::vec((any::<bool>(), 0u32..5_000), 0..2_000),
        ) {
            let mut plain = start.clone();
            let mut ranked = Ranked::from_sorted(start.into_iter());
            for (insert, key) in moves {
                if insert {
                    plain.insert(key);
                    ranked.insert(key);
                } else {
                    prop_assert_eq!(ranked.remove(&key), plain.remove(&key));
                }
            }
            prop_assert_eq!(ranked.len(), plain.len());
            let all: Vec<u32> = plain.iter().copied().collect();
            prop_assert_eq!(ranked.slice(0..usize::MAX), all.clone());
            for rank in [0, 1, all.len() / 2, all.len()] {
                let end = all.len().min(rank + 7);
                prop_assert_eq!(ranked.slice(rank..rank + 7), all[rank.min(end)..end].to_vec());
            }
            for key in [0, 17, 2_500, 5_000] {
                prop_assert_eq!(ranked.rank(&key), plain.range(..key).count());
            }
        }
    }

    #[test]
    fn chunks_split_as_they_grow_and_go_as_they_empty() {
        let mut ranked = Ranked::from_sorted(std::iter::empty());
        for key in (0..3 * CHUNK_MOST).rev() {
            ranked.insert(key);
        }
        assert!(ranked.chunks.len() > 2);
        assert!(ranked.chunks.iter().all(|chunk| chunk.len() <= CHUNK_MOST));
        for key in 0..3 * CHUNK_MOST {
            assert!(ranked.remove(&key));
        }
        assert_eq!((ranked.len(), ranked.chunks.len()), (0, 0));
    }
}
