//! The processes that read the database, and so keep old pages of it in the WAL.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::processes;
use crate::store::{Instance, sibling};

/// Returns the processes that read the database at `path` now, as `name (process N)`. This process
/// and the one that works on the database are left out, because their transactions are short.
pub fn of(path: &Path) -> Vec<String> {
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    let Ok(shm) = std::fs::metadata(sibling(&real, "-shm")) else { return Vec::new() };
    let instance = Instance::holder(path).ok().flatten().and_then(|holder| holder.process);
    let is_ours = |process: &u32| *process == std::process::id() || Some(*process) == instance;
    let readers = processes::readers(shm.ino()).into_iter().filter(|process| !is_ours(process));
    readers.map(processes::named).collect()
}

/// Returns why the WAL cannot be emptied, as a sentence.
pub fn sentence(path: &Path) -> String {
    match of(path).as_slice() {
        [] => "a process of another user reads the database, or did until now".to_owned(),
        readers => {
            format!(
                "{} reads an old state of the database; end that transaction or program",
                readers.join(" and ")
            )
        }
    }
}
