//! The typed API key and the webhook's secret, where they are found, and the mask that removes them
//! and payment tokens from texts.

pub mod key;
pub mod mask;
pub mod place;
pub mod webhook;

pub use key::{KeyError, KeyFault, KeyWarning, SecretKey};
pub use mask::{MASK, Masker};
pub use place::{SecretPlace, SecretSource};
pub use webhook::{WebhookSecret, WebhookSecretError, WebhookSecretFault, WebhookSecretWarning};
