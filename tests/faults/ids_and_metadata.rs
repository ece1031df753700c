//! Customers with unexpected ids or metadata.
//!
//! Promises: invariant 17

use komoju_sandbox::{Fault, FaultEffect, Payload};
use serde_json::{Value, json};

use crate::case::Case;
use crate::matrix::Ends::{Complete, Unreadable};
use crate::matrix::Outbox::Done;
use crate::matrix::faults;

faults![
    (
        id_with_a_parent_path,
        "an id with `../`",
        "a customer has the id `../customers/x`",
        Complete("58 live"),
        Done,
        |case| case.mirrors_id("../customers/x"),
    ),
    (
        id_with_an_escape,
        "an id with `%2e`",
        "a customer has the id `%2e%2e%2fx`",
        Complete("58 live"),
        Done,
        |case| case.mirrors_id("%2e%2e%2fx"),
    ),
    (
        id_with_a_query,
        "an id with `?`",
        "a customer has the id `a?b=c#d&e`",
        Complete("58 live"),
        Done,
        |case| case.mirrors_id("a?b=c#d&e"),
    ),
    (
        id_with_nul,
        "an id with NUL",
        "the list shows a customer with NUL in its id",
        Unreadable("its id holds a NUL"),
        Done,
        |case| case.is_shown(json!({"id": "a\0b", "resource": "customer"})),
    ),
    (
        id_with_emoji,
        "an id with emoji",
        "a customer has the id `👩‍👩‍👧§`",
        Complete("58 live"),
        Done,
        |case| case.mirrors_id("👩‍👩‍👧§"),
    ),
    (
        id_of_a_megabyte,
        "an id of a megabyte",
        "the list shows a customer with an id of a megabyte",
        Unreadable("its id is 1048576 bytes long"),
        Done,
        |case| case.is_shown(json!({"id": "x".repeat(1 << 20), "resource": "customer"})),
    ),
    (
        id_of_two_kilobytes,
        "an id of a megabyte",
        "the list shows a customer with an id of two kilobytes",
        Unreadable("its id is 2000 bytes long"),
        Done,
        |case| case.is_shown(json!({"id": "x".repeat(2000), "resource": "customer"})),
    ),
    (
        no_id,
        "no id at all",
        "the list shows a customer without an id",
        Unreadable("it has no id"),
        Done,
        |case| case.is_shown(json!({"resource": "customer", "email": "no-id@example.com"})),
    ),
    (
        metadata_nested_too_deep,
        "metadata nested",
        "the list shows a customer with metadata nested a thousand levels deep",
        Unreadable("customer odd (page 1, position 1) is unreadable"),
        Done,
        |case| case.is_deep(1000),
    ),
    (
        huge_metadata,
        "metadata huge",
        "a customer's metadata has 200 KB in two thousand keys",
        Complete("58 live"),
        Done,
        |case| case.holds(keys(2000)),
    ),
    (
        metadata_of_a_megabyte,
        "metadata huge",
        "a customer's metadata has a megabyte",
        Complete("58 live"),
        Done,
        |case| case.holds(keys(10_000)),
    ),
    (
        metadata_of_nine_megabytes,
        "metadata huge",
        "the list shows a customer with nine megabytes of metadata",
        Unreadable("customer odd (page 1, position 1) is unreadable"),
        Done,
        |case| case.is_shown(json!({"id": "odd", "metadata": keys(90_000)})),
    ),
    (null_metadata, "metadata null", "a customer's metadata is null", Complete("58 live"), Done, |case| case
        .holds(Value::Null),),
    (
        metadata_that_is_an_array,
        "metadata an array",
        "a customer's metadata is an array",
        Complete("58 live"),
        Done,
        |case| case.holds(json!(["a", {"b": null}])),
    ),
];

/// Returns this number of keys, each with its value of about a hundred bytes.
fn keys(count: u32) -> Value {
    (0..count)
        .map(|n| (format!("key-{n:05}"), json!("v".repeat(82))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

impl Case {
    /// Creates a customer with this id. Asserts that it is mirrored, changed by an intent, and
    /// deleted with evidence like any other.
    fn mirrors_id(&mut self, id: &'static str) {
        self.harness
            .sandbox
            .world()
            .put_raw(json!({"id": id, "resource": "customer", "email": null, "metadata": {}}));
        self.fired_when(move |harness| {
            harness.column("SELECT customer_id FROM changes").iter().filter(|known| *known == id).count()
                as u64
        });
        self.endure();
        // Any id is mirrored. A door takes only an id that is safe in a URL.
        let update = ["intent", "update", id, "--email", "odd@example.com", "--id", "x-odd"];
        if id.contains(['/', '%', '?', '#']) {
            self.harness.expect(2, &update);
        } else {
            self.harness.expect(0, &update);
            self.harness.expect(0, &["sync"]);
            assert_eq!(self.harness.sandbox.world().get(id).unwrap()["email"], "odd@example.com");
        }
        self.harness.assert_true();
        assert!(self.harness.sandbox.world().delete(id));
        self.harness.expect(0, &["sync"]);
        assert_eq!(
            self.harness
                .column("SELECT id FROM deleted_customers ORDER BY id")
                .iter()
                .filter(|gone| *gone == id)
                .count(),
            1
        );
    }

    /// Creates a customer that answers show like this until the fault is over.
    pub fn is_shown(&mut self, customer: Value) {
        self.is_shown_as(Payload::Text(customer.to_string()));
    }

    /// Does the same with any bytes.
    pub fn is_shown_as(&mut self, with: Payload) {
        // The keys are in the order in which KOMOJU writes them.
        let customer = r#"{"id":"odd","resource":"customer","email":"odd@example.com"}"#;
        self.harness.sandbox.world().put_raw(serde_json::from_str(customer).unwrap());
        self.inject(Fault::new(FaultEffect::Rewrite { find: customer.to_owned(), with }));
        self.fired_when(|harness| harness.one("SELECT count(*) FROM unreadable_customers").parse().unwrap());
        self.endure();
    }

    /// Creates a customer with metadata nested too deep for a value of this process.
    fn is_deep(&mut self, levels: usize) {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        self.is_shown_as(Payload::Text(format!(r#"{{"id":"odd","metadata":{open}{close}}}"#)));
    }

    /// Creates a customer with this metadata. Asserts that it is mirrored unchanged.
    fn holds(&mut self, metadata: Value) {
        self.harness
            .sandbox
            .world()
            .put_raw(json!({"id": "odd", "resource": "customer", "metadata": metadata}));
        self.fired_when(move |harness| {
            u64::from(harness.mirror().get("odd").is_some_and(|body| body["metadata"] == metadata))
        });
        self.endure();
    }
}
