//! The reasons for which the mirror cannot be relied on.

use std::time::Duration;

use crate::daemon::status::Status;
use komoju_core::Attention;

/// UNREADABLE_AFTER controls how old a status may be. One is observed at least every half minute,
/// unless the database cannot be read.
const UNREADABLE_AFTER: Duration = Duration::from_secs(90);

/// Returns one sentence for each reason; no sentence: ready. `now` is by the steady clock. A
/// decision that waits for an operator is no reason, because the mirror is still true and an alert
/// reports it. No reason contains a text from outside.
pub(super) fn reasons(status: Option<&Status>, now: Duration) -> Vec<String> {
    let Some(status) = status else { return vec![Attention::Unobserved.to_string()] };
    let age = now.saturating_sub(status.observed_at);
    let locked = (age > UNREADABLE_AFTER).then_some(Attention::DatabaseLocked { for_s: age.as_secs() });
    let all = locked.iter().chain(&status.attention);
    all.filter(|attention| attention.makes_unready()).map(Attention::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::config::Config;
    use crate::store::log::passes;
    use crate::store::{Reader, Store};

    #[tokio::test]
    async fn database_locked_for_long_makes_unready_and_an_unchanged_one_does_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("komoju.db");
        let store = Store::open(&path).unwrap();
        let now = SystemClock::new().now();
        let at = komoju_core::time::written(now);
        let swept = move |tx: &crate::store::Tx<'_>| {
            let id = passes::start(tx, komoju_core::PassKind::Sweep, &at)?;
            passes::finish(tx, id, &at, komoju_core::PassOutcome::Held, None)
        };
        store.write(swept).await.unwrap();
        let status = Status::read(&Reader::open(&path).unwrap(), &Config::default(), now).unwrap();
        let after = |seconds: u64| reasons(Some(&status), Duration::from_secs(seconds));
        assert_eq!([after(0), after(60)], [const { Vec::<String>::new() }; 2], "a held sweep is complete");
        assert_eq!(after(91), [Attention::DatabaseLocked { for_s: 91 }.to_string()]);
        assert_eq!(reasons(None, Duration::ZERO), [Attention::Unobserved.to_string()]);
    }
}
