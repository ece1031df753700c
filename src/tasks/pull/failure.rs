//! Why a pass could not be completed: one sentence for a person each.

use crate::remote::error::ApiError;
use crate::remote::{ApiCall, ErrorCause, ErrorClass, RemoteError, TruncatedPage};
use crate::store::StoreError;

/// One request that brought nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Setback {
    /// The request failed, or its answer has the wrong form.
    #[error("{0}")]
    Remote(RemoteError),
    /// The page has the right form and cannot be used.
    #[error("{}: {why}", ApiCall::List { page: *page })]
    Page {
        /// Which page was asked for.
        page: u64,
        /// What is wrong with it, masked.
        why: String,
    },
}

impl Setback {
    /// What follows from it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Remote(e) => e.class(),
            Self::Page { .. } => ErrorClass::Corrupt,
        }
    }
}

/// Why a pass ended without having read and settled everything.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A request kept failing, or failed for good.
    #[error("{setback}{}", tries_text(*tries))]
    Setback {
        /// The last failure.
        setback: Box<Setback>,
        /// How often it was tried.
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
        "page {page} of the list is too large for one answer, and the API answers with {per_page} customers a page however \
         few are requested"
    )]
    Unsplittable {
        /// The page.
        page: u64,
        /// How many customers it holds.
        per_page: u64,
    },
    /// The key reads another account.
    #[error(
        "this key reads another account: it knows none of the customers in this database. Nothing is read or written until the \
         right key is back, or `komoju-sync account accept` says that this one is right"
    )]
    OtherAccount,
    /// Whether the key reads the same account could not be found out.
    #[error("this key is new here, and whether it reads the same account could not be found out yet{}", because(.0))]
    AccountUnclear(Option<Box<Failure>>),
    /// We were told to stop.
    #[error("stopped on request")]
    Stopped,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// A request that failed so many times.
    pub(super) fn after(tries: usize, setback: Setback) -> Self {
        Self::Setback { setback: Box::new(setback), tries }
    }

    /// Whether the API rejected this parameter of the request.
    pub(super) fn is_about(&self, param: &str) -> bool {
        self.rejected().is_some_and(|told| told.param.as_deref() == Some(param))
    }

    /// Whether this says that there is no such page. `is_promised` is whether the list has said that there is: then only a 404 says so.
    pub(super) fn is_past_end(&self, is_promised: bool) -> bool {
        self.rejected().is_some_and(|told| match told.status {
            404 => true,
            // Other ways in which servers refuse a page past the end.
            400 | 416 | 422 => !is_promised,
            _ => false,
        })
    }

    /// What a page says that was too large for one answer.
    pub(super) fn too_large(&self) -> Option<&TruncatedPage> {
        let Self::Setback { setback, .. } = self else { return None };
        match setback.as_ref() {
            Setback::Remote(RemoteError { cause: ErrorCause::TooLarge { page: begun, .. }, .. }) => {
                Some(begun)
            }
            _ => None,
        }
    }

    fn rejected(&self) -> Option<&ApiError> {
        let Self::Setback { setback, .. } = self else { return None };
        match setback.as_ref() {
            Setback::Remote(RemoteError { cause: ErrorCause::Rejected(told), .. }) => Some(told),
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
