//! The fingerprint of a customer's text. Equal texts have equal fingerprints.

use sha2::{Digest as _, Sha256};

/// The first half of the SHA-256 of a listed customer's text. Another text with the same
/// fingerprint cannot be constructed on purpose.
pub type Fingerprint = [u8; 16];

/// Computes the fingerprint of a text.
pub(super) fn fingerprint(text: &[u8]) -> Fingerprint {
    let hash: [u8; 32] = Sha256::digest(text).into();
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(&hash[..16]);
    fingerprint
}
