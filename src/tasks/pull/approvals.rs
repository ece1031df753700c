//! Held deletions that an operator approved: each customer is requested again, and recorded as deleted only if it is still gone. One
//! without a usable answer stays approved, for the next pass, and holds up nothing else: the list is read first.

use std::sync::Arc;
use std::time::Duration;

use super::view::View;
use super::{Failure, Pass, Pull};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::holds::End;
use crate::store::log::mirror::Among;
use crate::store::log::unlisted;
use komoju_core::Origin;
use komoju_core::format::count;
use komoju_core::plan::absence::{AbsenceCheck, CANARIES, Canaries};
use komoju_core::plan::rows::RowSet;

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
        let (times, consistency) = (self.times(), self.settings.consistency);
        let young = self.look(move |view| unlisted::young(view.conn(), consistency, times)).await?;
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

    /// Some approved customer's id, or the empty text before them all; `None` where nobody is approved.
    async fn some_approved(&self) -> Result<Option<String>, StoreError> {
        let roll = self.roll();
        let found = self.look(move |view| match view.approved_count()? {
            0 => Ok(None),
            count => {
                let skipped = u32::try_from(roll % count).unwrap_or(0);
                let first = view.approved("", skipped)?;
                Ok(Some(first.last().map(|id| id.as_str().to_owned()).unwrap_or_default()))
            }
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
        let plan = move |view: &mut View<'_>| {
            let mut batch = view.approved(&after, BATCH)?;
            batch.retain(|id| until.as_deref().is_none_or(|until| id.as_str() <= until));
            let mut approved = Vec::with_capacity(batch.len());
            for id in &batch {
                match view.find(id)?.filter(|stored| stored.standing.is_live()) {
                    None => view.end_hold(id, End::Deleted)?,
                    Some(_) if !id.can_be_requested() => view.end_hold(id, End::Alive)?,
                    // The next pass requests it.
                    Some(stored) if young.contains(stored.row) => {}
                    Some(stored) => approved.push(stored.row),
                }
            }
            Ok((batch.last().map(|id| id.as_str().to_owned()), approved))
        };
        let cause = self.cause(Origin::Lookup, Some(pass.id));
        let ((last, approved), _) = self.plan_and_apply(cause, plan, |_, _, _| Ok(())).await?;
        let answered = self.ask_approved(pass, approved).await?;
        Ok(last.filter(|_| answered))
    }

    /// Requests the customers in these rows; returns whether requesting more can prove anything now.
    async fn ask_approved(&self, pass: &mut Pass, approved: Vec<i64>) -> Result<bool, Failure> {
        let canaries = self.some_live(CANARIES, Among::Unapproved).await?;
        let canaries = if canaries.is_empty() { Canaries::NoneLeft } else { Canaries::Among(canaries) };
        let check = AbsenceCheck::of_approved(approved, canaries);
        let findings = self.check_absence(pass, check, Origin::Lookup).await?;
        let left = findings.unverified + findings.held.iter().map(|(rows, _)| rows.len() as u64).sum::<u64>();
        if left > 0 {
            tracing::warn!(
                customers = left,
                "{} not recorded: what was answered proves nothing; the next pass requests them again",
                count(left, "approved deletion")
            );
        }
        Ok(!findings.lacks_canary)
    }
}
