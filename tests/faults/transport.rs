//! Connections that do not come up, and that end too early.

use base64::Engine as _;
use komoju_sandbox::{Ending, FaultEffect, FaultedWork};
use komoju_testkit::KEY;

use crate::PROGRAM;
use crate::case::Case;
use crate::matrix::Ends::{Complete, Fails, Misconfigured};
use crate::matrix::Outbox::{Done, Kept, Retried};
use crate::matrix::faults;
use crate::peers::{self, Arrived};

faults![
    (
        nothing_listens,
        "connect refused",
        "nothing listens at `api.base_url`",
        Fails("Connection refused"),
        Retried,
        |case| {
            case.speak_to(&format!("http://{}/api/v1", peers::nobody()));
            case.fired_when(|harness| u64::from(harness.sandbox.world().requests().is_empty()));
            let ran = case.endure_by_binary();
            assert!(ran.stderr.contains("(tried 10 times)"), "{}", ran.stderr);
        },
    ),
    (
        an_unknown_name,
        "DNS failure",
        "no name server knows the host of `api.base_url`",
        Fails("failed to lookup address information"),
        Retried,
        |case| {
            case.speak_to("https://nowhere.invalid/api/v1");
            case.fired_when(|harness| u64::from(harness.sandbox.world().requests().is_empty()));
            case.endure();
        },
    ),
    (
        no_tls_is_spoken,
        "TLS failure (never plaintext)",
        "plain HTTP is spoken where `api.base_url` says https",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| {
            let (address, arrived) = peers::plain();
            case.speak_to(&format!("https://{address}/api/v1"));
            case.hears_no_key(arrived);
        },
    ),
    (
        an_untrusted_certificate,
        "TLS failure (never plaintext)",
        "the certificate was signed by no trusted authority",
        Fails(
            "GET /customers page 1: no answer: the certificate of 127.0.0.1 is not trusted (invalid peer certificate"
        ),
        Retried,
        |case| {
            let (address, arrived) = peers::untrusted();
            case.speak_to(&format!("https://{address}/api/v1"));
            case.hears_no_key(Arrived::clone(&arrived));
            // One try at a page and one at each push: a certificate that is rejected once is rejected again. The create asks the
            // server for its time first.
            assert_eq!(arrived.lock().unwrap().len(), 4);
        },
    ),
    (
        plain_http_to_another_machine,
        "TLS failure (never plaintext)",
        "`api.base_url` says http, and names another machine",
        Misconfigured("http:// would send the secret key unencrypted"),
        Kept,
        |case| {
            case.speak_to("http://192.0.2.1/api/v1");
            case.fired_when(|harness| u64::from(harness.sandbox.world().requests().is_empty()));
            case.endure_by_binary();
        },
    ),
    (
        a_reset_before_the_answer,
        "reset before the answer",
        "each connection is reset instead of an answer",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| case.everything(FaultEffect::Reset { work: FaultedWork::Skipped }),
    ),
    (
        a_close_before_the_answer,
        "reset before the answer",
        "each connection is closed instead of an answer",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| case.everything(FaultEffect::Close { work: FaultedWork::Skipped }),
    ),
    (
        a_reset_within_the_answer,
        "reset within the answer",
        "each connection is reset after 100 bytes of the answer",
        Fails("GET /customers page 1: no answer"),
        Retried,
        |case| case.everything(FaultEffect::Cut { after: 100, ending: Ending::Reset }),
    ),
    (
        a_reset_after_the_work,
        "reset after the answer",
        "each push takes effect, and its answer is lost",
        Complete("no answer"),
        Retried,
        |case| {
            case.lose_the_answers();
            case.endure();
            assert_eq!(case.harness.sandbox.world().creates(), 1, "it took effect");
        },
    ),
    (
        a_reset_after_the_answer,
        "reset after the answer",
        "each connection is reset as soon as its answer is whole",
        Complete("57 live"),
        Done,
        |case| {
            let (address, arrived) = peers::hasty(case.harness.sandbox.address());
            case.speak_to(&format!("http://{address}/api/v1"));
            case.fired_when(move |_| arrived.lock().unwrap().len() as u64);
            case.endure();
        },
    ),
];

impl Case {
    /// It is connected to, and whatever arrives holds the key in no form.
    fn hears_no_key(&mut self, arrived: Arrived) {
        let heard = Arrived::clone(&arrived);
        self.fired_when(move |_| heard.lock().unwrap().len() as u64);
        self.endure();
        let arrived = arrived.lock().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{KEY}:"));
        for bytes in arrived.iter() {
            assert_eq!(bytes.first(), Some(&0x16), "the first byte is a TLS handshake's");
            let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
            for secret in [KEY, &encoded, "authorization", "basic "] {
                assert!(!text.contains(&secret.to_ascii_lowercase()), "{secret} arrived");
            }
        }
    }
}

#[test]
fn rejected_certificate_is_logged_in_our_words_alone() {
    let (harness, (address, _)) = (komoju_testkit::Installation::with(PROGRAM, 1), peers::untrusted());
    let file = harness.path("config.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let config = config.replace(&harness.sandbox.base_url(), &format!("https://{address}/api/v1"));
    std::fs::write(&file, format!("{config}[log]\nlevel = 'trace'\n")).unwrap();
    let ran = harness.expect(1, &["sync"]);
    assert!(ran.stderr.contains("the certificate of 127.0.0.1 is not trusted"), "{}", ran.stderr);
    // What the verifier, the TLS library and the HTTP client log by themselves.
    for theirs in ["failed to verify", "starting new connection", "fatal alert", "checkout waiting"] {
        assert!(!ran.stderr.contains(theirs), "{theirs}: {}", ran.stderr);
    }
}
