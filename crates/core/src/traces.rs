//! Recognizes a customer in text from outside: by its id, its emails, and other values of its
//! history.
//!
//! A text is searched as it is and with its JSON escapes decoded, without regard to the case of
//! ASCII letters. `A@B.C` and `a\u0040b.c` are the same email. Values that are too short to
//! identify a customer are not searched.

use std::collections::BTreeSet;

use serde_json::Value;

/// SHORTEST_ID controls the length in bytes from which an id is searched inside a text. A shorter
/// id is only compared with `customer_id`.
const SHORTEST_ID: usize = 8;

/// SHORTEST_EMAIL controls the length in bytes from which an email is searched.
const SHORTEST_EMAIL: usize = 5;

/// SHORTEST_OTHER controls the length in bytes from which another value is searched.
const SHORTEST_OTHER: usize = 6;

/// Members that do not identify a customer, or that have a rule of their own. A payment source is
/// four digits and a month, and tokens are wiped when their intent settles.
const NOT_IDENTIFYING: [&str; 12] = [
    "code",
    "created_at",
    "currency",
    "differs",
    "id",
    "locale",
    "message",
    "param",
    "payment_details",
    "resource",
    "source",
    "status",
];

/// The values by which one customer is recognized.
#[derive(Clone, Default)]
pub struct Traces {
    id: String,
    emails: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// A text to search.
#[derive(Clone, Debug)]
pub struct SearchText(Vec<String>);

impl SearchText {
    /// Takes bytes as text; invalid UTF-8 is replaced.
    pub fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let read = text.contains('\\').then(|| unescaped(&text).to_ascii_lowercase());
        Self(std::iter::once(text).chain(read).collect())
    }

    fn has(&self, value: &str) -> bool {
        let value = value.to_ascii_lowercase();
        self.0.iter().any(|text| text.contains(&value))
    }
}

