//! Lists that say something else than what is.
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
        a_negative_total,
        "total negative",
        "the second page says that its `total` is -5",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": -5}))),
    ),
    (
        a_total_that_shrinks,
        "total shrinking",
        "the second page says that its `total` is 5",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": 5}))),
    ),
    (
        a_list_that_says_it_ends_here,
        "total shrinking",
        "each page says that there are 20 customers on 2 pages",
        Complete("total says 20, 57 are listed"),
        Done,
        |case| {
            case.lists(says(json!({"total": 20, "last_page": 2})));
            case.harness.assert_true();
        },
    ),
    (
        an_enormous_total,
        "total enormous",
        "the second page says that its `total` is 2 to the power of 64",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(serde_json::from_str(r#"{"total": 18446744073709551616}"#).unwrap())),
    ),
    (
        a_total_that_is_text,
        "total text",
        "the second page says that its `total` is \"57\"",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": "57"}))),
    ),
    (
        a_total_that_is_null,
        "total null",
        "the second page says that its `total` is null",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"total": null}))),
    ),
    (
        a_negative_last_page,
        "last_page negative",
        "the second page says that its `last_page` is -1",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": -1}))),
    ),
    (
        a_last_page_that_shrinks,
        "last_page shrinking",
        "the second page says that it is the last",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": 2}))),
    ),
    (
        an_enormous_last_page,
        "last_page enormous",
        "the second page says that its `last_page` is a billion",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": 1_000_000_000}))),
    ),
    (
        a_last_page_that_is_text,
        "last_page text",
        "the second page says that its `last_page` is \"6\"",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": "6"}))),
    ),
    (
        a_last_page_that_is_null,
        "last_page null",
        "the second page says that its `last_page` is null",
        Complete("57 live, 2 deleted"),
        Done,
        |case| case.second_page(says(json!({"last_page": null}))),
    ),
    (
        the_same_page_for_ever,
        "the same page for ever",
        "whatever page is asked for, the first one comes under its number",
        Waits("the API may ignore `page`"),
        Done,
        |case| case.repeats_first_page(Echo::Asked),
    ),
    (
        the_first_page_for_ever,
        "the same page for ever",
        "whatever page is asked for, the first one comes",
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
        an_empty_list,
        "an empty list after a full one",
        "the list is empty, though only one customer was deleted",
        Waits("held      1 deletion"),
        Done,
        |case| {
            case.lists(FaultEffect::EmptyList);
            assert_eq!(case.asked_alone(200), 56, "each living customer is verified");
            assert_eq!(case.asked_alone(404), 1);
            assert_eq!(case.deleted_by_passes(), 0, "no listed customer can be the canary");
        },
    ),
    (
        the_first_half_of_a_list,
        "a half list",
        "the list ends after half of the customers",
        Complete("57 live, 2 deleted"),
        Done,
        |case| {
            case.lists(FaultEffect::ShortList { keep: 28 });
            assert_eq!(case.asked_alone(200), 29 + 1, "the other half, and a canary");
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
            assert_eq!(case.asked_alone(200), 29 + 1, "the hidden customers, and a canary");
            case.harness.assert_true();
        },
    ),
    (
        a_short_list_of_many,
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
            // 207 live, 28 listed, 100 verified by single requests: 79 are left.
            let ran = case.endure_by_binary();
            assert!(ran.stderr.contains("79 customers were neither listed nor verified"), "{}", ran.stderr);
            assert_eq!(case.asked_alone(200), 100);
            case.harness.assert_true();
            // The next sweep verifies the rest.
            case.harness.sandbox.world().clear_requests();
            case.harness.expect(0, &["sync"]);
            assert_eq!(case.asked_alone(200), 79);
        },
    ),
    (
        deletions_within_a_half_list,
        "a half list",
        "every second customer is missing from the list, and 13 are deleted: 3 more than a pass may delete",
        Waits("held      3 deletions"),
        Done,
        |case| {
            case.deletes_of_known(12);
            case.lists(FaultEffect::Hide { ids: Vec::new(), every: Some(2) });
            assert_eq!(case.deleted_by_passes(), 10);
            case.harness.expect(0, &["deletions", "approve"]);
        },
    ),
    (
        a_mass_deletion,
        "a mass deletion",
        "21 customers are deleted at once, more than a pass may delete",
        Waits("21 deletions wait for an operator"),
        Done,
        |case| {
            let gone = case.deletes_of_known(20);
            case.fired_when(|harness| harness.one("SELECT count(*) FROM held_deletions").parse().unwrap());
            case.endure_by_binary();
            assert_eq!(case.asked_alone(404), 20, "a sample");
            assert_eq!(case.deleted_by_passes(), 0);
            assert!(gone.iter().all(|id| case.harness.mirror().contains_key(id)));
            case.harness.expect(0, &["deletions", "approve"]);
        },
    ),
];

impl Case {
    /// Deletes so many customers that the mirror knows, beside the one that is deleted in each case.
    fn deletes_of_known(&self, count: usize) -> Vec<String> {
        let known: Vec<String> = self.harness.mirror().into_keys().collect();
        let mut world = self.harness.sandbox.world();
        let others = known.into_iter().filter(|id| self.is_left_alone(id));
        let gone: Vec<String> = others.filter(|id| world.delete(id)).take(count).collect();
        assert_eq!(gone.len(), count);
        gone
    }

    /// The first page comes for every other one, and the list counts more customers: all are verified by single requests.
    fn repeats_first_page(&mut self, echo: Echo) {
        self.inject(Fault::new(FaultEffect::SamePage { page: 1, echo }).call(FaultedCall::List));
        self.endure_by_binary();
        assert_eq!(self.asked_alone(200), 47 + 1, "the customers of the other pages, and a canary");
        assert_eq!(self.asked_alone(404), 1);
        assert_eq!(self.deleted_by_passes(), 1);
        self.harness.assert_true();
    }
}
