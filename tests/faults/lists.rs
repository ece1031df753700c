//! Lists that contradict the customers that exist.
//!
//! Promises: invariant 4

use komoju_sandbox::{Echo, Fault, FaultEffect, FaultedCall};
use serde_json::{Map, Value, json};

use crate::case::Case;
use crate::matrix::Ends::{Complete, Partial, Waits};
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

fn says(fields: Value) -> FaultEffect {
    let Value::Object(fields) = fields else { panic!("{fields} is no object") };
    FaultEffect::Envelope { fields }
}

faults![
    (
        negative_total,
        "total negative",
        "the second page reports a `total` of -5",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": -5}))),
    ),
    (
        total_shrinks,
        "total shrinking",
        "the second page reports a `total` of 5",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": 5}))),
    ),
    (
        list_longer_than_its_hints,
        "total shrinking",
        "each page reports a `total` of 20 and a `last_page` of 2",
        Complete("total says 20, 57 are listed"),
        Done,
        |case| {
            case.lists(says(json!({"total": 20, "last_page": 2})));
            case.harness.assert_true();
        },
    ),
    (
        enormous_total,
        "total enormous",
        "the second page reports a `total` of 2 to the power of 64",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(serde_json::from_str(r#"{"total": 18446744073709551616}"#).unwrap())),
    ),
    (
        total_is_text,
        "total text",
        "the second page reports a `total` of \"57\"",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": "57"}))),
    ),
    (
        total_is_null,
        "total null",
        "the second page reports a `total` of null",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": null}))),
    ),
    (
        negative_last_page,
        "last_page negative",
        "the second page reports a `last_page` of -1",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": -1}))),
    ),
    (
        last_page_shrinks,
        "last_page shrinking",
        "the second page reports itself as the `last_page`",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": 2}))),
    ),
    (
        enormous_last_page,
        "last_page enormous",
        "the second page reports a `last_page` of a billion",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": 1_000_000_000}))),
    ),
    (
        last_page_is_text,
        "last_page text",
        "the second page reports a `last_page` of \"6\"",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": "6"}))),
    ),
    (
        last_page_is_null,
        "last_page null",
        "the second page reports a `last_page` of null",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": null}))),
    ),
    (
        first_page_for_every_number_asked,
        "the same page for every request",
        "every request for a page is answered with the first page, under the requested number",
        Waits("the API may ignore `page`"),
        Done,
        |case| case.repeats_first_page(Echo::Asked),
    ),
    (
        first_page_under_its_own_number,
        "the same page for every request",
        "every request for a page is answered with the first page, under its own number",
        Waits("the API may ignore `page`"),
        Done,
        |case| case.repeats_first_page(Echo::Answered),
    ),
    (
        one_customer_twice,
        "an id twice with different content",
        "the second page lists one customer twice, with different content",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            let change = Map::from_iter([("email".to_owned(), json!("twice@example.com"))]);
            case.second_page(FaultEffect::Twice { change });
        },
    ),
    (
        empty_list,
        "an empty list after a full one",
        "the list is empty, although only one customer was deleted",
        Waits("held      1 deletion"),
        Done,
        |case| {
            case.lists(FaultEffect::EmptyList);
            assert_eq!(case.requested_alone(200), 56, "each living customer is verified");
            assert_eq!(case.requested_alone(404), 1);
            assert_eq!(case.deleted_by_passes(), 0, "no listed customer can be the canary");
        },
    ),
    (
        first_half_of_a_list,
        "a half list",
        "the list ends after half of the customers",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.lists(FaultEffect::ShortList { keep: 28 });
            assert_eq!(case.requested_alone(200), 29 + 1, "the other half, and a canary");
            case.harness.assert_true();
        },
    ),
    (
        every_second_customer,
        "a half list",
        "every second customer is missing from the list",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.lists(FaultEffect::Hide { ids: Vec::new(), every: Some(2) });
            assert_eq!(case.requested_alone(200), 29 + 1, "the hidden customers, and a canary");
            case.harness.assert_true();
        },
    ),
    (
        short_list_of_many,
        "a half list",
        "the list ends after 28 of 207 customers, which is more than a pass may verify",
        Partial("neither listed nor verified"),
        Done,
        |case| {
            for _ in 0..150 {
                case.harness.sandbox.world().create(json!({}));
            }
            case.harness.expect(0, &["sync"]);
            case.harness.assert_true();
            case.harness.sandbox.world().clear_requests();
            case.inject(Fault::new(FaultEffect::ShortList { keep: 28 }).call(FaultedCall::List));
            // 207 are live, 28 are listed and 100 are verified by single requests: 79 are left.
            let ran = case.endure_by_binary();
            assert!(ran.stderr.contains("79 customers were neither listed nor verified"), "{}", ran.stderr);
            assert_eq!(case.requested_alone(200), 100);
            case.harness.assert_true();
            // The next sweep verifies the rest.
            case.harness.sandbox.world().clear_requests();
            case.harness.expect(0, &["sync"]);
            assert_eq!(case.requested_alone(200), 79);
        },
    ),
    (
        deletions_within_a_half_list,
        "a half list",
        "every second customer is missing from the list, and 13 are deleted: 3 more than a pass may delete",
        Waits("held      3 deletions"),
        Done,
        |case| {
            case.delete_known(12);
            case.lists(FaultEffect::Hide { ids: Vec::new(), every: Some(2) });
            assert_eq!(case.deleted_by_passes(), 10);
            case.harness.expect(0, &["deletions", "approve"]);
        },
    ),
    (
        mass_deletion,
        "a mass deletion",
        "21 customers are deleted at once, more than a pass may delete",
        Waits("21 deletions wait for an operator"),
        Done,
        |case| {
            let gone = case.delete_known(20);
            case.fired_when(|harness| harness.one("SELECT count(*) FROM held_deletions").parse().unwrap());
            case.endure_by_binary();
            assert_eq!(case.requested_alone(404), 20, "a sample");
            assert_eq!(case.deleted_by_passes(), 0);
            assert!(gone.iter().all(|id| case.harness.mirror().contains_key(id)));
            case.harness.expect(0, &["deletions", "approve"]);
        },
    ),
];

impl Case {
    /// Deletes this number of mirrored customers, besides the one that each case deletes.
    fn delete_known(&self, count: usize) -> Vec<String> {
        let known: Vec<String> = self.harness.mirror().into_keys().collect();
        let mut world = self.harness.sandbox.world();
        let others = known.into_iter().filter(|id| self.has_no_intent(id));
        let gone: Vec<String> = others.filter(|id| world.delete(id)).take(count).collect();
        assert_eq!(gone.len(), count);
        gone
    }

    /// Answers every page with the first one, while `total` counts more customers. All others are
    /// verified by single requests.
    fn repeats_first_page(&mut self, echo: Echo) {
        self.inject(Fault::new(FaultEffect::SamePage { page: 1, echo }).call(FaultedCall::List));
        self.endure_by_binary();
        assert_eq!(self.requested_alone(200), 47 + 1, "the customers of the other pages, and a canary");
        assert_eq!(self.requested_alone(404), 1);
        assert_eq!(self.deleted_by_passes(), 1);
        self.harness.assert_true();
    }
}
