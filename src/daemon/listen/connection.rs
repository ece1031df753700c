//! One connection: one HTTP/1.1 request with bounded time and head, and its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;

use super::Io;
use crate::clock::Clock;

/// HEAD_WITHIN controls how long a client may take to send the head of its request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// ALL_WITHIN controls how long a connection may last.
const ALL_WITHIN: Duration = Duration::from_secs(10);

/// LARGEST_HEAD controls how many bytes the head of a request may have.
const LARGEST_HEAD: usize = 16 << 10;

/// AFTER_NO_ROOM controls how long accepting pauses when the system has no file handle left for a
/// connection.
pub(in crate::daemon) const AFTER_NO_ROOM: Duration = Duration::from_millis(100);

/// LAST_ANSWERS controls how long a stop waits for answers that are on their way.
pub(in crate::daemon) const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// Serves one request, and ignores errors of the connection.
pub(in crate::daemon) fn serve(
    io: Io,
    router: Router,
    graceful: &GracefulShutdown,
    clock: Arc<dyn Clock>,
) -> impl Future<Output = ()> + use<> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let served = graceful.watch(connection);
    async move {
        tokio::select! {
            _ = served => {}
            () = clock.sleep(ALL_WITHIN) => {}
        }
    }
}
