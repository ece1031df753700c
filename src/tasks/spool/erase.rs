//! An erased customer's values in the files of the spool door.
//!
//! Receipts are ours: those that name an intent which lost its content are written anew from what the outbox says now. What was
//! refused lies in `rejected/` as others wrote it: a copy that is about this customer alone goes, with its `.error`. A file that is
//! about others too, that waits to be taken, or that cannot be read is left and named, for a person; nothing that somebody else may
//! still need is taken away here.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::directories::{self, CLAIMED, RECEIPTS, REJECTED};
use super::file::{self, Opened};
use super::folder::Folder;
use super::papers::{self, ERROR};
use crate::secret::Masker;
use crate::store::outbox::{erase, spool};
use crate::store::{StoreError, Tx};
use komoju_core::{Searched, Traces};

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
    let spool = match dir.try_exists() {
        Ok(false) => None,
        _ => match directories::open_owned(dir, Path::new(tx.path().unwrap_or_default())) {
            Ok(spool) => Some(spool),
            Err(why) => {
                papers.leave(traces, dir, &why);
                None
            }
        },
    };
    let mut below = |name: &str| {
        let opened = spool.as_ref().map_or(Ok(None), |spool| directories::open_below(spool, name));
        opened.unwrap_or_else(|why| {
            papers.leave(traces, &dir.join(name), &why);
            None
        })
    };
    let [receipts, rejected, claimed] = [RECEIPTS, REJECTED, CLAIMED].map(&mut below);
    erase_receipts(tx, receipts.as_ref(), traces, &mut papers)?;
    if let Some(rejected) = &rejected {
        erase_rejected(tx, rejected, traces, &mut papers)?;
    }
    if let Some(spool) = &spool {
        let why = "it names this customer and waits to be taken: remove it unless it shall be taken";
        name_all(tx, spool, traces, why, &mut papers)?;
    }
    if let Some(claimed) = &claimed {
        let why = "it names this customer, and its acceptance has begun: erase again after it";
        for folder in folders(claimed, traces, &mut papers) {
            name_all(tx, &folder, traces, why, &mut papers)?;
        }
        name_all(tx, claimed, traces, why, &mut papers)?;
    }
    Ok(papers)
}

