//! Creates, updates and deletes, and their answers.

use reqwest::header::CONTENT_TYPE;

use super::{Http, HttpAnswer, NoAnswer, ONE_CUSTOMER, Terms};
use crate::remote::error::{ApiCall, ErrorCause, RemoteError};
use crate::remote::limiter::Share;
use crate::remote::meter::Meter;
use crate::remote::wire::{self, CustomerReading};
use crate::remote::{
    BytesSent, CustomerAnswer, PushAnswer, PushError, PushRemote, PushRequest, PushedCustomer,
};
use crate::secret::MASK;
use komoju_core::CustomerId;

impl Http {
    /// Sends one push and classifies its answer.
    async fn pushed(
        &self,
        push: &PushRequest,
        call: &ApiCall,
        meter: &mut Meter<'_>,
    ) -> Result<PushAnswer, PushError> {
        let (request, asked) = match push {
            PushRequest::Create { key, body } => {
                let request = self.client.post(self.url(&["customers"]));
                (request.header("x-komoju-idempotency", key).body(body.text()), None)
            }
            PushRequest::Update { id, body } => {
                let request = self.client.patch(self.url(&["customers", id.as_str()]));
                (request.body(body.text()), Some(id))
            }
            PushRequest::Delete { id } => {
                (self.client.delete(self.url(&["customers", id.as_str()])), Some(id))
            }
        };
        let request = match push {
            PushRequest::Delete { .. } => request,
            _ => request.header(CONTENT_TYPE, "application/json"),
        };
        let answer = self
            .exchange(call, Terms { share: Share::Write, limit: ONE_CUSTOMER }, request, meter)
            .await
            .map_err(|NoAnswer { cause, bytes_sent }| PushError {
                error: RemoteError { call: call.clone(), cause, retry_after: None },
                bytes_sent,
            })?;
        let answer = match push {
            PushRequest::Create { body, .. } | PushRequest::Update { body, .. } => {
                without(answer, body.token())
            }
            PushRequest::Delete { .. } => answer,
        };
        match answer.status {
            // A server in front of the API answered, so the outcome of the request is unknown.
            200..=299 if wire::is_web_page(&answer.body) => {
                let cause = ErrorCause::Unexpected(wire::error(answer.status, &answer.body).0);
                let error = RemoteError { call: call.clone(), cause, retry_after: None };
                Err(PushError { error, bytes_sent: BytesSent::Maybe })
            }
            // The request took effect, even if its answer cannot be read.
            200..=299 => {
                let is_its = |shown: &CustomerId| asked.is_none_or(|asked| shown == asked);
                let customer = match wire::one_customer(&answer.body, answer.is_whole) {
                    CustomerReading::Customer(customer) if is_its(customer.id()) => {
                        PushedCustomer::Shown(customer)
                    }
                    CustomerReading::Unreadable(bad) if bad.id.as_ref().is_none_or(is_its) => {
                        PushedCustomer::Unreadable(bad)
                    }
                    _ => PushedCustomer::None,
                };
                Ok(PushAnswer::Applied { customer, status: answer.status })
            }
            _ => match self.error_of(call, &answer) {
                RemoteError { cause: ErrorCause::Rejected(told), .. }
                    if told.status == 404 && told.code.as_deref() == Some("not_found") && asked.is_some() =>
                {
                    Ok(PushAnswer::NotFound { error: told })
                }
                error => Err(PushError { error, bytes_sent: BytesSent::Maybe }),
            },
        }
    }
}

impl PushRemote for Http {
    async fn push(&self, push: &PushRequest) -> Result<PushAnswer, PushError> {
        let call = match push {
            PushRequest::Create { .. } => ApiCall::Create,
            PushRequest::Update { id, .. } => ApiCall::Update { id: self.masker.name(id.as_str()) },
            PushRequest::Delete { id } => ApiCall::Delete { id: self.masker.name(id.as_str()) },
        };
        let mut meter = Meter::new(&call, &*self.clock);
        let pushed = self.pushed(push, &call, &mut meter).await;
        match &pushed {
            Ok(pushed) => meter.answered(matches!(pushed, PushAnswer::Applied { .. })),
            Err(refused) => meter.failed(&refused.error),
        }
        pushed
    }

    async fn look(&self, id: &CustomerId) -> Result<CustomerAnswer, RemoteError> {
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
