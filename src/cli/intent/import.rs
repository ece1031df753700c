//! `intent import`: a file of intents, all or none.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::plan::Call;
use super::{input, refused_at_the_door, what_happens_next};
use crate::cli::exit::UsageError;
use crate::cli::print::{self, Out, count};
use crate::cli::{Exit, person};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::store::log::mirror;
use crate::store::outbox::accept::{Accepted, Door, Keep, accept, accept_all};
use crate::store::outbox::delete_limit;
use crate::store::{Reader, StoreError, write_beside};
use komoju_core::CustomerId;
use komoju_core::intent::text::TextFault;
use komoju_core::intent::{BadIntent, Intent, Rule, Target, Wish};

/// The most that is read, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// How many calls the preview shows.
const SHOWN: usize = 5;

/// Queue a file of intents, one JSON object a line: all of them, or none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent import customers.jsonl\n  \
    generate | komoju-sync intent import - --yes\n\n\
    A line looks like {\"op\":\"update\",\"customer_id\":\"cus_123\",\"body\":{\"email\":\"new@example.com\"}}, with id, expect \
    and not_before where they are wanted (docs/intent.schema.json). The ids are printed, one a line. \
    A line without an id is another intent each time it is imported; one with the same id and content is the same.")]
pub(super) struct Args {
    /// The file, or - for standard input.
    file: PathBuf,
    /// Queue them without asking.
    #[arg(long)]
    yes: bool,
}

/// An intent, and the line that it came from.
type Lines = Vec<(usize, Intent)>;

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let path = &config.database.path;
    let reader = Reader::open(path)?;
    let (lines, bad) = read(&args.file)?;
    let by = person::name();
    refuse(&bad)?;
    let intents = || lines.iter().map(|(_, intent)| intent);
    // Only the database knows used ids, and creates that are referred to. With --yes it is asked once: what is taken back may leave
    // tokens in the WAL.
    let keep = if args.yes { Keep::Yes } else { Keep::No };
    let tried = write_beside(path, |tx| {
        let tried = accept_all(tx, intents(), Door::Cli, Some(&by), keep)?;
        if tried.is_ok() {
            preview(&reader, config, &lines)?;
        }
        Ok(tried)
    })?;
    let mut accepted = match tried {
        Ok(accepted) => accepted,
        Err(refused) => {
            let bad: Vec<_> = refused.into_iter().map(|(place, why)| (lines[place].0, why)).collect();
            refuse(&bad)?;
            return Ok(Exit::Usage);
        }
    };
    if !args.yes {
        if !io::stdin().is_terminal() || args.file == Path::new("-") {
            return Err(UsageError("nothing was queued; add --yes to queue them".to_owned()).into());
        }
        print::note("queue them? [y/N]");
        let mut answer = String::new();
        io::stdin().lock().take(16).read_line(&mut answer)?;
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            print::note("nothing was queued");
            return Ok(Exit::Failed);
        }
        accepted = write_beside(path, |tx| {
            intents().map(|intent| accept(tx, intent, Door::Cli, Some(&by))).collect::<Result<Vec<_>, _>>()
        })
        .map_err(refused_at_the_door)?;
    }
    let mut out = Out::new();
    for intent in &accepted {
        out.line(intent.id())?;
    }
    out.finish()?;
    let new = accepted.iter().filter(|accepted| matches!(accepted, Accepted::New(_))).count() as u64;
    let known = accepted.len() as u64 - new;
    let before = if known == 0 { String::new() } else { format!(" ({known} more were accepted before)") };
    print::note(&format!("queued {}{before}; {}", count(new, "intent"), what_happens_next(path)?));
    Ok(Exit::Fine)
}

/// Reads and checks every line: the intents, and what is wrong with the lines that are none.
fn read(file: &Path) -> anyhow::Result<(Lines, Vec<(usize, String)>)> {
    let unreadable = || format!("{} cannot be read", named(file));
    let source: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => {
            // A directory can be opened, and only its reading fails.
            let opened = File::open(file).and_then(|opened| match opened.metadata()?.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => Ok(opened),
            });
            let opened = opened.map_err(|e| UsageError(format!("{}: {e}", unreadable())))?;
            Box::new(BufReader::new(opened))
        }
    };
    let mut source = source.take(LARGEST + 1);
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let longest = input::LONGEST as u64 + 1;
        if source.by_ref().take(longest + 1).read_until(b'\n', &mut bytes).with_context(unreadable)? == 0 {
            break;
        }
        if source.limit() == 0 {
            return Err(UsageError(format!("a file of intents has at most {LARGEST} bytes; split it")).into());
        }
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 > longest {
            bad.push((number, format!("a line has at most {} bytes", input::LONGEST)));
            skip_line(&mut source).with_context(unreadable)?;
            continue;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match Intent::from_bytes(&bytes) {
            Ok(intent) => lines.push((number, intent)),
            // The whole file has this encoding; the same message for each line does not help.
            Err(BadIntent {
                rule: Rule::Json(fault @ (TextFault::ByteOrderMark | TextFault::Utf16)),
                ..
            }) => {
                return Err(UsageError(format!("nothing was queued; {} {fault}", named(file))).into());
            }
            Err(why) => bad.push((number, why.to_string())),
        }
    }
    if lines.is_empty() && bad.is_empty() {
        return Err(UsageError(format!("nothing was queued; {} holds no intent", named(file))).into());
    }
    Ok((lines, bad))
}

