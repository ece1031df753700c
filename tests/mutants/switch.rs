//! The switch of the mutants that `tests/mutants/sample` builds into the program. It is copied into
//! the sample's own copy of the sources, and is no part of the program.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest id of a mutant.
const MOST: usize = 8192;

/// Returns whether this mutant is the one that the test runs with. Without one, it writes the id of
/// each mutant that a test reaches to the test's file in `MUTANT_REACHED`.
pub fn on(id: usize) -> bool {
    static CHOSEN: OnceLock<Option<usize>> = OnceLock::new();
    static REACHED: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];
    match *CHOSEN.get_or_init(|| variable("MUTANT")?.parse().ok()) {
        Some(chosen) => chosen == id,
        None => {
            if !REACHED[id].swap(true, Ordering::Relaxed) {
                note(id);
            }
            false
        }
    }
}

fn note(id: usize) {
    static FILE: OnceLock<Option<String>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| variable("MUTANT_REACHED")) else { return };
    // A short write in append mode is not torn by other processes of the test.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(file) {
        let _ = file.write_all(format!("{id}\n").as_bytes());
    }
}

/// Returns a variable of this process, or of the nearest of its parents that has it: tests start
/// programs with an environment of their own.
fn variable(name: &str) -> Option<String> {
    let mut process = std::process::id();
    while process > 1 {
        let variables = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let mut variables = variables.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let value = variables.find_map(|it| it.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        if value.is_some() {
            return value;
        }
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        process = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
    }
    None
}
