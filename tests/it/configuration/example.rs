//! `config.example.toml` is the reference of the configuration, so it must be correct.

use std::collections::BTreeSet;
use std::path::Path;

use komoju_sync::config::Config;

const EXAMPLE: &str = include_str!("../../../config.example.toml");

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("config.example.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether a line sets a key, also after a `#`. A comment has a space after it.
fn is_key(line: &str) -> bool {
    let line = line.strip_prefix('#').unwrap_or(line);
    line.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Returns the example with all keys that have no default.
fn with_every_key() -> String {
    let switch_on = |line: &str| match line.strip_prefix('#') {
        Some(key) if is_key(line) => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(switch_on).collect()
}

/// Returns the keys that a text sets, as `table.key`.
fn keys_of(text: &str) -> BTreeSet<String> {
    let tables: toml::Table = text.parse().expect("the text is TOML");
    let keys = |(table, keys): (&String, &toml::Value)| -> Vec<String> {
        let keys = keys.as_table().expect("all keys are in tables").keys();
        keys.map(|key| format!("{table}.{key}")).collect()
    };
    tables.iter().flat_map(keys).collect()
}

#[test]
fn example_contains_the_defaults() {
    assert_eq!(parse(EXAMPLE), Config::default());
}

#[test]
fn example_with_every_key_is_valid_and_shown_in_full() {
    let config = parse(&with_every_key());
    assert_eq!(keys_of(&config.render()), keys_of(&with_every_key()));
    assert_eq!(parse(&config.render()), config);
}

#[test]
fn example_has_every_key_in_the_order_of_the_code() {
    let example = with_every_key();
    assert_eq!(keys_of(&example), Config::keys().into_iter().collect());

    let place = |key: &String| {
        let (table, name) = key.split_once('.').unwrap();
        let table = example.find(&format!("[{table}]")).unwrap();
        table + example[table..].find(&format!("\n{name} = ")).unwrap()
    };
    assert!(Config::keys().iter().map(place).is_sorted());
}

#[test]
fn every_key_of_the_example_is_below_its_explanation() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for pair in lines.windows(2).filter(|pair| is_key(pair[1])) {
        // Two keys may share an explanation.
        assert!(pair[0].starts_with("# ") || is_key(pair[0]), "{}", pair[1]);
    }
}
