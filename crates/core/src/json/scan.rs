//! A scanner that finds the members of an object and the items of an array without parsing them.
//!
//! It is used where the parser fails. It finds the customers on a page that contains invalid JSON,
//! and the id of a customer that is unreadable or truncated. Only quotes, brackets, commas and
//! colons are significant; anything may stand between them. The scanner does not recurse and does
//! not allocate.

/// One member of an object or item of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanItem<'a> {
    /// The member's key with its quotes; empty for an item.
    pub key: &'a [u8],
    /// The text of its value.
    pub value: &'a [u8],
    /// Whether the value is complete. A number that ends with the text may be truncated.
    pub is_whole: bool,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// At the closing bracket. The number is the offset after it.
    Closed(usize),
    /// The text ends before the closing bracket.
    Cut,
    /// The text is not a valid object or array.
    Malformed,
}

/// An iterator over the members of one object or the items of one array.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    close: u8,
    is_first: bool,
    end: Option<ScanEnd>,
}

/// Returns the members of the object at the start of `text`.
pub fn members(text: &[u8]) -> Scanner<'_> {
    Scanner::new(text, b'{', b'}')
}

/// Returns the items of the array at the start of `text`.
pub fn items(text: &[u8]) -> Scanner<'_> {
    Scanner::new(text, b'[', b']')
}

/// Returns the text of the last complete member with this name. For a repeated key the last value
/// counts.
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(object).filter(|part| part.is_whole && key_equals(part.key, name)).last().map(|part| part.value)
}

/// Whether `text` is one object and nothing else.
pub fn is_object(text: &[u8]) -> bool {
    let mut walk = members(text);
    while walk.next().is_some() {}
    matches!(walk.end, Some(ScanEnd::Closed(rest)) if text[rest..].trim_ascii().is_empty())
}

/// Returns an upper bound for the number of values in `text`, including itself.
pub fn count_values(text: &[u8]) -> usize {
    let (mut count, mut at) = (1, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = after_string(text, at).0,
            _ => {
                count += usize::from(matches!(byte, b',' | b'[' | b'{'));
                at += 1;
            }
        }
    }
    count
}

/// Whether a key, given with its quotes, equals this name.
pub fn key_equals(key: &[u8], name: &str) -> bool {
    let plain = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\""));
    match key.contains(&b'\\') {
        true => serde_json::from_slice::<String>(key).is_ok_and(|key| key == name),
        false => plain == Some(name.as_bytes()),
    }
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8], open: u8, close: u8) -> Self {
        let at = after_space(text, 0);
        let end = match text.get(at) {
            Some(byte) if *byte == open => None,
            Some(_) => Some(ScanEnd::Malformed),
            None => Some(ScanEnd::Cut),
        };
        Self { text, at: at + 1, close, is_first: true, end }
    }

    /// Returns how the scan ended; `None` before its end.
    pub fn end(&self) -> Option<ScanEnd> {
        self.end
    }

    fn step(&mut self) -> Result<ScanItem<'a>, ScanEnd> {
        let is_first = std::mem::take(&mut self.is_first);
        match (self.peek()?, is_first) {
            (byte, _) if byte == self.close => return Err(ScanEnd::Closed(self.at + 1)),
            (_, true) => {}
            (b',', false) => self.at += 1,
            (_, false) => return Err(ScanEnd::Malformed),
        }
        let mut key: &[u8] = &[];
        if self.close == b'}' {
            if self.peek()? != b'"' {
                return Err(ScanEnd::Malformed);
            }
            let from = self.at;
            self.at = after_string(self.text, from).0;
            key = &self.text[from..self.at];
            if self.peek()? != b':' {
                return Err(ScanEnd::Malformed);
            }
            self.at += 1;
        }
        self.peek()?;
        let from = self.at;
        let (to, is_whole) = after_value(self.text, from);
        if to == from {
            return Err(ScanEnd::Malformed);
        }
        self.at = to;
        Ok(ScanItem { key, value: &self.text[from..to], is_whole })
    }

    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Result<u8, ScanEnd> {
        self.at = after_space(self.text, self.at);
        self.text.get(self.at).copied().ok_or(ScanEnd::Cut)
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = ScanItem<'a>;

    fn next(&mut self) -> Option<ScanItem<'a>> {
        if self.end.is_some() {
            return None;
        }
        self.step().map_err(|end| self.end = Some(end)).ok()
    }
}

