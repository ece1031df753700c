//! The webhook's secret: where it is found, and whether it signed a body.
//!
//! The places are those of the secret key.
//!
//! Invariants: no error and no `Debug` output shows any part of a secret. No other module reads its
//! text. A signature is compared in constant time.
//!
//! During a rotation a place has two lines, the newer secret first: KOMOJU signs with one of them,
//! and both are accepted. White space around each line and empty lines are dropped.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

use super::mask;
use super::place::{self, MOST_BYTES, PlaceNames, SecretError, SecretFault, SecretSource};

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
    ) -> Result<(Self, SecretSource), WebhookSecretError> {
        place::find(secret_file, env, Self::parse)
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
    pub fn warnings(&self, source: &SecretSource) -> Vec<WebhookSecretWarning> {
        let mut warnings = Vec::new();
        if self.each().any(|secret| secret.expose_secret().chars().count() < SHORTEST) {
            warnings.push(WebhookSecretWarning::Short);
        }
        let open = source.open_to_all_users();
        warnings.extend(open.map(|(path, mode)| WebhookSecretWarning::OpenToAllUsers { path, mode }));
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

/// Why there is no usable secret.
pub type WebhookSecretError = SecretError<WebhookSecretFault>;

impl SecretFault for WebhookSecretFault {
    const SUBJECT: &str = "the secret of webhooks";
    const NOWHERE: &str = "webhook.listen is set, and there is no secret for webhooks. Looked for, in this order:
  1. $CREDENTIALS_DIRECTORY/komoju-webhook-secret, systemd's credential: no such file, or an empty one
  2. the file that webhook.secret_file names: not set
  3. the variable KOMOJU_WEBHOOK_SECRET: not set
Write the secret that the webhook has in KOMOJU's dashboard into /etc/komoju-sync/webhook-secret (owner root, mode 0400), \
         from where the installed service loads it (NAME.webhook-secret for komoju-sync@NAME), and start it again; without \
         that service, into a file that only the user of this process may read, and name that file in webhook.secret_file";
    const NAMES: PlaceNames =
        PlaceNames { credential: CREDENTIAL, config_key: "webhook.secret_file", variable: VARIABLE };
    const EMPTY: Self = Self::Empty;
    const TOO_LONG: Self = Self::TooLong;
    const NOT_TEXT: Self = Self::NotText;
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
