//! Errors that prevent the start of the daemon or end it.

use crate::remote::client::SetupError;
use crate::secret::KeyError;
use crate::store::StoreError;

/// Why the daemon or `sync` cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}
