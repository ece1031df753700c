//! The exit codes of commands.

use std::io::ErrorKind;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::daemon::AppError;
use crate::daemon::listen::{BindError, BindErrorKind};
use crate::daemon::webhook::ReceiverError;
use crate::remote::client::SetupError;
use crate::secret::KeyError;
use crate::store::{StoreError, is_transient_io};
use crate::tasks::pull::{Failure, Report};
use komoju_core::{PassOutcome, Severity};

/// An exit code of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: fine.
    Fine,
    /// 1: failed.
    Failed,
    /// 2: usage or configuration.
    Usage,
    /// 3: done, but something waits for an operator.
    Waits,
    /// 4: the API refused the key.
    KeyRefused,
    /// 5: the database cannot be used.
    Database,
}

impl Exit {
    /// Returns the number.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Waits => 3,
            Self::KeyRefused => 4,
            Self::Database => 5,
        }
    }

    /// Returns the code if both apply: the one that is first in 5, 2, 4, 1, 3, 0.
    pub fn and(self, other: Self) -> Self {
        let weight = |exit: Self| match exit {
            Self::Database => 5,
            Self::Usage => 4,
            Self::KeyRefused => 3,
            Self::Failed => 2,
            Self::Waits => 1,
            Self::Fine => 0,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

impl From<Severity> for Exit {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Note => Self::Fine,
            Severity::NeedsOperator => Self::Waits,
            Severity::Failed => Self::Failed,
            Severity::KeyRefused => Self::KeyRefused,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Returns the exit code for the report of a pass.
pub(super) fn exit_of_report(report: &Report) -> Exit {
    match (&report.failure, report.outcome) {
        (Some(Failure::KeyRefused(_)), _) => Exit::KeyRefused,
        (Some(Failure::OtherAccount), _) => Exit::Waits,
        (Some(_), _) => Exit::Failed,
        (None, PassOutcome::Partial) => Exit::Failed,
        (None, PassOutcome::Held) => Exit::Waits,
        (None, _) if report.held > 0 || report.new_unreadable > 0 || report.ignores_page => Exit::Waits,
        (None, _) => Exit::Fine,
    }
}

/// Returns the exit code for an error.
pub(super) fn exit_of(error: &anyhow::Error) -> Exit {
    let by_store = |e: &StoreError| if e.is_unusable() { Exit::Database } else { Exit::Failed };
    for cause in error.chain() {
        if let Some(e) = cause.downcast_ref::<StoreError>() {
            return by_store(e);
        }
        if let Some(AppError::Store(e)) = cause.downcast_ref::<AppError>() {
            return by_store(e);
        }
        let app_usage =
            matches!(cause.downcast_ref::<AppError>(), Some(AppError::Key(_) | AppError::Setup(_)));
        let usage = cause.is::<ConfigError>() || cause.is::<KeyError>() || cause.is::<SetupError>();
        if let Some(e) = cause.downcast_ref::<BindError>() {
            return if e.kind() == BindErrorKind::Wrong { Exit::Usage } else { Exit::Failed };
        }
        if let Some(ReceiverError::Bind(e)) = cause.downcast_ref::<ReceiverError>() {
            // A port that is in use needs an operator here, because KOMOJU delivers to the other
            // program.
            return if e.kind() == BindErrorKind::NoAddress { Exit::Failed } else { Exit::Usage };
        }
        if app_usage || usage || cause.is::<ReceiverError>() || cause.is::<UsageError>() {
            return if input_can_pass(cause) { Exit::Failed } else { Exit::Usage };
        }
    }
    Exit::Failed
}

/// Whether a file of the configuration could not be read for a reason that can pass, such as
/// exhausted file handles.
pub(super) fn input_can_pass(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_transient_io))
}

/// An argument that clap accepts and the command refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// Whether the reader of standard output has closed it, as `| head` does. That is no error.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretPlace;

    #[test]
    fn file_that_cannot_be_read_for_now_exits_1_and_any_other_2() {
        let unread = |errno| std::io::Error::from_raw_os_error(errno);
        for (errno, exit) in
            [(libc::EMFILE, Exit::Failed), (libc::EIO, Exit::Failed), (libc::EACCES, Exit::Usage)]
        {
            let key = || KeyError::Unreadable {
                place: SecretPlace::Environment { variable: "KOMOJU_SECRET_KEY" },
                source: unread(errno),
            };
            let config = ConfigError::Unreadable { path: "config.toml".into(), source: unread(errno) };
            assert_eq!(exit_of(&key().into()), exit);
            assert_eq!(exit_of(&AppError::Key(key()).into()), exit);
            assert_eq!(exit_of(&config.into()), exit);
        }
        assert_eq!(exit_of(&KeyError::Nowhere.into()), Exit::Usage);
    }

    #[test]
    fn code_of_several_follows_the_order_of_the_contract() {
        let order = [Exit::Database, Exit::Usage, Exit::KeyRefused, Exit::Failed, Exit::Waits, Exit::Fine];
        assert_eq!(order.map(Exit::code), [5, 2, 4, 1, 3, 0]);
        for (n, first) in order.into_iter().enumerate() {
            for later in &order[n..] {
                assert_eq!(first.and(*later), first);
                assert_eq!(later.and(first), first);
            }
        }
    }

    #[test]
    fn severity_exits_with_its_code() {
        for severity in [Severity::Note, Severity::NeedsOperator, Severity::Failed, Severity::KeyRefused] {
            assert_eq!(Exit::from(severity).code(), severity.exit_code());
        }
    }
}
