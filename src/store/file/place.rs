//! The paths of a database and the files next to it. Two names of one file are one database.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::store::StoreError;

/// URI_PATH holds the characters that must be encoded in the path of a URI.
const URI_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// MAX_LINKS controls how many links are followed before the path counts as a ring of links.
const MAX_LINKS: usize = 40;

/// Returns the file that `path` leads to through all links, whether it exists or not.
///
/// # Errors
/// Its directory cannot be used.
pub fn real(path: &Path) -> Result<PathBuf, StoreError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = directory(&path);
        let directory = directory.canonicalize().map_err(|source| StoreError::File {
            path: directory.to_owned(),
            what: "is the directory that database.path names; it cannot be used",
            source,
        })?;
        let here = directory.join(path.file_name().unwrap_or_default());
        match std::fs::read_link(&here) {
            // A link's target is relative to the link's directory.
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(here),
        }
    }
    let source = std::io::Error::other("it is a ring of links");
    Err(StoreError::File { path, what: "cannot be followed", source })
}

/// Returns the path of a file next to the database: `DATABASE` and the suffix.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the directory of the file that a path names.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in the directory of `path` durable.
pub(in crate::store) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// Returns the files in a directory whose names begin with `prefix`, by name.
pub fn files_in(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let named = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Returns the prefix of the names of files next to a database: its own name and a suffix.
pub fn prefix(database: &Path, suffix: &str) -> String {
    format!("{}{suffix}", database.file_name().unwrap_or_default().to_string_lossy())
}

/// Returns `first`, or `first` with a number after it, such that `is_taken` is false.
pub(in crate::store) fn free_name(first: PathBuf, is_taken: impl Fn(&Path) -> bool) -> PathBuf {
    let mut others = (2..).map(|n| sibling(&first, &format!("-{n}")));
    match is_taken(&first) {
        true => others.find(|name| !is_taken(name)).unwrap_or(first),
        false => first,
    }
}

/// Returns a path as one argument of a shell command, quoted where necessary.
pub fn for_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Returns the name by which SQLite opens a file with these parameters
/// (<https://www.sqlite.org/uri.html>).
pub(in crate::store) fn uri(path: &Path, parameters: &str) -> String {
    let encoded = percent_encode(path.as_os_str().as_bytes(), URI_PATH);
    format!("file:{encoded}?{parameters}")
}

/// The flags for opening a file of ours in a directory where other users may create names: follow
/// no link, and wait for no pipe.
pub(in crate::store) const NO_LINKS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Opens a file of ours for reading, in a directory where other users may create names.
///
/// # Errors
/// As [`must_be_plain`]; or the file cannot be opened.
pub(in crate::store) fn open_plain(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NO_LINKS).open(path).map_err(explain_link)?;
    must_be_plain(&file).map(|_| file)
}

/// Distinguishes a file of ours from one that another user put under its name. Root must not write
/// to the target of a link, nor change its owner.
///
/// # Errors
/// The file is not a regular file, or has a second name.
pub(in crate::store) fn must_be_plain(file: &File) -> io::Result<Metadata> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file; remove it"));
    }
    if found.nlink() != 1 {
        return Err(io::Error::other("it is a file with a second name (a hard link); remove it"));
    }
    Ok(found)
}

/// Explains the error of the kernel for a symbolic link.
pub(in crate::store) fn explain_link(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) => {
            io::Error::other("it is a symbolic link, and links are not followed here; remove it")
        }
        _ => error,
    }
}

/// Changes the owner of an open file to `owner`, where it is another one.
pub(in crate::store) fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    match (now.uid(), now.gid()) == (owner.uid(), owner.gid()) {
        true => Ok(()),
        false => fchown(file, Some(owner.uid()), Some(owner.gid())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_one_file_resolve_to_one_path_before_and_after_it_exists() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().canonicalize().unwrap().join(name);
        symlink("second", at("first")).unwrap();
        symlink(at("file"), at("second")).unwrap();
        assert_eq!(real(&at("first")).unwrap(), at("file"), "before it exists");
        std::fs::write(at("file"), "").unwrap();
        for name in ["first", "second", "file"] {
            assert_eq!(real(&at(name)).unwrap(), at("file"));
        }
        symlink("ring", at("ring")).unwrap();
        assert!(real(&at("ring")).unwrap_err().to_string().contains("cannot be followed"));
    }

    #[test]
    fn path_with_special_characters_is_quoted_for_a_shell() {
        assert_eq!(for_shell(Path::new("/a/b-1.db")), "/a/b-1.db");
        assert_eq!(for_shell(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
