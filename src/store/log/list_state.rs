//! What the sweeps know of KOMOJU's list and of the lag of its reads, for reports.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::store::{Conn, StoreError};
use komoju_core::time;

/// LAG_REPORTED_FOR controls for how long a lag above `consistency_s` is reported: after
/// raising the setting, the operator must see that it helped.
const LAG_REPORTED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// NAMED_AFTER controls how many sweeps in a row do not list a customer before it is named.
const NAMED_AFTER: i64 = 3;

/// The state of the list and its reads: `list` in `status --json` (docs/status.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ListState {
    /// What was imprecise about the list in the last sweep that read it to its end, a phrase each.
    pub imprecise: Vec<String>,
    /// Whether page 2 repeated page 1 in that sweep: the API may ignore `page`.
    pub ignores_page: bool,
    /// How many live customers are not listed, but answered single requests.
    pub verified: u64,
    /// When the last of them answered.
    pub verified_at: Option<String>,
    /// How many of them were not listed by three sweeps in a row.
    pub long_unlisted: u64,
    /// The id of one of these.
    pub long_unlisted_first: Option<String>,
    /// The longest lag of a read that was measured, in seconds.
    pub longest_lag_s: Option<f64>,
    /// When a read last showed a state older than `inbound.consistency_s`, within the last seven
    /// days.
    pub lag_exceeded_at: Option<String>,
}

impl ListState {
    /// Reads the state as of `now`.
    pub fn read(conn: &Conn, now: Timestamp) -> Result<Self, StoreError> {
        let is_recent =
            |at: &String| time::read(at).is_some_and(|at| now.duration_since(at) <= LAG_REPORTED_FOR);
        let sql = "SELECT list_report, page_ignored, longest_lag_ms, lag_exceeded_at,
                          (SELECT count(*) FROM unlisted) AS verified,
                          (SELECT max(verified_at) FROM unlisted) AS verified_at,
                          (SELECT count(*) FROM unlisted WHERE since_sweep <= sweeps - ?1) AS long_unlisted,
                          (SELECT min(customer_id) FROM unlisted WHERE since_sweep <= sweeps - ?1) AS first
                   FROM meta";
        Ok(conn.query_row(sql, [NAMED_AFTER - 1], |row| {
            let report: Option<String> = row.get("list_report")?;
            let lag_ms: Option<i64> = row.get("longest_lag_ms")?;
            Ok(Self {
                imprecise: report.and_then(|report| serde_json::from_str(&report).ok()).unwrap_or_default(),
                ignores_page: row.get("page_ignored")?,
                verified: row.get("verified")?,
                verified_at: row.get("verified_at")?,
                long_unlisted: row.get("long_unlisted")?,
                long_unlisted_first: row.get("first")?,
                longest_lag_s: lag_ms.map(|ms| SignedDuration::from_millis(ms).as_secs_f64()),
                lag_exceeded_at: row.get::<_, Option<String>>("lag_exceeded_at")?.filter(is_recent),
            })
        })?)
    }

    /// Whether the list is imprecise. Single customers that a sweep or two do not list are not
    /// enough: paging skips them when an exact list moves while it is read.
    pub fn is_imprecise(&self) -> bool {
        !self.imprecise.is_empty() || self.long_unlisted > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::open;

    #[test]
    fn lag_above_the_setting_is_reported_for_seven_days() {
        let conn = open::in_memory();
        let seen: Timestamp = "2026-06-01T11:00:00Z".parse().unwrap();
        conn.execute("UPDATE meta SET lag_exceeded_at = ?1", [time::written(seen)]).unwrap();
        let reported = |now| ListState::read(&conn, now).unwrap().lag_exceeded_at;
        assert_eq!(reported(seen + LAG_REPORTED_FOR), Some(time::written(seen)));
        assert_eq!(reported(seen + LAG_REPORTED_FOR + SignedDuration::from_secs(1)), None);
    }

    #[test]
    fn customer_that_three_sweeps_do_not_list_makes_the_list_imprecise() {
        let conn = open::in_memory();
        let read = || ListState::read(&conn, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(read(), ListState::default());
        conn.execute_batch(
            "UPDATE meta SET sweeps = 4;
             INSERT INTO unlisted (customer_id, since_sweep, verified_sweep, verified_at)
             VALUES ('b', 3, 4, 'x'), ('c', 4, 4, 'y')",
        )
        .unwrap();
        let two = ListState { verified: 2, verified_at: Some("y".to_owned()), ..ListState::default() };
        assert_eq!((read().is_imprecise(), read()), (false, two.clone()));
        conn.execute_batch("UPDATE meta SET sweeps = 5").unwrap();
        let long_unlisted_first = Some("b".to_owned());
        assert_eq!(read(), ListState { long_unlisted: 1, long_unlisted_first, ..two });
        assert!(read().is_imprecise());
        assert!(ListState { imprecise: vec![String::new()], ..ListState::default() }.is_imprecise());
    }
}
