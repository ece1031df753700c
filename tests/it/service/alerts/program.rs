//! The alert command as a process: its environment, failure and end.

use std::collections::BTreeSet;
use std::time::Duration;

use komoju_sync::clock::SystemClock;
use komoju_testkit::{Daemon, Installation, KEY, eventually};

use super::{LONG_ENOUGH, alerting, delivered, park, parks, program};
use crate::PROGRAM;

#[test]
fn program_gets_its_input_and_no_secret() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    alerting(
        &harness,
        &format!(
            "env > '{0}/env'; echo \"$@\" > '{0}/arguments'; pwd > '{0}/pwd'; ls -l /proc/self/fd > '{0}/fds'; tr '\\0' '\\n' < /proc/$PPID/cmdline > /dev/null; echo done > '{0}/done'",
            harness.directory.path().display()
        ),
    );
    harness.append_config("[http]\nlisten = \"127.0.0.1:0\"");
    let mut command = harness.command(&["run"]);
    for name in [
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "JOURNAL_STREAM",
        "LD_PRELOAD",
        "SOME_TOKEN",
    ] {
        command.env(name, format!("secret-{name}"));
    }
    command
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("LD_PRELOAD")
        .env("LANG", "ja_JP.UTF-8")
        .env("HOME", "/nowhere");
    let mut daemon = Daemon::spawn(&harness, command);
    eventually("it runs", || daemon.said().contains("complete"));
    parks(&harness, "p0");
    eventually("it is done", || harness.path("done").exists());
    let read = |name: &str| std::fs::read_to_string(harness.path(name)).unwrap();
    let names: BTreeSet<String> =
        read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    // The shell adds these variables.
    let own = ["PWD", "OLDPWD", "SHLVL", "_"].map(str::to_owned);
    let names: Vec<String> = names.into_iter().filter(|name| !own.contains(name)).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH"]);
    assert!(!read("env").contains("secret") && !read("env").contains(KEY), "{}", read("env"));
    assert!(read("env").contains("LANG=ja_JP.UTF-8") && read("env").contains("/usr/bin"));
    assert_eq!((read("arguments").as_str(), read("pwd").as_str()), ("--from here\n", "/\n"));
    let fds = read("fds");
    assert!(!fds.contains("komoju.db") && fds.matches("socket:").count() == 0, "{fds}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn failed_program_is_logged_with_what_to_do_and_retried_at_the_next_start() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    alerting(&harness, "echo 'no \u{1b}[31mrelay sk_test_abcdefghijklmnop' >&2; exit 3");
    park(&harness, "p0");
    let mut daemon = Daemon::start(&harness);
    eventually("it failed", || daemon.said().contains("alert not delivered (1 intent is parked"));
    let said = daemon.said();
    assert!(said.contains("ended with exit status: 3") && said.contains("run the command by hand"), "{said}");
    assert!(said.contains("alerts.command wrote to standard error") && said.contains("relay"), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains("abcdefghijklmnop"), "{said}");
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(delivered(&harness).len(), 1, "not again within the minute");
    assert_eq!(daemon.stop(), Some(0));
    program(&harness, "");
    let mut daemon = Daemon::start(&harness);
    eventually("the alert is sent", || {
        delivered(&harness).len() == 2 && daemon.said().contains("alert delivered: ")
    });
    assert_eq!(daemon.stop(), Some(0));
    std::fs::remove_file(harness.path("notify")).unwrap();
    harness.sql("DELETE FROM alert");
    let daemon = Daemon::start(&harness);
    eventually("it says so", || daemon.said().contains("cannot be started: No such file or directory"));
}

#[test]
fn hanging_program_blocks_nothing_and_is_killed_with_its_children_at_the_stop() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    let pids = harness.path("pids");
    alerting(&harness, &format!("trap '' TERM; sleep 987 & echo $! $$ > '{}'; sleep 986", pids.display()));
    park(&harness, "p0");
    let mut daemon = Daemon::start(&harness);
    eventually("it hangs", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    harness
        .sql("INSERT INTO intents (id, op, body) VALUES ('n1', 'create', '{\"email\": \"a@example.com\"}')");
    eventually("pushes continue", || harness.one("SELECT state FROM intents WHERE id = 'n1'") == "done");
    let clock = SystemClock::shared();
    let asked = clock.elapsed();
    assert_eq!(daemon.stop(), Some(0));
    assert!(clock.elapsed() - asked < Duration::from_millis(1700));
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        // A process that has ended may still be a zombie.
        eventually("it is gone", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
    assert_eq!(
        harness.one("SELECT count(*) FROM alert WHERE told_at IS NULL"),
        "1",
        "the alert is not recorded as delivered"
    );
}

#[test]
fn nothing_is_recorded_without_a_command() {
    let harness = Installation::with(PROGRAM, 1);
    harness.expect(0, &["sync"]);
    park(&harness, "p0");
    let mut daemon = Daemon::start(&harness);
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(harness.one("SELECT count(*) FROM alert"), "0");
    assert_eq!(harness.one("SELECT state FROM intents"), "parked");
}
