//! Approved deletions: requests each customer again, and records its deletion only if it is still
//! gone.
//!
//! A customer without a usable answer is left approved for the next pass. It delays no page,
//! because the list is read first.

use std::sync::Arc;
use std::time::Duration;

use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::HoldEnd;
use crate::store::log::mirror::LiveFilter;
use crate::store::log::unlisted;
use komoju_core::Origin;
use komoju_core::format::count;
use komoju_core::plan::absence::{AbsenceCheck, CANARIES, Canaries};
use komoju_core::plan::rows::RowSet;

/// BATCH controls how many approved customers are settled before the next ones are read.
const BATCH: u32 = 16;

/// MOST_UNCLEAR limits the requests without a usable answer. After that the remaining customers are
/// left for the next pass.
const MOST_UNCLEAR: usize = 64;

/// LONGEST_WITHOUT_ANSWERS limits the time if any request got no usable answer. After that the
/// remaining customers are left for the next pass.
const LONGEST_WITHOUT_ANSWERS: Duration = Duration::from_secs(120);

impl<R: Remote> Pull<R> {
    /// Settles the approved deletions. A deletion that cannot be proven is left approved for the
    /// next pass.
    pub(super) async fn settle_approved(&self, pass: &mut Pass) -> Result<(), Failure> {
        let began = self.clock.elapsed();
        // Start each pass at another customer, so that customers without a usable answer do not
        // block the others.
        let Some(start) = self.random_approved().await? else { return Ok(()) };
        let (times, consistency) = (self.times(), self.settings.consistency);
        let young = self.read_mirror(move |view| unlisted::young(view.conn(), consistency, times)).await?;
        let young = Arc::new(young);
        for (from, until) in [(start.clone(), None), (String::new(), Some(start))] {
            let mut after = from;
            while let Some(last) = self.settle_batch(pass, &after, until.as_deref(), &young).await? {
                after = last;
                let too_long = pass.budget.unclear() > 0
                    && self.clock.elapsed().saturating_sub(began) >= LONGEST_WITHOUT_ANSWERS;
                if pass.budget.unclear() >= MOST_UNCLEAR || too_long {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the id of a random approved customer, or an empty text to start before all of them.
    /// `None` if no deletion is approved.
    async fn random_approved(&self) -> Result<Option<String>, StoreError> {
        let roll = self.roll();
        let found = self.read_mirror(move |view| match view.approved_count()? {
            0 => Ok(None),
            count => {
                let skipped = u32::try_from(roll % count).unwrap_or(0);
                let first = view.approved("", skipped)?;
                Ok(Some(first.last().map(|id| id.as_str().to_owned()).unwrap_or_default()))
            }
        });
        found.await
    }

    /// Settles a batch of the customers after `after` and up to `until`. Returns the last id of the
    /// batch; `None` if no customer is left, or if more requests can prove nothing now.
    async fn settle_batch(
        &self,
        pass: &mut Pass,
        after: &str,
        until: Option<&str>,
        young: &Arc<RowSet>,
    ) -> Result<Option<String>, Failure> {
        let (after, until, young) = (after.to_owned(), until.map(str::to_owned), Arc::clone(young));
        let plan = move |view: &mut View<'_>| {
            let mut batch = view.approved(&after, BATCH)?;
            batch.retain(|id| until.as_deref().is_none_or(|until| id.as_str() <= until));
            let mut approved = Vec::with_capacity(batch.len());
            for id in &batch {
                match view.find(id)?.filter(|stored| stored.mirror_row.is_live()) {
                    None => view.end_hold(id, HoldEnd::Deleted)?,
                    Some(_) if !id.can_be_requested() => view.end_hold(id, HoldEnd::Alive)?,
                    // The next pass requests it.
                    Some(stored) if young.contains(stored.row) => {}
                    Some(stored) => approved.push(stored.row),
                }
            }
            Ok((batch.last().map(|id| id.as_str().to_owned()), approved))
        };
        let cause = self.cause(Origin::Lookup, Some(pass.id));
        let ((last, approved), _) = self.plan_and_apply(cause, plan, |_, _, _| Ok(())).await?;
        let answered = self.request_approved(pass, approved).await?;
        Ok(last.filter(|_| answered))
    }

    /// Requests the customers in these rows. Returns `false` if more requests can prove nothing
    /// now, because no canary answers.
    async fn request_approved(&self, pass: &mut Pass, approved: Vec<i64>) -> Result<bool, Failure> {
        let canaries = self.random_live(CANARIES, LiveFilter::Unapproved).await?;
        let canaries = if canaries.is_empty() { Canaries::NoneLeft } else { Canaries::Among(canaries) };
        let check = AbsenceCheck::of_approved(approved, canaries);
        let findings = self.check_absence(pass, check, Origin::Lookup).await?;
        let left = findings.unverified + findings.held.iter().map(|(rows, _)| rows.len() as u64).sum::<u64>();
        if left > 0 {
            tracing::warn!(
                customers = left,
                "{} not recorded: the answers prove nothing; the next pass requests the customers again",
                count(left, "approved deletion")
            );
        }
        Ok(!findings.lacks_canary)
    }
}
