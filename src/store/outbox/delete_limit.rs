//! The limit on deletes (`outbound.hold_deletes_over`): which deletes count, and which are held for
//! an operator.
//!
//! Deletes count that are open and not approved, or were sent without approval within the last
//! hour. Without the second part, a loop that submits deletes as slowly as they are pushed never
//! reaches the limit. The hour is measured by the clock of this boot, because the wall clock can be
//! set. So the count survives a restart of the daemon, but starts at zero after a reboot.

use std::time::Duration;

use rusqlite::params;

use crate::store::outbox::engine;
use crate::store::{Conn, StoreError, Tx};

/// COUNTED_FOR controls for how long a delete that was sent without approval counts.
const COUNTED_FOR: Duration = Duration::from_secs(60 * 60);

/// The id of the machine's boot, and the time since it.
pub type BootTime = (String, Duration);

/// Records that an attempt at this delete begins. It has no effect on other intents.
pub fn note_sent(tx: &Tx<'_>, position: i64, boot: Option<&BootTime>) -> Result<(), StoreError> {
    let (boot, ms) = boot.map(|(boot, up)| (boot, millis(*up))).unzip();
    tx.prepare_cached(
        "UPDATE outbox SET sent_boot = ?2, sent_boot_ms = ?3 WHERE position = ?1 AND is_delete = 1",
    )?
    .execute(params![position, boot, ms])?;
    Ok(())
}

/// Returns how many deletes count against the limit now.
pub fn counted(conn: &Conn, boot: Option<&BootTime>) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM outbox WHERE is_delete = 1 AND is_open = 1 AND approved = 0";
    let open: u64 = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let Some((boot, up)) = boot else { return Ok(open) };
    // A rejected or cancelled delete deleted nothing.
    let sent: u64 = conn
        .prepare_cached(
            "SELECT count(*) FROM outbox CROSS JOIN intents USING (position)
             WHERE sent_boot = ?1 AND sent_boot_ms > ?2 AND is_open = 0 AND approved = 0 AND state = 'done'",
        )?
        .query_row(params![boot, millis(*up) - millis(COUNTED_FOR)], |row| row.get(0))?;
    Ok(open + sent)
}

/// Holds every queued delete that is not approved, if more than `over` deletes count. A held delete
/// stays held until an operator approves it.
pub fn hold(tx: &Tx<'_>, over: u64, boot: Option<&BootTime>) -> Result<(), StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM outbox CROSS JOIN intents USING (position)
               WHERE is_delete = 1 AND is_open = 1 AND held = 0 AND approved = 0 AND state = 'queued')";
    let is_any_queued: bool = tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    if !is_any_queued || counted(tx, boot)? <= over {
        return Ok(());
    }
    engine::as_engine(tx, || {
        tx.execute(
            "UPDATE intents SET reason = 'more than outbound.hold_deletes_over = ' || ?1
                 || ' deletes are open or were sent within the last hour: waits for `komoju-sync intent approve`'
             WHERE state = 'queued'
               AND position IN (SELECT position FROM outbox WHERE is_delete = 1 AND is_open = 1 AND held = 0 AND approved = 0)",
            [over],
        )?;
        tx.execute(
            "UPDATE outbox SET held = 1 WHERE is_delete = 1 AND is_open = 1 AND held = 0 AND approved = 0
                 AND position IN (SELECT position FROM intents WHERE state = 'queued')",
            [],
        )?;
        Ok(())
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
