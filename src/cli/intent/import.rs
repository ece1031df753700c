//! `intent import`: a file of intents, all or none.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::plan::HttpCall;
use super::{as_usage_error, input, sending_process};
use crate::cli::Exit;
use crate::cli::exit::UsageError;
use crate::cli::operator::operator_name;
use crate::cli::print::{self, Out, count, grouped};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::store::log::mirror;
use crate::store::outbox::accept::{AcceptMode, Acceptance, Door, accept, accept_all};
use crate::store::outbox::delete_limit;
use crate::store::{Reader, StoreError, Tx, write_as_operator};
use komoju_core::intent::text::TextFault;
use komoju_core::intent::{BadIntent, Intent, IntentOp, Rule, Target};

/// LARGEST limits a file, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// SHOWN limits how many calls and unknown customers the preview names.
const SHOWN: usize = 5;

/// Queue all intents of a file, or none.
///
/// A line is one intent, as a JSON object.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent import customers.jsonl\n  \
    generate | komoju-sync intent import - --yes\n\n\
    A line looks like {\"op\":\"update\",\"customer_id\":\"cus_123\",\"body\":{\"email\":\"new@example.com\"}}, and may have \
    id, expect and not_before (docs/intent.schema.json). The ids are printed, one a line. \
    A line without an id is a new intent at each import; a line with the same id and content is the same intent.")]
pub(super) struct IntentImportArgs {
    /// The file, or - for standard input.
    file: PathBuf,
    /// Queue without a confirmation.
    #[arg(long)]
    yes: bool,
}

/// A parsed file: each intent with its line, and each bad line with its fault.
#[derive(Default)]
struct ParsedFile {
    intents: Vec<(usize, Intent)>,
    bad: Vec<(usize, String)>,
}

pub(super) fn run(config: &Config, args: &IntentImportArgs) -> anyhow::Result<Exit> {
    let path = &config.database.path;
    let reader = Reader::open(path)?;
    let lines = ParsedFile::parse(&read(&args.file)?, &named(&args.file))?;
    refuse(&lines.bad)?;
    let intents = || lines.intents.iter().map(|(_, intent)| intent);
    let by = operator_name();
    // Only the database knows the ids in use and the creates that are referred to. With --yes it is
    // asked once, because a transaction that is rolled back may leave tokens in the WAL.
    let mode = if args.yes { AcceptMode::Queue } else { AcceptMode::DryRun };
    let tried = write_as_operator(path, |tx| {
        let tried = accept_all(tx, intents(), Door::Cli, Some(&by), mode)?;
        if tried.is_ok() {
            preview(&reader, config, &lines.intents)?;
        }
        Ok(tried)
    })?;
    let refused = |(n, why): (usize, String)| (lines.intents[n].0, why);
    let mut accepted = tried
        .or_else(|all| refuse(&all.into_iter().map(refused).collect::<Vec<_>>()).map(|()| Vec::new()))?;
    if !args.yes {
        if !is_confirmed(&args.file)? {
            print::note("nothing was queued");
            return Ok(Exit::Failed);
        }
        let accept_one = |tx: &Tx<'_>, intent| accept(tx, intent, Door::Cli, Some(&by));
        accepted = write_as_operator(path, |tx| intents().map(|intent| accept_one(tx, intent)).collect())
            .map_err(as_usage_error)?;
    }
    let mut out = Out::new();
    accepted.iter().try_for_each(|intent| out.line(intent.id()))?;
    out.finish()?;
    let new = accepted.iter().filter(|accepted| matches!(accepted, Acceptance::New(_))).count();
    let before = match accepted.len() - new {
        0 => String::new(),
        known => format!(" ({known} more were accepted before)"),
    };
    print::note(&format!("queued {}{before}; {}", count(new as u64, "intent"), sending_process(path)?));
    Ok(Exit::Fine)
}

/// Asks the operator whether to queue the intents.
fn is_confirmed(file: &Path) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || file == Path::new("-") {
        return Err(UsageError("nothing was queued; add --yes to queue them".to_owned()).into());
    }
    print::note("queue them? [y/N]");
    let mut answer = String::new();
    io::stdin().lock().take(16).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn named(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        print::safe(&file.display().to_string())
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{} cannot be read", named(file));
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        // A directory can be opened, and only reading it fails.
        let opened = File::open(file).and_then(|opened| {
            if opened.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(opened) }
        });
        Box::new(opened.map_err(|e| UsageError(format!("{}: {e}", unreadable())))?)
    };
    let mut bytes = Vec::new();
    source.by_ref().take(LARGEST + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(UsageError(format!("a file of intents has at most {LARGEST} bytes; split it")).into());
    }
    Ok(bytes)
}

