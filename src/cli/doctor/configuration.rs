//! The configuration's file, and what else it names.

use std::net::SocketAddr;
use std::path::Path;

use super::access::{Owned, Person};
use super::{Exit, Finding, alerts, quoted};
use crate::config::{Config, ConfigError, Listen};
use crate::secret::Masker;

const CHECK: &str = "config";

/// The most that is searched for secrets.
const SEARCHED: usize = 64 * 1024;

/// Reads and judges the file.
pub(super) fn check(path: &Path) -> (Option<Config>, Vec<Finding>) {
    let loaded = Config::load(path);
    let text = match &loaded {
        Ok(_) | Err(ConfigError::Invalid { .. } | ConfigError::NotText { .. }) => {
            std::fs::read(path).unwrap_or_default()
        }
        Err(_) => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(SEARCHED)]);
    let mut findings: Vec<Finding> = secrets(path, &text).into_iter().collect();
    match loaded {
        Ok(config) => {
            if let Ok(file) = std::fs::metadata(path) {
                findings.extend(open_to(path, &Owned::of(&file), &config));
            }
            if findings.is_empty() {
                findings.push(Finding::ok(CHECK, format!("{} is fine", path.display())));
            }
            (Some(config), findings)
        }
        Err(error) => {
            findings.insert(0, refused(error));
            (None, findings)
        }
    }
}

fn refused(error: ConfigError) -> Finding {
    let advice = match &error {
        ConfigError::Missing(_) => "everything has a default: an empty file will do to begin with",
        ConfigError::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "run this as root: sudo komoju-sync doctor; the daemon's user must be able to read it too"
        }
        ConfigError::Unreadable { .. } => "name a file",
        _ => "correct the file; config.example.toml shows every key",
    };
    Finding::fail(CHECK, Exit::Usage, crate::cli::print::chain(&anyhow::Error::new(error)), advice)
}

/// What looks like a secret in the file: it is no place for one.
fn secrets(path: &Path, text: &str) -> Option<Finding> {
    let spans = Masker::new(None).spans(text);
    let first = spans.first()?;
    let line = text[..first.start].matches('\n').count() + 1;
    Some(Finding::warn(
        CHECK,
        format!("{}, line {line}, holds what looks like a key or a token", path.display()),
        "take it out: others may read this file, and copies of it travel. The key belongs into a file of its own \
         (api.secret_key_file, or systemd's credential); make a new key if this one was seen",
    ))
}

/// Who else gets at the file.
fn open_to(path: &Path, file: &Owned, config: &Config) -> Option<Finding> {
    if file.mode & 0o002 != 0 {
        return Some(Finding::warn(
            CHECK,
            format!("{} can be changed by every user of this machine", path.display()),
            format!("chmod o-w {}", quoted(path)),
        ));
    }
    let has_password = config.api.proxy.as_ref().is_some_and(|proxy| proxy.url().password().is_some());
    (has_password && file.mode & 0o004 != 0).then(|| {
        Finding::warn(
            CHECK,
            format!(
                "{} holds the proxy's password, and every user of this machine may read it",
                path.display()
            ),
            format!("chmod o= {}", quoted(path)),
        )
    })
}

/// The programs and addresses that it names.
pub(super) fn check_programs(config: &Config, service: &Person) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(program) = config.alerts.command.as_deref().and_then(<[String]>::first).map(Path::new) {
        findings.push(alerts::check(program, service));
    }
    findings.extend(config.http.listen.as_ref().and_then(judge_listen));
    findings
}

fn judge_listen(listen: &Listen) -> Option<Finding> {
    match listen {
        Listen::Tcp(address) if !address.ip().is_loopback() => {
            Some(Finding::warn("http", reached(address), {
                "there is no password: listen at 127.0.0.1, or see that only those who may reach it do"
            }))
        }
        _ => None,
    }
}

fn reached(address: &SocketAddr) -> String {
    format!("http.listen = {address} can be reached from other machines")
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::owned;
    use super::*;

    #[test]
    fn a_key_in_the_file_is_named_by_its_line_alone() {
        let text = "[api]\n# my key\nsecret_key = \"sk_live_0123456789\"\n";
        let finding = secrets(Path::new("/c"), text).unwrap();
        assert!(finding.finding.contains("/c, line 3,"), "{}", finding.finding);
        assert!(!format!("{finding:?}").contains("0123"));
        assert_eq!(secrets(Path::new("/c"), include_str!("../../../config.example.toml")), None);
    }

    #[test]
    fn only_a_file_that_others_change_or_that_holds_a_password_is_theirs_to_worry_about() {
        let plain = Config::default();
        let with = Config::parse("api.proxy = 'http://me:Q1Q@proxy:3128'", Path::new("c")).unwrap();
        let table =
            [(&plain, 0o644, false), (&plain, 0o646, true), (&with, 0o644, true), (&with, 0o640, false)];
        for (config, mode, warns) in table {
            let found = open_to(Path::new("/c"), &owned(0, 0, mode), config);
            assert_eq!(found.is_some(), warns, "{mode:o}");
        }
    }

    #[test]
    fn only_addresses_that_others_reach_are_told() {
        let told = |address: &str| judge_listen(&Listen::Tcp(address.parse().unwrap())).is_some();
        assert_eq!(
            ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "10.0.0.1:1"].map(told),
            [false, false, true, true]
        );
        assert_eq!(judge_listen(&Listen::Unix("/s".into())), None);
    }
}
