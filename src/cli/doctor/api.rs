//! The API: reached, understood, and what its clock says.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::database::Looked;
use super::{Exit, Finding, short_time};
use crate::cli::print::{count, grouped};
use crate::clock::Clock;
use crate::config::Config;
use crate::remote::{Cause, Certificate, Http, Remote, RemoteError, Shown, Step};
use crate::secret::SecretKey;
use komoju_core::{Page, PageQuery};

/// How long a request may take here, in seconds; the daemon waits for `api.request_timeout_s`. More than a connection may take, so
/// that it can be told which of them took too long.
const PATIENCE_S: u32 = 12;

/// A request that failed sooner than this is made once more, and only after an answer that came sooner another one is asked for.
const SOON: Duration = Duration::from_secs(3);

/// How far the clocks may be apart, in seconds: the server's has whole seconds and its answer travels. Beyond the second, what
/// depends on the window in which a customer was created goes wrong.
const APART: (i64, i64) = (5, 60);

/// What came back.
pub(super) struct Asked {
    pub(super) page: Result<Page, RemoteError>,
    /// From the request to its whole answer, the connection included.
    took: Duration,
    /// This machine's clock when the answer was there, and the server's.
    clocks: Option<(Timestamp, Timestamp)>,
    /// About the customer who was asked about, if any was.
    pub(super) known: Option<Result<Shown, RemoteError>>,
    setup: Option<String>,
}

/// Asks for one page, and about one known customer where the database is bound to another key.
pub(super) async fn ask(
    config: &Config,
    key: &SecretKey,
    looked: Option<&Looked>,
    clock: &Arc<dyn Clock>,
) -> Asked {
    let mut config = config.clone();
    config.api.request_timeout_s = config.api.request_timeout_s.min(PATIENCE_S);
    let remote = match Http::new(&config, key, Arc::clone(clock)) {
        Ok(remote) => remote,
        Err(error) => return Asked { setup: Some(error.to_string()), ..Asked::nothing() },
    };
    let query = PageQuery { page: 1, per_page: config.api.per_page, created_from: None };
    let pause =
        Duration::try_from_secs_f64(config.rate_limit.requests_per_second.recip()).unwrap_or_default();
    let mut asked = Asked::nothing();
    for _ in 0..2 {
        // A new process starts with an empty bucket: waited for here, it does not count as the answer's time.
        clock.sleep(pause).await;
        let began = clock.elapsed();
        let page = remote.list(query).await;
        let took = clock.elapsed().saturating_sub(began);
        let clocks = remote.server_time().map(|server| (clock.now(), server));
        let is_final = took.max(pause) > SOON || page.is_ok() || page.as_ref().is_err_and(is_final);
        asked = Asked { page, took, clocks, ..Asked::nothing() };
        if is_final {
            break;
        }
    }
    let current = looked.and_then(|looked| looked.current.as_ref());
    if let Some(current) = current
        && asked.page.is_ok()
        && asked.took <= SOON
        && let (Some(account), Some(known)) = (&current.account, &current.known)
        && account.fingerprint != key.salted_fingerprint(&account.salt)
    {
        asked.known = Some(remote.show(known).await);
    }
    asked
}

impl Asked {
    fn nothing() -> Self {
        let nobody = RemoteError {
            call: crate::remote::Call::List { page: 1 },
            cause: Cause::Unusable("nothing was asked".into()),
            retry_after: None,
        };
        Self { page: Err(nobody), took: Duration::ZERO, clocks: None, known: None, setup: None }
    }

    /// Whether the API took the key.
    pub(super) fn is_accepted(&self) -> bool {
        self.page.is_ok()
    }
}

/// Whether asking again at once is of no use.
fn is_final(error: &RemoteError) -> bool {
    match &error.cause {
        Cause::KeyRefused(_)
        | Cause::Throttled(_)
        | Cause::Rejected(_)
        | Cause::Redirected { .. }
        | Cause::TooLarge { .. } => true,
        Cause::Unreachable { step, .. } => matches!(step, Step::Tls(_)),
        Cause::Unexpected(_) | Cause::Unusable(_) => false,
    }
}

