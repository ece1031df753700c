//! The API: whether it answers, what it answers, and its clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::database::Current;
use super::{Exit, Finding};
use crate::cli::print::{count, grouped};
use crate::clock::Clock;
use crate::config::Config;
use crate::remote::client::SetupError;
use crate::remote::{CertificateFault, CustomerAnswer, ErrorCause, Http, Remote, RemoteError, RequestStage};
use crate::secret::SecretKey;
use komoju_core::{CustomerId, Page, PageQuery};

/// LONGEST_REQUEST_S limits a request, in seconds; the daemon's limit is `api.request_timeout_s`.
/// It is longer than a connection may take, so that the finding can say what took too long.
const LONGEST_REQUEST_S: u32 = 12;

/// SOON limits the time after which another request is made: a request that failed later is not
/// repeated.
const SOON: Duration = Duration::from_secs(3);

/// How far the clocks may be apart, in seconds, before it is a warning and before it is a failure.
/// The server's has whole seconds and its answer takes time. Beyond the second limit, what depends
/// on the time of a create goes wrong.
const APART_WARN: u64 = 5;
const APART_FAIL: u64 = 60;

/// The answers of the API.
pub(super) struct Asked {
    page: Result<Page, RemoteError>,
    /// From the request to its whole answer, the connection included.
    took: Duration,
    /// This machine's clock when the answer arrived, and the server's.
    clocks: Option<(Timestamp, Timestamp)>,
    /// The answer about the customer that was requested, if any was.
    pub(super) known: Option<Result<CustomerAnswer, RemoteError>>,
}

/// Requests one page, and one known customer where the database is bound to another key.
pub(super) async fn ask(
    config: &Config,
    key: &SecretKey,
    current: Option<&Current>,
    clock: &Arc<dyn Clock>,
) -> Result<Asked, SetupError> {
    let mut config = config.clone();
    config.api.request_timeout_s = config.api.request_timeout_s.min(LONGEST_REQUEST_S);
    let remote = Http::new(&config, key, Arc::clone(clock))?;
    let pause =
        Duration::try_from_secs_f64(config.rate_limit.requests_per_second.recip()).unwrap_or_default();
    let mut asked = request_page(&remote, &config, pause, clock).await;
    if asked.took.max(pause) <= SOON && asked.page.as_ref().is_err_and(|error| !is_final(error)) {
        asked = request_page(&remote, &config, pause, clock).await;
    }
    if asked.page.is_ok()
        && asked.took <= SOON
        && let Some(customer) = customer_of_another_key(current, key)
    {
        asked.known = Some(remote.show(customer).await);
    }
    Ok(asked)
}

async fn request_page(remote: &Http, config: &Config, pause: Duration, clock: &Arc<dyn Clock>) -> Asked {
    // The limiter of a new process starts empty; waiting here keeps its delay out of the measured
    // time.
    clock.sleep(pause).await;
    let began = clock.elapsed();
    let page = remote.list(PageQuery { page: 1, per_page: config.api.per_page, created_from: None }).await;
    let took = clock.elapsed().saturating_sub(began);
    Asked { page, took, clocks: remote.server_time().map(|server| (clock.now(), server)), known: None }
}

/// Returns a customer of the mirror, if the database is bound to another key.
fn customer_of_another_key<'a>(current: Option<&'a Current>, key: &SecretKey) -> Option<&'a CustomerId> {
    let current = current?;
    let account = current.account.as_ref()?;
    current.known.as_ref().filter(|_| account.fingerprint != key.salted_fingerprint(&account.salt))
}

impl Asked {
    /// Whether the API accepted the key.
    pub(super) fn is_accepted(&self) -> bool {
        self.page.is_ok()
    }
}

/// Whether an immediate retry is of no use.
fn is_final(error: &RemoteError) -> bool {
    match &error.cause {
        ErrorCause::KeyRefused(_)
        | ErrorCause::Throttled(_)
        | ErrorCause::Rejected(_)
        | ErrorCause::Redirected { .. }
        | ErrorCause::TooLarge { .. } => true,
        ErrorCause::Unreachable { stage: step, .. } => matches!(step, RequestStage::Tls(_)),
        ErrorCause::Unexpected(_) | ErrorCause::Unusable(_) => false,
    }
}

