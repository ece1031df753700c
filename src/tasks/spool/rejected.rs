//! The directory `rejected/`: masked copies of refused files and of bytes that arrived after the
//! reading, each with an `.error` file.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;

use super::folder::Folder;
use super::redact::{FileFormat, redact};
use crate::secret::Masker;
use crate::store::outbox::spool::{BadLine, BadLines};

/// LONGEST_LIST limits the sentences about lines in an `.error` file, in bytes. Further lines are
/// counted.
const LONGEST_LIST: usize = 32 * 1024;

/// ERROR is the ending of the file that explains a copy.
pub(super) const ERROR: &str = ".error";

/// LATE is the explanation of bytes that arrived after the reading.
pub(super) const LATE: &str = "These bytes arrived after the file was read, and nothing of them was accepted. To have them accepted, drop them \
                    as a file of another name. A program that adds to a file in place should write another file and rename it into \
                    the spool directory when it is complete.\n";

/// Writes a masked copy and its explanation. Returns the copy's name.
///
/// A copy of the same content is replaced and gets the modification time `now`. This happens after
/// a crash, because the same file is then refused again.
pub(super) fn keep(
    rejected: &Folder,
    masker: &Masker,
    now: Timestamp,
    name: &str,
    bytes: &[u8],
    format: FileFormat,
    explanation: &str,
) -> io::Result<String> {
    let modified = UNIX_EPOCH + Duration::from_secs(now.as_second().unsigned_abs());
    let redacted = |out: &mut dyn Write| redact(masker, bytes, format, out);
    rejected.write_as(name, redacted, |temporary| {
        rejected.file(temporary)?.set_modified(modified)?;
        let copy = free_name(rejected, name, temporary)?;
        // Write the explanation before the copy gets its name, so that no copy is without one.
        rejected.write(&format!("{copy}{ERROR}"), |out| out.write_all(explanation.as_bytes()))?;
        Ok(copy)
    })
}

