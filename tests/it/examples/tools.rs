//! pandas, DuckDB, Datasette and Litestream.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use komoju_testkit::Installation;
use serde_json::Value;

use super::{ProgramRun, example, not_tested, python_package, read, root};
use crate::PROGRAM;

/// Runs a Python example with these packages.
fn python(packages: &Path, program: &str, harness: &Installation) -> ProgramRun {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).arg(example(program)).arg(harness.database());
    let ran = read(harness, &mut command);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    ran
}

/// Returns the sums of the third column of a CSV by the second one.
fn totals(csv: &str) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for row in csv.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()) {
        *totals.entry(row[1].to_owned()).or_default() += row[2].parse::<u64>().unwrap();
    }
    totals
}

/// Returns the counts from the database; the query selects `KEY:COUNT`.
fn counted(harness: &Installation, query: &str) -> BTreeMap<String, u64> {
    let rows = harness.column(query);
    let pairs = rows.iter().map(|row| row.rsplit_once(':').unwrap());
    pairs.map(|(key, count)| (key.to_owned(), count.parse().unwrap())).collect()
}

#[test]
fn pandas_example_counts_the_customers() {
    let packages = match python_package("pandas", "pandas") {
        Ok(packages) => packages,
        Err(why) => return not_tested("examples/pandas", &why),
    };
    let harness = Installation::swept(PROGRAM, 30);
    let printed = python(&packages, "pandas/signups.py", &harness).stdout;
    assert!(printed.starts_with("month,brand,customers\n20"), "{printed}");
    let query =
        "SELECT coalesce(source_brand, 'none') || ':' || count(*) FROM customers GROUP BY source_brand";
    assert_eq!(totals(&printed), counted(&harness, query));
}

#[test]
fn duckdb_example_counts_the_changes() {
    let packages = match crate::schema::duckdb::packages() {
        Ok(packages) => packages,
        Err(why) => return not_tested("examples/duckdb", &why),
    };
    let harness = Installation::swept(PROGRAM, 5);
    let id = harness.one("SELECT min(id) FROM customers");
    harness.expect(0, &["intent", "delete", &id]);
    harness.expect(0, &["sync"]);
    let printed = python(&packages, "duckdb/changes_by_day.py", &harness).stdout;
    assert!(printed.starts_with("day,kind,changes\n20"), "{printed}");
    let query = "SELECT kind || ':' || count(*) FROM changes GROUP BY kind";
    assert_eq!(totals(&printed), counted(&harness, query));
}

/// Runs `datasette --get` with the settings from the comment of the example.
fn datasette(packages: &Path, harness: &Installation, path: &str) -> ProgramRun {
    let metadata = example("datasette/metadata.yaml");
    let text = std::fs::read_to_string(&metadata).unwrap();
    let recipe = text.lines().take_while(|line| !line.contains("User:")).collect::<Vec<_>>().join(" ");
    let recipe = recipe.replace(['#', '\\'], " ");
    let settings: Vec<&str> =
        recipe.split_whitespace().skip_while(|argument| *argument != "--setting").collect();
    assert_eq!(settings.iter().filter(|argument| **argument == "--setting").count(), 3, "{settings:?}");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).args(["-m", "datasette", "serve"]).arg(harness.database());
    read(harness, command.arg("--metadata").arg(metadata).args(settings).arg("--get").arg(path))
}

#[test]
fn datasette_example_shows_the_views_and_nothing_else() {
    let packages = match python_package("datasette", "datasette<1") {
        Ok(packages) => packages,
        Err(why) => return not_tested("examples/datasette", &why),
    };
    let harness = Installation::swept(PROGRAM, 5);
    let shown = datasette(&packages, &harness, "/komoju/customers.json?_shape=array&_size=max");
    let rows: Vec<Value> = shown.json().remove(0).as_array().unwrap().clone();
    let ids: BTreeSet<_> = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, harness.mirror().into_keys().collect());
    let shown = datasette(&packages, &harness, "/komoju.json").json().remove(0);
    let names = |kind: &str| {
        let entries = shown[kind].as_array().unwrap().iter();
        entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let views: BTreeSet<_> =
        harness.column("SELECT name FROM sqlite_schema WHERE type = 'view'").into_iter().collect();
    assert_eq!(names("views"), views);
    assert_eq!(names("tables"), ["attempts".to_owned()].into());
    for refused in ["/komoju/intents.json", "/komoju.json?sql=select+body+from+intents", "/komoju.db"] {
        let ran = datasette(&packages, &harness, refused);
        assert!(ran.code != Some(0) && ran.stdout.contains("Forbidden"), "{refused}: {}", ran.stdout);
    }
}

#[test]
fn datasette_example_names_every_table_and_view() {
    let text = std::fs::read_to_string(example("datasette/metadata.yaml")).unwrap();
    let (_, tables) = text.split_once("    tables:\n").unwrap();
    let entries = tables.lines().filter_map(|line| line.strip_prefix("      ")?.split_once(':'));
    let named = entries.map(|(name, _)| name).filter(|name| !name.starts_with([' ', '#']));
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    let harness = Installation::swept(PROGRAM, 0);
    let query = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'";
    assert_eq!(named, harness.column(query).into_iter().collect());
}

/// The recipe itself is run in `inv_15_erase::unfinished`.
#[test]
fn litestream_example_is_the_recipe_of_the_guide() {
    let guide = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (recipe, _) = guide.split_once("```yaml\n").unwrap().1.split_once("```").unwrap();
    let file = std::fs::read_to_string(example("litestream/litestream.yml")).unwrap();
    assert!(file.ends_with(recipe), "{file}");
}
