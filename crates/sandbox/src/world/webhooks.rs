//! The webhooks of all accounts, as tests and their tasks use them.

use std::sync::Arc;

use tokio::sync::Notify;

use super::World;
use crate::webhooks::{NextAttempt, SandboxWebhook, WebhookDelivery, WebhookError, WebhookId};

/// A webhook whose task has not started yet.
#[derive(Debug)]
pub(crate) struct NewWebhook {
    pub(crate) account: usize,
    pub(crate) id: WebhookId,
    /// Wakes its task when its queue changes.
    pub(crate) wake: Arc<Notify>,
}

impl World {
    /// Registers a webhook of the default account. It gets a ping at once.
    ///
    /// # Errors
    /// The URL is not a receiver on this machine.
    pub fn register_webhook(&mut self, webhook: SandboxWebhook) -> Result<WebhookId, WebhookError> {
        self.register(0, webhook)
    }

    /// Registers a webhook of the account with this key.
    ///
    /// # Errors
    /// There is no such account, or the URL is not a receiver on this machine.
    pub fn register_webhook_of(
        &mut self,
        key: &str,
        webhook: SandboxWebhook,
    ) -> Result<WebhookId, WebhookError> {
        let account = self.keys.account(key).ok_or(WebhookError::Key)?;
        self.register(account, webhook)
    }

    /// Removes a webhook of the default account. Its pending deliveries are canceled, and a running
    /// attempt ends first. Returns false if there is no such webhook.
    pub fn remove_webhook(&mut self, id: WebhookId) -> bool {
        self.touch();
        self.accounts[0].webhooks.remove(id)
    }

    /// Returns the deliveries of the default account in the order of their events. At least the
    /// latest 10,000 are kept.
    pub fn deliveries(&self) -> Vec<WebhookDelivery> {
        self.accounts[0].webhooks.deliveries().cloned().collect()
    }

    /// Drops the settled deliveries of the default account.
    pub fn clear_deliveries(&mut self) {
        self.accounts[0].webhooks.clear();
    }

    /// Whether no delivery is pending, in all accounts.
    pub fn deliveries_are_settled(&self) -> bool {
        self.accounts.iter().all(|account| account.webhooks.are_settled())
    }

    /// Returns the signal that a webhook was registered.
    pub(crate) fn webhook_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.webhook_registered)
    }

    /// Returns the webhooks that were registered since the last call.
    pub(crate) fn take_new_webhooks(&mut self) -> Vec<NewWebhook> {
        std::mem::take(&mut self.new_webhooks)
    }

    /// Returns what the task of a webhook does next.
    pub(crate) fn next_attempt(&mut self, account: usize, id: WebhookId) -> NextAttempt {
        self.accounts[account].webhooks.next(id, &self.readings)
    }

    /// Records the result of an attempt.
    pub(crate) fn finish_attempt(
        &mut self,
        account: usize,
        id: WebhookId,
        number: u64,
        result: Result<u16, String>,
    ) {
        self.accounts[account].webhooks.finish(id, number, result, &self.readings);
        self.touch();
    }

    /// Registers a webhook of an account, and signals that its task can start.
    fn register(&mut self, account: usize, webhook: SandboxWebhook) -> Result<WebhookId, WebhookError> {
        let (id, wake) = self.accounts[account].webhooks.register(webhook)?;
        self.new_webhooks.push(NewWebhook { account, id, wake });
        self.webhook_registered.notify_one();
        Ok(id)
    }
}
