use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::super::place::{CREDENTIALS_VARIABLE, SecretPlace};
use super::*;

const KEY: &str = "sk_test_0123456789abcdef";

fn find(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<(SecretKey, SecretSource), KeyError> {
    SecretKey::find(file, &|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    })
}

/// Returns a directory with the credential and another file, each with its own key.
fn places() -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(CREDENTIAL), "from_credential\n").unwrap();
    let file = directory.path().join("key");
    fs::write(&file, " from_file\r\n").unwrap();
    let credentials = directory.path().to_str().unwrap().to_owned();
    (directory, file, credentials)
}

#[test]
fn credential_is_used_before_the_file_and_the_file_before_the_environment() {
    let (_directory, file, credentials) = places();
    let credentials = (CREDENTIALS_VARIABLE, &*credentials);
    let variable = (KEY_VARIABLE, "\tfrom_environment ");
    let table = [
        (Some(&*file), vec![credentials, variable], "from_credential"),
        (Some(&*file), vec![variable], "from_file"),
        (Some(&*file), vec![(CREDENTIALS_VARIABLE, "/nonexistent"), variable], "from_file"),
        (None, vec![(CREDENTIALS_VARIABLE, ""), variable], "from_environment"),
    ];
    for (file, variables, expected) in table {
        let (key, source) = find(file, &variables).unwrap();
        assert_eq!(key.expose(), expected, "{source}");
    }
}

#[test]
fn source_names_the_place_of_the_key() {
    let (_directory, file, credentials) = places();
    let from = |file, variables: &[_]| find(file, variables).unwrap().1.to_string();
    assert_eq!(
        from(None, &[(CREDENTIALS_VARIABLE, &*credentials)]),
        format!("systemd's credential {credentials}/komoju-secret-key")
    );
    assert_eq!(from(Some(&*file), &[]), format!("the file {credentials}/key (api.secret_key_file)"));
    assert_eq!(from(None, &[(KEY_VARIABLE, KEY)]), "the variable KOMOJU_SECRET_KEY");
}

#[test]
fn missing_key_is_reported_with_the_three_places() {
    let error = find(None, &[]).unwrap_err().to_string();
    for place in ["$CREDENTIALS_DIRECTORY/komoju-secret-key", "api.secret_key_file", KEY_VARIABLE] {
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn empty_credential_is_skipped() {
    let (directory, file, credentials) = places();
    fs::write(directory.path().join(CREDENTIAL), "\n").unwrap();
    let credentials = (CREDENTIALS_VARIABLE, &*credentials);
    assert_eq!(find(Some(&file), &[credentials]).unwrap().0.expose(), "from_file");
    assert!(matches!(find(None, &[credentials]).unwrap_err(), KeyError::Nowhere));
}

#[test]
fn place_that_cannot_be_used_is_an_error_before_later_places() {
    let (directory, ..) = places();
    let missing = directory.path().join("missing");
    let error = find(Some(&missing), &[(KEY_VARIABLE, KEY)]).unwrap_err();
    assert!(matches!(error, KeyError::Unreadable { place: SecretPlace::File { .. }, .. }), "{error}");
    assert!(error.to_string().contains("missing (api.secret_key_file)"), "{error}");

    let credential = directory.path().join(CREDENTIAL);
    let credentials = directory.path().to_str().unwrap();
    let variables = [(CREDENTIALS_VARIABLE, credentials), (KEY_VARIABLE, KEY)];
    fs::write(&credential, "two words").unwrap();
    let error = find(None, &variables).unwrap_err();
    assert!(matches!(error, KeyError::Unusable { .. }), "{error}");

    fs::remove_file(&credential).unwrap();
    fs::create_dir(&credential).unwrap();
    let error = find(None, &variables).unwrap_err();
    assert!(matches!(error, KeyError::Unreadable { .. }), "{error}");
}

#[test]
fn text_that_cannot_be_a_key_is_refused_and_not_shown() {
    let table = [
        ("", KeyFault::Empty),
        (" \n\t", KeyFault::Empty),
        ("QQQQ QQQQ", KeyFault::InnerSpace),
        ("QQQQ\nQQQQ", KeyFault::InnerSpace),
        ("QQQQ\u{1b}[2J", KeyFault::NotPrintable),
        ("QQQQキー", KeyFault::NotPrintable),
        ("QQQQ:", KeyFault::Colon),
        ("sk_live_****QQQQ", KeyFault::Masked),
        ("\"QQQQ\"", KeyFault::Quoted),
        ("'QQQQ'", KeyFault::Quoted),
    ];
    for (text, fault) in table {
        assert_eq!(SecretKey::parse(text).unwrap_err(), fault, "{text:?}");
        let error = find(None, &[(KEY_VARIABLE, text)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("QQ"), "{error:?}");
    }
}

#[test]
fn file_too_long_for_a_key_is_refused() {
    let (_directory, file, _) = places();
    fs::write(&file, "x".repeat(MOST_BYTES as usize + 1)).unwrap();
    let error = find(Some(&file), &[]).unwrap_err();
    assert!(matches!(error, KeyError::Unusable { fault: KeyFault::TooLong, .. }), "{error}");
}

#[test]
fn unusual_key_warns_and_works() {
    let warnings = |key: &str| {
        let (key, source) = find(None, &[(KEY_VARIABLE, key)]).unwrap();
        key.warnings(&source)
    };
    assert_eq!(warnings("sk_test_a"), []);
    assert_eq!(warnings("sk_live_a"), []);
    assert_eq!(warnings("oldkey"), [KeyWarning::UnusualPrefix]);
    assert_eq!(warnings("pk_live_a"), [KeyWarning::Publishable]);
}

#[test]
fn file_open_to_every_user_warns_with_the_command() {
    let (_directory, file, _) = places();
    fs::write(&file, KEY).unwrap();
    for (mode, warns) in [(0o400, false), (0o640, false), (0o604, true), (0o602, true)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (key, source) = find(Some(&file), &[]).unwrap();
        let warnings = key.warnings(&source);
        assert_eq!(!warnings.is_empty(), warns, "{mode:o}");
        for warning in warnings {
            let warning = warning.to_string();
            assert!(warning.contains(&format!("(mode {mode:04o})")), "{warning}");
            assert!(warning.contains("chmod o= /"), "{warning}");
        }
    }
}

#[test]
fn debug_output_shows_no_part_of_a_key() {
    let found = find(None, &[(KEY_VARIABLE, KEY)]).unwrap();
    assert!(!format!("{found:#?}").contains("0123"), "{found:?}");
}

#[test]
fn fingerprint_is_that_of_salt_and_key_together() {
    let key = SecretKey::parse(KEY).unwrap();
    let expected: [u8; 32] = Sha256::digest(format!("salt{KEY}")).into();
    assert_eq!(key.salted_fingerprint(b"salt"), expected);
    assert_ne!(key.salted_fingerprint(b"other"), expected);
}
