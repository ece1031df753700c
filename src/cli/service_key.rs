//! The key file of the installed service. The unit loads it as root and passes it to the daemon as
//! a credential.
//!
//! A command that is run by hand has no credential. It reads this file too, so that it does not
//! report a missing key if the service has one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::Api;
use crate::secret::{KeyError, SecretKey, SecretSource};

/// The directory of the package's configuration. Its units look for keys there and nowhere else.
const PACKAGED: &str = "/etc/komoju-sync";

/// The owner and mode that the package's text and the units' comments name.
pub(super) const OWNER_AND_MODE: &str = "owner root, mode 0400";

/// The key file of a configuration.
pub(super) struct ServiceKey {
    /// `secret-key` beside `config.toml`, or `NAME.secret-key` beside `NAME.toml`.
    path: PathBuf,
    unit: String,
}

impl ServiceKey {
    /// Returns the key file of the unit that runs with this configuration.
    pub(super) fn of(config_file: &Path) -> Self {
        let config_file = std::path::absolute(config_file).unwrap_or_else(|_| config_file.to_owned());
        let name = config_file.file_stem().filter(|name| *name != "config");
        let (file, unit) = match name.map(|name| name.to_string_lossy()) {
            Some(name) => (format!("{name}.secret-key"), format!("komoju-sync@{name}")),
            None => ("secret-key".to_owned(), "komoju-sync".to_owned()),
        };
        Self { path: config_file.with_file_name(file), unit }
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the unit that loads the file, if the package has one for this configuration.
    pub(super) fn unit(&self) -> Option<&str> {
        (self.path.parent() == Some(Path::new(PACKAGED))).then_some(&*self.unit)
    }

    /// Returns the file of the webhook's secret that the same unit loads.
    pub(super) fn webhook_secret(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(name.replace("secret-key", "webhook-secret"))
    }

    /// Reads the key; `None` if there is no such file.
    pub(super) fn read(&self) -> Option<Result<(SecretKey, SecretSource), KeyError>> {
        let api = Api { secret_key_file: Some(self.path.clone()), ..Api::default() };
        match SecretKey::find(api.secret_key_file.as_deref(), &|_| None) {
            Err(KeyError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            found => Some(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_has_the_name_that_the_unit_loads() {
        let of = |config: &str| {
            let key = ServiceKey::of(Path::new(config));
            (key.path().display().to_string(), key.unit().map(str::to_owned))
        };
        let units = include_str!("../../systemd/komoju-sync.service");
        let (path, unit) = of("/etc/komoju-sync/config.toml");
        assert!(units.contains(&format!("LoadCredential=komoju-secret-key:{path}")), "{path}");
        assert_eq!(unit.as_deref(), Some("komoju-sync"));
        let units = include_str!("../../systemd/komoju-sync@.service");
        let (path, unit) = of("/etc/komoju-sync/shop.toml");
        assert!(
            units.contains(&format!("LoadCredential=komoju-secret-key:{}", path.replace("shop", "%i"))),
            "{path}"
        );
        assert_eq!(unit.as_deref(), Some("komoju-sync@shop"));
        for (config, unit) in [("config", "komoju-sync"), ("%i", "komoju-sync@")] {
            let secret =
                ServiceKey::of(Path::new(&format!("/etc/komoju-sync/{config}.toml"))).webhook_secret();
            let unit = std::fs::read_to_string(format!("systemd/{unit}.service")).unwrap();
            let load = format!("LoadCredential=komoju-webhook-secret:{}\n", secret.display());
            assert!(unit.contains(&load), "{load}");
        }
        assert_eq!(of("/srv/config.toml"), ("/srv/secret-key".to_owned(), None), "no unit looks there");
    }
}
