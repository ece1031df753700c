//! Owns the request with its whole body, and the call that it is for.

use axum::extract::rejection::PathRejection;
use axum::extract::{self, FromRequest, Path};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode};

use crate::api::list::query::Query;
use crate::faults::{Asked, Call};

const BASE: &str = "/api/v1";
/// Larger requests are refused.
const BODY_MOST: usize = 64 * 1024 * 1024;
/// A request with its body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it came, percent-encoded.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn path_and_query(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// What faults may ask about it.
    pub(crate) fn asked(&self, route: &Route) -> Asked<'_> {
        let call = route.call();
        let page = match call {
            Some(Call::List | Call::Events) => Some(Query::page_of(&self.query).unwrap_or(1)),
            _ => None,
        };
        Asked {
            method: self.method.as_str(),
            path: self.path.strip_prefix(BASE).unwrap_or(&self.path),
            call,
            page,
        }
    }
}

impl<S: Sync> FromRequest<S> for Request {
    /// Never sent: without an outcome, the connection is closed.
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

/// The id in the path of a request; an error where it is no UTF-8.
pub(crate) type Id = Result<Path<String>, PathRejection>;

/// Where a request leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    List,
    Create,
    Show(String),
    Update(String),
    Delete(String),
    Events,
    Event(String),
    Nowhere,
}

impl Route {
    pub(crate) fn call(&self) -> Option<Call> {
        Some(match self {
            Self::List => Call::List,
            Self::Create => Call::Create,
            Self::Show(_) => Call::Show,
            Self::Update(_) => Call::Update,
            Self::Delete(_) => Call::Delete,
            Self::Events => Call::Events,
            Self::Event(_) => Call::Event,
            Self::Nowhere => return None,
        })
    }
}
