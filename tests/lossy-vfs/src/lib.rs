//! An SQLite VFS that knows what a disk may contain after a power cut.
//!
//! Writes are passed on, so the program under test and its readers work normally. For every file
//! each watched [`Disk`] also records its content at the last sync and the changes since.
//! [`Disk::image`] returns both at any moment without blocking the program. [`Image::write_to`]
//! writes one of the many directories that may be found when the power is back.
//!
//! Modelled: a sync makes a file's content durable. Before it any part of each write may be
//! missing, by sectors of 512 bytes, while later writes may be kept. A name is durable when its
//! directory was synced. Not modelled: a disk that reports a sync it did not do, and damage to
//! bytes next to a write (SQLite's "powersafe overwrite", its default on Unix). `-shm` is memory.
//!
//! A process with this VFS syncs nothing to the real disk, because no test depends on that.

mod disk;
mod image;
mod vfs;

pub use disk::{Disk, Operation, Synchronous};
pub use image::{Image, Keep};
pub use vfs::install;
