//! `customers`, `changes` and `export`: the mirror and the log, now and then.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, KEY, own, signal};
use serde_json::json;

use super::json_lines;
use crate::PROGRAM;

/// Promises: command changes
#[test]
fn changes_follow_prints_new_changes_until_ctrl_c() {
    let harness = Installation::swept(PROGRAM, 1);
    let mut follower = harness.spawn(&["changes", "--follow", "--json"]);
    let mut told = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("\"created\""), "{line}");
    let id = harness.sandbox.world().ids()[0].clone();
    harness.sandbox.world().update(&id, json!({"email": "now@x"}));
    harness.expect(0, &["sync"]);
    line.clear();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("now@x"), "{line}");
    signal("INT", follower.id());
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

/// Promises: command customers list; command customers show; command customers history
/// Promises: command changes; command export
#[test]
fn customers_changes_and_export_show_now_and_then() {
    let harness = Installation::with(PROGRAM, 15);
    harness.expect(0, &["sync"]);
    let id = harness.sandbox.world().ids()[4].clone();
    let then = harness.one("SELECT max(observed_at) FROM changes");
    harness.sandbox.world().update(&id, json!({"email": "now@example.com"}));
    harness.expect(0, &["sync"]);

    let now = json_lines(&harness.expect(0, &["customers", "show", &id, "--json"]).stdout);
    assert_eq!(now[0]["email"], "now@example.com");
    let past = json_lines(&harness.expect(0, &["customers", "show", &id, "--json", "--as-of", &then]).stdout);
    assert_ne!(past[0]["email"], "now@example.com");
    assert_eq!(
        now[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        past[0].as_object().unwrap().keys().collect::<Vec<_>>()
    );
    assert_eq!(
        json_lines(&harness.expect(0, &["customers", "history", &id, "--format", "json"]).stdout).len(),
        2
    );
    let swept = json_lines(&harness.expect(0, &["sync", "--json"]).stdout);
    assert_eq!((swept.len(), &swept[0]["outcome"], &swept[0]["pages"]), (1, &json!("complete"), &json!(2)));
    assert_eq!(harness.expect(0, &["customers", "list"]).stdout.lines().count(), 15);
    harness.expect(1, &["customers", "show", "nobody"]);

    let changes = json_lines(&harness.expect(0, &["changes", "--since", "15", "--json"]).stdout);
    assert_eq!(changes[0]["diff"]["email"]["to"], "now@example.com");
    for beyond in [&["changes", "--since", "999"][..], &["changes", "--since", "999", "--follow"]] {
        assert!(
            harness.expect(2, beyond).stderr.contains("the change log ends at 16"),
            "it would be silent for ever"
        );
    }
    let csv = harness.expect(0, &["export", "--format", "csv"]).stdout;
    assert!(csv.starts_with("id,email,source,source_type,source_brand,"), "{csv}");
    assert_eq!(csv.lines().count(), 16);
    let exported = json_lines(&harness.expect(0, &["export", "--format", "jsonl"]).stdout);
    assert_eq!(exported, json_lines(&harness.expect(0, &["customers", "list", "--json"]).stdout));
}

/// Promises: command changes; command customers list
#[test]
fn changes_limit_is_the_newest_or_the_first_after_since() {
    let harness = Installation::with(PROGRAM, 12);
    harness.expect(0, &["sync"]);
    let seqs = |arguments: &[&str]| {
        let printed = harness.expect(0, &[&["changes", "--json"], arguments].concat()).stdout;
        json_lines(&printed).iter().map(|change| change["seq"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&["--limit", "3"]), [10, 11, 12]);
    assert_eq!(seqs(&["--limit", "99"]), (1..=12).collect::<Vec<_>>());
    assert_eq!(seqs(&["--limit", "3", "--since", "4"]), [5, 6, 7]);
    assert_eq!(seqs(&["--limit", "3", "--since", "11"]), [12]);
    let id = harness.one("SELECT customer_id FROM changes WHERE seq = 2");
    assert_eq!(seqs(&["--limit", "1", "--customer", &id]), [2]);
    let refused = harness.expect(2, &["changes", "--limit", "3", "--since", "4", "--follow"]);
    assert!(refused.stderr.contains("--limit: with --follow"), "{}", refused.stderr);
    harness.expect(2, &["changes", "--limit", "0"]);
}

#[test]
fn list_without_an_entry_says_so_on_standard_error_only() {
    let harness = Installation::with(PROGRAM, 0);
    harness.expect(0, &["sync"]);
    for (command, note) in [
        (&["changes"][..], "the change log is empty"),
        (&["customers", "list"], "the mirror has no live customer"),
        (&["intent", "list"], "no intent is open"),
        (&["deletions", "list"], "no deletion waits"),
    ] {
        let ran = harness.expect(0, command);
        assert_eq!(ran.stdout, "", "{command:?}");
        assert!(ran.stderr.contains(note), "{command:?}: {}", ran.stderr);
        let ran = harness.expect(0, &[command, &["--json"]].concat());
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{command:?} --json");
    }
}

/// Promises: command export
#[test]
fn export_before_the_first_complete_sweep_is_reported_as_incomplete() {
    let harness = Installation::with(PROGRAM, 25);
    let fault =
        harness.sandbox.world().inject(Fault::new(FaultEffect::status(400)).call(FaultedCall::List).page(3));
    harness.expect(1, &["sync"]);
    for format in ["csv", "jsonl"] {
        let ran = harness.expect(1, &["export", "--format", format]);
        assert!(
            ran.stderr.contains("the export is incomplete: no sweep had read all customers yet"),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.lines().count() > 9, "what is there is printed: {}", ran.stdout);
    }
    harness.sandbox.world().remove_fault(fault);
    let before = harness.one("SELECT max(observed_at) FROM changes");
    harness.expect(0, &["sync"]);
    assert_eq!(harness.expect(0, &["export", "--format", "jsonl"]).stderr, "");
    let then = harness.expect(1, &["export", "--format", "jsonl", "--as-of", &before]);
    assert!(then.stderr.contains("no sweep had read all customers by then"), "{}", then.stderr);
}

#[test]
fn moment_or_customer_outside_of_the_log_is_an_error_that_says_so() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let id = harness.sandbox.world().ids()[0].clone();
    let first = harness.one("SELECT min(observed_at) FROM changes");
    for command in [
        &["customers", "list"][..],
        &["customers", "show", &id],
        &["customers", "history", &id],
        &["export", "--format", "csv"],
        &["export", "--format", "jsonl"],
    ] {
        for (moment, part) in [
            ("2001-01-01", format!("--as-of 2001-01-01T00:00:00.000Z: the change log begins at {first}")),
            ("2999-01-01T00:00:00Z", "--as-of 2999-01-01T00:00:00.000Z: this is in the future".to_owned()),
        ] {
            let ran = harness.expect(2, &[command, &["--as-of", moment]].concat());
            assert!(ran.stdout.is_empty() && ran.stderr.contains(&part), "{command:?}: {}", ran.stderr);
        }
        let shown = harness.expect(
            0,
            &[command, &["--as-of", &harness.one("SELECT last_sweep_at FROM mirror_info")]].concat(),
        );
        assert!(!shown.stdout.is_empty(), "{command:?}");
    }

    for command in [
        &["changes", "--customer", "typo"][..],
        &["changes", "--customer", "typo", "--json"],
        &["customers", "history", "typo"],
    ] {
        let ran = harness.expect(1, command);
        assert!(
            ran.stdout.is_empty() && ran.stderr.contains("the change log knows no customer typo"),
            "{}",
            ran.stderr
        );
    }
    harness.expect(2, &["changes", "--since=-1"]);
    let nothing_new = harness.expect(0, &["changes", "--customer", &id, "--since", "3"]);
    assert_eq!((nothing_new.stdout.as_str(), nothing_new.stderr.as_str()), ("", "no change after 3\n"));
    let later = harness.sandbox.world().create(json!({"email": "later@example.jp"}));
    harness.expect(0, &["sync"]);
    let early = harness.expect(1, &["customers", "history", &later, "--as-of", &first]);
    assert!(
        early.stderr.contains(&format!("has no entry of customer {later} until {first}")),
        "{}",
        early.stderr
    );
    for (command, part) in [
        (&["customers", "show", "typo"][..], "the mirror knows no customer typo"),
        (&["intent", "show", "typo"], "there is no intent typo"),
        (&["intent", "retry", "typo"], "there is no intent typo"),
        (&["deletions", "approve", "99"], "hold 99 has no deletion to decide"),
        (&["deletions", "reject", "99"], "hold 99 has no deletion to decide"),
        (&["erase", "typo"], "typo"),
    ] {
        let ran = harness.expect(1, command);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(part), "{command:?}: {}", ran.stderr);
    }
}