/// Names the files of a folder that hold this customer; they stay.
fn name_all(
    tx: &Tx<'_>,
    folder: &Folder,
    traces: &Traces,
    why: &str,
    papers: &mut Papers,
) -> Result<(), StoreError> {
    for name in files(folder, traces, papers) {
        if let Some(text) = searched(folder, &name, traces, papers)
            && (traces.id_in(&text) || holds(tx, traces, &text)?)
        {
            papers.leave(traces, &folder.path_of(&name), why);
        }
    }
    Ok(())
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

fn erase_receipts(
    tx: &Tx<'_>,
    receipts: Option<&Folder>,
    traces: &Traces,
    papers: &mut Papers,
) -> Result<(), StoreError> {
    let masker = Masker::default();
    for (name, is_theirs) in spool::of_erased(tx)? {
        let Some(receipt) = spool::receipt(tx, &name)? else { continue };
        let mut text = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = papers::render(&masker, &receipt, &mut text);
        let is_removed = holds(tx, traces, &Searched::new(&text))? && is_theirs;
        if is_removed {
            // Its very name says who it was.
            spool::forget(tx, &name)?;
        }
        let Some(receipts) = receipts else { continue };
        let file = papers::receipt_name(&name);
        if receipts.metadata_of(&file).is_err() {
            continue;
        }
        let path = receipts.path_of(&file);
        if is_removed {
            match papers::remove_receipt(receipts, &name) {
                Ok(()) => papers.removed += 1,
                Err(error) => papers.leave_for(traces, &path, "this receipt cannot be removed", &error),
            }
        } else {
            match papers::write_receipt(receipts, &masker, &receipt) {
                Ok(()) => papers.rewritten += 1,
                Err(error) => papers.leave_for(traces, &path, "this receipt cannot be written anew", &error),
            }
        }
    }
    let Some(receipts) = receipts else { return Ok(()) };
    for name in files(receipts, traces, papers) {
        if let Some(text) = searched(receipts, &name, traces, papers)
            && holds(tx, traces, &text)?
        {
            let why = "it is the receipt of others' intents too, and holds a value of this customer";
            papers.leave(traces, &receipts.path_of(&name), why);
        }
    }
    Ok(())
}

fn erase_rejected(
    tx: &Tx<'_>,
    rejected: &Folder,
    traces: &Traces,
    papers: &mut Papers,
) -> Result<(), StoreError> {
    let mut removed = false;
    for name in files(rejected, traces, papers) {
        // It goes or stays with its copy, which sorts before it.
        let Some(text) = searched(rejected, &name, traces, papers) else { continue };
        let path = rejected.path_of(&name);
        let is_only_theirs = is_only_theirs(rejected, &name, traces);
        if !traces.id_in(&text) && !holds(tx, traces, &text)? && !is_only_theirs {
            continue;
        }
        if !is_only_theirs {
            let why = "it was refused, names this customer, and may be about others too: look, and remove it by hand";
            papers.leave(traces, &path, why);
            continue;
        }
        let mut told = name.clone();
        told.push(ERROR);
        match rejected.remove(&name).and_then(|()| rejected.remove(&told)) {
            Ok(()) => papers.removed += 1,
            Err(error) => papers.leave_for(traces, &path, "it was refused, and cannot be removed", &error),
        }
        removed = true;
    }
    if removed && let Err(error) = rejected.sync() {
        let what = "files were removed from it, and that may not be lasting";
        papers.leave_for(traces, rejected.path(), what, &error);
    }
    Ok(())
}

/// The content of a file; an error says why it has none that could be searched.
fn content(folder: &Folder, name: &OsStr) -> Result<Option<Vec<u8>>, String> {
    let Some(name) = name.to_str() else { return Err("has a name that is not UTF-8".to_owned()) };
    match file::open(folder, name) {
        Opened::Gone => Ok(None),
        Opened::Left(why) => Err(why),
        Opened::Plain(plain) => match plain.read() {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err("is being written to".to_owned()),
            Err(error) => Err(format!("cannot be read: {error}")),
        },
    }
}

/// Whether every intent in a refused file is for this customer.
fn is_only_theirs(folder: &Folder, name: &OsStr, traces: &Traces) -> bool {
    let Ok(Some(bytes)) = content(folder, name) else { return false };
    match Path::new(name).extension().is_some_and(|extension| extension == "jsonl") {
        false => traces.is_only_theirs(&bytes),
        true => {
            let lines = bytes.split(|byte| *byte == b'\n');
            let mut lines = lines.filter(|line| !line.trim_ascii().is_empty()).peekable();
            lines.peek().is_some() && lines.all(|line| traces.is_only_theirs(line))
        }
    }
}

fn holds(tx: &Tx<'_>, traces: &Traces, text: &Searched) -> Result<bool, StoreError> {
    traces.value_in(text, |value| erase::is_rare(tx, value))
}

/// A file's name and content; `None` for one that is gone, or that is left because it cannot be read.
fn searched(folder: &Folder, name: &OsStr, traces: &Traces, papers: &mut Papers) -> Option<Searched> {
    match content(folder, name) {
        Ok(bytes) => {
            let mut text = name.to_string_lossy().into_owned().into_bytes();
            text.push(b'\n');
            text.extend(bytes?);
            Some(Searched::new(&text))
        }
        Err(why) => {
            papers.leave(traces, &folder.path_of(name), &format!("it could not be searched: it {why}"));
            None
        }
    }
}

/// The folders in a folder. One that cannot be opened is left, and named.
fn folders(folder: &Folder, traces: &Traces, papers: &mut Papers) -> Vec<Folder> {
    // Of a folder that cannot be listed, `files` says so.
    let names = folder.names().unwrap_or_default();
    let opened = names.into_iter().filter_map(|name| match folder.folder(&name) {
        Ok(opened) => Some(opened),
        // Finished meanwhile; or a file, which is searched with the others.
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => None,
        Err(error) => {
            papers.leave_for(traces, &folder.path_of(&name), "its files could not be searched", &error);
            None
        }
    });
    opened.collect()
}

/// The files in a folder, by name, those that begin with a dot included.
fn files(folder: &Folder, traces: &Traces, papers: &mut Papers) -> Vec<OsString> {
    let list = || -> io::Result<Vec<OsString>> {
        let is_file = |name: &OsString| match folder.metadata_of(name) {
            Ok(found) => Ok(!found.is_dir()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let mut names = Vec::new();
        for name in folder.names()? {
            if is_file(&name)? {
                names.push(name);
            }
        }
        Ok(names)
    };
    list().unwrap_or_else(|error| {
        papers.leave_for(traces, folder.path(), "its files could not be searched", &error);
        Vec::new()
    })
}
