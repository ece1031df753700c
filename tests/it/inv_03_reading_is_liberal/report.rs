//! What `status` and `doctor` say of a list that is imprecise, of reads that lag, and of a partial sweep.

use std::num::NonZeroU32;

use komoju_core::Outcome;
use komoju_sandbox::readings::{LastPage, Total};
use komoju_sandbox::{Echo, Fault, FaultEffect, FaultedCall};
use komoju_testkit::{Installation, own};
use serde_json::{Value, json};

use crate::PROGRAM;

fn status(harness: &Installation, code: i32) -> (String, Value) {
    let json = harness.expect(code, &["status", "--json"]).stdout;
    (harness.expect(code, &["status"]).stdout, serde_json::from_str(&json).unwrap())
}

/// What `doctor` says of the list: the level and the finding of each line.
fn doctor(harness: &Installation, code: i32) -> Vec<(String, String)> {
    let told = harness.expect(code, &["doctor", "--json"]).stdout;
    let findings = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_list = findings.filter(|finding| finding["check"] == "list");
    of_list.map(|f| (f["level"].as_str().unwrap().to_owned(), f["finding"].to_string())).collect()
}

#[test]
fn exact_list_is_not_mentioned() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    let (text, json) = status(&harness, 0);
    assert!(!text.contains("\nlist ") && !text.contains("\nlag "), "{text}");
    let expected = json!({
        "imprecise": [], "ignores_page": false, "verified": 0, "verified_at": null, "long_unlisted": 0,
        "long_unlisted_first": null, "longest_lag_s": null, "lag_exceeded_at": null
    });
    assert_eq!(json["list"], expected);
    assert_eq!(doctor(&harness, 0), []);
}

#[test]
fn imprecise_list_is_described_with_what_was_expected_and_seen() {
    let harness = Installation::with(PROGRAM, 60);
    harness.expect(0, &["sync"]);
    {
        let mut world = harness.sandbox.world();
        let readings = world.readings_mut();
        (readings.total, readings.last_page) = (Total::Off(3), LastPage::Missing);
        readings.filtered_every = NonZeroU32::new(20);
    }
    for _ in 0..3 {
        harness.expect(0, &["sync"]);
    }
    let (text, json) = status(&harness, 0);
    let list = &json["list"];
    assert_eq!(list["imprecise"][0], "total says 63, 57 are listed", "{list}");
    assert_eq!(list["imprecise"][1], "last_page is missing", "{list}");
    assert_eq!((&list["verified"], &list["long_unlisted"]), (&json!(3), &json!(3)));
    let first = list["long_unlisted_first"].as_str().unwrap();
    assert!(harness.mirror().contains_key(first));
    assert!(
        text.contains("list      imprecise: total says 63, 57 are listed, last_page is missing"),
        "{text}"
    );
    assert!(text.contains("3 customers are verified by single requests, the last "), "{text}");
    let long =
        format!("list      3 customers answer and were not listed for three sweeps: {first} (and 2 more)");
    assert!(text.contains(&long), "{text}");
    let told = doctor(&harness, 0);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "warn");
    assert!(told[0].1.contains("total says 63, 57 are listed"), "{told:?}");
}

#[test]
fn api_that_ignores_page_needs_an_operator() {
    let harness = Installation::with(PROGRAM, 60);
    harness.inject(Fault::new(FaultEffect::SamePage { page: 1, echo: Echo::Asked }).call(FaultedCall::List));
    harness.expect(3, &["sync"]);
    let (text, json) = status(&harness, 3);
    assert_eq!(json["list"]["ignores_page"], true);
    assert!(text.contains("the API may ignore `page`"), "{text}");
    let told = doctor(&harness, 3);
    assert!(told[0].1.contains("the API may ignore `page`"), "{told:?}");
    harness.sandbox.world().clear_faults();
    harness.expect(0, &["sync"]);
    let (_, json) = status(&harness, 0);
    assert_eq!(json["list"]["ignores_page"], false);
}

#[test]
fn partial_sweep_is_named_and_fails_status_only_when_the_last_complete_one_is_too_old() {
    let harness = Installation::with(PROGRAM, 30);
    harness.expect(0, &["sync"]);
    let ids = vec![harness.sandbox.world().ids()[2].clone()];
    harness.on_lists(FaultEffect::Hide { ids, every: None });
    harness.inject(Fault::new(FaultEffect::status(403)).call(FaultedCall::Show));
    harness.expect(1, &["sync"]);
    let (text, json) = status(&harness, 0);
    assert_eq!(json["last_sweep"]["outcome"], Outcome::Partial.word());
    let said = "; the last one is partial: 1 customer was neither listed nor verified";
    let sweep = text.lines().find(|line| line.starts_with("sweep ")).unwrap();
    assert!(sweep.contains("complete ") && sweep.ends_with(said), "{text}");
    let told = harness.expect(0, &["doctor"]).stdout;
    assert!(told.contains("the last sweep is partial: 1 customer"), "{told}");

    own(&harness.path("komoju.db")).execute("DELETE FROM pass WHERE outcome = 'complete'", []).unwrap();
    let (text, _) = status(&harness, 1);
    assert!(text.contains(&format!("sweep     none is complete yet{said}")), "{text}");
}

/// Promises: key inbound.consistency_s
#[test]
fn lag_of_reads_is_shown_and_a_longer_one_than_configured_asks_to_raise_the_setting() {
    let harness = Installation::with(PROGRAM, 3);
    harness.expect(0, &["sync"]);
    let conn = own(&harness.path("komoju.db"));
    conn.execute_batch(
        "UPDATE meta SET longest_lag_ms = 4210, lag_exceeded_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-6 days')",
    )
    .unwrap();
    let (text, json) = status(&harness, 0);
    assert_eq!(json["list"]["longest_lag_s"], 4.21);
    assert!(text.contains("lag       reads lagged by 4.2 s or more\n"), "{text}");
    assert!(
        text.contains("lag       reads may lag longer than inbound.consistency_s (0 s), last seen at "),
        "{text}"
    );
    let told = doctor(&harness, 0);
    assert!(told.len() == 1 && told[0].0 == "warn" && told[0].1.contains("raise it"), "{told:?}");
    conn.execute_batch("UPDATE meta SET lag_exceeded_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-8 days')")
        .unwrap();
    assert_eq!(status(&harness, 0).1["list"]["lag_exceeded_at"], Value::Null);
}
