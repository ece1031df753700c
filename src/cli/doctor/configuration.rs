//! The configuration's file, the program and the address that it names.

use std::io::ErrorKind;
use std::path::Path;

use super::access::{Ownership, Users};
use super::rules::{FileKind, broken};
use super::{DoctorFinding, Exit, alerts};
use crate::cli::print::chain;
use crate::config::{Config, ConfigError, Listen};
use crate::secret::Masker;

const CHECK: &str = "config";

/// SEARCHED limits how much of the file is searched for secrets, in bytes.
const SEARCHED: usize = 64 * 1024;

/// Reads the file; returns the problems and the first secret in it.
pub(super) fn load(path: &Path) -> (Option<Config>, Vec<DoctorFinding>) {
    let (config, refused) = match Config::load(path) {
        Ok(config) => (Some(config), None),
        Err(error @ (ConfigError::Invalid { .. } | ConfigError::NotText { .. })) => {
            (None, Some(refused(error)))
        }
        Err(error) => return (None, vec![refused(error)]),
    };
    let text = std::fs::read(path).unwrap_or_default();
    let secrets = secrets(path, &String::from_utf8_lossy(&text[..text.len().min(SEARCHED)]));
    (config, refused.into_iter().chain(secrets).collect())
}

fn refused(error: ConfigError) -> DoctorFinding {
    let advice = match &error {
        ConfigError::Missing(_) => "every key has a default: an empty file is enough to begin with",
        ConfigError::Unreadable { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "run this as root: sudo komoju-sync doctor; the daemon's user must be able to read it too"
        }
        ConfigError::Unreadable { .. } => "name a file",
        _ => "correct the file; config.example.toml shows every key",
    };
    DoctorFinding::fail(CHECK, Exit::Usage, chain(&anyhow::Error::new(error)), advice)
}

/// Returns a finding about the first text in the file that looks like a secret.
fn secrets(path: &Path, text: &str) -> Option<DoctorFinding> {
    let first = Masker::new(None).each_span(text).next()?;
    let line = text[..first.start].matches('\n').count() + 1;
    Some(DoctorFinding::warn(
        CHECK,
        format!("{}, line {line}, holds what looks like a key or a token", path.display()),
        "remove it: other users may read this file and its copies. Put the key into a file of its own \
         (api.secret_key_file, or systemd's credential), and make a new key if another user may have read this one",
    ))
}

/// Checks the mode of a file without problems, and the program and the address that it names.
pub(super) fn check(
    path: &Path,
    config: &Config,
    mut findings: Vec<DoctorFinding>,
    users: &Users,
) -> Vec<DoctorFinding> {
    if let Ok(file) = std::fs::metadata(path) {
        findings.extend(classify_mode(path, &Ownership::of(&file), config, users));
    }
    if findings.is_empty() {
        findings.push(DoctorFinding::ok(CHECK, format!("{} is fine", path.display())));
    }
    let program = config.alerts.command.as_deref().and_then(<[String]>::first);
    findings.extend(program.map(|program| alerts::check(Path::new(program), &users.service)));
    findings.extend(config.http.listen.as_ref().and_then(classify_listen));
    findings
}

fn classify_mode(path: &Path, file: &Ownership, config: &Config, users: &Users) -> Vec<DoctorFinding> {
    let mut findings = broken(CHECK, FileKind::Config, &[(path, file)], users);
    if config.api.proxy.as_ref().is_some_and(|proxy| proxy.url().password().is_some()) {
        findings.extend(broken(CHECK, FileKind::Password, &[(path, file)], users));
    }
    findings
}

fn classify_listen(listen: &Listen) -> Option<DoctorFinding> {
    let finding = format!("http.listen = {listen} can be reached from other machines");
    let advice = "there is no password: listen at 127.0.0.1, or limit which machines can reach the address";
    listen.is_public().then(|| DoctorFinding::warn("http", finding, advice))
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, users};
    use super::*;

    #[test]
    fn key_in_the_file_is_named_by_its_line_alone() {
        let text = "[api]\n# my key\nsecret_key = \"sk_live_0123456789\"\n";
        let finding = secrets(Path::new("/c"), text).unwrap();
        assert!(finding.finding.contains("/c, line 3,"), "{}", finding.finding);
        assert!(!format!("{finding:?}").contains("0123"));
        assert_eq!(secrets(Path::new("/c"), include_str!("../../../config.example.toml")), None);
    }

    #[test]
    fn readable_file_is_a_warning_only_with_a_password() {
        let plain = Config::default();
        let with = Config::parse("api.proxy = 'http://me:Q1Q@proxy:3128'", Path::new("c")).unwrap();
        let table =
            [(&plain, 0o644, false), (&plain, 0o646, true), (&with, 0o644, true), (&with, 0o640, false)];
        for (config, mode, warns) in table {
            let found = classify_mode(Path::new("/c"), &owned(0, 0, mode), config, &users());
            assert_eq!(!found.is_empty(), warns, "{mode:o}");
        }
    }

    #[test]
    fn address_that_other_machines_reach_is_a_warning() {
        let warns = |address: &str| classify_listen(&Listen::Tcp(address.parse().unwrap())).is_some();
        assert_eq!(
            ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "10.0.0.1:1"].map(warns),
            [false, false, true, true]
        );
        assert_eq!(classify_listen(&Listen::Unix("/s".into())), None);
    }
}
