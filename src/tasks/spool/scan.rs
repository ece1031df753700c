//! Lists the spool directory: files that may be taken, and files that are skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, ErrorKind};

use rustix::fs::FileType;
use serde::Serialize;

use super::directories::{CLAIMED, Directories, RECEIPTS, REJECTED};
use super::file::{self, cannot, stamp};
use super::folder::Folder;
use super::redact::FileFormat;
use komoju_core::plan::spool::FoundFile;

/// MOST_NAMED limits the files that are reported by name. Further files are counted.
pub const MOST_NAMED: usize = 100;

const NOT_UTF_8: &str = "has a name that is not UTF-8: give it another";

pub(super) const NO_ENDING: &str = "must end in .json (one intent) or .jsonl (one a line): rename it";

const NO_CLAIM: &str =
    "is not a file that this program claimed: move it to the spool directory, or remove it";

/// A file that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedFile {
    /// Its name; the path if it is the directory itself.
    pub name: String,
    /// The reason and what to do, safe to show.
    pub why: String,
}

/// The files that are not taken: the first by name with the reason, the others as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedFiles {
    named: BTreeMap<String, String>,
    /// The number of further files.
    pub more: u64,
}

impl SkippedFiles {
    /// Adds a file.
    pub fn add(&mut self, name: &str, why: impl Into<String>) {
        self.named.insert(name.to_owned(), why.into());
        if self.named.len() > MOST_NAMED {
            self.named.pop_last();
            self.more += 1;
        }
    }

    /// Adds the files of an earlier scan that this one did not reach.
    pub(super) fn add_missing(&mut self, earlier: &Self) {
        for (name, why) in &earlier.named {
            if self.more == 0 && !self.named.contains_key(name) {
                self.add(name, why.as_str());
            }
        }
    }

    /// Returns why this file is skipped, if it is named.
    pub(super) fn why(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// Returns the named files, sorted by name.
    pub fn list(&self) -> Vec<SkippedFile> {
        self.named.iter().map(|(name, why)| SkippedFile { name: name.clone(), why: why.clone() }).collect()
    }
}

/// The result of listing. Skipped files beyond [`MOST_NAMED`] need no memory, because there may be
/// very many.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The claims, then the dropped files.
    pub(super) files: Vec<FoundFile>,
    pub(super) skipped: SkippedFiles,
}

/// Lists the claims and the dropped files. A directory that cannot be read is skipped.
pub(super) fn scan(at: &Directories) -> Scan {
    let mut skipped = SkippedFiles::default();
    let (mut files, mut dropped_files) = (Vec::new(), Vec::new());
    if let Err(error) = claims(&at.claimed, &mut skipped, &mut files) {
        skip_folder(&at.claimed, &error, &mut skipped);
    }
    let dropped = dropped(&at.spool, usize::MAX, &mut skipped, |name, found, _| {
        dropped_files.push(FoundFile { name, claim: None, stamp: stamp(found) });
    });
    match dropped {
        Ok(()) => files.append(&mut dropped_files),
        // Take no dropped file: without a complete list the order is not known.
        Err(error) => skip_folder(&at.spool, &error, &mut skipped),
    }
    Scan { files, skipped }
}

fn skip_folder(folder: &Folder, error: &io::Error, skipped: &mut SkippedFiles) {
    let path = folder.path().display().to_string();
    skipped.add(&path, cannot(&format!("outbound.spool_dir: {path} cannot be read"), error));
}

/// Lists the claimed files, and removes the directories of finished claims.
fn claims(claimed: &Folder, skipped: &mut SkippedFiles, files: &mut Vec<FoundFile>) -> io::Result<()> {
    let finished = each_claimed(claimed, skipped, |file, _, _| files.push(file))?;
    finished.iter().try_for_each(|id| claimed.remove_folder(id))
}

