//! `intent plan`: the calls that would be sent now, exactly. Sends nothing; `sync --dry-run` prints the same.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Exit;
use crate::cli::print::{self, Out, Style, count, safe};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Outbound};
use crate::remote::client;
use crate::store::outbox::delete_limit;
use crate::store::outbox::queue::{self, Planned};
use crate::store::{Conn, Reader};
use komoju_core::intent::lifecycle::{Outcome, State};
use komoju_core::intent::{Body, Intent, MASKED_TOKEN, Target, Wish};
use komoju_core::{CustomerId, time};

/// The calls that would be sent now for the open intents, in their order: method, path below `api.base_url`, body, and what
/// each waits for. Sends nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync intent plan\n  \
    komoju-sync intent plan --json | jq 'select(.op == \"delete\") | .email'\n\n\
    Fields are compared with the mirror. A payment token is shown as ****.")]
pub(super) struct Args {
    #[command(flatten)]
    style: Style,
}

/// One call, as it would be sent.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Call {
    /// The HTTP method.
    method: &'static str,
    /// The path below `api.base_url`; `@ID` in it stands for the customer that this intent creates.
    path: String,
    /// The JSON body, its token masked.
    body: Option<Value>,
}

impl Call {
    /// The call that carries out an intent. `customer` is whom it is about, where that is known; `tag` what marks a create.
    pub(super) fn of(wish: &Wish, customer: Option<&CustomerId>, tag: Option<(&str, &str)>) -> Self {
        let of_customer = |target: &Target| match (customer, target) {
            (Some(id), _) | (None, Target::Customer(id)) => client::path(&["customers", id.as_str()]),
            (None, Target::CreatedBy(intent)) => format!("{}/@{intent}", client::path(&["customers"])),
        };
        match wish {
            Wish::Create(body) => {
                let body = match tag.filter(|(key, _)| !body.has_metadata(key)) {
                    Some((key, id)) => body.clone().with_metadata(key, id),
                    None => body.clone(),
                };
                Self { method: "POST", path: client::path(&["customers"]), body: Some(masked(&body)) }
            }
            Wish::Update(target, body) => {
                Self { method: "PATCH", path: of_customer(target), body: Some(masked(body)) }
            }
            Wish::Delete(target) => Self { method: "DELETE", path: of_customer(target), body: None },
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, safe(&self.path))?;
        match &self.body {
            Some(body) => write!(f, "  {}", safe(&body.to_string())),
            None => Ok(()),
        }
    }
}

fn masked(body: &Body) -> Value {
    let mut fields = body.without_token();
    if body.token().is_some() {
        fields.insert("payment_details".to_owned(), MASKED_TOKEN.into());
    }
    Value::Object(fields)
}

/// What `--json` prints of an open intent.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a str,
    op: Option<&'static str>,
    state: &'static str,
    /// Whom it is about, where that is known.
    customer_id: Option<&'a str>,
    /// That customer's email, by the mirror.
    email: Option<&'a str>,
    #[serde(flatten)]
    call: Option<Call>,
    /// A create's idempotency key: `its` own of an earlier attempt, or a `new` one.
    key: Option<&'static str>,
    /// What would be otherwise afterwards, by the mirror: field, from, to.
    differs: Value,
    /// Why it is not sent at once; null: nothing keeps it.
    waits_for: Option<String>,
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    let reader = Reader::open(&config.database.path)?;
    let mut out = Out::new();
    let waits = reader.in_one_view(|conn| Ok(print(&mut out, conn, &config.outbound, args.style)))??;
    out.finish()?;
    Ok(waits)
}

/// Prints what the outbox would send, and says on standard error how much that is. Tells whether something waits for a person.
pub(in crate::cli) fn print(
    out: &mut Out,
    conn: &Conn,
    outbound: &Outbound,
    style: Style,
) -> anyhow::Result<Exit> {
    let clock = SystemClock::new();
    let now = time::written(clock.now());
    let holds_deletes = delete_limit::counted(conn, clock.boot().as_ref())? > outbound.hold_deletes_over;
    let (mut ready, mut waiting, mut for_a_person) = (0_u64, 0_u64, 0_u64);
    print::printing(|check| {
        queue::planned(conn, |planned| {
            let is_held = planned.is_held || (holds_deletes && is_unapproved_delete(&planned));
            let waits_for = waits_for(&planned, is_held, &now);
            match waits_for {
                Some(_) => waiting += 1,
                None => ready += 1,
            }
            for_a_person += u64::from(is_held || planned.open.life.state == State::Parked);
            check(print_one(out, &planned, waits_for, outbound.reconcile_tag.as_deref(), style))
        })
    })?;
    if !style.is_json() {
        let more = match waiting {
            0 => String::new(),
            n => format!(", {} more wait", print::grouped(n)),
        };
        print::note(&format!("{} would be sent now{more}; nothing was sent", count(ready, "call")));
    }
    Ok(if for_a_person > 0 { Exit::Waits } else { Exit::Fine })
}

fn is_unapproved_delete(planned: &Planned) -> bool {
    let is_delete = matches!(&planned.open.intent, Ok(Intent { wish: Wish::Delete(_), .. }));
    is_delete && !planned.is_approved && planned.open.life.state == State::Queued
}

