//! The names of tables and keys: which ones are unknown, and which known one was probably meant.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::error::{LocatedProblem, ValueProblem};
use super::source::names_a_secret;

/// SHORTEST_BEGINNING controls how many characters of a name are enough to recognise it. A shorter
/// beginning fits too many names.
const SHORTEST_BEGINNING: usize = 3;

/// The help wherever a secret is in the file.
pub(super) const SECRETS_STAY_OUT: &str = "the secret key does not belong in this file; put it into \
     a file of its own and name that file in api.secret_key_file";

/// The same for the webhook's secret.
pub(super) const WEBHOOK_SECRET_STAYS_OUT: &str = "the webhook's secret does not belong in this file; \
     put it into a file of its own and name that file in webhook.secret_file";

/// The name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
}

impl Key {
    /// Returns the name of a key in a table.
    pub(super) const fn new(table: &'static str, name: &'static str) -> Self {
        Self { table, name }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name)
    }
}

/// Returns a problem for each unknown table, each unknown key, and each table that is none.
pub(super) fn unknown(root: &DeTable<'_>, known: &[Key]) -> Vec<LocatedProblem> {
    let mut problems = Vec::new();
    for (name, value) in root {
        let table = name.get_ref().as_ref();
        let is_known = known.iter().any(|key| key.table == table);
        let (subject, problem) = match value.get_ref() {
            DeValue::Table(entries) if is_known => {
                problems.extend(unknown_keys(table, entries, known));
                continue;
            }
            other if is_known => {
                let help = format!("write [{table}] on a line of its own and its keys below");
                (format!("[{table}]"), ValueProblem::kind("expected a table", other).help(help))
            }
            DeValue::Table(_) => (format!("[{table}]"), unknown_table(table, known)),
            _ => (table.to_owned(), stray_key(table, known)),
        };
        problems.push(LocatedProblem::new(subject, problem, name.span()));
    }
    problems
}

/// Returns a problem for each unknown key of a table.
fn unknown_keys(table: &str, entries: &DeTable<'_>, known: &[Key]) -> Vec<LocatedProblem> {
    let here: Vec<&str> = known.iter().filter(|key| key.table == table).map(|key| key.name).collect();
    let mut problems = Vec::new();
    for entry in entries.keys() {
        let name = entry.get_ref().as_ref();
        if here.contains(&name) {
            continue;
        }
        let help = if names_a_secret(name) && !name.ends_with("file") {
            if table == "webhook" { WEBHOOK_SECRET_STAYS_OUT } else { SECRETS_STAY_OUT }.to_owned()
        } else if let Some(near) = nearest(name, here.iter().copied()) {
            format!("did you mean `{near}`?")
        } else {
            elsewhere(name, known).unwrap_or_else(|| format!("[{table}] has {}", here.join(", ")))
        };
        let problem = ValueProblem::new("unknown key").help(help);
        problems.push(LocatedProblem::new(format!("{table}.{name}"), problem, entry.span()));
    }
    problems
}

/// Returns what is problem with a key above the first table.
fn stray_key(name: &str, known: &[Key]) -> ValueProblem {
    let help = elsewhere(name, known);
    ValueProblem::new("unknown key above the first table")
        .help(help.unwrap_or_else(|| format!("each key belongs below one of {}", tables(known))))
}

/// Returns what is problem with an unknown table.
fn unknown_table(table: &str, known: &[Key]) -> ValueProblem {
    let help = if names_a_secret(table) {
        SECRETS_STAY_OUT.to_owned()
    } else if let Some(near) = nearest(table, known.iter().map(|key| key.table)) {
        format!("did you mean [{near}]?")
    } else {
        format!("there are {}", tables(known))
    };
    ValueProblem::new("unknown table").help(help)
}

/// Returns the help for a key that is a secret or belongs to other tables.
fn elsewhere(name: &str, known: &[Key]) -> Option<String> {
    if names_a_secret(name) {
        return Some(SECRETS_STAY_OUT.to_owned());
    }
    let near = nearest(name, known.iter().map(|key| key.name))?;
    let homes = known.iter().filter(|key| key.name == near);
    let homes: Vec<String> = homes.map(|key| format!("`{near}` below [{}]", key.table)).collect();
    Some(format!("did you mean {}?", homes.join(" or ")))
}

/// Returns the names of all tables, for messages.
fn tables(known: &[Key]) -> String {
    let mut tables: Vec<String> = known.iter().map(|key| format!("[{}]", key.table)).collect();
    tables.dedup();
    tables.join(", ")
}

/// Returns the known name that is most like this one, where a typing error or a missing end
/// explains the difference.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let distance = |known: &str| strsim::damerau_levenshtein(&name, known);
    let begins = |known: &str| known.starts_with(&name) || name.starts_with(known);
    known
        .into_iter()
        .filter(|known| {
            distance(known) <= known.len() / 3 || (name.len() >= SHORTEST_BEGINNING && begins(known))
        })
        .min_by_key(|known| distance(known))
}
