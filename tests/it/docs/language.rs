//! The language of the repository: words that no text uses, and the width of its prose.
//!
//! A line keeps a listed word if a comment on that line, or alone on the line above, says
//! `word: REASON`. Where no comment is possible, [`KEPT`] names the line.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The words that no text uses, in any case; a hyphen stands for a space. An underscore separates
/// words, so names of tests and functions are read, too.
// word: the list itself
const WORDS: &str = "who whom whoever nobody somebody anybody anew a-person is-told are-told";

/// WIDTH limits a line of prose, in characters.
const WIDTH: usize = 100;

/// MOST_EXCEPTIONS limits the markers and the entries of [`KEPT`] together.
const MOST_EXCEPTIONS: usize = 39;

/// Lines that keep a word: the path, a part of the line, and the reason. An entry without a part of
/// a line excepts the whole file, from the width as well.
const KEPT: [(&str, &str, &str); 7] = [
    ("migrations/01-inbound/up.sql", "", "never edited after its release"),
    ("migrations/02-outbound/up.sql", "", "never edited after its release"),
    ("migrations/03-hardening/up.sql", "", "never edited after its release"),
    ("migrations/04-imprecise-lists/up.sql", "", "never edited after its release"),
    ("packaging/debian/copyright", "", "a licence"),
    ("tests/it/golden/schema.sql", "", "written from the migrations"),
    ("docs/operations.md", "--kill-whom=main", "an option of systemctl"), // word: the option
];

/// Pages that a test writes. Their lines may be long.
const GENERATED: [&str; 2] = ["docs/promises.md", "docs/faults.md"];

/// The directories with text. Files of the root are read if they are Markdown or TOML.
const DIRECTORIES: [&str; 12] = [
    ".cargo",
    ".ci",
    "benches",
    "crates",
    "docs",
    "examples",
    "fuzz",
    "migrations",
    "packaging",
    "src",
    "systemd",
    "tests",
];

/// Directories that git ignores, and inputs of fuzzers, which are data.
const LEFT_OUT: [&str; 6] = ["target", "artifacts", "corpus", "coverage", "__pycache__", "seeds"];

/// A text file of the repository.
struct Text {
    /// The path from the root on.
    path: String,
    content: String,
}

/// A line that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that git tracks or would track, apart from licences and lock files.
fn texts() -> Vec<Text> {
    let mut found: Vec<PathBuf> = Vec::new();
    let is_text_of_root = |path: &Path| path.extension().is_some_and(|e| e == "md" || e == "toml");
    found.extend(entries(root()).into_iter().filter(|path| path.is_file() && is_text_of_root(path)));
    let mut directories: Vec<PathBuf> = DIRECTORIES.iter().map(|name| root().join(name)).collect();
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                true if !LEFT_OUT.contains(&name) => directories.push(path),
                false if name != "Cargo.lock" && !name.ends_with(".pending-snap") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    let read = |path: PathBuf| {
        let content = String::from_utf8(std::fs::read(&path).unwrap()).ok()?;
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (!content.contains('\0')).then_some(Text { path, content })
    };
    found.into_iter().filter_map(read).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Where comments of a file begin, by its name.
fn comment_marks(path: &str) -> &'static [&'static str] {
    let name = path.rsplit('/').next().unwrap();
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs" | "c" | "mjs" | "js" | "php") => &["//", "/*", "* "],
        Some("sql") => &["--"],
        Some("md" | "json" | "jsonl" | "http" | "pem" | "key" | "txt") => &[],
        _ => &["#"],
    }
}

/// Whether a line has a marker `word: REASON` in a comment.
fn is_marked(line: &str) -> bool {
    let after =
        ["// word: ", "# word: ", "-- word: ", "<!-- word: "].iter().find_map(|mark| line.split_once(mark));
    after.is_some_and(|(_, reason)| reason.trim_end_matches("-->").chars().any(char::is_alphanumeric))
}

/// Whether a line consists of a comment.
fn is_comment_alone(line: &str) -> bool {
    ["//", "#", "--", "<!--"].iter().any(|mark| line.trim_start().starts_with(mark))
}

/// A line in lower case with one space between words, and with nothing that only continues it.
fn plain(line: &str) -> String {
    let line = line.trim().trim_end_matches('\\');
    let line = line.trim_start_matches(['/', '!', '#', '-', '*', '>']);
    let spaced = line.replace('_', " ").to_lowercase();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The listed words that begin in a line. A phrase may end in the line after it.
fn words_in(line: &str, next: &str) -> Vec<String> {
    let line = plain(line);
    let text = format!("{line} {}", plain(next));
    let is_part = |c: char| c.is_alphanumeric();
    let found = WORDS.split(' ').map(|word| word.replace('-', " ")).filter(|word| {
        text.match_indices(word.as_str()).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            at < line.len() && !before.ends_with(is_part) && !after.starts_with(is_part)
        })
    });
    found.collect()
}