/// Calls `each` with the claimed files. Other files in `.claimed/` are skipped. Returns the
/// finished claims, which are empty directories.
pub(super) fn each_claimed(
    claimed: &Folder,
    skipped: &mut SkippedFiles,
    mut each: impl FnMut(FoundFile, &Metadata, &mut SkippedFiles),
) -> io::Result<Vec<OsString>> {
    let mut finished = Vec::new();
    for id in claimed.names()? {
        let claim = id.to_string_lossy().into_owned();
        let folder = match claimed.folder(&id) {
            Ok(folder) => folder,
            // The daemon finishes claims while `status` reads them.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                skipped.add(&format!("{CLAIMED}/{claim}"), NO_CLAIM);
                continue;
            }
            Err(error) => return Err(error),
        };
        let names = folder.names()?;
        if names.is_empty() {
            finished.push(id);
        }
        for name in names {
            let Some(found) = folder.find(&name)? else { continue };
            match name.to_str().filter(|name| ending(name).is_some()) {
                Some(text) => {
                    let (name, claim) = (text.to_owned(), Some(claim.clone()));
                    each(FoundFile { name, claim, stamp: stamp(&found) }, &found, skipped);
                }
                None => skipped.add(&format!("{CLAIMED}/{claim}/{}", name.display()), NO_CLAIM),
            }
        }
    }
    Ok(finished)
}

/// Returns why a claimed file is skipped, with its path.
pub(super) fn why_claimed(why: &str, file: &FoundFile) -> String {
    format!("{why}; it is in {}", file.path())
}

/// Calls `each` with the regular files in the spool directory that have the name of a dropped file.
/// Examines at most `most` names. Other files are skipped.
pub(super) fn dropped(
    spool: &Folder,
    most: usize,
    skipped: &mut SkippedFiles,
    mut each: impl FnMut(String, &Metadata, &mut SkippedFiles),
) -> io::Result<()> {
    let mut looked_at = 0;
    spool.each(|name, kind| {
        let shown = name.to_string_lossy();
        if !is_dropped(&shown) || looked_at == most {
            return;
        }
        looked_at += 1;
        if name.to_str().is_none() {
            skipped.add(&shown, NOT_UTF_8);
        } else if kind == FileType::RegularFile && ending(&shown).is_none() {
            // Do not read the metadata of these, because there may be very many.
            skipped.add(&shown, NO_ENDING);
        } else if let Ok(found) = spool.metadata_of(name) {
            match file::kind(&found) {
                Some(why) => skipped.add(&shown, why),
                None => each(shown.into_owned(), &found, skipped),
            }
        }
    })
}

/// Returns a name without its ending, and the format that the ending means.
pub(super) fn ending(name: &str) -> Option<(&str, FileFormat)> {
    match name.rsplit_once('.') {
        Some((stem, "json")) => Some((stem, FileFormat::Json)),
        Some((stem, "jsonl")) => Some((stem, FileFormat::JsonLines)),
        _ => None,
    }
}

/// Returns whether a dropped file can have this name: it is neither hidden nor one of our
/// directories.
pub(super) fn is_dropped(name: &str) -> bool {
    !name.starts_with('.') && ![RECEIPTS, REJECTED].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_an_unfinished_scan_did_not_reach_keep_their_reason() {
        let (mut earlier, mut skipped) = (SkippedFiles::default(), SkippedFiles::default());
        earlier.add("reached.json", "old reason");
        earlier.add("not-reached.json", "old reason");
        skipped.add("reached.json", "new reason");
        skipped.add_missing(&earlier);
        assert_eq!(skipped.why("reached.json"), Some("new reason"));
        assert_eq!(skipped.why("not-reached.json"), Some("old reason"));
    }

    #[test]
    fn claim_that_is_finished_during_the_scan_does_not_end_it() {
        let home = tempfile::TempDir::new().unwrap();
        for id in ["1", "2", "3"] {
            fs::create_dir(home.path().join(id)).unwrap();
            fs::write(home.path().join(id).join("a.json"), "{}").unwrap();
        }
        let (mut claims, mut skipped) = (Vec::new(), SkippedFiles::default());
        // The daemon finishes the second claim while the first one is read.
        let finished = each_claimed(&Folder::open(home.path()).unwrap(), &mut skipped, |file, _, _| {
            let _ = fs::remove_dir_all(home.path().join("2"));
            claims.push(file.claim.unwrap());
        });
        assert_eq!(finished.unwrap(), Vec::<OsString>::new());
        assert_eq!((claims, skipped.list()), (vec!["1".to_owned(), "3".to_owned()], Vec::new()));
    }
}
