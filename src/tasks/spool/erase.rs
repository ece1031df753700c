//! Erases a customer's values from the files of the spool door.
//!
//! A receipt that names an erased intent is rewritten from the outbox. A copy in `rejected/` that
//! is about this customer alone is removed with its `.error`. A file is left and reported if it is
//! about other customers too, is not taken yet, or cannot be read. The operator must decide about
//! it.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::directories::{self, CLAIMED, RECEIPTS, REJECTED};
use super::file::{self, ReadError, advice};
use super::folder::Folder;
use super::{receipts, rejected};
use crate::secret::Masker;
use crate::store::outbox::{erase, spool};
use crate::store::{StoreError, Tx};
use komoju_core::{SearchText, Traces};

/// The files that an erasure changed or left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedFiles {
    /// The number of removed files.
    pub removed: u64,
    /// The number of rewritten receipts.
    pub rewritten: u64,
    /// The files that an operator must check, with the reason. Values in their names are hidden.
    pub left: Vec<(PathBuf, String)>,
}

/// Removes the customer from the files below `dir`, within the transaction that erases it. So no
/// value is forgotten before the files are searched for it. Failures of the file system are in
/// [`ErasedFiles::left`].
///
/// # Errors
/// The database failed.
pub fn erase(tx: &Tx<'_>, dir: &Path, traces: &Traces) -> Result<ErasedFiles, StoreError> {
    let mut eraser = Eraser { tx, traces, files: ErasedFiles::default() };
    let spool = match dir.try_exists() {
        Ok(false) => None,
        _ => directories::open_owned(dir, Path::new(tx.path().unwrap_or_default()))
            .map_err(|why| eraser.leave(dir, &why))
            .ok(),
    };
    let [receipts, rejected, claimed] = [RECEIPTS, REJECTED, CLAIMED].map(|name| {
        let opened = directories::open_below(spool.as_ref()?, name);
        opened.map_err(|why| eraser.leave(&dir.join(name), &why)).ok()?
    });
    eraser.rewrite_receipts(receipts.as_ref())?;
    if let Some(receipts) = &receipts {
        let why = "this receipt has intents of other customers too, and contains a value of this customer";
        eraser.report(receipts, why, |eraser, text| eraser.holds(text))?;
    }
    if let Some(rejected) = &rejected {
        eraser.erase_rejected(rejected)?;
    }
    if let Some(spool) = &spool {
        let why = "it names this customer and is not taken yet: remove it, or let the daemon take it";
        eraser.report(spool, why, Eraser::names)?;
    }
    if let Some(claimed) = &claimed {
        let why = "it names this customer and is being accepted: erase again afterwards";
        for name in eraser.names_in(claimed).1 {
            match claimed.folder(&name) {
                Ok(folder) => eraser.report(&folder, why, Eraser::names)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    eraser.leave_for(&claimed.path_of(&name), "its files could not be searched", &error);
                }
            }
        }
        eraser.report(claimed, why, Eraser::names)?;
    }
    Ok(eraser.files)
}

/// The erasure of one customer's values from the files.
struct Eraser<'a> {
    tx: &'a Tx<'a>,
    traces: &'a Traces,
    files: ErasedFiles,
}

