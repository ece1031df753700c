//! The request with its whole body, and the route of its call.

use axum::extract::rejection::PathRejection;
use axum::extract::{self, FromRequest, Path};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode};

use crate::api::list::query::Query;
use crate::faults::{FaultedCall, RequestFacts};

/// The path of the API.
const BASE: &str = "/api/v1";

/// BODY_MOST controls how many bytes a body may have. A larger one closes the connection.
const BODY_MOST: usize = 64 * 1024 * 1024;

/// A request with its body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it was sent, percent-encoded.
    pub(crate) path: String,
    /// Without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// Returns a header, if it is readable text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the path with the query string.
    pub(crate) fn path_and_query(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Returns the properties that faults can match.
    pub(crate) fn facts(&self, route: &Route) -> RequestFacts<'_> {
        let call = route.call();
        let page = match call {
            Some(FaultedCall::List | FaultedCall::Events) => Some(Query::page_of(&self.query).unwrap_or(1)),
            _ => None,
        };
        RequestFacts {
            method: self.method.as_str(),
            path: self.path.strip_prefix(BASE).unwrap_or(&self.path),
            call,
            page,
        }
    }
}

impl<S: Sync> FromRequest<S> for Request {
    /// It is never sent: without an outcome, the connection is closed.
    type Rejection = StatusCode;

    async fn from_request(request: extract::Request, _: &S) -> Result<Self, StatusCode> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_MOST).collect().await else {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        };
        Ok(Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

/// The id in the path of a request; an error if it is not UTF-8.
pub(crate) type Id = Result<Path<String>, PathRejection>;

/// The call that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    List,
    Create,
    Show(String),
    Update(String),
    Delete(String),
    Events,
    Event(String),
    /// No call has this path and method.
    Nowhere,
}

impl Route {
    /// Returns the kind of call, as faults match it.
    pub(crate) fn call(&self) -> Option<FaultedCall> {
        Some(match self {
            Self::List => FaultedCall::List,
            Self::Create => FaultedCall::Create,
            Self::Show(_) => FaultedCall::Show,
            Self::Update(_) => FaultedCall::Update,
            Self::Delete(_) => FaultedCall::Delete,
            Self::Events => FaultedCall::Events,
            Self::Event(_) => FaultedCall::Event,
            Self::Nowhere => return None,
        })
    }
}
