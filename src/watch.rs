//! A signal that a file, or the content of a directory, has changed, whichever process changed it.
//!
//! A signal only says that it is worth looking: several changes may give one signal, and a change
//! may be of no interest. Where the kernel gives no signals (on a network file system, or with too
//! many watches already) the same call returns once a second, so the caller is late at worst.

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
    // received stands for all later ones.
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
    /// Watches a directory, or a file and those in its directory whose names begin with its name
    /// (as `-wal` follows a database's). The file need not exist yet; its directory must.
    ///
    /// # Errors
    /// There is no such place, or the kernel grants no more watches. [`Watch::by_the_clock`] works
    /// without signals.
    pub fn on(path: &Path) -> Result<Self, WatchError> {
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
        let watch = Self::by_the_clock();
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
    pub fn by_the_clock() -> Self {
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
    pub async fn told(&mut self) {
        match self._watcher {
            Some(_) => drop(self.changes.recv().await),
            None => self.changed().await,
        }
    }
}

/// What happened in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A complete file was renamed into the directory.
    Renamed(String),
    /// Another event: a file that may still be written, or lost events.
    Other,
}

impl News {
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
    news: mpsc::UnboundedReceiver<News>,
    _watcher: RecommendedWatcher,
}

impl DirectoryWatch {
    /// Watches one directory, without those below.
    ///
    /// # Errors
    /// There is no such place, or the kernel grants no more watches.
    pub fn on(path: &Path) -> Result<Self, WatchError> {
        let (sender, news) = mpsc::unbounded_channel();
        let watcher = watcher(path, path, move |event| {
            for news in event.map_or_else(|_| vec![News::Other], |event| news_of(&event)) {
                let _ = sender.send(news);
            }
        })?;
        Ok(Self { inode: inode_of(path), news, _watcher: watcher })
    }

    /// Whether the directory at this path is still the one that is watched.
    pub fn is_on(&self, path: &Path) -> bool {
        self.inode.is_some() && self.inode == inode_of(path)
    }

    /// Waits for news, and returns all news that are there.
    pub async fn next(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        news.extend(self.news.recv().await);
        while let Ok(more) = self.news.try_recv() {
            news.push(more);
        }
        news
    }
}

fn news_of(event: &notify::Event) -> Vec<News> {
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
        return vec![News::Other];
    }
    let names = event.paths.iter().map(|path| path.file_name().and_then(|name| name.to_str()));
    // A hidden file is not complete.
    let names = names.filter(|name| !name.is_some_and(|name| name.starts_with('.')));
    let news = |name: Option<&str>| match name.filter(|_| is_renamed) {
        Some(name) => News::Renamed(name.to_owned()),
        None => News::Other,
    };
    names.map(news).collect()
}

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
        let mut watch = Watch::on(&file).unwrap();
        std::fs::write(directory.path().join("other"), "x").unwrap();
        std::fs::read(&file).unwrap();
        assert!(!is_signalled(&mut watch).await);
        std::fs::write(&wal, "x").unwrap();
        assert!(is_signalled(&mut watch).await);
    }

    #[tokio::test]
    async fn signals_that_are_not_received_yet_are_one_and_a_later_change_is_signalled_again() {
        let directory = tempfile::TempDir::new().unwrap();
        let mut watch = Watch::on(directory.path()).unwrap();
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
        Watch::by_the_clock().changed().await;
        assert!(Watch::on(Path::new("/nowhere/at/all")).is_err());
    }

    #[tokio::test]
    async fn file_that_is_renamed_into_place_is_reported_by_name() {
        let directory = tempfile::TempDir::new().unwrap();
        let spool = directory.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        let mut watch = DirectoryWatch::on(&spool).unwrap();
        std::fs::write(directory.path().join("x"), "1").unwrap();
        std::fs::rename(directory.path().join("x"), spool.join("a.json")).unwrap();
        let mut news = Vec::new();
        while news.is_empty() {
            news.extend(watch.next().await);
        }
        assert_eq!(news[0], News::Renamed("a.json".to_owned()));
        std::fs::write(spool.join("b.json"), "1").unwrap();
        let news = watch.next().await;
        assert!(!news.is_empty() && news.iter().all(|news| *news == News::Other), "{news:?}");
    }
}
