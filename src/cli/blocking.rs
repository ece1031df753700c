//! Long work on a database, in a thread of its own and with a progress bar.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::progress;
use crate::store::StoreError;
use crate::store::file::copy_job::{CopyJob, CopyProgress, CopyStep};

/// LOOK_EVERY controls how often the bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs `work` to its end. After `stop` it returns [`StoreError::Stopped`].
pub(super) async fn run_with_progress<T: Send + 'static>(
    stop: &CancellationToken,
    work: impl FnOnce(&CopyJob) -> Result<T, StoreError> + Send + 'static,
) -> anyhow::Result<T> {
    let shared = Arc::new(CopyJob::until(stop));
    let at = Arc::clone(&shared);
    let mut done = tokio::task::spawn_blocking(move || work(&shared));
    let mut shown: Option<(CopyStep, ProgressBar)> = None;
    let ended = loop {
        if let Ok(ended) = tokio::time::timeout(LOOK_EVERY, &mut done).await {
            break ended;
        }
        draw(&mut shown, at.progress());
    };
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
    Ok(ended??)
}

/// Draws the bar of the current step. Each step has a bar of its own.
fn draw(shown: &mut Option<(CopyStep, ProgressBar)>, CopyProgress { step, done, of }: CopyProgress) {
    let what = match step {
        CopyStep::Waiting => return,
        CopyStep::Copying => "copying bytes",
        CopyStep::Checking => "checking changes",
    };
    if shown.as_ref().is_none_or(|(drawn, _)| *drawn != step)
        && let Some((_, over)) = shown.replace((step, progress::bar(what, of)))
    {
        over.finish_and_clear();
    }
    if let Some((_, bar)) = shown {
        bar.set_position(done);
    }
}
