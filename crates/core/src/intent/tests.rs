//! What a door accepts and refuses, and what it parses.

use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<Intent, String> {
    Intent::parse(&value.to_string()).map_err(|bad| bad.to_string())
}

#[test]
fn each_operation_is_parsed() {
    let create = parse(&json!({"op": "create", "id": "n1", "body": {
        "email": null, "metadata": {"order": "7", "gone": null}, "payment_details": "tok_x", "currency": "JPY"}}));
    let create = create.unwrap();
    assert_eq!(create.id.unwrap().as_str(), "n1");
    assert!(matches!(&create.op, IntentOp::Create(body) if body.token() == Some("tok_x")));
    let empty = parse(&json!({"op": "create", "body": {"metadata": {}}})).unwrap();
    assert_eq!(empty.op.name(), "create", "the API decides which parameters it needs");
    let update = parse(&json!({"op": "update", "customer_id": "@n1", "body": {"email": "a"},
        "expect": {"email": "b", "metadata": {"x": null}}, "not_before": "2026-01-01T09:00:00+09:00"}));
    let update = update.unwrap();
    assert!(matches!(&update.op, IntentOp::Update(Target::CreatedBy(intent), _) if intent.as_str() == "n1"));
    assert_eq!(update.not_before, time::read("2026-01-01T00:00:00Z"));
    let delete = parse(&json!({"op": "delete", "customer_id": "a+b:é", "body": null})).unwrap();
    assert!(matches!(&delete.op, IntentOp::Delete(target) if target.to_string() == "a+b:é"));
}

