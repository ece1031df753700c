//! How fresh events keep the mirror: what was read, what is open, and how many changes they
//! reported.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::Config;
use crate::store::log::hints;
use crate::store::log::recall::{self, PushRecall, Recall};
use crate::store::state::events::{self, EventState};
use crate::store::{Conn, StoreError};
use komoju_core::format::count;
use komoju_core::{Attention, time};

/// EVENT_IS_LATE controls for how long after a push its event may still arrive.
const EVENT_IS_LATE: SignedDuration = SignedDuration::from_mins(10);

/// ENOUGH_PUSHES controls how many pushes without an event show that KOMOJU reports none.
const ENOUGH_PUSHES: u64 = 3;

/// How events are followed, as `status --json` prints it below `events`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EventsStatus {
    /// Whether the event list is read (`events.enabled`).
    pub enabled: bool,
    /// When the event list was last read.
    pub last_read_at: Option<String>,
    /// When a new event about a customer was last read or received.
    pub last_event_at: Option<String>,
    /// Since when the event list cannot be read; null while it can.
    pub off_since: Option<String>,
    /// Why the event list cannot be read.
    pub off_reason: Option<String>,
    /// When more events were new than are read at once, the last time.
    pub gap_at: Option<String>,
    /// Until when customers that events name are not requested; null while they are.
    pub paused_until: Option<String>,
    /// Why they are not requested.
    pub pause_reason: Option<String>,
    /// How many events about a customer did not name it.
    pub without_customer: u64,
    /// How many customers wait to be requested because of an event.
    pub open_hints: u64,
    /// Since when changes are counted, at most seven days ago; null before the first complete
    /// sweep.
    pub counted_since: Option<String>,
    /// How many changes were found at KOMOJU since then.
    pub changes: u64,
    /// How many of them an event reported.
    pub reported: u64,
    /// How many of our own pushes of the last 24 hours are older than ten minutes.
    pub pushes: u64,
    /// How many of these an event reported.
    pub pushes_reported: u64,
}

impl EventsStatus {
    /// Reads the state.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn read(conn: &Conn, config: &Config, now: Timestamp) -> Result<Self, StoreError> {
        let EventState { last_read_at, last_event_at, off, gap_at, paused, without_customer, .. } =
            events::read(conn)?;
        let recall = recall::read(conn, now)?;
        let PushRecall { pushes, reported: pushes_reported } =
            recall::of_pushes(conn, now.checked_sub(EVENT_IS_LATE).unwrap_or(Timestamp::MIN))?;
        let enabled = config.events.enabled;
        let (off_since, off_reason) = off.filter(|_| enabled).unzip();
        let is_paused = hints::paused_until(conn, now)?.is_some();
        let (paused_until, pause_reason) = paused.filter(|_| is_paused).unzip();
        let (changes, reported) = recall.as_ref().map_or((0, 0), |recall| (recall.changes, recall.reported));
        Ok(Self {
            enabled,
            last_read_at,
            last_event_at,
            off_since,
            off_reason,
            gap_at,
            paused_until,
            pause_reason,
            without_customer,
            open_hints: hints::open_count(conn)?,
            counted_since: recall.map(|Recall { since, .. }| since),
            changes,
            reported,
            pushes,
            pushes_reported,
        })
    }

    /// Returns how many changes sweeps and probes found, and no event reported.
    pub fn missed(&self) -> u64 {
        self.changes.saturating_sub(self.reported)
    }

    /// Returns one sentence about how many changes events reported; `None` where nothing is
    /// counted.
    pub fn sentence(&self) -> Option<String> {
        let since = time::read(self.counted_since.as_deref()?)?;
        let since = since.strftime("%A, %Y-%m-%d");
        let (changes, missed) = (self.changes, self.missed());
        let by_sweeps = match missed {
            0 => String::new(),
            1 => "; 1 was found by sweeps only".to_owned(),
            n => format!("; {n} were found by sweeps only"),
        };
        Some(match changes {
            0 => format!("no change was found since {since}"),
            n => format!("reported {} of {} since {since}{by_sweeps}", self.reported, count(n, "change")),
        })
    }

    /// Returns the conditions that are worth a report.
    pub(super) fn attention(&self) -> impl Iterator<Item = Attention> {
        let off = self.off_since.clone().zip(self.off_reason.clone());
        let paused = self.paused_until.clone().zip(self.pause_reason.clone());
        let is_unreported = self.enabled
            && self.off_since.is_none()
            && self.pushes >= ENOUGH_PUSHES
            && self.pushes_reported == 0;
        let conditions = [
            off.map(|(since, reason)| Attention::EventsOff { since, reason }),
            paused.map(|(until, reason)| Attention::HintsPaused { until, reason }),
            is_unreported.then_some(Attention::PushesUnreported { pushes: self.pushes }),
        ];
        conditions.into_iter().flatten()
    }
}
