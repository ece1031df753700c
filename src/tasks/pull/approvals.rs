//! Held deletions that an operator approved: each customer is requested again, and recorded as deleted only if it is still gone. One
//! without a usable answer stays approved, for the next pass, and holds up nothing else: the list is read first.

use std::sync::Arc;
use std::time::Duration;

use super::inquest::{Canaries, Warrant};
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::{self, End};
use crate::store::log::mirror::{self, Among};
use crate::store::log::unlisted;
use komoju_core::CustomerId;
use komoju_core::plan::evidence::CANARIES;
use komoju_core::plan::rows::RowSet;
use komoju_core::words::count;

/// How many are settled before the next are looked up.
const BATCH: u32 = 16;

/// After so many questions without a usable answer the rest is left for the next pass.
const MOST_UNCLEAR: usize = 64;

/// Where questions bring no usable answers, the rest is left for the next pass after so long.
const LONGEST_WITHOUT_ANSWERS: Duration = Duration::from_secs(120);

impl<R: Remote> Pull<R> {
    /// Settles what was approved since the last pass. What cannot be proven stays approved, for the next pass.
    pub(super) async fn settle_approved(&self, pass: &mut Pass) -> Result<(), Failure> {
        let began = self.clock.elapsed();
        // Each pass begins with somebody else, so that those who cannot be asked do not keep all others waiting.
        let Some(start) = self.some_approved().await? else { return Ok(()) };
        let young = self.young().await?;
        for (from, until) in [(start.clone(), None), (String::new(), Some(start))] {
            let mut after = from;
            while let Some(last) = self.settle_batch(pass, &after, until.as_deref(), &young).await? {
                after = last;
                let too_long =
                    pass.unclear > 0 && self.clock.elapsed().saturating_sub(began) >= LONGEST_WITHOUT_ANSWERS;
                if pass.unclear >= MOST_UNCLEAR || too_long {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Some approved customer's id, or the empty text before them all; `None` where nobody is approved.
    async fn some_approved(&self) -> Result<Option<String>, StoreError> {
        let roll = self.roll();
        let found = self.store.read(move |conn| match holds::approved_count(conn)? {
            0 => Ok(None),
            count => {
                let skipped = u32::try_from(roll % count).unwrap_or(0);
                let first = holds::approved(conn, "", skipped)?;
                Ok(Some(first.last().map(|id| id.as_str().to_owned()).unwrap_or_default()))
            }
        });
        found.await
    }

    /// The mirror's rows of customers so young that a read of them may be from before they existed: the next pass requests them.
    async fn young(&self) -> Result<Arc<RowSet>, StoreError> {
        let ((now, server_now), consistency) = (self.times(), self.settings.consistency);
        let found = self.store.read(move |conn| {
            let mut young = RowSet::default();
            unlisted::each_young(conn, consistency, now, server_now, |row| {
                young.insert(row);
            })?;
            Ok(Arc::new(young))
        });
        found.await
    }

    /// Settles a batch of those after `after` and up to `until`; returns the last of it, or that there is nobody left to ask now.
    async fn settle_batch(
        &self,
        pass: &mut Pass,
        after: &str,
        until: Option<&str>,
        young: &Arc<RowSet>,
    ) -> Result<Option<String>, Failure> {
        let (after, until, young) = (after.to_owned(), until.map(str::to_owned), Arc::clone(young));
        let read = self.store.write(move |tx| {
            let mut batch = holds::approved(tx, &after, BATCH)?;
            batch.retain(|id| until.as_deref().is_none_or(|until| id.as_str() <= until));
            let mut suspects = Vec::with_capacity(batch.len());
            for id in &batch {
                let stored = mirror::find(tx, id)?;
                let row = stored.as_ref().map_or(0, |stored| stored.row);
                let live = stored.is_some_and(|stored| stored.standing.is_live());
                match (live, id.can_be_asked()) {
                    (true, true) if young.contains(row) => {}
                    (true, true) => suspects.push(id.clone()),
                    (true, false) => holds::end(tx, id, End::Alive)?,
                    (false, _) => holds::end(tx, id, End::Deleted)?,
                }
            }
            Ok((batch.last().map(|id| id.as_str().to_owned()), suspects))
        });
        let (last, suspects) = read.await?;
        let answered = self.ask_approved(pass, suspects).await?;
        Ok(last.filter(|_| answered))
    }

    /// Requests them; whether it makes sense to request more.
    async fn ask_approved(&self, pass: &mut Pass, suspects: Vec<CustomerId>) -> Result<bool, Failure> {
        let canaries = self.some_live(CANARIES, Among::Unapproved).await?;
        let canaries = match canaries.is_empty() {
            true => Canaries::NoneLeft,
            false => Canaries::Among(canaries),
        };
        let verdict = self.hold_inquest(pass, suspects, &canaries, Warrant::Approved).await?;
        let left = verdict.unproven.len() + verdict.unknown.len();
        if left > 0 {
            tracing::warn!(
                customers = left,
                "{} not recorded: what was answered proves nothing; the next pass requests them again",
                count(left as u64, "approved deletion")
            );
        }
        Ok(!verdict.lacks_canary)
    }
}