/// Two checks: the API and its clock.
pub(super) fn classify(asked: &Result<Asked, SetupError>, config: &Config) -> [Finding; 2] {
    match asked {
        Err(error) => {
            let advice = "install the package ca-certificates; with a proxy, look at api.proxy";
            let failed = Finding::fail("api", Exit::Usage, error.to_string(), advice);
            [failed, Finding::skip("clock", "the API was not asked")]
        }
        Ok(Asked { page, took, clocks, .. }) => {
            [classify_page(page, *took, config), classify_clocks(*clocks)]
        }
    }
}

fn classify_page(page: &Result<Page, RemoteError>, took: Duration, config: &Config) -> Finding {
    let url = &config.api.base_url;
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            let exit =
                if let ErrorCause::KeyRefused(_) = error.cause { Exit::KeyRefused } else { Exit::Failed };
            return Finding::fail("api", exit, format!("{url}: {error}"), advice(&error.cause, config));
        }
    };
    let (asked, given) = (u64::from(config.api.per_page), page.hints.per_page.unwrap_or_else(|| page.len()));
    let capped = if given < asked {
        format!(" ({asked} were asked for: a lower api.per_page does the same)")
    } else {
        String::new()
    };
    let customers = match page.hints.total {
        Some(total) => count(total, "customer"),
        None => "it does not say how many customers there are".to_owned(),
    };
    let (took, given) = (took.as_millis(), grouped(given));
    Finding::ok("api", format!("{url} answers in {took} ms: {customers}, {given} a page{capped}"))
}

/// What to do about an error.
fn advice(cause: &ErrorCause, config: &Config) -> String {
    let host = config.api.base_url.host_str().unwrap_or_default();
    let advice = match cause {
        ErrorCause::Unreachable { stage: step, .. } => return advice_on_connection(*step, host, config),
        ErrorCause::Unexpected(error) if [401, 403].contains(&error.status) => {
            return format!(
                "this comes from a firewall in front of the API, not from KOMOJU's own check of the key: see whether \
                 {host} blocks this machine's address, and ask KOMOJU's support"
            );
        }
        ErrorCause::KeyRefused(_) => {
            "copy the secret key from KOMOJU's dashboard again, see that it may read customers, and restart the daemon: it \
             reads the key when it starts"
        }
        ErrorCause::Throttled(_) => {
            "nothing: the daemon waits and slows down by itself; if it happens often, lower rate_limit.requests_per_second"
        }
        ErrorCause::Redirected { .. } => {
            "set api.base_url to the address that KOMOJU's documentation gives, or remove what redirects requests to it"
        }
        ErrorCause::Rejected(_) => {
            "see that api.base_url and api.api_version are those of KOMOJU's documentation"
        }
        ErrorCause::Unexpected(error) if error.status == 404 => {
            "see that api.base_url is the one of KOMOJU's documentation"
        }
        ErrorCause::Unexpected(_) => {
            "wait, then run `komoju-sync doctor` again; a daemon that runs retries by itself. If it stays so, ask KOMOJU's \
             support"
        }
        ErrorCause::TooLarge { .. } => {
            "lower api.per_page: the daemon reads such a page in parts, which takes more requests"
        }
        ErrorCause::Unusable(_) => {
            "something else than the API answers, perhaps: see that api.base_url is right, and what stands between"
        }
    };
    advice.to_owned()
}

fn advice_on_connection(stage: RequestStage, host: &str, config: &Config) -> String {
    match stage {
        RequestStage::Name => {
            format!("see that this machine finds names: getent hosts {host}; and that api.base_url is spelled right")
        }
        RequestStage::Connection => {
            let port = config.api.base_url.port_or_known_default().unwrap_or(443);
            format!(
                "see that this machine may connect to {host}, port {port} (firewall, routes), and whether it needs a \
                 proxy (api.proxy)"
            )
        }
        RequestStage::Proxy => match &config.api.proxy {
            Some(proxy) => {
                format!("see that the proxy {proxy} runs, lets this machine through, and is the right one (api.proxy)")
            }
            None => "look at api.proxy".to_owned(),
        },
        RequestStage::Tls(CertificateFault::Untimely) => {
            "set this machine's clock (timedatectl); if it is right, the certificate of the host, or of a proxy between, \
             is not"
                .to_owned()
        }
        RequestStage::Tls(CertificateFault::Untrusted | CertificateFault::Unchecked) => format!(
            "see that ca-certificates is installed and current, and who answers for {host}: a proxy that opens TLS needs \
             its own certificate among them"
        ),
        RequestStage::Answer => format!(
            "try again; if it stays so, something between here and {host} drops connections, or KOMOJU is slow \
             (api.request_timeout_s)"
        ),
    }
}

