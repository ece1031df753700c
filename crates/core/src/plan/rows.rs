//! A set of mirror rows. It stores one bit per row, because row numbers are small and dense: a
//! million customers take 125 kB.

/// A set of row numbers.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    words: Vec<u64>,
    len: u64,
}

impl RowSet {
    /// Adds a row, and returns whether it was new. Rows count from 1; other numbers are ignored.
    pub fn insert(&mut self, row: i64) -> bool {
        let Some((word, bit)) = word_and_bit(row) else { return false };
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Removes a row.
    pub fn remove(&mut self, row: i64) {
        let Some((word, bit)) = word_and_bit(row) else { return };
        if self.contains(row) {
            self.words[word] &= !bit;
            self.len -= 1;
        }
    }

    /// Whether the set contains a row.
    pub fn contains(&self, row: i64) -> bool {
        word_and_bit(row).is_some_and(|(word, bit)| self.words.get(word).is_some_and(|bits| bits & bit != 0))
    }

    /// Returns the number of rows.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `other` contains every row of this set.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.len <= other.len && self.iter().all(|row| other.contains(row))
    }

    /// Returns the rows in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        let bits = |(word, bits): (usize, &u64)| {
            let (bits, base) = (*bits, word * 64);
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .filter_map(move |bit| i64::try_from(base + bit).ok())
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

fn word_and_bit(row: i64) -> Option<(usize, u64)> {
    let row = usize::try_from(row).ok().filter(|row| *row > 0)?;
    Some((row / 64, 1 << (row % 64)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn row_set_behaves_as_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), -2_i64..300), 0..200)) {
            let (mut rows, mut model) = (RowSet::default(), BTreeSet::new());
            for (add, row) in steps {
                if add {
                    prop_assert_eq!(rows.insert(row), row > 0 && model.insert(row), "{}", row);
                } else {
                    rows.remove(row);
                    model.remove(&row);
                }
                model.retain(|row| *row > 0);
                prop_assert_eq!(rows.contains(row), model.contains(&row));
                prop_assert_eq!((rows.len(), rows.is_empty()), (model.len() as u64, model.is_empty()));
            }
            prop_assert_eq!(rows.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let mut other = RowSet::default();
            for row in (1..200).filter(|row| row % 3 != 0) {
                other.insert(row);
            }
            prop_assert_eq!(rows.is_subset_of(&other), model.iter().all(|row| *row < 200 && row % 3 != 0));
        }
    }
}
