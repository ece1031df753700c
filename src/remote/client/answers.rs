//! Tests of received answers, with a server that answers every request with the same bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use komoju_core::{CustomerId, Page, PageQuery};

use super::*;
use crate::clock::SystemClock;
use crate::remote::{CustomerAnswer, Remote as _};

/// A page with one customer.
const PAGE: &[u8] = br#"{"total":1,"page":1,"per_page":10,"last_page":1,"data":[{"id":"a"}]}"#;

/// A server that answers every connection with the same head, then with pieces of a body until the
/// client closes the connection.
struct FixedServer {
    address: SocketAddr,
    /// How many bytes of bodies were sent.
    sent: Arc<AtomicUsize>,
    /// The heads of the requests, in lower case.
    requests: Arc<Mutex<Vec<String>>>,
}

impl FixedServer {
    /// Starts a server with this status line, these headers and this body.
    fn answering(head: &str, body: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (sums, heads) = (Arc::clone(&sent), Arc::clone(&requests));
        let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => request.extend_from_slice(&piece[..count]),
                        _ => break,
                    }
                }
                heads.lock().unwrap().push(String::from_utf8_lossy(&request).to_ascii_lowercase());
                if stream.write_all(head.as_bytes()).is_err() {
                    continue;
                }
                for piece in body.chunks(4096) {
                    if stream.write_all(piece).is_err() {
                        break;
                    }
                    sums.fetch_add(piece.len(), Ordering::Relaxed);
                }
            }
        });
        Self { address, sent, requests }
    }

    /// Returns a new client of this server.
    fn client(&self) -> Http {
        let mut config = Config::default();
        config.api.base_url = format!("http://{}/api/v1", self.address).parse().unwrap();
        config.rate_limit.requests_per_second = 0.0;
        let key = SecretKey::parse("sk_test_9aQ+x/Zr7").unwrap();
        Http::new(&config, &key, SystemClock::shared()).unwrap()
    }

    /// Requests one page with a new client.
    async fn list(&self, page: u64) -> Result<Page, RemoteError> {
        self.client().list(PageQuery { page, per_page: 10, created_from: None }).await
    }
}

/// Returns a gzip stream without compression: one stored block for each 65,535 bytes.
fn stored_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap();
        gzip.push(u8::from(blocks.peek().is_none()));
        gzip.extend(length.to_le_bytes());
        gzip.extend((!length).to_le_bytes());
        gzip.extend(block);
    }
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    });
    gzip.extend(crc.to_le_bytes());
    gzip.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    gzip
}

/// A gzip stream that inflates to 258 zero bytes for each thirteen bits. It has a stored block of
/// one zero, then a block that repeats this zero in fixed Huffman codes.
fn bomb(length: usize) -> Vec<u8> {
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x00\x01\x00\xfe\xff\x00";
    // The block header is 0 (not the last block) and 10 (fixed codes). A length of 258 is 11000101,
    // and a distance of 1 is 00000.
    let codes = "1100010100000".repeat(16);
    let bits: Vec<u8> = format!("010{codes}").bytes().map(|bit| bit - b'0').collect();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
    // After thirteen bytes the codes have the alignment of the first byte again.
    gzip.iter().chain(&bytes[..13]).chain(bytes[13..26].iter().cycle()).take(length).copied().collect()
}

#[tokio::test]
async fn compressed_answer_is_requested_and_decoded() {
    let server = FixedServer::answering("200 OK\r\nContent-Encoding: gzip", stored_gzip(PAGE));
    let page = server.list(1).await.unwrap();
    assert_eq!(page.customers[0].id().as_str(), "a");
    assert!(server.requests.lock().unwrap()[0].contains("accept-encoding: gzip\r\n"));
}

