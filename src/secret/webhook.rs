//! The webhook's secret: where it is found, and whether it signed a body.
//!
//! The places are those of the secret key: systemd's credential, the file that the configuration
//! names, the environment. The first one that exists is used. A place that exists and cannot be
//! used is an error.
//!
//! Invariants: no error and no `Debug` output shows any part of a secret. No other module reads its
//! text. A signature is compared in constant time.
//!
//! During a rotation a place has two lines, the newer secret first: KOMOJU signs with one of them,
//! and both are accepted. White space around each line and empty lines are dropped.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ring::hmac;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::key::{CREDENTIALS_VARIABLE, MOST_BYTES, OTHERS, read_file};
use super::mask;

/// The file of systemd's credential (`LoadCredential=komoju-webhook-secret:…`).
const CREDENTIAL: &str = "komoju-webhook-secret";

/// The variable with the secret itself.
const VARIABLE: &str = "KOMOJU_WEBHOOK_SECRET";

/// SHORTEST controls which secrets are logged as too short: with a body and its signature, a short
/// one can be found by trying.
const SHORTEST: usize = 16;

/// The secret that signs webhooks, and the previous one during a rotation.
#[derive(Clone)]
pub struct WebhookSecret {
    newer: SecretString,
    older: Option<SecretString>,
}

impl WebhookSecret {
    /// Finds the secret: systemd's credential, then `secret_file`, then the environment.
    ///
    /// # Errors
    /// No place has a secret, the first that exists cannot be read, or its content cannot be one.
    pub fn find(
        secret_file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, WebhookSource), WebhookSecretError> {
        if let Some(directory) = env(CREDENTIALS_VARIABLE).filter(|path| !path.is_empty()) {
            let place = WebhookPlace::Credential(Path::new(&directory).join(CREDENTIAL));
            match from_file(place) {
                Err(WebhookSecretError::Unreadable { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                // The unit provides an empty credential where the file that it loads is missing.
                Err(WebhookSecretError::Unusable { fault: WebhookSecretFault::Empty, .. }) => {}
                found => return found,
            }
        }
        if let Some(path) = secret_file {
            return from_file(WebhookPlace::File(path.to_owned()));
        }
        if let Some(value) = env(VARIABLE) {
            let value = Zeroizing::new(value.into_encoded_bytes());
            return from_bytes(&value, WebhookSource { place: WebhookPlace::Environment, mode: None });
        }
        Err(WebhookSecretError::Nowhere)
    }

    /// Returns the secrets in a text: one on each line, the newer one first.
    ///
    /// # Errors
    /// The text cannot be a secret; the reason shows none of it.
    pub fn parse(text: &str) -> Result<Self, WebhookSecretFault> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (newer, older) = (lines.next().ok_or(WebhookSecretFault::Empty)?, lines.next());
        if lines.next().is_some() {
            return Err(WebhookSecretFault::ManyLines);
        }
        if [Some(newer), older].into_iter().flatten().any(|line| line.contains(char::is_control)) {
            return Err(WebhookSecretFault::NotText);
        }
        Ok(Self { newer: SecretString::from(newer), older: older.map(SecretString::from) })
    }

    /// Returns whether one of the secrets signed this body: `signature` is its HMAC-SHA256. The
    /// comparison takes the same time wherever they differ.
    pub fn has_signed(&self, body: &[u8], signature: &[u8]) -> bool {
        self.each().any(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
            hmac::verify(&key, body, signature).is_ok()
        })
    }

    /// Returns whether both values have the same secrets in the same order.
    pub fn is_same(&self, other: &Self) -> bool {
        self.each().map(|secret| secret.expose_secret()).eq(other.each().map(|secret| secret.expose_secret()))
    }

    /// Hides the secrets in every text from now on.
    pub fn remember(&self) {
        self.each().for_each(|secret| mask::remember_webhook(secret.expose_secret()));
    }

    /// Returns whether the previous secret is accepted, too.
    pub fn is_rotating(&self) -> bool {
        self.older.is_some()
    }

    /// Returns what is unusual about the secret or its place, although it works.
    pub fn warnings(&self, source: &WebhookSource) -> Vec<WebhookSecretWarning> {
        let mut warnings = Vec::new();
        if self.each().any(|secret| secret.expose_secret().chars().count() < SHORTEST) {
            warnings.push(WebhookSecretWarning::Short);
        }
        if let (Some(path), Some(mode)) = (source.place.path(), source.mode)
            && mode & OTHERS != 0
        {
            warnings.push(WebhookSecretWarning::OpenToAllUsers { path: path.to_owned(), mode });
        }
        warnings
    }

