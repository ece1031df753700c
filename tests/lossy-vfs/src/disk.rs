//! What is on the disk, and what only seems to be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::image::{Image, Stored};

/// All disks that are watched in this process.
static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// What was done to a file or its name.
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

/// What `PRAGMA synchronous` means, whatever a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// What it says.
    AsAsked,
    /// NORMAL: the control, which must lose something.
    Normal,
}

/// Something that was done to a file since its last sync.
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
    /// Watches the files that are, or will be, in `root`. What is there already counts as synced.
    pub fn watch(root: &Path, synchronous: Synchronous) -> Arc<Self> {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let disk = Arc::new(Self { root, synchronous, state: Mutex::default(), observer: OnceLock::new() });
        DISKS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&disk));
        disk
    }

    /// Ends that; files that are open stay watched.
    pub fn forget(&self) {
        DISKS.lock().unwrap_or_else(PoisonError::into_inner).retain(|disk| disk.root != self.root);
    }

    /// Calls `observer` after each operation, on the thread that did it. Can be set once.
    pub fn observe(&self, observer: impl Fn(&Self, Operation) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// What the disk may hold now.
    pub fn image(&self) -> Image {
        Image { files: self.state().files.clone() }
    }

    /// The power goes: what the disk may hold, and from now on every read, write and sync here fails.
    pub fn cut(&self) -> Image {
        let mut state = self.state();
        state.is_cut = true;
        Image { files: state.files.clone() }
    }

    /// Whether the power is gone.
    pub fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    /// The disk that watches this file, and the file's name there.
    pub(crate) fn of(path: &Path) -> Option<(Arc<Self>, String)> {
        let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
        let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = disks.iter().find(|disk| disk.root == directory)?;
        Some((Arc::clone(disk), name.to_owned()))
    }

    pub(crate) fn is_normal(&self) -> bool {
        self.synchronous == Synchronous::Normal
    }

    /// A file is about to be opened, and perhaps made. Its name is not lasting where it is made.
    pub(crate) fn open(&self, name: &str) {
        let mut state = self.state();
        let path = self.root.join(name);
        if !state.files.get(name).is_some_and(Stored::is_there) {
            let found = std::fs::read(&path).ok();
            let is_lasting = found.as_ref().is_some_and(|found| !found.is_empty());
            state.files.insert(name.to_owned(), Stored::new(found.unwrap_or_default(), is_lasting));
        }
    }

    /// Does something to a file and notes it, as one step. `None`: the power is gone.
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
        self.tell(operation);
        Some(code)
    }

    /// A sync: `really` says whether it synced the directory too.
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
        self.tell(Operation::Sync);
        Some(code)
    }

    /// A name goes; for good where the directory is synced with it.
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
        self.tell(Operation::Delete);
        Some(code)
    }

    fn step(&self, work: impl FnOnce(&mut State) -> i32) -> Option<i32> {
        let mut state = self.state();
        (!state.is_cut).then(|| work(&mut state))
    }

    fn tell(&self, operation: Operation) {
        if let Some(observer) = self.observer.get() {
            observer(self, operation);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file's name outlives the power.
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
