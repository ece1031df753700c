//! A signal that a file, or the content of a directory, has changed, whichever process changed it.
//!
//! The caller looks after each signal: several changes may give one signal, and a change may be of
//! no interest. The kernel gives no signals on a network file system, or with too many watches
//! already. Then the same call returns once a second, so the caller is late at worst.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// LOOK_EVERY controls how long a caller waits for a signal before it looks without one.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Signals of changes from its creation until it is dropped.
#[derive(Debug)]
pub struct Watch {
    // Never read: it sends to `changes` as long as it lives.
    _watcher: Option<RecommendedWatcher>,
    // Kept, so that the channel never closes. It has one place, because one signal that is not yet
    // received covers all later ones.
    _sender: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
}

/// The kernel grants no more watches, or none at this place.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be watched", .path.display())]
pub struct WatchError {
    /// The file or directory.
    pub path: PathBuf,
    /// The error of the watcher.
    pub source: notify::Error,
}

/// Calls `on_event` for each event in `directory`; `path` is its name in errors.
fn watcher(
    path: &Path,
    directory: &Path,
    on_event: impl Fn(notify::Result<notify::Event>) + Send + 'static,
) -> Result<RecommendedWatcher, WatchError> {
    let error = |source| WatchError { path: path.to_owned(), source };
    let mut watcher = notify::recommended_watcher(on_event).map_err(error)?;
    watcher.watch(directory, RecursiveMode::NonRecursive).map_err(error)?;
    Ok(watcher)
}

impl Watch {
    /// Watches a directory, or a file and the files beside it that begin with its name (such as a
    /// database's `-wal`). The file need not exist yet; its directory must.
    ///
    /// # Errors
    /// There is no such place, or the kernel grants no more watches. [`Watch::polling`] works
    /// without signals.
    pub fn of_path(path: &Path) -> Result<Self, WatchError> {
        // Writes go to the target of a link.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (directory, file) = match (real.is_dir(), real.parent(), real.file_name()) {
            (false, Some(parent), Some(name)) => (parent.to_owned(), Some(name.to_owned())),
            _ => (real, None),
        };
        let is_ours = move |path: &PathBuf| {
            let name = path.file_name().map(|name| name.as_encoded_bytes());
            file.as_ref()
                .is_none_or(|file| name.is_some_and(|name| name.starts_with(file.as_encoded_bytes())))
        };
        let watch = Self::polling();
        let sender = watch._sender.clone();
        let watcher = watcher(path, &directory, move |event| {
            let matters = match event {
                // A read is no change. A caller that reads would wake itself.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
                Ok(event) => event.paths.is_empty() || event.paths.iter().any(&is_ours),
                // Events may be lost.
                Err(_) => true,
            };
            if matters {
                let _ = sender.try_send(());
            }
        })?;
        Ok(Self { _watcher: Some(watcher), ..watch })
    }

    /// Returns a watch without signals, which looks once a second.
    pub fn polling() -> Self {
        let (sender, changes) = mpsc::channel(1);
        Self { _watcher: None, _sender: sender, changes }
    }

    /// Returns when something has changed since the last call (or since the watch began), or after
    /// a second. It may be dropped before it returns without losing a change.
    pub async fn changed(&mut self) {
        let _ = tokio::time::timeout(LOOK_EVERY, self.changes.recv()).await;
    }

    /// Returns only when something has changed, where the kernel gives signals. Without them it
    /// returns after a second.
    pub async fn signalled(&mut self) {
        match self._watcher {
            Some(_) => drop(self.changes.recv().await),
            None => self.changed().await,
        }
    }
}

/// An event in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// A complete file was renamed into the directory.
    Renamed(String),
    /// Another event: a file that may still be written, or lost events.
    Other,
}

impl FileEvent {
    /// Returns the name of a file that is complete.
    pub fn renamed(self) -> Option<String> {
        match self {
            Self::Renamed(name) => Some(name),
            Self::Other => None,
        }
    }
}

/// Reports which files arrive in a directory, and how.
#[derive(Debug)]
pub struct DirectoryWatch {
    /// The directory's device and inode when the watch began.
    inode: Option<(u64, u64)>,
    events: mpsc::UnboundedReceiver<FileEvent>,
    _watcher: RecommendedWatcher,
}

