//! Decides what one read of a customer means for the mirror and the change log. The read is a list
//! or the customer's own GET.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::comparison;
use super::lag::{self, Consistency, DeferredRead, ReadReason, RecentChange};
use crate::{ChangeKind, Customer, CustomerId, MirrorRow, Source};

/// PUSH_DURATION controls how soon a customer with a push in progress is requested again: at the
/// earliest this long after the read.
const PUSH_DURATION: SignedDuration = SignedDuration::from_secs(1);

/// What is known about the customer when the read is compared.
#[derive(Clone, Copy, Debug)]
pub struct KnownCustomer<'a> {
    /// Its row in the mirror, live or deleted.
    pub mirror: Option<&'a MirrorRow>,
    /// The entries of its log, newest first, at least as far back as reads may lag.
    pub recent: &'a [RecentChange],
    /// Our own push at the time of the read.
    pub push: OwnPush,
}

/// Our own push of a customer at the time of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPush {
    /// There is no such push.
    None,
    /// A push is in progress, or settled after the read was requested. Its answer is newer than the
    /// read.
    Newer,
    /// A create is in progress that may have made this customer. The mirror does not have the
    /// customer.
    MayHaveCreated,
}

/// How a customer was read.
#[derive(Clone, Copy, Debug)]
pub struct ReadContext {
    /// The request that read it.
    pub by: ReadBy,
    /// When the request was sent, by the clock that dates the log.
    pub requested_at: Timestamp,
    /// Why the customer was read.
    pub reason: ReadReason,
    /// How long reads may lag behind writes.
    pub consistency: Consistency,
}

/// The request that read a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// The list. A later pass reads the customer again.
    List,
    /// The customer's own GET.
    Lookup,
}

/// What is done about a read.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerPlan {
    /// Do nothing: the mirror shows the same.
    Keep,
    /// Record this change.
    Record(ChangeKind, Customer),
    /// Do not apply the read, because it may be older than the log. Request the customer again.
    Defer(Customer, DeferredRead),
    /// Do not apply the read, because our own push is newer. Request the customer again at this
    /// time.
    ReadAgain(CustomerId, Timestamp),
    /// Do not apply the read, because our own push is newer. The next pass reads the customer
    /// again.
    Ignore(CustomerId),
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// What to do.
    pub plan: CustomerPlan,
    /// What the answer shows of the payment source.
    pub source: Source,
}

impl fmt::Display for CustomerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("unchanged"),
            Self::Record(kind, customer) => write!(f, "record {} as {kind}", customer.id()),
            Self::Defer(customer, deferred) => write!(
                f,
                "defer {}, because the read may be older than the log: request it again at {:.0}",
                customer.id(),
                deferred.until
            ),
            Self::ReadAgain(id, at) => {
                write!(
                    f,
                    "ignore the read of {id}, because our own push is newer: request it again at {at:.0}"
                )
            }
            Self::Ignore(id) => {
                write!(f, "ignore the read of {id}, because our own push is newer: the next pass reads it")
            }
        }
    }
}

impl Observation {
    /// Compares a read with what is known.
    pub fn new(shown: Customer, known: KnownCustomer<'_>, read: ReadContext) -> Self {
        let id = shown.id().clone();
        let soon = read
            .consistency
            .after(read.requested_at)
            .max(read.requested_at.checked_add(PUSH_DURATION).unwrap_or(Timestamp::MAX));
        let unapplied = |plan| Self { plan, source: Source::Absent };
        match (known.mirror, known.push, read.by) {
            // The create's own answer records the customer. This request is for an answer that
            // never arrives.
            (None, OwnPush::MayHaveCreated, _) => return unapplied(CustomerPlan::ReadAgain(id, soon)),
            (Some(_), OwnPush::Newer, ReadBy::List) => return unapplied(CustomerPlan::Ignore(id)),
            // The push may be rejected, or its answer may show no customer.
            (Some(_), OwnPush::Newer, ReadBy::Lookup) => {
                return unapplied(CustomerPlan::ReadAgain(id, soon));
            }
            _ => {}
        }
        let Some(stored) = known.mirror else { return Self::applied(shown, None) };
        let observation = Self::applied(shown.clone(), Some(stored));
        if observation.plan == CustomerPlan::Keep {
            return observation;
        }
        let lagging =
            lag::DifferingRead { shown: &shown, requested_at: read.requested_at, reason: read.reason };
        match lag::check(lagging, known.recent, read.consistency) {
            Some(deferred) => unapplied(CustomerPlan::Defer(shown, deferred)),
            None => observation,
        }
    }

