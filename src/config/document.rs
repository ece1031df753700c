//! The parsed file while it is read key by key: it remembers what was asked for, so that the list
//! of known keys is the reading itself, and what is left over is unknown.
//!
//! A file that does not parse is read as far as it goes, so that one lost quotation mark does not
//! hide five wrong values. What the parser made of a broken place is not judged: a line with a
//! syntax error, and all keys below a table's broken header.
//!
//! Rejected: deserializing with serde, which stops at the first wrong value.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Complaint, ConfigError, Wrong, invalid};
use super::source::{Source, names_a_secret};

/// A shorter beginning fits too many names.
const SHORTEST_BEGINNING: usize = 3;

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The name of a table and of a key in it.
type Key = (&'static str, &'static str);

/// A file being read.
pub(super) struct Document<'t> {
    source: Source<'t>,
    root: DeTable<'t>,
    asked: Vec<Key>,
    complaints: Vec<Complaint>,
    broken: Vec<Range<usize>>,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            source: Source::new(text),
            root: root.into_inner(),
            asked: Vec::new(),
            complaints: Vec::new(),
            broken: Vec::new(),
        };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = document.source.line_at(span.start);
            document.report("not valid TOML", syntax(text, &line, &span, error.message()), span);
            let header = text[line.clone()].trim_start().starts_with('[');
            let unsure = if header { until_next_header(text, line.end) } else { line.end };
            document.broken.push(line.start..unsure);
        }
        document
    }

    /// Reads one key. None where it is absent or wrong, and the latter is noted.
    pub(super) fn read<T>(
        &mut self,
        table: &'static str,
        key: &'static str,
        check: impl FnOnce(&Value<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.asked.push((table, key));
        let value = self.value(table, key)?;
        let span = value.span();
        match check(value) {
            Ok(checked) => Some(checked),
            Err(wrong) => {
                self.complain(&format!("{table}.{key}"), wrong, span);
                None
            }
        }
    }

    /// Notes that two keys do not go together, at the later one of those that are in the file.
    pub(super) fn clash(&mut self, keys: [Key; 2], wrong: Wrong) {
        let found = keys
            .iter()
            .filter_map(|(table, key)| Some((self.value(table, key)?.span(), format!("{table}.{key}"))));
        if let Some((span, path)) = found.max_by_key(|(span, _)| span.start) {
            self.complain(&path, wrong, span);
        }
    }

    /// The keys that were asked for, `table.key`.
    pub(super) fn keys(&self) -> Vec<String> {
        self.asked.iter().map(|(table, key)| format!("{table}.{key}")).collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Everything that is wrong, what nobody asked for included; `path` is the file's name.
    pub(super) fn finish(mut self, path: &Path) -> Result<(), ConfigError> {
        for (subject, wrong, span) in self.left_over() {
            self.complain(&subject, wrong, span);
        }
        invalid(path, &self.source, self.complaints)
    }

    fn value(&self, table: &str, key: &str) -> Option<&Value<'t>> {
        self.root.get(table)?.get_ref().as_table()?.get(key)
    }

    /// Notes a problem, unless the parser had to guess there.
    fn complain(&mut self, subject: &str, wrong: Wrong, span: Range<usize>) {
        let guessed = self
            .broken
            .iter()
            .any(|broken| broken.start < span.end.max(span.start + 1) && span.start <= broken.end);
        if !guessed {
            self.report(subject, wrong, span);
        }
    }

    fn report(&mut self, subject: &str, wrong: Wrong, span: Range<usize>) {
        let subject = subject.to_owned();
        self.complaints.push(Complaint { subject, wrong, span });
    }

    /// Tables and keys that nobody asked for, and tables that are none.
    fn left_over(&self) -> Vec<(String, Wrong, Range<usize>)> {
        let mut found = Vec::new();
        for (name, value) in &self.root {
            let (table, span) = (name.get_ref().as_ref(), name.span());
            let known = self.asked.iter().any(|(known, _)| *known == table);
            match (known, value.get_ref()) {
                (true, DeValue::Table(entries)) => {
                    for (key, _) in entries {
                        let (key, span) = (key.get_ref().as_ref(), key.span());
                        if !self.asked.contains(&(table, key)) {
                            found.push((format!("{table}.{key}"), self.unknown_key(table, key), span));
                        }
                    }
                }
                (true, other) => {
                    let wrong = Wrong::new(format!("expected a table, found {}", kind(other)))
                        .help(format!("write [{table}] on a line of its own and its keys below"));
                    found.push((format!("[{table}]"), wrong, span));
                }
                (false, DeValue::Table(_)) => {
                    found.push((format!("[{table}]"), self.unknown_table(table), span));
                }
                (false, _) => found.push((table.to_owned(), self.stray_key(table), span)),
            }
        }
        found
    }

    fn unknown_key(&self, table: &str, key: &str) -> Wrong {
        let wrong = Wrong::new("unknown key");
        let same_table = self.asked.iter().filter(|(known, _)| *known == table);
        let known: Vec<&str> = same_table.map(|(_, key)| *key).collect();
        if names_a_secret(key) && !key.ends_with("file") {
            return wrong.help(SECRETS_STAY_OUT);
        }
        if let Some(near) = nearest(key, known.iter().copied()) {
            return wrong.help(format!("did you mean `{near}`?"));
        }
        if let Some(help) = self.help_elsewhere(key) {
            return wrong.help(help);
        }
        wrong.help(format!("[{table}] has {}", known.join(", ")))
    }

    fn stray_key(&self, key: &str) -> Wrong {
        let wrong = Wrong::new("unknown key above the first table");
        match self.help_elsewhere(key) {
            Some(help) => wrong.help(help),
            None => wrong.help(format!("each key stands below one of {}", self.tables().join(", "))),
        }
    }

    fn unknown_table(&self, table: &str) -> Wrong {
        let wrong = Wrong::new("unknown table");
        if names_a_secret(table) {
            return wrong.help(SECRETS_STAY_OUT);
        }
        let tables = self.asked.iter().map(|(table, _)| *table);
        match nearest(table, tables) {
            Some(near) => wrong.help(format!("did you mean [{near}]?")),
            None => wrong.help(format!("there are {}", self.tables().join(", "))),
        }
    }

    /// What to say of a key that is unknown here: it is a secret, or it belongs to other tables.
    fn help_elsewhere(&self, key: &str) -> Option<String> {
        if names_a_secret(key) {
            return Some(SECRETS_STAY_OUT.to_owned());
        }
        let near = nearest(key, self.asked.iter().map(|(_, key)| *key))?;
        let homes: Vec<String> = self
            .asked
            .iter()
            .filter(|(_, key)| *key == near)
            .map(|(table, key)| format!("`{key}` below [{table}]"))
            .collect();
        Some(format!("did you mean {}?", homes.join(" or ")))
    }

    fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = self.asked.iter().map(|(table, _)| format!("[{table}]")).collect();
        tables.dedup();
        tables
    }
}

