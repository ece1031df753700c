//! The secret that the receiver uses now, and reading it again.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use crate::config::Webhook;
use crate::daemon::chain;
use crate::secret::{SecretPlace, SecretSource, WebhookSecret, WebhookSecretError};

/// The secret that signatures are verified with.
#[derive(Debug)]
pub struct SecretInUse {
    secret_file: Option<PathBuf>,
    secret: RwLock<WebhookSecret>,
}

impl SecretInUse {
    /// Finds the secret of the configuration and logs the warnings about it.
    pub(super) fn find(config: &Webhook) -> Result<Self, WebhookSecretError> {
        let secret_file = config.secret_file.clone();
        let (secret, source) = find(&secret_file)?;
        accept(&secret, &source);
        Ok(Self { secret_file, secret: RwLock::new(secret) })
    }

    /// Returns whether the secret, or the previous one, signed this body.
    pub(super) fn has_signed(&self, body: &[u8], signature: &[u8]) -> bool {
        self.secret.read().unwrap_or_else(PoisonError::into_inner).has_signed(body, signature)
    }

    /// Reads the secret again. One that cannot be used changes nothing. A credential and a variable
    /// never change within a process.
    pub fn read_again(&self) {
        let (secret, source) = match find(&self.secret_file) {
            Ok(found) => found,
            Err(e) => {
                tracing::error!("SIGHUP: the current secret of webhooks stays in use: {}", chain(&e));
                return;
            }
        };
        if !matches!(source.place, SecretPlace::File { .. }) {
            tracing::warn!(
                "SIGHUP: the secret of webhooks in {source} is read only at the start; to change it, run: systemctl restart komoju-sync"
            );
            return;
        }
        let mut current = self.secret.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_same(&secret) {
            tracing::info!("SIGHUP: the secret of webhooks in {source} is unchanged");
            return;
        }
        accept(&secret, &source);
        let previous = if secret.is_rotating() { "; the previous one is accepted, too" } else { "" };
        tracing::info!("SIGHUP: new secret of webhooks in {source}{previous}");
        *current = secret;
    }
}

fn find(secret_file: &Option<PathBuf>) -> Result<(WebhookSecret, SecretSource), WebhookSecretError> {
    WebhookSecret::find(secret_file.as_deref(), &|name| std::env::var_os(name))
}

/// Hides the secret in all texts, and logs what is unusual about it.
fn accept(secret: &WebhookSecret, source: &SecretSource) {
    secret.remember();
    for warning in secret.warnings(source) {
        tracing::warn!("{warning}");
    }
}