#[test]
fn as_of_without_any_entry_is_an_error_until_an_empty_account_was_swept() {
    let mut harness = Installation::with(PROGRAM, 0);
    harness.use_key("sk_test_wrong");
    harness.expect(4, &["sync"]);
    let none = harness.expect(2, &["customers", "list", "--as-of", "2026-01-01"]);
    assert!(none.stderr.contains("nothing is recorded yet"), "{}", none.stderr);
    harness.use_key(KEY);
    harness.expect(0, &["sync"]);
    let swept = harness.one("SELECT last_sweep_at FROM mirror_info");
    assert_eq!(harness.expect(0, &["customers", "list", "--as-of", &swept]).stdout, "");
}

/// What a command writes on a terminal of 40 columns; `None` where no `script` makes one.
fn on_a_terminal(harness: &Installation, arguments: &[&str], no_color: &str) -> Option<String> {
    let command = harness.command(arguments);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let output = Command::new("script")
        .args(["-qec", &format!("stty cols 40; {}", quoted.join(" ")), "/dev/null"])
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn lists_on_a_terminal_have_a_header_and_fit_and_no_color_is_kept() {
    let harness = Installation::with(PROGRAM, 3);
    let Some(drawn) = on_a_terminal(&harness, &["sync"], "") else { return };
    assert!(drawn.contains("reading customers"), "{drawn}");
    let plain = on_a_terminal(&harness, &["sync"], "1").unwrap();
    assert!(
        plain.contains("complete: 3 customers") && !plain.contains('\u{1b}') && !plain.contains("reading"),
        "{plain}"
    );
    harness.expect(0, &["intent", "delete", "someone", "--id", "n1"]);
    for (arguments, header) in [
        (&["customers", "list"][..], "id "),
        (&["changes"], "     seq  observed_at "),
        (&["customers", "history", &harness.sandbox.world().ids()[0].clone()], "     seq  observed_at "),
        (&["intent", "list"], "id "),
        (&["deletions", "list"], "hold "),
    ] {
        let shown = on_a_terminal(&harness, arguments, "").unwrap();
        assert!(shown.starts_with(header), "{arguments:?}: {shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 40), "{arguments:?}: {shown}");
        assert!(!harness.run(arguments).stdout.contains("observed_at"), "other programs read entries alone");
    }
    for (no_color, is_red) in [("", true), ("1", false)] {
        let error = on_a_terminal(&harness, &["customers", "show", "typo"], no_color).unwrap();
        assert_eq!(error.contains('\u{1b}'), is_red, "{error:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_tear_the_past_apart() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch("DROP TRIGGER change_log_redacts").unwrap();
    // 1 at ten, 2 at eleven by a clock that ran ahead, 3 at half past ten by the clock set right.
    for (seq, at) in [(1, "10:00"), (2, "11:00"), (3, "10:30")] {
        let at = format!("2026-01-01T{at}:00.000Z");
        conn.execute("UPDATE change_log SET observed_at = ?2 WHERE seq = ?1", rusqlite::params![seq, at])
            .unwrap();
    }
    drop(conn);
    let live = |at: &str| {
        let as_of = format!("2026-01-01T{at}:00Z");
        harness.expect(0, &["customers", "list", "--as-of", &as_of]).stdout.lines().count()
    };
    assert_eq!([live("10:00"), live("10:15"), live("10:45"), live("11:15")], [1, 1, 3, 3]);
    harness.expect(2, &["customers", "list", "--as-of", "2026-01-01T09:00:00Z"]);
    let ahead = harness.one("SELECT customer_id FROM changes WHERE seq = 2");
    harness.expect(0, &["customers", "show", &ahead, "--as-of", "2026-01-01T10:45:00Z"]);
    harness.expect(1, &["customers", "show", &ahead, "--as-of", "2026-01-01T10:15:00Z"]);
    harness.expect(0, &["customers", "history", &ahead, "--as-of", "2026-01-01T10:45:00Z"]);
}
