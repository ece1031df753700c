//! The secret key: where it is, who else may read it, and whether it looks like one. None of it is shown.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::access::{Owned, People, Person};
use super::{Exit, Finding, quoted};
use crate::cli::service_key::{OWNER_AND_MODE, ServiceKey};
use crate::config::Api;
use crate::secret::{KeyError, KeyPlace, KeySource, KeyWarning, SecretKey};

const CHECK: &str = "key";

/// The variable that holds the key where no file does.
const VARIABLE: &str = "KOMOJU_SECRET_KEY";

/// The key, and where it is.
pub(super) struct FoundKey {
    pub(super) key: SecretKey,
    source: KeySource,
    /// It is the unit's: commands by hand do not find it.
    is_units: bool,
}

/// Finds and judges the key. What the daemon would find comes first; run by hand, no credential is there, and the file that the unit
/// makes one of is looked at instead.
pub(super) fn check(
    api: &Api,
    config_file: &Path,
    people: &People,
    service: &Person,
) -> (Option<FoundKey>, Vec<Finding>) {
    let units_file = ServiceKey::of(config_file);
    let of_unit = units_file.read();
    let found = SecretKey::find(api.secret_key_file.as_deref(), &|name| std::env::var_os(name));
    let found = match (found, of_unit) {
        (Err(KeyError::Nowhere), Some(of_unit)) => {
            of_unit.map(|(key, source)| FoundKey { key, source, is_units: true })
        }
        (Ok((key, source)), Some(Ok((other, _)))) if key.expose() != other.expose() => {
            let findings = vec![Finding::warn(
                CHECK,
                format!("the key from {source} is not the one in {}", units_file.path().display()),
                "a unit that takes its credential from there works with that one: keep one of the two",
            )];
            let (key, more) = judged(FoundKey { key, source, is_units: false }, service, people);
            return (Some(key), [findings, more].concat());
        }
        (found, _) => found.map(|(key, source)| FoundKey { key, source, is_units: false }),
    };
    match found {
        Ok(found) => {
            let (found, findings) = judged(found, service, people);
            (Some(found), findings)
        }
        Err(error) => (None, vec![not_found(&error, &units_file, &people.me(), service)]),
    }
}

fn not_found(error: &KeyError, units_file: &ServiceKey, me: &Person, service: &Person) -> Finding {
    let path = quoted(units_file.path());
    let put_it = match units_file.unit() {
        Some(unit) => format!(
            "put KOMOJU's secret key, and nothing else, into {path} ({OWNER_AND_MODE}), from where the service loads it:\n\
             install -m 0400 -o root /dev/stdin {path}     (paste the key, then Ctrl-D)\n\
             systemctl restart {unit}"
        ),
        None => format!(
            "put KOMOJU's secret key, and nothing else, into a file: install -m 0400 -o {} /dev/stdin {path}\n\
             then name the file in api.secret_key_file (or hand it to the unit as the credential komoju-secret-key)",
            service.name,
        ),
    };
    match error {
        KeyError::Nowhere => Finding::fail(
            CHECK,
            Exit::Usage,
            format!(
                "there is no secret key: no credential, no api.secret_key_file, no ${VARIABLE}, no {}",
                units_file.path().display()
            ),
            put_it,
        ),
        // Whoever looks need not be who must be able to read it.
        KeyError::Unreadable { place, source }
            if source.kind() == ErrorKind::PermissionDenied && me.uid != service.uid =>
        {
            Finding::fail(
                CHECK,
                Exit::Failed,
                format!("{} may not read {}", me.name, where_is(place)),
                "run this as root: sudo komoju-sync doctor",
            )
        }
        KeyError::Unreadable { place, source } => {
            let advice = match source.kind() {
                ErrorKind::PermissionDenied => {
                    format!("give it to the service: chown {} {}", service.name, shell(place))
                }
                _ => put_it,
            };
            Finding::fail(CHECK, Exit::Usage, format!("{} cannot be read: {source}", where_is(place)), advice)
        }
        KeyError::Unusable { place, fault } => Finding::fail(
            CHECK,
            Exit::Usage,
            format!("{} holds no usable key: {fault}", where_is(place)),
            "copy the secret key from KOMOJU's dashboard again, and restart the daemon: it reads the key when it starts",
        ),
    }
}

