//! Which keys there are: each is read here, once, and this list is what the rest goes by.

use super::check::{
    api_version, base_url, cadence, command, key_file, listen, metadata_key, path, proxy, rate, switch,
    whole, word,
};
use super::document::Document;
use super::error::Wrong;
use super::types::{Alerts, Api, Config, Database, Format, Http, Inbound, Level, Log, Outbound, RateLimit};

/// More than any merchant has customers; a larger number is a slip of the finger.
const MOST_CUSTOMERS: u64 = 1_000_000_000;

/// A year.
const MOST_HOURS: u32 = 8_760;

/// Reads every key; what is absent or wrong has its default.
pub(super) fn config(file: &mut Document<'_>) -> Config {
    let config = Config {
        api: api(file),
        rate_limit: rate_limit(file),
        database: database(file),
        inbound: inbound(file),
        outbound: outbound(file),
        http: Http { listen: file.read("http", "listen", listen) },
        alerts: Alerts { command: file.read("alerts", "command", command) },
        log: log(file),
    };
    if config.database.path.starts_with(&config.outbound.spool_dir) {
        file.clash(
            [("database", "path"), ("outbound", "spool_dir")],
            Wrong::new("the database must not stand in the spool directory")
                .help("there, every member of the group may put files in its place"),
        );
    }
    if config.api.proxy.is_some() && config.api.base_url.scheme() == "http" {
        file.clash(
            [("api", "proxy"), ("api", "base_url")],
            Wrong::new("an http:// base_url must not go through a proxy").help(
                "the secret key would reach the proxy readably; leave api.proxy out for the local sandbox",
            ),
        );
    }
    config
}

fn api(file: &mut Document<'_>) -> Api {
    let default = Api::default();
    Api {
        base_url: file.read("api", "base_url", base_url).unwrap_or(default.base_url),
        api_version: file.read("api", "api_version", api_version).unwrap_or(default.api_version),
        secret_key_file: file.read("api", "secret_key_file", key_file),
        per_page: file
            .read("api", "per_page", whole(1..=1_000, "customers in one answer"))
            .unwrap_or(default.per_page),
        max_concurrent_requests: file
            .read(
                "api",
                "max_concurrent_requests",
                whole(1..=64, "requests_per_second decides the speed; this only hides latency"),
            )
            .unwrap_or(default.max_concurrent_requests),
        request_timeout_s: file
            .read("api", "request_timeout_s", whole(1..=600, "seconds for one request, its answer included"))
            .unwrap_or(default.request_timeout_s),
        proxy: file.read("api", "proxy", proxy),
    }
}

fn rate_limit(file: &mut Document<'_>) -> RateLimit {
    let default = RateLimit::default();
    RateLimit {
        requests_per_second: file
            .read("rate_limit", "requests_per_second", rate)
            .unwrap_or(default.requests_per_second),
        burst: file
            .read("rate_limit", "burst", whole(1..=1_000, "for no limit at all: requests_per_second = 0"))
            .unwrap_or(default.burst),
    }
}

fn database(file: &mut Document<'_>) -> Database {
    let default = Database::default();
    let path = file.read("database", "path", |value| {
        let path = path(value)?;
        match value.get_ref().as_str() {
            Some(text) if text.ends_with('/') => {
                Err(Wrong::new("must be a file, not a directory").help("add a name: …/komoju.db"))
            }
            _ => Ok(path),
        }
    });
    Database { path: path.unwrap_or(default.path) }
}

fn inbound(file: &mut Document<'_>) -> Inbound {
    let default = Inbound::default();
    Inbound {
        sweep_cron: file.read("inbound", "sweep_cron", cadence).unwrap_or(default.sweep_cron),
        probe_cron: file.read("inbound", "probe_cron", cadence).unwrap_or(default.probe_cron),
        max_delete_count: file
            .read(
                "inbound",
                "max_delete_count",
                whole(0..=MOST_CUSTOMERS, "deletions in one sweep; 0 leaves it to max_delete_percent"),
            )
            .unwrap_or(default.max_delete_count),
        max_delete_percent: file
            .read(
                "inbound",
                "max_delete_percent",
                whole(0..=100, "percent of the live customers; 0 leaves it to max_delete_count"),
            )
            .unwrap_or(default.max_delete_percent),
        consistency_s: file
            .read("inbound", "consistency_s", whole(0..=3600, "seconds; 0: reads never lag"))
            .unwrap_or(default.consistency_s),
    }
}

fn outbound(file: &mut Document<'_>) -> Outbound {
    let default = Outbound::default();
    Outbound {
        enabled: file.read("outbound", "enabled", switch).unwrap_or(default.enabled),
        spool_dir: file.read("outbound", "spool_dir", path).unwrap_or(default.spool_dir),
        hold_deletes_over: file
            .read(
                "outbound",
                "hold_deletes_over",
                whole(0..=MOST_CUSTOMERS, "open delete intents; 0 makes each one wait for approval"),
            )
            .unwrap_or(default.hold_deletes_over),
        park_after_h: file
            .read(
                "outbound",
                "park_after_h",
                whole(
                    24..=MOST_HOURS,
                    "hours; a create must outlast the 24 hours for which KOMOJU remembers its key",
                ),
            )
            .unwrap_or(default.park_after_h),
        reconcile_tag: file.read("outbound", "reconcile_tag", metadata_key),
    }
}

fn log(file: &mut Document<'_>) -> Log {
    let default = Log::default();
    Log {
        level: file.read("log", "level", word(&Level::WORDS)).unwrap_or(default.level),
        format: file.read("log", "format", word(&Format::WORDS)).unwrap_or(default.format),
    }
}
