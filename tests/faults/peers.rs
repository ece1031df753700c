//! Servers other than the local KOMOJU: one that only listens, one with an untrusted certificate,
//! and one that resets each connection when its answer is complete.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

/// The received bytes of each connection.
pub type Arrived = Arc<Mutex<Vec<Vec<u8>>>>;

/// Listens, and serves each connection on a thread of its own. The threads end with the process.
fn serve(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            // End the thread when the peer sends nothing more.
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Returns an address where nothing listens.
pub fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts a server that speaks plain HTTP and no TLS.
pub fn plain() -> (SocketAddr, Arrived) {
    let arrived = Arrived::default();
    let seen = Arc::clone(&arrived);
    let address = serve(move |mut stream| {
        let mut bytes = vec![0; 16 << 10];
        let read = stream.read(&mut bytes).unwrap_or(0);
        seen.lock().unwrap().push(bytes[..read].to_vec());
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    (address, arrived)
}

/// A stream that records what it reads.
struct RecordedStream {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Read for RecordedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.read.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl Write for RecordedStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Starts a TLS server with a self-signed certificate. It records the bytes on the wire, and the
/// deciphered ones.
pub fn untrusted() -> (SocketAddr, Arrived) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../fixtures/untrusted.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/untrusted.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (config, arrived) = (Arc::new(config), Arrived::default());
    let seen = Arc::clone(&arrived);
    let address = serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = StreamOwned::new(connection, RecordedStream { stream, read: Vec::new() });
        let mut deciphered = vec![0; 16 << 10];
        let count = tls.read(&mut deciphered).unwrap_or(0);
        let mut bytes = std::mem::take(&mut tls.sock.read);
        bytes.extend_from_slice(&deciphered[..count]);
        seen.lock().unwrap().push(bytes);
    });
    (address, arrived)
}

/// Starts a proxy that passes one request and its complete answer, and then resets the connection.
pub fn resetting(server: SocketAddr) -> (SocketAddr, Arrived) {
    let arrived = Arrived::default();
    let seen = Arc::clone(&arrived);
    let address = serve(move |mut client| {
        let Some(request) = message(&mut client) else { return };
        let mut upstream = TcpStream::connect(server).unwrap();
        upstream.write_all(&request).unwrap();
        let answer = message(&mut upstream).unwrap();
        client.write_all(&answer).unwrap();
        seen.lock().unwrap().push(request);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    });
    (address, arrived)
}

/// Reads one HTTP message, with the body that it announces.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Some(bytes);
        }
    }
}