impl Eraser<'_> {
    fn leave(&mut self, path: &Path, why: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.files.left.push((path.with_file_name(self.traces.masked(&name)), why.to_owned()));
    }

    fn leave_for(&mut self, path: &Path, what: &str, error: &io::Error) {
        self.leave(path, &format!("{what}: {error}; {}", advice(error)));
    }

    /// Returns whether a text contains a value that identifies the customer.
    fn holds(&self, text: &SearchText) -> Result<bool, StoreError> {
        self.traces.value_in(text, |value| erase::is_rare(self.tx, value))
    }

    /// Returns whether a text contains such a value, or the customer's id.
    fn names(&self, text: &SearchText) -> Result<bool, StoreError> {
        Ok(self.traces.id_in(text) || self.holds(text)?)
    }

    /// Reports the files of a folder for which `is_about` is true, and leaves them.
    fn report(
        &mut self,
        folder: &Folder,
        why: &str,
        is_about: impl Fn(&Self, &SearchText) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for name in self.names_in(folder).0 {
            if let Some((text, _)) = self.searched(folder, &name)
                && is_about(self, &text)?
            {
                self.leave(&folder.path_of(&name), why);
            }
        }
        Ok(())
    }

    /// Rewrites or removes the receipts of intents that were erased.
    fn rewrite_receipts(&mut self, receipts: Option<&Folder>) -> Result<(), StoreError> {
        let masker = Masker::default();
        for (name, is_only_about) in spool::of_erased(self.tx)? {
            let Some(receipt) = spool::receipt(self.tx, &name)? else { continue };
            let mut text = Vec::new();
            // Writing to a Vec cannot fail.
            let _ = receipts::render(&masker, &receipt, &mut text);
            let is_removed = is_only_about && self.holds(&SearchText::new(&text))?;
            if is_removed {
                // The receipt still contains a value, so the name of the file identifies the
                // customer.
                spool::forget(self.tx, &name)?;
            }
            let Some(folder) = receipts else { continue };
            let file = receipts::file_name(&name);
            if folder.metadata_of(&file).is_err() {
                continue;
            }
            let (done, what, count) = if is_removed {
                let removed = receipts::remove(folder, &name);
                (removed, "this receipt cannot be removed", &mut self.files.removed)
            } else {
                let written = receipts::write(folder, &masker, &receipt);
                (written, "this receipt cannot be rewritten", &mut self.files.rewritten)
            };
            match done {
                Ok(()) => *count += 1,
                Err(error) => self.leave_for(&folder.path_of(&file), what, &error),
            }
        }
        Ok(())
    }

    /// Removes the refused files that are about this customer alone. Reports the others that name
    /// this customer.
    fn erase_rejected(&mut self, folder: &Folder) -> Result<(), StoreError> {
        let mut is_changed = false;
        for name in self.names_in(folder).0 {
            // The `.error` of a removed copy is gone by now, because the copy sorts before it.
            let Some((text, content)) = self.searched(folder, &name) else { continue };
            let path = folder.path_of(&name);
            if is_only_about(&name, &content, self.traces) {
                is_changed = true;
                match folder.remove(&name).and_then(|()| folder.remove(rejected::error_of(&name))) {
                    Ok(()) => self.files.removed += 1,
                    Err(error) => self.leave_for(&path, "it was refused, and cannot be removed", &error),
                }
            } else if self.names(&text)? {
                let why = "it was refused, names this customer, and may be about others too: read it, and remove it by hand";
                self.leave(&path, why);
            }
        }
        if is_changed && let Err(error) = folder.sync() {
            let what = "files were removed from it, and a power cut may undo that";
            self.leave_for(folder.path(), what, &error);
        }
        Ok(())
    }

    /// Returns the name and content of a file as text to search, and the content. `None` if the
    /// file is gone, or cannot be read and is reported.
    fn searched(&mut self, folder: &Folder, name: &OsStr) -> Option<(SearchText, Vec<u8>)> {
        let why = match name.to_str().map(|text| file::open(folder, text).and_then(|opened| opened.read())) {
            None => "has a name that is not UTF-8".to_owned(),
            Some(Ok(content)) => {
                let text = [name.to_string_lossy().as_bytes(), b"\n", &content].concat();
                return Some((SearchText::new(&text), content));
            }
            Some(Err(ReadError::Gone)) => return None,
            Some(Err(ReadError::Changing)) => "is being written to".to_owned(),
            Some(Err(ReadError::Unfit(why))) => why,
            Some(Err(ReadError::Failed(error))) => format!("cannot be read: {error}"),
        };
        self.leave(&folder.path_of(name), &format!("it could not be searched: it {why}"));
        None
    }

    /// Returns the files in a folder, sorted by name, and the folders in it. Names that begin with
    /// a dot are included.
    fn names_in(&mut self, folder: &Folder) -> (Vec<OsString>, Vec<OsString>) {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        let listed = folder.each(|name, kind| match kind {
            FileType::Directory => folders.push(name.to_owned()),
            _ => files.push(name.to_owned()),
        });
        if let Err(error) = listed {
            self.leave_for(folder.path(), "its files could not be searched", &error);
        }
        files.sort();
        (files, folders)
    }
}

/// Returns whether every intent in a refused file is for this customer.
fn is_only_about(name: &OsStr, content: &[u8], traces: &Traces) -> bool {
    if Path::new(name).extension().is_none_or(|extension| extension != "jsonl") {
        return traces.is_only_about_customer(content);
    }
    let lines = content.split(|byte| *byte == b'\n');
    let mut lines = lines.filter(|line| !line.trim_ascii().is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| traces.is_only_about_customer(line))
}
