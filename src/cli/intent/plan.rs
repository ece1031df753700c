//! `intent plan`: the requests that would be sent now, and the next step of each intent. It sends
//! nothing. `sync --dry-run` prints the same.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Exit;
use crate::cli::print::{self, Out, Style, count, safe};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::remote::client;
use crate::store::outbox::delete_limit;
use crate::store::outbox::queue::{self, PlannedIntent};
use crate::store::{Conn, Reader};
use komoju_core::intent::lifecycle::{IntentState, OutcomeStatus};
use komoju_core::intent::{IntentBody, IntentOp, MASKED_TOKEN, Target};
use komoju_core::lag::Consistency;
use komoju_core::open_intent::OpenIntent;
use komoju_core::park_timer::Moment;
use komoju_core::plan::attempt;
use komoju_core::plan::settle::refusal;
use komoju_core::{CustomerId, time};

/// Show the requests that would be sent now; send nothing.
///
/// They are those of the open intents, in their order. A line has method, path below
/// `api.base_url`, body, and the first step. That is a wait, or a request that finds out whether an
/// earlier attempt took effect.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent plan\n  \
    komoju-sync intent plan --json | jq 'select(.op == \"delete\") | .email'\n\n\
    Fields are compared with the mirror. A payment token is shown as ****.")]
pub(super) struct IntentPlanArgs {
    #[command(flatten)]
    style: Style,
}

/// An HTTP request, as it would be sent.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HttpCall {
    /// The HTTP method.
    method: &'static str,
    /// The path below `api.base_url`; `@ID` in it stands for the customer that this intent creates.
    path: String,
    /// The JSON body, its token masked.
    body: Option<Value>,
}

impl HttpCall {
    /// The call that carries out an intent. `customer` is the resolved customer; `tag` marks a
    /// create.
    pub(super) fn of(op: &IntentOp, customer: Option<&CustomerId>, tag: Option<(&str, &str)>) -> Self {
        let of_customer = |target: &Target| match (customer, target) {
            (Some(id), _) | (None, Target::Customer(id)) => client::path(&["customers", id.as_str()]),
            (None, Target::CreatedBy(intent)) => format!("{}/@{intent}", client::path(&["customers"])),
        };
        match op {
            IntentOp::Create(body) => {
                let body = match tag.filter(|(key, _)| !body.has_metadata(key)) {
                    Some((key, id)) => body.clone().with_metadata(key, id),
                    None => body.clone(),
                };
                Self { method: "POST", path: client::path(&["customers"]), body: Some(masked(&body)) }
            }
            IntentOp::Update(target, body) => {
                Self { method: "PATCH", path: of_customer(target), body: Some(masked(body)) }
            }
            IntentOp::Delete(target) => Self { method: "DELETE", path: of_customer(target), body: None },
        }
    }
}

impl fmt::Display for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.as_ref().map(|body| format!("  {body}")).unwrap_or_default();
        write!(f, "{} {}{}", self.method, safe(&self.path), safe(&body))
    }
}

fn masked(body: &IntentBody) -> Value {
    let mut fields = body.without_token();
    if body.token().is_some() {
        fields.insert("payment_details".to_owned(), MASKED_TOKEN.into());
    }
    Value::Object(fields)
}

/// An open intent, the call that would be sent for it, and what the call waits for. `--json` prints
/// it.
#[derive(Debug, PartialEq, Serialize)]
struct PlannedCall {
    id: String,
    op: Option<&'static str>,
    state: &'static str,
    /// The customer, if it is known.
    customer_id: Option<String>,
    /// The customer's email in the mirror.
    email: Option<String>,
    #[serde(flatten)]
    call: Option<HttpCall>,
    /// A create's idempotency key: `its` own of an earlier attempt, or a `new` one.
    key: Option<&'static str>,
    /// What an update changes compared with the mirror: field, from, to.
    differs: Value,
    /// Why it is not sent at once; null if nothing delays it.
    waits_for: Option<String>,
    /// What is done next: a wait, a request, or the end of the intent.
    next_step: String,
    /// Whether an earlier attempt may have taken effect.
    #[serde(skip)]
    is_unclear: bool,
    #[serde(skip)]
    needs_operator: bool,
}

/// The inputs of a plan besides the intents.
struct PlanInputs<'a> {
    /// The metadata key that marks a new create.
    new_tag: Option<&'a str>,
    /// Whether deletes without an approval are held.
    holds_deletes: bool,
    consistency: Consistency,
    now: Moment,
}