fn after_space(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Returns the offset after the string that begins at `from`, and whether the string is closed.
fn after_string(text: &[u8], from: usize) -> (usize, bool) {
    let mut at = from + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return (at + 1, true),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    (text.len(), false)
}

/// Returns the offset after the value that begins at `from`, and whether the value is complete.
fn after_value(text: &[u8], from: usize) -> (usize, bool) {
    match text[from] {
        b'"' => after_string(text, from),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_usize, from);
            while let Some(byte) = text.get(at) {
                at += 1;
                match byte {
                    b'"' => at = after_string(text, at - 1).0,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return (at, true);
                }
            }
            (text.len(), false)
        }
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
            let length = text[from..].iter().position(ends);
            length.map_or((text.len(), false), |length| (from + length, true))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(walk: Scanner<'_>) -> Vec<String> {
        walk.map(|part| String::from_utf8_lossy(part.value).into_owned()).collect()
    }

    #[test]
    fn items_are_found_whatever_they_contain() {
        let text = b" [ {\"a\":\"]}\\\"\"} ,NaN, [1,[2]] ,\"x,y\",{\"b\":'\xff'}] ";
        let found = values(items(text));
        assert_eq!(found, ["{\"a\":\"]}\\\"\"}", "NaN", "[1,[2]]", "\"x,y\"", "{\"b\":'\u{fffd}'}"]);
        assert_eq!(values(items(br#"[{"a":"","b":1},2]"#)), [r#"{"a":"","b":1}"#, "2"]);
        let mut walk = items(b"[] x");
        assert_eq!((walk.next(), walk.end()), (None, Some(ScanEnd::Closed(2))));
    }

    #[test]
    fn last_complete_member_of_a_name_counts() {
        let object = br#"{"id":"a","x":{"id":"no"},"\u0069d": "b" ,"y":[1"#;
        assert_eq!(member(object, "id"), Some(&b"\"b\""[..]));
        assert_eq!(member(br#"{"id":"cut"#, "id"), None);
        assert_eq!(member(br#"{"id":12"#, "id"), None, "a number at the end may be longer");
        assert_eq!(member(b"[1]", "id"), None);
    }

    #[test]
    fn end_distinguishes_truncated_from_malformed_text() {
        let end = |text: &[u8]| {
            let mut walk = items(text);
            while walk.next().is_some() {}
            walk.end().unwrap()
        };
        assert_eq!([&b""[..], b"[", b"[1", b"[1,", b"[\"x", b"[[1]"].map(end), [ScanEnd::Cut; 6]);
        assert_eq!([&b"{}"[..], b"x", b"[,]", b"[1 2]", b"[1}"].map(end), [ScanEnd::Malformed; 5]);
        assert!(is_object(b" {\"a\":NaN} ") && !is_object(b"{} x") && !is_object(b"{\"a\":1"));
        assert!(!is_object(b"{a:1}") && !is_object(b"{\"a\" 1}"));
    }

    #[test]
    fn count_of_values_ignores_strings() {
        assert_eq!(count_values(br#"{"a":[1,2,{"b":"[,,,]"}],"c":"\",,"}"#), 7);
        assert!(count_values("[0,0]".as_bytes()) >= 3);
    }

    proptest! {
        #[test]
        fn scan_of_any_bytes_ends(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for mut walk in [members(&bytes), items(&bytes)] {
                prop_assert!(walk.by_ref().count() <= bytes.len());
                prop_assert!(walk.end().is_some());
            }
            count_values(&bytes);
        }

        #[test]
        fn items_of_valid_json_are_those_of_the_parser(texts in prop::collection::vec("[a\\[{\"\\\\,:é]{0,6}", 0..6)) {
            let list = serde_json::to_string(&texts).unwrap();
            let expected: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
            prop_assert_eq!(values(items(list.as_bytes())), expected);
        }
    }
}
