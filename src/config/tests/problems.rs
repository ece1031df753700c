//! The texts of errors: each kind of mistake once, and all of them together.

use super::*;

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{text:?} gives {other:?}"),
    }
}

/// Returns the only problem of `text`: its subject, what is wrong, and what to do.
fn report(text: &str) -> String {
    let problems = problems(text);
    let [problem] = &problems[..] else { panic!("{text:?} gives {problems:#?}") };
    let help = problem.help.as_deref().unwrap_or_default();
    format!("{}: {}; {help}", problem.subject, problem.what)
}

#[test]
fn bad_value_is_refused_with_what_is_allowed() {
    let table = [
        ("api.base_url = 'komoju.com'", "expected the API's address, https://…"),
        ("api.base_url = 'ftp://komoju.com'", "expected the API's address"),
        (
            "api.base_url = 'http://komoju.com/api/v1'",
            "must begin with https://; http:// would send the secret key",
        ),
        ("api.base_url = 'http://localhost.example'", "must begin with https://"),
        ("api.base_url = 'https://key@komoju.com'", "must hold no user name or password"),
        ("api.base_url = 'https://komoju.com?a=1'", "must end with its path"),
        ("api.base_url = 'https://komoju.com#a'", "must end with its path"),
        ("api.base_url = ''", "expected the API's address"),
        ("api.api_version = ''", "expected the date of an API version"),
        ("api.api_version = 2025-01-28", "such as \"2025-01-28\", found a date or time; put it in quotes"),
        ("api.per_page = 0", "expected a whole number from 1 to 1000; customers"),
        ("api.per_page = -1", "expected a whole number from 1 to 1000"),
        ("api.per_page = 1001", "expected a whole number from 1 to 1000"),
        ("api.per_page = 99999999999999999999999999999999999999999", "from 1 to 1000"),
        ("api.per_page = 10.0", "from 1 to 1000, found a fraction"),
        ("api.per_page = 'many'", "from 1 to 1000, found a string"),
        ("api.per_page = '100'", "found a string; leave out the quotes"),
        ("api.per_page = true", "found true or false"),
        ("api.per_page = [1]", "found a list"),
        ("api.per_page = { a = 1 }", "found a table"),
        ("api.max_concurrent_requests = 65", "expected a whole number from 1 to 64"),
        ("api.request_timeout_s = 601", "expected a whole number from 1 to 600"),
        ("api.secret_key_file = 'key'", "must be an absolute path"),
        ("api.secret_key_file = ''", "is empty; leave the key out"),
        ("api.secret_key_file = '/sk_live_1'", "this looks like a secret key"),
        ("api.proxy = 'proxy:3128'", "expected the proxy's address"),
        ("api.proxy = 'socks5://proxy:3128'", "expected the proxy's address, http://host:port"),
        ("api.proxy = 'http://proxy/path'", "must end with the host or port"),
        ("rate_limit.requests_per_second = -1", "from 0.05 to 1000, or 0 for no limit"),
        ("rate_limit.requests_per_second = 0.001", "from 0.05 to 1000"),
        ("rate_limit.requests_per_second = 1001", "from 0.05 to 1000"),
        ("rate_limit.requests_per_second = nan", "from 0.05 to 1000"),
        ("rate_limit.requests_per_second = inf", "from 0.05 to 1000"),
        ("rate_limit.requests_per_second = 99999999999999999999", "from 0.05 to 1000"),
        ("rate_limit.requests_per_second = '4'", "found a string; leave out the quotes"),
        ("rate_limit.burst = 0", "from 1 to 1000; for no limit at all: requests_per_second = 0"),
        ("database.path = 'komoju.db'", "must be an absolute path"),
        ("database.path = '/var/lib/'", "must be a file, not a directory"),
        ("database.path = \"/var/\\u0000\"", "must hold no control characters"),
        ("database.path = 5", "expected a path, found a whole number; put it in quotes"),
        ("inbound.sweep_cron = '*/15 * * * *'", "put the seconds first: `0 */15 * * * *`"),
        ("inbound.probe_cron = ''", "is empty"),
        ("inbound.probe_cron = 5", "expected a cron expression, seconds first"),
        ("inbound.max_delete_count = -1", "expected a whole number from 0 to 1000000000"),
        ("inbound.max_delete_percent = 101", "expected a whole number from 0 to 100"),
        ("inbound.consistency_s = 3601", "expected a whole number from 0 to 3600"),
        ("webhook.listen = 'localhost:9188'", "write 127.0.0.1 or [::1] in place of localhost"),
        ("webhook.listen = '0.0.0.0:9188'", "other machines can reach this address; listen at 127.0.0.1"),
        ("webhook.listen = '192.0.2.1:9188'", "or set webhook.allow_public = true"),
        ("webhook.listen = '[::]:9188'", "other machines can reach this address"),
        ("webhook.allow_public = 1", "expected true or false"),
        ("webhook.path = 'komoju'", "expected a path such as \"/komoju\""),
        ("webhook.path = '/komoju?a=1'", "must consist of ASCII letters"),
        ("webhook.path = '/{a}'", "must consist of ASCII letters"),
        ("webhook.secret_file = 'secret'", "if this is the secret itself: the webhook's secret does not"),
        ("webhook.secret_file = ''", "is empty; leave the key out"),
        ("outbound.enabled = 'false'", "expected true or false, found a string; leave out"),
        ("outbound.enabled = 1", "expected true or false, found a whole number"),
        ("outbound.spool_dir = './intents'", "must be an absolute path"),
        ("outbound.park_after_h = 23", "from 24 to 8760; hours; a create must outlast"),
        ("outbound.reconcile_tag = ''", "expected a metadata key of 1 to 30 characters"),
        ("outbound.reconcile_tag = '1234567890123456789012345678901'", "of 1 to 30 characters"),
        ("outbound.reconcile_tag = ' tag'", "must have no white space around it"),
        ("http.listen = 'localhost:9187'", "write 127.0.0.1 or [::1] in place of localhost"),
        ("http.listen = ':9187'", "put 127.0.0.1 in front"),
        ("http.listen = '9187'", "expected an address and port such as"),
        ("http.listen = 'unix:run/x'", "must be an absolute path"),
        ("alerts.command = 'mail'", "must be an absolute path"),
        ("alerts.command = '/bin/mail me'", "no shell splits it; write [\"/path/of/program\""),
        ("alerts.command = []", "to have no alerts, leave the key out"),
        ("alerts.command = ['/bin/mail', 5]", "expected an argument, found a whole"),
        ("alerts.command = ['mail']", "must be an absolute path"),
        ("log.level = 'warning'", "\"debug\", \"trace\"; did you mean \"warn\"?"),
        ("log.level = 'off'", "expected one of \"error\", \"warn\", \"info\""),
        ("log.format = 'jsn'", "expected one of \"auto\", \"text\", \"json\"; did you mean \"json\"?"),
    ];
    for (text, expected) in table {
        let shown = report(text);
        let (key, _) = text.split_once(" = ").unwrap();
        assert!(shown.starts_with(&format!("{key}: ")), "{text}: {shown}");
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn value_that_is_not_toml_is_reported_in_plain_words() {
    let table = [
        ("log.level =", "a value is missing"),
        ("log.level = # later", "a value is missing"),
        ("log.level = info", "text must be in quotes"),
        ("log.level = “info”", "text must be in plain quotes, \"…\""),
        ("log.level = \"info", "invalid basic string; expected `\"`"),
        ("api.per_page = 007", "unexpected leading zero"),
    ];
    for (text, expected) in table {
        let shown = report(text);
        assert!(shown.starts_with(&format!("not valid TOML: {expected}")), "{text}: {shown}");
    }
}

#[test]
fn unknown_key_is_refused_with_the_one_that_was_meant() {
    let table = [
        ("[api]\nper_pages = 5", "api.per_pages: unknown key; did you mean `per_page`?"),
        ("[api]\nper-page = 5", "api.per-page: unknown key; did you mean `per_page`?"),
        ("[api]\nPer_Page = 5", "api.Per_Page: unknown key; did you mean `per_page`?"),
        ("[api]\nrequest_timeout = 5", "did you mean `request_timeout_s`?"),
        ("[api]\nburst = 5", "api.burst: unknown key; did you mean `burst` below [rate_limit]?"),
        ("[log]\ncolour = 5", "log.colour: unknown key; [log] has level, format"),
        ("per_page = 5", "per_page: unknown key above the first table; did you mean `per_page` below [api]?"),
        ("path = 5", "did you mean `path` below [database] or `path` below [webhook]?"),
        ("colour = 5", "each key belongs below one of [api], [rate_limit], [database], [inbound]"),
        ("[apis]\nper_page = 5", "[apis]: unknown table; did you mean [api]?"),
        ("[colours]", "[colours]: unknown table; there are [api], [rate_limit]"),
        ("api = 5", "[api]: expected a table, found a whole number; write [api] on a line"),
        ("[[api]]\nper_page = 5", "[api]: expected a table, found a list"),
        ("[api]\nsecret-key-file = '/k'", "did you mean `secret_key_file`?"),
        ("[api]\nsecret_key = 'x'", "unknown key; the secret key does not belong in this file"),
        ("secret_key = 'x'", "the secret key does not belong in this file"),
        ("[secrets]\na = 'x'", "[secrets]: unknown table; the secret key does not belong"),
    ];
    for (text, expected) in table {
        let shown = report(text);
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn six_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "\
# 顧客の同期
[api]
per_page = \"many\"
secret_key = \"sk_live_3kQ9\"
\tproxy = \"socks5://me:pass@proxy:1080\"

[inbound]
sweep_cron = \"*/15 * * * *\" # 15分ごと
max_delete_prcent = 5

[alerts]
command = [\"/usr/bin/通知\", 5]
";
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
    /etc/komoju-sync/config.toml: 6 problems
      api.per_page (line 3, column 12)
      |
    3 | per_page = "many"
      |            ^^^^^^ expected a whole number from 1 to 1000, found a string

      api.secret_key (line 4, column 1)
      |
    4 | secret_key = ****
      | ^^^^^^^^^^ unknown key
      = the secret key does not belong in this file; put it into a file of its own and name that file in api.secret_key_file

      api.proxy (line 5, column 10)
      |
    5 |     proxy = "socks5://****@proxy:1080"
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^ expected the proxy's address, http://host:port

      inbound.sweep_cron (line 8, column 14)
      |
    8 | sweep_cron = "*/15 * * * *" # 15分ごと
      |              ^^^^^^^^^^^^^^ has five fields; put the seconds first: `0 */15 * * * *`

      inbound.max_delete_prcent (line 9, column 1)
      |
    9 | max_delete_prcent = 5
      | ^^^^^^^^^^^^^^^^^ unknown key
      = did you mean `max_delete_percent`?

       alerts.command (line 12, column 27)
       |
    12 | command = ["/usr/bin/通知", 5]
       |                             ^ expected an argument, found a whole number
       = put it in quotes
    "#);
}

#[test]
fn syntax_error_hides_and_causes_no_other_problem() {
    let text = "\
[api
per_page = 50

[log]
level = info
format = \"yaml\"
";
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
    /etc/komoju-sync/config.toml: 3 problems
      not valid TOML (line 1, column 5)
      |
    1 | [api
      |     ^ unclosed table; expected `]`

      not valid TOML (line 5, column 9)
      |
    5 | level = info
      |         ^^^^ text must be in quotes

      log.format (line 6, column 10)
      |
    6 | format = "yaml"
      |          ^^^^^^ expected one of "auto", "text", "json"
    "#);
}

#[test]
fn broken_header_is_reported_once_and_not_for_each_key_below_it() {
    for text in ["[api\nper_page = 50\nburst = 5\n", "[apj\"]\nper_page = 'x'\n"] {
        assert!(report(text).starts_with("not valid TOML: "), "{text}");
    }
    let subjects: Vec<String> = problems("[api\nburst = 5\n[log]\nlevel = 'no'\n[lag]\n")
        .into_iter()
        .map(|problem| problem.subject)
        .collect();
    assert_eq!(subjects, ["not valid TOML", "log.level", "[lag]"]);
}

#[test]
fn contradicting_keys_are_reported_at_the_one_that_is_set() {
    let table = [
        "database.path = '/var/lib/komoju-sync/intents/komoju.db'",
        "outbound.spool_dir = '/var/lib/komoju-sync'",
        "database.path = '/a/b/c.db'\noutbound.spool_dir = '/a/b'",
    ];
    for text in table {
        let shown = report(text);
        assert!(shown.contains("the database must not be in the spool directory"), "{shown}");
    }
}

#[test]
fn public_webhook_listener_is_reported_at_its_address() {
    let shown = report("webhook.listen = '0.0.0.0:1'\nwebhook.allow_public = false");
    assert!(shown.starts_with("webhook.listen: other machines can reach"), "{shown}");
    accepted("webhook.listen = '0.0.0.0:1'\nwebhook.allow_public = true");
    let shown = report("webhook.secret = 'Q1Q'");
    assert!(shown.ends_with("name that file in webhook.secret_file"), "{shown}");
}

#[test]
fn file_of_another_kind_is_reported_in_one_page() {
    let error = parse(&"junk\n".repeat(500)).unwrap_err().to_string();
    assert!(error.starts_with("/etc/komoju-sync/config.toml: 500 problems\n"), "{error}");
    assert!(error.ends_with("\n… and 450 more"), "{error}");
}

#[test]
fn long_line_full_of_mistakes_is_cut_for_each() {
    let text = format!("a = [{}]", "x,".repeat(32_000));
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.len() < 20_000, "{} bytes", error.len());
}