    fn each(&self) -> impl Iterator<Item = &SecretString> {
        std::iter::once(&self.newer).chain(&self.older)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(****)")
    }
}

/// Reads the secret from a file.
fn from_file(place: WebhookPlace) -> Result<(WebhookSecret, WebhookSource), WebhookSecretError> {
    match read_file(place.path().unwrap_or(Path::new(""))) {
        Ok((bytes, mode)) => from_bytes(&bytes, WebhookSource { place, mode: Some(mode) }),
        Err(source) => Err(WebhookSecretError::Unreadable { place, source }),
    }
}

/// Reads the secret from the bytes of a source.
fn from_bytes(
    bytes: &[u8],
    source: WebhookSource,
) -> Result<(WebhookSecret, WebhookSource), WebhookSecretError> {
    let secret = match str::from_utf8(bytes) {
        _ if bytes.len() as u64 > MOST_BYTES => Err(WebhookSecretFault::TooLong),
        Err(_) => Err(WebhookSecretFault::NotText),
        Ok(text) => WebhookSecret::parse(text),
    };
    match secret {
        Ok(secret) => Ok((secret, source)),
        Err(fault) => Err(WebhookSecretError::Unusable { place: source.place, fault }),
    }
}

/// Where the secret was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSource {
    /// The place.
    pub place: WebhookPlace,
    /// The permission bits of its file; none for the environment.
    pub mode: Option<u32>,
}

impl fmt::Display for WebhookSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

/// A place where the webhook's secret may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookPlace {
    /// systemd's credential for the unit.
    Credential(PathBuf),
    /// The file that `webhook.secret_file` names.
    File(PathBuf),
    /// The variable `KOMOJU_WEBHOOK_SECRET`.
    Environment,
}

impl WebhookPlace {
    /// Returns the file of this place.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Credential(path) | Self::File(path) => Some(path),
            Self::Environment => None,
        }
    }
}

impl fmt::Display for WebhookPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(path) => write!(f, "systemd's credential {}", path.display()),
            Self::File(path) => write!(f, "the file {} (webhook.secret_file)", path.display()),
            Self::Environment => write!(f, "the variable {VARIABLE}"),
        }
    }
}

/// Why there is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSecretError {
    /// None of the three places has a secret.
    #[error(
        "webhook.listen is set, and there is no secret for webhooks. Looked for, in this order:
  1. $CREDENTIALS_DIRECTORY/komoju-webhook-secret, systemd's credential: no such file, or an empty one
  2. the file that webhook.secret_file names: not set
  3. the variable KOMOJU_WEBHOOK_SECRET: not set
Write the secret that the webhook has in KOMOJU's dashboard into /etc/komoju-sync/webhook-secret (owner root, mode 0400), \
         from where the installed service loads it (NAME.webhook-secret for komoju-sync@NAME), and start it again; without \
         that service, into a file that only the user of this process may read, and name that file in webhook.secret_file"
    )]
    Nowhere,
    /// A place exists, or is configured, and could not be read.
    #[error(
        "the secret of webhooks could not be read from {place}; check that it exists and that the \
         user of this process may read it"
    )]
    Unreadable {
        /// The place that should have the secret.
        place: WebhookPlace,
        /// The system's error.
        source: io::Error,
    },
    /// The text that was found cannot be a secret.
    #[error("the secret of webhooks from {place} cannot be used: {fault}")]
    Unusable {
        /// Where it was found.
        place: WebhookPlace,
        /// What is wrong with it.
        fault: WebhookSecretFault,
    },
}

/// Why a text cannot be the webhook's secret. The error shows no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookSecretFault {
    /// Empty, or only white space.
    #[error("it is empty; put the secret there, on one line")]
    Empty,
    /// Longer than any secret.
    #[error("it is longer than {MOST_BYTES} bytes, so it is another file; put the secret there, on one line")]
    TooLong,
    /// More lines than the newer and the older secret.
    #[error(
        "it has more than two lines; keep the secret there, and the previous one below it during a rotation"
    )]
    ManyLines,
    /// Not UTF-8, or a control character within a line.
    #[error("it is not text, or contains a control character; copy the secret again")]
    NotText,
}

/// What is unusual about the webhook's secret or its place, although it works.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookSecretWarning {
    /// A secret that can be guessed.
    #[error(
        "the secret of webhooks has fewer than {SHORTEST} characters, so it can be guessed; enter a longer \
         one in KOMOJU's dashboard and here: openssl rand -hex 32"
    )]
    Short,
    /// Every local user may read or change the file.
    #[error(
        "every user of this machine can read or change {0}, the file of the webhook's secret (mode \
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