impl PlannedCall {
    /// Plans an intent.
    fn of(planned: &PlannedIntent, by: &PlanInputs<'_>) -> Self {
        let open = &planned.open;
        let op = open.intent.as_ref().ok().map(|intent| &intent.op);
        let is_new_delete = matches!(op, Some(IntentOp::Delete(_))) && open.life.state == IntentState::Queued;
        let is_held = planned.is_held || by.holds_deletes && is_new_delete && !planned.is_approved;
        let has_key = open.frozen.key.is_some();
        // A tag is fixed with the key.
        let tag = if has_key { open.frozen.tag.as_deref() } else { by.new_tag };
        let tag = tag.map(|key| (key, open.id.as_str()));
        let mirrored = planned.mirrored.as_ref().and_then(Value::as_object);
        let email = mirrored.and_then(|fields| fields.get("email")).and_then(Value::as_str);
        let key = if has_key { "its" } else { "new" };
        let waits_for = waits_for(planned, is_held, &time::written(by.now.wall));
        Self {
            op: op.map(IntentOp::name),
            state: open.life.state.word(),
            customer_id: open.customer.as_ref().map(|id| id.as_str().to_owned()),
            email: email.map(str::to_owned),
            call: op.map(|op| HttpCall::of(op, open.customer.as_ref(), tag)),
            key: matches!(op, Some(IntentOp::Create(_))).then_some(key),
            differs: match op {
                Some(IntentOp::Update(_, body)) => differences(body, mirrored),
                _ => Value::Null,
            },
            next_step: next_step(open, waits_for.as_deref(), by),
            waits_for,
            is_unclear: open.life.outcome == OutcomeStatus::Unknown,
            needs_operator: is_held || open.life.state == IntentState::Parked,
            id: open.id.clone(),
        }
    }
}

impl fmt::Display for PlannedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", safe(&self.id), self.state)?;
        if let Some(call) = &self.call {
            let key = match self.key {
                Some("its") => "  with its key",
                Some(_) => "  with a new key",
                None => "",
            };
            write!(f, "\n    {call}{key}")?;
        }
        for (field, sides) in self.differs.as_object().into_iter().flatten() {
            let [from, to] = ["from", "to"].map(|side| safe(&sides[side].to_string()));
            write!(f, "\n    {}: {from} -> {to}", safe(field))?;
        }
        if self.op == Some("delete") {
            let email = self.email.as_deref().unwrap_or("a customer without a known email");
            write!(f, "\n    deletes {}", safe(email))?;
        }
        if self.is_unclear {
            f.write_str(
                "\n    an earlier attempt may have taken effect; that is checked first if it can be",
            )?;
        }
        match &self.waits_for {
            Some(what) => write!(f, "\n    waits for {}", safe(what)),
            None => write!(f, "\n    next: {}", safe(&self.next_step)),
        }
    }
}

/// Returns why an intent is not sent at once, if it is not.
fn waits_for(planned: &PlannedIntent, is_held: bool, now: &str) -> Option<String> {
    let open = &planned.open;
    match open.life.state {
        IntentState::Parked => {
            let why = planned.reason.as_deref().unwrap_or_default();
            return Some(format!("an operator (`komoju-sync intent retry` or `cancel`): {why}"));
        }
        IntentState::Sending => return Some("the answer to its attempt".to_owned()),
        _ => {}
    }
    let intent = match &open.intent {
        Ok(intent) => intent,
        Err(why) => return Some(format!("an operator: it cannot be read ({why})")),
    };
    if is_held {
        let why = "too many deletes are open or were sent within the last hour";
        return Some(format!("`komoju-sync intent approve`: {why}"));
    }
    let awaited = match &intent.op {
        IntentOp::Update(Target::CreatedBy(create), _) | IntentOp::Delete(Target::CreatedBy(create)) => {
            open.customer.is_none().then(|| create.as_str())
        }
        _ => None,
    };
    let later = |at: Option<String>| at.filter(|at| at.as_str() > now);
    let ahead = planned.ahead.as_deref().or(awaited).map(|id| format!("intent {id}"));
    ahead
        .or_else(|| later(intent.not_before.map(time::written)).map(|at| format!("its time, {at}")))
        .or_else(|| later(planned.next_attempt_at.clone()).map(|at| format!("its next attempt, {at}")))
}

/// Returns what is done next about an intent, as an attempt that begins now would decide it.
fn next_step(open: &OpenIntent, waits_for: Option<&str>, by: &PlanInputs<'_>) -> String {
    match (waits_for, refusal(open)) {
        (Some(what), _) => format!("wait for {what}"),
        (None, Some(why)) if open.may_have_taken_effect() => format!("park: {why}"),
        (None, Some(why)) => format!("reject: {why}"),
        (None, None) => attempt::first_step(open, by.consistency, by.now.clone()).to_string(),
    }
}