fn classify_clocks(clocks: Option<(Timestamp, Timestamp)>) -> Finding {
    let Some((here, there)) = clocks else {
        return Finding::skip("clock", "it is compared with the API's, which did not tell it");
    };
    let ahead = here.as_second() - there.as_second();
    let apart = ahead.unsigned_abs();
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let finding = format!("this machine's clock is {} s {way} the API's", grouped(apart));
    let advice = "have a time server keep it: timedatectl set-ntp true, or chrony; what is recorded carries this clock's times, \
                  and creates whose answer was lost are looked for by them";
    if apart <= APART_WARN {
        Finding::ok("clock", "this machine's clock and the API's agree")
    } else {
        let exit = if apart <= APART_FAIL { Exit::Fine } else { Exit::Failed };
        Finding::fail("clock", exit, finding, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::remote::ApiCall;
    use crate::remote::error::ApiError;
    use komoju_core::Hints;

    #[test]
    fn each_error_has_its_advice_and_only_the_apis_refusal_its_exit_code() {
        let unreachable = |step| ErrorCause::Unreachable { stage: step, why: "why".into() };
        let answered = |status| ApiError { status, code: None, message: None, param: None };
        for (cause, exit, part) in [
            (unreachable(RequestStage::Name), Exit::Failed, "getent hosts komoju.com"),
            (unreachable(RequestStage::Connection), Exit::Failed, "port 443"),
            (unreachable(RequestStage::Proxy), Exit::Failed, "api.proxy"),
            (unreachable(RequestStage::Tls(CertificateFault::Untimely)), Exit::Failed, "clock"),
            (unreachable(RequestStage::Tls(CertificateFault::Untrusted)), Exit::Failed, "ca-certificates"),
            (unreachable(RequestStage::Tls(CertificateFault::Unchecked)), Exit::Failed, "ca-certificates"),
            (unreachable(RequestStage::Answer), Exit::Failed, "request_timeout_s"),
            (ErrorCause::KeyRefused(answered(401)), Exit::KeyRefused, "restart the daemon"),
            (ErrorCause::Throttled(answered(429)), Exit::Failed, "requests_per_second"),
            (ErrorCause::Rejected(answered(400)), Exit::Failed, "api.api_version"),
            (ErrorCause::Unexpected(answered(403)), Exit::Failed, "firewall"),
            (ErrorCause::Unexpected(answered(404)), Exit::Failed, "see that api.base_url is the one"),
            (ErrorCause::Unexpected(answered(503)), Exit::Failed, "wait, then run"),
            (ErrorCause::Unusable("no JSON".into()), Exit::Failed, "something else than the API"),
        ] {
            let error = RemoteError { call: ApiCall::List { page: 1 }, cause, retry_after: None };
            let finding = classify_page(&Err(error), Duration::ZERO, &Config::default());
            assert_eq!((finding.level, finding.exit), (Level::Fail, exit), "{finding:?}");
            assert!(finding.advice.as_ref().unwrap().contains(part), "{part}: {finding:?}");
        }
    }

    #[test]
    fn capped_page_is_named() {
        let hints = Hints { page: Some(1), per_page: Some(50), total: Some(1234), last_page: Some(25) };
        let page = Page { hints, ..Page::default() };
        let finding = classify_page(&Ok(page), Duration::from_millis(120), &Config::default());
        assert_eq!(
            finding.finding,
            "https://komoju.com/api/v1 answers in 120 ms: 1,234 customers, 50 a page (100 were asked for: a lower \
             api.per_page does the same)"
        );
    }

    #[test]
    fn clocks_that_differ_warn_or_fail_either_way() {
        let there: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let classified = |s: i64| classify_clocks(Some((there + jiff::SignedDuration::from_secs(s), there)));
        let level = |s| classified(s).level;
        assert_eq!([0, 5, -5].map(level), [Level::Ok; 3]);
        assert_eq!([6, 60, -60].map(level), [Level::Warn; 3]);
        assert_eq!([61, -61, 86_400].map(level), [Level::Fail; 3]);
        assert_eq!(classified(-9).finding, "this machine's clock is 9 s behind the API's");
        assert_eq!(classify_clocks(None).level, Level::Skip);
    }
}
