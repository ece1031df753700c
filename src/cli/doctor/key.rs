//! The secret key: where it is, which users may read it, and whether it looks like one. It is never
//! shown.

use std::io::ErrorKind;
use std::path::Path;

use super::access::{Ownership, Users};
use super::finding::DoctorFindings;
use super::rules::{FileKind, broken};
use super::{DoctorFinding, Exit, RUN_AS_ROOT, quoted};
use crate::cli::service_key::{OWNER_AND_MODE, ServiceKey};
use crate::config::Api;
use crate::secret::{KeyError, KeyWarning, SecretKey, SecretPlace, SecretSource};

const CHECK: &str = "key";

/// The variable with the key, if no file has it.
const VARIABLE: &str = "KOMOJU_SECRET_KEY";

/// Finds and classifies the key. The daemon's places come first. A command that is run by hand
/// has no credential, so the file from which the unit takes the credential is read too.
pub(super) fn check(api: &Api, config_file: &Path, users: &Users) -> (Option<SecretKey>, Vec<DoctorFinding>) {
    let unit_key = ServiceKey::of(config_file);
    let found = SecretKey::find(api.secret_key_file.as_deref(), &|name| std::env::var_os(name));
    let mut findings = DoctorFindings::of(CHECK);
    let (found, is_units) = match (found, unit_key.read()) {
        (Err(KeyError::Nowhere), Some(of_unit)) => (of_unit, true),
        (Ok((key, source)), Some(Ok((other, _)))) if key.expose() != other.expose() => {
            findings.warn(
                format!("the key from {source} is not the one in {}", unit_key.path().display()),
                "a unit that takes its credential from there works with that one: keep one of the two",
            );
            (Ok((key, source)), false)
        }
        (found, _) => (found, false),
    };
    match found {
        Ok((key, source)) => {
            let findings = classify(findings, &key, &source, is_units, users);
            (Some(key), findings)
        }
        Err(error) => (None, vec![not_found(&error, &unit_key, users)]),
    }
}

fn not_found(error: &KeyError, unit_key: &ServiceKey, users: &Users) -> DoctorFinding {
    let service = &users.service;
    let fail = |exit, finding, advice: String| DoctorFinding::fail(CHECK, exit, finding, advice);
    match error {
        KeyError::Nowhere => {
            let path = unit_key.path().display();
            let finding = format!("there is no secret key: no credential, no api.secret_key_file, no ${VARIABLE}, no {path}");
            fail(Exit::Usage, finding, how_to_install(unit_key, &service.name))
        }
        KeyError::Unreadable { place, source } if source.kind() != ErrorKind::PermissionDenied => {
            let finding = format!("{} cannot be read: {source}", shown(place));
            fail(Exit::Usage, finding, how_to_install(unit_key, &service.name))
        }
        // It is the service's user that must be able to read the key, not the user of this command.
        KeyError::Unreadable { place, .. } if users.me.uid != service.uid => {
            let finding = format!("{} may not read {}", users.me.name, shown(place));
            fail(Exit::Failed, finding, RUN_AS_ROOT.to_owned())
        }
        KeyError::Unreadable { place, source } => {
            let finding = format!("{} cannot be read: {source}", shown(place));
            let path = place.path().map_or_else(|| shown(place), quoted);
            fail(Exit::Usage, finding, format!("give it to the service: chown {} {path}", service.name))
        }
        KeyError::Unusable { place, fault } => fail(
            Exit::Usage,
            format!("{} holds no usable key: {fault}", shown(place)),
            "copy the secret key from KOMOJU's dashboard again, and restart the daemon: it reads the key when it starts"
                .to_owned(),
        ),
    }
}

fn how_to_install(unit_key: &ServiceKey, service: &str) -> String {
    let path = quoted(unit_key.path());
    match unit_key.unit() {
        Some(unit) => format!(
            "put KOMOJU's secret key, and nothing else, into {path} ({OWNER_AND_MODE}), from where the service loads it:\n\
             install -m 0400 -o root /dev/stdin {path}     (paste the key, then Ctrl-D)\n\
             systemctl restart {unit}"
        ),
        None => format!(
            "put KOMOJU's secret key, and nothing else, into a file: install -m 0400 -o {service} /dev/stdin {path}\n\
             then name the file in api.secret_key_file (or hand it to the unit as the credential komoju-secret-key)"
        ),
    }
}