/// The number of planned calls.
#[derive(Debug)]
pub(in crate::cli) struct PlanCounts {
    /// How many would be sent now.
    pub(in crate::cli) ready: u64,
    waiting: u64,
    /// Whether one needs an operator.
    pub(in crate::cli) exit: Exit,
}

pub(super) fn run(config: &Config, args: &IntentPlanArgs) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.database.path)?;
    let mut out = Out::new();
    let PlanCounts { ready, waiting, exit } =
        reader.in_snapshot(|conn| Ok(print(&mut out, conn, config, args.style)))??;
    out.finish()?;
    if !args.style.is_json() {
        let more = match waiting {
            0 => String::new(),
            n => format!(", {} more wait", print::grouped(n)),
        };
        print::note(&format!("{} would be sent now{more}; nothing was sent", count(ready, "call")));
    }
    Ok(exit)
}

/// Prints the planned calls.
pub(in crate::cli) fn print(
    out: &mut Out,
    conn: &Conn,
    config: &Config,
    style: Style,
) -> anyhow::Result<PlanCounts> {
    let clock = SystemClock::new();
    let (boot, outbound) = (clock.boot(), &config.outbound);
    let by = PlanInputs {
        new_tag: outbound.reconcile_tag.as_deref(),
        holds_deletes: delete_limit::counted(conn, boot.as_ref())? > outbound.hold_deletes_over,
        consistency: Consistency::seconds(config.inbound.consistency_s),
        now: Moment { wall: clock.now(), boot, is_confirmed: clock.may_expire() },
    };
    let mut planning = PlanCounts { ready: 0, waiting: 0, exit: Exit::Fine };
    print::printing(|check| {
        queue::each_planned(conn, |planned| {
            let call = PlannedCall::of(&planned, &by);
            match call.waits_for {
                Some(_) => planning.waiting += 1,
                None => planning.ready += 1,
            }
            if call.needs_operator {
                planning.exit = Exit::Waits;
            }
            check(if style.is_json() { out.json(&call) } else { out.line(&call.to_string()) })
        })
    })?;
    Ok(planning)
}

/// Returns what an update changes compared with the mirror: `{"email": {"from": …, "to": …}}`;
/// metadata key by key.
fn differences(body: &IntentBody, mirrored: Option<&Map<String, Value>>) -> Value {
    let mut differs = Map::new();
    let mut compare = |field: String, from: Option<&Value>, to: &Value| {
        let from = from.unwrap_or(&Value::Null);
        if from != to {
            differs.insert(field, json!({"from": from, "to": to}));
        }
    };
    let of = |name: &str| mirrored.and_then(|fields| fields.get(name));
    for (name, to) in body.fields() {
        match (name.as_str(), to) {
            ("metadata", Value::Object(keys)) => {
                let theirs = of("metadata").and_then(Value::as_object);
                for (key, to) in keys {
                    compare(format!("metadata.{key}"), theirs.and_then(|theirs| theirs.get(key)), to);
                }
            }
            // Only KOMOJU knows what the token becomes.
            ("payment_details", _) => compare("source".to_owned(), of("source"), &MASKED_TOKEN.into()),
            (name, to) => compare(name.to_owned(), of(name), to),
        }
    }
    Value::Object(differs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use komoju_core::intent::Intent;

    fn call(intent: &Value, tag: Option<(&str, &str)>) -> String {
        HttpCall::of(&Intent::parse(&intent.to_string()).unwrap().op, None, tag).to_string()
    }

    #[test]
    fn call_masks_only_the_token() {
        let create =
            json!({"op": "create", "body": {"payment_details": "tok_secret", "metadata": {"a": "1"}}});
        assert_eq!(
            call(&create, Some(("tag", "n1"))),
            r#"POST /customers  {"metadata":{"a":"1","tag":"n1"},"payment_details":"****"}"#
        );
        let update = json!({"op": "update", "customer_id": "a+b:é", "body": {"email": "x"}});
        assert_eq!(call(&update, None), r#"PATCH /customers/a%2Bb%3A%C3%A9  {"email":"x"}"#);
        assert_eq!(call(&json!({"op": "delete", "customer_id": "@n1"}), None), "DELETE /customers/@n1");
    }

    #[test]
    fn differences_name_metadata_by_key() {
        let body = IntentBody::new(
            json!({"email": "b", "metadata": {"x": "1", "y": "2"}, "payment_details": "tok_s"}),
        );
        let mirrored = json!({"email": "a", "metadata": {"x": "1", "z": "3"}, "source": null});
        let differs = differences(&body.unwrap(), mirrored.as_object());
        assert_eq!(
            differs,
            json!({"email": {"from": "a", "to": "b"}, "metadata.y": {"from": null, "to": "2"},
                "source": {"from": null, "to": "****"}})
        );
    }
}
