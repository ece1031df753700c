//! Which files are accepted, and that no error shows a secret. The texts of errors: `problems`.

mod problems;

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
fn empty_file_gives_the_defaults() {
    for text in ["", "\n", "# nothing\n", "[api]\n", "\u{feff}[api]\r\n"] {
        assert_eq!(accepted(text), Config::default(), "{text:?}");
    }
}

#[test]
fn rendered_defaults_are_the_lines_of_the_example() {
    let example = include_str!("../../config.example.toml").lines().filter_map(|line| {
        let (key, set) = (line.split(' ').next()?, !line.starts_with('#'));
        // A comment has a space after its hash. A key without a default has none.
        (set || key.len() > 1)
            .then(|| if set { line.to_owned() } else { format!("# {} is not set", &key[1..]) })
    });
    let example: Vec<String> = example.filter(|line| !line.is_empty()).collect();
    let rendered = Config::default().render();
    assert_eq!(rendered.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), example);
    assert!(rendered.starts_with("[api]\nbase_url = \"https://komoju.com/api/v1\"\napi_version = "));
    assert!(rendered.contains("burst = 4\n\n[database]\n") && rendered.ends_with("\nformat = \"auto\"\n"));
}

#[test]
fn valid_values_are_accepted() {
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
    takes("webhook.listen = '[::ffff:127.0.0.1]:1'", |c| c.webhook.listen.is_some());
    takes("webhook.listen = 'unix:/run/w'", |c| !c.webhook.allow_public);
    takes("webhook.path = '/hooks/komoju.json'", |c| c.webhook.path == "/hooks/komoju.json");
    takes("alerts.command = '/bin/true'", |c| c.alerts.command == Some(vec!["/bin/true".to_owned()]));
    takes("alerts.command = ['/a b', '', 'c d']", |c| {
        c.alerts.command.as_ref().is_some_and(|words| words[1..] == ["", "c d"])
    });
    takes("log.format = 'json'", |c| c.log.format == Format::Json);
    for level in ["error", "warn", "info", "debug", "trace"] {
        let config = accepted(&format!("log.level = '{level}'"));
        assert_eq!(config.log.level, level.parse::<tracing::Level>().unwrap());
        assert!(config.render().contains(&format!("level = \"{level}\"\n")));
    }
}

#[test]
fn secret_in_a_file_is_in_no_error() {
    for text in [
        "[api]\nsecret_key = \"Q1Q\"",
        "[api]\nsecret_key = Q1Q",
        "[api]\nsecret_key = \"\"\"\nQ1Q",
        "[api]\nkey = 'Q1Q'\nper_page = ",
        "[api]\nsecret_key_file = \"Q1Q\"",
        "[api]\nsecret_key_file = [\"Q1Q\"]",
        "[webhook]\nsecret = \"Q1Q\"",
        "[webhook]\nsecret_file = \"Q1Q\"",
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
fn terminal_escapes_in_a_name_or_value_are_in_no_error() {
    let error = parse("\"\\u001b[2J\" = 1\n[inbound]\nsweep_cron = \"\\u001b * * * * *\"");
    let error = error.unwrap_err().to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn missing_file_is_reported_with_what_to_do() {
    let error = Config::load(Path::new("/nonexistent/config.toml")).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no configuration at /nonexistent/config.toml; copy config.example.toml there, \
         or name another file with --config FILE or $KOMOJU_SYNC_CONFIG"
    );
}

#[test]
fn file_that_is_no_configuration_has_its_own_error() {
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
fn deeply_nested_keys_are_refused_without_a_crash() {
    let deep = "a.".repeat(60_000) + "a = 1";
    assert!(parse(&deep).is_err());
    assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
}

#[test]
fn user_and_password_of_a_proxy_are_never_rendered() {
    let config = accepted("api.proxy = 'http://me:Q1Q@proxy:3128'");
    let proxy = config.api.proxy.as_ref().unwrap();
    assert_eq!(proxy.url().password(), Some("Q1Q"));
    assert!(!format!("{config:?}").contains("Q1Q"));
    let shown = config.render();
    assert!(shown.contains("proxy = \"http://****@proxy:3128/\"\n"), "{shown}");
    assert!(accepted(&shown).api.proxy.is_some());
}

proptest! {
    #[test]
    fn rendered_values_parse_back_to_the_same(
        (page, requests, seconds, hours) in (1u32..=1000, 1u32..=64, 1u32..=600, 24u32..=8760),
        enabled in any::<bool>(),
        rate in 0.05f64..=1000.0,
        paths in proptest::array::uniform3("/[^\\p{C}/]{1,9}(/[^\\p{C}/]{1,9}){0,2}"),
        tag in "[a-z'\"\\\\]{1,30}",
        word in "[^\u{0}]{0,9}",
    ) {
        let [file, program, database] = paths.map(toml::Value::from);
        let (tag, word) = (toml::Value::from(tag), toml::Value::from(word));
        let text = format!(
            "api.per_page = {page}\n\
             api.max_concurrent_requests = {requests}\n\
             api.request_timeout_s = {seconds}\n\
             api.secret_key_file = {file}\n\
             rate_limit.requests_per_second = {rate:?}\n\
             database.path = {database}\n\
             outbound = {{ enabled = {enabled}, park_after_h = {hours}, reconcile_tag = {tag} }}\n\
             alerts.command = [{program}, {word}]\n"
        );
        let config = accepted(&text);
        prop_assert_eq!((config.api.per_page, config.outbound.park_after_h), (page, hours));
        prop_assert_eq!((config.outbound.enabled, config.rate_limit.requests_per_second), (enabled, rate));
        checks::file(&text);
    }

    #[test]
    fn any_text_gives_a_usable_configuration_or_complete_problems(
        text in "(\\[?(api|log|inbound)\\]?|per_page|sweep_cron|proxy|=|\\.|\"|'|\\{|\\[|\\]|@|\n| |\t|\\PC){0,60}",
        lines in "([a-z\\[\\]=\"'#@顧 \t\r]{0,30}\n){0,5}",
    ) {
        checks::file(&text);
        checks::file(&lines);
    }
}
