//! The files on a watched disk: their synced content, and the changes since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::image::{Image, Stored};

/// All disks that are watched in this process.
static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// An operation on a file or its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Bytes were written.
    Write,
    /// The file became shorter.
    Truncate,
    /// The file was synced.
    Sync,
    /// The file's name was removed.
    Delete,
}

/// The effect of `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// As the program sets it.
    AsAsked,
    /// Always NORMAL: for the control, which must lose something.
    Normal,
}

/// A change of a file since its last sync.
#[derive(Debug)]
pub(crate) enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

type Observer = Box<dyn Fn(&Disk, Operation) + Send + Sync>;

/// The files of one directory.
pub struct Disk {
    root: PathBuf,
    synchronous: Synchronous,
    state: Mutex<State>,
    observer: OnceLock<Observer>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Stored>,
    is_cut: bool,
}

impl Disk {
    /// Watches the files in `root`, also later ones. Existing content counts as synced.
    pub fn watch(root: &Path, synchronous: Synchronous) -> Arc<Self> {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let disk = Arc::new(Self { root, synchronous, state: Mutex::default(), observer: OnceLock::new() });
        DISKS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&disk));
        disk
    }

    /// Stops watching. Open files stay watched.
    pub fn forget(&self) {
        DISKS.lock().unwrap_or_else(PoisonError::into_inner).retain(|disk| disk.root != self.root);
    }

    /// Calls `observer` after each operation, on the thread of the operation. Can be set once.
    pub fn observe(&self, observer: impl Fn(&Self, Operation) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// Returns what the disk may contain now.
    pub fn image(&self) -> Image {
        Image { files: self.state().files.clone() }
    }

    /// Cuts the power: returns what the disk may contain. From now on every read, write and sync
    /// fails.
    pub fn cut(&self) -> Image {
        let mut state = self.state();
        state.is_cut = true;
        Image { files: state.files.clone() }
    }

    /// Whether the power is cut.
    pub fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    /// Returns the disk that watches this file, and the file's name on it.
    pub(crate) fn of(path: &Path) -> Option<(Arc<Self>, String)> {
        let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
        let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = disks.iter().find(|disk| disk.root == directory)?;
        Some((Arc::clone(disk), name.to_owned()))
    }

    pub(crate) fn is_normal(&self) -> bool {
        self.synchronous == Synchronous::Normal
    }

    /// Called before a file is opened or created. The name of a created file is not durable yet.
    pub(crate) fn open(&self, name: &str) {
        let mut state = self.state();
        let path = self.root.join(name);
        if !state.files.get(name).is_some_and(Stored::is_there) {
            let found = std::fs::read(&path).ok();
            let is_lasting = found.as_ref().is_some_and(|found| !found.is_empty());
            state.files.insert(name.to_owned(), Stored::new(found.unwrap_or_default(), is_lasting));
        }
    }

    /// Runs an operation on a file and records it, as one step. Returns `None` if the power is cut.
    pub(crate) fn change(&self, name: &str, change: Change, really: impl FnOnce() -> i32) -> Option<i32> {
        let operation = match change {
            Change::Write { .. } => Operation::Write,
            Change::Truncate { .. } => Operation::Truncate,
        };
        let code = self.step(|state| {
            let code = really();
            if code == 0
                && let Some(file) = state.files.get_mut(name)
            {
                file.change(change);
            }
            code
        })?;
        self.notify(operation);
        Some(code)
    }

    /// Runs a sync. `really` returns whether it synced the directory, too.
    pub(crate) fn sync(&self, name: &str, really: impl FnOnce(IsLasting) -> (i32, bool)) -> Option<i32> {
        let code = self.step(|state| {
            let is_lasting = state.files.get(name).is_none_or(|file| file.is_lasting);
            let (code, with_directory) = really(if is_lasting { IsLasting::Yes } else { IsLasting::No });
            if code == 0 {
                if let Some(file) = state.files.get_mut(name) {
                    file.sync();
                }
                if with_directory {
                    state.sync_directory();
                }
            }
            code
        })?;
        self.notify(Operation::Sync);
        Some(code)
    }

    /// Removes a name. The removal is durable if the directory is synced with it.
    pub(crate) fn delete(&self, name: &str, is_synced: bool, really: impl FnOnce() -> i32) -> Option<i32> {
        let code = self.step(|state| {
            let code = really();
            if code == 0 {
                if let Some(file) = state.files.get_mut(name) {
                    file.is_deleted = true;
                }
                if is_synced {
                    state.sync_directory();
                }
            }
            code
        })?;
        self.notify(Operation::Delete);
        Some(code)
    }

    fn step(&self, work: impl FnOnce(&mut State) -> i32) -> Option<i32> {
        let mut state = self.state();
        (!state.is_cut).then(|| work(&mut state))
    }

    fn notify(&self, operation: Operation) {
        if let Some(observer) = self.observer.get() {
            observer(self, operation);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file's name survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsLasting {
    Yes,
    No,
}

impl State {
    fn sync_directory(&mut self) {
        self.files.retain(|_, file| !file.is_deleted);
        for file in self.files.values_mut() {
            file.is_lasting = true;
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("root", &self.root).finish_non_exhaustive()
    }
}