/// Two checks: the API and its clock.
pub(super) fn judge(asked: &Asked, config: &Config) -> Vec<Finding> {
    if let Some(why) = &asked.setup {
        let advice = "install the package ca-certificates; with a proxy, look at api.proxy";
        let failed = Finding::fail("api", Exit::Usage, why.as_str(), advice);
        return vec![failed, Finding::skip("clock", "the API was not asked")];
    }
    let clock = match asked.clocks {
        Some((here, there)) => judge_clocks(here, there),
        None => Finding::skip("clock", "it is compared with the API's, which did not tell it"),
    };
    vec![judge_page(&asked.page, asked.took, config), clock]
}

fn judge_page(page: &Result<Page, RemoteError>, took: Duration, config: &Config) -> Finding {
    let url = &config.api.base_url;
    match page {
        Ok(page) => {
            let asked = u64::from(config.api.per_page);
            let given = page.hints.per_page.unwrap_or_else(|| page.len());
            let capped = match given < asked {
                true => format!(" ({asked} were asked for: a lower api.per_page does the same)"),
                false => String::new(),
            };
            let customers = match page.hints.total {
                Some(total) => count(total, "customer"),
                None => "it does not say how many customers there are".to_owned(),
            };
            let took = short_time(took);
            Finding::ok(
                "api",
                format!("{url} answers in {took}: {customers}, {} a page{capped}", grouped(given)),
            )
        }
        Err(error) => {
            let (exit, advice) = advice(error, config);
            Finding::fail("api", exit, format!("{url}: {error}"), advice)
        }
    }
}

/// What to do about an error, and how it counts.
fn advice(error: &RemoteError, config: &Config) -> (Exit, String) {
    let host = config.api.base_url.host_str().unwrap_or_default();
    let port = config.api.base_url.port_or_known_default().unwrap_or(443);
    let advice = match &error.cause {
        Cause::KeyRefused(_) => {
            return (
                Exit::KeyRefused,
                "copy the secret key from KOMOJU's dashboard again, see that it may read customers, and restart the \
                 daemon: it reads the key when it starts"
                    .to_owned(),
            );
        }
        Cause::Unreachable { step: Step::Name, .. } => {
            format!("see that this machine finds names: getent hosts {host}; and that api.base_url is spelled right")
        }
        Cause::Unreachable { step: Step::Connection, .. } => format!(
            "see that this machine may connect to {host}, port {port} (firewall, routes), and whether it needs a proxy (api.proxy)"
        ),
        Cause::Unreachable { step: Step::Proxy, .. } => match &config.api.proxy {
            Some(proxy) => format!("see that the proxy {proxy} runs, lets this machine through, and is the right one (api.proxy)"),
            None => "look at api.proxy".to_owned(),
        },
        Cause::Unreachable { step: Step::Tls(Certificate::Untimely), .. } => {
            "set this machine's clock (timedatectl); if it is right, the certificate of the host, or of a proxy between, is not"
                .to_owned()
        }
        Cause::Unreachable { step: Step::Tls(Certificate::Untrusted | Certificate::Unchecked), .. } => format!(
            "see that ca-certificates is installed and current, and who answers for {host}: a proxy that opens TLS needs \
             its own certificate among them"
        ),
        Cause::Unreachable { step: Step::Answer, .. } => format!(
            "try again; if it stays so, something between here and {host} drops connections, or KOMOJU is slow \
             (api.request_timeout_s)"
        ),
        Cause::Throttled(_) => {
            "nothing: the daemon waits and slows down by itself; if it happens often, lower rate_limit.requests_per_second"
                .to_owned()
        }
        Cause::Redirected { .. } => {
            "set api.base_url to the address that KOMOJU's documentation gives, or remove what redirects requests to it"
                .to_owned()
        }
        Cause::Rejected(_) => {
            "see that api.base_url and api.api_version are those of KOMOJU's documentation".to_owned()
        }
        Cause::Unexpected(told) => match told.status {
            401 | 403 => format!(
                "this comes from a firewall in front of the API, not from KOMOJU's own check of the key: see whether {host} \
                 blocks this machine's address, and ask KOMOJU's support"
            ),
            404 => "see that api.base_url is the one of KOMOJU's documentation".to_owned(),
            _ => "wait, then run `komoju-sync doctor` again; a daemon that runs retries by itself. If it stays so, ask KOMOJU's support".to_owned(),
        },
        Cause::TooLarge { .. } => {
            "lower api.per_page: the daemon reads such a page in parts, which takes more requests".to_owned()
        }
        Cause::Unusable(_) => {
            "something else than the API answers, perhaps: see that api.base_url is right, and what stands between"
                .to_owned()
        }
    };
    (Exit::Failed, advice)
}

