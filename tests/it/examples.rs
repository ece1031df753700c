//! The programs in `examples/`, each run against the sandbox, and the SQL command of the README.
//!
//! If the language of a program is not installed, a line `NOT TESTED` reports it. Packages are
//! installed below `target/` where `INSTALL_EXAMPLES` is set, as in `.ci/run`.

mod languages;
mod readme;
mod tools;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use komoju_testkit::{Installation, Process};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(file: &str) -> PathBuf {
    root().join("examples").join(file)
}

/// Whether the name begins with a dot.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Reports on standard error that something is not tested. The test harness does not capture a
/// direct write.
fn not_tested(what: &str, why: &str) {
    let line = format!("#### NOT TESTED: {what}: {why} ####\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Returns the folder below `target/`. Runs the installer where it is missing and
/// `INSTALL_EXAMPLES` is set.
fn installed(folder: &str, installer: impl FnOnce(&Path) -> Command) -> Result<PathBuf, String> {
    let path = root().join("target").join(folder);
    if path.exists() {
        return Ok(path);
    }
    if std::env::var_os("INSTALL_EXAMPLES").is_none() {
        return Err(format!("target/{folder} is missing; set INSTALL_EXAMPLES=1 to install it"));
    }
    // Install under another name, so that a failed installation is not taken for a complete one.
    let beside = path.with_extension("new");
    let ran = installer(&beside).output().map_err(|e| e.to_string())?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    std::fs::rename(beside, &path).map_err(|e| e.to_string())?;
    Ok(path)
}

/// Returns the folder with the Python packages of an example.
fn python_package(name: &str, requirement: &str) -> Result<PathBuf, String> {
    installed(&format!("examples-{name}"), |path| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--root-user-action", "ignore", "--target"]);
        pip.arg(path).arg(requirement);
        pip
    })
}

/// The output and the exit code of a program.
struct ProgramRun {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl ProgramRun {
    /// Returns the lines of standard output as JSON. Panics unless the exit code is 0.
    #[track_caller]
    fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn start(command: &mut Command, input: &str) -> Process {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Process::start(command);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

fn end(child: Process) -> ProgramRun {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    ProgramRun { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run(command: &mut Command) -> ProgramRun {
    end(start(command, ""))
}

/// Runs a program that only reads the database, and asserts that it keeps the `-wal` for other
/// readers, also when it closes the last connection.
fn read(harness: &Installation, command: &mut Command) -> ProgramRun {
    let has_wal = harness.path("komoju.db-wal").exists();
    let ran = run(command);
    assert!(!has_wal || harness.path("komoju.db-wal").exists(), "{command:?} removes the -wal");
    ran
}