    fn applied(shown: Customer, stored: Option<&MirrorRow>) -> Self {
        let comparison = comparison::compare(shown, stored);
        let plan = match comparison.change {
            Some((kind, customer)) => CustomerPlan::Record(kind, customer),
            None => CustomerPlan::Keep,
        };
        Self { plan, source: comparison.source }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Origin;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn customer(email: &str) -> Customer {
        Customer::from_value(json!({"id": "c", "email": email})).unwrap()
    }

    fn stored(email: &str) -> MirrorRow {
        MirrorRow {
            body: Some(customer(email).body().to_owned()),
            first_seen_at: "t".into(),
            changed_at: "t".into(),
            deleted_at: None,
            live_seq: 1,
            seq: 1,
        }
    }

    fn read(by: ReadBy, consistency: u32) -> ReadContext {
        ReadContext {
            by,
            requested_at: at(100),
            reason: ReadReason::Pass,
            consistency: Consistency::seconds(consistency),
        }
    }

    fn plan(mirror: Option<&MirrorRow>, push: OwnPush, read: ReadContext) -> CustomerPlan {
        Observation::new(customer("new"), KnownCustomer { mirror, recent: &[], push }, read).plan
    }

    #[test]
    fn customer_is_created_kept_or_updated() {
        let list = read(ReadBy::List, 60);
        assert_eq!(
            plan(None, OwnPush::None, list),
            CustomerPlan::Record(ChangeKind::Created, customer("new"))
        );
        assert_eq!(plan(Some(&stored("new")), OwnPush::None, list), CustomerPlan::Keep);
        let updated = plan(Some(&stored("old")), OwnPush::None, list);
        assert_eq!(updated.to_string(), "record c as updated");
    }

    #[test]
    fn customer_that_our_create_may_have_made_is_requested_again_and_not_recorded() {
        for by in [ReadBy::List, ReadBy::Lookup] {
            let again = |consistency| plan(None, OwnPush::MayHaveCreated, read(by, consistency));
            let id = CustomerId::new("c").unwrap();
            assert_eq!(again(60), CustomerPlan::ReadAgain(id.clone(), at(160)));
            assert_eq!(again(0), CustomerPlan::ReadAgain(id, at(101)), "a push takes a second at least");
        }
        let known = plan(Some(&stored("old")), OwnPush::MayHaveCreated, read(ReadBy::List, 60));
        assert!(matches!(known, CustomerPlan::Record(..)), "the mirror has it: our create made another one");
    }

    #[test]
    fn read_during_our_own_push_is_not_applied() {
        let stored = stored("old");
        let listed = plan(Some(&stored), OwnPush::Newer, read(ReadBy::List, 60));
        assert_eq!(
            listed.to_string(),
            "ignore the read of c, because our own push is newer: the next pass reads it"
        );
        let looked_up = plan(Some(&stored), OwnPush::Newer, read(ReadBy::Lookup, 60));
        assert_eq!(looked_up, CustomerPlan::ReadAgain(CustomerId::new("c").unwrap(), at(160)));
    }

    #[test]
    fn read_that_may_be_older_than_the_log_is_deferred_unless_it_is_unchanged() {
        let recent = [RecentChange {
            kind: ChangeKind::Updated,
            origin: Origin::Intent,
            at: at(90),
            replaced: Some(customer("old").body().to_owned()),
        }];
        let mirror = stored("pushed");
        let known = KnownCustomer { mirror: Some(&mirror), recent: &recent, push: OwnPush::None };
        let observe = |email| Observation::new(customer(email), known, read(ReadBy::List, 60)).plan;
        let CustomerPlan::Defer(shown, deferred) = observe("old") else { panic!("applied") };
        assert_eq!((shown, deferred.until, deferred.is_replaced), (customer("old"), at(150), true));
        assert_eq!(observe("pushed"), CustomerPlan::Keep);
    }
}
