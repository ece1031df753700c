//! Progress bars on standard error, with count, rate and time left. They are drawn on a terminal
//! only, and never with `NO_COLOR`.

use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::watch;

use super::terminal;
use crate::tasks::pull::{PassProgress, Phase};

/// All bars. Log lines are written around them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| match terminal::may_draw() {
    true => MultiProgress::new(),
    false => MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
});

/// Runs `write` while all bars are hidden.
pub(super) fn suspended(write: impl FnOnce()) {
    BARS.suspend(write);
}

/// Returns a bar with `of` steps; 0 while the number is unknown.
pub(super) fn bar(what: &'static str, of: u64) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(of));
    bar.set_style(style());
    bar.set_message(what);
    bar
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {rate}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = write!(text, "{:.0}/s", state.per_sec());
        })
}

/// Draws the progress of a pass until its sender is dropped.
pub(super) async fn draw(mut progress: watch::Receiver<PassProgress>) {
    let mut shown: Option<(Phase, ProgressBar)> = None;
    while progress.changed().await.is_ok() {
        let PassProgress { phase, done, of } = *progress.borrow_and_update();
        let what = match phase {
            Phase::Idle => {
                shown = None;
                continue;
            }
            Phase::Reading => "reading customers",
            Phase::Verifying => "requesting missing customers",
        };
        if shown.as_ref().is_none_or(|(drawn, _)| *drawn != phase) {
            shown = Some((phase, bar(what, of)));
        }
        if let Some((_, bar)) = &shown {
            bar.set_length(of);
            bar.set_position(done);
        }
    }
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
}
