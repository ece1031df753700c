//! Being told by the kernel that a file or a directory changed, instead of looking again and again.
//!
//! Whoever commits to the database, in this process or another, writes to its -wal file: that is how the pusher and whoever waits for
//! an outcome learn of it. Where the kernel cannot watch (its limits are reached, or the file system does not tell), the caller is
//! told so and looks once a second instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};

/// How often somebody looks who cannot be told.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be watched ({why}); it is looked at once a second instead. Is fs.inotify.max_user_instances or max_user_watches too small?", .path.display())]
pub struct WatchError {
    path: PathBuf,
    why: String,
}

impl WatchError {
    fn at(path: &Path, why: &notify::Error) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// Tells when a file was written to. Several writes before the next [`Watch::changed`] are one.
#[derive(Debug)]
pub struct Watch {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches one file, which must exist.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn on(path: &Path) -> Result<Self, WatchError> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let told = move |event: notify::Result<Event>| {
            // Whoever only opens and reads the file changes nothing; an error may hide a change.
            if event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_))) {
                tell.notify_one();
            }
        };
        let watching = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watching.map_err(|why| WatchError::at(path, &why))?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Waits for the next change since the last call, or since the beginning.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
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

/// Tells what comes into a directory.
#[derive(Debug)]
pub struct DirectoryWatch {
    news: mpsc::UnboundedReceiver<News>,
    _watcher: RecommendedWatcher,
}

impl DirectoryWatch {
    /// Watches one directory, without those below.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn on(path: &Path) -> Result<Self, WatchError> {
        let (tell, news) = mpsc::unbounded_channel();
        let told = move |event: notify::Result<Event>| {
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
            for path in &event.paths {
                let name = path.file_name().and_then(|name| name.to_str());
                let _ = tell.send(match name.filter(|_| arrived) {
                    Some(name) => News::Renamed(name.to_owned()),
                    None => News::Other,
                });
            }
        };
        let watching = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watching.map_err(|why| WatchError::at(path, &why))?;
        Ok(Self { news, _watcher: watcher })
    }

    /// Waits for news, and takes what else is there already; empty when nothing can come any more.
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
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_write_is_told_and_a_read_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "a").unwrap();
        let watch = Watch::on(&path).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"b").unwrap();
        watch.changed().await;
        assert!(Watch::on(&directory.path().join("missing")).is_err());
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
