//! A gzip stream that is small when sent and very large when decompressed.
//!
//! One piece of spaces is compressed once and sent repeatedly. The stream ends without a checksum,
//! because no client should read to its end.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream};

/// PIECE controls how many bytes a piece has after decoding.
const PIECE: usize = 1024 * 1024;

/// Streams `start`, then spaces, of at least `bytes` after decoding.
pub(crate) fn pieces(start: &[u8], bytes: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let start = flushed(&mut encoder, start);
    let piece = flushed(&mut encoder, &vec![b' '; PIECE]);
    let count = bytes.div_ceil(PIECE as u64);
    stream::iter(std::iter::once(start).chain((0..count).map(move |_| piece.clone())))
}

/// Compresses these bytes, up to a byte boundary.
fn flushed(encoder: &mut GzEncoder<Vec<u8>>, bytes: &[u8]) -> Bytes {
    // Writing to a vector does not fail.
    let _ = encoder.write_all(bytes).and_then(|()| encoder.flush());
    std::mem::take(encoder.get_mut()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn stream_decodes_to_its_start_and_spaces() {
        let pieces: Vec<Bytes> = pieces(b"{\"data\":[", 5_000_000).collect().await;
        let mut bytes = Vec::new();
        let sent = pieces.concat();
        let end = GzDecoder::new(&*sent).read_to_end(&mut bytes).unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "the stream has no checksum");
        assert!(bytes.starts_with(b"{\"data\":["));
        assert!(bytes[9..].iter().all(|&byte| byte == b' '));
        assert!(bytes.len() >= 5_000_000, "{}", bytes.len());
    }

    #[tokio::test]
    async fn sent_bytes_are_about_a_hundredth_of_the_decoded_ones() {
        let pieces: Vec<Bytes> = pieces(b"{", 10_000_000).collect().await;
        let sent: usize = pieces.iter().map(Bytes::len).sum();
        assert!(sent < 120_000, "{sent}");
        assert_eq!(pieces[0][..2], [0x1F, 0x8B]);
    }
}
