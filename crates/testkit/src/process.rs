//! Child processes, and signals to them.

use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output};
use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A child process that is killed when it is dropped, so that it does not outlive a test that
/// fails.
#[derive(Debug)]
pub struct Process(Option<Child>);

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self(Some(child))
    }
}

impl Process {
    /// Starts the command.
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    /// Waits until the process ends, and returns its output.
    pub fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().unwrap().wait_with_output()
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Raises the number of files that this process may have open to what the system allows.
///
/// The product never closes the handle of a database that it has opened (invariant 16). So a test
/// process that opens a thousand databases, one after the other, holds a thousand files.
pub(crate) fn allow_many_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        // If this fails, a test that needs more files fails with that error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    });
}

/// Sends a signal (`TERM`, `KILL`, `STOP`) to a process that must exist.
pub fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Sends SIGTERM, waits until the process ends, and returns its exit code.
pub fn stop(child: &mut Child) -> Option<i32> {
    signal("TERM", child.id());
    child.wait().unwrap().code()
}
