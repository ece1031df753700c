//! An SQLite VFS that knows what a disk may hold when the power goes.
//!
//! Writes go through, so that the program under test and its readers work as ever. Beside them each watched [`Disk`] keeps, for every
//! file, what it held when it was last synced and what was done to it since. [`Disk::image`] tells both at any moment, without
//! stopping anybody; [`Image::write_to`] makes of it one of the many directories that may be found after power came back.
//!
//! What is modelled: a sync makes a file's content last; before it any part of each write may be missing, by sectors of 512 bytes, and
//! whatever came later may be there all the same. A name is lasting once its directory was synced. What is not: a disk that lies about
//! a sync, and bytes beside a write that are damaged with it (SQLite's "powersafe overwrite", its default on Unix). `-shm` is memory.
//!
//! Nothing is really synced in a process that uses this VFS: here nothing depends on the real disk.

mod disk;
mod image;
mod vfs;

pub use disk::{Disk, Operation, Synchronous};
pub use image::{Image, Keep};
pub use vfs::install;
