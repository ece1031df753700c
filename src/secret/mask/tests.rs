use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

const KEY: &str = "sk_test_9aQ+x/Zr7";

fn key(text: &str) -> SecretKey {
    SecretKey::parse(text).unwrap()
}

fn masked(text: &str) -> String {
    Masker::new(Some(&key(KEY))).text(text)
}

#[test]
fn former_key_is_hidden_by_every_masker() {
    // A key without a known prefix: only a masker that knows it hides it.
    let former = key("formerkey7Qx9");
    let maskers = [Masker::new(None), Masker::new(Some(&key(KEY)))];
    let texts = [former.expose().to_owned(), STANDARD.encode(format!("{}:", former.expose()))];
    assert!(texts.iter().all(|text| maskers[0].text(text) == *text));
    remember(&former);
    remember(&former);
    for masker in &maskers {
        assert!(texts.iter().all(|text| masker.text(text) == MASK));
    }
}

#[test]
fn key_is_hidden_in_every_encoding() {
    let table = [
        ("plain", KEY.to_owned()),
        ("percent-encoded", "sk_test_9aQ%2Bx%2fZr7".to_owned()),
        ("every byte percent-encoded", KEY.bytes().map(|b| format!("%{b:02x}")).collect()),
        ("as Basic sends it", STANDARD.encode(format!("{KEY}:"))),
        ("base64", STANDARD.encode(KEY)),
        ("base64 with a password", STANDARD.encode(format!("{KEY}:pass"))),
        ("URL-safe base64", URL_SAFE_NO_PAD.encode(format!("{KEY}:"))),
    ];
    for (how, written) in table {
        assert_eq!(masked(&format!("before <{written}> after")), "before <****> after", "{how}");
    }
}

#[test]
fn card_number_behind_the_key_is_hidden_too() {
    assert_eq!(masked(&format!("{KEY}4111111111111111 {KEY}1")), "******** ****1");
}

#[test]
fn key_that_looks_percent_encoded_is_hidden() {
    let masker = Masker::new(Some(&key("sk%25b")));
    assert_eq!(masker.text("sk%25b sk%2525b sk%b"), "**** **** sk%b");
}

#[test]
fn key_in_either_alphabet_of_base64_is_hidden() {
    let masker = Masker::new(Some(&key("~~~???~~~???")));
    assert_eq!(masker.text("fn5+Pz8/fn5+Pz8/Og=="), MASK);
    assert_eq!(masker.text("fn5-Pz8_fn5-Pz8_Og"), MASK);
}

#[test]
fn key_in_base64_behind_other_text_shows_two_bytes_at_most() {
    for before in ["", "u", "ur", "user"] {
        let written = STANDARD.encode(format!("{before}{KEY}:"));
        let shown = masked(&written);
        assert!(shown.ends_with(MASK) && shown.len() < MASK.len() + 12, "{before}: {shown}");
    }
}

