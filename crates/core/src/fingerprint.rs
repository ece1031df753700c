//! The fingerprint of a customer's text: the same text has the same one.

use sha2::{Digest as _, Sha256};

/// The first half of the SHA-256 of a listed customer's text. No other text with the same one can be made on purpose.
pub type Fingerprint = [u8; 16];

/// Identifies a text.
pub(super) fn fingerprint(text: &[u8]) -> Fingerprint {
    let hash: [u8; 32] = Sha256::digest(text).into();
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(&hash[..16]);
    fingerprint
}
