//! Whether the key reads the account that the database belongs to.

use super::Finding;
use super::api::Asked;
use super::database::Current;
use crate::remote::CustomerAnswer;
use crate::secret::SecretKey;
use komoju_core::Attention;

const CHECK: &str = "account";

/// How the key relates to the account that the database is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyMatch {
    /// The database is bound to no account, or has no customer.
    Unbound,
    /// The database is bound to this key.
    Same,
    /// The database is bound to another key; this one's account has a customer of the mirror.
    SameAccount,
    /// The database is bound to another key; this one's account has no customer of the mirror.
    OtherAccount,
    /// The database is bound to another key; nothing else is known.
    Unknown,
}

pub(super) fn check(current: Option<&Current>, key: Option<&SecretKey>, asked: Option<&Asked>) -> Finding {
    let Some(current) = current else {
        return Finding::skip(CHECK, "there is no database that can be read");
    };
    let stopped = current.account.as_ref().and_then(|account| account.stopped.as_ref());
    let stopped = stopped.map(|(_, at)| at.as_str());
    match (key, stopped) {
        (Some(key), _) => classify(compare(current, key, asked), stopped),
        (None, Some(at)) => other_account(at),
        (None, None) => Finding::skip(CHECK, "there is no key to compare"),
    }
}

fn compare(current: &Current, key: &SecretKey, asked: Option<&Asked>) -> KeyMatch {
    let Some(account) = current.account.as_ref().filter(|_| current.live > 0) else {
        return KeyMatch::Unbound;
    };
    if account.fingerprint == key.salted_fingerprint(&account.salt) {
        return KeyMatch::Same;
    }
    match asked.and_then(|asked| asked.known.as_ref()) {
        Some(Ok(CustomerAnswer::Found(_) | CustomerAnswer::Unreadable(_))) => KeyMatch::SameAccount,
        Some(Ok(CustomerAnswer::NotFound)) => KeyMatch::OtherAccount,
        Some(Err(_)) | None => KeyMatch::Unknown,
    }
}

fn classify(key: KeyMatch, stopped: Option<&str>) -> Finding {
    let bound_to_another = "the key is not the one that this database is bound to";
    match (key, stopped) {
        (KeyMatch::Unbound, _) => {
            Finding::ok(CHECK, "no customer is known yet: the first pass binds the database to the key")
        }
        (KeyMatch::Same, None) => Finding::ok(CHECK, "the key is the one that this database is bound to"),
        (KeyMatch::Same, Some(at)) => Finding::ok(
            CHECK,
            format!(
                "everything stopped at {at} for another key; the right one is back, and the next pass goes on"
            ),
        ),
        (_, Some(at)) => other_account(at),
        (KeyMatch::SameAccount, None) => {
            Finding::ok(CHECK, "the key is a new one that reads the same account: the next pass accepts it")
        }
        (KeyMatch::OtherAccount, None) => Finding::waits(
            CHECK,
            format!("{bound_to_another}, and does not know a customer of it"),
            "put the right key back; if this one is right, the next pass stops, and `komoju-sync account accept` lets it \
             go on",
        ),
        (KeyMatch::Unknown, None) => Finding::warn(
            CHECK,
            bound_to_another,
            "the next pass finds out whether it reads the same account; nothing is recorded before",
        ),
    }
}

fn other_account(at: &str) -> Finding {
    let advice = "restart the daemon after a change of its key";
    Finding::about(CHECK, &Attention::AccountStopped(at.to_owned()), advice)
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::*;

    #[test]
    fn only_a_key_of_another_account_waits_for_an_operator() {
        let at = Some("2026-01-01T00:00:00.000Z");
        for (key, alone, while_stopped) in [
            (KeyMatch::Unbound, Exit::Fine, Exit::Fine),
            (KeyMatch::Same, Exit::Fine, Exit::Fine),
            (KeyMatch::SameAccount, Exit::Fine, Exit::Waits),
            (KeyMatch::OtherAccount, Exit::Waits, Exit::Waits),
            (KeyMatch::Unknown, Exit::Fine, Exit::Waits),
        ] {
            assert_eq!((classify(key, None).exit, classify(key, at).exit), (alone, while_stopped), "{key:?}");
        }
    }
}
