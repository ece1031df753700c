//! The secret key: where it is found, what is refused, and what is never shown.
//!
//! There are three places, in this order: systemd's credentials, the file that the configuration
//! names, the environment. The first one that exists is used. A place that exists and cannot be
//! used is an error: a daemon that falls back to an older key would act for another account.
//!
//! Invariants: no error and no `Debug` output shows any part of a key. The memory that held a key
//! is wiped (except the environment, which belongs to the system).
//!
//! A key that cannot work is refused. A colon ends the user name in Basic authentication, and other
//! characters than printable ASCII have no defined encoding there. An unusual prefix is a warning,
//! because old keys have none.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The file of systemd's credential (`LoadCredential=komoju-secret-key:…`).
const CREDENTIAL: &str = "komoju-secret-key";

/// The variable with the directory of a unit's credentials.
pub(super) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The variable with the key itself.
const KEY_VARIABLE: &str = "KOMOJU_SECRET_KEY";

/// MOST_BYTES controls how much of a file is read. It is longer than any key.
pub(super) const MOST_BYTES: u64 = 4096;

/// The permission bits of other users than the owner and the group.
pub(super) const OTHERS: u32 = 0o007;

/// KOMOJU's secret key, which is the user name in Basic authentication.
#[derive(Clone)]
pub struct SecretKey(SecretString);

impl SecretKey {
    /// Finds the key: systemd's credential, then `secret_key_file`, then the environment.
    ///
    /// # Errors
    /// No place has a key, the first that exists cannot be read, or its content cannot be a key.
    pub fn find(
        secret_key_file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, KeySource), KeyError> {
        if let Some(directory) = env(CREDENTIALS_VARIABLE).filter(|path| !path.is_empty()) {
            let place = KeyPlace::Credential(Path::new(&directory).join(CREDENTIAL));
            match from_file(place) {
                Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                // The unit provides an empty credential where the file that it loads is missing,
                // because systemd's own error would not say what to do.
                Err(KeyError::Unusable { fault: KeyFault::Empty, .. }) => {}
                found => return found,
            }
        }
        if let Some(path) = secret_key_file {
            return from_file(KeyPlace::File(path.to_owned()));
        }
        if let Some(value) = env(KEY_VARIABLE) {
            let value = Zeroizing::new(value.into_encoded_bytes());
            return from_bytes(&value, KeySource { place: KeyPlace::Environment, mode: None });
        }
        Err(KeyError::Nowhere)
    }

    /// Returns the key in a text, without the white space around it.
    ///
    /// # Errors
    /// The text cannot be a key; the reason shows none of it.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let text = text.trim();
        match fault_of(text) {
            Some(fault) => Err(fault),
            None => Ok(Self(SecretString::from(text))),
        }
    }

    /// Returns the key itself, for the client that sends it and the mask that hides it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns SHA-256 of the salt and then the key: enough to recognise another key.
    pub fn salted_fingerprint(&self, salt: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(salt).chain_update(self.expose()).finalize().into()
    }

    /// Returns what is unusual about the key or its place, although it may work.
    pub fn warnings(&self, source: &KeySource) -> Vec<KeyWarning> {
        let key = self.expose();
        let mut warnings = Vec::new();
        if key.starts_with("pk_") {
            warnings.push(KeyWarning::Publishable);
        } else if !key.starts_with("sk_test_") && !key.starts_with("sk_live_") {
            warnings.push(KeyWarning::UnusualPrefix);
        }
        if let (Some(path), Some(mode)) = (source.place.path(), source.mode)
            && mode & OTHERS != 0
        {
            warnings.push(KeyWarning::OpenToAllUsers { path: path.to_owned(), mode });
        }
        warnings
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(****)")
    }
}

/// Returns why a text cannot be a key, if it cannot.
fn fault_of(text: &str) -> Option<KeyFault> {
    let quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    let faults = [
        (text.is_empty(), KeyFault::Empty),
        (text.contains(char::is_whitespace), KeyFault::InnerSpace),
        (!text.bytes().all(|byte| byte.is_ascii_graphic()), KeyFault::NotPrintable),
        (text.contains(':'), KeyFault::Colon),
        (text.contains('*'), KeyFault::Masked),
        (quoted('"') || quoted('\''), KeyFault::Quoted),
    ];
    faults.into_iter().find_map(|(has, fault)| has.then_some(fault))
}

/// Reads the key from a file.
fn from_file(place: KeyPlace) -> Result<(SecretKey, KeySource), KeyError> {
    match read_file(place.path().unwrap_or(Path::new(""))) {
        Ok((bytes, mode)) => from_bytes(&bytes, KeySource { place, mode: Some(mode) }),
        Err(source) => Err(KeyError::Unreadable { place, source }),
    }
}

