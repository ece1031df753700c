//! The calls about webhooks and their deliveries.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;

use super::answered::{ControlAnswer, account, body, done, parameter};
use crate::api::answer::ApiAnswer;
use crate::outcome::RequestOutcome;
use crate::request::Request;
use crate::server::SandboxServer;
use crate::webhooks::{SandboxWebhook, WebhookDelivery, WebhookId};
use crate::world::World;

/// Answers `GET /webhooks`.
pub(crate) fn webhooks(world: &mut World, request: &Request) -> ControlAnswer {
    let registered: Vec<_> = account(world, request)?.webhooks.registered().collect();
    Ok(ApiAnswer::ok(&registered))
}

/// Answers `POST /webhooks`.
pub(crate) fn register(world: &mut World, request: &Request) -> ControlAnswer {
    let webhook: SandboxWebhook = body(request)?;
    let key = parameter(request, "key").unwrap_or_else(|| world.key().to_owned());
    let registered = world.register_webhook_of(&key, webhook);
    let id = registered.map_err(|error| ApiAnswer::bad_request(&format!("{error}.")))?;
    Ok(ApiAnswer::ok(&json!({"id": id})))
}

/// Answers `DELETE /webhooks/{id}`.
pub(crate) fn remove_webhook(world: &mut World, request: &Request, id: &str) -> ControlAnswer {
    let account = account(world, request)?;
    if id.parse().is_ok_and(|id| account.webhooks.remove(WebhookId(id))) {
        world.touch();
        return Ok(done());
    }
    Err(ApiAnswer::not_found("There is no webhook with this id."))
}

/// Answers `GET /deliveries`.
pub(crate) fn deliveries(world: &mut World, request: &Request) -> ControlAnswer {
    let deliveries: Vec<&WebhookDelivery> = account(world, request)?.webhooks.deliveries().collect();
    Ok(ApiAnswer::ok(&deliveries))
}

/// Answers `DELETE /deliveries`.
pub(crate) fn clear_deliveries(world: &mut World, request: &Request) -> ControlAnswer {
    account(world, request)?.webhooks.clear();
    Ok(done())
}

/// Answers `GET /deliveries/settled` as soon as no delivery is pending, in all accounts.
pub(crate) async fn settled(State(server): State<Arc<SandboxServer>>, request: Request) -> RequestOutcome {
    server.until(World::deliveries_are_settled).await;
    let mut world = server.world();
    let answer = deliveries(&mut world, &request);
    RequestOutcome::plain(answer.unwrap_or_else(|refused| refused), world.now())
}
