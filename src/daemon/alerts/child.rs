//! Runs the operator's program: without a shell, without our secrets, for a limited time, as a
//! process group.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::secret::Masker;

/// TIME_LIMIT controls how long a program may run.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// OUTPUT_GRACE controls how long output is read after the program has ended. A process that it
/// started may keep the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// MOST_OUTPUT controls how many bytes of output are kept for the log; the rest is read and
/// dropped.
const MOST_OUTPUT: usize = 8 << 10;

/// The variables that a program inherits. Any other one may be, or lead to, a secret.
const INHERITED: [&str; 8] = ["PATH", "LANG", "LC_ALL", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR"];

/// The PATH of a program if the daemon has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `command` with `note` on its standard input. An error is the rest of a sentence about the
/// command. Returns none if `stop` is first.
pub(super) async fn run(
    command: &[String],
    note: &Value,
    clock: &dyn Clock,
    stop: &CancellationToken,
    masker: &Masker,
) -> Option<Result<(), String>> {
    let [program, arguments @ ..] = command else { return Some(Err("is empty".to_owned())) };
    let mut child = match Group::start(program, arguments) {
        Ok(child) => child,
        Err(e) => return Some(Err(format!("{program} cannot be started: {e}"))),
    };
    let note = format!("{note}\n");
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return None,
        ended = child.finish(&note, clock) => Some(ended),
        () = clock.sleep(TIME_LIMIT) => None,
    };
    let Some(ended) = ended else {
        drop(child);
        return Some(Err(format!("{program} did not end within {} s and was killed", TIME_LIMIT.as_secs())));
    };
    let (status, [output, errors]) = match ended {
        Ok(ended) => ended,
        Err(e) => return Some(Err(format!("{program} could not be waited for: {e}"))),
    };
    let shown = |bytes: &[u8]| masker.text(String::from_utf8_lossy(bytes).trim());
    if !output.is_empty() {
        tracing::debug!("alerts.command wrote to standard output: {}", shown(&output));
    }
    if !errors.is_empty() {
        tracing::warn!("alerts.command wrote to standard error: {}", shown(&errors));
    }
    Some(if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) })
}

/// A program and the processes that it starts. All are killed together, unless the program ends by
/// itself.
struct Group {
    child: Child,
    /// The process group, until the program has ended.
    id: Option<Pid>,
}

impl Group {
    /// Starts a program in a process group of its own.
    fn start(program: &str, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", DEFAULT_PATH);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let child = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// Writes the note, waits for the end, and returns the exit status and both outputs.
    async fn finish(&mut self, note: &str, clock: &dyn Clock) -> io::Result<(ExitStatus, [Vec<u8>; 2])> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let written = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read the note may not need it.
                let _ = stdin.write_all(note.as_bytes()).await;
            }
        };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let status = {
            let mut pipes = pin!(async {
                tokio::join!(written, keep_start(stdout, &mut output), keep_start(stderr, &mut errors));
            });
            let ended = tokio::select! {
                status = self.child.wait() => Some(status?),
                // The program closed its pipes and still runs.
                () = &mut pipes => None,
            };
            match ended {
                Some(status) => {
                    tokio::select! { () = &mut pipes => {}, () = clock.sleep(OUTPUT_GRACE) => {} }
                    status
                }
                None => self.child.wait().await?,
            }
        };
        // From here on the system may give the process id to another process. Processes that the
        // program left running are not killed.
        self.id = None;
        Ok((status, [output, errors]))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // This fails if the group has just ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads a pipe to its end and keeps the start of its content.
async fn keep_start(pipe: Option<impl AsyncRead + Unpin>, start: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        let room = MOST_OUTPUT.saturating_sub(start.len()).min(read);
        start.extend_from_slice(&piece[..room]);
    }
}