fn judged(found: FoundKey, service: &Person, people: &People) -> (FoundKey, Vec<Finding>) {
    let FoundKey { key, source, is_units } = &found;
    let mut findings = Vec::new();
    let mut kind = "a secret key";
    for warning in key.warnings(source) {
        match warning {
            KeyWarning::Publishable => findings.push(Finding::fail(
                CHECK,
                Exit::Usage,
                format!(
                    "{} holds a publishable key (pk_…), which may not read customers",
                    where_is(&source.place)
                ),
                "copy the secret key (sk_…) from KOMOJU's dashboard",
            )),
            KeyWarning::UnusualPrefix => {
                kind = "a key that begins with neither sk_test_ nor sk_live_, as old ones do"
            }
            // Told below, with the group.
            KeyWarning::OpenToEverybody { .. } => {}
        }
    }
    if key.expose().starts_with("sk_test_") {
        kind = "a test key: it sees test customers alone";
    } else if key.expose().starts_with("sk_live_") {
        kind = "a live key";
    }
    let file = path(&source.place);
    match &source.place {
        KeyPlace::Environment => findings.push(Finding::warn(
            CHECK,
            format!("the key comes from ${VARIABLE} ({kind})"),
            "root, this user and every child of the process that set it can see it there: prefer systemd's credential \
             komoju-secret-key, or a file named in api.secret_key_file",
        )),
        KeyPlace::File(path) => {
            if let Ok(metadata) = std::fs::metadata(path) {
                findings.extend(judge_file(path, &Owned::of(&metadata), *is_units, service, people));
            }
        }
        // systemd sees to these.
        KeyPlace::Credential(_) => {}
    }
    if file.is_some() && std::env::var_os(VARIABLE).is_some() {
        findings.push(Finding::warn(
            CHECK,
            format!("${VARIABLE} is set too, and not used: {} comes first", where_is(&source.place)),
            format!("unset {VARIABLE}"),
        ));
    }
    if findings.is_empty() {
        let how = match is_units {
            true => "; the unit hands it to the daemon as a credential, commands by hand do not find it",
            false => "",
        };
        let mode = source.mode.map(|mode| format!(" (mode {:04o})", mode & 0o7777)).unwrap_or_default();
        findings.push(Finding::ok(CHECK, format!("{}{mode} holds {kind}{how}", where_is(&source.place))));
    }
    (found, findings)
}

/// Who else may read or change the file. systemd, which is root, reads the unit's; anything else is read by the service.
fn judge_file(path: &Path, file: &Owned, is_units: bool, service: &Person, people: &People) -> Vec<Finding> {
    let (shown, mode) = (path.display(), file.mode);
    let restrict = format!("chmod 0400 {}", quoted(path));
    let mut findings = Vec::new();
    if mode & 0o007 != 0 {
        findings.push(Finding::fail(
            CHECK,
            Exit::Failed,
            format!("every user of this machine gets at the key in {shown} (mode {mode:04o})"),
            format!("{restrict}\nand make a new key in KOMOJU's dashboard if others use this machine"),
        ));
    } else if mode & 0o070 != 0 {
        findings.push(Finding::warn(
            CHECK,
            format!("the group {} gets at the key in {shown} (mode {mode:04o})", people.group(file.gid)),
            restrict,
        ));
    }
    if file.uid != 0 && file.uid != service.uid {
        findings.push(Finding::warn(
            CHECK,
            format!("the key in {shown} belongs to {}, who can put another one there", people.user(file.uid)),
            format!("chown {} {}", if is_units { "root" } else { &service.name }, quoted(path)),
        ));
    } else if !is_units && !service.may(super::access::READ, file) {
        findings.push(Finding::fail(
            CHECK,
            Exit::Usage,
            format!(
                "{} may not read the key in {shown} (owner {}, mode {mode:04o})",
                service.name,
                people.user(file.uid)
            ),
            format!("chown {} {}", service.name, quoted(path)),
        ));
    }
    findings
}

