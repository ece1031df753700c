//! Secrets: the typed API key and where it is found, and the mask that keeps it and payment tokens out of every text.

pub mod key;
pub mod mask;

pub use key::{KeyError, KeyFault, KeyPlace, KeySource, KeyWarning, SecretKey};
pub use mask::{MASK, Masker};
