//! `demo`, the first command for new users.
//!
//! Promises: command demo

use komoju_testkit::Installation;

use crate::PROGRAM;

#[test]
fn demo_prints_each_step_and_leaves_no_file() {
    let harness = Installation::with(PROGRAM, 0);
    let directory = tempfile::TempDir::new().unwrap();
    let output = harness
        .command(&["demo", "--for", "8s"])
        .env("TMPDIR", directory.path())
        // The demo needs no CA certificates.
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    for part in [
        "the first sweep recorded 120 customers",
        "sqlite3 -readonly",
        "update by sql, ",
        "create by file, welcome@f3097acbaaf9, is done: change ",
        "delete by cli, goodbye, is done: change ",
        // Remote changes arrive by events, not only by sweeps.
        "  event     ",
        "events   reported ",
        "with 0 findings",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
