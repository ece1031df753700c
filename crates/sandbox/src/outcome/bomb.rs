//! Owns a gzip stream that is small when sent and very large when decompressed.
//!
//! One piece of spaces is compressed once, up to a flush, and sent repeatedly. The stream ends
//! without a checksum, because no client should read to its end.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream};

/// A piece inflates to this many bytes.
const PIECE: usize = 1024 * 1024;

/// A stream of `beginning` and then spaces, to at least `bytes` inflated.
pub(crate) fn pieces(beginning: &[u8], bytes: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let start = flushed(&mut encoder, beginning);
    let piece = flushed(&mut encoder, &vec![b' '; PIECE]);
    let count = bytes.div_ceil(PIECE as u64);
    stream::iter(std::iter::once(start).chain((0..count).map(move |_| piece.clone())))
}

/// What these bytes become, whole: the next piece starts at a byte of its own.
fn flushed(encoder: &mut GzEncoder<Vec<u8>>, bytes: &[u8]) -> Bytes {
    // A vector takes everything.
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
    async fn it_inflates_to_the_beginning_and_then_spaces() {
        let pieces: Vec<Bytes> = pieces(b"{\"data\":[", 5_000_000).collect().await;
        let mut bytes = Vec::new();
        let sent = pieces.concat();
        let end = GzDecoder::new(&*sent).read_to_end(&mut bytes).unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "it has no end of its own");
        assert!(bytes.starts_with(b"{\"data\":["));
        assert!(bytes[9..].iter().all(|&byte| byte == b' '));
        assert!(bytes.len() >= 5_000_000, "{}", bytes.len());
    }

    #[tokio::test]
    async fn the_wire_sees_less_than_a_hundredth() {
        let pieces: Vec<Bytes> = pieces(b"{", 10_000_000).collect().await;
        let sent: usize = pieces.iter().map(Bytes::len).sum();
        assert!(sent < 120_000, "{sent}");
        assert_eq!(pieces[0][..2], [0x1F, 0x8B]);
    }
}
