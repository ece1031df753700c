//! The answer to a connection beyond the limit: 503 at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::request::LARGEST_BODY;
use crate::clock::Clock;
use crate::daemon::listen::Io;

/// MOST_REFUSALS controls how many connections are answered 503 at once. Further ones are closed
/// without an answer.
pub(super) const MOST_REFUSALS: usize = 64;

/// REFUSE_WITHIN controls how long a refused connection stays open for the rest of its request.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// LARGEST_REST controls how many bytes of a refused request are read.
const LARGEST_REST: u64 = LARGEST_BODY as u64 + (64 << 10);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Answers 503, and reads what the client sends. The system would discard the answer if the
/// connection were closed while unread bytes are left.
pub(super) async fn refuse(mut io: Io, clock: Arc<dyn Clock>) {
    let answer = async {
        io.write_all(BUSY).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LARGEST_REST), &mut tokio::io::sink()).await
    };
    tokio::select! {
        _ = answer => {}
        () = clock.sleep(REFUSE_WITHIN) => {}
    }
}
