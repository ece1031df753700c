//! The parts of a database page that hold no content, by SQLite's file format
//! (<https://www.sqlite.org/fileformat2.html>).
//!
//! SQLite leaves copies of cells in these places:
//! - between the cell pointers and the cells, when it moves cells to another page;
//! - in freed blocks and pages, when `secure_delete` is off;
//! - behind the end of a payload, on its last overflow page.
//!
//! No reader uses these bytes, so zeros in their place change nothing. Pure: bytes in, bytes out.
//!
//! Fragments are left unchanged. These are gaps of at most three bytes between two cells, too short
//! to hold a value.

/// A page contradicts the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Malformed;

/// What a page is used for. Which of its bytes are unused depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum PageUse {
    /// A page of a table or an index.
    Tree,
    /// A page that continues a large payload, with this number of its bytes.
    Overflow(usize),
    /// A page that lists free pages.
    Trunk,
    /// A free page.
    Free,
}

/// The size of the database header, which precedes the first page's own header.
const DATABASE_HEADER: usize = 100;

/// Overwrites the unused bytes of page `number` with zeros. Returns whether that changed any.
/// `usable` is the page's size without the bytes that are reserved for extensions.
pub(in crate::store) fn wipe(
    page: &mut [u8],
    number: u32,
    used: PageUse,
    usable: usize,
) -> Result<bool, Malformed> {
    let page = page.get_mut(..usable).ok_or(Malformed)?;
    match used {
        PageUse::Tree => wipe_tree(page, if number == 1 { DATABASE_HEADER } else { 0 }),
        PageUse::Overflow(payload) => zero(page, payload.saturating_add(4), usable),
        PageUse::Trunk => {
            let used = 8 + 4 * leaves(page)?.count();
            zero(page, used, usable)
        }
        PageUse::Free => zero(page, 0, usable),
    }
}

fn wipe_tree(page: &mut [u8], header: usize) -> Result<bool, Malformed> {
    let header_size = match page.get(header).ok_or(Malformed)? {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return Err(Malformed),
    };
    let cells = u16_at(page, header + 3)?;
    let content = match u16_at(page, header + 5)? {
        0 => 1 << 16,
        content => content,
    };
    let mut changed = zero(page, header + header_size + 2 * cells, content)?;
    let (mut block, mut least) = (u16_at(page, header + 1)?, content);
    while block != 0 {
        let (next, size) = (u16_at(page, block)?, u16_at(page, block + 2)?);
        // Blocks are in ascending order, so the loop ends.
        if block < least {
            return Err(Malformed);
        }
        // A block's first four bytes are its link and its size.
        changed |= zero(page, block + 4, block + size)?;
        least = block + 4;
        block = next;
    }
    Ok(changed)
}

/// Returns the next page that lists free pages; 0 at the end of that list.
pub(in crate::store) fn next_trunk(page: &[u8]) -> Result<u32, Malformed> {
    u32_at(page, 0)
}

/// Returns the free pages that a trunk page lists.
pub(in crate::store) fn leaves(page: &[u8]) -> Result<impl Iterator<Item = u32>, Malformed> {
    let count = usize::try_from(u32_at(page, 4)?).map_err(|_| Malformed)?;
    let end = count.checked_mul(4).and_then(|bytes| bytes.checked_add(8)).ok_or(Malformed)?;
    let list = page.get(8..end).ok_or(Malformed)?;
    Ok(list.chunks_exact(4).map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))))
}

/// Returns the first page that lists free pages, 0 if no page is free. `page` is the database's
/// first page.
pub(in crate::store) fn first_trunk(page: &[u8]) -> Result<u32, Malformed> {
    u32_at(page, 32)
}

/// Returns the size of a page without the bytes that are reserved for extensions. `page` is the
/// database's first page.
pub(in crate::store) fn usable(page: &[u8]) -> Result<usize, Malformed> {
    let reserved = usize::from(*page.get(20).ok_or(Malformed)?);
    page.len().checked_sub(reserved).ok_or(Malformed)
}

