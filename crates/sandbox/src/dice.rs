//! Numbers that look random and are the same for the same seed, on every machine and in every release.
//!
//! A generator from a crate is allowed to change its stream between versions; a population must not change with it, so
//! the few lines of SplitMix64 live here.

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A stream of numbers fixed by its seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one text, for example a token.
    pub(super) fn of_text(text: &str) -> Self {
        // FNV-1a.
        let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self(mix(hash))
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `bound`; 0 when there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }

    /// A position in a list of `len`; 0 when it is empty.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `percent` of a hundred rolls.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.index(from.len())]
    }

    /// Twenty-five lower-case letters and digits, as KOMOJU's ids are today.
    pub(super) fn id(&mut self) -> String {
        let mut id = String::with_capacity(25);
        push_base36(&mut id, self.roll(), 12);
        push_base36(&mut id, self.roll(), 13);
        id
    }
}

/// A bijection on 64 bits (SplitMix64's finaliser).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The inverse of [`mix`].
pub(super) fn unmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42B2_D24D_8EC3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96DE_1B17_3F11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}

/// Appends the lowest `digits` digits of `value` in base 36.
pub(super) fn push_base36(text: &mut String, mut value: u64, digits: usize) {
    let mut reversed = [b'0'; 13];
    for digit in &mut reversed[..digits] {
        *digit = ID_ALPHABET[(value % 36) as usize];
        value /= 36;
    }
    text.extend(reversed[..digits].iter().rev().map(|&digit| char::from(digit)));
}

/// Reads what [`push_base36`] wrote, if it fits 64 bits and holds no other letters.
pub(super) fn read_base36(text: &str) -> Option<u64> {
    text.bytes().try_fold(0u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        value.checked_mul(36)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmix_undoes_mix() {
        for x in [0, 1, 2, 255, 1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(unmix(mix(x)), x);
        }
    }

    #[test]
    fn base_36_reads_back_what_it_wrote() {
        for value in [0, 35, 36, 1 << 50, u64::MAX] {
            let mut text = String::new();
            push_base36(&mut text, value, 13);
            assert_eq!(text.len(), 13);
            assert_eq!(read_base36(&text), Some(value));
        }
        assert_eq!(read_base36("zzzzzzzzzzzzz"), None, "too large for 64 bits");
        assert_eq!(read_base36("A"), None, "upper case is no digit");
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut dice = Dice::new(1);
        assert_eq!(dice.roll(), 0x910A_2DEC_8902_5CC1);
        assert_eq!(Dice::new(7).id(), Dice::new(7).id());
        assert_ne!(Dice::of_text("tok_a").roll(), Dice::of_text("tok_b").roll());
    }
}