#[test]
fn broken_rule_is_reported_with_its_field_and_without_the_value() {
    let long = |n: usize| "x".repeat(n);
    let update = |body: Value| json!({"op": "update", "customer_id": "c", "body": body});
    let cases = [
        (json!([]), "the intent: must be a JSON object"),
        (json!({}), "op: must be create, update or delete"),
        (json!({"op": "destroy", "customer_id": "c"}), "op: must be"),
        (json!({"op": 7}), "op: must be a text"),
        (json!({"op": "create", "kind": 1}), "kind: is not known here; known are body, customer_id"),
        (json!({"op": "create", "customer_id": "c"}), "customer_id: cannot be given with a create"),
        (
            json!({"op": "create", "body": {"email": "a"}, "expect": {}}),
            "expect: cannot be given with a create",
        ),
        (
            json!({"op": "create"}),
            "body: a create needs at least one parameter: currency, email, metadata, payment_details",
        ),
        (json!({"op": "create", "body": null}), "body: a create needs"),
        (json!({"op": "create", "body": {}, "id": "n"}), "body: a create needs"),
        (json!({"op": "create", "id": "", "body": {"email": "a"}}), "id: must have 1 to 255 bytes"),
        (json!({"op": "create", "id": "@a", "body": {"email": "a"}}), "id: must have"),
        (json!({"op": "create", "id": "a\nb", "body": {"email": "a"}}), "id: must have"),
        (json!({"op": "update", "body": {"email": "a"}}), "customer_id: must be given"),
        (json!({"op": "delete"}), "customer_id: must be given"),
        (json!({"op": "delete", "customer_id": ".."}), "customer_id: must have 1 to 1024 bytes"),
        (json!({"op": "delete", "customer_id": "a\0"}), "customer_id: must have"),
        (
            json!({"op": "delete", "customer_id": "a\r"}),
            "customer_id: must have 1 to 1024 bytes without white space",
        ),
        (json!({"op": "delete", "customer_id": "@"}), "customer_id: must be @ and the id"),
        (json!({"op": "delete", "customer_id": long(1025)}), "customer_id: must have"),
        (json!({"op": "delete", "customer_id": "c", "body": {}}), "body: cannot be given with a delete"),
        (json!({"op": "update", "customer_id": "c"}), "body: an update must change something"),
        (update(json!({})), "body: an update must change something"),
        (update(json!([1])), "body: must be a JSON object"),
        (update(json!({"locale": "ja"})), "body.locale: is not known here; known are currency, email"),
        (update(json!({"email": 5})), "body.email: must be a text or null"),
        (update(json!({"currency": null})), "body.currency: must be a text"),
        (
            update(json!({"payment_details": {"number": "4111111111111111"}})),
            "body.payment_details: must be a payment token",
        ),
        (
            update(json!({"payment_details": 4_111_111_111_111_111_u64})),
            "body.payment_details: must be a text",
        ),
        (
            update(json!({"payment_details": "4111 1111-1111 1111"})),
            "body.payment_details: must be a payment token, a text that begins with tok_; card numbers never enter this system",
        ),
        (update(json!({"metadata": "x"})), "body.metadata: must be a JSON object"),
        (update(json!({"metadata": {long(31): "x"}})), "body.metadata: a key has more than 30 characters"),
        (update(json!({"metadata": {"k": long(2001)}})), "body.metadata.k: has more than 2000 characters"),
        (update(json!({"metadata": {"k": 1}})), "body.metadata.k: must be a text or null"),
        (json!({"op": "delete", "customer_id": "c", "expect": {"id": "c"}}), "expect.id: is not known here"),
        (
            json!({"op": "delete", "customer_id": "c", "expect": {"metadata": null}}),
            "expect.metadata: must be",
        ),
        (json!({"op": "delete", "customer_id": "c", "not_before": "soon"}), "not_before: must be a time"),
    ];
    for (intent, part) in cases {
        let why = parse(&intent).unwrap_err();
        assert!(why.contains(part), "{intent}: {why}");
        assert!(!why.contains("4111"), "{why}");
    }
    assert!(Intent::parse("{").is_err());
    for text in
        [r#"{"op":"create","op":"create"}"#, r#"{"op":"create","body":{"email":"a","em\u0061il":"b"}}"#]
    {
        assert_eq!(
            Intent::parse(text).unwrap_err().to_string(),
            "the intent: a key appears twice in one object"
        );
    }
    let inner = r#"{"op":"create","body":{"$serde_json::private::RawValue":"{\"email\":\"a\"}"}}"#;
    let why = Intent::parse(inner).unwrap_err().to_string();
    assert!(why.starts_with("body.$serde_json::private::RawValue: is not known here"), "{why}");
    let limits = update(json!({"metadata": {long(30): "é".repeat(2000)}}));
    assert!(parse(&limits).is_ok(), "lengths count characters");
}

#[test]
fn target_and_body_are_written_as_submitted() {
    for text in ["a'b\u{200b}", "@n 1/2"] {
        let intent = parse(&json!({"op": "delete", "customer_id": text})).unwrap();
        let IntentOp::Delete(target) = intent.op else { panic!("{text}") };
        assert_eq!(target.text(), text);
    }
    assert_eq!(IntentId::new("n 1").unwrap().to_string(), "n 1");
    let body = IntentBody::new(json!({"metadata": {"k": null}, "payment_details": "tok_1"})).unwrap();
    assert_eq!(body.text(), r#"{"metadata":{"k":null},"payment_details":"tok_1"}"#);
    assert_eq!(Value::from(body.without_token()), json!({"metadata": {"k": null}}));
    assert_eq!(["k", "other"].map(|key| body.has_metadata(key)), [true, false]);
    assert!(!IntentBody::new(json!({})).unwrap().has_metadata("k"));
    let expect = Expect::new(json!({"locale": "ja"})).unwrap();
    assert_eq!((expect.text(), expect.fields().len()), (r#"{"locale":"ja"}"#.to_owned(), 1));
}

#[test]
fn debug_output_masks_the_token() {
    let body = IntentBody::new(json!({"payment_details": "tok_secret", "email": "a"})).unwrap();
    let shown = format!("{body:?}");
    assert!(shown.contains("email") && !shown.contains("tok_secret"), "{shown}");
}

#[test]
fn only_named_fields_are_compared() {
    let theirs = json!({"email": "now", "metadata": {"a": "1", "b": "2"}, "locale": "ja", "source": null});
    let theirs = theirs.as_object().unwrap();
    let mismatches = |expect: Value| {
        let expect = Expect::new(expect).unwrap();
        expect.mismatches(theirs).into_iter().map(|mismatch| mismatch.field).collect::<Vec<_>>()
    };
    assert_eq!(mismatches(json!({})), Vec::<String>::new());
    assert_eq!(
        mismatches(json!({"email": "now", "source": null, "metadata": {"a": "1", "c": null}})),
        Vec::<String>::new()
    );
    assert_eq!(mismatches(json!({"source": {"brand": "visa"}})), ["source"], "compared whole");
    assert_eq!(
        mismatches(json!({"email": "then", "locale": null, "metadata": {"a": null, "b": "3", "c": "x"}})),
        ["email", "locale", "metadata.a", "metadata.b", "metadata.c"]
    );
}

#[test]
fn time_has_one_format_although_more_could_be_parsed() {
    let good = [
        "2026-01-31T09:30:00Z",
        "2026-01-31T23:59:59+09:00",
        "2026-01-31T00:00:00.5-14:59",
        "2026-01-31T00:00:00.123456789Z",
    ];
    let bad = [
        "",
        "Z",
        "2026-01-31",
        "2026-01-31T09:30:00",
        "2026-01-31 09:30:00Z",
        "2026-01-31t09:30:00Z",
        "2026-01-31T09:30:00z",
        "2O26-01-31T09:30:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T09:30:60Z",
        "2026-01-31T09:30:00.Z",
        "2026-01-31T09:30:00.1234567890Z",
        "2026-01-31T09:30:00.5xZ",
        "2026-01-31T09:30:00,5Z",
        "2026-01-31T09:30:00 Z",
        "2026-01-31T09:30:00+15:00",
        "2026-01-31T09:30:00+09:60",
        "2026-01-31T09:30:00+0x:00",
        "2026-01-31T09:30:00+09.00",
        "2026-01-31T09:30:00 09:00",
        "2026-01-31T09:30:00+09",
        "2026-01-31T09:30:00+09:00[Asia/Tokyo]",
        "2026-01-31T09:30:0é09:00",
    ];
    assert_eq!(good.map(has_time_format), [true; 4]);
    for text in bad {
        assert!(!has_time_format(text), "{text}");
    }
}

#[test]
fn stored_create_without_parameters_is_still_parsed() {
    for text in [r#"{"op":"create"}"#, r#"{"op":"create","body":null}"#, r#"{"op":"create","body":{}}"#] {
        let read = Intent::stored(text.as_bytes()).unwrap();
        assert!(matches!(read.op, IntentOp::Create(body) if body.fields().is_empty()), "{text}");
        assert!(Intent::parse(text).is_err(), "{text}");
    }
}

#[test]
fn white_space_controls_and_parts_of_an_address_are_refused_in_a_customers_id() {
    for c in [' ', '\u{3000}', '\t', '\u{7}', '\u{7f}', '/', '\\', '%', '?', '#'] {
        assert!(is_refused_in_id(c), "{c:?}");
    }
    for c in ['a', 'é', '顧', '@', '_', '-', '.'] {
        assert!(!is_refused_in_id(c), "{c:?}");
    }
}