fn zero(page: &mut [u8], from: usize, to: usize) -> Result<bool, Malformed> {
    let unused = page.get_mut(from..to).ok_or(Malformed)?;
    let changed = unused.iter().any(|byte| *byte != 0);
    if changed {
        unused.fill(0);
    }
    Ok(changed)
}

fn u16_at(page: &[u8], at: usize) -> Result<usize, Malformed> {
    let bytes = page.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(|bytes| usize::from(u16::from_be_bytes(bytes))).ok_or(Malformed)
}

fn u32_at(page: &[u8], at: usize) -> Result<u32, Malformed> {
    page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a leaf of 64 bytes: one cell at 60 and a free block of 10 bytes at 50. Each byte
    /// that holds nothing is 0xAA.
    fn leaf(header: usize) -> Vec<u8> {
        let mut page = vec![0xAA; 64];
        page[header] = 13;
        page[header + 1..header + 8].copy_from_slice(&[0, 50, 0, 1, 0, 50, 0]);
        page[header + 8..header + 10].copy_from_slice(&[0, 60]);
        page[50..54].copy_from_slice(&[0, 0, 0, 10]);
        page
    }

    #[test]
    fn tree_page_keeps_its_header_cells_and_free_block_links() {
        let mut page = leaf(0);
        assert_eq!(wipe(&mut page, 2, PageUse::Tree, 64), Ok(true));
        let mut expected = vec![0; 64];
        expected[..10].copy_from_slice(&[13, 0, 50, 0, 1, 0, 50, 0, 0, 60]);
        expected[50..54].copy_from_slice(&[0, 0, 0, 10]);
        expected[60..].fill(0xAA);
        assert_eq!(page, expected);
        assert_eq!(wipe(&mut page, 2, PageUse::Tree, 64), Ok(false), "the second time nothing changes");
    }

    #[test]
    fn reserved_bytes_and_the_database_header_are_kept() {
        let mut page = vec![0xAA; 256];
        page[100..108].copy_from_slice(&[13, 0, 0, 0, 0, 0, 240, 0]);
        assert_eq!(wipe(&mut page, 1, PageUse::Tree, 240), Ok(true));
        assert!(page[..100].iter().chain(&page[240..]).all(|byte| *byte == 0xAA));
        assert!(page[108..240].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn largest_page_without_cells_is_wiped_to_its_end() {
        let mut page = vec![0xAA; 65_536];
        // 0 stands for 65536, which two bytes cannot hold.
        page[..8].copy_from_slice(&[13, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(wipe(&mut page, 2, PageUse::Tree, 65_536), Ok(true));
        assert!(page[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn overflow_trunk_and_free_pages_lose_all_but_their_content() {
        let wiped = |used| {
            let mut page = vec![1; 32];
            page[..8].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 2]);
            assert_eq!(wipe(&mut page, 2, used, 32), Ok(true));
            page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
        };
        assert_eq!(wiped(PageUse::Overflow(20)), 24);
        assert_eq!(wiped(PageUse::Trunk), 16, "two entries of four bytes");
        assert_eq!(wiped(PageUse::Free), 0);
    }

    #[test]
    fn page_that_contradicts_the_format_is_malformed() {
        let broken = |at: usize, byte: u8| {
            let mut page = leaf(0);
            page[at] = byte;
            wipe(&mut page, 2, PageUse::Tree, 64)
        };
        assert_eq!(broken(0, 7), Err(Malformed), "no kind of page");
        assert_eq!(broken(4, 40), Err(Malformed), "pointers that reach into the cells");
        assert_eq!(broken(5, 1), Err(Malformed), "cells behind the end");
        assert_eq!(broken(53, 20), Err(Malformed), "a free block behind the end");
        assert_eq!(broken(51, 50), Err(Malformed), "free blocks in a ring");
        let mut page = vec![0; 32];
        page[4] = 1;
        assert_eq!(wipe(&mut page, 2, PageUse::Trunk, 32), Err(Malformed), "more leaves than fit");
        assert_eq!(wipe(&mut page, 2, PageUse::Overflow(40), 32), Err(Malformed));
        assert_eq!(wipe(&mut page, 2, PageUse::Free, 64), Err(Malformed));
    }
}
