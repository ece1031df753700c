//! A strict reader of the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/practices/naming/>).

use std::collections::{BTreeMap, BTreeSet};

/// One metric family.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// Without `le`.
    pub labels: BTreeSet<String>,
    /// The samples by name and labels, as they were written.
    pub samples: BTreeMap<String, f64>,
}

/// Reads a text. The error is a sentence with the line.
pub fn read(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    for line in text.lines().filter(|line| !line.is_empty()) {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let [what, name, rest] = [(); 3].map(|()| parts.next().unwrap_or_default());
            if name != current {
                if families.contains_key(name) {
                    return wrong("a family is repeated, or in pieces");
                }
                current = name.to_owned();
            }
            let family = families.entry(name.to_owned()).or_default();
            if !family.samples.is_empty() {
                return wrong("it is after samples");
            }
            let field = match what {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                _ => return wrong("neither HELP nor TYPE"),
            };
            if rest.is_empty() || !field.is_empty() {
                return wrong("empty, or repeated");
            }
            *field = rest.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let Some(family) = families.get_mut(&current) else { return wrong("a sample without a family") };
        let suffix =
            name.strip_prefix(current.as_str()).ok_or_else(|| format!("not of {current}: {line}"))?;
        let fits = match family.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            "counter" | "gauge" => suffix.is_empty(),
            _ => return wrong("of no known type"),
        };
        if !fits {
            return wrong("a name that its type does not have");
        }
        let Some(labels) = labels.strip_suffix('}') else { return wrong("labels without an end") };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').ok_or_else(|| format!("no label: {line}"))?;
            let plain = |text: &str, also: &[char]| {
                text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(&c))
            };
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = value.ok_or_else(|| format!("no quotes: {line}"))?;
            if !plain(label, &['_']) || !plain(value, &['_', '.', '+', 'I', '-', 'e']) || value.is_empty() {
                return wrong("a label with other characters");
            }
            if label != "le" {
                family.labels.insert(label.to_owned());
            }
        }
        let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
        if !value.is_finite() || (family.kind != "gauge" && value < 0.0) {
            return wrong("no number of this type");
        }
        if family.samples.insert(series.to_owned(), value).is_some() {
            return wrong("a series is repeated");
        }
    }
    for (name, family) in &families {
        check_family(name, family)?;
    }
    Ok(families)
}

fn check_family(name: &str, family: &Family) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{name}: {why}"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with("komoju_sync_") || !name.chars().all(plain) || name.contains("__") {
        return wrong("a name of another form");
    }
    if family.help.is_empty() || family.kind.is_empty() || family.samples.is_empty() {
        return wrong("no help, type or sample");
    }
    if (family.kind == "counter") != name.ends_with("_total") {
        return wrong("counters end with _total, and nothing else does");
    }
    let measured = ["age", "lag", "duration", "wait", "timestamp", "start_time", "until"];
    if measured.iter().any(|word| name.contains(word)) != name.ends_with("_seconds") {
        return wrong("times are in seconds, and end with _seconds");
    }
    if (name.contains("size") || name.contains("free")) != name.ends_with("_bytes") {
        return wrong("sizes are in bytes, and end with _bytes");
    }
    if ["milli", "micro", "minute", "hour", "percent", "kilo", "mega"].iter().any(|unit| name.contains(unit))
    {
        return wrong("not a base unit");
    }
    if family.kind == "histogram" { check_buckets(name, family) } else { Ok(()) }
}

/// Checks that the buckets rise and that the last one contains all values.
fn check_buckets(name: &str, family: &Family) -> Result<(), String> {
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (series, value) in &family.samples {
        let Some(labels) = series.strip_prefix(&format!("{name}_bucket{{")) else { continue };
        let (others, le) = labels.split_once("le=\"").ok_or_else(|| format!("{series}: no le"))?;
        let le: f64 = le.trim_end_matches("\"}").parse().map_err(|_| format!("{series}: no number"))?;
        buckets.entry(others.trim_end_matches(',').to_owned()).or_default().push((le, *value));
    }
    if buckets.is_empty() {
        return Err(format!("{name}: no buckets"));
    }
    for (labels, mut of) in buckets {
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        let of_all = |suffix: &str| {
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            family.samples.get(&format!("{name}{suffix}{braced}")).copied()
        };
        let last = of.last().copied();
        if of.windows(2).any(|pair| pair[0].1 > pair[1].1)
            || last.is_none_or(|(le, all)| le != f64::INFINITY || Some(all) != of_all("_count"))
            || of_all("_sum").is_none()
        {
            return Err(format!("{name}: buckets of {labels} that do not add up"));
        }
    }
    Ok(())
}
