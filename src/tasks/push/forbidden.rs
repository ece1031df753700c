//! A JSON 403 on a write: one list request with the same key tells whether the key is refused, or only this write.

use super::Pusher;
use super::ended::{Ended, Obstacle};
use crate::remote::error::ApiError;
use crate::remote::{Cause, Class, Push, PushRemote, Remote, RemoteError};
use crate::store::outbox::engine::Open;
use komoju_core::PageQuery;
use komoju_core::intent::lifecycle::Outcome;
use komoju_core::plan::outcome::{Forbidden, KeyCheck, after_forbidden};

impl<R: Remote + PushRemote> Pusher<R> {
    /// Ends an attempt whose write was answered with a JSON 403. `error` describes that answer.
    pub(super) async fn after_forbidden(
        &self,
        open: &Open,
        push: &Push,
        told: ApiError,
        error: String,
    ) -> Ended {
        let listed = self.remote.list(PageQuery { page: 1, per_page: 1, created_from: None }).await;
        let status = Some(told.status);
        match after_forbidden(key_check(&listed), open.life.outcome, matches!(push, Push::Create { .. })) {
            Forbidden::Rejected => Ended::Rejected(told),
            Forbidden::KeyRefused => Ended::Later {
                why: format!("{error}; the list is refused too, so the API refused the key"),
                status,
                outcome: Outcome::Known,
                at: None,
                obstacle: Obstacle::KeyRefused,
            },
            Forbidden::AskAgain => {
                match listed.map_err(|list| self.after_read_error(open, list, Outcome::Known)) {
                    Err(Ended::Later { why, outcome, at, obstacle, .. }) => {
                        let why = format!("{error}; whether the key is refused is not known: {why}");
                        Ended::Later { why, status, outcome, at, obstacle }
                    }
                    Err(other) => other,
                    Ok(_) => Ended::Rejected(told),
                }
            }
            Forbidden::Unknown => Ended::Park {
                reason: format!(
                    "{error}; an earlier attempt may have taken effect: look for the customer at KOMOJU, then cancel this intent, or \
                     retry it (`komoju-sync intent retry`: the same request with the same key)"
                ),
                detail: None,
            },
        }
    }
}

/// What a list request says of its key.
fn key_check<T>(listed: &Result<T, RemoteError>) -> KeyCheck {
    // No answer, and a redirect, come from in front of the API, though they are not retried.
    if let Err(RemoteError { cause: Cause::Unreachable { .. } | Cause::Redirected { .. }, .. }) = listed {
        return KeyCheck::Unanswered;
    }
    match listed.as_ref().map_err(RemoteError::class) {
        Ok(_) | Err(Class::Rejected | Class::Corrupt) => KeyCheck::Accepted,
        Err(Class::Auth) => KeyCheck::Refused,
        Err(Class::Transient | Class::Throttled) => KeyCheck::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Call, Certificate, Step};

    #[test]
    fn what_comes_from_in_front_of_the_api_says_nothing_of_the_key() {
        let told = |status| ApiError { status, code: None, message: None, param: None };
        let untrusted = Step::Tls(Certificate::Untrusted);
        let cases = [
            (Cause::Unreachable { step: untrusted, why: "why".into() }, KeyCheck::Unanswered),
            (Cause::Unreachable { step: Step::Answer, why: "why".into() }, KeyCheck::Unanswered),
            (Cause::Redirected { status: 307, to: None }, KeyCheck::Unanswered),
            (Cause::Unexpected(told(503)), KeyCheck::Unanswered),
            (Cause::Throttled(told(429)), KeyCheck::Unanswered),
            (Cause::KeyRefused(told(403)), KeyCheck::Refused),
            (Cause::Rejected(told(422)), KeyCheck::Accepted),
            (Cause::Unusable("why".into()), KeyCheck::Accepted),
        ];
        for (cause, expected) in cases {
            let error = RemoteError { call: Call::List { page: 1 }, cause, retry_after: None };
            assert_eq!(key_check::<()>(&Err(error.clone())), expected, "{error}");
        }
        assert_eq!(key_check(&Ok(())), KeyCheck::Accepted);
    }
}
