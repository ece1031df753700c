//! Whether the mirror can be relied on, and why not.

use std::time::Duration;

use crate::daemon::status::Standing;

/// How things stand is observed at least every half minute, unless the database cannot be read.
const UNREADABLE_AFTER: Duration = Duration::from_secs(90);

/// One sentence each; none: ready. What waits for a person (a hold, a parked intent) is no reason: the mirror is true all the same,
/// and alerts tell of it. `observed` is how long ago `standing` was. No reason holds a text from elsewhere.
pub(super) fn reasons(standing: Option<&Standing>, observed: Option<Duration>) -> Vec<String> {
    let Some(standing) = standing else {
        return vec!["the daemon has just started and not observed its state yet".to_owned()];
    };
    let mut reasons = Vec::new();
    if let Some(ago) = observed.filter(|ago| *ago > UNREADABLE_AFTER) {
        reasons.push(format!(
            "the database could not be read for {} s: another program keeps it locked",
            ago.as_secs()
        ));
    }
    if let Some(since) = &standing.key_refused_since {
        reasons.push(format!(
            "the API refuses the key since {since}: put the right one in place and restart the service"
        ));
    }
    if let Some(since) = &standing.account_stopped_since {
        reasons.push(format!(
            "everything is stopped since {since}, for the key reads another account: see `komoju-sync account show`"
        ));
    }
    if standing.stale {
        reasons.push(match standing.mirror.text("last_sweep_at") {
            Some(at) => format!(
                "the last complete sweep ended at {at}, longer ago than three periods of inbound.sweep_cron: see \
                 `komoju-sync status`"
            ),
            None => "no sweep is complete yet: `komoju-sync status` tells how far the first one is".to_owned(),
        });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::config::Config;
    use crate::store::log::passes;
    use crate::store::{Reader, Store};

    #[tokio::test]
    async fn a_database_that_cannot_be_read_for_long_is_a_reason_and_one_that_is_quiet_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let store = Store::open(&path).unwrap();
        let now = SystemClock::new().now();
        let at = komoju_core::time::written(now);
        let swept = move |tx: &crate::store::Tx<'_>| {
            let id = passes::start(tx, komoju_core::PassKind::Sweep, &at)?;
            passes::finish(tx, id, &at, komoju_core::Outcome::Held, None)
        };
        store.write(swept).await.unwrap();
        let standing = Standing::read(&Reader::open(&path).unwrap(), &Config::default(), now).unwrap();
        let after = |seconds: u64| reasons(Some(&standing), Some(Duration::from_secs(seconds)));
        assert_eq!([after(0), after(60)], [const { Vec::<String>::new() }; 2], "a held sweep is complete");
        assert_eq!(after(91), ["the database could not be read for 91 s: another program keeps it locked"]);
        assert_eq!(reasons(None, None).len(), 1);
    }
}
