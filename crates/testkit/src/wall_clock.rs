//! A wall clock that a test moves, for programs that run with a preloaded library.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::installation::Installation;

/// A wall clock that a test moves, for programs that run with the library.
#[derive(Debug)]
pub struct Wall {
    offset: File,
    library: PathBuf,
    file: PathBuf,
}

impl Wall {
    /// Returns a clock that shows the right time.
    pub fn new(harness: &Installation) -> Self {
        let (library, file) = (harness.path("wall.so"), harness.path("wall-offset"));
        std::fs::copy(Path::new(env!("OUT_DIR")).join("wall.so"), &library).unwrap();
        let offset =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&file).unwrap();
        offset.set_len(8).unwrap();
        Self { offset, library, file }
    }

    /// Sets the clock to this number of seconds after the right time.
    pub fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Starts the daemon with this clock.
    pub fn start(&self, harness: &Installation) -> Daemon {
        let mut command = harness.command(&["run"]);
        command.env("LD_PRELOAD", &self.library).env("WALL_OFFSET", &self.file);
        Daemon::spawn(harness, command)
    }
}
