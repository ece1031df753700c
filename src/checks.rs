//! Properties that hold for all input from outside. The tests here and the fuzzers in `fuzz/` share
//! them.
//!
//! Each function reads the bytes of one kind with the product's own reader, and panics if a
//! property does not hold. Accepted input means what was written, and can be used. Refused input
//! has an error message. No result contains a secret. The call itself shows that no input causes a
//! panic, or takes too much time or memory.

use crate::remote::client::checks as answers;
use crate::{config, tasks};

/// Checks a page of the customers list, and the same bytes as one customer.
///
/// # Panics
/// A property does not hold.
pub fn page(bytes: &[u8]) {
    answers::page(bytes);
    answers::customer(bytes);
}

/// Checks an error answer: three digits for the HTTP status, then the body.
///
/// # Panics
/// A property does not hold.
pub fn error(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_at_checked(3) else { return };
    let status = str::from_utf8(status).ok().and_then(|status| status.parse().ok());
    if let Some(status) = status.filter(|status| (100..1000).contains(status)) {
        answers::error(status, body);
    }
}

/// Checks a `Retry-After` header, with the server's `Date` on the second line.
///
/// # Panics
/// A property does not hold.
pub fn retry_after(bytes: &[u8]) {
    answers::retry_after(bytes);
}

/// Checks a file of the spool directory, as one intent and as one intent a line.
///
/// # Panics
/// A property does not hold.
pub fn spool(bytes: &[u8]) {
    tasks::spool::checks::file(bytes);
}

/// Checks a configuration, and the same text as a cron expression.
///
/// # Panics
/// A property does not hold.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        config::checks::file(text);
        config::checks::cadence(text);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    type Check = fn(&[u8]);

    const TARGETS: [(&str, Check); 5] = [
        ("page", page),
        ("error", error),
        ("retry_after", retry_after),
        ("spool", spool),
        ("config", config),
    ];

    /// Pieces of the formats, and pieces that must not be mistaken for them.
    #[rustfmt::skip]
    const PIECES: [&str; 40] = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\n", " ", "0", "-1", "1e9", "null", "true", "\\u0024", "\\ud800", "\u{feff}", "\0",
        "\u{202e}", "é", "\"id\":", "\"data\":", "\"error\":{\"message\":\"", "\"op\":\"create\"", "\"customer_id\":\"@a\"",
        "\"body\":{", "\"payment_details\":", "\"metadata\":{", "\"expect\":{", "\"$serde_json::private::Number\":\"1\"",
        "\"$serde_json::private::RawValue\":\"[1]\"", "tok_abc", "4111111111111111", "sk_test_9aQ+x/Zr7", "= '''", "[api]\n", "*/7",
        "GMT", "1979-05-27",
    ];

    /// Returns the seeds of a target, with the inputs that failed once. They are in the repository;
    /// a package does not contain `fuzz/`.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let files = match fuzz.join("seeds").join(target).read_dir() {
            Err(_) if !fuzz.exists() => return vec![b"{}".to_vec()],
            files => files.unwrap(),
        };
        let seeds: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds
    }

    #[test]
    fn every_seed_has_the_properties() {
        for (target, check) in TARGETS {
            seeds(target).iter().for_each(|seed| check(seed));
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_a_crash() {
        let openings = [
            "[",
            "{\"a\":",
            "{\"body\":{\"metadata\":",
            "{\"data\":[",
            "{\"error\":",
            "a.",
            "a = [",
            "a = {b=",
            "*,",
        ];
        let befores = [
            "",
            "{\"data\":[{\"id\":\"a\",\"x\":",
            "{\"op\":\"create\",\"expect\":",
            "404",
            "a=",
            "secret = '",
        ];
        for opening in openings {
            for before in befores {
                let text = [before, &opening.repeat(8_000 / opening.len())].concat();
                TARGETS.iter().for_each(|(_, check)| check(text.as_bytes()));
            }
        }
    }

    #[test]
    fn long_line_is_checked_in_time() {
        // It takes seconds. It would take minutes if each character were compared with all before
        // it.
        let clock = SystemClock::new();
        for pattern in ["a = [", "=", "@", "a@ ", "tok_a ", "key=[\n", "\"\\", "4 ", "{\"a\":1E1,"] {
            let text = pattern.repeat(40_000 / pattern.len()) + "]";
            for (target, check) in TARGETS {
                check(text.as_bytes());
                assert!(clock.elapsed() < Duration::from_secs(60), "{target} of {pattern}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_pieces_in_any_order_have_the_properties(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24)) {
            TARGETS.iter().for_each(|(_, check)| check(pieces.concat().as_bytes()));
        }

        #[test]
        fn damaged_seed_has_the_properties(
            target in prop::sample::select(&TARGETS[..]),
            seed in any::<Index>(),
            edits in prop::collection::vec((any::<Index>(), 0..4_usize, prop::sample::select(&PIECES[..])), 1..4),
        ) {
            let (name, check) = target;
            let seeds = seeds(name);
            let mut bytes = seed.get(&seeds).clone();
            for (place, cut, piece) in edits {
                let at = place.index(bytes.len() + 1);
                let end = (at + cut).min(bytes.len());
                bytes.splice(at..end, piece.bytes());
            }
            check(&bytes);
        }
    }
}
