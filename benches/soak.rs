//! A soak: the daemon against a local KOMOJU for as long as asked, while customers change, intents
//! arrive through every door, faults fire, and the daemon is killed and stopped. At the end it
//! prints a ledger, and exits 1 if anything is wrong.
//!
//! `cargo bench --bench soak -- --for 30m`; `--help` explains the options.

#![expect(clippy::unwrap_used, reason = "a panic ends a soak that cannot continue")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the ledger is the output")]
#![expect(clippy::disallowed_methods, reason = "a soak lasts real time")]

#[path = "soak/daemon.rs"]
mod daemon;
#[path = "soak/doors.rs"]
mod doors;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "soak/outcomes.rs"]
mod outcomes;
#[path = "soak/trouble.rs"]
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use komoju_sandbox::{Options, Sandbox};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use daemon::Installation;
use doors::Dropper;
use ledger::Ledger;

/// Runs the daemon against a local KOMOJU under faults and kills, and proves at the end that
/// nothing was lost
#[derive(Parser, Clone, Debug)]
#[command(bin_name = "cargo bench --bench soak --")]
struct Plan {
    /// How long: 90s, 30m, 8h
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = time)]
    lasts: Duration,
    /// How many customers there are at the start
    #[arg(long, value_name = "N", default_value_t = 2000)]
    customers: u32,
    /// The seed of all choices; their timing depends on the machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The average number of seconds between two kills or stops of the daemon
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    end_every: u64,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Reads a time with its unit.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 90s, 30m or 8h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

/// SETTLES_WITHIN limits the wait for open intents after the last fault. An intent that met many
/// faults waits up to 18 minutes for its next attempt (`plan::outcome::attempt_wait`).
const SETTLES_WITHIN: Duration = Duration::from_secs(20 * 60);

/// TURN controls the pause between two turns of the soak.
const TURN: Duration = Duration::from_millis(50);

fn main() {
    let plan = Plan::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let interrupted = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let flag = Arc::clone(&interrupted);
        let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
        // This task ends with the program.
        let _watching = tokio_util::task::TaskTracker::new().spawn(async move {
            signal.recv().await;
            flag.store(true, Ordering::Relaxed);
        });
    });
    let options = Options { customers: plan.customers, seed: plan.seed, ..Options::default() };
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let mut harness = Installation::new(sandbox);
    println!(
        "a soak of {:?}, seed {}, {} customers; Ctrl-C ends it early",
        plan.lasts, plan.seed, plan.customers
    );

    let mut ledger = Ledger::begin(&plan);
    harness.start(&mut ledger);
    harness.until_first_sweep();
    let mut dropper = Dropper::new(plan.seed);
    let mut dice = StdRng::seed_from_u64(plan.seed ^ 0x50a4);
    let started = Instant::now();
    let mut last_line_at = Duration::ZERO;
    let mut next_end = Duration::ZERO;
    while started.elapsed() < plan.lasts && !interrupted.load(Ordering::Relaxed) {
        turn(&mut dice, &mut harness, &mut dropper, &mut ledger);
        if started.elapsed() >= next_end {
            harness.end_and_start(&mut dice, &mut ledger);
            let most = 2000 * plan.end_every.max(1);
            next_end = started.elapsed() + Duration::from_millis(dice.random_range(0..most));
        }
        ledger.look(&mut harness);
        if started.elapsed() >= last_line_at + Duration::from_secs(60) {
            last_line_at = started.elapsed();
            eprintln!("{}", ledger.line(last_line_at, dropper.accepted()));
        }
        std::thread::sleep(TURN);
    }
    ledger.lasted = started.elapsed();

    eprintln!("no more faults; waiting until everything is settled");
    harness.settle(SETTLES_WITHIN, &dropper, &mut ledger);
    ledger.close(&harness, &dropper);
    print!("{ledger}");
    if !ledger.wrong().is_empty() {
        let kept = harness.keep();
        eprintln!("\nWRONG:\n{}\nthe files are in {}", ledger.wrong().join("\n"), kept.display());
        std::process::exit(1);
    }
}

/// Does one random thing: a change at KOMOJU, a fault, an intent, a reader, or a command.
fn turn(dice: &mut StdRng, harness: &mut Installation, dropper: &mut Dropper, ledger: &mut Ledger) {
    match dice.random_range(0..100) {
        0..25 => trouble::churn(dice, harness, ledger),
        25..32 => trouble::strike(dice, harness, ledger),
        32..44 => dropper.drop_any(dice, harness),
        44 => harness.park_a_reader(dice, ledger),
        45 => harness.run_command(dice, ledger),
        _ => {}
    }
}
