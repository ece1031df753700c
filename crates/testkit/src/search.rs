//! A search for secrets in all their encodings.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A secret and its encodings.
#[derive(Debug)]
pub struct Canary {
    /// Its name in a finding.
    pub name: String,
    /// The name and the bytes of each encoding.
    forms: Vec<(String, Vec<u8>)>,
}

impl Canary {
    /// Returns the encodings of a secret of at least 20 characters.
    pub fn new(name: &str, secret: &str) -> Self {
        let mut forms = vec![("raw".to_owned(), secret.to_owned())];
        for (alphabet, engine) in [("base64", &STANDARD_NO_PAD), ("url-safe base64", &URL_SAFE_NO_PAD)] {
            for cut in 0..3 {
                // The encoding of whole groups of three bytes does not depend on the bytes around.
                let whole = &secret.as_bytes()[cut..];
                let whole = &whole[..whole.len() - whole.len() % 3];
                forms.push((format!("{alphabet} from byte {cut}"), engine.encode(whole)));
            }
        }
        forms.push(("Basic".to_owned(), STANDARD_NO_PAD.encode(format!("{secret}:"))));
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.push(("HEX".to_owned(), hex.to_uppercase()));
        forms.push(("hex".to_owned(), hex));
        forms.push(("%hex".to_owned(), secret.bytes().map(|byte| format!("%{byte:02x}")).collect()));
        forms.push(("%HEX".to_owned(), secret.bytes().map(|byte| format!("%{byte:02X}")).collect()));
        forms.push(("percent".to_owned(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()));
        // A part of the secret is a leak, too.
        let characters: Vec<char> = secret.chars().collect();
        forms.push(("its end".to_owned(), characters[characters.len() - 12..].iter().collect()));
        let middle = characters.len() - 20;
        forms.push(("a piece".to_owned(), characters[middle..middle + 12].iter().collect()));
        let forms = forms.into_iter().map(|(how, form)| (how, form.into_bytes())).collect();
        Self { name: name.to_owned(), forms }
    }

    /// Returns the encodings of the secret that these bytes contain.
    pub fn found(&self, bytes: &[u8]) -> Vec<String> {
        let found = self.forms.iter().filter(|(_, form)| memmem::find(bytes, form).is_some());
        found.map(|(how, _)| format!("{} ({how})", self.name)).collect()
    }
}

/// Returns all findings below a directory, in contents and names of files.
pub fn below(directory: &Path, canaries: &[Canary]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(directory) {
        let name = path.strip_prefix(directory).unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        for canary in canaries {
            found
                .extend(canary.found(name.as_bytes()).into_iter().map(|what| format!("name {name}: {what}")));
            found.extend(canary.found(&bytes).into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    found
}

/// Returns every file below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn planted_secret_is_found_in_every_encoding() {
    const SECRET: &str = "tok_Vq7+Zk~2/mXw9?Rt4bLpC8sYd";
    let canary = Canary::new("planted", SECRET);
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut planted = vec![
        ("raw", SECRET.to_owned()),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("percent", "tok%5FVq7%2BZk%7E2%2FmXw9%3FRt4bLpC8sYd".to_owned()),
        ("%hex", SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect()),
        ("%HEX", SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect()),
        ("Basic", STANDARD_NO_PAD.encode(format!("{SECRET}:"))),
        ("its end", SECRET[SECRET.len() - 12..].to_owned()),
    ];
    for before in ["", "a", "ab"] {
        for behind in ["", "z", "zz"] {
            let text = format!("{before}{SECRET}{behind}");
            planted.push(("base64 from byte", STANDARD_NO_PAD.encode(&text)));
            planted.push(("url-safe base64 from byte", URL_SAFE_NO_PAD.encode(&text)));
        }
    }
    for (how, written) in planted {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("deep/deeper");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("file"), format!("before \0 {written}\u{e9} behind")).unwrap();
        let found = below(directory.path(), std::slice::from_ref(&canary));
        let named = format!("deep/deeper/file: planted ({how}");
        assert!(found.iter().any(|found| found.starts_with(&named)), "{how}: {written} {found:?}");
        std::fs::write(path.join("file"), "tok_****").unwrap();
        assert_eq!(below(directory.path(), std::slice::from_ref(&canary)), Vec::<String>::new());
    }
}
