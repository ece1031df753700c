//! The table of keys. A row is a key's type, default and check; its struct field, the reading, the
//! rendering and the list of names follow from it.
//!
//! A new key needs a row here, its explanation in `config.example.toml` and a test of its effect in
//! `tests/it/configuration/keys.rs`.

use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;
use url::Url;

use super::check::{
    LEVELS, api_version, base_url, cadence, command, file_path, key_file, listen, metadata_key, optional,
    path, proxy, rate, secret_file, switch, url_path, whole, word,
};
use super::cron::Cadence;
use super::document::Document;
use super::names::Key;
use super::render::{Render as _, table};
use super::types::{Format, Listen, Proxy};

/// MOST_CUSTOMERS controls the largest count of customers. No merchant has more; a larger number is
/// a typing error.
const MOST_CUSTOMERS: u64 = 1_000_000_000;

/// The hours of a year.
const MOST_HOURS: u32 = 8_760;

macro_rules! keys {
    ($($(#[$about:meta])* $table:ident: $Table:ident {
        $($(#[$doc:meta])* $key:ident: $Kind:ty = $default:expr, $check:expr;)*
    })*) => {
        /// Everything that can be set: one field for each table of the file.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $(#[doc = concat!("`[", stringify!($table), "]`")] pub $table: $Table,)*
        }

        $($(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Table {
            $($(#[$doc])* pub $key: $Kind,)*
        }

        impl Default for $Table {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        })*

        /// Every key, in the order of `config.example.toml`.
        pub(super) const KEYS: &[Key] = &[$($(Key::new(stringify!($table), stringify!($key)),)*)*];

        /// Reads every key. A key that is absent or wrong has its default.
        pub(super) fn read(file: &mut Document<'_>) -> Config {
            let mut config = Config::default();
            $($(file.read(
                Key::new(stringify!($table), stringify!($key)),
                $check,
                &mut config.$table.$key,
            );)*)*
            config
        }

        impl Config {
            /// Returns the effective configuration as TOML, which parses back to the same values.
            /// Only a proxy's user name and password are masked.
            pub fn render(&self) -> String {
                let tables = [$(table(
                    stringify!($table),
                    &[$((stringify!($key), self.$table.$key.value()),)*],
                ),)*];
                tables.join("\n")
            }
        }
    };
}

keys! {
    /// How KOMOJU is called.
    api: Api {
        /// https, or http to this machine; no user, query or fragment; no slash at the end of a
        /// path.
        base_url: Url = Url::parse("https://komoju.com/api/v1").expect("the default is a URL"), base_url;
        /// The date sent as `X-KOMOJU-API-VERSION`.
        api_version: String = "2025-01-28".to_owned(), api_version;
        /// The file of the secret key, unless systemd or the environment provides the key.
        secret_key_file: Option<PathBuf> = None, optional(key_file);
        /// Customers requested in one page, 1 to 1000. KOMOJU may return fewer.
        per_page: u32 = 100, whole(1..=1_000, "customers in one answer");
        /// Requests in flight at once, 1 to 64.
        max_concurrent_requests: u32 = 4,
            whole(1..=64, "requests_per_second decides the speed; this only hides latency");
        /// Seconds one request may take, 1 to 600.
        request_timeout_s: u32 = 30, whole(1..=600, "seconds for one request, its answer included");
        /// The HTTP proxy in between; none: a direct connection to KOMOJU.
        proxy: Option<Proxy> = None, optional(proxy);
    }

    /// How fast requests follow each other.
    rate_limit: RateLimit {
        /// Requests a second, on average, 0.05 to 1000; 0: no limit.
        requests_per_second: f64 = 4.0, rate;
        /// Requests that may follow each other at once after a pause, 1 to 1000.
        burst: u32 = 4, whole(1..=1_000, "for no limit at all: requests_per_second = 0");
    }

    /// Where the mirror is.
    database: Database {
        /// The SQLite file, absolute.
        path: PathBuf = "/var/lib/komoju-sync/komoju.db".into(), file_path;
    }

    /// How changes at KOMOJU are read.
    inbound: Inbound {
        /// When the whole list is read.
        sweep_cron: Cadence = Cadence::built_in("0 */15 * * * *"), cadence;
        /// When the newest customers are read.
        probe_cron: Cadence = Cadence::built_in("30 * * * * *"), cadence;
        /// Deletions a sweep may record by itself; the larger of this and the next is the limit.
        max_delete_count: u64 = 10,
            whole(0..=MOST_CUSTOMERS, "deletions in one sweep; 0 leaves it to max_delete_percent");
        /// The same in percent of the live customers, 0 to 100.
        max_delete_percent: u32 = 5,
            whole(0..=100, "percent of the live customers; 0 leaves it to max_delete_count");
        /// How long KOMOJU's reads may lag behind its writes, in seconds; 0: they never do.
        consistency_s: u32 = 120, whole(0..=3600, "seconds; 0: reads never lag");
    }

    /// How KOMOJU's events are followed between sweeps.
    events: Events {
        /// Whether the event list is read.
        enabled: bool = true, switch;
        /// Seconds between two readings while events arrive, 1 to 3600.
        fastest_s: u32 = 10, whole(1..=3_600, "seconds between two readings while events arrive");
        /// Seconds between two readings after ten minutes without an event, 1 to 3600.
        slowest_s: u32 = 60, whole(1..=3_600, "seconds between two readings while no events arrive");
    }

    /// Where KOMOJU's webhooks are received.
    webhook: Webhook {
        /// Where to listen; none: nowhere. Public only with `allow_public`.
        listen: Option<Listen> = None, optional(listen);
        /// Whether other machines may reach `listen`.
        allow_public: bool = false, switch;
        /// The path of the URL that KOMOJU posts to, without a query.
        path: String = "/komoju".to_owned(), url_path;
        /// The file of the secret, unless systemd or the environment provides the secret.
        secret_file: Option<PathBuf> = None, optional(secret_file);
    }

    /// How intents are sent to KOMOJU.
    outbound: Outbound {
        /// Whether anything may be created, changed or deleted at KOMOJU.
        enabled: bool = true, switch;
        /// The directory for intents that are files, absolute.
        spool_dir: PathBuf = "/var/lib/komoju-sync/intents".into(), path;
        /// Open delete intents beyond which all of them wait for an operator; 0: each one waits.
        hold_deletes_over: u64 = 20,
            whole(0..=MOST_CUSTOMERS, "open delete intents; 0 makes each one wait for approval");
        /// Hours after its first attempt at which an intent parks, 24 to 8760.
        park_after_h: u32 = 72,
            whole(
                24..=MOST_HOURS,
                "hours; a create must outlast the 24 hours for which KOMOJU remembers its key",
            );
        /// The metadata key for an intent's id, 1 to 30 characters; none: creates have no such key.
        reconcile_tag: Option<String> = None, optional(metadata_key);
    }

    /// Health and metrics over HTTP.
    http: Http {
        /// Where to listen; none: nowhere.
        listen: Option<Listen> = None, optional(listen);
    }

    /// How an operator is alerted.
    alerts: Alerts {
        /// The program, absolute, and its arguments, run without a shell; none: no alerts.
        command: Option<Vec<String>> = None, optional(command);
    }

    /// What is logged, and how.
    log: Log {
        /// The least that is logged. There is no "off": a daemon that is refused must say so.
        level: Level = Level::INFO, word(&LEVELS);
        /// How a line looks.
        format: Format = Format::Auto, word(&Format::WORDS);
    }
}

impl Api {
    /// Returns how long one request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s.into())
    }
}

impl Outbound {
    /// Returns how long after its first attempt an intent parks.
    pub fn park_after(&self) -> Duration {
        Duration::from_hours(self.park_after_h.into())
    }
}
