//! The typed API key and where it is found, and the mask that removes it and payment tokens from
//! texts.

pub mod key;
pub mod mask;

pub use key::{KeyError, KeyFault, KeyPlace, KeySource, KeyWarning, SecretKey};
pub use mask::{MASK, Masker};
