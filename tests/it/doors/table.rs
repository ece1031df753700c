//! Intents that every door accepts, and intents that every door refuses.

use serde_json::{Value, json};

/// Intents that every validator accepts.
pub(crate) fn good() -> Vec<(&'static str, Value)> {
    let long = |n: usize| "x".repeat(n);
    let update = |body: Value| json!({"op": "update", "customer_id": "c", "body": body});
    let at = |time: &str| json!({"op": "create", "body": {"currency": "JPY"}, "not_before": time});
    vec![
        (
            "nulls count as absent",
            json!({"op": "create", "body": {"currency": "JPY"}, "customer_id": null, "id": null, "expect": null, "not_before": null}),
        ),
        (
            "every parameter",
            json!({"op": "create", "id": "é 顧客:1", "body": {"email": "a", "metadata": {"k": "v", "n": null},
            "payment_details": "tok_1", "currency": "JPY"}}),
        ),
        ("a token that is long and has digits", update(json!({"payment_details": "tok_4111111111111111"}))),
        ("a token of eleven digits", update(json!({"payment_details": "41111111111"}))),
        ("a token of twenty digits", update(json!({"payment_details": "41111111111111111111"}))),
        ("digits and hyphens that are no card number", update(json!({"payment_details": "-4111-"}))),
        ("a card number elsewhere", update(json!({"metadata": {"order": "4111111111111111"}}))),
        ("an email of null", update(json!({"email": null}))),
        ("an empty email, which the API checks", update(json!({"email": ""}))),
        ("empty metadata", update(json!({"metadata": {}}))),
        ("metadata at its limits", update(json!({"metadata": {long(30): "é".repeat(2000)}}))),
        ("a metadata key in characters", update(json!({"metadata": {"é".repeat(30): "x"}}))),
        ("an empty metadata key", update(json!({"metadata": {"": "x"}}))),
        ("a customer of an intent", json!({"op": "update", "customer_id": "@n1", "body": {"email": "a"}})),
        (
            "a customer's id that needs encoding",
            json!({"op": "delete", "customer_id": "é'\"&=+:;,@[]{}|^<>`顧客🎌"}),
        ),
        (
            "a customer's id with invisible characters",
            json!({"op": "delete", "customer_id": "a\u{200b}b\u{feff}\u{10ffff}"}),
        ),
        ("a customer of an intent with any id", json!({"op": "delete", "customer_id": "@n 1/é"})),
        (
            "an id of many scripts",
            json!({"op": "create", "body": {"currency": "JPY"}, "id": "é\u{a0}顧客\u{fffd}\u{10ffff}🎌"}),
        ),
        ("the longest customer id in two bytes", json!({"op": "delete", "customer_id": "é".repeat(512)})),
        ("three dots", json!({"op": "delete", "customer_id": "..."})),
        ("the longest customer id", json!({"op": "delete", "customer_id": long(1024)})),
        ("the longest id", json!({"op": "create", "body": {"currency": "JPY"}, "id": long(255)})),
        ("an @ within an id", json!({"op": "create", "body": {"currency": "JPY"}, "id": "a@b"})),
        (
            "an expectation of everything",
            json!({"op": "delete", "customer_id": "c", "expect": {"email": null, "source": {"brand": "visa"}, "locale": "ja",
            "metadata": {"a": null, "b": 1}}}),
        ),
        ("an empty expectation", json!({"op": "delete", "customer_id": "c", "expect": {}})),
        ("a time in UTC", at("2026-01-31T09:30:00Z")),
        ("a time with an offset", at("2026-01-31T09:30:00+09:00")),
        ("a time to the nanosecond", at("2026-01-31T23:59:59.123456789-14:00")),
        ("a leap day", at("2028-02-29T00:00:00.5Z")),
    ]
}

/// Returns an expectation of so many levels, with objects and arrays in turn.
fn nested(levels: usize) -> Vec<u8> {
    let open = (1..levels).map(|level| if level % 2 == 0 { "[" } else { "{\"source\":" });
    let close = (1..levels).rev().map(|level| if level % 2 == 0 { "]" } else { "}" });
    open.chain(["{}"]).chain(close).collect::<String>().into_bytes()
}

