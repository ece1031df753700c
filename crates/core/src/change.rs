//! Entries of the change log, and the mirror rows that follow from them.
//!
//! The log is the source of truth. A customer's mirror row is the [`fold`](MirrorRow::fold) of that
//! customer's entries. The same function records a change, rebuilds the mirror, verifies it, and
//! computes an earlier state.
//!
//! Each entry has a seal. Its *digest* is the SHA-256 of a random salt and the entry's text
//! ([`ChangeEntry::sealed_text`]). Its *chain* is the SHA-256 of the previous entry's chain and
//! this digest. Redaction removes content and salt and keeps the digest, so the chain stays intact.
//! Without the salt the content cannot be recovered by guessing.

use sha2::{Digest as _, Sha256};

use super::customer::CustomerId;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The chain of an empty log.
pub const EMPTY_CHAIN: Hash = [0; 32];

/// What happened to a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// The customer was seen for the first time.
    Created,
    /// At least one field differs.
    Updated,
    /// The customer is proven to be gone.
    Deleted,
    /// The customer was seen again after a deletion.
    Restored,
    /// The customer's data was redacted here, at an operator's command.
    Erased,
}

/// How a change became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A sweep read the whole list.
    Sweep,
    /// A probe read the newest customers.
    Probe,
    /// An event of the remote named the customer.
    Event,
    /// Our own push made the change.
    Intent,
    /// The customer was requested by its id.
    Lookup,
    /// An operator's command made the change.
    Operator,
}

macro_rules! names {
    ($type:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Returns the name that SQL, logs and messages use.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Parses the name that [`Self::word`] returns.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

names!(ChangeKind {
    Created = "created",
    Updated = "updated",
    Deleted = "deleted",
    Restored = "restored",
    Erased = "erased",
});
names!(Origin {
    Sweep = "sweep",
    Probe = "probe",
    Event = "event",
    Intent = "intent",
    Lookup = "lookup",
    Operator = "operator",
});

/// One entry of the change log, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEntry {
    /// The sequence number: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// The customer that changed.
    pub customer_id: CustomerId,
    /// What happened.
    pub kind: ChangeKind,
    /// When the change was observed, in the format of [`super::time`].
    pub observed_at: String,
    /// How it became known.
    pub origin: Origin,
    /// The pass that observed the change.
    pub pass_id: Option<i64>,
    /// The intent that caused the change.
    pub intent_id: Option<String>,
    /// The customer's body after the change; `None` if the customer is gone or the entry is
    /// redacted.
    pub after: Option<String>,
    /// For an erasure: the entries that it redacted, as a JSON array of their `seq`.
    pub redacts: Option<String>,
}

impl ChangeEntry {
    /// Returns the text that the digest covers: a JSON array of the fields in the order of this
    /// struct. `after` is included as text.
    pub fn sealed_text(&self) -> String {
        let fields = (
            self.seq,
            self.customer_id.as_str(),
            self.kind.word(),
            &self.observed_at,
            self.origin.word(),
            self.pass_id,
            &self.intent_id,
            &self.after,
            &self.redacts,
        );
        // Numbers and strings always serialize.
        serde_json::to_string(&fields).unwrap_or_default()
    }

    /// Returns the SHA-256 of `salt` and [`ChangeEntry::sealed_text`].
    pub fn digest(&self, salt: &[u8]) -> Hash {
        Sha256::new().chain_update(salt).chain_update(self.sealed_text()).finalize().into()
    }
}

/// Returns the chain after an entry with this digest.
pub fn chain(previous: &Hash, digest: &Hash) -> Hash {
    Sha256::new().chain_update(previous).chain_update(digest).finalize().into()
}

/// One row of the mirror: the state of one customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRow {
    /// The last known body; `None` once redacted, which the mirror never shows.
    pub body: Option<String>,
    /// When the customer was first seen.
    pub first_seen_at: String,
    /// When the customer last changed.
    pub changed_at: String,
    /// When the customer was found to be gone; `None` while it is live.
    pub deleted_at: Option<String>,
    /// The `seq` of the entry that last made the customer live.
    pub live_seq: i64,
    /// The `seq` of the customer's last entry.
    pub seq: i64,
}

impl MirrorRow {
    /// Whether the customer exists at the remote, as far as is known.
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none()
    }

    /// Returns the row after `entry`, given the row `before` it. `None` means that the mirror does
    /// not have the customer: it was never seen, or it was erased.
    pub fn fold(before: Option<Self>, entry: &ChangeEntry) -> Result<Option<Self>, ImpossibleChange> {
        let at = &entry.observed_at;
        let impossible =
            || ImpossibleChange { seq: entry.seq, kind: entry.kind, customer_id: entry.customer_id.clone() };
        match (before, entry.kind) {
            (None, ChangeKind::Created) => Ok(Some(Self {
                body: entry.after.clone(),
                first_seen_at: at.clone(),
                changed_at: at.clone(),
                deleted_at: None,
                live_seq: entry.seq,
                seq: entry.seq,
            })),
            (Some(live), ChangeKind::Updated) if live.is_live() => {
                Ok(Some(Self { body: entry.after.clone(), changed_at: at.clone(), seq: entry.seq, ..live }))
            }
            (Some(live), ChangeKind::Deleted) if live.is_live() => Ok(Some(Self {
                changed_at: at.clone(),
                deleted_at: Some(at.clone()),
                seq: entry.seq,
                ..live
            })),
            (Some(gone), ChangeKind::Restored) if !gone.is_live() => Ok(Some(Self {
                body: entry.after.clone(),
                changed_at: at.clone(),
                deleted_at: None,
                live_seq: entry.seq,
                seq: entry.seq,
                ..gone
            })),
            (Some(gone), ChangeKind::Erased) if !gone.is_live() => Ok(None),
            _ => Err(impossible()),
        }
    }
}

