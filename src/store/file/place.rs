//! Where a database really is: two names of one file are one database.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// How many links are followed before they are taken for a ring.
const MOST_LINKS: usize = 40;

/// The file behind every link in `path`, whether it exists yet or not; its directory must.
pub(in crate::store) fn real(path: &Path) -> Result<PathBuf, StoreError> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = directory.canonicalize().map_err(|source| StoreError::File {
            path: directory.to_owned(),
            what: "is the directory that database.path names; it cannot be used",
            source,
        })?;
        let here = directory.join(path.file_name().unwrap_or_default());
        match std::fs::read_link(&here) {
            // A link's target counts from the link's own directory.
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(here),
        }
    }
    let source = std::io::Error::other("it is a ring of links");
    Err(StoreError::File { path, what: "cannot be followed", source })
}

/// The name of a file beside `path`: `DATABASE` and the suffix.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How a file of ours is opened in a directory where others may put names: no link is followed, and no pipe is waited for.
pub(in crate::store) const NO_LINKS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Tells a file of ours from what somebody else may have put under its name: root must not write to, nor give away, whatever a link
/// leads to.
///
/// # Errors
/// It is no regular file, or has a second name.
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

/// The same in words, where the kernel would not open it.
pub(in crate::store) fn in_words(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) => {
            io::Error::other("it is a symbolic link, and links are not followed here; remove it")
        }
        _ => error,
    }
}

/// Gives an open file to `owner` where it belongs to somebody else.
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
    fn every_name_of_a_file_leads_to_one_place_before_it_exists_and_after() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().canonicalize().unwrap().join(name);
        symlink("second", at("first")).unwrap();
        symlink(at("file"), at("second")).unwrap();
        assert_eq!(real(&at("first")).unwrap(), at("file"), "nobody made it yet");
        std::fs::write(at("file"), "").unwrap();
        for name in ["first", "second", "file"] {
            assert_eq!(real(&at(name)).unwrap(), at("file"));
        }
        symlink("ring", at("ring")).unwrap();
        assert!(real(&at("ring")).unwrap_err().to_string().contains("cannot be followed"));
    }
}
