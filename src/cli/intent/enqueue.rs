//! `intent create`, `update` and `delete`: queue one intent.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{as_usage_error, input, sending_process, wait};
use crate::cli::Exit;
use crate::cli::exit::UsageError;
use crate::cli::operator::operator_name;
use crate::cli::print::{self, Out, Style};
use crate::store::outbox::accept::{Acceptance, Door, accept};
use crate::store::outbox::queue;
use crate::store::{Reader, write_as_operator};
use komoju_core::intent::{Intent, Rule};

/// Queue the create of a customer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    komoju-sync intent create --email new@example.com --metadata plan=gold --metadata order=7\n  \
    komoju-sync intent create --body @customer.json --id order-7 --wait\n  \
    echo '{\"email\":\"new@example.com\",\"payment_details\":\"tok_…\"}' | komoju-sync intent create --body -\n\n\
    Pass a payment token by --body only: every user of this machine can read a command line.\n\
    The id is printed. A later intent can name the new customer as @ID.")]
pub(super) struct IntentCreateArgs {
    #[command(flatten)]
    parameters: CustomerParameters,
    #[command(flatten)]
    options: QueueOptions,
}

/// Queue an update of a customer; other parameters are unchanged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent update cus_123 --email other@example.com\n  \
    komoju-sync intent update cus_123 --metadata plan=gold --expect '{\"metadata\":{\"plan\":\"silver\"}}' --wait\n  \
    komoju-sync intent update @order-7 --body @more.json\n\n\
    Pass a payment token by --body only: every user of this machine can read a command line.")]
pub(super) struct IntentUpdateArgs {
    /// The customer's id, or @INTENT for the customer that this intent creates.
    customer: String,
    #[command(flatten)]
    parameters: CustomerParameters,
    #[command(flatten)]
    expectation: Expectation,
    #[command(flatten)]
    options: QueueOptions,
}

/// Queue the delete of a customer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent delete cus_123\n  \
    komoju-sync intent delete cus_123 --expect '{\"email\":\"gone@example.com\"}' --wait\n\n\
    If more deletes than outbound.hold_deletes_over are open or were sent within the last hour, further ones wait for \
    `komoju-sync intent approve`.")]
pub(super) struct IntentDeleteArgs {
    /// The customer's id, or @INTENT for the customer that this intent creates.
    customer: String,
    #[command(flatten)]
    expectation: Expectation,
    #[command(flatten)]
    options: QueueOptions,
}

#[derive(Debug, clap::Args)]
struct CustomerParameters {
    /// The email.
    #[arg(long)]
    email: Option<String>,
    /// A metadata key and its value; repeatable.
    #[arg(long, value_name = "K=V")]
    metadata: Vec<String>,
    /// The parameters as a JSON object, from a file or (-) from standard input; --email and
    /// --metadata replace its values.
    #[arg(long, value_name = "@FILE|-", allow_hyphen_values = true)]
    body: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Expectation {
    /// What you last saw (any of email, source, locale, metadata), as a JSON object or @FILE. If
    /// the customer differs, nothing is sent and the intent is parked.
    #[arg(long, value_name = "JSON")]
    expect: Option<String>,
}

#[derive(Debug, clap::Args)]
struct QueueOptions {
    /// Your own id for the intent; the same id with the same content is the same intent.
    #[arg(long)]
    id: Option<String>,
    /// Send nothing before this time, such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// Wait for the outcome, and exit by it: 0 done, 1 rejected or cancelled, 3 parked. Exits 3
    /// after 10 minutes or at Ctrl-C, and at once if no daemon runs.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    style: Style,
}

pub(super) fn create(path: &Path, args: &IntentCreateArgs) -> anyhow::Result<Exit> {
    enqueue(path, json!({"op": "create", "body": args.parameters.merged()?}), &args.options)
}

pub(super) fn update(path: &Path, args: &IntentUpdateArgs) -> anyhow::Result<Exit> {
    let (body, expect) = (args.parameters.merged()?, args.expectation.read()?);
    enqueue(
        path,
        json!({"op": "update", "customer_id": args.customer, "body": body, "expect": expect}),
        &args.options,
    )
}

pub(super) fn delete(path: &Path, args: &IntentDeleteArgs) -> anyhow::Result<Exit> {
    let expect = args.expectation.read()?;
    enqueue(path, json!({"op": "delete", "customer_id": args.customer, "expect": expect}), &args.options)
}

impl Expectation {
    fn read(&self) -> anyhow::Result<Option<Value>> {
        self.expect.as_deref().map(input::expect).transpose()
    }
}

impl CustomerParameters {
    /// Returns the body, with the values of the other options in it.
    fn merged(&self) -> anyhow::Result<Value> {
        let mut body = self.body.as_deref().map_or_else(|| Ok(json!({})), input::body)?;
        let Value::Object(fields) = &mut body else { return Ok(body) };
        if let Some(email) = &self.email {
            fields.insert("email".to_owned(), email.as_str().into());
        }
        let mut given = Map::new();
        for pair in &self.metadata {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(UsageError("--metadata: must be K=V".to_owned()).into());
            };
            if given.insert(key.to_owned(), value.into()).is_some() {
                return Err(UsageError(format!("--metadata: {} is given twice", print::safe(key))).into());
            }
        }
        if given.is_empty() {
            return Ok(body);
        }
        match fields.entry("metadata").or_insert_with(|| json!({})) {
            Value::Object(metadata) => metadata.extend(given),
            _ => return Err(UsageError(format!("body.metadata: {}", Rule::Object)).into()),
        }
        Ok(body)
    }
}

fn enqueue(path: &Path, mut fields: Value, options: &QueueOptions) -> anyhow::Result<Exit> {
    fields["id"] = options.id.clone().into();
    fields["not_before"] = options.not_before.clone().into();
    let intent = Intent::parse(&fields.to_string()).map_err(UsageError::from)?;
    let by = operator_name();
    let accepted =
        write_as_operator(path, |tx| accept(tx, &intent, Door::Cli, Some(&by))).map_err(as_usage_error)?;
    let (id, is_json) = (accepted.id(), options.style.is_json());
    let mut out = Out::new();
    if !is_json {
        out.line(id)?;
        out.flush()?;
    }
    let reader = Reader::open(path)?;
    if let Acceptance::New(_) = &accepted {
        let time =
            options.not_before.as_deref().map(|time| format!(", but not before {}", print::safe(time)));
        print::note(&format!("queued; {}{}", sending_process(path)?, time.unwrap_or_default()));
    } else if let Some((state, _)) = reader.query(|conn| queue::state_and_reason(conn, id))? {
        print::note(&format!(
            "the same intent was accepted under this id before; it is {state}, and nothing was added"
        ));
    }
    let exit = if options.wait { wait::until_settled(path, id)? } else { Exit::Fine };
    if is_json && let Some(row) = reader.query(|conn| queue::intent(conn, id))? {
        out.json(&row)?;
    }
    out.finish()?;
    Ok(exit)
}