/// A case as bytes: its name, `body`, `expect`, and whether all validators accept it.
type Raw = (&'static str, Option<Vec<u8>>, Option<Vec<u8>>, bool);

/// Intents that a `serde_json::Value` cannot represent.
pub(crate) fn raw() -> Vec<Raw> {
    let body = |name, text: &[u8], is_good| (name, Some(text.to_vec()), None, is_good);
    let email = |name, text: &[u8], is_good| {
        (name, Some([b"{\"email\": \"".as_slice(), text, b"\"}"].concat()), None, is_good)
    };
    let expect = |name, text: &[u8], is_good| (name, None, Some(text.to_vec()), is_good);
    vec![
        body("a parameter twice", br#"{"email": "a", "email": "b"}"#, false),
        body("a parameter twice with one value", br#"{"email": "a", "email": "a"}"#, false),
        body("a parameter twice in two spellings", br#"{"email": "a", "em\u0061il": "b"}"#, false),
        body("a metadata key twice", br#"{"metadata": {"k": "a", "k": "b"}}"#, false),
        body("a key in two objects", br#"{"email": "a", "metadata": {"email": "b"}}"#, true),
        body("white space around", b" \t\r\n{\"email\" : \"a\"}\n", true),
        body("two values", br#"{"email": "a"}{}"#, false),
        body("a NUL after it", b"{\"email\": \"a\"}\0", false),
        body("a NUL and more after it", b"{\"email\": \"a\"}\0{", false),
        body("a byte order mark", b"\xef\xbb\xbf{\"email\": \"a\"}", false),
        body("a trailing comma", br#"{"email": "a",}"#, false),
        body("single quotes", br"{'email': 'a'}", false),
        body("a bare key", br#"{email: "a"}"#, false),
        body("a number of no JSON", br#"{"email": 01}"#, false),
        email("Latin-1", b"caf\xe9@x", false),
        email("Latin-1 at the end", b"caf\xe9", false),
        email("Shift_JIS", b"\x83e\x83X\x83g", false),
        email("half-width kana in Shift_JIS", b"\xc3\xbd\xc4\xb1\xd1", false),
        email("EUC-JP", b"\xa5\xc6\xa5\xb9\xa5\xc8", false),
        email("a continuation alone", b"\x80", false),
        email("one continuation too many", b"\xc3\xa9\xa9", false),
        email("one continuation too many after a longer one", b"\xe3\x81\x82\x82", false),
        email("a character cut short", b"\xe3\x81", false),
        email("a character cut short by another", b"\xf0\x9f\xe3\x81\x82\x8e\x8c", false),
        email("an overlong slash", b"\xc0\xaf", false),
        email("an overlong slash in three", b"\xe0\x80\xaf", false),
        email("an overlong character in four", b"\xf0\x8f\xbf\xbf", false),
        email("a surrogate as bytes", b"\xed\xa0\x80", false),
        email("a pair of surrogates as bytes", b"\xed\xa0\xbd\xed\xb8\x80", false),
        email("a character beyond Unicode", b"\xf4\x90\x80\x80", false),
        email("a byte that UTF-8 never has", b"\xfe", false),
        email(
            "the edges of UTF-8",
            "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            true,
        ),
        email("all scripts", "é顧客Ελ🎌ー\u{a0}\u{85}".as_bytes(), true),
        email("the first half of a pair", br"\ud83d", false),
        email("the second half of a pair", br"\uDE00", false),
        email("the halves in the wrong order", br"\ude00\ud83d", false),
        email("a half before a pair", br"\ud83d\ud83d\ude00", false),
        email("a half after a pair", br"\ud83d\ude00\ude00", false),
        email("a half and a character", br"\ud83dx\ude00", false),
        email("a half before a backslash", br"\ud83d\\ude00", false),
        email("a pair", br"\uD83D\ude00\ud83d\uDE00", true),
        email("a backslash and letters", br"\\ud83d", true),
        email("an escaped NUL", br"a\u0000b", true),
        email("a control character", b"a\x01b", false),
        email("a line's end", b"a\nb", false),
        expect("an expected field twice", br#"{"email": "a", "email": "b"}"#, false),
        expect("an expected key twice", br#"{"metadata": {"k": "a", "k": "b"}}"#, false),
        expect("a key twice further in", br#"{"source": [{"k": {"a": 1, "a": 1}}]}"#, false),
        expect("expected Latin-1", b"{\"email\": \"caf\xe9\"}", false),
        expect("an expected half of a pair", br#"{"source": {"k": ["\ud800"]}}"#, false),
        expect("a key that is half of a pair", br#"{"metadata": {"\udc00": "v"}}"#, false),
        expect("an expected NUL", b"{}\0", false),
        expect("an expectation of 99 levels", &nested(99), true),
        expect("an expectation of 100 levels", &nested(100), false),
        expect("an expectation of 150 levels", &nested(150), false),
        expect("numbers of any size", br#"{"source": [1E400, -0.0, 12345678901234567890]}"#, true),
    ]
}

/// Intents that every validator refuses.
pub(crate) fn bad() -> Vec<(&'static str, Value)> {
    let long = |n: usize| "x".repeat(n);
    let update = |body: Value| json!({"op": "update", "customer_id": "c", "body": body});
    let update_of = |id: &str| json!({"op": "update", "customer_id": id, "body": {"email": "a"}});
    let delete = |id: &str| json!({"op": "delete", "customer_id": id});
    let expect = |expect: Value| json!({"op": "delete", "customer_id": "c", "expect": expect});
    let id = |id: &str| json!({"op": "create", "body": {"currency": "JPY"}, "id": id});
    let at = |time: &str| json!({"op": "create", "body": {"currency": "JPY"}, "not_before": time});
    vec![
        ("no op", json!({})),
        ("an op of null", json!({"op": null, "customer_id": "c"})),
        ("another op", json!({"op": "destroy", "customer_id": "c"})),
        ("an op in capitals", json!({"op": "CREATE"})),
        ("an op that is a number", json!({"op": 7})),
        ("an unknown field", json!({"op": "create", "body": {"currency": "JPY"}, "kind": "x"})),
        ("an engine's column", json!({"op": "create", "body": {"currency": "JPY"}, "state": "done"})),
        (
            "a create with a customer",
            json!({"op": "create", "body": {"currency": "JPY"}, "customer_id": "c"}),
        ),
        ("a create with an expectation", json!({"op": "create", "body": {"currency": "JPY"}, "expect": {}})),
        ("a create without a body", json!({"op": "create"})),
        ("a create with an empty body", json!({"op": "create", "body": {}})),
        ("a create with a body of null", json!({"op": "create", "body": null})),
        ("an update without a customer", json!({"op": "update", "body": {"email": "a"}})),
        ("an update without a body", json!({"op": "update", "customer_id": "c"})),
        ("an update with an empty body", update(json!({}))),
        ("a delete without a customer", json!({"op": "delete"})),
        ("a delete with a body", json!({"op": "delete", "customer_id": "c", "body": {"email": "a"}})),
        ("a delete with an empty body", json!({"op": "delete", "customer_id": "c", "body": {}})),
        ("a customer that is an array", json!({"op": "delete", "customer_id": ["c"]})),
        ("an empty customer", delete("")),
        ("a dot", delete(".")),
        ("two dots", delete("..")),
        ("a NUL in a customer", delete("a\0b")),
        ("a NUL alone", delete("\0")),
        ("a line's end after a customer", delete("c\r\n")),
        ("a space after a customer", delete("c ")),
        ("a space before a customer", delete(" c")),
        ("an ideographic space in a customer", delete("a\u{3000}b")),
        ("a non-breaking space in a customer", delete("a\u{a0}b")),
        ("an ogham space in a customer", delete("a\u{1680}b")),
        ("a thin space in a customer", delete("a\u{2009}b")),
        ("a hair space in a customer", delete("a\u{200a}b")),
        ("a line separator in a customer", delete("a\u{2028}b")),
        ("a paragraph separator in a customer", delete("a\u{2029}b")),
        ("a narrow space in a customer", delete("a\u{202f}b")),
        ("a mathematical space in a customer", delete("a\u{205f}b")),
        ("a next line in a customer", delete("a\u{85}b")),
        ("a control character in a customer", delete("a\u{1}b")),
        ("a delete character in a customer", delete("a\u{7f}b")),
        ("a C1 control in a customer", delete("a\u{9b}b")),
        ("a slash in a customer", delete("a/b")),
        ("a backslash in a customer", delete("a\\b")),
        ("a percent sign in a customer", delete("a%2Fb")),
        ("a question mark in a customer", delete("a?b")),
        ("a fragment in a customer", delete("a#b")),
        ("a path to a customer", update_of("../c")),
        ("a customer over 1 KiB", delete(&long(1025))),
        ("a reference to nothing", delete("@")),
        ("a reference to a reference", delete("@@n1")),
        ("a reference with a control character", delete("@n\n1")),
        ("an empty id", id("")),
        ("an id with an @", id("@a")),
        ("an id over 255 bytes", id(&long(256))),
        ("a line's end in an id", id("a\nb")),
        ("a NUL in an id", id("a\0")),
        ("a delete character in an id", id("a\u{7f}")),
        ("a C1 control in an id", id("\u{9b}1m")),
        ("an id that is an array", json!({"op": "create", "body": {"currency": "JPY"}, "id": [1]})),
        ("a body that is an array", update(json!([1]))),
        ("a body that is a text", update(json!("x"))),
        ("an unknown parameter", update(json!({"locale": "ja"}))),
        ("an email that is a number", update(json!({"email": 5}))),
        ("a currency of null", update(json!({"currency": null}))),
        ("a card", update(json!({"payment_details": {"type": "credit_card", "number": "4111111111111111"}}))),
        ("a card's number", update(json!({"payment_details": 4_111_111_111_111_111_u64}))),
        ("a card's number as text", update(json!({"payment_details": "4111111111111111"}))),
        ("a card number of 12 digits", update(json!({"payment_details": "411111111111"}))),
        ("a card number of 19 digits", update(json!({"payment_details": "4111111111111111111"}))),
        ("a card number in groups", update(json!({"payment_details": "4111 1111 1111 1111"}))),
        ("a card number with hyphens", update(json!({"payment_details": " 4111-1111-1111-1111\n"}))),
        (
            "a full-width card number",
            update(json!({"payment_details": "４１１１　１１１１‐１１１１－１１１１"})),
        ),
        (
            "a card number in a create",
            json!({"op": "create", "body": {"payment_details": "4111111111111111"}}),
        ),
        ("a token of null", update(json!({"payment_details": null}))),
        ("metadata that is a text", update(json!({"metadata": "x"}))),
        ("metadata of null", update(json!({"metadata": null}))),
        ("metadata that is an array", update(json!({"metadata": ["x"]}))),
        ("a metadata key of 31", update(json!({"metadata": {long(31): "x"}}))),
        ("a metadata value of 2001", update(json!({"metadata": {"k": "é".repeat(2001)}}))),
        ("a metadata value that is a number", update(json!({"metadata": {"k": 1}}))),
        ("a metadata value that is an object", update(json!({"metadata": {"k": {}}}))),
        ("an expectation that is an array", expect(json!([]))),
        ("an unknown expectation", expect(json!({"id": "c"}))),
        ("expected metadata of null", expect(json!({"metadata": null}))),
        ("soon", at("soon")),
        ("a time without an offset", at("2026-01-31T09:30:00")),
        ("a date", at("2026-01-31")),
        ("a space in a time", at("2026-01-31 09:30:00Z")),
        ("a space before the offset", at("2026-01-31T09:30:00 Z")),
        ("small letters", at("2026-01-31t09:30:00z")),
        ("no seconds", at("2026-01-31T09:30Z")),
        ("hour 24", at("2026-01-31T24:00:00Z")),
        ("second 60", at("2026-01-31T09:30:60Z")),
        ("an impossible day", at("2026-02-30T09:30:00Z")),
        ("month 13", at("2026-13-01T09:30:00Z")),
        ("a fraction of nothing", at("2026-01-31T09:30:00.Z")),
        ("a fraction of letters", at("2026-01-31T09:30:00.5xZ")),
        ("a comma", at("2026-01-31T09:30:00,5Z")),
        ("ten places", at("2026-01-31T09:30:00.1234567890Z")),
        ("an offset beyond 14 hours", at("2026-01-31T09:30:00+15:00")),
        ("an offset of hours", at("2026-01-31T09:30:00+09")),
        ("a zone", at("2026-01-31T09:30:00+09:00[Asia/Tokyo]")),
        (
            "a time that is a number",
            json!({"op": "create", "body": {"currency": "JPY"}, "not_before": 1_700_000_000}),
        ),
    ]
}