#[test]
fn text_that_looks_like_a_secret_is_hidden_without_a_key() {
    let table = [
        ("key sk_live_abc123 refused", "key **** refused"),
        ("(sk_test_abc)", "(****)"),
        ("pk_live_abc", "****"),
        (r#"{"payment_details":"tok_8f3a_B"}"#, r#"{"payment_details":"****"}"#),
        (r"first\nsk_live_abc", r"first\n****"),
        ("a%3Dtok_1", "a%3D****"),
        ("4111111111111111", "****"),
        ("card 4111 1111 1111 1111 declined", "card **** declined"),
        ("card 4111\n1111\t1111\r1111 declined", "card **** declined"),
        ("3782-822463-10005.", "****."),
        ("４１１１　１１１１　１１１１　１１１１", "****"),
        ("in 2030 4111 1111 1111 1111", "in 2030 ****"),
    ];
    for (text, shown) in table {
        assert_eq!(Masker::default().text(text), shown, "{text}");
    }
}

#[test]
fn text_without_secrets_is_unchanged() {
    for text in [
        "tok_ is how a token begins",
        "sk_live_",
        "sk_other_abc",
        "card 4111 1111 1111 1112 has a wrong check digit",
        "411111111111",
        "41111111111111111111111111",
        "4111  1111  1111  1111",
        "mail a@example.jp at 2026-01-02T03:04:05Z",
        "顧客の検証に失敗しました",
    ] {
        assert_eq!(Masker::default().text(text), text);
    }
}

#[test]
fn control_characters_are_replaced() {
    let table = [
        ("a\r\nlevel=ERROR forged", "a  level=ERROR forged"),
        ("\u{1b}[2Jgone", "\u{fffd}[2Jgone"),
        ("\u{9b}31m", "\u{fffd}31m"),
        ("user\u{202e}gpj.exe", "user\u{fffd}gpj.exe"),
        ("a\u{0}b\u{7f}\u{2028}", "a\u{fffd}b\u{fffd}\u{fffd}"),
    ];
    for (text, shown) in table {
        assert_eq!(Masker::default().text(text), shown);
    }
}

#[test]
fn long_text_is_cut_between_characters_and_marked() {
    assert_eq!(Masker::default().text(&"顧".repeat(LIMIT)), "顧".repeat(LIMIT));
    let cut = format!("{}…", "顧".repeat(LIMIT - 1));
    assert_eq!(Masker::default().text(&"顧".repeat(LIMIT + 1)), cut);
    assert_eq!(Masker::default().text(&"顧".repeat(1_000_000)), cut);
}

#[test]
fn key_across_the_cut_is_hidden_before_the_cut() {
    let text = format!("{}{KEY}{}", "-".repeat(LIMIT - 6), "-".repeat(LIMIT));
    assert_eq!(masked(&text), format!("{}****-…", "-".repeat(LIMIT - 6)));
}

#[test]
fn name_keeps_its_numbers_and_no_key_or_token() {
    const NUMBER: &str = "20261201-112639-6";
    assert_eq!(masked(NUMBER), MASK, "this number looks like a card number");
    let masker = Masker::new(Some(&key(KEY)));
    assert_eq!(masker.name(&format!("{NUMBER}.json")), format!("{NUMBER}.json"));
    assert_eq!(masker.name(&format!("{NUMBER} tok_abc {KEY}\n")), format!("{NUMBER} **** **** "));
    // A key that begins within such a number.
    let masker = Masker::new(Some(&key("126396Zr7Qx9")));
    assert_eq!(masker.name("20261201-1126396Zr7Qx9"), "20261201-1****");
}

#[test]
fn debug_output_of_a_masker_shows_no_key() {
    let debug = format!("{:?}", Masker::new(Some(&key(KEY))));
    assert!(!debug.contains("9aQ"), "{debug}");
    assert!(!debug.contains(&STANDARD.encode(KEY)[..8]), "{debug}");
}

/// Keys of any length with any character that [`SecretKey`] accepts.
fn any_key() -> impl Strategy<Value = SecretKey> {
    "[!-)+-9;-~]{1,40}".prop_filter_map("refused", |text| SecretKey::parse(&text).ok())
}

proptest! {
    #[test]
    fn any_text_is_harmless_and_short(text in any::<String>()) {
        let shown = Masker::default().text(&text);
        prop_assert!(shown.chars().count() <= LIMIT);
        prop_assert!(shown.chars().all(|c| harmless(c) == c));
    }

    #[test]
    fn masked_text_is_masked_to_itself(text in "([0-9]{2,6}|[ \\-\n\t]|tok_|sk_live_|é|a){0,12}") {
        let shown = Masker::default().text(&text);
        prop_assert_eq!(Masker::default().text(&shown), shown);
    }

    #[test]
    fn key_is_never_left_in_any_text(
        key in any_key(),
        around in proptest::collection::vec(".{0,9}", 4),
    ) {
        let plain = key.expose();
        let percent = utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string();
        let basic = STANDARD.encode(format!("{plain}:"));
        let [a, b, c, d] = &around[..] else { unreachable!() };
        let text = format!("{a}{plain}{b}{percent}{c}{basic}{d}");
        let shown = Masker::new(Some(&key)).text(&text);
        prop_assert!(!shown.contains(plain), "{shown}");
        prop_assert!(!shown.contains(&percent), "{shown}");
        prop_assert!(!shown.contains(&basic), "{shown}");
    }

    #[test]
    fn spans_are_the_hidden_parts_of_a_text(text in ".{0,40}(tok_[a-z]{1,9}.{0,9}){0,3}") {
        let masker = Masker::default();
        let mut rest = text.clone();
        for span in masker.spans(&text).into_iter().rev() {
            rest.replace_range(span, MASK);
        }
        let rest: String = rest.chars().map(harmless).collect();
        prop_assert_eq!(masker.text(&text), rest);
    }
}
