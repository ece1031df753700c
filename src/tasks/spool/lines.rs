//! The content of a file: its intents, each with its id, and the errors.
//!
//! A file is parsed line by line and is never in memory as parsed values, because 16 MiB of text
//! become a gigabyte of values. Limits bound the memory of one line and the work of one file.

use sha2::{Digest as _, Sha256};

use super::redact::FileFormat;
use crate::store::outbox::spool::{BadLine, SpoolLine};
use komoju_core::intent::{Intent, IntentId};

/// MOST_LINES limits the lines of a `.jsonl`, blank ones included: all its intents are one
/// transaction.
pub(super) const MOST_LINES: usize = 50_000;

/// LONGEST_INTENT limits the text of one intent, in bytes, without white space around it. The API
/// takes far less; a parsed text needs many times its memory.
const LONGEST_INTENT: usize = 512 * 1024;

/// MOST_VALUES limits the values in one intent: each needs far more memory than its text. They are
/// counted by the commas between them.
const MOST_VALUES: usize = 100_000;

/// DIGEST_BYTES controls how many bytes of the content's digest are in an id that the file does not
/// set.
const DIGEST_BYTES: usize = 6;

/// Returns the first bytes of the content's SHA-256 in hex, for ids.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content)[..DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file, one line at a time, in order. `stem` is its name without the extension. `digest`
/// is the [`digest`] of its content.
pub(super) fn read<'a>(
    stem: &str,
    digest: &str,
    content: &'a [u8],
    format: FileFormat,
) -> Box<dyn Iterator<Item = Result<SpoolLine, BadLine>> + 'a> {
    let source = format!("{stem}@{digest}");
    let whole = |words: String| Box::new(std::iter::once(Err(BadLine { number: 0, reason: words })));
    if format == FileFormat::Json {
        return Box::new(std::iter::once_with(move || line(1, content, &source)));
    }
    let lines = count_lines(content);
    if lines > MOST_LINES {
        return whole(format!(
            "the file: has {lines} lines, and at most {MOST_LINES} are taken at once; split it into several files, or use \
             `komoju-sync intent import FILE`"
        ));
    }
    let texts = (1..).zip(content.split(|byte| *byte == b'\n'));
    let mut texts = texts.filter(|(_, text)| !text.trim_ascii().is_empty()).peekable();
    if texts.peek().is_none() {
        return whole("there is no intent in it".to_owned());
    }
    Box::new(texts.map(move |(number, text)| line(number, text, &format!("{source}:{number}"))))
}

/// Counts the lines. The last one may lack its line feed.
fn count_lines(content: &[u8]) -> usize {
    let ends = content.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(content.last().is_some_and(|last| *last != b'\n'))
}

fn line(number: u64, text: &[u8], id: &str) -> Result<SpoolLine, BadLine> {
    let intent = intent(text, id).map_err(|words| BadLine { number, reason: words })?;
    Ok(SpoolLine { number, intent })
}

fn intent(text: &[u8], id: &str) -> Result<Intent, String> {
    if text.trim_ascii().len() > LONGEST_INTENT {
        return Err(format!("the intent: must have at most {} KiB of JSON", LONGEST_INTENT / 1024));
    }
    if text.iter().filter(|byte| **byte == b',').count() >= MOST_VALUES {
        return Err(format!("the intent: must have at most {MOST_VALUES} values"));
    }
    let mut intent = Intent::from_bytes(text).map_err(|bad| bad.to_string())?;
    if intent.id.is_none() {
        let id = IntentId::new(id).map_err(|bad| {
            format!("{bad}; it was made of the file's name: give the file another name, or each intent an id")
        })?;
        intent.id = Some(id);
    }
    Ok(intent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = r#"{"op":"create","body":{"email":"a@example.jp"}}"#;

    #[test]
    fn lines_are_counted_with_and_without_a_last_line_feed() {
        for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(count_lines(text.as_bytes()), lines, "{text:?}");
        }
    }

    #[test]
    fn file_with_too_many_lines_is_one_bad_line() {
        let fits = format!("{CREATE}\n").repeat(MOST_LINES);
        assert_eq!(
            read("a", "0", fits.as_bytes(), FileFormat::JsonLines).filter(Result::is_ok).count(),
            MOST_LINES
        );
        let read: Vec<_> = read("a", "0", format!("{fits}\n").as_bytes(), FileFormat::JsonLines).collect();
        let [Err(BadLine { number: 0, reason: words })] = read.as_slice() else {
            panic!("{} lines", read.len())
        };
        assert!(words.contains("has 50001 lines") && words.contains("intent import"), "{words}");
    }

    #[test]
    fn intent_that_is_too_long_is_refused_without_counting_white_space() {
        let padded = format!("{CREATE}{}", " ".repeat(2 * LONGEST_INTENT));
        assert!(intent(padded.as_bytes(), "a").is_ok());
        let long = CREATE.replace("a@", &format!("{}@", "a".repeat(LONGEST_INTENT)));
        assert!(intent(long.as_bytes(), "a").unwrap_err().contains("at most 512 KiB"));
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES));
        assert!(intent(many.as_bytes(), "a").unwrap_err().contains("at most 100000 values"));
    }

    #[test]
    fn intent_of_exactly_the_longest_size_is_accepted() {
        let filler = LONGEST_INTENT - CREATE.len();
        let fits = CREATE.replacen(',', &format!(",{}", " ".repeat(filler)), 1);
        assert!(intent(fits.as_bytes(), "a").is_ok());
        let too_long = fits.replacen(' ', "  ", 1);
        assert!(intent(too_long.as_bytes(), "a").unwrap_err().contains("at most 512 KiB"));
    }
}
