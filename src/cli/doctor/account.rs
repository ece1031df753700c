//! Does the key read the account that the database belongs to?

use super::Finding;
use super::api::Asked;
use super::database::{Current, Looked};
use super::key::FoundKey;
use crate::remote::Shown;

const CHECK: &str = "account";

/// What is known about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The database belongs to nobody yet, or knows nobody.
    Free,
    /// It is bound to this key.
    Bound,
    /// It is bound to another one. `Some`: whether this one's account knows a customer of the mirror.
    Other(Option<bool>),
}

pub(super) fn check(looked: Option<&Looked>, key: Option<&FoundKey>, asked: Option<&Asked>) -> Finding {
    let Some(current) = looked.and_then(|looked| looked.current.as_ref()) else {
        return Finding::skip(CHECK, "there is no database that can be read");
    };
    let stopped = current.account.as_ref().and_then(|account| account.stopped.as_ref());
    let Some(FoundKey { key, .. }) = key else {
        return match stopped {
            Some((_, at)) => stop(at),
            None => Finding::skip(CHECK, "there is no key to compare"),
        };
    };
    let standing = match &current.account {
        _ if current.live == 0 => Standing::Free,
        None => Standing::Free,
        Some(account) if account.fingerprint == key.salted_fingerprint(&account.salt) => Standing::Bound,
        Some(_) => Standing::Other(known(current, asked)),
    };
    judge(standing, stopped.map(|(_, at)| at.as_str()))
}

fn known(current: &Current, asked: Option<&Asked>) -> Option<bool> {
    current.known.as_ref()?;
    match asked?.known.as_ref()? {
        Ok(Shown::Found(_) | Shown::Unreadable(_)) => Some(true),
        Ok(Shown::NotFound) => Some(false),
        Err(_) => None,
    }
}

fn judge(standing: Standing, stopped: Option<&str>) -> Finding {
    match (standing, stopped) {
        (Standing::Bound, None) => Finding::ok(CHECK, "the key is the one that this database is bound to"),
        (Standing::Bound, Some(at)) => Finding::ok(
            CHECK,
            format!(
                "everything stopped at {at} for another key; the right one is back, and the next pass goes on"
            ),
        ),
        (Standing::Other(_), Some(at)) => stop(at),
        (Standing::Free, _) => {
            Finding::ok(CHECK, "no customer is known yet: the first pass binds the database to the key")
        }
        (Standing::Other(Some(true)), None) => {
            Finding::ok(CHECK, "the key is a new one that reads the same account: the next pass accepts it")
        }
        (Standing::Other(Some(false)), None) => Finding::waits(
            CHECK,
            "the key is not the one that this database is bound to, and does not know a customer of it",
            "put the right key back; if this one is right, the next pass stops, and `komoju-sync account accept` lets it go on",
        ),
        (Standing::Other(None), None) => Finding::warn(
            CHECK,
            "the key is not the one that this database is bound to",
            "the next pass finds out whether it reads the same account; nothing is recorded before",
        ),
    }
}

fn stop(at: &str) -> Finding {
    Finding::waits(
        CHECK,
        format!("everything stopped at {at}: the key reads another account than this database's"),
        "put the right key back and restart the daemon, or say `komoju-sync account accept`; see `komoju-sync account show`",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::*;

    #[test]
    fn only_a_key_that_reads_another_account_waits_for_a_person() {
        let exit = |standing, stopped| judge(standing, stopped).exit;
        let at = Some("2026-01-01T00:00:00.000Z");
        for (standing, alone, while_stopped) in [
            (Standing::Free, Exit::Fine, Exit::Fine),
            (Standing::Bound, Exit::Fine, Exit::Fine),
            (Standing::Other(Some(true)), Exit::Fine, Exit::Waits),
            (Standing::Other(Some(false)), Exit::Waits, Exit::Waits),
            (Standing::Other(None), Exit::Fine, Exit::Waits),
        ] {
            assert_eq!((exit(standing, None), exit(standing, at)), (alone, while_stopped), "{standing:?}");
        }
    }
}
