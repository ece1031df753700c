//! What passes and pushes need besides the database: a clock, the key, the API and settings. A dry
//! run needs nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, ConfirmedTime, TrustedClock};
use crate::config::Config;
use crate::daemon::AppError;
use crate::remote::Http;
use crate::secret::SecretKey;
use crate::store::state::clock::{self as stored, Confirmed};
use crate::store::state::slowed;
use crate::store::{Conn, StoreError, read};
use crate::tasks::events::TailSettings;
use crate::tasks::pull::{DryRun, PlannedWrite, Pull, Settings};
use crate::tasks::push::PushSettings;
use komoju_core::plan::lag::Consistency;
use komoju_core::{ReducedRate, time};

/// Returns a pull that makes the requests of a real pass and writes nothing, here or at KOMOJU.
/// Each write that it plans is sent to `writes`.
///
/// # Errors
/// The database cannot be read, no key is found, or the configuration of the client cannot be used.
pub fn dry_pull(
    config: &Config,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    writes: mpsc::Sender<PlannedWrite>,
) -> Result<Pull<Http>, AppError> {
    let dry_run = DryRun::open(&config.database.path, writes)?;
    let clock = trusted_clock(clock, dry_run.read(stored::confirmed)?);
    let key = find_key(config)?;
    let remote = Http::new(config, &key, Arc::clone(&clock))?;
    let now = clock.now();
    dry_run.read(StoredPace::read)?.set(&remote, now);
    Ok(Pull::dry(dry_run, Arc::new(remote), Arc::new(key), clock, pull_settings(config, now), stop))
}

/// Returns the clock that is trusted as far as an earlier process has confirmed it.
pub(super) fn trusted_clock(clock: Arc<dyn Clock>, confirmed: Option<Confirmed>) -> Arc<dyn Clock> {
    let known = confirmed.and_then(|confirmed| {
        let up = Duration::from_millis(u64::try_from(confirmed.boot_ms).ok()?);
        Some(ConfirmedTime { time: time::read(&confirmed.at)?, boot: confirmed.boot, up })
    });
    TrustedClock::over(clock, known.as_ref())
}

/// Finds the secret key and logs the warnings about it.
pub(super) fn find_key(config: &Config) -> Result<SecretKey, AppError> {
    let (key, source) =
        SecretKey::find(config.api.secret_key_file.as_deref(), &|name| std::env::var_os(name))?;
    for warning in key.warnings(&source) {
        tracing::warn!("{warning}");
    }
    Ok(key)
}

/// How fast an earlier process was allowed to send requests.
pub(super) struct StoredPace {
    throttled_until: Option<String>,
    slowed: Option<String>,
}

impl StoredPace {
    /// Reads the pace that the database has.
    pub(super) fn read(conn: &Conn) -> Result<Self, StoreError> {
        let (_, throttled_until) = read::obstacles(conn)?;
        Ok(Self { throttled_until, slowed: slowed::get(conn)? })
    }

    /// Makes a new client wait as long, and request as slowly, as the earlier process was asked to.
    pub(super) fn set(self, remote: &Http, now: Timestamp) {
        if let Some(until) = self.throttled_until.and_then(|until| time::pause_until(&until, now)) {
            remote.pause(Duration::try_from(until.duration_since(now)).unwrap_or_default());
        }
        if let Some(slowed) = self.slowed.and_then(|text| ReducedRate::from_text(&text, now)) {
            remote.slow_down(&slowed);
        }
    }
}

/// Returns the settings of passes.
pub(super) fn pull_settings(config: &Config, now: Timestamp) -> Settings {
    Settings {
        per_page: config.api.per_page,
        max_concurrent_requests: config.api.max_concurrent_requests as usize,
        max_delete_count: config.inbound.max_delete_count,
        max_delete_percent: config.inbound.max_delete_percent,
        consistency: Consistency::seconds(config.inbound.consistency_s),
        period: config.inbound.sweep_cron.period_from(now),
        seed: rand::random(),
    }
}

/// Returns the settings of pushes.
pub(super) fn push_settings(config: &Config) -> PushSettings {
    PushSettings {
        enabled: config.outbound.enabled,
        max_concurrent_requests: config.api.max_concurrent_requests as usize,
        per_page: config.api.per_page,
        hold_deletes_over: config.outbound.hold_deletes_over,
        park_after: SignedDuration::from_hours(config.outbound.park_after_h.into()),
        reconcile_tag: config.outbound.reconcile_tag.clone(),
        consistency: Consistency::seconds(config.inbound.consistency_s),
        seed: rand::random(),
    }
}

/// Returns how the event list is read; none where `events.enabled` is false.
pub(super) fn tail_settings(config: &Config) -> Option<TailSettings> {
    let events = &config.events;
    events.enabled.then(|| TailSettings {
        per_page: config.api.per_page,
        fastest: Duration::from_secs(events.fastest_s.into()),
        slowest: Duration::from_secs(events.slowest_s.into()),
    })
}
