//! The end of a pass: writes its row and returns its report.

use super::mirror::Mirror;
use super::{Failure, Pass, Pull, Report};
use crate::remote::Remote;
use crate::store::StoreError;
use crate::store::log::{passes, recall};
use crate::store::state::clock::{self, Confirmed};
use komoju_core::{PassKind, PassOutcome, Tally, time};

/// KEEP_UNEVENTFUL controls how long passes without an event are kept: 30 days.
const KEEP_UNEVENTFUL: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

impl<R: Remote> Pull<R> {
    /// Writes the outcome of the pass and returns the report.
    pub(super) async fn finish(
        &self,
        pass: Pass,
        ended: Result<PassOutcome, Failure>,
    ) -> Result<Report, StoreError> {
        let mut tally = pass.tally;
        tally.requests = pass.requests_made + self.remote.requests() - pass.requests_before;
        let (outcome, failure) = match ended {
            Ok(outcome) => (outcome, None),
            Err(Failure::Stopped) => (PassOutcome::Interrupted, Some(Failure::Stopped)),
            Err(failure) => (PassOutcome::Failed, Some(failure)),
        };
        let now = self.clock.now();
        let (at, error) = (time::written(now), failure.as_ref().map(ToString::to_string));
        let cutoff = time::written(now.saturating_sub(KEEP_UNEVENTFUL).unwrap_or(jiff::Timestamp::MIN));
        let answered = tally.pages > 0;
        let refused = matches!(failure, Some(Failure::KeyRefused(_)));
        let (id, position, head_before) = (pass.id, pass.position, pass.head_before);
        let may_expire = self.clock.may_expire();
        let confirmed = self.clock.confirmed_time().map(|known| Confirmed {
            at: time::written(known.time),
            boot: known.boot,
            boot_ms: i64::try_from(known.up.as_millis()).unwrap_or(i64::MAX),
        });
        self.note(move |tx| {
            passes::progress(tx, id, &tally, position)?;
            passes::finish(tx, id, &at, outcome, error.as_deref())?;
            recall::start(tx, now)?;
            recall::match_changes(tx, head_before)?;
            if refused {
                passes::note_refused(tx, &at)?;
            } else if answered {
                passes::note_accepted(tx, &at)?;
            }
            if let Some(confirmed) = confirmed {
                clock::note_confirmed(tx, &confirmed)?;
            }
            if may_expire {
                passes::prune(tx, &cutoff, &at)?;
            }
            Ok(())
        })
        .await?;
        let is_whole = matches!(outcome, PassOutcome::Complete | PassOutcome::Held);
        let counts = self.read_mirror(move |view| Ok((view.held_count()?, view.new_unreadable(is_whole)?)));
        let (held, new_unreadable) = counts.await?;
        let Pass { kind, ignores_page, id, .. } = pass;
        let pass = matches!(self.mirror, Mirror::Store(_)).then_some(id);
        Ok(Report { pass, kind, outcome, tally, held, new_unreadable, ignores_page, failure })
    }

    /// Returns the report of a pass that the account guard prevented.
    pub(super) async fn report_without_pass(
        &self,
        kind: PassKind,
        failure: Failure,
    ) -> Result<Report, StoreError> {
        let failure = match failure {
            Failure::Store(e) => return Err(e),
            failure => failure,
        };
        let at = time::written(self.clock.now());
        match failure {
            Failure::KeyRefused(_) => self.note(move |tx| passes::note_refused(tx, &at)).await?,
            // The API answered this key, so it is not refused.
            Failure::OtherAccount | Failure::AccountUnclear(_) => {
                self.note(move |tx| passes::note_accepted(tx, &at)).await?;
            }
            _ => {}
        }
        let outcome =
            if matches!(failure, Failure::Stopped) { PassOutcome::Interrupted } else { PassOutcome::Failed };
        let (tally, failure) = (Tally::default(), Some(failure));
        Ok(Report {
            pass: None,
            kind,
            outcome,
            tally,
            held: 0,
            new_unreadable: 0,
            ignores_page: false,
            failure,
        })
    }
}
