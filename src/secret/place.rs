//! The places where a secret is searched, and the search.
//!
//! There are three places, in this order: systemd's credential, the file that the configuration
//! names, the environment. The first one that exists is used. A place that exists and cannot be
//! used is an error: a daemon that falls back to an older secret would act for another account.
//!
//! Invariants: no error shows any part of a secret. The memory that held one is wiped (except the
//! environment, which belongs to the system).

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

/// The variable with the directory of a unit's credentials.
pub(super) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// MOST_BYTES controls how much of a file is read. It is longer than any secret.
pub(super) const MOST_BYTES: u64 = 4096;

/// The permission bits of other users than the owner and the group.
const OTHERS: u32 = 0o007;

/// The names that one secret has in each place.
#[derive(Debug)]
pub struct PlaceNames {
    /// The file of systemd's credential, in `CREDENTIALS_DIRECTORY`.
    pub credential: &'static str,
    /// The key of the configuration that names a file.
    pub config_key: &'static str,
    /// The variable with the secret itself.
    pub variable: &'static str,
}

/// Why a text cannot be a secret of one kind, and how messages name that kind.
pub trait SecretFault: Error + Sized + PartialEq + 'static {
    /// The secret, as the subject of a sentence.
    const SUBJECT: &'static str;
    /// The whole message if no place has the secret.
    const NOWHERE: &'static str;
    /// Its places.
    const NAMES: PlaceNames;
    /// The fault of an empty text.
    const EMPTY: Self;
    /// The fault of a text that is too long to be a secret.
    const TOO_LONG: Self;
    /// The fault of bytes that are not UTF-8.
    const NOT_TEXT: Self;
}

/// Finds the secret that `parse` accepts: systemd's credential, then `file`, then the environment.
///
/// # Errors
/// No place has a secret, the first that exists cannot be read, or its content cannot be one.
pub(super) fn find<T, F: SecretFault>(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
    parse: fn(&str) -> Result<T, F>,
) -> Result<(T, SecretSource), SecretError<F>> {
    if let Some(directory) = env(CREDENTIALS_VARIABLE).filter(|path| !path.is_empty()) {
        let path = Path::new(&directory).join(F::NAMES.credential);
        match read(&path, SecretPlace::Credential(path.clone()), parse) {
            Err(SecretError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            // The unit provides an empty credential where the file that it loads is missing,
            // because systemd's own error would not say what to do.
            Err(SecretError::Unusable { fault, .. }) if fault == F::EMPTY => {}
            found => return found,
        }
    }
    if let Some(path) = file {
        let place = SecretPlace::File { path: path.to_owned(), config_key: F::NAMES.config_key };
        return read(path, place, parse);
    }
    if let Some(value) = env(F::NAMES.variable) {
        let value = Zeroizing::new(value.into_encoded_bytes());
        let place = SecretPlace::Environment { variable: F::NAMES.variable };
        return parsed(&value, SecretSource { place, mode: None }, parse);
    }
    Err(SecretError::Nowhere)
}

/// Reads a secret from a file: at most one byte more than [`MOST_BYTES`].
fn read<T, F: SecretFault>(
    path: &Path,
    place: SecretPlace,
    parse: fn(&str) -> Result<T, F>,
) -> Result<(T, SecretSource), SecretError<F>> {
    // Allocate all of it at once, because a buffer that grows leaves copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 32));
    let mut read = || -> io::Result<u32> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(mode)
    };
    match read() {
        Ok(mode) => parsed(&bytes, SecretSource { place, mode: Some(mode) }, parse),
        Err(source) => Err(SecretError::Unreadable { place, source }),
    }
}

/// Returns the secret in the bytes of a place.
fn parsed<T, F: SecretFault>(
    bytes: &[u8],
    source: SecretSource,
    parse: fn(&str) -> Result<T, F>,
) -> Result<(T, SecretSource), SecretError<F>> {
    let secret = match str::from_utf8(bytes) {
        _ if bytes.len() as u64 > MOST_BYTES => Err(F::TOO_LONG),
        Err(_) => Err(F::NOT_TEXT),
        Ok(text) => parse(text),
    };
    match secret {
        Ok(secret) => Ok((secret, source)),
        Err(fault) => Err(SecretError::Unusable { place: source.place, fault }),
    }
}

/// Where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// The place.
    pub place: SecretPlace,
    /// The permission bits of its file; none for the environment.
    pub mode: Option<u32>,
}

impl SecretSource {
    /// Returns the file and its mode, if every user of the machine can read or change it.
    pub(super) fn open_to_all_users(&self) -> Option<(PathBuf, u32)> {
        let mode = self.mode.filter(|mode| mode & OTHERS != 0)?;
        Some((self.place.path()?.to_owned(), mode))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

/// A place where a secret may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// systemd's credential for the unit.
    Credential(PathBuf),
    /// A file that the configuration names.
    File {
        /// The file.
        path: PathBuf,
        /// The key of the configuration.
        config_key: &'static str,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: &'static str,
    },
}

impl SecretPlace {
    /// Returns the file of this place.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Credential(path) | Self::File { path, .. } => Some(path),
            Self::Environment { .. } => None,
        }
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "systemd's credential {}", path.display()),
            Self::File { path, config_key } => write!(f, "the file {} ({config_key})", path.display()),
            Self::Environment { variable } => write!(f, "the variable {variable}"),
        }
    }
}

/// Why there is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError<F: SecretFault> {
    /// None of the three places has a secret.
    #[error("{}", F::NOWHERE)]
    Nowhere,
    /// A place exists, or is configured, and could not be read.
    #[error(
        "{} could not be read from {place}; check that it exists and that the user of this process \
         may read it",
        F::SUBJECT
    )]
    Unreadable {
        /// The place that should have the secret.
        place: SecretPlace,
        /// The system's error.
        source: io::Error,
    },
    /// The text that was found cannot be a secret.
    #[error("{} from {place} cannot be used: {fault}", F::SUBJECT)]
    Unusable {
        /// Where it was found.
        place: SecretPlace,
        /// What is wrong with it.
        fault: F,
    },
}
