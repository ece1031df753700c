//! Customers and pages up to and over their limits.

use std::num::NonZeroU32;

use komoju_core::PassOutcome;
use komoju_sandbox::readings::{LastPage, Total};
use komoju_sandbox::{Fault, FaultEffect, FaultedCall};
use komoju_testkit::Installation;
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::inv_17_one_bad_customer::{marked, text, unreadable};

#[test]
fn customer_of_four_mebibytes_is_mirrored_in_any_script_and_escaping() {
    let values = |one: &str, count: usize| {
        let value = one.repeat(2000);
        let pair = |n: usize| format!("\"k{n}\":\"{value}\"");
        format!("{{{}}}", (0..count).map(pair).collect::<Vec<_>>().join(","))
    };
    let scripts = [
        ("ASCII", "x", 2000),
        ("kanji", "漢", 690),
        ("escaped kanji", "\\u6f22", 340),
        ("escaped pairs", "\\ud83d\\ude00", 170),
    ];
    for (name, one, count) in scripts {
        let (harness, id) = marked();
        harness.sandbox.world().update(&id, json!({"metadata": "MARK"}));
        harness.inject(Fault::new(FaultEffect::Rewrite {
            find: "\"MARK\"".into(),
            with: text(values(one, count)),
        }));
        let report = harness.sweep();
        assert_eq!(report.outcome, PassOutcome::Complete, "{name}: {}", report.sentence());
        assert_eq!((harness.mirror().len(), unreadable(&harness).len()), (57, 0), "{name}");
        assert_eq!(harness.mirror()[&id]["metadata"].as_object().unwrap().len(), count, "{name}");
        // A second sweep finds no difference.
        let head = harness.head();
        harness.sweep();
        assert_eq!(harness.head(), head, "{name}");
    }
}

#[test]
fn page_over_its_limit_is_read_in_parts() {
    let harness = Installation::with(PROGRAM, 57);
    let ids = harness.sandbox.world().ids();
    for id in &ids[20..40] {
        harness.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(400_000)}}));
    }
    let report = harness.sweep();
    assert_eq!(report.outcome, PassOutcome::Complete, "{}", report.sentence());
    harness.assert_true();
    assert_eq!((report.tally.pages, report.tally.customers_seen), (6, 57));
    harness.sandbox.world().delete(&ids[25]);
    let report = harness.sweep();
    assert_eq!((report.outcome, report.tally.deleted), (PassOutcome::Complete, 1), "{}", report.sentence());
    harness.assert_true();
}

#[test]
fn first_page_over_its_limit_is_read_in_parts_when_per_page_is_capped() {
    let harness = Installation::with(PROGRAM, 23);
    harness.sandbox.world().readings_mut().per_page_max = 4;
    let ids = harness.sandbox.world().ids();
    for id in &ids[..9] {
        harness.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(2_000_000)}}));
    }
    let report = harness.sweep();
    assert_eq!(report.outcome, PassOutcome::Complete, "{}", report.sentence());
    harness.assert_true();
}

#[test]
fn list_of_one_customer_over_the_limit_is_complete() {
    use komoju_sandbox::readings::PastEnd;
    for past_end in [PastEnd::Empty, PastEnd::NotFound, PastEnd::LastPage] {
        let harness = Installation::with(PROGRAM, 1);
        harness.sandbox.world().readings_mut().past_end = past_end;
        let id = harness.sandbox.world().ids()[0].clone();
        harness.sandbox.world().update(&id, json!({"metadata": {"k": "x".repeat(9_000_000)}}));
        let report = harness.sweep();
        assert_eq!(report.outcome, PassOutcome::Complete, "{past_end:?}: {}", report.sentence());
        let named = unreadable(&harness);
        assert_eq!((named.len(), &named[0]["id"]), (1, &json!(id)), "{past_end:?}: {named:?}");
    }
}

/// MOST_MEMORY_KIB limits the memory of the process: it is `MemoryHigh` of the unit, in KiB.
const MOST_MEMORY_KIB: u64 = 128 << 10;

/// Returns the peak memory of a process, in KiB.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_stays_bounded_by_large_customers() {
    let harness = Installation::with(PROGRAM, 57);
    harness.expect(0, &["sync"]);
    // Very many small values, the longest string, and a page far over its limit.
    let pairs = |count: u32| (0..count).map(|n| (format!("k{n:06}"), json!("v"))).collect::<Value>();
    let large = [pairs(95_000), json!({"k": "x".repeat(4_190_000)}), json!(vec![0; 99_000])];
    let ids = harness.sandbox.world().ids();
    // First the metadata is new; then only the email changes.
    for email in ["first@example.com", "second@example.com"] {
        for (n, id) in ids[10..16].iter().enumerate() {
            harness.sandbox.world().update(id, json!({"email": email, "metadata": large[n % 3]}));
        }
        // The sweep is complete, and the process still runs while its push waits for an answer.
        harness.expect(0, &["intent", "create", "--metadata", "n=1"]);
        let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
        let sync = harness.spawn(&["sync"]);
        harness.runtime.block_on(harness.sandbox.until(|world| world.fired(held) == 1));
        let peak = peak(sync.id());
        harness.sandbox.world().remove_fault(held);
        let output = sync.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(peak < MOST_MEMORY_KIB, "{peak} KiB");
    }
    harness.assert_true();
}

