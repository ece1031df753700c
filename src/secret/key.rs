//! The secret key: where it is found, what is refused, and what is never shown.
//!
//! Invariant: no error and no `Debug` output shows any part of a key.
//!
//! A key that cannot work is refused. A colon ends the user name in Basic authentication, and other
//! characters than printable ASCII have no defined encoding there. An unusual prefix is a warning,
//! because old keys have none.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::place::{self, MOST_BYTES, PlaceNames, SecretError, SecretFault, SecretSource};

/// The file of systemd's credential (`LoadCredential=komoju-secret-key:…`).
const CREDENTIAL: &str = "komoju-secret-key";

/// The variable with the key itself.
const KEY_VARIABLE: &str = "KOMOJU_SECRET_KEY";

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
    ) -> Result<(Self, SecretSource), KeyError> {
        place::find(secret_key_file, env, Self::parse)
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
    pub fn warnings(&self, source: &SecretSource) -> Vec<KeyWarning> {
        let key = self.expose();
        let mut warnings = Vec::new();
        if key.starts_with("pk_") {
            warnings.push(KeyWarning::Publishable);
        } else if !key.starts_with("sk_test_") && !key.starts_with("sk_live_") {
            warnings.push(KeyWarning::UnusualPrefix);
        }
        warnings
            .extend(source.open_to_all_users().map(|(path, mode)| KeyWarning::OpenToAllUsers { path, mode }));
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

/// Why there is no usable key.
pub type KeyError = SecretError<KeyFault>;

impl SecretFault for KeyFault {
    const SUBJECT: &str = "the secret key";
    const NOWHERE: &str = "there is no secret key. Looked for, in this order:
  1. $CREDENTIALS_DIRECTORY/komoju-secret-key, systemd's credential: no such file, or an empty one
  2. the file that api.secret_key_file names: not set
  3. the variable KOMOJU_SECRET_KEY: not set
Copy the key from KOMOJU's dashboard into /etc/komoju-sync/secret-key (owner root, mode 0400), from where the \
         installed service loads it (NAME.secret-key for komoju-sync@NAME), and start it again; without that service, into \
         a file that only the user of this process may read, and name that file in api.secret_key_file";
    const NAMES: PlaceNames =
        PlaceNames { credential: CREDENTIAL, config_key: "api.secret_key_file", variable: KEY_VARIABLE };
    const EMPTY: Self = Self::Empty;
    const TOO_LONG: Self = Self::TooLong;
    const NOT_TEXT: Self = Self::NotPrintable;
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