fn named(file: &Path) -> String {
    match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => print::safe(&file.display().to_string()),
    }
}

fn skip_line(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let piece = source.fill_buf()?;
        let (used, is_over) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (piece.len(), piece.is_empty()),
        };
        source.consume(used);
        if is_over {
            return Ok(());
        }
    }
}

/// The error for lines that cannot be taken, if there are any.
fn refuse(bad: &[(usize, String)]) -> Result<(), UsageError> {
    if bad.is_empty() {
        return Ok(());
    }
    let told = bad.iter().map(|(line, why)| format!("\n  line {line}: {why}")).collect::<String>();
    let lines = count(bad.len() as u64, "line");
    Err(UsageError(format!("nothing was queued; {lines} cannot be taken:{told}")))
}

/// The intents and the customers of an import, counted for the preview.
#[derive(Default)]
struct Counts {
    creates: u64,
    updates: u64,
    deletes: u64,
    customers: BTreeSet<CustomerId>,
    of_creates: BTreeSet<String>,
}

impl Counts {
    fn of(lines: &Lines) -> Self {
        let mut counts = Self::default();
        for (_, intent) in lines {
            let target = match &intent.wish {
                Wish::Create(_) => {
                    counts.creates += 1;
                    continue;
                }
                Wish::Update(target, _) => {
                    counts.updates += 1;
                    target
                }
                Wish::Delete(target) => {
                    counts.deletes += 1;
                    target
                }
            };
            match target {
                Target::Customer(id) => drop(counts.customers.insert(id.clone())),
                Target::CreatedBy(_) => drop(counts.of_creates.insert(target.text())),
            }
        }
        counts
    }

    /// The line about the customers, with the first of those that the mirror does not know.
    fn of_customers(&self, reader: &Reader) -> Result<Option<String>, StoreError> {
        let (mut live, mut deleted, mut unknown) = (0_u64, 0_u64, Vec::new());
        reader.in_one_view(|conn| {
            for id in &self.customers {
                match mirror::find(conn, id)? {
                    Some(stored) if stored.standing.is_live() => live += 1,
                    Some(_) => deleted += 1,
                    None => unknown.push(id),
                }
            }
            Ok(())
        })?;
        let mut parts = Vec::new();
        if live > 0 {
            parts.push(format!("{} in the mirror", print::grouped(live)));
        }
        if deleted > 0 {
            parts.push(format!("{} deleted at KOMOJU", print::grouped(deleted)));
        }
        if !unknown.is_empty() {
            let first = unknown.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let more = if unknown.len() > SHOWN { ", …" } else { "" };
            let many = print::grouped(unknown.len() as u64);
            parts.push(format!("{many} unknown to the mirror ({first}{more})"));
        }
        if !self.of_creates.is_empty() {
            let many = print::grouped(self.of_creates.len() as u64);
            parts.push(format!("{many} that an intent creates"));
        }
        Ok((!parts.is_empty()).then(|| format!("customers: {}", parts.join(", "))))
    }
}

fn preview(reader: &Reader, config: &Config, lines: &Lines) -> Result<(), StoreError> {
    let counts = Counts::of(lines);
    let deletes = counts.deletes;
    print::note(&format!(
        "{}: {}, {} and {}",
        count(lines.len() as u64, "intent"),
        count(counts.creates, "create"),
        count(counts.updates, "update"),
        count(deletes, "delete"),
    ));
    if let Some(customers) = counts.of_customers(reader)? {
        print::note(&customers);
    }
    let boot = SystemClock::new().boot();
    let counted = reader.look(|conn| delete_limit::counted(conn, boot.as_ref()))?;
    let over = config.outbound.hold_deletes_over;
    if deletes > 0 && counted + deletes > over {
        print::note(&format!(
            "with them {} are open or were sent within the last hour, more than outbound.hold_deletes_over = {over}: these {} wait \
             for `komoju-sync intent approve`",
            count(counted + deletes, "delete"),
            count(deletes, "delete")
        ));
    }
    let tag = config.outbound.reconcile_tag.as_deref();
    for (_, intent) in lines.iter().take(SHOWN) {
        // An id that is still to be drawn is the tag's value.
        let id = intent.id.as_ref().map_or("…", |id| id.as_str());
        print::note(&format!("  {}", Call::of(&intent.wish, None, tag.map(|key| (key, id)))));
    }
    if lines.len() > SHOWN {
        print::note(&format!("  … and {} more", print::grouped((lines.len() - SHOWN) as u64)));
    }
    Ok(())
}
