//! The dependencies against `deny.toml`: licences, banned crates and sources. `cargo deny check`
//! reads the same file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

/// The rules of `deny.toml` that apply to the dependencies of this program.
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
    registries: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Rules {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
        let file: toml::Table = text.parse().unwrap();
        let texts = |table: &str, key: &str| -> Vec<String> {
            let list = file[table][key].as_array().unwrap();
            list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
        };
        let banned = file["bans"]["deny"].as_array().unwrap();
        let rules = Self {
            targets: texts("graph", "targets"),
            licences: texts("licenses", "allow").into_iter().collect(),
            banned: banned.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect(),
            registries: texts("sources", "allow-registry").into_iter().collect(),
        };
        assert_eq!(
            file["bans"]["wildcards"].as_str(),
            Some("deny"),
            "the check below needs wildcards = deny"
        );
        assert!(texts("sources", "allow-git").is_empty(), "the check below allows no git source");
        rules
    }

    /// Returns the rules that a package violates.
    fn objections(&self, package: &Value) -> Vec<String> {
        let name = package["name"].as_str().unwrap();
        let mut found = Vec::new();
        match package["license"].as_str().map(|text| (text, Expression::parse_mode(text, ParseMode::LAX))) {
            Some((text, Ok(licence))) => {
                let is_allowed = |requirement: &spdx::LicenseReq| {
                    let id = requirement.license.id().map(|id| id.name);
                    requirement.addition.is_none() && id.is_some_and(|id| self.licences.contains(id))
                };
                if !licence.evaluate(is_allowed) {
                    found.push(format!("{name}: its licence {text} is not allowed"));
                }
            }
            Some((text, Err(_))) => found.push(format!("{name}: its licence {text:?} cannot be read")),
            None => found.push(format!("{name}: names no licence")),
        }
        if self.banned.contains(name) {
            found.push(format!("{name} is banned"));
        }
        // A package without a source belongs to this repository.
        if let Some(source) = package["source"].as_str() {
            let registry = source.strip_prefix("registry+");
            if !registry.is_some_and(|registry| self.registries.contains(registry)) {
                found.push(format!("{name}: its source {source} is not allowed"));
            }
        } else {
            for dependency in package["dependencies"].as_array().unwrap() {
                if dependency["req"] == "*" {
                    found.push(format!("{name}: its dependency {} has no version", dependency["name"]));
                }
            }
        }
        found
    }
}

/// Returns the packages that are compiled for a target, including those for tests.
fn packages(target: &str) -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let all = metadata["packages"].as_array().unwrap();
    all.iter().filter(|package| used.contains(package["id"].as_str().unwrap())).cloned().collect()
}

#[test]
fn every_dependency_has_an_allowed_licence_and_source_and_is_not_banned() {
    let rules = Rules::read();
    for target in &rules.targets {
        let packages = packages(target);
        assert!(packages.len() > 100, "{target}: {}", packages.len());
        let objections: Vec<String> = packages.iter().flat_map(|package| rules.objections(package)).collect();
        assert!(objections.is_empty(), "{target}: {objections:#?}");
    }
}

#[test]
fn package_with_another_licence_source_or_name_is_refused() {
    let rules = Rules::read();
    let package = |name: &str, licence: Value, source: Value, version: &str| {
        let dependencies = serde_json::json!([{"name": "a", "req": version}]);
        serde_json::json!({"name": name, "license": licence, "source": source, "dependencies": dependencies})
    };
    let registry = Value::from("registry+https://github.com/rust-lang/crates.io-index");
    let count = |package: &Value| rules.objections(package).len();
    assert_eq!(count(&package("fine", "MIT/Apache-2.0".into(), registry.clone(), "*")), 0);
    assert_eq!(count(&package("ours", "MIT".into(), Value::Null, "^1")), 0);
    assert_eq!(count(&package("copyleft", "GPL-3.0-only".into(), registry.clone(), "^1")), 1);
    assert_eq!(count(&package("both", "MIT AND GPL-3.0-only".into(), registry.clone(), "^1")), 1);
    assert_eq!(count(&package("unknown", "whatever".into(), registry.clone(), "^1")), 1);
    assert_eq!(count(&package("none", Value::Null, registry.clone(), "^1")), 1);
    assert_eq!(count(&package("openssl", "MIT".into(), registry, "^1")), 1);
    assert_eq!(count(&package("git", "MIT".into(), "git+https://example.com/a".into(), "^1")), 1);
    assert_eq!(count(&package("wild", "MIT".into(), Value::Null, "*")), 1);
}