impl ParsedFile {
    /// Checks every line. `file` is its name in messages.
    fn parse(bytes: &[u8], file: &str) -> Result<Self, UsageError> {
        let mut lines = Self::default();
        for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.len() > input::LONGEST + 2 {
                lines.bad.push((number, format!("a line has at most {} bytes", input::LONGEST)));
                continue;
            }
            match Intent::from_bytes(line) {
                Ok(intent) => lines.intents.push((number, intent)),
                // The whole file has this encoding; the same message for each line does not help.
                Err(BadIntent {
                    rule: Rule::Json(fault @ (TextFault::ByteOrderMark | TextFault::Utf16)),
                    ..
                }) => return Err(UsageError(format!("nothing was queued; {file} {fault}"))),
                Err(why) => lines.bad.push((number, why.to_string())),
            }
        }
        if lines.intents.is_empty() && lines.bad.is_empty() {
            return Err(UsageError(format!("nothing was queued; {file} holds no intent")));
        }
        Ok(lines)
    }
}

/// Returns the error about bad lines, if there are any.
fn refuse(bad: &[(usize, String)]) -> Result<(), UsageError> {
    if bad.is_empty() {
        return Ok(());
    }
    let faults: String = bad.iter().map(|(line, why)| format!("\n  line {line}: {why}")).collect();
    let lines = count(bad.len() as u64, "line");
    Err(UsageError(format!("nothing was queued; {lines} cannot be taken:{faults}")))
}

/// Prints what the intents would do.
fn preview(reader: &Reader, config: &Config, intents: &[(usize, Intent)]) -> Result<(), StoreError> {
    let of = |op| intents.iter().filter(|(_, intent)| intent.op.name() == op).count() as u64;
    let (all, deletes) = (count(intents.len() as u64, "intent"), of("delete"));
    let (creates, updates) = (count(of("create"), "create"), count(of("update"), "update"));
    print::note(&format!("{all}: {creates}, {updates} and {}", count(deletes, "delete")));
    if let Some(customers) = customers(reader, intents)? {
        print::note(&customers);
    }
    let boot = SystemClock::new().boot();
    let counted = reader.query(|conn| delete_limit::counted(conn, boot.as_ref()))? + deletes;
    let over = config.outbound.hold_deletes_over;
    if deletes > 0 && counted > over {
        print::note(&format!(
            "with them {} are open or were sent within the last hour, more than outbound.hold_deletes_over = {over}: these {} \
             wait for `komoju-sync intent approve`",
            count(counted, "delete"),
            count(deletes, "delete")
        ));
    }
    let tag = config.outbound.reconcile_tag.as_deref();
    for (_, intent) in intents.iter().take(SHOWN) {
        // The tag's value is the id; one that is not given is drawn when the intent is queued.
        let id = intent.id.as_ref().map_or("…", |id| id.as_str());
        print::note(&format!("  {}", HttpCall::of(&intent.op, None, tag.map(|key| (key, id)))));
    }
    if intents.len() > SHOWN {
        print::note(&format!("  … and {} more", grouped((intents.len() - SHOWN) as u64)));
    }
    Ok(())
}

/// Returns the line about the customers, with the first of those that the mirror does not know.
fn customers(reader: &Reader, intents: &[(usize, Intent)]) -> Result<Option<String>, StoreError> {
    let (mut named, mut of_creates) = (BTreeSet::new(), BTreeSet::new());
    for (_, intent) in intents {
        match &intent.op {
            IntentOp::Create(_) => {}
            IntentOp::Update(Target::Customer(id), _) | IntentOp::Delete(Target::Customer(id)) => {
                named.insert(id);
            }
            IntentOp::Update(Target::CreatedBy(id), _) | IntentOp::Delete(Target::CreatedBy(id)) => {
                of_creates.insert(id.as_str());
            }
        }
    }
    let (mut live, mut deleted, mut unknown) = (0_u64, 0_u64, Vec::new());
    reader.in_snapshot(|conn| {
        for id in named {
            match mirror::find(conn, id)? {
                Some(stored) if stored.mirror_row.is_live() => live += 1,
                Some(_) => deleted += 1,
                None => unknown.push(id.as_str()),
            }
        }
        Ok(())
    })?;
    let first = unknown.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let more = if unknown.len() > SHOWN { ", …" } else { "" };
    let parts = [
        (live, "in the mirror".to_owned()),
        (deleted, "deleted at KOMOJU".to_owned()),
        (unknown.len() as u64, format!("unknown to the mirror ({first}{more})")),
        (of_creates.len() as u64, "that an intent creates".to_owned()),
    ];
    let parts = parts.into_iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts.map(|(n, what)| format!("{} {what}", grouped(n))).collect();
    Ok((!parts.is_empty()).then(|| format!("customers: {}", parts.join(", "))))
}
