//! The typed API key and the webhook's secret, where they are found, and the mask that removes them
//! and payment tokens from texts.

pub mod key;
pub mod mask;
pub mod webhook;

pub use key::{KeyError, KeyFault, KeyPlace, KeySource, KeyWarning, SecretKey};
pub use mask::{MASK, Masker};
pub use webhook::{
    WebhookPlace, WebhookSecret, WebhookSecretError, WebhookSecretFault, WebhookSecretWarning, WebhookSource,
};
