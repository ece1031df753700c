//! The calls that read and change customers without the checks of the API.

use super::answered::{ControlAnswer, account, body, done, parameter};
use crate::account::SandboxAccount;
use crate::api::answer::ApiAnswer;
use crate::request::Request;
use crate::world::World;

/// Answers `GET /customers`.
pub(crate) fn list(world: &mut World, request: &Request) -> ControlAnswer {
    let shown = world.shown();
    Ok(ApiAnswer::ok(&account(world, request)?.truth(shown)))
}

/// Answers `POST /customers`.
pub(crate) fn create(world: &mut World, request: &Request) -> ControlAnswer {
    let now = world.now();
    let account = account(world, request)?;
    if parameter(request, "raw").is_some_and(|raw| raw == "true") {
        account.put_raw(now, body(request)?);
        return Ok(done());
    }
    let id = account.create(now, body(request)?);
    customer(account, &id)
}

/// Answers `DELETE /customers`.
pub(crate) fn delete_all(world: &mut World, request: &Request) -> ControlAnswer {
    account(world, request)?.remove_all();
    Ok(done())
}

/// Answers `GET /customers/{id}`.
pub(crate) fn show(world: &mut World, request: &Request, id: &str) -> ControlAnswer {
    customer(account(world, request)?, id)
}

/// Answers `PATCH /customers/{id}`.
pub(crate) fn update(world: &mut World, request: &Request, id: &str) -> ControlAnswer {
    let now = world.now();
    let account = account(world, request)?;
    account.update(now, id, body(request)?);
    customer(account, id)
}

/// Answers `DELETE /customers/{id}`.
pub(crate) fn delete(world: &mut World, request: &Request, id: &str) -> ControlAnswer {
    let now = world.now();
    if account(world, request)?.delete(now, id) { Ok(done()) } else { Err(no_customer()) }
}

/// Answers `POST /customers/{id}`.
pub(crate) fn restore(world: &mut World, request: &Request, id: &str) -> ControlAnswer {
    let account = account(world, request)?;
    if !account.restore(id) {
        return Err(ApiAnswer::not_found("No customer with this id has been deleted."));
    }
    customer(account, id)
}

/// Returns the answer with a customer.
fn customer(account: &SandboxAccount, id: &str) -> ControlAnswer {
    account.get(id).map(|customer| ApiAnswer::ok(&customer)).ok_or_else(no_customer)
}

/// Returns the answer about an unknown customer.
fn no_customer() -> ApiAnswer {
    ApiAnswer::not_found("There is no such customer.")
}
