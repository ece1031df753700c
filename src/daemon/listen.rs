//! Listening sockets, an IP address or a Unix socket, and the limits of a connection.

pub(super) mod connection;

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

/// An address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key} = \"{listen}\": {why}")]
pub struct BindError {
    /// The key of the configuration that names the address.
    key: &'static str,
    listen: Listen,
    why: String,
    kind: BindErrorKind,
}

/// What kind of error prevents listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindErrorKind {
    /// Another program listens there.
    InUse,
    /// The machine does not have this address yet.
    NoAddress,
    /// Anything else: the address or the file system must be changed.
    Wrong,
}

impl BindError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> BindErrorKind {
        self.kind
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
    /// Binds the address that `key` of the configuration names.
    pub(super) fn bind(key: &'static str, listen: &Listen) -> Result<Self, BindError> {
        let socket = match listen {
            Listen::Tcp(address) => tcp(*address),
            Listen::Unix(path) => unix(path),
        };
        socket.map_err(|BindFault { why, kind }| BindError { key, listen: listen.clone(), why, kind })
    }

    /// Returns the bound address, as a client writes it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| format!("http://{address}/"))
            }
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// Accepts the next connection.
    pub(super) async fn accept(&self) -> io::Result<Io> {
        Ok(match self {
            Self::Tcp(listener) => Either::Left(listener.accept().await?.0),
            Self::Unix(listener, _) => Either::Right(listener.accept().await?.0),
        })
    }
}

/// Why an address cannot be used.
struct BindFault {
    why: String,
    kind: BindErrorKind,
}

impl<T: Into<String>> From<T> for BindFault {
    fn from(why: T) -> Self {
        Self { why: why.into(), kind: BindErrorKind::Wrong }
    }
}

/// Binds an IP address.
fn tcp(address: SocketAddr) -> Result<Socket, BindFault> {
    let bound = || {
        // The standard library sets SO_REUSEADDR. Without it, connections of the last process in
        // TIME_WAIT would prevent the start.
        let socket = StdTcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    let kind = |e: &io::Error| match e.kind() {
        ErrorKind::AddrInUse => BindErrorKind::InUse,
        ErrorKind::AddrNotAvailable => BindErrorKind::NoAddress,
        _ => BindErrorKind::Wrong,
    };
    let refused = |e: io::Error| BindFault { kind: kind(&e), why: explained(address, &e) };
    Ok(Socket::Tcp(bound().map_err(refused)?))
}

/// Returns what is wrong with an IP address, and what to do.
fn explained(address: SocketAddr, e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::AddrInUse => format!(
            "another program already listens on this port: stop it (`ss -ltnp 'sport = :{}'` shows it), or choose \
             another port",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine does not have this address now: choose 127.0.0.1, or start the service after the network is up"
                .to_owned()
        }
        ErrorKind::PermissionDenied => "only root may use ports below 1024: choose a higher one".to_owned(),
        _ => e.to_string(),
    }
}

/// Binds a Unix socket, in place of the socket of a process that was killed.
fn unix(path: &Path) -> Result<Socket, BindFault> {
    if let Ok(found) = fs::symlink_metadata(path) {
        replace_dead(path, found.file_type().is_socket())?;
    }
    let listener = UnixListener::bind(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            "its directory does not exist: create it, writable by the service's user".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "the service's user cannot write to its directory: change its owner or mode".to_owned()
        }
        ErrorKind::AddrInUse => {
            "another program has just begun to listen there: stop it, or choose another path".to_owned()
        }
        ErrorKind::InvalidInput => {
            "the path of a socket has at most 107 bytes: choose a shorter one".to_owned()
        }
        _ => e.to_string(),
    })?;
    let file = SocketFile::new(path).map_err(|e| format!("the socket's mode cannot be set: {e}"))?;
    Ok(Socket::Unix(listener, file))
}

/// Removes the socket of a process that was killed. Only a running process accepts a connection.
fn replace_dead(path: &Path, is_socket: bool) -> Result<(), BindFault> {
    if !is_socket {
        return Err("the file at this path is not a socket: move it away, or choose another path".into());
    }
    match StdUnixStream::connect(path) {
        Ok(_) => {
            let why =
                "another program already listens on this path: stop it, or choose another path".to_owned();
            Err(BindFault { why, kind: BindErrorKind::InUse })
        }
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|e| format!("cannot remove the socket that an ended process left: {e}").into()),
        Err(e) => Err(format!("cannot check whether a program listens on this socket: {e}").into()),
    }
}

/// The file of a socket. It is removed when this is dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    inode: (u64, u64),
}

impl SocketFile {
    /// Sets the mode of a new socket.
    fn new(path: &Path) -> io::Result<Self> {
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have created its own socket at this path.
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and inode of the file itself, not of the target of a link.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
