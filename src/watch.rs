//! A signal that a file or what lies in a directory has changed, by whichever process.
//!
//! A signal says only that it is worth looking: several changes may come as one, and what is written may be none of interest.
//! Where the kernel tells nothing (a network's file system, or too many watches already) the same call returns once a second,
//! so that whoever waits for it is late at worst.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// The longest time without a look where nothing is told.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hears of changes from when it is made until it is dropped.
#[derive(Debug)]
pub struct Watch {
    // Never read: it tells `changes` as long as it lives.
    _watcher: Option<RecommendedWatcher>,
    // One place: what is not yet heard stands for everything after it. Kept, so that the other end never closes.
    _told: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
}

/// The kernel watches no more, or not there.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be watched", .path.display())]
pub struct WatchError {
    /// What was to be watched.
    pub path: PathBuf,
    /// Why it cannot be.
    pub source: notify::Error,
}

impl Watch {
    /// Watches a directory, or a file and those beside it whose names go on after its name (as `-wal` does after a database's).
    /// The file need not exist yet; its directory must.
    ///
    /// # Errors
    /// There is no such place, or the kernel grants no more watches. [`Watch::by_the_clock`] does without.
    pub fn on(path: &Path) -> Result<Self, WatchError> {
        let error = |source| WatchError { path: path.to_owned(), source };
        // What a link stands for is what is written to.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (directory, file) = match (real.is_dir(), real.parent(), real.file_name()) {
            (false, Some(parent), Some(name)) => (parent.to_owned(), Some(name.to_owned())),
            _ => (real, None),
        };
        let (told, changes) = mpsc::channel(1);
        let tell = told.clone();
        let is_ours = move |path: &PathBuf| match (&file, path.file_name()) {
            (Some(file), Some(name)) => name.as_encoded_bytes().starts_with(file.as_encoded_bytes()),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = match event {
                // That somebody reads is no change; whoever looks would wake itself.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
                Ok(event) => event.paths.is_empty() || event.paths.iter().any(&is_ours),
                // Events may have been lost.
                Err(_) => true,
            };
            if matters {
                let _ = tell.try_send(());
            }
        })
        .map_err(error)?;
        watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(error)?;
        Ok(Self { _watcher: Some(watcher), _told: told, changes })
    }

    /// Hears of nothing and looks once a second.
    pub fn by_the_clock() -> Self {
        let (told, changes) = mpsc::channel(1);
        Self { _watcher: None, _told: told, changes }
    }

    /// Returns when something has changed since the last call (or since the watch began), or after a second. It may be dropped
    /// before it returns without losing a change.
    pub async fn changed(&mut self) {
        let _ = tokio::time::timeout(LOOK_EVERY, self.changes.recv()).await;
    }

    /// The same without a look in between, where the kernel tells: nothing wakes whoever waits but a change.
    pub async fn told(&mut self) {
        match self._watcher {
            Some(_) => drop(self.changes.recv().await),
            None => self.changed().await,
        }
    }
}

fn inode_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|directory| (directory.dev(), directory.ino()))
}

/// What happened in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A file was renamed into place, whole.
    Renamed(String),
    /// Something else: a file that may still be written, or more than could be told.
    Other,
}

impl News {
    /// The name of a file that may be taken at once.
    pub fn renamed(self) -> Option<String> {
        match self {
            Self::Renamed(name) => Some(name),
            Self::Other => None,
        }
    }
}

/// Tells what comes into a directory, and how.
#[derive(Debug)]
pub struct DirectoryWatch {
    /// Which directory it was when the watch began.
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
        let error = |source| WatchError { path: path.to_owned(), source };
        let (tell, news) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else {
                let _ = tell.send(News::Other);
                return;
            };
            let arrived = match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
                EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Create(_) => false,
                EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Other => false,
                _ => return,
            };
            // The kernel's queue is full, and events are lost: they name nothing.
            if event.paths.is_empty() {
                let _ = tell.send(News::Other);
            }
            for path in &event.paths {
                let name = path.file_name().and_then(|name| name.to_str());
                // Hidden until it has its name.
                if name.is_some_and(|name| name.starts_with('.')) {
                    continue;
                }
                let _ = tell.send(match name.filter(|_| arrived) {
                    Some(name) => News::Renamed(name.to_owned()),
                    None => News::Other,
                });
            }
        })
        .map_err(error)?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(error)?;
        Ok(Self { inode: inode_of(path), news, _watcher: watcher })
    }

    /// Whether this is still the directory that is watched, and not another one in its place.
    pub fn is_on(&self, path: &Path) -> bool {
        self.inode.is_some() && self.inode == inode_of(path)
    }

    /// Waits for news, and takes what else is there already.
    pub async fn next(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        news.extend(self.news.recv().await);
        while let Ok(more) = self.news.try_recv() {
            news.push(more);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a signal comes well before the second at which one looks anyway.
    async fn is_told(watch: &mut Watch) -> bool {
        matches!(tokio::time::timeout(LOOK_EVERY / 2, watch.changes.recv()).await, Ok(Some(())))
    }

    #[tokio::test]
    async fn a_change_beside_the_file_is_told_and_a_reading_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let (file, wal) = (directory.path().join("k.db"), directory.path().join("k.db-wal"));
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::on(&file).unwrap();
        std::fs::write(directory.path().join("other"), "x").unwrap();
        std::fs::read(&file).unwrap();
        assert!(!is_told(&mut watch).await);
        std::fs::write(&wal, "x").unwrap();
        assert!(is_told(&mut watch).await);
    }

    #[tokio::test]
    async fn many_changes_are_told_once_and_a_later_one_again() {
        let directory = tempfile::TempDir::new().unwrap();
        let mut watch = Watch::on(directory.path()).unwrap();
        for n in 0..100 {
            std::fs::write(directory.path().join(n.to_string()), "x").unwrap();
        }
        let mut told = 0;
        while is_told(&mut watch).await {
            told += 1;
        }
        assert!((1..=100).contains(&told), "{told}");
        std::fs::rename(directory.path().join("1"), directory.path().join("one")).unwrap();
        assert!(is_told(&mut watch).await);
    }

    #[tokio::test]
    async fn without_signals_it_looks_once_a_second() {
        Watch::by_the_clock().changed().await;
        assert!(Watch::on(Path::new("/nowhere/at/all")).is_err());
    }

    #[tokio::test]
    async fn what_is_renamed_into_place_is_told_by_name() {
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
