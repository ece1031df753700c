//! An erased customer's values in the files of the spool door.
//!
//! Receipts are ours: those that name an intent which lost its content are written anew from what the outbox says now. What was
//! refused lies in `rejected/` as others wrote it: a copy that is about this customer alone goes, with its `.error`. A file that is
//! about others too, that waits to be taken, or that cannot be read is left and named, for a person; nothing that somebody else may
//! still need is taken away here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use super::file::{self, Opened, RECEIPTS, REJECTED};
use super::papers;
use crate::mask::Masker;
use crate::model::{Searched, Traces};
use crate::store::{StoreError, Tx, erase, spool};

/// What became of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    /// How many were removed.
    pub removed: u64,
    /// How many receipts were written anew.
    pub rewritten: u64,
    /// Those that a person must look at, with the reason; values in their names are hidden.
    pub left: Vec<(PathBuf, String)>,
}

/// Takes the customer out of the files below `spool`, within the transaction that erased it: so no value is forgotten before it was
/// looked for. What the file system refuses is in [`Papers::left`].
///
/// # Errors
/// The database failed.
pub fn erase(tx: &Tx<'_>, dir: &Path, traces: &Traces) -> Result<Papers, StoreError> {
    let mut papers = Papers::default();
    receipts(tx, dir, traces, &mut papers)?;
    rejected(tx, dir, traces, &mut papers)?;
    let waits = "it names this customer and waits to be taken: remove it unless it shall be taken";
    for path in files(dir, traces, &mut papers) {
        if let Some(text) = searched(&path, traces, &mut papers)
            && (traces.id_in(&text) || holds(tx, traces, &text)?)
        {
            papers.leave(traces, &path, waits);
        }
    }
    Ok(papers)
}

impl Papers {
    fn leave(&mut self, traces: &Traces, path: &Path, why: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.left.push((path.with_file_name(traces.hidden(&name)), why.to_owned()));
    }

    fn leave_for(&mut self, traces: &Traces, path: &Path, what: &str, error: &io::Error) {
        self.leave(traces, path, &format!("{what}: {error}; {}", file::advice(error)));
    }
}

fn receipts(tx: &Tx<'_>, dir: &Path, traces: &Traces, papers: &mut Papers) -> Result<(), StoreError> {
    let masker = Masker::default();
    for (name, is_theirs) in spool::of_erased(tx)? {
        let path = dir.join(RECEIPTS).join(papers::receipt_name(&name));
        let Some(receipt) = spool::receipt(tx, &name)? else { continue };
        let text = Searched::new(papers::rendered(&masker, &receipt).as_bytes());
        if holds(tx, traces, &text)? && is_theirs {
            // Its very name says who it was.
            spool::forget(tx, &name)?;
            match fs::symlink_metadata(&path).and_then(|_| papers::remove_receipt(dir, &name)) {
                Ok(()) => papers.removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => papers.leave_for(traces, &path, "this receipt cannot be removed", &error),
            }
        } else if fs::symlink_metadata(&path).is_ok() {
            match papers::write_receipt(dir, &masker, &receipt).and_then(|()| hand_over(&path)) {
                Ok(()) => papers.rewritten += 1,
                Err(error) => papers.leave_for(traces, &path, "this receipt cannot be written anew", &error),
            }
        }
    }
    for path in files(&dir.join(RECEIPTS), traces, papers) {
        if let Some(text) = searched(&path, traces, papers)
            && holds(tx, traces, &text)?
        {
            papers.leave(
                traces,
                &path,
                "it is the receipt of others' intents too, and holds a value of this customer",
            );
        }
    }
    Ok(())
}

/// What root writes belongs to the daemon all the same.
fn hand_over(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let (directory, file) = (fs::metadata(directory)?, fs::symlink_metadata(path)?);
    match (directory.uid(), directory.gid()) == (file.uid(), file.gid()) {
        true => Ok(()),
        false => lchown(path, Some(directory.uid()), Some(directory.gid())),
    }
}

fn rejected(tx: &Tx<'_>, dir: &Path, traces: &Traces, papers: &mut Papers) -> Result<(), StoreError> {
    let rejected = dir.join(REJECTED);
    let mut removed = false;
    for path in files(&rejected, traces, papers) {
        // It goes or stays with its copy, which sorts before it.
        let Some(text) = searched(&path, traces, papers) else { continue };
        if !traces.id_in(&text) && !holds(tx, traces, &text)? && !is_only_theirs(&path, traces) {
            continue;
        }
        if !is_only_theirs(&path, traces) {
            let why = "it was refused, names this customer, and may be about others too: look, and remove it by hand";
            papers.leave(traces, &path, why);
            continue;
        }
        let mut told = path.clone().into_os_string();
        told.push(".error");
        match file::remove(&path).and_then(|()| file::remove(Path::new(&told))) {
            Ok(()) => papers.removed += 1,
            Err(error) => papers.leave_for(traces, &path, "it was refused, and cannot be removed", &error),
        }
        removed = true;
    }
    if removed && let Err(error) = file::sync(&rejected) {
        papers.leave_for(
            traces,
            &rejected,
            "files were removed from it, and that may not be lasting",
            &error,
        );
    }
    Ok(())
}

/// Whether every intent in a refused file is for this customer.
fn is_only_theirs(path: &Path, traces: &Traces) -> bool {
    let Opened::Whole(content) = file::open(path) else { return false };
    match path.extension().is_some_and(|extension| extension == "jsonl") {
        false => traces.is_only_theirs(&content.bytes),
        true => {
            let lines = content.bytes.split(|byte| *byte == b'\n');
            let mut lines = lines.filter(|line| !line.trim_ascii().is_empty()).peekable();
            lines.peek().is_some() && lines.all(|line| traces.is_only_theirs(line))
        }
    }
}

fn holds(tx: &Tx<'_>, traces: &Traces, text: &Searched) -> Result<bool, StoreError> {
    traces.value_in(text, |value| erase::is_rare(tx, value))
}

/// A file's name and content; `None` for one that is gone, or that is left because it cannot be read.
fn searched(path: &Path, traces: &Traces, papers: &mut Papers) -> Option<Searched> {
    match file::open(path) {
        Opened::Whole(content) => {
            let mut text = path.file_name().unwrap_or_default().to_string_lossy().into_owned().into_bytes();
            text.push(b'\n');
            text.extend(content.bytes);
            Some(Searched::new(&text))
        }
        Opened::Gone => None,
        Opened::Changing => {
            papers.leave(traces, path, "it is being written to, and could not be searched");
            None
        }
        Opened::Left(why) => {
            papers.leave(traces, path, &format!("it could not be searched: it {why}"));
            None
        }
    }
}

/// The files in a directory, by name, those that begin with a dot included. A directory that is not there has none.
fn files(dir: &Path, traces: &Traces, papers: &mut Papers) -> Vec<PathBuf> {
    let list = || -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name());
            }
        }
        names.sort();
        Ok(names)
    };
    match list() {
        Ok(names) => names.into_iter().map(|name| dir.join(name)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            papers.leave_for(traces, dir, "its files could not be searched", &error);
            Vec::new()
        }
    }
}
