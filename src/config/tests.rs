//! What a file may say, and that nothing secret is told of it. What is told: `problems`.

mod problems;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const ORIGIN: &str = "/etc/komoju-sync/config.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(ORIGIN))
}

fn accepted(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

#[test]
fn an_empty_file_gives_the_defaults() {
    for text in ["", "\n", "# nothing\n", "[api]\n", "\u{feff}[api]\r\n"] {
        assert_eq!(accepted(text), Config::default(), "{text:?}");
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    insta::assert_snapshot!(Config::default().render(), @r#"
    [api]
    base_url = "https://komoju.com/api/v1"
    api_version = "2025-01-28"
    # secret_key_file is not set
    per_page = 100
    max_concurrent_requests = 4
    request_timeout_s = 30
    # proxy is not set

    [rate_limit]
    requests_per_second = 4
    burst = 4

    [database]
    path = "/var/lib/komoju-sync/komoju.db"

    [inbound]
    sweep_cron = "0 */15 * * * *"
    probe_cron = "30 * * * * *"
    max_delete_count = 10
    max_delete_percent = 5
    consistency_s = 120

    [outbound]
    enabled = true
    spool_dir = "/var/lib/komoju-sync/intents"
    hold_deletes_over = 20
    park_after_h = 72
    # reconcile_tag is not set

    [http]
    # listen is not set

    [alerts]
    # command is not set

    [log]
    level = "info"
    format = "auto"
    "#);
}

#[test]
fn good_values_are_taken() {
    let takes = |text: &str, holds: fn(&Config) -> bool| {
        let config = accepted(text);
        assert!(holds(&config), "{text}: {config:?}");
    };
    takes("api.base_url = 'https://x.example/v1//'", |c| c.api.base_url.path() == "/v1");
    takes("api.base_url = 'http://localhost:8080'", |c| c.api.base_url.port() == Some(8080));
    takes("api.base_url = 'http://127.8.9.1/api'", |c| c.api.base_url.scheme() == "http");
    takes("api.base_url = 'http://[::1]:80/api'", |c| c.api.base_url.path() == "/api");
    takes("api.per_page = 1_000", |c| c.api.per_page == 1000);
    takes("api.per_page = 0x10", |c| c.api.per_page == 16);
    takes("api.request_timeout_s = 5", |c| c.api.request_timeout() == Duration::from_secs(5));
    takes("api.proxy = 'https://p.example'", |c| c.api.proxy.is_some());
    takes("rate_limit.requests_per_second = 0", |c| c.rate_limit.requests_per_second == 0.0);
    takes("rate_limit.requests_per_second = 0.5", |c| c.rate_limit.requests_per_second == 0.5);
    takes("rate_limit.requests_per_second = 1e3", |c| c.rate_limit.requests_per_second == 1e3);
    takes("inbound.sweep_cron = '@hourly'", |c| c.inbound.sweep_cron.text() == "@hourly");
    takes("inbound.max_delete_count = 0", |c| c.inbound.max_delete_count == 0);
    takes("outbound.park_after_h = 24", |c| c.outbound.park_after() == Duration::from_hours(24));
    takes("outbound.reconcile_tag = '同期'", |c| c.outbound.reconcile_tag.is_some());
    takes("http.listen = '[::1]:0'", |c| matches!(c.http.listen, Some(Listen::Tcp(_))));
    takes("http.listen = 'unix:/run/k s'", |c| c.http.listen == Some(Listen::Unix("/run/k s".into())));
    takes("alerts.command = '/bin/true'", |c| c.alerts.command == Some(vec!["/bin/true".to_owned()]));
    takes("alerts.command = ['/a b', '', 'c d']", |c| {
        c.alerts.command.as_ref().is_some_and(|words| words[1..] == ["", "c d"])
    });
    takes("log.level = 'trace'", |c| c.log.level == Level::Trace);
    takes("log.format = 'json'", |c| c.log.format == Format::Json);
}

#[test]
fn no_error_shows_a_secret_that_was_put_into_the_file() {
    for text in [
        "[api]\nsecret_key = \"Q1Q\"",
        "[api]\nsecret_key = Q1Q",
        "[api]\nsecret_key = \"\"\"\nQ1Q",
        "[api]\nkey = 'Q1Q'\nper_page = ",
        "[api]\nsecret_key_file = \"Q1Q\"",
        "[api]\nsecret_key_file = [\"Q1Q\"]",
        "[api]\nbase_url = \"https://Q1Q:@komoju.com/api/v1\"",
        "[api]\nproxy = \"socks5://me:Q1Q@proxy\"",
        "[api]\nproxy = \"http://me:Q1Q@proxy/path\"",
        "[api]\nper_pge = \"sk_test_Q1Q\"",
        "[alerts]\ncommand = [\"/bin/x\", \"sk_live_Q1Q\"]",
        "[secrets]\nkomoju = 'Q1Q' x",
        "api = { secret_key = 'Q1Q' }",
        "secret_key = 'Q1Q'",
        "[api]\nsk_test_Q1Q = 1",
        "[sk_live_Q1Q]",
        "sk_live_Q1Q",
        "[inbound]\nsweep_cron = 'tok_Q1Q * * * * *'",
    ] {
        let error = parse(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("Q1Q"), "{text}\n{error}");
    }
}

#[test]
fn a_string_with_terminal_escapes_is_told_without_them() {
    let error = parse("\"\\u001b[2J\" = 1\n[inbound]\nsweep_cron = \"\\u001b * * * * *\"");
    let error = error.unwrap_err().to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn a_missing_file_is_told_with_what_to_do() {
    let error = Config::load(Path::new("/nonexistent/config.toml")).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no configuration at /nonexistent/config.toml; copy config.example.toml there, \
         or name another file with --config FILE or $KOMOJU_SYNC_CONFIG"
    );
}

#[test]
fn a_file_that_is_no_configuration_is_told_from_one_with_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let load = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        Config::load(&path)
    };
    assert_eq!(load(b"[api]\nper_page = 7\n").unwrap().api.per_page, 7);
    assert!(matches!(load(b"a = 1\n\xff"), Err(ConfigError::NotText { line: 2, .. })));
    let long = "#".repeat(usize::try_from(MOST_BYTES).unwrap() + 1);
    assert!(matches!(load(long.as_bytes()), Err(ConfigError::TooLong { .. })));
    let error = Config::load(directory.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
}

#[test]
fn a_nest_of_keys_as_deep_as_a_file_allows_is_refused_and_no_crash() {
    let deep = "a.".repeat(60_000) + "a = 1";
    assert!(parse(&deep).is_err());
    assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
}

#[test]
fn a_proxy_shows_its_user_and_password_to_the_client_alone() {
    let config = accepted("api.proxy = 'http://me:Q1Q@proxy:3128'");
    let proxy = config.api.proxy.as_ref().unwrap();
    assert_eq!(proxy.url().password(), Some("Q1Q"));
    assert!(!format!("{config:?}").contains("Q1Q"));
    let shown = config.render();
    assert!(shown.contains("proxy = \"http://****@proxy:3128/\"\n"), "{shown}");
    assert!(accepted(&shown).api.proxy.is_some());
}

#[test]
fn each_level_is_one_of_tracing() {
    let levels = Level::WORDS.map(|(name, level)| (name, tracing::Level::from(level).to_string()));
    for (name, level) in levels {
        assert_eq!(level, name.to_uppercase());
    }
}

fn any_config() -> impl Strategy<Value = Config> {
    let path = "/[^\\p{C}/]{1,9}(/[^\\p{C}/]{1,9}){0,2}";
    let api = (1u32..=1000, 1u32..=64, 1u32..=600, proptest::option::of(path)).prop_map(
        |(per_page, max_concurrent_requests, request_timeout_s, file)| Api {
            per_page,
            max_concurrent_requests,
            request_timeout_s,
            secret_key_file: file.map(PathBuf::from),
            ..Api::default()
        },
    );
    let outbound = (any::<bool>(), 24u32..=8760, proptest::option::of("[a-z'\"\\\\]{1,30}")).prop_map(
        |(enabled, park_after_h, reconcile_tag)| Outbound {
            enabled,
            park_after_h,
            reconcile_tag,
            ..Outbound::default()
        },
    );
    let command = proptest::option::of((path, proptest::collection::vec("[^\u{0}]{0,9}", 0..3)));
    (api, 0.05f64..=1000.0, outbound, command).prop_map(|(api, rate, outbound, command)| Config {
        api,
        rate_limit: RateLimit { requests_per_second: rate, ..RateLimit::default() },
        outbound,
        alerts: Alerts { command: command.map(|(program, words)| [vec![program], words].concat()) },
        ..Config::default()
    })
}

proptest! {
    #[test]
    fn what_is_rendered_parses_back_to_the_same(config in any_config()) {
        prop_assert_eq!(accepted(&config.render()), config);
    }

    #[test]
    fn no_text_makes_it_panic(
        text in "(\\[?(api|log|inbound)\\]?|per_page|sweep_cron|proxy|=|\\.|\"|'|\\{|\\[|\\]|@|\n| |\t|\\PC){0,60}",
    ) {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_caret_never_points_past_what_is_shown(text in "([a-z\\[\\]=\"'#@顧 \t\r]{0,30}\n){0,5}") {
        if let Err(ConfigError::Invalid { problems, .. }) = parse(&text) {
            for problem in problems {
                let shown = problem.to_string();
                let lines: Vec<&str> = shown.lines().collect();
                prop_assert!(lines[3].contains('^'), "{shown}");
                prop_assert!(problem.line <= text.matches('\n').count() + 1, "{shown}");
            }
        }
    }
}
