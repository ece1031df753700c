//! The daemon's memory stays bounded for any spool file. Its unit has a memory limit, and a file
//! that exceeds it would cause a crash loop.

use std::path::Path;

use komoju_testkit::{Installation, Process, eventually, looked_until, stop};

use crate::PROGRAM;

/// MOST limits the peak memory of the daemon, in KiB.
const MOST: u64 = 96 * 1024;

const MIB: usize = 1024 * 1024;

/// FOREIGN controls how many files with other names are written: more than the kernel's event queue
/// holds.
const FOREIGN: usize = 20_000;

/// Returns the peak memory of the process so far, in KiB.
fn peak(daemon: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns an accepted file of nearly 16 MiB: 50,000 creates that are not sent yet.
fn valid() -> String {
    let line = |n: usize| {
        let notes = (0..6).map(|key| format!("\"key{key}\":\"{n}-{}\"", "x".repeat(16))).collect::<Vec<_>>();
        format!(
            "{{\"op\":\"create\",\"not_before\":\"2100-01-01T00:00:00Z\",\"body\":{{\"email\":\"a{n}@example.jp\",\"metadata\":{{{}}}}}}}\n",
            notes.join(",")
        )
    };
    (0..50_000).map(line).collect()
}

/// Returns files that are refused and need memory in different ways: lines, secrets to mask,
/// values, escapes, one long text.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let within = |text: &str, len: usize| text.repeat(len / text.len());
    let create = "{\"op\":\"create\",\"not_before\":\"2100-01-01T00:00:00Z\",\"body\":";
    let keys: Vec<String> = (0..45_000).map(|n| format!("\"{n:x}\":[]")).collect();
    vec![
        ("zeros.jsonl", within("0\n", 4 * MIB).into_bytes()),
        ("wrong.jsonl", "{\"op\":\"create\",\"id\":7}\n".repeat(50_000).into_bytes()),
        ("secrets.json", within("{\"cvc\":1}", 2 * MIB).into_bytes()),
        ("utf-16.jsonl", utf16(&within("{\"cvc\":\"1\"}\n", MIB))),
        ("numbers.json", format!("[{}0]", within("0,", MIB / 2 - 8)).into_bytes()),
        ("keys.json", format!("{create}{{{}}}}}", keys.join(",")).into_bytes()),
        ("escapes.json", format!("{{\"op\":\"{}\"}}", within("\\n", 2 * MIB)).into_bytes()),
        ("email.json", format!("{create}{{\"email\":\"{}\"}}}}", within("é", MIB / 2 - 200)).into_bytes()),
    ]
}

fn is_empty(spool: &Path) -> bool {
    let mut names = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name());
    let claimed = std::fs::read_dir(spool.join(".claimed")).unwrap().next().is_some();
    !claimed && names.all(|name| [".claimed", "receipts", "rejected"].iter().any(|ours| name == *ours))
}

#[test]
#[expect(clippy::print_stderr, reason = "prints the measurements")]
fn large_hostile_or_many_spool_files_keep_memory_bounded() {
    let harness = Installation::with(PROGRAM, 3);
    let mut daemon = harness.spawn(&["run"]);
    let spool = harness.path("spool");
    eventually("the daemon takes files", || spool.join("rejected").exists());
    let mut before = peak(&daemon);
    eprintln!("start: {before} KiB");
    let mut files = hostile();
    files.push(("valid.jsonl", valid().into_bytes()));
    for (name, content) in files {
        let len = content.len();
        std::fs::write(spool.join(format!(".{name}")), content).unwrap();
        std::fs::rename(spool.join(format!(".{name}")), spool.join(name)).unwrap();
        // On a busy machine 50,000 creates take most of a minute.
        assert!((0..4).any(|_| looked_until(|| is_empty(&spool))), "{name} is never processed");
        let now = peak(&daemon);
        eprintln!("{name} of {len} bytes: {now} KiB ({} more)", now - before);
        before = now;
    }
    // The kernel's queue of events overflows.
    for n in 0..FOREIGN {
        std::fs::write(spool.join(format!("{n}.txt")), "").unwrap();
    }
    std::fs::write(spool.join("last.json"), "{\"op\": \"nonsense\"}").unwrap();
    // Each scan reads the whole directory, which takes long on a busy machine.
    let is_refused = || spool.join("rejected/last.json.error").exists();
    assert!((0..4).any(|_| looked_until(is_refused)), "the last file is never refused");
    let peak = peak(&daemon);
    eprintln!("{FOREIGN} foreign files: {peak} KiB ({} more)", peak - before);
    assert_eq!(stop(&mut daemon), Some(0));
    assert!(peak <= MOST, "{peak} KiB");
}
