//! Properties of all configurations, for property tests and fuzzers.

use std::path::Path;

use jiff::Timestamp;

use super::{Cadence, Config, ConfigError, Listen};

/// A secret that the text may contain.
const KEY: &str = "sk_test_9aQxZr7";

/// The moment from which ticks are searched, in a leap year.
const NOW: Timestamp = Timestamp::constant(1_846_022_400, 0);

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/config.toml"))
}

/// Checks a file with this text. An accepted file is usable and renders to the same values. A
/// refused file has problems that are complete and contain no secret.
///
/// # Panics
/// The result does not have these properties.
pub(crate) fn file(text: &str) {
    match parse(text) {
        Ok(config) => accepted(&config),
        Err(error) => refused(text, &error),
    }
}

fn accepted(config: &Config) {
    let api = &config.api;
    assert!((1..=1000).contains(&api.per_page) && (1..=64).contains(&api.max_concurrent_requests));
    assert!((1..=600).contains(&api.request_timeout_s));
    assert!(api.base_url.scheme() == "https" || api.proxy.is_none(), "{}", api.base_url);
    assert!(api.base_url.username().is_empty() && api.base_url.password().is_none());
    let rate = config.rate_limit.requests_per_second;
    assert!(rate == 0.0 || (0.05..=1000.0).contains(&rate), "{rate}");
    assert!((24..=8760).contains(&config.outbound.park_after_h) && config.inbound.max_delete_percent <= 100);
    assert!(config.database.path.is_absolute() && config.outbound.spool_dir.is_absolute());
    let webhook = &config.webhook;
    assert!(webhook.allow_public || !webhook.listen.as_ref().is_some_and(Listen::is_public));
    assert!(webhook.path.starts_with('/') && webhook.path.is_ascii(), "{}", webhook.path);
    assert_ticks(&config.inbound.sweep_cron);
    assert_ticks(&config.inbound.probe_cron);
    let rendered = config.render();
    assert!(!rendered.contains(KEY), "{rendered}");
    let mut again = parse(&rendered).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.api.proxy.is_some(), config.api.proxy.is_some());
    // The proxy's user is masked.
    again.api.proxy.clone_from(&config.api.proxy);
    assert_eq!(again, *config);
}

fn refused(text: &str, error: &ConfigError) {
    let ConfigError::Invalid { problems, .. } = error else { panic!("{error}") };
    let shown = error.to_string();
    assert!(!problems.is_empty() && !shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    assert!(!format!("{shown} {error:?}").contains(KEY), "{shown}");
    for problem in problems {
        assert!(!problem.what.is_empty() && !problem.subject.is_empty(), "{problem:?}");
        assert!((1..=text.matches('\n').count() + 1).contains(&problem.line), "{problem:?}");
        assert!(problem.to_string().lines().nth(3).is_some_and(|carets| carets.contains('^')), "{problem}");
    }
}

/// Checks a cron expression with this text. An accepted expression has later ticks without end. A
/// refused one has an error message.
///
/// # Panics
/// The result does not have these properties.
pub(crate) fn cadence(text: &str) {
    match Cadence::parse(text) {
        Ok(cadence) => {
            assert_ticks(&cadence);
            assert_eq!(Cadence::parse(cadence.text()), Ok(cadence), "it reads back");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Asserts that an expression has later ticks.
fn assert_ticks(cadence: &Cadence) {
    let ticks: Vec<Timestamp> = (1..=3).filter_map(|n| cadence.nth_after(NOW, n)).collect();
    assert!(ticks.len() == 3 && NOW < ticks[0] && ticks.is_sorted(), "{cadence}: {ticks:?}");
    assert!(ticks.iter().all(|tick| tick.subsec_nanosecond() == 0), "{cadence}: {ticks:?}");
}
