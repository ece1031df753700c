//! The settings of passes and pushes, from the configuration and from what an earlier process
//! stored.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::remote::Http;
use crate::store::state::slowed;
use crate::store::{Store, StoreError, read};
use crate::tasks::pull::Settings;
use crate::tasks::push::PushSettings;
use komoju_core::plan::lag::Consistency;
use komoju_core::{Slowed, time};

/// Makes a new client wait as long, and request as slowly, as an earlier process was asked to.
pub(super) async fn restore_pace(store: &Store, remote: &Http, now: Timestamp) -> Result<(), StoreError> {
    let (_, throttled_until) = store.read(read::obstacles).await?;
    if let Some(until) = throttled_until.and_then(|until| time::pause_until(&until, now)) {
        remote.pause(Duration::try_from(until.duration_since(now)).unwrap_or_default());
    }
    if let Some(slowed) = store.read(slowed::get).await?.and_then(|text| Slowed::from_text(&text, now)) {
        remote.slow_down(&slowed);
    }
    Ok(())
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
