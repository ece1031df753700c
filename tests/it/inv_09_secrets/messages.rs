//! Texts from the API are masked before they are stored or shown.

use komoju_sandbox::FaultEffect;
use komoju_testkit::Installation;
use serde_json::json;

use crate::PROGRAM;
use crate::inv_04_delete_needs_evidence::on_show;

#[test]
fn an_id_that_looks_like_a_secret_is_in_no_message() {
    let harness = Installation::with(PROGRAM, 12);
    let id = "tok_41111111secretsecret";
    harness.sandbox.world().put_raw(json!({"id": id, "resource": "customer"}));
    harness.expect(0, &["sync"]);
    let fault = harness.inject(on_show(FaultEffect::status(400), id));
    harness.on_lists(FaultEffect::Hide { ids: vec![id.to_owned()], every: None });
    let ran = harness.expect(1, &["sync"]);
    assert_eq!(harness.fired(fault), 1);
    assert!(ran.stderr.contains("GET /customers/****") && !ran.stderr.contains("tok_4111"), "{}", ran.stderr);

    harness.sandbox.world().clear_faults();
    harness.on_lists(FaultEffect::Hide { ids: vec![id.to_owned()], every: Some(2) });
    let harness = harness.inbound("max_delete_count = 0\nmax_delete_percent = 0");
    let ran = harness.expect(0, &["sync"]);
    assert!(ran.stderr.contains("the list leaves out") && !ran.stderr.contains("tok_4111"), "{}", ran.stderr);
}