/// Returns a name for a copy: `name`, or `name` with a number. The name is unused, or belongs to a
/// copy with the same content.
fn free_name(rejected: &Folder, name: &str, copy: &str) -> io::Result<String> {
    const LONGEST: usize = 255 - ERROR.len();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut end = format!(".{extension}");
    for number in 2_u64.. {
        let candidate = format!("{}{end}", &stem[..stem.floor_char_boundary(LONGEST - end.len())]);
        match rejected.find(&candidate)? {
            None => return Ok(candidate),
            Some(there) if there.is_file() && rejected.is_same(&candidate, copy)? => return Ok(candidate),
            Some(_) => end = format!(".{number}.{extension}"),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes the copies that were written before `before`, each with its `.error`. Returns the files
/// that could not be removed.
///
/// The age of a copy is its modification time. [`keep`] sets it from the trusted clock, and it
/// survives a chown, a chmod, a hard link and a restored backup. Each of these renews the time of
/// change, which depends on a wall clock that may be wrong.
///
/// This program did not write a copy without `.error`, a file that is not regular, or a file of
/// another owner. So such a file is left. An `.error` without its copy is removed at the same age;
/// a crash between the two removals leaves one.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn remove_before(rejected: &Folder, before: Timestamp) -> io::Result<Vec<(OsString, io::Error)>> {
    let owner = rejected.metadata()?.uid();
    let ours =
        |name: &OsStr| rejected.metadata_of(name).ok().filter(|file| file.is_file() && file.uid() == owner);
    let is_old = |file: Metadata| file.mtime() < before.as_second();
    let mut old = Vec::new();
    rejected.each(|name, _| {
        let is_ours = || match name.as_bytes().strip_suffix(ERROR.as_bytes()) {
            None => ours(&error_of(name)).is_some(),
            Some(copy) => matches!(rejected.find(OsStr::from_bytes(copy)), Ok(None)),
        };
        if !name.as_bytes().starts_with(b".") && ours(name).is_some_and(is_old) && is_ours() {
            old.push(name.to_owned());
        }
    })?;
    let mut failed = Vec::new();
    for name in old {
        let mut removed = rejected.remove(&name);
        if !name.as_bytes().ends_with(ERROR.as_bytes()) {
            removed = removed.and_then(|()| rejected.remove(error_of(&name)));
        }
        failed.extend(removed.err().map(|error| (name, error)));
    }
    rejected.sync()?;
    Ok(failed)
}

/// Returns the name of the `.error` file of a copy.
pub(super) fn error_of(copy: &OsStr) -> OsString {
    OsString::from_vec([copy.as_bytes(), ERROR.as_bytes()].concat())
}

/// Returns the explanation of a refused file.
pub(super) fn sentences(masker: &Masker, name: &str, format: FileFormat, bad: &BadLines) -> String {
    let mut lines = String::new();
    let mut listed = 0;
    for bad in &bad.first {
        let sentence = sentence(masker, format, bad);
        if lines.len() + sentence.len() > LONGEST_LIST {
            break;
        }
        lines.extend([sentence.as_str(), "\n"]);
        listed += 1;
    }
    if bad.count > listed {
        lines.push_str(&format!("and {} more lines are wrong\n", bad.count - listed));
    }
    format!(
        "{} was refused, and nothing of it was accepted:\n{lines}Correct this and drop the file again. The copy beside this one \
         has its content; secrets are masked.\n",
        masker.name(name)
    )
}

/// Returns what is wrong with the first bad line.
pub(super) fn first_sentence(masker: &Masker, format: FileFormat, bad: &BadLines) -> String {
    bad.first.first().map(|bad| sentence(masker, format, bad)).unwrap_or_default()
}

/// Returns what is wrong with a line.
pub(super) fn sentence(masker: &Masker, format: FileFormat, bad: &BadLine) -> String {
    let words = masker.text(&bad.reason);
    match format {
        FileFormat::JsonLines if bad.number > 0 => format!("line {}: {words}", bad.number),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn aside(folder: &Folder, name: &str, bytes: &[u8]) -> String {
        let line = BadLine { number: 1, reason: "op: must be create, update or delete".to_owned() };
        let (masker, now) = (Masker::default(), Timestamp::UNIX_EPOCH);
        let bad = BadLines { first: vec![line], count: 1 };
        let explanation = sentences(&masker, name, FileFormat::JsonLines, &bad);
        keep(folder, &masker, now, name, bytes, FileFormat::JsonLines, &explanation).unwrap()
    }

    #[test]
    fn same_content_is_kept_once_and_another_gets_a_number() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert_eq!(aside(&folder, "a.json", b"two"), "a.2.json");
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert_eq!(aside(&folder, "a.json", b"two"), "a.2.json");
        assert_eq!(folder.names().unwrap(), ["a.2.json", "a.2.json.error", "a.json", "a.json.error"]);
        // An operator may remove the explanation.
        folder.remove("a.json.error").unwrap();
        assert_eq!(aside(&folder, "a.json", b"one"), "a.json");
        assert!(directory.path().join("a.json.error").exists());
    }

    #[test]
    fn names_are_numbered_and_fit() {
        let directory = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        fs::write(directory.path().join("a.json"), "").unwrap();
        fs::create_dir(directory.path().join("a.2.json")).unwrap();
        // Left by a crash before the copy got its name.
        fs::write(directory.path().join("a.3.json.error"), "").unwrap();
        assert_eq!(aside(&folder, "a.json", b"x"), "a.3.json");
        let long = aside(&folder, &format!("{}.jsonl", "顧".repeat(83)), b"x");
        assert!(long.len() + ERROR.len() <= 255 && long.ends_with("顧.jsonl"), "{long}");
    }

    #[test]
    fn error_file_is_short_for_any_number_of_wrong_lines() {
        let words = "顧".repeat(200);
        let mut bad = BadLines::default();
        (1..=40_000).for_each(|number| bad.push(BadLine { number, reason: words.clone() }));
        let text = sentences(&Masker::default(), "a.jsonl", FileFormat::JsonLines, &bad);
        assert!(text.len() < 34 * 1024, "{}", text.len());
        let listed = text.lines().filter(|line| line.starts_with("line ")).count();
        assert!(
            listed > 10 && text.contains(&format!("and {} more lines are wrong", 40_000 - listed)),
            "{text}"
        );
    }
}