/// Said wherever a secret stands in the file.
pub(super) const SECRETS_STAY_OUT: &str = "the secret key never belongs in this file; put it into \
     a file of its own and name that in api.secret_key_file";

/// What kind of value this is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The name most like this one, if one is so like it that a slip or a missing end explains the
/// difference.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let slips = |known: &str| strsim::damerau_levenshtein(&name, known);
    let begins = |known: &str| known.starts_with(&name) || name.starts_with(known);
    known
        .into_iter()
        .filter(|known| {
            slips(known) <= known.len() / 3 || (name.len() >= SHORTEST_BEGINNING && begins(known))
        })
        .min_by_key(|known| slips(known))
}

/// What the parser says of a syntax error, but for the commonest, which it takes for something else
/// (`level = info` for the number `inf`).
fn syntax(text: &str, line: &Range<usize>, span: &Range<usize>, message: &str) -> Wrong {
    let before = text.get(line.start..span.start).unwrap_or_default();
    let behind = text.get(span.start..line.end).unwrap_or_default().trim_start();
    match behind.chars().next() {
        _ if !before.trim_end().ends_with('=') => {}
        None | Some('#') => return Wrong::new("a value is missing"),
        Some(c) if c.is_alphabetic() => return Wrong::new("text must stand in quotes"),
        Some('“' | '”' | '„' | '‘' | '’' | '「' | '＂') => {
            return Wrong::new("text must stand in plain quotes, \"…\"");
        }
        Some(_) => {}
    }
    Wrong::new(message.replace(", expected ", "; expected "))
}

/// The position of the next line that begins a table.
fn until_next_header(text: &str, from: usize) -> usize {
    let mut at = from;
    for line in text[from..].split_inclusive('\n') {
        if at > from && line.trim_start().starts_with('[') {
            // Up to the line end before it, so that the header itself is judged.
            return at - 1;
        }
        at += line.len();
    }
    text.len()
}
