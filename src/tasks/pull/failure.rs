//! The failures of a pass. Each has one sentence for the operator.

use crate::remote::error::ApiError;
use crate::remote::{ApiCall, ErrorCause, ErrorClass, RemoteError, TruncatedPage};
use crate::store::StoreError;

/// A failed request: it returned nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request failed, or its answer has the wrong form.
    #[error("{0}")]
    Remote(RemoteError),
    /// The page has the right form, but cannot be used.
    #[error("{}: {why}", ApiCall::List { page: *page })]
    Page {
        /// The requested page.
        page: u64,
        /// What is wrong with it, masked.
        why: String,
    },
}

impl RequestError {
    /// Returns its class, which decides whether it is retried.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Remote(e) => e.class(),
            Self::Page { .. } => ErrorClass::Corrupt,
        }
    }
}

/// Why a pass ended before it read and settled everything.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A request failed in every try, or with an error that is not retried.
    #[error("{error}{}", tries_text(*tries))]
    Request {
        /// The error of the last try.
        error: Box<RequestError>,
        /// The number of tries.
        tries: usize,
    },
    /// The API refuses the key.
    #[error(
        "{0}. Check that the key is the whole secret key (not the publishable one), that it is still listed in the KOMOJU \
         dashboard, and that base_url is the host it belongs to"
    )]
    KeyRefused(Box<RemoteError>),
    /// A page is too large, and the API does not answer with smaller ones.
    #[error(
        "page {page} of the list is too large for one answer, and the API answers with {per_page} customers a page even \
         if fewer are requested"
    )]
    Unsplittable {
        /// The number of the page.
        page: u64,
        /// The number of customers on it.
        per_page: u64,
    },
    /// The key reads another account.
    #[error(
        "this key reads another account: none of the requested customers of this database exists there. Nothing is read or \
         written until you put the right key back, or accept this one with `komoju-sync account accept`"
    )]
    OtherAccount,
    /// It is not proven yet that a new key reads the same account.
    #[error("this key is new, and it is not proven yet that it reads the same account{}", because(.0))]
    AccountUnclear(Option<Box<Failure>>),
    /// The pass was stopped on request.
    #[error("stopped on request")]
    Stopped,
    /// Several customers in a row gave no usable answer.
    #[error("several requests in a row gave no usable answer")]
    NoAnswers,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// Returns the failure of a request after this number of tries.
    pub(super) fn after(tries: usize, error: RequestError) -> Self {
        Self::Request { error: Box::new(error), tries }
    }

    /// Returns whether the API rejected this parameter of the request.
    pub(super) fn is_about(&self, param: &str) -> bool {
        self.rejected().is_some_and(|api_error| api_error.param.as_deref() == Some(param))
    }

    /// Returns whether this says that the page does not exist. `is_promised` says that the list has
    /// promised the page; then only a 404 counts.
    pub(super) fn is_past_end(&self, is_promised: bool) -> bool {
        self.rejected().is_some_and(|api_error| match api_error.status {
            404 => true,
            // Some servers refuse a page past the end with these.
            400 | 416 | 422 => !is_promised,
            _ => false,
        })
    }

    /// Returns the beginning of a page that was too large for one answer.
    pub(super) fn too_large(&self) -> Option<&TruncatedPage> {
        let Self::Request { error, .. } = self else { return None };
        match error.as_ref() {
            RequestError::Remote(RemoteError { cause: ErrorCause::TooLarge { page: begun, .. }, .. }) => {
                Some(begun)
            }
            _ => None,
        }
    }

    /// Whether the same request would be rejected again.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(self, Self::Request { error, .. } if error.class() == ErrorClass::Rejected)
    }

    fn rejected(&self) -> Option<&ApiError> {
        let Self::Request { error, .. } = self else { return None };
        match error.as_ref() {
            RequestError::Remote(RemoteError { cause: ErrorCause::Rejected(api_error), .. }) => {
                Some(api_error)
            }
            _ => None,
        }
    }
}

fn tries_text(tries: usize) -> String {
    match tries {
        0 | 1 => String::new(),
        n => format!(" (tried {n} times)"),
    }
}

fn because(failure: &Option<Box<Failure>>) -> String {
    failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unproven_account_names_the_failure_that_prevents_the_proof() {
        let failure = Failure::AccountUnclear(Some(Box::new(Failure::NoAnswers))).to_string();
        assert!(failure.ends_with(&format!(": {}", Failure::NoAnswers)), "{failure}");
    }
}
