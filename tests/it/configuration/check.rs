//! `config check` and the report of every problem at once.

use std::os::unix::fs::PermissionsExt as _;

use komoju_testkit::{Installation, KEY};

use crate::PROGRAM;

/// Promises: command config check; exit code 2
#[test]
fn several_mistakes_in_the_configuration_are_reported_at_once() {
    let harness = Installation::with(PROGRAM, 0);
    std::fs::write(
        harness.path("config.toml"),
        "[api]\nper_page = \"many\"\nwhat = 1\n[rate_limit]\nburst = 0\n",
    )
    .unwrap();
    for arguments in [&["config", "check"][..], &["sync"], &["status"]] {
        let ran = harness.expect(2, arguments);
        for part in ["api.per_page", "api.what", "rate_limit.burst", "^"] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
    }
}

/// Promises: command config check
#[test]
fn config_check_names_the_key_file_of_the_service_and_its_mode() {
    let harness = Installation::with(PROGRAM, 0);
    let check = || {
        let mut command = harness.command(&["config", "check"]);
        let output = command.env_remove("KOMOJU_SECRET_KEY").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, stderr) = check();
    assert_eq!(code, Some(0));
    assert!(stderr.contains("/etc/komoju-sync/secret-key (owner root, mode 0400)"), "{stderr}");
    let key = harness.path("secret-key");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    let (code, stdout, stderr) = check();
    let expected =
        format!("the secret key comes from the file {} (mode 0400); the service loads it", key.display());
    assert!(stdout.contains(&expected), "{stdout}");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(check().2.contains("every user of this machine can read or change"), "{}", check().2);
    std::fs::write(&key, "two words").unwrap();
    assert_eq!(check().0, Some(2));
}