impl Traces {
    /// The traces of a customer of which only the id is known.
    pub fn of(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// Adds the values of a JSON value: a customer's body, or the parts of an intent.
    pub fn add(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in
                    members.iter().filter(|(name, _)| !NOT_IDENTIFYING.contains(&name.as_str()))
                {
                    match member {
                        Value::String(email) if name == "email" && email.len() >= SHORTEST_EMAIL => {
                            self.emails.insert(email.clone());
                        }
                        Value::String(text) if text.len() >= SHORTEST_OTHER => {
                            self.others.insert(text.clone());
                        }
                        member => self.add(member),
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    match item {
                        Value::String(text) if text.len() >= SHORTEST_OTHER => {
                            self.others.insert(text.clone());
                        }
                        item => self.add(item),
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the emails of the whole history.
    pub fn emails(&self) -> impl Iterator<Item = &str> {
        self.emails.iter().map(String::as_str)
    }

    /// Whether this is one of the emails.
    pub fn is_email(&self, email: &str) -> bool {
        self.emails().any(|known| known.eq_ignore_ascii_case(email))
    }

    /// Whether a text contains the id.
    pub fn id_in(&self, text: &SearchText) -> bool {
        self.id.len() >= SHORTEST_ID && text.has(&self.id)
    }

    /// Whether a text contains an email, or another value for which `is_rare` says that no other
    /// customer has it.
    pub fn value_in<E>(
        &self,
        text: &SearchText,
        mut is_rare: impl FnMut(&str) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if self.emails().any(|email| text.has(email)) {
            return Ok(true);
        }
        for other in &self.others {
            if text.has(other) && is_rare(other)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this JSON text is an intent for this customer only: it has this customer's id, or no
    /// id and this customer's email.
    pub fn is_only_about_customer(&self, intent: &[u8]) -> bool {
        let Ok(Value::Object(intent)) = super::json::parse(intent) else { return false };
        match intent.get("customer_id") {
            Some(Value::String(id)) => *id == self.id,
            None | Some(Value::Null) => {
                let email = intent.get("body").and_then(|body| body.get("email")).and_then(Value::as_str);
                email.is_some_and(|email| self.is_email(email))
            }
            Some(_) => false,
        }
    }

    /// Returns the text with every email and other value masked. It is used for file names.
    pub fn masked(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for value in self.emails.iter().chain(&self.others) {
            let lower = masked.to_ascii_lowercase();
            let found: Vec<usize> =
                lower.match_indices(&value.to_ascii_lowercase()).map(|(at, _)| at).collect();
            for at in found.into_iter().rev() {
                masked.replace_range(at..at + value.len(), "****");
            }
        }
        masked
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Data that is to be erased must not reach a log.
        f.debug_struct("Traces").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Decodes JSON escapes anywhere in a text. Invalid escapes are kept unchanged.
fn unescaped(text: &str) -> String {
    let mut read = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        read.extend(rest[..at].encode_utf16());
        let escape = &rest[at + 1..];
        let code = escape.strip_prefix('u').and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok());
        let simple = match escape.as_bytes().first() {
            Some(b'n') => Some('\n'),
            Some(b't') => Some('\t'),
            Some(b'r') => Some('\r'),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'"') => Some('"'),
            Some(b'\\') => Some('\\'),
            Some(b'/') => Some('/'),
            _ => None,
        };
        rest = match (code, simple) {
            (Some(unit), _) => {
                read.push(unit);
                &escape[5..]
            }
            (None, Some(c)) => {
                read.extend(c.encode_utf16(&mut [0; 2]).iter());
                &escape[1..]
            }
            (None, None) => {
                read.push(u16::from(b'\\'));
                escape
            }
        };
    }
    read.extend(rest.encode_utf16());
    String::from_utf16_lossy(&read)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;

    fn hanako() -> Traces {
        let mut traces = Traces::of("c-hanako-1");
        traces.add(&json!({"id": "c-hanako-1", "email": "hanako@example.jp", "locale": "ja-common",
            "source": {"brand": "american_express"}, "metadata": {"name": "山田 花子", "plan": "gold", "tel": "0901234"}}));
        traces
    }

    fn found(text: &str) -> bool {
        let all_rare = |_: &str| Ok::<_, Infallible>(true);
        hanako().value_in(&SearchText::new(text.as_bytes()), all_rare).unwrap()
    }

    #[test]
    fn value_is_found_in_any_json_spelling() {
        for text in [
            "to hanako@example.jp",
            "Hanako@EXAMPLE.jp",
            r#"{"email":"hanako\u0040example.jp"}"#,
            r#"\u0048anako@example\u002Ejp"#,
            r#""name":"\u5c71\u7530 花子""#,
            "\\ \\u12 \\x 0901234 \\",
        ] {
            assert!(found(text), "{text}");
        }
        for text in ["", "gold", "ja-common american_express", "hanako", r"\", r"\u", r"\u00é"] {
            assert!(!found(text), "{text}");
        }
    }

    #[test]
    fn every_json_escape_is_decoded() {
        let text = r#"a\nb\tc\rd\be\ff\"g\\h\/i\ud83c\udf8cj\x"#;
        assert_eq!(unescaped(text), "a\nb\tc\rd\u{8}e\u{c}f\"g\\h/i🎌j\\x");
    }

    #[test]
    fn values_in_lists_are_found_and_short_ones_ignored() {
        let mut traces = Traces::of("c-hanako-1");
        traces.add(&json!({"metadata": [["azabu-juban", "tokyo"], {"email": "a@b.c"}, {"note": "plain"}, "minato"], "email": "a@b"}));
        let in_text = |text: &str| {
            let text = SearchText::new(text.as_bytes());
            traces.value_in(&text, |_| Ok::<_, Infallible>(true)).unwrap()
        };
        assert_eq!(["azabu-juban", "minato", "A@B.C"].map(in_text), [true; 3]);
        assert_eq!(["tokyo", "plain", "a@b!"].map(in_text), [false; 3]);
    }

    #[test]
    fn id_is_searched_unless_it_is_short() {
        let text = SearchText::new(b"for C-HANAKO-1, c-hana-1 and c-han-1");
        let found = ["c-hanako-1", "c-hana-1", "c-han-1", "c-hanako-2"].map(|id| Traces::of(id).id_in(&text));
        assert_eq!(found, [true, true, false, false]);
    }

    #[test]
    fn value_of_several_customers_is_ignored() {
        let text = SearchText::new("0901234".as_bytes());
        assert!(!hanako().value_in(&text, |_| Ok::<_, Infallible>(false)).unwrap());
    }

    #[test]
    fn intent_is_about_a_customer_by_its_id_or_by_its_email_alone() {
        for (intent, expected) in [
            (json!({"op": "update", "customer_id": "c-hanako-1", "body": {"email": "new"}}), true),
            (json!({"op": "create", "body": {"email": "hanako@example.jp"}}), true),
            (json!({"op": "update", "customer_id": "other", "body": {"email": "hanako@example.jp"}}), false),
            (json!({"op": "update", "customer_id": 7, "body": {"email": "hanako@example.jp"}}), false),
            (json!({"op": "create", "body": {"email": "other"}}), false),
            (json!([{"customer_id": "c-hanako-1"}]), false),
        ] {
            assert_eq!(hanako().is_only_about_customer(intent.to_string().as_bytes()), expected, "{intent}");
        }
        assert!(!hanako().is_only_about_customer(b"{\"customer_id\": \"c-hanako-1\""));
    }

    #[test]
    fn file_names_and_debug_output_contain_no_values() {
        assert_eq!(hanako().masked("Hanako@example.jp-0901234.json"), "****-****.json");
        let shown = format!("{:?}", hanako());
        assert!(shown.contains("c-hanako-1") && !shown.contains("example.jp"), "{shown}");
    }
}