/// A log entry that cannot follow the customer's earlier entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "change {seq} says that customer {customer_id} was {kind}, which cannot follow what the log says before it"
)]
pub struct ImpossibleChange {
    /// The `seq` of the entry.
    pub seq: i64,
    /// The kind of the entry.
    pub kind: ChangeKind,
    /// The customer of the entry.
    pub customer_id: CustomerId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, kind: ChangeKind, after: Option<&str>) -> ChangeEntry {
        ChangeEntry {
            seq,
            customer_id: CustomerId::new("a").unwrap(),
            kind,
            observed_at: format!("2026-01-01T00:00:0{seq}.000Z"),
            origin: Origin::Sweep,
            pass_id: Some(1),
            intent_id: None,
            after: after.map(str::to_owned),
            redacts: None,
        }
    }

    #[test]
    fn changes_of_a_customer_fold_to_its_row() {
        let changes = [
            entry(1, ChangeKind::Created, Some("one")),
            entry(2, ChangeKind::Updated, Some("two")),
            entry(3, ChangeKind::Deleted, None),
            entry(4, ChangeKind::Restored, Some("three")),
        ];
        let row = changes.iter().try_fold(None, MirrorRow::fold).unwrap().unwrap();
        assert_eq!(row.body.as_deref(), Some("three"));
        assert_eq!((row.live_seq, row.seq, row.is_live()), (4, 4, true));
        assert_eq!(row.first_seen_at, "2026-01-01T00:00:01.000Z");

        let tombstone = changes[..3].iter().try_fold(None, MirrorRow::fold).unwrap().unwrap();
        assert_eq!(tombstone.body.as_deref(), Some("two"), "the last known body stays");
        assert_eq!(tombstone.deleted_at.as_deref(), Some("2026-01-01T00:00:03.000Z"));
        assert_eq!(MirrorRow::fold(Some(tombstone), &entry(4, ChangeKind::Erased, None)), Ok(None));
    }

    #[test]
    fn each_change_sets_time_and_seq_of_the_row() {
        let changes = [
            entry(1, ChangeKind::Created, Some("one")),
            entry(2, ChangeKind::Updated, Some("two")),
            entry(3, ChangeKind::Deleted, None),
            entry(4, ChangeKind::Restored, Some("three")),
            entry(5, ChangeKind::Updated, Some("four")),
        ];
        let mut row = None;
        for (entry, live_seq) in changes.iter().zip([1, 1, 1, 4, 4]) {
            row = MirrorRow::fold(row, entry).unwrap();
            let step = row.as_ref().unwrap();
            assert_eq!(
                (step.seq, step.live_seq, &step.changed_at),
                (entry.seq, live_seq, &entry.observed_at)
            );
        }
    }

    #[test]
    fn chain_is_the_digest_of_the_previous_chain_and_the_entrys_digest() {
        let chain = chain(&[0; 32], &[1; 32]);
        let text: String = chain.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5c85955f709283ecce2b74f1b1552918819f390911816e7bb466805a38ab87f3");
    }

    #[test]
    fn change_that_cannot_follow_is_refused() {
        let live = MirrorRow::fold(None, &entry(1, ChangeKind::Created, Some("one"))).unwrap();
        let gone = MirrorRow::fold(live.clone(), &entry(2, ChangeKind::Deleted, None)).unwrap();
        for kind in [ChangeKind::Updated, ChangeKind::Deleted, ChangeKind::Restored, ChangeKind::Erased] {
            assert!(MirrorRow::fold(None, &entry(1, kind, None)).is_err(), "{kind} without a row");
        }
        for kind in [ChangeKind::Created, ChangeKind::Restored, ChangeKind::Erased] {
            assert!(
                MirrorRow::fold(live.clone(), &entry(2, kind, None)).is_err(),
                "{kind} of a live customer"
            );
        }
        for kind in [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted] {
            assert!(
                MirrorRow::fold(gone.clone(), &entry(3, kind, None)).is_err(),
                "{kind} of a deleted customer"
            );
        }
    }

    #[test]
    fn sealed_text_has_the_documented_format() {
        let entry =
            ChangeEntry { after: Some("{\"id\":\"é\"}".into()), ..entry(7, ChangeKind::Updated, None) };
        let text = r#"[7,"a","updated","2026-01-01T00:00:07.000Z","sweep",1,null,"{\"id\":\"é\"}",null]"#;
        assert_eq!(entry.sealed_text(), text);
    }

    #[test]
    fn digest_covers_every_field_and_the_salt() {
        let base = entry(1, ChangeKind::Created, Some("one"));
        let other_id = CustomerId::new("b").unwrap();
        let variants = [
            ChangeEntry { seq: 2, ..base.clone() },
            ChangeEntry { customer_id: other_id, ..base.clone() },
            ChangeEntry { kind: ChangeKind::Updated, ..base.clone() },
            ChangeEntry { observed_at: "2026".into(), ..base.clone() },
            ChangeEntry { origin: Origin::Probe, ..base.clone() },
            ChangeEntry { pass_id: None, ..base.clone() },
            ChangeEntry { intent_id: Some("i".into()), ..base.clone() },
            ChangeEntry { after: None, ..base.clone() },
            ChangeEntry { redacts: Some("[1]".into()), ..base.clone() },
        ];
        for variant in variants {
            assert_ne!(variant.digest(b"salt"), base.digest(b"salt"), "{variant:?}");
        }
        assert_ne!(base.digest(b"salt"), base.digest(b"pepper"));
    }
}
