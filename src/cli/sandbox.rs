//! `sandbox`: a local KOMOJU.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::UsageError;
use super::print::{self, Out, count};
use super::{Exit, signals};
use komoju_sandbox::{Fault, Options, Readings, Sandbox, SandboxWebhook};

/// Run a local KOMOJU with seeds, drift and faults on request.
///
/// It is the customers API with a population, a movable clock, events and webhooks. Everything is
/// in memory.
///
/// While it runs, `GET /_sandbox/` on its address lists the calls that change customers, emit
/// events, register webhooks, inject faults and move its clock.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  komoju-sync sandbox --customers 1000\n  \
    komoju-sync sandbox --readings '{\"order\": \"oldest_first\", \"list_source\": \"hidden\"}'\n  \
    komoju-sync sandbox --readings '{\"total\": {\"off\": 3}, \"list_lag_s\": 10}'\n  \
    komoju-sync sandbox --readings '{\"event_lag_ms\": 2000, \"event_loss_percent\": 10}'\n  \
    komoju-sync sandbox --webhook '{\"url\": \"http://127.0.0.1:8080/komoju\", \"secret\": \"s\"}'\n  \
    KOMOJU_SECRET_KEY=sk_test_sandbox komoju-sync --config my.toml sync     (with api.base_url as printed)")]
pub(super) struct SandboxArgs {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// How many customers there are at the start.
    #[arg(long, value_name = "N", default_value_t = 100)]
    customers: u32,
    /// The same seed gives the same customers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The key it takes. Not a secret: it opens nothing but this sandbox.
    #[arg(long, value_name = "KEY", default_value = "sk_test_sandbox")]
    key: String,
    /// How long every request takes at least, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    /// For measurements: repeat the first answer to each list request from memory. Keys, changes
    /// and faults have no effect on these answers.
    #[arg(long)]
    frozen_lists: bool,
    /// How to play what KOMOJU does not say, as JSON; what is left out has its default
    ///
    /// How exact lists are:
    ///   "total": "exact", {"off": -3}, {"random": 5} (percent), "missing", "text"
    ///   "last_page": "exact", {"divisor": 25}, "floor", "missing", "null", "zero"
    ///   "filtered_every": N (each page lacks every N-th customer)
    ///   "ties": "stable", "unstable" (another order within a second at each request)
    ///   "repeated": "never", "added", "displacing" (a customer is on a page twice)
    ///   "past_end": "empty", "last_page", "not_found"
    ///   "list_times": "echoed", "absent", "null", "filled"
    ///
    /// How old reads are:
    ///   "list_lag_s", "show_lag_s": seconds
    ///   "lag_percent": how many of a hundred reads are that old
    ///
    /// How a deleted customer looks:
    ///   "deleted": "not_found", "other_code", "gone", "flagged"
    ///   "deleted_listed": "never", "flagged"
    ///
    /// How many requests are accepted:
    ///   "rate_limit": {"per_second": 2, "refused": "json_429", "retry_after": true, "ban_s": 5}
    ///     "refused": also "html_403", "html_429", "html_503"
    ///
    /// How exact the list of events is:
    ///   "events": "kept", "with_webhook", "dropped"
    ///   "event_answers": "events", "json_403", "json_404", "json_500", "html_200", "html_403",
    ///     "hang"
    ///   "event_lag_ms", "event_disorder_s", "event_retention_s": a time
    ///   "event_time": "change", "appearance"
    ///   "event_loss_percent", "event_duplicate_percent": how many of a hundred events
    ///   "event_other_percent": events of payments
    ///   "event_ties": "stable", "unstable"
    ///   "event_data": "customer", "id", "empty", "wrong"
    ///   "event_start_time", "event_end_time": "inclusive", "exclusive"
    ///
    /// How webhooks are delivered:
    ///   "webhook_delay_ms", "webhook_disorder_ms", "webhook_timeout_ms": a time
    ///   "webhook_drop_percent", "webhook_duplicate_percent",
    ///     "webhook_wrong_signature_percent": how many of a hundred
    ///   "webhook_retry_ms": a time, which doubles with each attempt
    ///   "webhook_attempts": a number
    ///
    /// "seed" draws what is random. `GET /_sandbox/readings` shows all readings with their values.
    #[arg(long, value_name = "JSON", verbatim_doc_comment)]
    readings: Option<String>,
    /// A fault from the start, as JSON (repeatable).
    #[arg(long, value_name = "JSON")]
    fault: Vec<String>,
    /// A webhook from the start, as JSON (repeatable): {"url": "http://127.0.0.1:8080/komoju",
    /// "secret": "s", "types": ["customer.updated"]}. Without types it gets every event. The
    /// receiver must be on this machine; a Unix socket is "unix:/SOCKET:/PATH".
    #[arg(long, value_name = "JSON")]
    webhook: Vec<String>,
    /// Write the base URL to this file once it listens.
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
}

pub(super) fn run(args: &SandboxArgs) -> anyhow::Result<Exit> {
    let usage = |what: &str, e: serde_json::Error| UsageError(format!("{what} cannot be read: {e}"));
    let readings: Option<Readings> =
        args.readings.as_deref().map(serde_json::from_str).transpose().map_err(|e| usage("--readings", e))?;
    let faults: Vec<Fault> = args
        .fault
        .iter()
        .map(|fault| serde_json::from_str(fault).map_err(|e| usage("--fault", e)))
        .collect::<Result<_, _>>()?;
    let webhooks: Vec<SandboxWebhook> = args
        .webhook
        .iter()
        .map(|webhook| serde_json::from_str(webhook).map_err(|e| usage("--webhook", e)))
        .collect::<Result<_, _>>()?;
    let options = Options {
        listen: args.listen,
        key: args.key.clone(),
        seed: args.seed,
        customers: args.customers,
        readings: readings.unwrap_or_default(),
        now: None,
        latency: Duration::from_millis(args.latency_ms),
        frozen_lists: args.frozen_lists,
    };
    signals::until_stopped(Exit::Fine, |stop| async move {
        let sandbox = Sandbox::start(options).await?;
        for fault in faults {
            sandbox.world().inject(fault);
        }
        for webhook in webhooks {
            sandbox.world().register_webhook(webhook).map_err(|e| UsageError(format!("--webhook: {e}")))?;
        }
        let mut out = Out::new();
        out.line(&sandbox.base_url())?;
        out.finish()?;
        if let Some(file) = &args.url_file {
            // Rename it into place, so that a waiting program reads the complete file.
            let new = file.with_extension("new");
            std::fs::write(&new, sandbox.base_url())?;
            std::fs::rename(&new, file)?;
        }
        print::note(&format!("{}; key {}; Ctrl-C ends it", count(args.customers, "customer"), args.key));
        stop.cancelled().await;
        sandbox.stop().await;
        Ok(Exit::Fine)
    })
}
