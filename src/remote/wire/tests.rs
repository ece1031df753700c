use super::*;

#[test]
fn page_is_read_whatever_else_the_envelope_contains() {
    let bytes = br#"{"resource":"anything","total":1,"page":1,"per_page":10,"last_page":1,"start_time":null,
            "data":[{"id":"a","resource":"customer","new":1.0}]}"#;
    let page = page(bytes).unwrap();
    let hints = Hints { page: Some(1), per_page: Some(10), total: Some(1), last_page: Some(1) };
    assert_eq!(page.hints, hints);
    assert_eq!(page.customers[0].read().unwrap().body(), r#"{"id":"a","new":1.0,"resource":"customer"}"#);
}

#[test]
fn page_of_another_form_is_refused_with_its_reason() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "not JSON"),
        (b"<html>", "web page"),
        (b"[]", "not an object"),
        (b"{}", "no \"data\""),
        (br#"{"data":{"a":[1]}}"#, "\"data\" is not a list"),
        (br#"{"data":7}"#, "\"data\" is not a list"),
        (br#"{"data":null}"#, "\"data\" is not a list"),
        (br#"{"data":"x"}"#, "\"data\" is not a list"),
        (br#"{"data":true}"#, "\"data\" is not a list"),
        (br#"{"data":[],"page":1,"per_page":1,"total":0,"last_page":0} x"#, "trailing"),
        (b"{\"data\":[{\"id\":\"\xff\"}]", "not JSON"),
    ];
    for (bytes, part) in cases {
        let why = page(bytes).unwrap_err();
        assert!(why.contains(part), "{why} should say {part}");
    }
}

#[test]
fn hint_that_is_no_whole_number_is_ignored() {
    let hints = |envelope: &str| page(format!(r#"{{"data":[],{envelope}}}"#).as_bytes()).unwrap().hints;
    let number = |value: &str| hints(&format!(r#""total":{value}"#)).total;
    assert_eq!(["7", "\"7\"", "0"].map(number), [Some(7), Some(7), Some(0)]);
    for other in [
        "18446744073709551615",
        "-1",
        "1.5",
        "null",
        "\"\"",
        "\"many\"",
        "[7]",
        r#"{"$serde_json::private::Number":"1"}"#,
    ] {
        assert_eq!(number(other), None, "{other}");
    }
    assert_eq!(page(br#"{"data":[]}"#).unwrap().hints, Hints::default());
    assert_eq!(hints(r#""per_page":0,"page":2,"last_page":3"#).per_page, None, "a page of no customers");
    assert_eq!(hints(r#""per_page":"10","page":2,"last_page":3"#).last_page, Some(3));
}

#[test]
fn customer_listed_as_deleted_is_separate_from_the_others() {
    let page =
        page(br#"{"data":[{"id":"a"},{"id":"b","deleted":true},{"id":"c","deleted":false}]}"#).unwrap();
    let ids = |listed: &[RawCustomer]| listed.iter().map(|one| one.id().to_string()).collect::<Vec<_>>();
    assert_eq!((ids(&page.customers), ids(&page.deleted)), (vec!["a".into(), "c".into()], vec!["b".into()]));
    assert_eq!(page.len(), 3);
}

#[test]
fn error_keeps_its_status_whatever_its_body() {
    let (told, ours) =
        error(404, br#"{"error":{"code":"x","code":"not_found","message":"no","param":null,"extra":[]}}"#);
    assert_eq!((told.status, told.code.as_deref(), ours), (404, Some("not_found"), IsOurs::Yes));
    for bytes in [&b""[..], b"<h1>", b"{", b"{}", b"[1]", b"\xff"] {
        let (told, ours) = error(503, bytes);
        assert_eq!((told.status, told.code, ours), (503, None, IsOurs::No), "{bytes:?}");
    }
}

#[test]
fn unreadable_customer_does_not_cost_the_others_on_its_page() {
    let nested = ["[".repeat(130), "]".repeat(130)].concat();
    let bad: [(Vec<u8>, Option<&str>, &str); 9] = [
        (b"null".to_vec(), None, "not an object"),
        (b"{}".to_vec(), None, "no id"),
        (br#"{"id":7}"#.to_vec(), None, "not a string"),
        (br#"{"id":"b","email":"\ud800"}"#.to_vec(), Some("b"), "hex escape"),
        (format!(r#"{{"id":"b","x":{nested}}}"#).into_bytes(), Some("b"), "recursion limit"),
        (b"{\"id\":\"b\",\"email\":\"\xff\"}".to_vec(), Some("b"), "not JSON"),
        (b"{\"id\":\"b\",\"email\":\"\x01\"}".to_vec(), Some("b"), "not JSON"),
        (br#"{"id":"b","x":NaN}"#.to_vec(), Some("b"), "not JSON"),
        (br#"{"id":"b","resource":"payment"}"#.to_vec(), Some("b"), "resource"),
    ];
    for (text, id, reason) in bad {
        let mut bytes = br#"{"total":3,"page":1,"per_page":3,"last_page":1,"data":[{"id":"a"},"#.to_vec();
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(br#",{"id":"c"}]}"#);
        let page = page(&bytes).unwrap();
        let ids: Vec<&str> = page.customers.iter().map(|listed| listed.id().as_str()).collect();
        assert_eq!((ids, page.len()), (vec!["a", "c"], 3), "{reason}");
        let named = &page.unreadable[0];
        assert_eq!((named.id.as_ref().map(|id| id.as_str()), named.position), (id, Some(2)), "{reason}");
        assert!(named.reason.to_string().contains(reason), "{}", named.reason);
    }
}

#[test]
fn unreadable_customer_is_distinguished_from_other_answers() {
    let shown = |bytes: &[u8]| match one_customer(bytes, true) {
        Answered::Customer(customer) => customer.id().to_string(),
        Answered::Unreadable(bad) => format!("{:?}", bad.id),
        Answered::Other(why) => why,
    };
    assert_eq!(shown(br#"{"id":"a"}"#), "a");
    assert_eq!(shown(br#"{"id":"a","x":"\ud800"}"#), "Some(\"a\")");
    assert_eq!(shown(b"{\"id\":\"a\",\"x\":\"\xff\"}"), "Some(\"a\")");
    assert_eq!(shown(br#"{"id":7}"#), "None");
    assert_eq!(shown(b"{}"), "None");
    assert_eq!([shown(b"null"), shown(b" [] ")], ["None", "None"]);
    for (bytes, part) in [(&b"<html>"[..], "web page"), (br#"{"id":"a""#, "not JSON"), (b"", "not JSON")] {
        assert!(shown(bytes).contains(part), "{}", shown(bytes));
    }
    let cut = one_customer(br#"{"id":"a","x":"aaa"#, false);
    assert!(matches!(cut, Answered::Unreadable(bad) if bad.id.is_some()), "the start of a long customer");
    assert!(matches!(one_customer(b"\x1f\x8b", false), Answered::Other(_)));
}

#[test]
fn start_of_a_long_page_gives_its_numbers_and_its_first_customer() {
    let begun = beginning(br#"{"total":9,"per_page":1,"last_page":9,"data":[{"id":"a","x":"aa"#).unwrap();
    assert_eq!((begun.per_page, begun.last_page), (Some(1), Some(9)));
    assert_eq!(begun.first.unwrap().id.unwrap().as_str(), "a");
    assert!(beginning(br#"{"data":[   "#).unwrap().first.is_none());
    assert!(beginning(b"<html>").is_none() && beginning(br#"{"error":{"code":"#).is_none());
}