fn classify(
    mut findings: DoctorFindings,
    key: &SecretKey,
    source: &SecretSource,
    is_units: bool,
    users: &Users,
) -> Vec<DoctorFinding> {
    let (place, kind) = (shown(&source.place), kind(key));
    if key.warnings(source).contains(&KeyWarning::Publishable) {
        let finding = format!("{place} holds a publishable key (pk_…), which may not read customers");
        findings.fail(Exit::Usage, finding, "copy the secret key (sk_…) from KOMOJU's dashboard");
    }
    match &source.place {
        SecretPlace::Environment { .. } => findings.warn(
            format!("the key comes from ${VARIABLE} ({kind})"),
            "root, this user and every child of the process that set it can see it there: prefer systemd's credential \
             komoju-secret-key, or a file named in api.secret_key_file",
        ),
        SecretPlace::File { path, .. } => {
            let rule = if is_units { FileKind::UnitKey } else { FileKind::Key };
            let file = std::fs::metadata(path).map(|file| Ownership::of(&file));
            findings.extend(file.into_iter().flat_map(|file| broken(CHECK, rule, &[(path, &file)], users)));
        }
        // systemd sets the owner and the mode of these.
        SecretPlace::Credential(_) => {}
    }
    if source.place.path().is_some() && std::env::var_os(VARIABLE).is_some() {
        let finding = format!("${VARIABLE} is set too, and not used: {place} comes first");
        findings.warn(finding, format!("unset {VARIABLE}"));
    }
    findings.or_ok(|| {
        let mode = source.mode.map(|mode| format!(" (mode {:04o})", mode & 0o7777)).unwrap_or_default();
        let how = if is_units {
            "; the unit hands it to the daemon as a credential, commands by hand do not find it"
        } else {
            ""
        };
        format!("{place}{mode} holds {kind}{how}")
    })
}

fn kind(key: &SecretKey) -> &'static str {
    match key.expose() {
        key if key.starts_with("sk_test_") => "a test key: it sees test customers alone",
        key if key.starts_with("sk_live_") => "a live key",
        key if key.starts_with("pk_") => "a secret key",
        _ => "a key that begins with neither sk_test_ nor sk_live_, as old ones do",
    }
}

fn shown(place: &SecretPlace) -> String {
    place.path().map_or_else(|| format!("${VARIABLE}"), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::users;
    use super::*;

    #[test]
    fn key_that_is_denied_advises_root_or_the_service() {
        let denied = KeyError::Unreadable {
            place: SecretPlace::Credential("/k".into()),
            source: ErrorKind::PermissionDenied.into(),
        };
        let unit_key = ServiceKey::of(Path::new("/etc/config.toml"));
        let mut users = users();
        (users.me.name, users.me.uid) = ("alice".into(), 1000);
        let found = not_found(&denied, &unit_key, &users);
        assert_eq!((found.exit, found.finding.as_str()), (Exit::Failed, "alice may not read /k"));
        users.me = users.service.clone();
        let found = not_found(&denied, &unit_key, &users);
        let advice = "give it to the service: chown komoju-sync /k";
        assert_eq!((found.exit, found.advice.as_deref()), (Exit::Usage, Some(advice)));
    }

    #[test]
    fn missing_key_is_advised_with_path_owner_and_mode() {
        for (config, parts) in [
            (
                "/etc/komoju-sync/config.toml",
                [
                    "/etc/komoju-sync/secret-key (owner root, mode 0400)",
                    "install -m 0400 -o root",
                    "\nsystemctl restart komoju-sync",
                ],
            ),
            (
                "/etc/komoju-sync/shop.toml",
                ["/etc/komoju-sync/shop.secret-key ", "-o root", "\nsystemctl restart komoju-sync@shop"],
            ),
            (
                "/srv/config.toml",
                ["-o komoju-sync /dev/stdin /srv/secret-key", "api.secret_key_file", "komoju-secret-key)"],
            ),
        ] {
            let advice =
                not_found(&KeyError::Nowhere, &ServiceKey::of(Path::new(config)), &users()).advice.unwrap();
            for part in parts {
                assert!(advice.contains(part), "{part}: {advice}");
            }
            assert!(advice.ends_with(parts[2]), "{advice}");
            assert_eq!(advice.contains("secret_key_file"), config.starts_with("/srv"), "{advice}");
        }
    }
}
