//! How a connection ends: by an orderly close, or by a reset.

use std::io;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

use crate::faults::Ending;

/// A handle of a connection's socket, for the code that answers on it.
#[derive(Debug)]
pub(crate) struct ConnectionHandle(Socket);

impl ConnectionHandle {
    /// Duplicates the handle of a stream. The connection ends when both are dropped.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        SockRef::from(stream).try_clone().map(Self)
    }

    /// Decides how the connection ends.
    pub(crate) fn end(&self, ending: Ending) {
        if ending == Ending::Reset {
            // With no time to linger, closing sends RST. If this fails, the client sees an orderly
            // close, which the test that expects a reset notices.
            let _ = self.0.set_linger(Some(Duration::ZERO));
        }
    }
}
