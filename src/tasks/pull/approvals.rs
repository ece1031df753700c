//! Held deletions that a person approved: each is asked about again, and only who is still gone is recorded as deleted.

use super::inquest::{Canaries, Verdict, Warrant};
use super::{Failure, Pass, Pull};
use crate::model::CustomerId;
use crate::remote::Remote;
use crate::store::holds::{self, End};
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
                let canaries = mirror::some_live_unapproved(tx, 3)?;
                Ok::<_, StoreError>((batch.last().cloned(), suspects, canaries))
            });
            let (last, suspects, canaries) = read.await?;
            let Some(last) = last else { return Ok(()) };
            after = Some(last);
            let canaries = match canaries.is_empty() {
                true => Canaries::NobodyLives,
                false => Canaries::Among(canaries),
            };
            if let Verdict::NoCanary(unproven) =
                self.hold_inquest(pass, suspects, &canaries, Warrant::Approved).await?
            {
                tracing::warn!(
                    customers = unproven.len(),
                    "approved deletions wait: no other customer answers, so nothing is proven; the next pass asks again"
                );
                return Ok(());
            }
        }
    }
}
