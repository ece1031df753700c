//! Customers whose ids and metadata are not what anybody expects.
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
        an_id_that_climbs,
        "an id with `../`",
        "a customer is called `../customers/x`",
        Complete("58 live"),
        Done,
        |case| case.knows("../customers/x"),
    ),
    (
        an_id_with_an_escape,
        "an id with `%2e`",
        "a customer is called `%2e%2e%2fx`",
        Complete("58 live"),
        Done,
        |case| case.knows("%2e%2e%2fx"),
    ),
    (
        an_id_with_a_query,
        "an id with `?`",
        "a customer is called `a?b=c#d&e`",
        Complete("58 live"),
        Done,
        |case| case.knows("a?b=c#d&e"),
    ),
    (
        an_id_with_nul,
        "an id with NUL",
        "the list shows a customer whose id holds NUL",
        Unreadable("its id holds a NUL"),
        Done,
        |case| case.is_shown(json!({"id": "a\0b", "resource": "customer"})),
    ),
    (
        an_id_with_emoji,
        "an id with emoji",
        "a customer is called `👩‍👩‍👧§`",
        Complete("58 live"),
        Done,
        |case| case.knows("👩‍👩‍👧§"),
    ),
    (
        an_id_of_a_megabyte,
        "an id of a megabyte",
        "the list shows a customer whose id has a megabyte",
        Unreadable("its id is 1048576 bytes long"),
        Done,
        |case| case.is_shown(json!({"id": "x".repeat(1 << 20), "resource": "customer"})),
    ),
    (
        an_id_of_two_kilobytes,
        "an id of a megabyte",
        "the list shows a customer whose id has two kilobytes",
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
        metadata_without_a_bottom,
        "metadata nested",
        "the list shows a customer whose metadata is a thousand deep",
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
        "the list shows a customer whose metadata has nine megabytes",
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

/// So many keys of a hundred bytes each.
fn keys(count: u32) -> Value {
    (0..count)
        .map(|n| (format!("key-{n:05}"), json!("v".repeat(82))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

impl Case {
    /// A customer of this name comes; it is mirrored, changed by an intent, and its deletion proven, as anybody's.
    fn knows(&mut self, id: &'static str) {
        self.harness
            .sandbox
            .world()
            .put_raw(json!({"id": id, "resource": "customer", "email": null, "metadata": {}}));
        self.fired_when(move |harness| {
            harness.column("SELECT customer_id FROM changes").iter().filter(|known| *known == id).count()
                as u64
        });
        self.endure();
        // It is mirrored under any id; a door takes only one that is safe in a URL.
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

    /// A customer comes that answers show like this until the fault is over.
    pub fn is_shown(&mut self, customer: Value) {
        self.is_shown_as(Payload::Text(customer.to_string()));
    }

    /// The same, as any bytes.
    pub fn is_shown_as(&mut self, with: Payload) {
        // With its keys in the order in which KOMOJU writes them.
        let customer = r#"{"id":"odd","resource":"customer","email":"odd@example.com"}"#;
        self.harness.sandbox.world().put_raw(serde_json::from_str(customer).unwrap());
        self.inject(Fault::new(FaultEffect::Rewrite { find: customer.to_owned(), with }));
        self.fired_when(|harness| harness.one("SELECT count(*) FROM unreadable_customers").parse().unwrap());
        self.endure();
    }

    /// A customer comes whose metadata is so deep that no value of this process may hold it.
    fn is_deep(&mut self, levels: usize) {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        self.is_shown_as(Payload::Text(format!(r#"{{"id":"odd","metadata":{open}{close}}}"#)));
    }

    /// A customer with this metadata comes, and is mirrored as it is.
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
