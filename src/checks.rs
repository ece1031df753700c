//! What always holds of what comes from outside, whatever it is: shared by the tests here and the
//! fuzzers in `fuzz/`.
//!
//! Each function takes the bytes of one kind, puts them through the product's own reader, and
//! panics where something does not hold: what is taken means what was written and can be used; what
//! is refused is told in words; no secret is in what is told. That nothing panics by itself, and
//! that neither time nor memory runs away, is what calling them shows.

use crate::remote::client::checks as answers;
use crate::{config, tasks};

/// A page of the customers list; or one customer.
///
/// # Panics
/// Something does not hold.
pub fn page(bytes: &[u8]) {
    answers::page(bytes);
    answers::customer(bytes);
}

/// An error answer: three digits, its HTTP status, and its body.
///
/// # Panics
/// Something does not hold.
pub fn error(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_at_checked(3) else { return };
    let status = str::from_utf8(status).ok().and_then(|status| status.parse().ok());
    if let Some(status) = status.filter(|status| (100..1000).contains(status)) {
        answers::error(status, body);
    }
}

/// `Retry-After`, and on a second line the server's `Date`.
///
/// # Panics
/// Something does not hold.
pub fn retry_after(bytes: &[u8]) {
    answers::retry_after(bytes);
}

/// A file of the spool directory, as one intent and as one a line.
///
/// # Panics
/// Something does not hold.
pub fn spool(bytes: &[u8]) {
    tasks::spool::checks::file(bytes);
}

/// A configuration; and the same text as a cron expression.
///
/// # Panics
/// Something does not hold.
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

    /// What formats are made of, and what they must not be mistaken for.
    #[rustfmt::skip]
    const PIECES: [&str; 40] = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\n", " ", "0", "-1", "1e9", "null", "true", "\\u0024", "\\ud800", "\u{feff}", "\0",
        "\u{202e}", "é", "\"id\":", "\"data\":", "\"error\":{\"message\":\"", "\"op\":\"create\"", "\"customer_id\":\"@a\"",
        "\"body\":{", "\"payment_details\":", "\"metadata\":{", "\"expect\":{", "\"$serde_json::private::Number\":\"1\"",
        "\"$serde_json::private::RawValue\":\"[1]\"", "tok_abc", "4111111111111111", "sk_test_9aQ+x/Zr7", "= '''", "[api]\n", "*/7",
        "GMT", "1979-05-27",
    ];

    /// The seeds of a target, among them what it once failed on. They are in the repository; a
    /// package leaves `fuzz/` out.
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
    fn every_seed_holds() {
        for (target, check) in TARGETS {
            seeds(target).iter().for_each(|seed| check(seed));
        }
    }

    #[test]
    fn what_is_nested_without_end_is_refused_and_no_crash() {
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
    fn one_long_line_of_anything_is_judged_in_time() {
        // Seconds at most; minutes, where each character looks back at all before it.
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
        fn any_pieces_in_any_order_hold(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24)) {
            TARGETS.iter().for_each(|(_, check)| check(pieces.concat().as_bytes()));
        }

        #[test]
        fn a_seed_that_was_spoilt_holds(
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