fn judge_clocks(here: Timestamp, there: Timestamp) -> Finding {
    let ahead = here.as_second() - there.as_second();
    let (warn, fail) = APART;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let finding = format!("this machine's clock is {} s {way} the API's", grouped(ahead.unsigned_abs()));
    let advice = "have a time server keep it: timedatectl set-ntp true, or chrony; what is recorded carries this clock's times, \
                  and creates whose answer was lost are looked for by them";
    match ahead.abs() {
        apart if apart <= warn => Finding::ok("clock", "this machine's clock and the API's agree"),
        apart if apart <= fail => Finding::warn("clock", finding, advice),
        _ => Finding::fail("clock", Exit::Failed, finding, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::remote::Call;
    use crate::remote::error::ApiError;
    use komoju_core::Hints;

    fn judged(cause: Cause) -> Finding {
        let error = RemoteError { call: Call::List { page: 1 }, cause, retry_after: None };
        judge_page(&Err(error), Duration::ZERO, &Config::default())
    }

    fn told(status: u16) -> ApiError {
        ApiError { status, code: None, message: None, param: None }
    }

    #[test]
    fn each_step_that_fails_has_its_own_advice() {
        let steps = [
            (Step::Name, "getent hosts komoju.com"),
            (Step::Connection, "port 443"),
            (Step::Proxy, "api.proxy"),
            (Step::Tls(Certificate::Untimely), "clock"),
            (Step::Tls(Certificate::Untrusted), "ca-certificates"),
            (Step::Tls(Certificate::Unchecked), "ca-certificates"),
            (Step::Answer, "request_timeout_s"),
        ];
        for (step, part) in steps {
            let finding = judged(Cause::Unreachable { step, why: "why".into() });
            assert!(finding.advice.as_ref().unwrap().contains(part), "{finding:?}");
            assert_eq!(finding.exit, Exit::Failed);
        }
    }

    #[test]
    fn only_the_apis_own_refusal_is_one() {
        assert_eq!(judged(Cause::KeyRefused(told(401))).exit, Exit::KeyRefused);
        let firewall = judged(Cause::Unexpected(told(403)));
        assert_eq!(firewall.exit, Exit::Failed);
        assert!(firewall.advice.unwrap().contains("firewall"));
        assert!(judged(Cause::Unexpected(told(503))).advice.unwrap().starts_with("wait"));
    }

    #[test]
    fn a_page_that_is_capped_says_so() {
        let hints = Hints { page: Some(1), per_page: Some(50), total: Some(1234), last_page: Some(25) };
        let page = Page { hints, ..Page::default() };
        let finding = judge_page(&Ok(page), Duration::from_millis(120), &Config::default());
        assert_eq!(
            finding.finding,
            "https://komoju.com/api/v1 answers in 120 ms: 1,234 customers, 50 a page (100 were asked for: a lower \
             api.per_page does the same)"
        );
    }

    #[test]
    fn clocks_agree_differ_or_are_wrong_either_way() {
        let there: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let level = |s: i64| judge_clocks(there + jiff::SignedDuration::from_secs(s), there).level;
        assert_eq!([0, 5, -5].map(level), [Level::Ok; 3]);
        assert_eq!([6, 60, -60].map(level), [Level::Warn; 3]);
        assert_eq!([61, -61, 86_400].map(level), [Level::Fail; 3]);
        let behind = judge_clocks(there - jiff::SignedDuration::from_secs(9), there);
        assert_eq!(behind.finding, "this machine's clock is 9 s behind the API's");
    }
}
