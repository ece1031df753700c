//! The bytes of the WAL file: whether the WAL was restarted since a moment, and how many older
//! frames it still holds (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).
//!
//! While a replication tool such as Litestream runs, no other process can empty the WAL; the tool
//! restarts it from time to time. Each restart copies all earlier frames into the database and
//! gives the header another salt. Frames with an earlier salt stay behind the new ones until new
//! frames overwrite them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Returns the salt of the WAL at `path`, a number that differs after each restart of the WAL; 0
/// for an empty one.
pub(in crate::store) fn salt(path: &Path) -> std::io::Result<i64> {
    let file = File::open(path)?;
    match file.metadata()?.len() {
        0..HEADER => Ok(0),
        _ => read(&file, 16).map(i64::from_be_bytes),
    }
}

/// What a WAL holds from before a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum OldFrames {
    /// The WAL was not restarted since.
    NotRestarted,
    /// The WAL was restarted, and this number of frames has another salt than its header. A partial
    /// frame at the end counts as one.
    Remaining(u64),
}

/// Returns how many older frames the WAL at `path` holds. `before` is the salt that it had at the
/// moment in question.
pub(in crate::store) fn older_frames(path: &Path, before: i64) -> std::io::Result<OldFrames> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size < HEADER {
        return Ok(OldFrames::Remaining(0));
    }
    let salt: [u8; 8] = read(&file, 16)?;
    if i64::from_be_bytes(salt) == before {
        return Ok(OldFrames::NotRestarted);
    }
    let page: [u8; 4] = read(&file, 8)?;
    let frame = FRAME_HEADER + u64::from(u32::from_be_bytes(page));
    let mut older = 0;
    for at in (HEADER..size).step_by(usize::try_from(frame).unwrap_or(usize::MAX)) {
        if at + frame > size || read::<8>(&file, at + 8)? != salt {
            older += 1;
        }
    }
    Ok(OldFrames::Remaining(older))
}

fn read<const N: usize>(file: &File, at: u64) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a WAL of 512-byte pages with this salt in its header and these salts in its frames.
    fn wal(salt: u64, frames: &[u64]) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; 32];
        bytes[8..12].copy_from_slice(&512_u32.to_be_bytes());
        bytes[16..24].copy_from_slice(&salt.to_be_bytes());
        for frame in frames {
            let mut header = [0; 24];
            header[8..16].copy_from_slice(&frame.to_be_bytes());
            bytes.extend(header);
            bytes.extend([0xAA; 512]);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn frame_with_another_salt_than_the_header_is_older() {
        let older = |file: &tempfile::NamedTempFile| older_frames(file.path(), 7).unwrap();
        assert_eq!(salt(wal(7, &[]).path()).unwrap(), 7);
        assert_eq!(older(&wal(7, &[7, 7])), OldFrames::NotRestarted, "the same WAL");
        assert_eq!(older(&wal(7, &[])), OldFrames::NotRestarted, "the same WAL, without a frame");
        assert_eq!(older(&wal(8, &[8, 8])), OldFrames::Remaining(0));
        assert_eq!(older(&wal(8, &[8, 7, 7])), OldFrames::Remaining(2), "behind the new one");
        assert_eq!(older(&wal(9, &[9, 8, 9])), OldFrames::Remaining(1), "of a restart in between");
        let cut = wal(8, &[8]);
        cut.as_file().set_len(32 + 24 + 512 + 100).unwrap();
        assert_eq!(older(&cut), OldFrames::Remaining(1), "bytes that are no whole frame");
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!((salt(empty.path()).unwrap(), older(&empty)), (0, OldFrames::Remaining(0)));
    }
}
