//! Performs the steps of one attempt. [`next_step`] decides each of them.

use jiff::Timestamp;

use super::commit::{FinishedAttempt, freshly_frozen};
use super::{AFTER_BUSY, Pusher};
use crate::heartbeat;
use crate::remote::{ApiCall, PushRemote, Remote, RemoteError};
use crate::secret::Masker;
use crate::store::StoreError;
use crate::store::log::lag;
use crate::store::outbox::attempts;
use crate::store::outbox::candidates::{self, Claims, ENTRIES_AT_ONCE, Entered};
use komoju_core::open_intent::OpenIntent;
use komoju_core::plan::attempt::{
    AttemptFacts, AttemptStep, CreateLookup, CustomerRead, LastPush, LookupResult, next_step,
};
use komoju_core::plan::create_window::{CreateWindow, WindowError, WindowQuery, WindowReading};
use komoju_core::plan::outcome::AttemptOutcome;
use komoju_core::{Customer, CustomerId, PageQuery, time};

impl<R: Remote + PushRemote> Pusher<R> {
    /// Makes one attempt at a claimed intent.
    pub(super) async fn attempt(&self, open: OpenIntent) -> Result<FinishedAttempt, StoreError> {
        let mut facts = AttemptFacts::new(open, self.settings.consistency, self.roll(), self.moment());
        let outcome = match self.perform(&mut facts).await {
            // An attempt commits what it commits before it sends.
            Err(e) if e.is_busy() => {
                AttemptOutcome::not_sent(&e.to_string(), self.clock.now().checked_add(AFTER_BUSY).ok())
            }
            outcome => outcome?,
        };
        Ok(FinishedAttempt { open: facts.open, outcome })
    }

    async fn perform(&self, facts: &mut AttemptFacts) -> Result<AttemptOutcome, StoreError> {
        loop {
            facts.now.wall = self.clock.now();
            facts.server_time = self.remote.server_time();
            facts.throttled_until = self.remote.throttled_until();
            match next_step(facts) {
                AttemptStep::RequestServerTime => {
                    facts.time_check = Some(self.request_list().await);
                    facts.now = self.moment();
                }
                AttemptStep::ReadCustomer(id) => facts.reading = Some(self.read_customer(id).await),
                AttemptStep::FindLastPush(id, requested_at) => {
                    facts.last_push = Some(self.last_push(id, requested_at).await?);
                }
                AttemptStep::LookForCustomer(query) => {
                    facts.lookup = Some(self.look_for_customer(facts.open.position, query).await?);
                }
                AttemptStep::FreezeFirstAttempt => self.freeze_first_attempt(facts).await?,
                AttemptStep::FreezeNewKey => self.freeze_new_key(facts).await?,
                AttemptStep::Send { push, .. } => {
                    let answer = self.remote.push(&push).await;
                    facts.add_answer(push, answer);
                }
                AttemptStep::CheckKey => facts.key_check = Some(self.request_list().await),
                AttemptStep::Finish(outcome) => return Ok(outcome),
            }
        }
    }

    async fn request_list(&self) -> Result<(), RemoteError> {
        self.remote.list(PageQuery { page: 1, per_page: 1, created_from: None }).await.map(drop)
    }

    async fn read_customer(&self, id: CustomerId) -> CustomerRead {
        let requested_at = self.clock.now();
        let result = self.remote.look(&id).await;
        let call = ApiCall::Show { id: Masker::default().text(id.as_str()) };
        CustomerRead { id, call, requested_at, result }
    }

    async fn last_push(&self, id: CustomerId, requested_at: Timestamp) -> Result<LastPush, StoreError> {
        let consistency = self.settings.consistency;
        let pushed_at = self.store.read(move |conn| lag::pushed_at(conn, &id, requested_at, consistency));
        Ok(LastPush(pushed_at.await?))
    }

    async fn freeze_first_attempt(&self, facts: &mut AttemptFacts) -> Result<(), StoreError> {
        facts.open.frozen.first_server_at = facts.server_time.map(time::written);
        let (position, frozen) = (facts.open.position, facts.open.frozen.clone());
        self.store.write(move |tx| attempts::freeze_first(tx, position, &frozen)).await?;
        facts.is_dated = true;
        Ok(())
    }

    async fn freeze_new_key(&self, facts: &mut AttemptFacts) -> Result<(), StoreError> {
        let (position, id) = (facts.open.position, &facts.open.id);
        tracing::info!(intent = %id, "intent {id}: the create did not take effect; it is sent again with a new key");
        let frozen = freshly_frozen(&facts.open, &self.settings, &*self.clock, facts.server_time);
        let committed = frozen.clone();
        self.store.write(move |tx| attempts::freeze(tx, position, &committed)).await?;
        facts.open.frozen = frozen;
        facts.has_new_key = true;
        Ok(())
    }

    async fn look_for_customer(&self, position: i64, query: WindowQuery) -> Result<CreateLookup, StoreError> {
        let began = self.clock.elapsed();
        let result = match self.read_window(&query).await {
            Ok(window) => Ok(self.candidates(position, &query, window).await?),
            Err(error) => Err(error),
        };
        let took = self.clock.elapsed().saturating_sub(began);
        Ok(CreateLookup { query, took, result })
    }

    async fn read_window(&self, query: &WindowQuery) -> Result<CreateWindow, WindowError> {
        let mut reading = WindowReading::new(query, self.settings.per_page);
        loop {
            let answer = self.remote.list(reading.query()).await;
            if let Some(result) = reading.take(answer) {
                return result;
            }
        }
    }

    /// Finds the candidates in the window and the log. A long log is read in pieces.
    async fn candidates(
        &self,
        position: i64,
        query: &WindowQuery,
        window: CreateWindow,
    ) -> Result<LookupResult, StoreError> {
        let wanted = query.wanted.clone();
        let claims = if wanted.tag.is_some() { Claims::DoNotCount } else { Claims::Count };
        let (mut entered, mut is_last) = (Entered::default(), false);
        while !is_last {
            let wanted = wanted.clone();
            let read = self.store.read(move |conn| {
                let could_be = |customer: &Customer| wanted.could_be(customer);
                let is_last = entered.read_on(conn, position, ENTRIES_AT_ONCE, could_be)?;
                Ok((entered, is_last))
            });
            (entered, is_last) = read.await?;
            heartbeat::tick();
        }
        let read = self.store.read(move |conn| {
            let listed = window.candidates.iter().map(|customer| customer.id().clone());
            let could_be = |customer: &Customer| wanted.could_be(customer);
            let candidates = candidates::candidates(conn, position, listed, entered, claims, could_be)?;
            let has_twin = candidates::has_twin(conn, position, &wanted.body)?;
            Ok(LookupResult { window, candidates, has_twin })
        });
        read.await
    }
}
