//! Errors that prevent the start of the daemon or end it.

use crate::remote::client::SetupError;
use crate::secret::KeyError;
use crate::store::StoreError;

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The HTTP client.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A directory for the dry run's copy.
    #[error("no temporary directory can be made for the dry run: {0}")]
    Temporary(std::io::Error),
}
