//! Held deletions that a person approved: each is asked about again, and only who is still gone is recorded as deleted. One that
//! cannot be asked stays approved, for the next pass, and keeps nothing else from being done.

use super::inquest::{Canaries, Verdict, Warrant};
use super::{Failure, Pass, Pull};
use crate::model::CustomerId;
use crate::reconcile::evidence::CANARIES;
use crate::remote::Remote;
use crate::store::holds::{self, End};
use crate::store::mirror::Among;
use crate::store::{StoreError, mirror};

/// How many are settled before the next are looked up.
const BATCH: u32 = 64;

impl<R: Remote> Pull<R> {
    /// Settles what was approved since the last pass. What cannot be proven stays approved, for the next pass.
    pub(super) async fn settle_approved(&self, pass: &mut Pass) -> Result<(), Failure> {
        let mut after: Option<CustomerId> = None;
        loop {
            let from = after.clone();
            let read = self.store.write(move |tx| {
                let batch = holds::approved(tx, from.as_ref(), BATCH)?;
                let mut suspects = Vec::with_capacity(batch.len());
                for id in &batch {
                    let live = mirror::find(tx, id)?.is_some_and(|stored| stored.standing.is_live());
                    match (live, id.can_be_asked()) {
                        (true, true) => suspects.push(id.clone()),
                        (true, false) => holds::end(tx, id, End::Alive)?,
                        (false, _) => holds::end(tx, id, End::Deleted)?,
                    }
                }
                Ok::<_, StoreError>((batch.last().cloned(), suspects))
            });
            let (last, suspects) = read.await?;
            let Some(last) = last else { return Ok(()) };
            after = Some(last);
            let canaries = self.some_live(CANARIES, Among::Unapproved).await?;
            let canaries = match canaries.is_empty() {
                true => Canaries::NobodyLives,
                false => Canaries::Among(canaries),
            };
            let (unproven, go_on) =
                match self.hold_inquest(pass, suspects, &canaries, Warrant::Approved).await? {
                    Verdict::Settled => continue,
                    Verdict::Unproven(unproven) => (unproven, true),
                    Verdict::NoCanary(unproven) => (unproven, false),
                };
            tracing::warn!(
                customers = unproven.len(),
                "approved deletions wait: what was answered proves nothing; the next pass asks again"
            );
            if !go_on {
                return Ok(());
            }
        }
    }
}