/// Reads a file with a secret: at most one byte more than [`MOST_BYTES`], and the permission bits.
pub(super) fn read_file(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // Allocate all of it at once, because a buffer that grows leaves copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 32));
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

/// Reads the key from the bytes of a source.
fn from_bytes(bytes: &[u8], source: KeySource) -> Result<(SecretKey, KeySource), KeyError> {
    let key = match str::from_utf8(bytes) {
        _ if bytes.len() as u64 > MOST_BYTES => Err(KeyFault::TooLong),
        Err(_) => Err(KeyFault::NotPrintable),
        Ok(text) => SecretKey::parse(text),
    };
    match key {
        Ok(key) => Ok((key, source)),
        Err(fault) => Err(KeyError::Unusable { place: source.place, fault }),
    }
}

/// Where a key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    /// The place.
    pub place: KeyPlace,
    /// The permission bits of its file; none for the environment.
    pub mode: Option<u32>,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

/// A place where a key may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// systemd's credential for the unit.
    Credential(PathBuf),
    /// The file that `api.secret_key_file` names.
    File(PathBuf),
    /// The variable `KOMOJU_SECRET_KEY`.
    Environment,
}

impl KeyPlace {
    /// Returns the file of this place.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Credential(path) | Self::File(path) => Some(path),
            Self::Environment => None,
        }
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "systemd's credential {}", path.display()),
            Self::File(path) => write!(f, "the file {} (api.secret_key_file)", path.display()),
            Self::Environment => write!(f, "the variable {KEY_VARIABLE}"),
        }
    }
}

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None of the three places has a key.
    #[error(
        "there is no secret key. Looked for, in this order:
  1. $CREDENTIALS_DIRECTORY/komoju-secret-key, systemd's credential: no such file, or an empty one
  2. the file that api.secret_key_file names: not set
  3. the variable KOMOJU_SECRET_KEY: not set
Copy the key from KOMOJU's dashboard into /etc/komoju-sync/secret-key (owner root, mode 0400), from where the \
         installed service loads it (NAME.secret-key for komoju-sync@NAME), and start it again; without that service, into \
         a file that only the user of this process may read, and name that file in api.secret_key_file"
    )]
    Nowhere,
    /// A place exists, or is configured, and could not be read.
    #[error(
        "the secret key could not be read from {place}; check that it exists and that the user \
         of this process may read it"
    )]
    Unreadable {
        /// The place that should have the key.
        place: KeyPlace,
        /// The system's error.
        source: io::Error,
    },
    /// The text that was found cannot be a key.
    #[error("the secret key from {place} cannot be used: {fault}")]
    Unusable {
        /// Where it was found.
        place: KeyPlace,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

/// Why a text cannot be a key. The error shows no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Empty, or only white space.
    #[error("it is empty; put the key there, on one line")]
    Empty,
    /// Longer than any key.
    #[error("it is longer than {MOST_BYTES} bytes, so it is another file; put the key there, on one line")]
    TooLong,
    /// White space between its characters.
    #[error("it contains white space or a second line; keep one key there, and nothing else")]
    InnerSpace,
    /// A control character, or one that is not ASCII.
    #[error("it contains a character that is not printable ASCII; copy the key again")]
    NotPrintable,
    /// Basic authentication ends the user name at a colon.
    #[error(
        "it contains a colon, which Basic authentication does not allow; keep the key alone, without \
         a user name or password"
    )]
    Colon,
    /// The dashboard's masked form was copied.
    #[error("it contains a `*`, so it is a masked copy; copy the whole key from KOMOJU's dashboard")]
    Masked,
    /// Quotation marks, which a shell or a service manager would have removed.
    #[error("it is in quotation marks; remove them")]
    Quoted,
}

/// What is unusual about a key or its place, although it may work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyWarning {
    /// Neither `sk_test_` nor `sk_live_` in front. Old keys have neither.
    #[error(
        "the secret key begins with neither sk_test_ nor sk_live_; this is correct for an old key, \
         otherwise check what was copied"
    )]
    UnusualPrefix,
    /// A key for browsers, which may not read customers.
    #[error(
        "the key begins with pk_, so it is a publishable key, which the API will refuse; use the \
         secret key, sk_…"
    )]
    Publishable,
    /// Every local user may read or change the file.
    #[error(
        "every user of this machine can read or change {0}, the file of the secret key (mode \
         {mode:04o}); run: chmod o= {0}",
        path.display(),
        mode = mode & 0o7777
    )]
    OpenToAllUsers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

#[cfg(test)]
mod tests;
