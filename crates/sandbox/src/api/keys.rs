//! The keys: HTTP Basic authentication selects the account of a request.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::api::answer::ApiAnswer;

/// How a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRefusal {
    /// 401 by the API.
    #[serde(rename = "json_401")]
    Json401,
    /// 403 by the API.
    #[serde(rename = "json_403")]
    Json403,
    /// 401 by the firewall in front.
    #[serde(rename = "html_401")]
    Html401,
    /// 403 by the firewall in front.
    #[serde(rename = "html_403")]
    Html403,
}

impl KeyRefusal {
    /// Returns the answer to a refused request.
    pub(crate) fn answer(self) -> ApiAnswer {
        match self {
            Self::Json401 => unauthorized(),
            Self::Json403 => {
                ApiAnswer::error(StatusCode::FORBIDDEN, "forbidden", "This key may not do that.")
            }
            Self::Html401 => ApiAnswer::html(StatusCode::UNAUTHORIZED),
            Self::Html403 => ApiAnswer::html(StatusCode::FORBIDDEN),
        }
    }
}

/// What happens to the old key of an account that gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldKey {
    /// Both keys are valid.
    Kept,
    /// The old key is refused.
    Revoked,
}

/// The account of each key.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    accounts: HashMap<String, usize>,
    /// While set, every key is refused.
    pub(crate) refusal: Option<KeyRefusal>,
}

impl Keys {
    /// Adds a key to an account.
    pub(crate) fn add(&mut self, key: &str, account: usize) {
        self.accounts.insert(key.to_owned(), account);
    }

    /// Removes a key.
    pub(crate) fn revoke(&mut self, key: &str) {
        self.accounts.remove(key);
    }

    /// Returns the account of a key.
    pub(crate) fn account(&self, key: &str) -> Option<usize> {
        self.accounts.get(key).copied()
    }

    /// Returns the account of an `Authorization` header.
    ///
    /// # Errors
    /// The answer to a refused request.
    pub(crate) fn admit(&self, authorization: Option<&str>) -> Result<usize, ApiAnswer> {
        if let Some(refusal) = self.refusal {
            return Err(refusal.answer());
        }
        authorization.and_then(key_of).and_then(|key| self.account(&key)).ok_or_else(unauthorized)
    }
}

/// Returns the user name of Basic authentication, if the password is empty.
fn key_of(authorization: &str) -> Option<String> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = BASE64_STANDARD.decode(credentials.trim()).ok()?;
    let credentials = String::from_utf8(credentials).ok()?;
    credentials.strip_suffix(':').map(str::to_owned)
}

/// Returns the answer to an unknown key.
fn unauthorized() -> ApiAnswer {
    ApiAnswer::error(StatusCode::UNAUTHORIZED, "unauthorized", "There is no such key.")
        .with_header("WWW-Authenticate", "Basic realm=\"sandbox\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(credentials: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(credentials))
    }

    #[test]
    fn only_known_key_with_an_empty_password_is_admitted() {
        let mut keys = Keys::default();
        keys.add("sk_test_a", 0);
        keys.add("sk_test_b", 1);
        assert_eq!(keys.admit(Some(&header("sk_test_b:"))).unwrap(), 1);
        for refused in [
            None,
            Some(header("sk_test_a:secret")),
            Some(header("sk_test_a")),
            Some(header(":sk_test_a")),
            Some(header("sk_test_c:")),
            Some("Bearer sk_test_a".to_owned()),
            Some("Basic ???".to_owned()),
        ] {
            let answer = keys.admit(refused.as_deref()).unwrap_err();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{refused:?}");
        }
    }

    #[test]
    fn refusal_applies_to_every_key() {
        let mut keys = Keys::default();
        keys.add("sk_test_a", 0);
        for (refusal, status, kind) in [
            (KeyRefusal::Json401, 401, "application/json"),
            (KeyRefusal::Json403, 403, "application/json"),
            (KeyRefusal::Html401, 401, "text/html"),
            (KeyRefusal::Html403, 403, "text/html"),
        ] {
            keys.refusal = Some(refusal);
            let answer = keys.admit(Some(&header("sk_test_a:"))).unwrap_err();
            assert_eq!(answer.status.as_u16(), status);
            assert!(answer.content_type.unwrap().starts_with(kind));
        }
    }
}