/// Why an intent is not sent at once.
fn waits_for(planned: &Planned, is_held: bool, now: &str) -> Option<String> {
    let open = &planned.open;
    let not_before = open.intent.as_ref().ok().and_then(|intent| intent.not_before).map(time::written);
    let later = |at: &Option<String>| at.clone().filter(|at| at.as_str() > now);
    let awaited = match open.intent.as_ref().map(|intent| &intent.wish) {
        Ok(Wish::Update(Target::CreatedBy(intent), _) | Wish::Delete(Target::CreatedBy(intent))) => {
            open.customer.is_none().then(|| intent.as_str().to_owned())
        }
        _ => None,
    };
    match open.life.state {
        State::Parked => {
            let why = planned.reason.clone().unwrap_or_default();
            return Some(format!("a person (`komoju-sync intent retry` or `cancel`): {why}"));
        }
        State::Sending => return Some("the answer to its attempt".to_owned()),
        _ => {}
    }
    if let Err(why) = &open.intent {
        return Some(format!("a person: it cannot be read ({why})"));
    }
    if is_held {
        return Some(
            "`komoju-sync intent approve`: too many deletes are open or were sent within the last hour"
                .to_owned(),
        );
    }
    let ahead = planned.ahead.clone().or(awaited).map(|id| format!("intent {id}"));
    ahead
        .or_else(|| later(&not_before).map(|at| format!("its time, {at}")))
        .or_else(|| later(&planned.next_attempt_at).map(|at| format!("its next attempt, {at}")))
}

fn print_one(
    out: &mut Out,
    planned: &Planned,
    waits_for: Option<String>,
    new_tag: Option<&str>,
    style: Style,
) -> std::io::Result<()> {
    let open = &planned.open;
    let wish = open.intent.as_ref().ok().map(|intent| &intent.wish);
    let has_key = open.frozen.key.is_some();
    // A tag is fixed with the key.
    let tag = if has_key { open.frozen.tag.as_deref() } else { new_tag };
    let customer = open.customer.as_ref();
    let mirrored = planned.mirrored.as_ref().and_then(Value::as_object);
    let line = Line {
        id: &open.id,
        op: wish.map(Wish::op),
        state: open.life.state.word(),
        customer_id: customer.map(CustomerId::as_str),
        email: mirrored.and_then(|fields| fields.get("email")).and_then(Value::as_str),
        call: wish.map(|wish| Call::of(wish, customer, tag.map(|key| (key, open.id.as_str())))),
        key: match wish {
            Some(Wish::Create(_)) => Some(if has_key { "its" } else { "new" }),
            _ => None,
        },
        differs: match wish {
            Some(Wish::Update(_, body)) => differences(body, mirrored),
            _ => Value::Null,
        },
        waits_for,
    };
    match style.is_json() {
        true => out.json(&line),
        false => print_for_a_person(out, &line, open.life.outcome),
    }
}

fn print_for_a_person(out: &mut Out, line: &Line<'_>, outcome: Outcome) -> std::io::Result<()> {
    out.line(&format!("{}  {}", safe(line.id), line.state))?;
    if let Some(call) = &line.call {
        let key = match line.key {
            Some("its") => "  with its key",
            Some(_) => "  with a new key",
            None => "",
        };
        out.line(&format!("    {call}{key}"))?;
    }
    for (field, sides) in line.differs.as_object().into_iter().flatten() {
        let side = |name: &str| sides.get(name).map(Value::to_string).unwrap_or_default();
        out.line(&format!("    {}: {} -> {}", safe(field), safe(&side("from")), safe(&side("to"))))?;
    }
    if line.op == Some("delete") {
        let whom = line.email.map_or_else(|| "whose email the mirror does not know".to_owned(), safe);
        out.line(&format!("    deletes {whom}"))?;
    }
    if outcome == Outcome::Unknown {
        out.line(
            "    an earlier attempt may have taken effect; that is looked at first where it can be told",
        )?;
    }
    match &line.waits_for {
        Some(what) => out.line(&format!("    waits for {}", safe(what))),
        None => Ok(()),
    }
}

/// What an update changes, by the mirror: `{"email": {"from": …, "to": …}}`; metadata key by key.
fn differences(body: &Body, mirrored: Option<&Map<String, Value>>) -> Value {
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
            // What the token becomes, only KOMOJU knows.
            ("payment_details", _) => compare("source".to_owned(), of("source"), &MASKED_TOKEN.into()),
            (name, to) => compare(name.to_owned(), of(name), to),
        }
    }
    Value::Object(differs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(intent: &Value, tag: Option<(&str, &str)>) -> String {
        Call::of(&Intent::parse(&intent.to_string()).unwrap().wish, None, tag).to_string()
    }

    #[test]
    fn a_call_is_what_is_sent_but_for_the_token() {
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
    fn differences_are_told_key_by_key() {
        let body =
            Body::new(json!({"email": "b", "metadata": {"x": "1", "y": "2"}, "payment_details": "tok_s"}));
        let mirrored = json!({"email": "a", "metadata": {"x": "1", "z": "3"}, "source": null});
        let differs = differences(&body.unwrap(), mirrored.as_object());
        assert_eq!(
            differs,
            json!({"email": {"from": "a", "to": "b"}, "metadata.y": {"from": null, "to": "2"},
                "source": {"from": null, "to": "****"}})
        );
    }
}