#[tokio::test]
async fn gzip_bomb_is_cut_while_it_streams_and_the_limit_counts_decoded_bytes() {
    const BYTES: usize = 8 << 20;
    let server = FixedServer::answering("200 OK\r\nContent-Encoding: gzip", bomb(BYTES));
    let error = server.list(1).await.unwrap_err();
    assert!(error.to_string().contains("the answer is larger than 3072 KiB"), "{error}");
    // 8 MiB decode to 1.3 GB. Only 20 KiB are needed for 3 MiB, and the buffers of the sockets take
    // some more.
    assert!(server.sent.load(Ordering::Relaxed) < BYTES, "all of it was read");

    // The first page is within the limit. The second one exceeds it only after decoding.
    let long = |customers: usize| {
        let rows: Vec<String> = (0..customers).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect();
        let page =
            format!(r#"{{"total":1,"page":1,"per_page":10,"last_page":1,"data":[{}]}}"#, rows.join(","));
        FixedServer::answering("200 OK\r\nContent-Encoding: gzip", stored_gzip(page.as_bytes()))
    };
    assert_eq!(long(150_000).list(1).await.unwrap().customers.len(), 150_000);
    assert!(matches!(
        long(300_000).list(1).await.unwrap_err().cause,
        ErrorCause::TooLarge { limit_kib: 3072, .. }
    ));
}

#[tokio::test]
async fn broken_gzip_is_transient() {
    let server = FixedServer::answering("200 OK\r\nContent-Encoding: gzip", stored_gzip(PAGE)[..30].to_vec());
    let error = server.list(1).await.unwrap_err();
    assert_eq!(error.class(), crate::remote::ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn two_hundred_headers_are_accepted() {
    let headers: String = (0..200).map(|n| format!("\r\nX-Header-{n}: {n}")).collect();
    let server = FixedServer::answering(&format!("200 OK{headers}"), PAGE.to_vec());
    assert!(server.list(1).await.is_ok());
}

#[tokio::test]
async fn byte_order_mark_before_json_is_ignored() {
    let marked = |text: &[u8]| [BYTE_ORDER_MARK, text].concat();
    assert!(FixedServer::answering("200 OK", marked(PAGE)).list(1).await.is_ok());
    let customer = FixedServer::answering("200 OK", marked(br#"{"id":"a"}"#));
    let id = CustomerId::new("a").unwrap();
    assert!(matches!(customer.client().show(&id).await, Ok(CustomerAnswer::Found(_))));
    let gone = br#"{"error":{"code":"not_found"}}"#;
    let gone = FixedServer::answering("404 Not Found", marked(gone));
    assert_eq!(gone.client().show(&id).await, Ok(CustomerAnswer::NotFound));
    // Only one mark is ignored, and only at the start.
    assert!(FixedServer::answering("200 OK", marked(&marked(PAGE))).list(1).await.is_err());
}

#[tokio::test]
async fn redirect_is_not_followed_not_retried_and_names_its_target() {
    let server = FixedServer::answering(
        "308 Permanent\r\nLocation: https://new.example/api?k=sk_test_9aQ+x/Zr7",
        vec![],
    );
    let error = server.list(1).await.unwrap_err();
    assert_eq!(error.class(), crate::remote::ErrorClass::Rejected);
    assert_eq!(error.status(), Some(308));
    let text = error.to_string();
    assert!(text.contains("answered HTTP 308, a redirect to https://new.example/api?k="), "{text}");
    assert!(text.contains("api.base_url") && !text.contains("sk_test_9aQ"), "{text}");
    assert_eq!(server.requests.lock().unwrap().len(), 1);

    let to = |location: String| async move {
        let server = FixedServer::answering(&format!("302 Found{location}"), vec![]);
        server.list(1).await.unwrap_err().to_string()
    };
    assert!(to(String::new()).await.contains("a redirect without a target"));
    assert!(to(format!("\r\nLocation: /{}", "a".repeat(5000))).await.len() < 500);
}

#[tokio::test]
async fn first_page_that_is_not_found_points_to_the_base_url() {
    for body in [&br#"{"error":{"code":"not_found"}}"#[..], b"<html>", b""] {
        let server = FixedServer::answering("404 Not Found", body.to_vec());
        let error = server.list(1).await.unwrap_err().to_string();
        assert!(error.contains("api.base_url"), "{error}");
        let error = server.list(2).await.unwrap_err().to_string();
        assert!(!error.contains("api.base_url"), "{error}");
    }
}

#[tokio::test]
async fn refusals_for_speed_are_429_and_the_firewalls_403_and_503() {
    let json = br#"{"error":{"code":"too_many_requests"}}"#;
    for (status, body, is_refusal) in [
        ("429 Too Many Requests", &json[..], true),
        ("429 Too Many Requests", b"<html>", true),
        ("403 Forbidden", b" <html>", true),
        ("503 Service Unavailable", b"<html>", true),
        ("403 Forbidden", json, false),
        ("503 Service Unavailable\r\nRetry-After: 1", json, false),
        ("401 Unauthorized", b"<html>", false),
        ("502 Bad Gateway", b"<html>", false),
        ("200 OK", b"<html>", false),
        ("200 OK", PAGE, false),
    ] {
        let client = FixedServer::answering(status, body.to_vec()).client();
        let _ = client.list(PageQuery { page: 1, per_page: 10, created_from: None }).await;
        assert_eq!(client.slowed().is_some(), is_refusal, "{status} {}", String::from_utf8_lossy(body));
        assert_eq!(client.throttled_until().is_some(), status.contains("Retry-After"), "{status}");
    }
}
