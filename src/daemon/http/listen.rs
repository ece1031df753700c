//! Where health and metrics are served: an address, or a socket in the file system.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::Listen;

/// SOCKET_MODE controls which users can connect to a socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// `http.listen` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("http.listen = \"{listen}\": {why}")]
pub struct BindError {
    listen: Listen,
    why: String,
    may_pass: bool,
}

impl BindError {
    /// Whether a later start may succeed: the port is taken, or the address does not exist yet.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// A connection.
pub(super) type Io = Either<TcpStream, UnixStream>;

/// A listening socket.
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Socket {
    pub(super) fn bind(listen: &Listen) -> Result<Self, BindError> {
        let socket = match listen {
            Listen::Tcp(address) => tcp(*address),
            Listen::Unix(path) => unix(path),
        };
        socket.map_err(|Refusal { why, may_pass }| BindError { listen: listen.clone(), why, may_pass })
    }

    /// The address that it is bound to.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| format!("http://{address}/"))
            }
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Io> {
        Ok(match self {
            Self::Tcp(listener) => Either::Left(listener.accept().await?.0),
            Self::Unix(listener, _) => Either::Right(listener.accept().await?.0),
        })
    }
}

/// Why an address cannot be used.
struct Refusal {
    why: String,
    may_pass: bool,
}

impl<T: Into<String>> From<T> for Refusal {
    fn from(why: T) -> Self {
        Self { why: why.into(), may_pass: false }
    }
}

fn tcp(address: SocketAddr) -> Result<Socket, Refusal> {
    let bound = || {
        // It sets SO_REUSEADDR: connections of the last process that are in TIME_WAIT must not
        // prevent a start.
        let socket = StdTcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    let may_pass = |e: &io::Error| matches!(e.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable);
    let refused = |e: io::Error| Refusal { may_pass: may_pass(&e), why: said(address, &e) };
    let listener = bound().map_err(refused)?;
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "http.listen = \"{address}\": any client that reaches this address can read health and metrics without a password"
        );
    }
    Ok(Socket::Tcp(listener))
}

fn said(address: SocketAddr, e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::AddrInUse => format!(
            "another program listens there already (`ss -ltnp 'sport = :{}'` tells which): stop that one, or choose \
             another port",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address (yet): choose 127.0.0.1, or start the service after the network is up"
                .to_owned()
        }
        ErrorKind::PermissionDenied => "ports below 1024 are for root: choose a higher one".to_owned(),
        _ => e.to_string(),
    }
}

fn unix(path: &Path) -> Result<Socket, Refusal> {
    if let Ok(found) = fs::symlink_metadata(path) {
        replace_dead(path, found.file_type().is_socket())?;
    }
    let listener = UnixListener::bind(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            "its directory does not exist: make it, for the service's user to write to".to_owned()
        }
        ErrorKind::PermissionDenied => "the service's user may not write to its directory".to_owned(),
        ErrorKind::AddrInUse => "another program began to listen there just now".to_owned(),
        ErrorKind::InvalidInput => {
            "the path of a socket has at most 107 bytes: choose a shorter one".to_owned()
        }
        _ => e.to_string(),
    })?;
    let file = SocketFile::made(path).map_err(|e| format!("the socket's mode cannot be set: {e}"))?;
    Ok(Socket::Unix(listener, file))
}

/// Removes the socket of a killed process; only a live process accepts a connection.
fn replace_dead(path: &Path, is_socket: bool) -> Result<(), Refusal> {
    if !is_socket {
        return Err("something lies there that is not a socket: move it away, or choose another path".into());
    }
    match StdUnixStream::connect(path) {
        Ok(_) => {
            let why =
                "another program listens there already: stop that one, or choose another path".to_owned();
            Err(Refusal { why, may_pass: true })
        }
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|e| format!("a dead process's socket cannot be removed from there: {e}").into()),
        Err(e) => Err(format!("a socket lies there, and whether anybody listens cannot be told: {e}").into()),
    }
}

/// The file of a socket, removed when this is dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    made: (u64, u64),
}

impl SocketFile {
    fn made(path: &Path) -> io::Result<Self> {
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self { path: path.to_owned(), made: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process's socket may have taken its place.
        if inode(&self.path).is_ok_and(|found| found == self.made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
