//! The signature of a delivery.

use std::fmt::Write as _;

use ring::hmac;

/// Returns the HMAC-SHA256 of a body in lower-case hexadecimal digits.
pub(super) fn of(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    tag.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 2 of RFC 4231.
    #[test]
    fn signature_is_the_hmac_of_the_standard() {
        assert_eq!(
            of("Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
