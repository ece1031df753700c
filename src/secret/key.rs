//! The secret key: where it is found, what is refused, and how little of it can be seen.
//!
//! Three places, the first that exists wins: systemd's credentials, the file named in the
//! configuration, the environment. A place that exists and cannot be used is an error and no
//! reason to look further: a daemon that quietly falls back to an older key would speak for
//! another account.
//!
//! Invariants: no error and no `Debug` shows any part of a key; the memory it passed through is
//! wiped (the environment's own copy, which the system holds, cannot be).
//!
//! Refused is what cannot work: a colon ends the user name in Basic authentication, and anything
//! but printable ASCII has no settled encoding there. An unusual prefix only warns, because old
//! keys have none.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The file systemd puts the key into (`LoadCredential=komoju-secret-key:…`).
const CREDENTIAL: &str = "komoju-secret-key";

/// The variable that holds the directory of a unit's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The variable that may hold the key itself.
const KEY_VARIABLE: &str = "KOMOJU_SECRET_KEY";

/// Longer than any key, shorter than any file named by mistake.
const MOST_BYTES: u64 = 4096;

/// Read or write or search by those who are neither owner nor group.
const EVERYBODY: u32 = 0o007;

/// KOMOJU's secret key, which is the user name in Basic authentication.
#[derive(Clone)]
pub struct SecretKey(SecretString);

impl SecretKey {
    /// Finds the key: systemd's credential, then `secret_key_file`, then the environment.
    ///
    /// # Errors
    /// No place has a key; the first that exists cannot be read; what is in it cannot be a key.
    pub fn find(
        secret_key_file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, KeySource), KeyError> {
        if let Some(directory) = env(CREDENTIALS_VARIABLE).filter(|path| !path.is_empty()) {
            let place = KeyPlace::Credential(Path::new(&directory).join(CREDENTIAL));
            match from_file(place) {
                Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                // What our unit gives where the file that it loads is missing: then systemd would only say that it is.
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

    /// A key from text; white space around it is dropped.
    ///
    /// # Errors
    /// The text cannot be a key; the reason shows none of it.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let text = text.trim();
        let quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
        let fault = if text.is_empty() {
            Some(KeyFault::Empty)
        } else if text.contains(char::is_whitespace) {
            Some(KeyFault::InnerSpace)
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Some(KeyFault::NotPrintable)
        } else if text.contains(':') {
            Some(KeyFault::Colon)
        } else if text.contains('*') {
            Some(KeyFault::Masked)
        } else if quoted('"') || quoted('\'') {
            Some(KeyFault::Quoted)
        } else {
            None
        };
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Self(SecretString::from(text))),
        }
    }

    /// The key itself, for the one who sends it and the one who masks it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// SHA-256 of the salt and then the key: enough to see that a key is another one.
    pub fn salted_fingerprint(&self, salt: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(salt).chain_update(self.expose()).finalize().into()
    }

    /// What is odd about the key or its place, though it may work.
    pub fn warnings(&self, source: &KeySource) -> Vec<KeyWarning> {
        let key = self.expose();
        let mut warnings = Vec::new();
        if key.starts_with("pk_") {
            warnings.push(KeyWarning::Publishable);
        } else if !key.starts_with("sk_test_") && !key.starts_with("sk_live_") {
            warnings.push(KeyWarning::UnusualPrefix);
        }
        if let (Some(path), Some(mode)) = (source.place.path(), source.mode)
            && mode & EVERYBODY != 0
        {
            warnings.push(KeyWarning::OpenToEverybody { path: path.to_owned(), mode });
        }
        warnings
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(****)")
    }
}

fn from_file(place: KeyPlace) -> Result<(SecretKey, KeySource), KeyError> {
    let path = place.path().unwrap_or(Path::new(""));
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 32));
    let read = File::open(path).and_then(|file| {
        let mode = file.metadata()?.permissions().mode();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(mode)
    });
    match read {
        Ok(mode) => from_bytes(&bytes, KeySource { place, mode: Some(mode) }),
        Err(source) => Err(KeyError::Unreadable { place, source }),
    }
}

fn from_bytes(bytes: &[u8], source: KeySource) -> Result<(SecretKey, KeySource), KeyError> {
    let key = if bytes.len() as u64 > MOST_BYTES {
        Err(KeyFault::TooLong)
    } else {
        str::from_utf8(bytes).map_err(|_| KeyFault::NotPrintable).and_then(SecretKey::parse)
    };
    match key {
        Ok(key) => Ok((key, source)),
        Err(fault) => Err(KeyError::Unusable { place: source.place, fault }),
    }
}

/// Where a key came from.
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

/// A place a key may be in.
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

/// Why there is no key to work with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None of the three places has one.
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
    /// A place exists, or was named, and could not be read.
    #[error(
        "the secret key could not be read from {place}; check that it exists and that the user \
         of this process may read it"
    )]
    Unreadable {
        /// Where it should have been.
        place: KeyPlace,
        /// What the system said.
        source: io::Error,
    },
    /// What was found cannot be a key.
    #[error("the secret key from {place} cannot be used: {fault}")]
    Unusable {
        /// Where it was found.
        place: KeyPlace,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

/// What is wrong with a text that should be a key. None of it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Nothing, or only white space.
    #[error("it is empty; put the key there, on one line")]
    Empty,
    /// More than any key has.
    #[error("it is longer than {MOST_BYTES} bytes; this is some other file")]
    TooLong,
    /// White space between its characters.
    #[error("it holds white space or a second line; keep one key there, and nothing else")]
    InnerSpace,
    /// A control character, or one that is not ASCII.
    #[error("it holds a character that is not printable ASCII; copy the key again")]
    NotPrintable,
    /// Basic authentication ends the user name at a colon.
    #[error(
        "it holds a colon, which Basic authentication cannot carry; keep the key alone, without a \
         user name or password"
    )]
    Colon,
    /// The dashboard's masked form was copied.
    #[error("it holds a `*`, so it is a masked copy; copy the whole key from KOMOJU's dashboard")]
    Masked,
    /// Quotes that a shell or a service manager would have taken off.
    #[error("it stands in quotation marks; take them off")]
    Quoted,
}

/// What is odd about a key, or about its place, though it may work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyWarning {
    /// Neither `sk_test_` nor `sk_live_` in front; old keys have neither.
    UnusualPrefix,
    /// A key for browsers, which may not read customers.
    Publishable,
    /// The file's permissions let every local user in.
    OpenToEverybody {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl fmt::Display for KeyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnusualPrefix => f.write_str(
                "the secret key begins with neither sk_test_ nor sk_live_; fine for an old key, \
                 otherwise check what was copied",
            ),
            Self::Publishable => f.write_str(
                "the key begins with pk_, so it is a publishable key, which the API will refuse; \
                 use the secret key, sk_…",
            ),
            Self::OpenToEverybody { path, mode } => write!(
                f,
                "the file of the secret key, {0}, is open to every user of this machine (mode \
                 {1:04o}); run: chmod o= {0}",
                path.display(),
                mode & 0o7777,
            ),
        }
    }
}

#[cfg(test)]
mod tests;
