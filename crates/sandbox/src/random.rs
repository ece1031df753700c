//! The random generators: the same seed gives the same numbers on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The digits of base 36, the characters of ids.
pub(crate) const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Returns the generator for these numbers. Different numbers give independent generators.
pub(crate) fn seeded<const N: usize>(numbers: [u64; N]) -> ChaCha8Rng {
    const { assert!(N <= 4, "a seed has 32 bytes") };
    let mut seed = [0; 32];
    for (bytes, number) in seed.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(seed)
}

/// Returns the generator for a text, for example a token.
pub(crate) fn of_text(text: &str) -> ChaCha8Rng {
    let hash =
        text.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(1_099_511_628_211).wrapping_add(byte.into()));
    seeded([hash])
}

/// Draws one item of a list that is not empty.
pub(crate) fn pick<T: Copy>(rng: &mut impl Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Draws whether something happens that happens with this percentage.
pub(crate) fn is_drawn(rng: &mut impl Rng, percent: u8) -> bool {
    rng.random_range(0..100) < percent
}

/// Draws an id: 25 lower-case letters and digits, as KOMOJU's ids have today.
pub(crate) fn id(rng: &mut impl Rng) -> String {
    (0..25).map(|_| char::from(pick(rng, DIGITS))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_seed_never_change() {
        assert_eq!(seeded([1]).random::<u64>(), 7_037_237_572_835_827_407);
        assert_eq!(id(&mut seeded([7])), id(&mut seeded([7])));
        assert_ne!(of_text("tok_a").random::<u64>(), of_text("tok_b").random::<u64>());
        assert_ne!(seeded([1, 2]).random::<u64>(), seeded([2, 1]).random::<u64>());
    }
}
