//! The claim: whether an intent may be sent now, and what its first attempt fixes for those that follow.

use jiff::Timestamp;

use super::PushSettings;
use super::ended::{Settled, legal, moment};
use crate::clock::Clock;
use crate::store::log::mirror;
use crate::store::outbox::attempts::{self, AttemptEnd};
use crate::store::outbox::delete_limit;
use crate::store::outbox::engine::{self, Frozen, Open, Words};
use crate::store::state::account;
use crate::store::{Conn, StoreError, Tx, read};
use komoju_core::intent::lifecycle::Outcome;
use komoju_core::intent::{Intent, Wish};
use komoju_core::patience::Patience;
use komoju_core::{CustomerId, time};

/// Whether anything may be pushed: pushing is on, and the key is this account's and not refused.
pub(super) fn may_push(
    conn: &Conn,
    enabled: bool,
    fingerprint_of: &impl Fn(&[u8]) -> [u8; 32],
) -> Result<bool, StoreError> {
    let (refused, _) = read::obstacles(conn)?;
    if !enabled || refused.is_some() {
        return Ok(false);
    }
    let known = account::load(conn)?;
    Ok(known.is_some_and(|account| {
        account.stopped.is_none() && account.fingerprint == fingerprint_of(&account.salt)
    }))
}

/// What a due intent became.
pub(super) enum Claimed {
    /// It is being sent from now on.
    Ready(Box<Open>),
    /// It cannot be: it was parked or rejected instead.
    NotSent(Settled),
}

/// Begins an attempt: fixes what the first one must, for those that may follow.
pub(super) fn claim(
    tx: &Tx<'_>,
    open: Open,
    settings: &PushSettings,
    clock: &dyn Clock,
    server: Option<Timestamp>,
) -> Result<Claimed, StoreError> {
    let intent = match &open.intent {
        Ok(intent) => intent.clone(),
        Err(why) => {
            return not_sent(tx, &open, format!("its row cannot be read: {why}; nothing was sent"), clock);
        }
    };
    let askable = open.customer.as_ref().is_some_and(CustomerId::can_be_asked);
    if !askable && !matches!(intent.wish, Wish::Create(_)) {
        return not_sent(tx, &open, "its customer cannot be asked for; nothing was sent".to_owned(), clock);
    }
    let frozen = match open.frozen.first_attempt_at {
        Some(_) => open.frozen.clone(),
        None => {
            let frozen = freshly_frozen(&intent, settings, clock, server);
            let base = match (&intent.wish, &open.customer) {
                (Wish::Update(_, body), Some(customer)) if body.token().is_some() => {
                    mirror::find(tx, customer)?.and_then(|stored| stored.standing.body)
                }
                _ => None,
            };
            Frozen { base, ..frozen }
        }
    };
    let life = legal(open.life.claim())?;
    let now = moment(clock);
    let patience = match open.patience.clone() {
        Some(patience) => patience.at(&now),
        None => Patience::begin(&now),
    };
    engine::own(tx, || {
        attempts::claim(tx, &open, life, &frozen, &patience, &time::written(now.wall))?;
        match intent.wish {
            Wish::Delete(_) => delete_limit::note_sent(tx, open.position, clock.boot().as_ref()),
            Wish::Create(_) | Wish::Update(..) => Ok(()),
        }
    })?;
    // What the attempt goes by is what it was before: an outcome that is unknown now was so before this attempt.
    Ok(Claimed::Ready(Box::new(Open { life, frozen, patience: Some(patience), ..open })))
}

/// Ends an intent that the triggers took and that cannot be sent. It is rejected, so that it does not block those behind it; where an
/// earlier attempt may have taken effect, it is parked.
fn not_sent(tx: &Tx<'_>, open: &Open, reason: String, clock: &dyn Clock) -> Result<Claimed, StoreError> {
    let now = moment(clock);
    let at = time::written(now.wall);
    let patience = open.patience.clone().unwrap_or_else(|| Patience::begin(&now));
    let mut words = Words { reason: Some(reason.clone()), ..Words::default() };
    let life = engine::own(tx, || {
        let life = match open.life.outcome {
            Outcome::Unknown => legal(open.life.park())?,
            Outcome::Known => {
                let sending = legal(open.life.claim())?;
                let rejected = legal(sending.reject())?;
                attempts::claim(tx, open, sending, &open.frozen, &patience, &at)?;
                let end = AttemptEnd { status: None, error: Some(reason.clone()) };
                attempts::end_attempt(tx, open, rejected, &at, &end)?;
                words.settled_at = Some(at.clone());
                rejected
            }
        };
        engine::write(tx, open.position, life, words)?;
        Ok(life)
    })?;
    Ok(Claimed::NotSent(Settled::not_sent(open, life, reason)))
}

/// What a first attempt fixes. `server`: what the server's clock says now.
pub(super) fn freshly_frozen(
    intent: &Intent,
    settings: &PushSettings,
    clock: &dyn Clock,
    server: Option<Timestamp>,
) -> Frozen {
    let (key, tag) = match &intent.wish {
        Wish::Create(body) => {
            let tag = settings.reconcile_tag.clone().filter(|tag| !body.has_metadata(tag));
            (Some(format!("{:032x}", rand::random::<u128>())), tag)
        }
        Wish::Update(..) | Wish::Delete(_) => (None, None),
    };
    let first_boot = clock.boot().map(|(boot, up)| (boot, i64::try_from(up.as_millis()).unwrap_or(i64::MAX)));
    Frozen {
        key,
        tag,
        base: None,
        first_attempt_at: Some(time::written(clock.now())),
        first_boot,
        first_server_at: server.map(time::written),
    }
}
