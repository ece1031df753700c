//! Owns listening, the connections and the routes of the API.
//!
//! hyper passes requests to axum's router, not `axum::serve`: a fault may have to reset the
//! connection of a request. So each call returns an [`Outcome`], which becomes a response only in
//! the code that has the connection.

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
use crate::outcome::{Body, Hangup, Outcome};
use crate::request::{Id, Request, Route};
use crate::server::Server;
use crate::wire::{Line, Wire};

/// Takes connections until the stop.
pub(crate) async fn listen(server: Arc<Server>, listener: TcpListener) {
    let router = TowerToHyperService::new(router(&server));
    while let Some(accepted) = server.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                server.tasks.spawn(connection(Arc::clone(&server), router.clone(), stream));
            }
            // Out of file descriptors, as a rule; the connection stays in the backlog.
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, router: TowerToHyperService<Router>, stream: TcpStream) {
    // Without this, small answers wait for acknowledgements. Where it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let line = Arc::new(Line::default());
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(&line)));
    let service = service_fn(|request| answer(&router, request, &line));
    let connection = http1::Builder::new().serve_connection(wire, service);
    // A connection ends as its client, a fault or the stop wants; none of these is news.
    let _ = server.stop.run_until_cancelled(connection).await;
}

async fn answer(
    router: &TowerToHyperService<Router>,
    request: hyper::Request<Incoming>,
    line: &Arc<Line>,
) -> Result<Response<Body>, Hangup> {
    let Ok(response) = router.call(request).await;
    Outcome::of(response).respond(line)
}

fn router(server: &Arc<Server>) -> Router {
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

/// Leads to a call without an id.
fn all(
    route: Route,
) -> impl Fn(State<Arc<Server>>, Request) -> BoxFuture<'static, Outcome> + Clone + Send + Sync + 'static {
    move |State(server), request| server.answer(route.clone(), request).boxed()
}

/// Leads to a call with an id, which may be any text.
fn one(
    route: fn(String) -> Route,
) -> impl Fn(State<Arc<Server>>, Id, Request) -> BoxFuture<'static, Outcome> + Clone + Send + Sync + 'static {
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
    use crate::faults::{Call, Effect, Fault};
    use crate::{Options, World};

    /// The default key, as a header carries it.
    const KEY: &str = "Basic c2tfdGVzdF9zYW5kYm94Og==";
    const CALLS: [Call; 7] =
        [Call::List, Call::Show, Call::Create, Call::Update, Call::Delete, Call::Events, Call::Event];

    /// The call that a request leads to, as faults know it, and the status of its answer.
    async fn led(method: &str, path: &str) -> (Vec<Call>, u16) {
        let server = Arc::new(Server::new(World::new(&Options::default()), false));
        server.world().put_raw(json!({"id": "a/b é"}));
        let event = server.world().accounts[0].events.newest_first(None).next().unwrap()["id"].clone();
        // They change nothing, and count.
        let faults = CALLS.map(|call| {
            let fault = Fault::new(Effect::Delay { ms: 0 }).call(call);
            (call, server.world().inject(fault))
        });
        let request = hyper::Request::builder().method(method).header("Authorization", KEY);
        let request = request.uri(path.replace("EVENT", event.as_str().unwrap())).body(Body::empty());
        let service = TowerToHyperService::new(super::router(&server));
        let Ok(response) = service.call(request.unwrap()).await;
        let status = Outcome::of(response).status().unwrap();
        let calls = faults.into_iter().filter(|(_, fault)| server.world().fired(*fault) > 0);
        (calls.map(|(call, _)| call).collect(), status.as_u16())
    }

    #[tokio::test]
    async fn paths_lead_to_calls_and_all_else_nowhere() {
        for (method, path, call, status) in [
            ("GET", "/api/v1/customers", Some(Call::List), 200),
            ("POST", "/api/v1/customers", Some(Call::Create), 200),
            ("GET", "/api/v1/customers/a%2Fb%20%C3%A9", Some(Call::Show), 200),
            ("PATCH", "/api/v1/customers/a%2Fb%20%C3%A9", Some(Call::Update), 200),
            ("DELETE", "/api/v1/customers/a%2Fb%20%C3%A9", Some(Call::Delete), 200),
            ("GET", "/api/v1/customers/a%2Fb", Some(Call::Show), 404),
            ("GET", "/api/v1/events", Some(Call::Events), 200),
            ("GET", "/api/v1/events/EVENT", Some(Call::Event), 200),
            ("GET", "/api/v1/events/x", Some(Call::Event), 404),
            ("PUT", "/api/v1/customers", None, 404),
            ("HEAD", "/api/v1/customers", None, 404),
            ("GET", "/api/v1/customers/", None, 404),
            ("GET", "/api/v1/customers/a/b", None, 404),
            ("GET", "/api/v1/customers/%FF", None, 404),
            ("GET", "/api/v1/payments", None, 404),
            ("GET", "/customers", None, 404),
        ] {
            assert_eq!(led(method, path).await, (Vec::from_iter(call), status), "{method} {path}");
        }
    }
}