/// The listed words of a file, and the lines with a marker that excepts one.
fn words_of(text: &Text) -> (Vec<Finding>, BTreeSet<usize>) {
    let lines: Vec<&str> = text.content.lines().collect();
    let (mut findings, mut markers) = (Vec::new(), BTreeSet::new());
    for (index, line) in lines.iter().enumerate() {
        let found = words_in(line, lines.get(index + 1).unwrap_or(&""));
        if found.is_empty() {
            continue;
        }
        let above = index.checked_sub(1).filter(|above| is_comment_alone(lines[*above]));
        let marker = std::iter::once(index).chain(above).find(|at| is_marked(lines[*at]));
        match marker {
            Some(marker) => drop(markers.insert(marker)),
            None => findings.extend(found.into_iter().map(|what| Finding {
                path: text.path.clone(),
                line: index + 1,
                what,
            })),
        }
    }
    (findings, markers)
}

/// The width of a line of prose: its characters, but for targets of links and addresses.
fn width(line: &str) -> usize {
    let mut text = String::new();
    for (part, piece) in line.split("](").enumerate() {
        let end = if part == 0 { 0 } else { piece.find(')').unwrap_or(piece.len()) };
        text.push_str(&piece[end..]);
    }
    let addresses = text.split_whitespace().filter(|word| word.contains("://"));
    text.chars().count() - addresses.map(|word| word.chars().count()).sum::<usize>()
}

/// The lines of prose that are too wide: comments and Markdown, but for tables and code blocks.
fn wide_lines(text: &Text) -> Vec<Finding> {
    let (is_markdown, marks) = (text.path.ends_with(".md"), comment_marks(&text.path));
    let (mut findings, mut is_fenced, mut may_be_code) = (Vec::new(), false, true);
    for (index, line) in text.content.lines().enumerate() {
        let mark = marks.iter().find(|mark| line.trim_start().starts_with(**mark));
        if !is_markdown && mark.is_none() {
            is_fenced = false;
            continue;
        }
        let prose = line.trim_start().trim_start_matches(|c: char| !is_markdown && "/!*#-".contains(c));
        let prose = prose.trim_start();
        let is_fence = prose.starts_with("```");
        is_fenced ^= is_fence;
        let is_code = is_markdown && may_be_code && line.starts_with("    ");
        may_be_code = line.trim().is_empty() || is_code;
        let is_definition = prose.starts_with('[') && prose.contains("]: ");
        if is_fence || is_fenced || is_code || is_definition || prose.starts_with('|') {
            continue;
        }
        let columns = width(line);
        if columns > WIDTH {
            findings.push(Finding {
                path: text.path.clone(),
                line: index + 1,
                what: format!("{columns} columns"),
            });
        }
    }
    findings
}

fn listed(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n{finding}")).collect()
}

fn is_kept_whole(path: &str) -> bool {
    KEPT.iter().any(|(kept, part, _)| *kept == path && part.is_empty())
}

#[test]
fn no_text_uses_a_listed_word() {
    let texts = texts();
    assert!(texts.len() > 500, "the texts are not found: {}", texts.len());
    let (mut findings, mut markers, mut used) = (Vec::new(), 0, BTreeSet::new());
    for text in &texts {
        let lines: Vec<&str> = text.content.lines().collect();
        let (found, marked) = words_of(text);
        markers += marked.len();
        for finding in found {
            let line = lines[finding.line - 1];
            let keeps = |(path, part, _): &(&str, &str, &str)| *path == text.path && line.contains(part);
            match KEPT.iter().position(keeps) {
                Some(kept) => drop(used.insert(kept)),
                None => findings.push(finding),
            }
        }
    }
    assert!(findings.is_empty(), "{} listed words:{}", findings.len(), listed(&findings));
    let is_stale = |kept: &usize| match KEPT[*kept] {
        (path, "", _) => texts.iter().all(|text| text.path != path),
        _ => !used.contains(kept),
    };
    let stale: Vec<_> = (0..KEPT.len()).filter(is_stale).map(|kept| KEPT[kept]).collect();
    assert!(stale.is_empty(), "entries of KEPT that keep nothing: {stale:?}");
    assert!(markers + KEPT.len() <= MOST_EXCEPTIONS, "{markers} markers and {} entries", KEPT.len());
}

#[test]
fn no_line_of_prose_is_wider_than_100_columns() {
    let texts = texts();
    let checked =
        texts.iter().filter(|text| !is_kept_whole(&text.path) && !GENERATED.contains(&text.path.as_str()));
    let findings: Vec<Finding> = checked.flat_map(wide_lines).collect();
    assert!(findings.is_empty(), "{} wide lines:{}", findings.len(), listed(&findings));
}

/// What a translation keeps of the sections: headings and rows of tables by their number, and lines
/// of code but for comments.
fn kept_by_a_translation(path: &str) -> (usize, usize, Vec<String>) {
    let page = std::fs::read_to_string(root().join(path)).unwrap();
    // The picture is before the first section.
    let (_, page) = page.split_once("\n## ").unwrap();
    let (mut code, mut is_fenced) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced || line.starts_with("    ") {
            code.push(line.split("  #").next().unwrap().trim_end().to_owned());
        }
    }
    let count = |mark: &str| page.lines().filter(|line| line.starts_with(mark)).count();
    (count("## "), count("|"), code)
}

