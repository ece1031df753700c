use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::super::place::CREDENTIALS_VARIABLE;
use super::*;

/// RFC 4231, test case 2: HMAC-SHA256 of "what do ya want for nothing?" with the key "Jefe".
const SIGNATURE: [u8; 32] = [
    0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a,
    0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
];
const BODY: &[u8] = b"what do ya want for nothing?";

fn find(
    file: Option<&Path>,
    variables: &[(&str, &str)],
) -> Result<(WebhookSecret, SecretSource), WebhookSecretError> {
    WebhookSecret::find(file, &|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    })
}

#[test]
fn either_of_two_secrets_signs_and_no_other() {
    for (text, signs) in [
        ("Jefe", true),
        (" Jefe\r\n", true),
        ("newer secret\nJefe\n", true),
        ("Jefe\n\n older \n", true),
        ("newer\nolder", false),
        ("jefe", false),
        ("Jefe Jefe", false),
    ] {
        let secret = WebhookSecret::parse(text).unwrap();
        assert_eq!(secret.has_signed(BODY, &SIGNATURE), signs, "{text:?}");
        assert!(!secret.has_signed(b"other", &SIGNATURE) && !secret.has_signed(BODY, &SIGNATURE[..31]));
        assert!(!secret.has_signed(BODY, &[]));
    }
}

#[test]
fn text_that_cannot_be_a_secret_is_refused_without_being_shown() {
    for (text, fault) in [
        ("", WebhookSecretFault::Empty),
        (" \n\t\n", WebhookSecretFault::Empty),
        ("Q1Q\nb\nc", WebhookSecretFault::ManyLines),
        ("Q1Q\u{0}", WebhookSecretFault::NotText),
        ("a\nQ1Q\u{1b}[", WebhookSecretFault::NotText),
    ] {
        let found = WebhookSecret::parse(text).unwrap_err();
        assert_eq!(found, fault, "{text:?}");
        assert!(!format!("{found} {found:?}").contains("Q1Q"));
    }
    let debug = format!("{:?}", WebhookSecret::parse("Q1Q").unwrap());
    assert_eq!(debug, "WebhookSecret(****)");
}

#[test]
fn credential_is_used_before_the_file_and_the_file_before_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let credential = directory.path().join(CREDENTIAL);
    fs::write(&file, "from_file").unwrap();
    fs::write(&credential, "from_credential").unwrap();
    let credentials = (CREDENTIALS_VARIABLE, directory.path().to_str().unwrap());
    let variable = (VARIABLE, "from_environment\n");
    let takes = |file: Option<&Path>, variables: &[_], expected: &str, place: &str| {
        let (secret, source) = find(file, variables).unwrap();
        assert!(secret.is_same(&WebhookSecret::parse(expected).unwrap()), "{source}");
        assert!(source.to_string().starts_with(place), "{source}");
    };
    takes(Some(&file), &[credentials, variable], "from_credential", "systemd's credential /");
    takes(Some(&file), &[variable], "from_file", "the file /");
    takes(None, &[variable], "from_environment", "the variable KOMOJU_WEBHOOK_SECRET");
    // The unit's empty credential counts as none; another place that is empty is an error.
    fs::write(&credential, "\n").unwrap();
    takes(Some(&file), &[credentials, variable], "from_file", "the file /");
    fs::write(&file, "\n").unwrap();
    for found in [find(Some(&file), &[variable]), find(None, &[(VARIABLE, " ")])] {
        assert!(found.unwrap_err().to_string().contains("it is empty"));
    }
    fs::write(&file, [0xff]).unwrap();
    assert!(find(Some(&file), &[]).unwrap_err().to_string().contains("it is not text"));
    fs::write(&file, "x".repeat(5000)).unwrap();
    assert!(find(Some(&file), &[]).unwrap_err().to_string().contains("longer than 4096 bytes"));
    let missing = find(Some(Path::new("/nonexistent")), &[variable]).unwrap_err().to_string();
    assert!(missing.contains("could not be read from the file /nonexistent"), "{missing}");
    let nowhere = find(None, &[]).unwrap_err().to_string();
    for place in ["$CREDENTIALS_DIRECTORY/komoju-webhook-secret", "webhook.secret_file", VARIABLE] {
        assert!(nowhere.contains(place), "{nowhere}");
    }
}

#[test]
fn short_secret_and_open_file_are_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let warnings = |text: &str, mode| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (secret, source) = find(Some(&file), &[]).unwrap();
        secret.warnings(&source).len()
    };
    assert_eq!(warnings("0123456789abcdef", 0o640), 0);
    assert_eq!(warnings("0123456789abcde", 0o600), 1);
    assert_eq!(warnings("0123456789abcdef\nshort", 0o644), 2);
}

#[test]
fn remembered_secret_is_masked() {
    let secret = WebhookSecret::parse("hook-secret-7Qx9\nold7Qx9").unwrap();
    let masker = mask::Masker::new(None);
    assert_eq!(masker.text("a hook-secret-7Qx9 b"), "a hook-secret-7Qx9 b");
    secret.remember();
    assert_eq!(masker.text("a hook-secret-7Qx9 b"), "a **** b");
    assert_eq!(masker.text("a old7Qx9 b"), "a old7Qx9 b", "seven characters may be a word");
}