fn path(place: &KeyPlace) -> Option<&PathBuf> {
    match place {
        KeyPlace::Credential(path) | KeyPlace::File(path) => Some(path),
        KeyPlace::Environment => None,
    }
}

fn where_is(place: &KeyPlace) -> String {
    path(place).map_or_else(|| format!("${VARIABLE}"), |path| path.display().to_string())
}

fn shell(place: &KeyPlace) -> String {
    path(place).map_or_else(|| format!("${VARIABLE}"), |path| quoted(path))
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::{owned, people, service};
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_key_is_for_the_service_and_root_alone() {
        let judge = |uid, gid, mode, is_units| {
            let findings =
                judge_file(Path::new("/k"), &owned(uid, gid, mode), is_units, &service(), &people());
            findings.iter().map(|finding| (finding.level, finding.exit)).collect::<Vec<_>>()
        };
        assert_eq!(judge(990, 991, 0o400, false), []);
        assert_eq!(judge(0, 0, 0o400, true), [], "systemd reads it");
        assert_eq!(judge(0, 0, 0o400, false), [(Level::Fail, Exit::Usage)], "the service cannot");
        assert_eq!(judge(990, 991, 0o440, false), [(Level::Warn, Exit::Fine)]);
        assert_eq!(judge(990, 991, 0o404, false), [(Level::Fail, Exit::Failed)]);
        assert_eq!(judge(990, 991, 0o602, false), [(Level::Fail, Exit::Failed)]);
        assert_eq!(judge(1000, 991, 0o400, true), [(Level::Warn, Exit::Fine)]);
    }

    #[test]
    fn whoever_may_not_look_is_told_so_and_the_service_is_told_what_to_do() {
        let denied = |place: &str| KeyError::Unreadable {
            place: KeyPlace::File(place.into()),
            source: ErrorKind::PermissionDenied.into(),
        };
        let alice = Person { name: "alice".into(), uid: 1000, gids: vec![1000], is_packaged: false };
        let told =
            not_found(&denied("/k"), &ServiceKey::of(Path::new("/etc/config.toml")), &alice, &service());
        assert_eq!((told.exit, told.finding.as_str()), (Exit::Failed, "alice may not read /k"));
        let told =
            not_found(&denied("/k"), &ServiceKey::of(Path::new("/etc/config.toml")), &service(), &service());
        assert_eq!(
            (told.exit, told.advice.as_deref()),
            (Exit::Usage, Some("give it to the service: chown komoju-sync /k"))
        );
    }

    #[test]
    fn missing_key_of_the_package_is_advised_with_path_owner_and_mode() {
        let of = |config: &str| {
            let finding =
                not_found(&KeyError::Nowhere, &ServiceKey::of(Path::new(config)), &people().me(), &service());
            finding.advice.unwrap()
        };
        let advice = of("/etc/komoju-sync/config.toml");
        for part in [
            "/etc/komoju-sync/secret-key (owner root, mode 0400)",
            "install -m 0400 -o root",
            "systemctl restart komoju-sync",
        ] {
            assert!(advice.contains(part), "{part}: {advice}");
        }
        assert!(!advice.contains("secret_key_file"), "{advice}");
        let advice = of("/etc/komoju-sync/shop.toml");
        assert!(
            advice.contains("/etc/komoju-sync/shop.secret-key ") && advice.ends_with("komoju-sync@shop"),
            "{advice}"
        );
        let advice = of("/srv/config.toml");
        assert!(advice.contains("-o komoju-sync /dev/stdin /srv/secret-key"), "{advice}");
        assert!(advice.contains("api.secret_key_file"), "{advice}");
    }
}
