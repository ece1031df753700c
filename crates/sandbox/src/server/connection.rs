//! The listener, the connections and the routes of the API.
//!
//! `axum::serve` is not used, because a fault may reset the connection of a request. hyper passes
//! requests to axum's router, and each handler returns an [`RequestOutcome`]. The code that has the
//! connection turns it into a response.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::control;
use crate::outcome::{Hangup, RequestOutcome, ResponseBody};
use crate::request::{Id, Request, Route};
use crate::server::SandboxServer;
use crate::wire::ConnectionHandle;

/// Accepts connections until the stop.
pub(crate) async fn listen(server: Arc<SandboxServer>, listener: TcpListener) {
    let router = TowerToHyperService::new(router(&server));
    while let Some(accepted) = server.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                server.tasks.spawn(connection(Arc::clone(&server), router.clone(), stream));
            }
            // Usually no file descriptor is free. The connection remains in the backlog.
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection.
async fn connection(server: Arc<SandboxServer>, router: TowerToHyperService<Router>, stream: TcpStream) {
    // Without this option, small answers wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    // Without a handle of its own, no fault could reset the connection.
    let Ok(line) = ConnectionHandle::of(&stream).map(Arc::new) else { return };
    let service = service_fn(|request| answer(&router, request, &line));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // The client, a fault or the stop ends a connection. None of them is an error here.
    let _ = server.stop.run_until_cancelled(connection).await;
}

/// Answers one request of a connection.
async fn answer(
    router: &TowerToHyperService<Router>,
    request: hyper::Request<Incoming>,
    line: &Arc<ConnectionHandle>,
) -> Result<Response<ResponseBody>, Hangup> {
    let Ok(response) = router.call(request).await;
    RequestOutcome::of(response).respond(line)
}

/// Returns the routes of the API and of the control calls.
fn router(server: &Arc<SandboxServer>) -> Router {
    Router::new()
        .route("/api/v1/customers", get(all(Route::List)).post(all(Route::Create)))
        .route(
            "/api/v1/customers/{id}",
            get(one(Route::Show)).patch(one(Route::Update)).delete(one(Route::Delete)),
        )
        .route("/api/v1/events", get(all(Route::Events)))
        .route("/api/v1/events/{id}", get(one(Route::Event)))
        .method_not_allowed_fallback(all(Route::Nowhere))
        .merge(control::routes())
        .fallback(all(Route::Nowhere))
        .with_state(Arc::clone(server))
}

/// Returns the handler for a call without an id.
fn all(
    route: Route,
) -> impl Fn(State<Arc<SandboxServer>>, Request) -> BoxFuture<'static, RequestOutcome>
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(server), request| server.answer(route.clone(), request).boxed()
}

/// Returns the handler for a call with an id, which may be any text.
fn one(
    route: fn(String) -> Route,
) -> impl Fn(State<Arc<SandboxServer>>, Id, Request) -> BoxFuture<'static, RequestOutcome>
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(server), id, request| {
        let route = id.map_or(Route::Nowhere, |Path(id)| route(id));
        server.answer(route, request).boxed()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;

    use super::*;
    use crate::faults::{Fault, FaultEffect, FaultedCall};
    use crate::{Options, World};

    /// The `Authorization` header of the default key.
    const KEY: &str = "Basic c2tfdGVzdF9zYW5kYm94Og==";
    const CALLS: [FaultedCall; 7] = [
        FaultedCall::List,
        FaultedCall::Show,
        FaultedCall::Create,
        FaultedCall::Update,
        FaultedCall::Delete,
        FaultedCall::Events,
        FaultedCall::Event,
    ];

    /// Returns the call of a request, as faults match it, and the status of its answer.
    async fn routed(method: &str, path: &str) -> (Vec<FaultedCall>, u16) {
        let server = Arc::new(SandboxServer::new(World::new(&Options::default()), false));
        server.world().put_raw(json!({"id": "a/b é"}));
        let event = server.world().accounts[0].events.all().next().unwrap()["id"].clone();
        // These faults change nothing. They count the calls.
        let faults = CALLS.map(|call| {
            let fault = Fault::new(FaultEffect::Delay { ms: 0 }).call(call);
            (call, server.world().inject(fault))
        });
        let request = hyper::Request::builder().method(method).header("Authorization", KEY);
        let request = request.uri(path.replace("EVENT", event.as_str().unwrap())).body(Body::empty());
        let service = TowerToHyperService::new(super::router(&server));
        let Ok(response) = service.call(request.unwrap()).await;
        let status = RequestOutcome::of(response).status().unwrap();
        let calls = faults.into_iter().filter(|(_, fault)| server.world().fired(*fault) > 0);
        (calls.map(|(call, _)| call).collect(), status.as_u16())
    }

    #[tokio::test]
    async fn each_path_has_its_call_and_other_paths_have_none() {
        for (method, path, call, status) in [
            ("GET", "/api/v1/customers", Some(FaultedCall::List), 200),
            ("POST", "/api/v1/customers", Some(FaultedCall::Create), 200),
            ("GET", "/api/v1/customers/a%2Fb%20%C3%A9", Some(FaultedCall::Show), 200),
            ("PATCH", "/api/v1/customers/a%2Fb%20%C3%A9", Some(FaultedCall::Update), 200),
            ("DELETE", "/api/v1/customers/a%2Fb%20%C3%A9", Some(FaultedCall::Delete), 200),
            ("GET", "/api/v1/customers/a%2Fb", Some(FaultedCall::Show), 404),
            ("GET", "/api/v1/events", Some(FaultedCall::Events), 200),
            ("GET", "/api/v1/events/EVENT", Some(FaultedCall::Event), 200),
            ("GET", "/api/v1/events/x", Some(FaultedCall::Event), 404),
            ("PUT", "/api/v1/customers", None, 404),
            ("HEAD", "/api/v1/customers", None, 404),
            ("GET", "/api/v1/customers/", None, 404),
            ("GET", "/api/v1/customers/a/b", None, 404),
            ("GET", "/api/v1/customers/%FF", None, 404),
            ("GET", "/api/v1/payments", None, 404),
            ("GET", "/customers", None, 404),
        ] {
            assert_eq!(routed(method, path).await, (Vec::from_iter(call), status), "{method} {path}");
        }
    }
}
