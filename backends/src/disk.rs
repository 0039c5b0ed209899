//! The disk backend: large fragments as plain files, small ones packed in `RocksDB`, the index in `RocksDB`.
//!
//! ```text
//! DIR/palm.lock             held while open; its text is the kind and version of the layout
//! DIR/files/ab/<64 hex>     fragments of 64 KiB and more: the name is the BLAKE3 of the file (b3sum checks it)
//! DIR/tmp/<16 hex>.part     files being written; emptied when the store is opened
//! DIR/packed/               RocksDB: smaller fragments, the counters, changes of files under way
//! DIR/packed.corrupt        found rotten: what reads is copied to packed.new, which takes its place, at the next opening
//! ```
//!
//! Why two places: a file costs an inode, a directory entry and two syncs, which is little for a megabyte
//! and absurd for a kilobyte. Packed fragments share one log sync with everything that arrives meanwhile.
//! The size of a fragment alone decides where it lives, so no fragment is ever in both.
//!
//! Map, in a good order to read: [`DiskFragments`] (`fragments.rs`, the store) over `packed.rs` (small) and
//! `files.rs` (large); [`DiskIndex`] (`index.rs`); below them `commit.rs` (one thread groups all commits of a
//! database into one write and one sync), `db.rs` (how `RocksDB` is set up and what memory it may use),
//! `health.rs` (after a failed sync nothing is written any more), `rescue.rs` (what still reads of a database that rotted), `room.rs` (is there space), `dir.rs`
//! (directories that survive power loss, opened once) and `sys.rs` (two system calls). Byte layouts: `docs/format.md`.
//!
//! Deliberately absent: a cache of contents (the kernel has one), a journal of its own, and knowledge of
//! what a fragment belongs to.

pub(crate) mod commit;
pub(crate) mod db;
pub(crate) mod dir;
mod files;
mod fragments;
pub(crate) mod health;
mod index;
mod packed;
mod rescue;
pub(crate) mod room;
mod sys;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use fragments::{DiskFragments, DiskOptions};
pub use index::DiskIndex;

/// Fragments smaller than this are packed in `RocksDB`, others are files. Part of the format: changing it
/// would look for stored fragments in the wrong place.
pub const PACKED_BELOW: u64 = 64 * 1024;
