//! Compiles the libraries that tests preload into the program, once for each build.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a failed build")]

use std::path::Path;
use std::process::Command;

fn main() {
    let directory = std::env::var_os("OUT_DIR").unwrap();
    for name in ["calls", "wall"] {
        let source = format!("preload/{name}.c");
        println!("cargo::rerun-if-changed={source}");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(Path::new(&directory).join(format!("{name}.so")))
            .arg(source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
}
