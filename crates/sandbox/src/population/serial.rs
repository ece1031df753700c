//! The bijection between the number of a seeded customer and its id.

use crate::random::DIGITS;

/// Maps 64 bits to 64 bits, bijectively (the finaliser of SplitMix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Inverts [`mix`].
pub(crate) fn unmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42B2_D24D_8EC3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96DE_1B17_3F11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}

/// Appends the lowest `digits` digits of `value` in base 36.
pub(crate) fn push_base36(text: &mut String, mut value: u64, digits: usize) {
    let mut reversed = [b'0'; 13];
    for digit in &mut reversed[..digits] {
        *digit = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    text.extend(reversed[..digits].iter().rev().map(|&digit| char::from(digit)));
}

/// Reads a number in base 36, with letters in lower case, if it fits into 64 bits.
pub(crate) fn read_base36(text: &str) -> Option<u64> {
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
    fn unmix_inverts_mix() {
        for x in [0, 1, 2, 255, 1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(unmix(mix(x)), x);
        }
    }

    #[test]
    fn number_in_base_36_reads_back() {
        for value in [0, 35, 36, 1 << 50, u64::MAX] {
            let mut text = String::new();
            push_base36(&mut text, value, 13);
            assert_eq!(text.len(), 13);
            assert_eq!(read_base36(&text), Some(value));
        }
        assert_eq!(read_base36("zzzzzzzzzzzzz"), None, "too large for 64 bits");
        assert_eq!(read_base36("A"), None, "upper case is no digit");
    }
}