/// Returns the peak memory of a sweep of this many unchanged customers, in KiB.
fn peak_of_a_sweep(customers: u32) -> u64 {
    let harness = Installation::with(PROGRAM, customers);
    harness.replace_in_config("per_page = 10\n", "per_page = 100\n");
    harness.expect(0, &["sync"]);
    // The sweep is complete, and the process still runs while its push waits for an answer.
    harness.intend("n", "create", None, Some(json!({"email": "new@example.com"})));
    let held = harness.inject(Fault::new(FaultEffect::Hold).call(FaultedCall::Create));
    let sync = harness.spawn(&["sync"]);
    harness.until(|world| world.fired(held) == 1);
    let peak = peak(sync.id());
    harness.sandbox.world().remove_fault(held);
    assert!(sync.wait_with_output().unwrap().status.success());
    peak
}

#[test]
fn sweep_takes_a_few_bytes_for_each_further_customer() {
    let (few, many) = (2_000, 22_000);
    let grown = peak_of_a_sweep(many).saturating_sub(peak_of_a_sweep(few));
    // A customer has more than 500 bytes of JSON.
    assert!(grown * 1024 < u64::from(many - few) * 200, "{grown} KiB for {} customers", many - few);
}

#[test]
fn page_over_its_limit_is_read_to_its_end_when_its_parts_are_short_or_empty() {
    // Of the larger ones, each has a part of its own. The list leaves some of these parts empty.
    for (bytes, hints) in [(600_000, true), (1_400_000, true), (1_400_000, false)] {
        let harness = Installation::with(PROGRAM, 57);
        let ids = harness.sandbox.world().ids();
        for id in &ids[20..40] {
            harness.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(bytes)}}));
        }
        // The list leaves out 15 customers, and its `total` counts them.
        harness.sandbox.world().readings_mut().filtered_every = NonZeroU32::new(4);
        if !hints {
            harness.sandbox.world().readings_mut().total = Total::Missing;
            harness.sandbox.world().readings_mut().last_page = LastPage::Missing;
        }
        let report = harness.sweep();
        assert_eq!(harness.mirror().len(), 42, "{bytes} bytes, hints {hints}: {}", report.sentence());
    }
}

/// Returns an account with this number of customers, of which the first have two megabytes each.
fn with_large(customers: u32, large: usize) -> Installation {
    let harness = Installation::with(PROGRAM, customers);
    let ids = harness.sandbox.world().ids();
    for id in &ids[..large] {
        harness.sandbox.world().update(id, json!({"metadata": {"k": "x".repeat(2_000_000)}}));
    }
    harness
}

#[test]
fn page_over_its_limit_is_read_to_its_end_though_last_page_is_too_small() {
    let harness = with_large(3, 3);
    harness.sandbox.world().readings_mut().total = Total::Missing;
    harness.sandbox.world().readings_mut().last_page = LastPage::Divisor(25.try_into().unwrap());
    let report = harness.sweep();
    assert_eq!(harness.mirror().len(), 3, "{}", report.sentence());
}

#[test]
fn parts_behind_the_end_of_the_list_are_not_requested() {
    let harness = with_large(3, 3);
    let report = harness.sweep();
    // The page, its half, the three customers, and an empty part.
    assert_eq!(report.tally.requests, 6, "{}", report.sentence());
    harness.assert_true();
}

#[test]
fn failure_of_a_part_is_not_the_end_of_the_list() {
    let harness = with_large(3, 3);
    let fault = harness.inject(Fault::new(FaultEffect::status(403)).call(FaultedCall::List).page(3));
    let report = harness.sweep();
    assert!(harness.fired(fault) > 0);
    assert_eq!(report.outcome, PassOutcome::Failed, "{}", report.sentence());
}

#[test]
fn sweep_fails_when_the_api_ignores_a_smaller_per_page() {
    let harness = Installation::with(PROGRAM, 5);
    // Each answer is too large, and its envelope has the size of the first request.
    let first = format!("{{\"id\":\"large\",\"metadata\":{{\"k\":\"{}\"}}}}", "x".repeat(9_000_000));
    for (find, with) in [
        ("\"per_page\":5,", "\"per_page\":10,".to_owned()),
        ("\"per_page\":1,", "\"per_page\":10,".to_owned()),
        ("\"data\":[", format!("\"data\":[{first},")),
    ] {
        harness.inject(Fault::new(FaultEffect::Rewrite { find: find.into(), with: text(with) }));
    }
    let report = harness.sweep();
    assert_eq!(report.outcome, PassOutcome::Failed, "{}", report.sentence());
    assert!(report.sentence().contains("10 customers a page even if fewer"), "{}", report.sentence());
    assert_eq!(unreadable(&harness).len(), 0, "no customer is reported as unreadable");
}

#[test]
fn capped_first_page_over_its_limit_is_not_reported_as_repeated() {
    let harness = with_large(23, 4);
    harness.sandbox.world().readings_mut().per_page_max = 4;
    let report = harness.sweep();
    let outcome = (report.outcome, report.ignores_page);
    assert_eq!(outcome, (PassOutcome::Complete, false), "{}", report.sentence());
    harness.assert_true();
}
