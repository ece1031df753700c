//! A request between its arrival and its answer.
//!
//! A request locks the world twice. First it arrives: faults fire, the key is checked, and the
//! idempotency key is taken. Then, after any delay, it takes effect. Between the two the world is
//! not locked, so other requests run meanwhile.

use std::time::Duration;

use hyper::StatusCode;

use super::World;
use crate::api::answer::ApiAnswer;
use crate::api::idempotency::Ticket;
use crate::api::{self, Context};
use crate::draws::Draws;
use crate::faults::{FaultEffect, FaultId, FaultedWork, Fired, milliseconds};
use crate::outcome::RequestOutcome;
use crate::readings::ServerErrors;
use crate::request::{Request, Route};

impl World {
    /// Processes the arrival of a request.
    pub(crate) fn arrive(&mut self, request: &Request, route: Route) -> Arrival {
        let facts = request.facts(&route);
        let (now, latency) = (self.now(), self.latency);
        let number = self.log.add(request, facts.page, now);
        if let Some(limit) = &self.readings.rate_limit
            && let Err(refused) = self.limiter.admit(limit, now)
        {
            self.touch();
            let gate = Gate::Answered(refused);
            return Arrival { number, route, fired: Vec::new(), gate, wait: latency, holds: Vec::new() };
        }
        let fired = self.faults.fire(&facts);
        self.touch();
        let gate = self.gate(request, &route, &fired);
        let mut wait = latency;
        let mut holds = Vec::new();
        for fired in &fired {
            match fired.effect {
                FaultEffect::Delay { ms } => wait += milliseconds(ms),
                FaultEffect::Hold => holds.push(fired.id),
                _ => {}
            }
        }
        Arrival { number, route, fired, gate, wait, holds }
    }

    /// Decides whether a request may take effect.
    fn gate(&mut self, request: &Request, route: &Route, fired: &[Fired]) -> Gate {
        if fired.iter().any(|fired| fired.effect.stops_in_front()) {
            return Gate::Closed;
        }
        let account = match self.keys.admit(request.header("authorization")) {
            Ok(account) => account,
            Err(refused) => return Gate::Answered(refused),
        };
        let key = request.headers.get("x-komoju-idempotency").filter(|_| *route == Route::Create);
        let Some(key) = key else {
            return Gate::Open { account, ticket: None };
        };
        let key = String::from_utf8_lossy(key.as_bytes());
        match self.idempotency.begin(account, &key, &request.body, self.now()) {
            Ok(ticket) => Gate::Open { account, ticket: Some(ticket) },
            Err(answer) => Gate::Answered(answer),
        }
    }

    /// Lets a request take effect, if it may, and returns its outcome.
    pub(crate) fn complete(&mut self, request: &Request, arrival: Arrival) -> RequestOutcome {
        let Arrival { number, route, fired, gate, .. } = arrival;
        let answer = match gate {
            Gate::Closed => None,
            Gate::Answered(answer) => Some(answer),
            Gate::Open { account, ticket } => {
                let skipped = fired.iter().any(|fired| fired.effect.work() == FaultedWork::Skipped);
                let done = (!skipped).then(|| self.call(account, request, number, &route, &fired));
                // The idempotency store sees errors of the API itself, also those of faults.
                let error = fired.iter().find_map(|fired| fired.effect.server_error());
                let answer = error.or(done);
                if let (Some(ticket), Some(answer)) = (&ticket, &answer) {
                    self.keep(ticket, answer);
                }
                answer
            }
        };
        let outcome = RequestOutcome::new(answer, request, self.now(), &fired);
        if let Some(status) = outcome.status() {
            self.log.answered(number, status.as_u16());
        }
        self.touch();
        outcome
    }

    /// Stores an answer under its idempotency key.
    fn keep(&mut self, ticket: &Ticket, answer: &ApiAnswer) {
        let error = answer.status >= StatusCode::INTERNAL_SERVER_ERROR;
        if error && self.readings.server_errors == ServerErrors::Forgotten {
            self.idempotency.forget(ticket);
        } else {
            self.idempotency.finish(ticket, answer);
        }
    }

    /// Runs the call of a request.
    fn call(
        &mut self,
        account: usize,
        request: &Request,
        number: u64,
        route: &Route,
        fired: &[Fired],
    ) -> ApiAnswer {
        let now = self.now();
        self.tick(account);
        let context = Context {
            now,
            readings: &self.readings,
            account: &mut self.accounts[account],
            counts: &mut self.counts,
            draws: Draws::new(self.readings.seed, number),
            request,
        };
        api::answer(context, route, fired)
    }
}

/// A request between its arrival and its answer.
#[derive(Debug)]
pub(crate) struct Arrival {
    number: u64,
    route: Route,
    fired: Vec<Fired>,
    gate: Gate,
    /// The least time until it takes effect.
    pub(crate) wait: Duration,
    /// It waits until all of these faults are removed.
    pub(crate) holds: Vec<FaultId>,
}

impl Arrival {
    /// Whether the API runs this request, and it is for events.
    pub(crate) fn is_for_events(&self) -> bool {
        let for_events = matches!(self.route, Route::Events | Route::Event(_));
        for_events && matches!(self.gate, Gate::Open { .. })
    }
}

/// Whether a request may take effect.
#[derive(Debug)]
enum Gate {
    /// No: a fault in front of the API answers.
    Closed,
    /// No: the request is refused, or answered from the idempotency store.
    Answered(ApiAnswer),
    /// Yes.
    Open { account: usize, ticket: Option<Ticket> },
}