impl DirectoryWatch {
    /// Watches one directory, without those below.
    ///
    /// # Errors
    /// There is no such place, or the kernel grants no more watches.
    pub fn of_path(path: &Path) -> Result<Self, WatchError> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = watcher(path, path, move |event| {
            for event in event.map_or_else(|_| vec![FileEvent::Other], |event| file_events(&event)) {
                let _ = sender.send(event);
            }
        })?;
        Ok(Self { inode: inode_of(path), events, _watcher: watcher })
    }

    /// Whether the directory at this path is still the one that is watched.
    pub fn is_on(&self, path: &Path) -> bool {
        self.inode.is_some() && self.inode == inode_of(path)
    }

    /// Waits for an event, and returns all events that have arrived.
    pub async fn next(&mut self) -> Vec<FileEvent> {
        let mut events = Vec::new();
        events.extend(self.events.recv().await);
        while let Ok(more) = self.events.try_recv() {
            events.push(more);
        }
        events
    }
}

/// Returns what one event of the kernel means for the files of a directory.
fn file_events(event: &notify::Event) -> Vec<FileEvent> {
    let is_renamed = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To)));
    let matters = matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Metadata(_))
            | EventKind::Other
    );
    if !is_renamed && !matters {
        return Vec::new();
    }
    if event.paths.is_empty() {
        // The kernel's queue is full, and events are lost.
        return vec![FileEvent::Other];
    }
    let names = event.paths.iter().map(|path| path.file_name().and_then(|name| name.to_str()));
    // A hidden file is not complete.
    let names = names.filter(|name| !name.is_some_and(|name| name.starts_with('.')));
    let event = |name: Option<&str>| match name.filter(|_| is_renamed) {
        Some(name) => FileEvent::Renamed(name.to_owned()),
        None => FileEvent::Other,
    };
    names.map(event).collect()
}

/// Returns device and inode of a directory.
fn inode_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|directory| (directory.dev(), directory.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a signal arrives well before the second after which a caller looks without one.
    async fn is_signalled(watch: &mut Watch) -> bool {
        matches!(tokio::time::timeout(LOOK_EVERY / 2, watch.changes.recv()).await, Ok(Some(())))
    }

    #[tokio::test]
    async fn change_of_a_file_with_the_same_prefix_is_signalled_and_a_read_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let (file, wal) = (directory.path().join("k.db"), directory.path().join("k.db-wal"));
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::of_path(&file).unwrap();
        std::fs::write(directory.path().join("other"), "x").unwrap();
        std::fs::read(&file).unwrap();
        assert!(!is_signalled(&mut watch).await);
        std::fs::write(&wal, "x").unwrap();
        assert!(is_signalled(&mut watch).await);
    }

    #[tokio::test]
    async fn signals_that_are_not_received_yet_are_one_and_a_later_change_is_signalled_again() {
        let directory = tempfile::TempDir::new().unwrap();
        let mut watch = Watch::of_path(directory.path()).unwrap();
        assert_eq!(watch.changes.max_capacity(), 1);
        for n in 0..100 {
            std::fs::write(directory.path().join(n.to_string()), "x").unwrap();
        }
        assert!(is_signalled(&mut watch).await);
        while is_signalled(&mut watch).await {}
        std::fs::rename(directory.path().join("1"), directory.path().join("one")).unwrap();
        assert!(is_signalled(&mut watch).await);
    }

    #[tokio::test]
    async fn watch_without_signals_returns_once_a_second() {
        Watch::polling().changed().await;
        assert!(Watch::of_path(Path::new("/nowhere/at/all")).is_err());
    }

    #[tokio::test]
    async fn file_that_is_renamed_into_place_is_reported_by_name() {
        let directory = tempfile::TempDir::new().unwrap();
        let spool = directory.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        let mut watch = DirectoryWatch::of_path(&spool).unwrap();
        std::fs::write(directory.path().join("x"), "1").unwrap();
        std::fs::rename(directory.path().join("x"), spool.join("a.json")).unwrap();
        let mut events = Vec::new();
        while events.is_empty() {
            events.extend(watch.next().await);
        }
        assert_eq!(events[0], FileEvent::Renamed("a.json".to_owned()));
        std::fs::write(spool.join("b.json"), "1").unwrap();
        let events = watch.next().await;
        assert!(!events.is_empty() && events.iter().all(|event| *event == FileEvent::Other), "{events:?}");
    }
}