#[test]
fn japanese_readme_has_the_sections_tables_and_commands_of_the_english_one() {
    let english = kept_by_a_translation("README.md");
    assert!(english.2.len() > 30, "the commands are not found: {english:?}");
    assert_eq!(kept_by_a_translation("README.ja.md"), english);
}

fn text(path: &str, content: &str) -> Text {
    Text { path: path.to_owned(), content: content.to_owned() }
}

fn found(content: &str) -> Vec<String> {
    words_of(&text("a.rs", content)).0.iter().map(Finding::to_string).collect()
}

#[test]
fn each_listed_word_is_found_in_any_case_and_in_a_name() {
    assert_eq!(WORDS.split(' ').count(), 10);
    for word in WORDS.split(' ').map(|word| word.replace('-', " ")) {
        let expected = [format!("a.rs:2: {word}")];
        for line in [
            format!("// A customer {word}, and more"),
            format!("{}'s", word.to_uppercase()),
            format!("fn test_{}_once() {{", word.replace(' ', "_")),
        ] {
            assert_eq!(found(&format!("first\n{line}\nlast")), expected, "{line}");
        }
        assert!(found(&format!("x{word} {word}x")).is_empty(), "{word}");
    }
}

#[test]
fn phrase_over_two_lines_is_found_where_it_begins() {
    let phrase = WORDS.split(' ').find(|word| word.starts_with("is")).unwrap();
    let (one, two) = phrase.split_once('-').unwrap();
    let found_over = |between: &str| found(&format!("    /// what {one}{between}{two} of it"));
    for between in ["\n    /// ", " \\\n        ", "\n    //! "] {
        assert_eq!(found_over(between), [format!("a.rs:1: {one} {two}")], "{between:?}");
    }
    assert!(found_over("\n\n").is_empty());
}

#[test]
fn marker_with_a_reason_excepts_its_line_and_the_line_below() {
    let word = WORDS.split(' ').next().unwrap();
    for (content, expected) in [
        (format!("let a = \"{word}\"; // word: a name of systemd"), vec![]),
        (format!("// word: a name of systemd\n{word}"), vec![]),
        (format!("<!-- word: a name of systemd -->\n{word}"), vec![]),
        (format!("{word} # word: a name of systemd"), vec![]),
        (format!("// word: \n{word}"), vec![format!("a.rs:2: {word}")]),
        (format!("<!-- word: -->\n{word}"), vec![format!("a.rs:2: {word}")]),
        (format!("let a = 1; // word: a name\n{word}"), vec![format!("a.rs:2: {word}")]),
        (format!("// word: a name of systemd\n\n{word}"), vec![format!("a.rs:3: {word}")]),
    ] {
        assert_eq!(found(&content), expected, "{content}");
    }
    let (_, markers) = words_of(&text("a.rs", &format!("// word: a name\n{word} {word}")));
    assert_eq!(markers, BTreeSet::from([0]));
}

#[test]
fn prose_above_100_columns_is_found_and_code_tables_and_links_are_not() {
    let fill = |columns: usize| "a ".repeat(columns).chars().take(columns).collect::<String>();
    let lines = |path: &str, content: &str| -> Vec<usize> {
        wide_lines(&text(path, content)).iter().map(|finding| finding.line).collect()
    };
    let (fits, wide) = (fill(96), fill(98));
    assert!(lines("a.rs", &format!("/// {fits}\n    let a = \"{wide}{wide}\";")).is_empty());
    assert_eq!(lines("a.rs", &format!("code\n/// {wide}\n    // {fits}")), [2, 3]);
    assert_eq!(lines(".ci/run", &format!("{wide}{wide}\n# {fill}", fill = fill(99))), [2]);
    assert_eq!(lines("a.sql", &format!("-- {wide}\nSELECT '{wide}'")), [1]);
    assert_eq!(lines("a.md", &format!("{wide}\n\n{wide}{wide}")), [3]);
    for left_out in [
        format!("| {wide} | b |"),
        format!("```sh\n{wide} b c\n```"),
        format!("    {wide}\n    {wide}"),
        format!("{} [link](docs/{}.md)", fill(90), "a".repeat(50)),
        format!("{} https://example.com/{}", fill(90), "a".repeat(50)),
    ] {
        assert!(lines("a.md", &format!("text\n\n{left_out}")).is_empty(), "{left_out}");
    }
    assert_eq!(lines("a.md", &format!("```\n{wide} b c\n```\n{wide} b c")), [4]);
    assert_eq!(lines("a.md", &format!("text\n    {wide}")), [2]);
    assert!(lines("a.rs", &format!("//! ```text\n//! {wide}\n//! ```\n//! | {wide} |")).is_empty());
    let finding = &wide_lines(&text("a.md", &fill(103)))[0];
    assert_eq!(finding.to_string(), "a.md:1: 103 columns");
}
