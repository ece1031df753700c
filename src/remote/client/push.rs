//! Creates, updates and deletes, and their answers.

use reqwest::header::CONTENT_TYPE;

use super::{Http, HttpAnswer, NoAnswer, ONE_CUSTOMER, Terms};
use crate::remote::error::{Call, Cause, RemoteError};
use crate::remote::limiter::Share;
use crate::remote::meter::Meter;
use crate::remote::wire::{self, CustomerAnswer};
use crate::remote::{Left, Push, PushError, PushRemote, Pushed, PushedCustomer, Shown};
use crate::secret::MASK;
use komoju_core::CustomerId;

impl Http {
    /// Sends one push and classifies its answer.
    async fn pushed(&self, push: &Push, call: &Call, meter: &mut Meter<'_>) -> Result<Pushed, PushError> {
        let (request, asked) = match push {
            Push::Create { key, body } => {
                let request = self.client.post(self.url(&["customers"]));
                (request.header("x-komoju-idempotency", key).body(body.text()), None)
            }
            Push::Update { id, body } => {
                let request = self.client.patch(self.url(&["customers", id.as_str()]));
                (request.body(body.text()), Some(id))
            }
            Push::Delete { id } => (self.client.delete(self.url(&["customers", id.as_str()])), Some(id)),
        };
        let request = match push {
            Push::Delete { .. } => request,
            _ => request.header(CONTENT_TYPE, "application/json"),
        };
        let answer = self
            .exchange(call, Terms { share: Share::Write, limit: ONE_CUSTOMER }, request, meter)
            .await
            .map_err(|NoAnswer { cause, left }| PushError {
                error: RemoteError { call: call.clone(), cause, retry_after: None },
                left,
            })?;
        let answer = match push {
            Push::Create { body, .. } | Push::Update { body, .. } => without(answer, body.token()),
            Push::Delete { .. } => answer,
        };
        match answer.status {
            // A server in front of the API answered, so the outcome of the request is unknown.
            200..=299 if wire::is_web_page(&answer.body) => {
                let cause = Cause::Unexpected(wire::error(answer.status, &answer.body).0);
                let error = RemoteError { call: call.clone(), cause, retry_after: None };
                Err(PushError { error, left: Left::Perhaps })
            }
            // The request took effect, even if its answer cannot be read.
            200..=299 => {
                let is_its = |shown: &CustomerId| asked.is_none_or(|asked| shown == asked);
                let customer = match wire::one_customer(&answer.body, answer.is_whole) {
                    CustomerAnswer::Customer(customer) if is_its(customer.id()) => {
                        PushedCustomer::Shown(customer)
                    }
                    CustomerAnswer::Unreadable(bad) if bad.id.as_ref().is_none_or(is_its) => {
                        PushedCustomer::Unreadable(bad)
                    }
                    _ => PushedCustomer::None,
                };
                Ok(Pushed::Took { customer, status: answer.status })
            }
            _ => match self.error_of(call, &answer) {
                RemoteError { cause: Cause::Rejected(told), .. }
                    if told.status == 404 && told.code.as_deref() == Some("not_found") && asked.is_some() =>
                {
                    Ok(Pushed::NotFound { told })
                }
                error => Err(PushError { error, left: Left::Perhaps }),
            },
        }
    }
}

impl PushRemote for Http {
    async fn push(&self, push: &Push) -> Result<Pushed, PushError> {
        let call = match push {
            Push::Create { .. } => Call::Create,
            Push::Update { id, .. } => Call::Update { id: self.masker.text(id.as_str()) },
            Push::Delete { id } => Call::Delete { id: self.masker.text(id.as_str()) },
        };
        let mut meter = Meter::new(&call, &*self.clock);
        let pushed = self.pushed(push, &call, &mut meter).await;
        match &pushed {
            Ok(pushed) => meter.answered(matches!(pushed, Pushed::Took { .. })),
            Err(refused) => meter.failed(&refused.error),
        }
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<Shown, RemoteError> {
        self.shown(id, Share::Write).await
    }
}

/// Masks the token of a push in an error answer, before any text is taken from it.
fn without(answer: HttpAnswer, token: Option<&str>) -> HttpAnswer {
    match token.filter(|token| !token.is_empty() && !(200..=299).contains(&answer.status)) {
        Some(token) => {
            let body = String::from_utf8_lossy(&answer.body).replace(token, MASK).into_bytes();
            HttpAnswer { body, ..answer }
        }
        None => answer,
    }
}
