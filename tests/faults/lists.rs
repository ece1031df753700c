//! Lists that say something else than what is.

use komoju_sync::sandbox::{Echo, Effect};
use serde_json::{Map, Value, json};

use crate::matrix::Ends::Fails;
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

fn says(fields: Value) -> Effect {
    let Value::Object(fields) = fields else { panic!("{fields} is no object") };
    Effect::Envelope { fields }
}

faults![
    (
        a_negative_total,
        "total negative",
        "the second page says that its `total` is -5",
        Fails("GET /customers page 2: the answer's \"total\" is -5, not a whole number"),
        Done,
        |case| case.second_page(says(json!({"total": -5}))),
    ),
    (
        a_total_that_shrinks,
        "total shrinking",
        "the second page says that its `total` is 5",
        Fails("GET /customers page 2: the answer contradicts itself: total 5 at per_page 10 makes 1 pages"),
        Done,
        |case| case.second_page(says(json!({"total": 5}))),
    ),
    (
        a_list_that_says_it_ends_here,
        "total shrinking",
        "each page says that there are 20 customers on 2 pages",
        Fails("the list was cut short: it left out"),
        Done,
        |case| case.lists(says(json!({"total": 20, "last_page": 2}))),
    ),
    (
        an_enormous_total,
        "total enormous",
        "the second page says that its `total` is 2 to the power of 64",
        Fails("GET /customers page 2: the answer's \"total\" is 18446744073709551616, not a whole number"),
        Done,
        |case| case.second_page(says(serde_json::from_str(r#"{"total": 18446744073709551616}"#).unwrap())),
    ),
    (
        a_total_that_is_text,
        "total text",
        "the second page says that its `total` is \"57\"",
        Fails("GET /customers page 2: the answer's \"total\" is \"57\", not a whole number"),
        Done,
        |case| case.second_page(says(json!({"total": "57"}))),
    ),
    (
        a_total_that_is_null,
        "total null",
        "the second page says that its `total` is null",
        Fails("GET /customers page 2: the answer's \"total\" is null, not a whole number"),
        Done,
        |case| case.second_page(says(json!({"total": null}))),
    ),
    (
        a_negative_last_page,
        "last_page negative",
        "the second page says that its `last_page` is -1",
        Fails("GET /customers page 2: the answer's \"last_page\" is -1, not a whole number"),
        Done,
        |case| case.second_page(says(json!({"last_page": -1}))),
    ),
    (
        a_last_page_that_shrinks,
        "last_page shrinking",
        "the second page says that it is the last",
        Fails(
            "GET /customers page 2: the answer contradicts itself: total 57 at per_page 10 makes 6 pages, last_page says 2"
        ),
        Done,
        |case| case.second_page(says(json!({"last_page": 2}))),
    ),
    (
        an_enormous_last_page,
        "last_page enormous",
        "the second page says that its `last_page` is a billion",
        Fails(
            "GET /customers page 2: the answer contradicts itself: total 57 at per_page 10 makes 6 pages, last_page says 1000000000"
        ),
        Done,
        |case| case.second_page(says(json!({"last_page": 1_000_000_000}))),
    ),
    (
        a_last_page_that_is_text,
        "last_page text",
        "the second page says that its `last_page` is \"6\"",
        Fails("GET /customers page 2: the answer's \"last_page\" is \"6\", not a whole number"),
        Done,
        |case| case.second_page(says(json!({"last_page": "6"}))),
    ),
    (
        a_last_page_that_is_null,
        "last_page null",
        "the second page says that its `last_page` is null",
        Fails("GET /customers page 2: the answer's \"last_page\" is null, not a whole number"),
        Done,
        |case| case.second_page(says(json!({"last_page": null}))),
    ),
    (
        the_same_page_for_ever,
        "the same page for ever",
        "whatever page is asked for, the first one comes under its number",
        Fails("page 2: the page holds the same customers as the one before it"),
        Done,
        |case| case.lists(Effect::SamePage { page: 1, echo: Echo::Asked }),
    ),
    (
        the_first_page_for_ever,
        "the same page for ever",
        "whatever page is asked for, the first one comes",
        Fails("GET /customers page 2: page 2 was asked for and page 1 came"),
        Done,
        |case| case.lists(Effect::SamePage { page: 1, echo: Echo::Answered }),
    ),
    (
        one_customer_twice,
        "an id twice with different content",
        "the second page lists one customer twice, with different content",
        Fails("GET /customers page 2: the page"),
        Done,
        |case| {
            let change = Map::from_iter([("email".to_owned(), json!("twice@example.com"))]);
            case.second_page(Effect::Twice { change });
        },
    ),
    (
        an_empty_list,
        "an empty list after a full one",
        "the list is empty, though nobody is gone",
        Fails("the list was cut short: it left out"),
        Done,
        |case| case.lists(Effect::EmptyList),
    ),
    (
        the_first_half_of_a_list,
        "a half list",
        "the list ends after half of the customers",
        Fails("the list was cut short: it left out"),
        Done,
        |case| case.lists(Effect::ShortList { keep: 28 }),
    ),
    (
        every_second_customer,
        "a half list",
        "every second customer is missing from the list",
        Fails("the list was cut short: it left out"),
        Done,
        |case| case.lists(Effect::Hide { ids: Vec::new(), every: Some(2) }),
    ),
];
