//! A gzip stream that is small on the wire and enormous behind it.
//!
//! Written by hand, as nothing else here compresses: one block of deflate with its fixed codes, the given beginning as
//! literals and then spaces, 258 at a time by copying the byte before. Eight such copies of 13 bits are 13 whole bytes, so
//! the same 13 bytes are sent over and over. The stream just ends, without a checksum: nobody should come that far.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};

const GZIP_HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
/// One copy yields this many bytes, the most that deflate allows.
const COPY: u64 = 258;
const COPIES: u64 = 8;
const REPEATS_A_PIECE: usize = 4096;

/// A stream of `beginning` and then spaces, to at least `bytes` inflated.
pub(super) fn pieces(beginning: &[u8], bytes: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    let mut bits = Bits::default();
    bits.put(0, 1); // not the last block
    bits.put(0b01, 2); // fixed codes
    for &byte in beginning {
        bits.literal(byte);
    }
    bits.literal(b' ');

    // What follows the loose bits repeats from the first copy on.
    let mut repeated = bits.clone();
    repeated.bytes.clear();
    for _ in 0..COPIES {
        repeated.copy();
    }
    let piece = Bytes::from(repeated.bytes.repeat(REPEATS_A_PIECE));
    let mut start = BytesMut::from(&GZIP_HEADER[..]);
    start.put_slice(&bits.bytes);

    let count = bytes.div_ceil(COPY * COPIES * REPEATS_A_PIECE as u64);
    let rest = stream::unfold(count, move |left| {
        let piece = piece.clone();
        async move { (left > 0).then(|| (piece, left - 1)) }
    });
    stream::iter([start.freeze()]).chain(rest)
}

/// Bits in deflate's order: the lowest of a byte first.
#[derive(Debug, Clone, Default)]
struct Bits {
    bytes: Vec<u8>,
    loose: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, width: u32) {
        self.loose |= value << self.count;
        self.count += width;
        while self.count >= 8 {
            self.bytes.push(self.loose as u8);
            self.loose >>= 8;
            self.count -= 8;
        }
    }

    /// Huffman codes go in from their highest bit.
    fn code(&mut self, code: u32, width: u32) {
        self.put(code.reverse_bits() >> (32 - width), width);
    }

    /// A byte below 144, which all of ASCII is.
    fn literal(&mut self, byte: u8) {
        debug_assert!(byte < 144, "larger bytes have a longer code");
        self.code(0x30 + u32::from(byte), 8);
    }

    /// 258 times the byte before.
    fn copy(&mut self) {
        self.code(0b1100_0101, 8); // length 258
        self.code(0, 5); // distance 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inflates the little of deflate that is used here.
    fn inflated(sent: &[u8]) -> Vec<u8> {
        let mut bits = sent.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        let mut code = |width| (0..width).try_fold(0u8, |code, _| Some(code << 1 | bits.next()?));
        assert_eq!(code(3), Some(0b010), "one more block, fixed codes");
        let mut bytes = Vec::new();
        while let Some(symbol) = code(8) {
            if symbol == 0b1100_0101 {
                let Some(distance) = code(5) else { break };
                assert_eq!(distance, 0);
                let copied = *bytes.last().unwrap();
                bytes.extend([copied; COPY as usize]);
            } else {
                bytes.push(symbol - 0x30);
            }
        }
        bytes
    }

    #[tokio::test]
    async fn it_inflates_to_the_beginning_and_then_spaces() {
        let pieces: Vec<Bytes> = pieces(b"{\"data\":[", 1_000_000).collect().await;
        let bytes = inflated(&pieces.concat()[GZIP_HEADER.len()..]);
        assert!(bytes.starts_with(b"{\"data\":["));
        assert!(bytes[9..].iter().all(|&byte| byte == b' '));
        assert!(bytes.len() >= 1_000_000, "{}", bytes.len());
    }

    #[tokio::test]
    async fn the_wire_sees_less_than_a_hundredth() {
        let pieces: Vec<Bytes> = pieces(b"{", 10_000_000).collect().await;
        let sent: usize = pieces.iter().map(Bytes::len).sum();
        assert!(sent < 120_000, "{sent}");
        assert_eq!(pieces[0][..2], [0x1F, 0x8B]);
        assert_eq!(pieces[1].len(), 13 * REPEATS_A_PIECE, "the copies come out even");
    }
}
