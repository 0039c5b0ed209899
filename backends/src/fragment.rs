//! The contract of a fragment store.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;

/// What can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such fragment. Repair may have moved it.
    #[error("no fragment {0}")]
    NotFound(FragmentId),
    /// The store has no room; reads and deletes still work. Nothing was stored.
    #[error("store is full")]
    Full,
    /// The range goes beyond the fragment's end.
    #[error("range {range:?} beyond the end of fragment {id} ({len} bytes)")]
    OutOfRange {
        /// Which fragment.
        id: FragmentId,
        /// What was asked for.
        range: Range<u64>,
        /// The fragment's length.
        len: u64,
    },
    /// A sync failed earlier: the store takes no writes any more, because nobody can say what is on disk.
    #[error("store stopped writing after a failed sync: {0}")]
    Poisoned(String),
    /// The disk failed. Nothing was acknowledged.
    #[error("storage i/o: {0}")]
    Io(#[from] std::io::Error),
    /// The store is out of reach as a whole: its directory was removed, its disk is not mounted. In words.
    #[error("{0}")]
    Gone(String),
    /// The store's own structures do not read as they were written.
    #[error("storage corrupt: {0}")]
    Corrupt(String),
}

/// A stored fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentStat {
    /// BLAKE3 of its bytes.
    pub id: FragmentId,
    /// How many.
    pub len: u64,
}

/// What a store holds, and what it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Fragments kept.
    pub fragments: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Bytes that could still be stored; `u64::MAX` when nothing bounds it.
    pub free: u64,
}

/// Keeps immutable fragments, each named by the BLAKE3 of its bytes.
///
/// Contract, checked by the feature `conformance`:
/// - **Durable**: when [`FragmentWriter::finish`] or [`put`](Self::put) answers `Ok`, the fragment survives
///   power loss, its directory entries too.
/// - **Content-addressed**: the id answered is the BLAKE3 of what was written, computed here.
/// - **Idempotent**: storing the same bytes again, even at the same time, is `Ok` and keeps one.
/// - **All or nothing**: a writer dropped before `finish` leaves nothing visible; a crash, an error or a caller that
///   goes away during `finish` or `put` leaves nothing or the whole fragment, never a part. Space is reclaimed at the latest
///   when the store is opened again.
/// - **Ordered listing**: by id, resumable after any id.
///
/// Reads do not verify the hash: a stripe is checked end to end when it is opened, and scrubbing hashes
/// whole fragments.
#[async_trait]
pub trait FragmentStore: Send + Sync + 'static {
    /// Begins a fragment of `len` bytes, where known; fails early with [`StoreError::Full`]. The length is a hint: what
    /// counts is what is written.
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError>;

    /// Stores a whole fragment that is in memory. Stores that can group the syncs of concurrent calls do.
    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let mut writer = self.writer(Some(bytes.len() as u64)).await?;
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Opens a fragment for reading; the reader keeps working if the fragment is deleted meanwhile, or
    /// says [`StoreError::NotFound`], never other bytes.
    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError>;

    /// The whole fragment; for small ones, in one disk access.
    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let reader = self.open(id).await?;
        reader.read(0..reader.len()).await
    }

    /// Its length, or `None`.
    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError>;

    /// The lengths of several, in their order. Stores that work on threads of their own answer all of them in one trip.
    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        let mut stats = Vec::with_capacity(ids.len());
        for id in ids {
            stats.push(self.stat(id).await?);
        }
        Ok(stats)
    }

    /// Deletes; `false` when there was none. Deleting is not synced: after power loss it may be back.
    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError>;

    /// Up to `limit` fragments in order of id, after the one given.
    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError>;

    /// Forgets what it keeps in memory of contents, so that the next read of each is answered by the medium: scrubbing looks
    /// for rot there. Nothing to do for stores that keep no such copies.
    fn forget_cached(&self) {}

    /// What it holds. Cheap: counters, not a walk.
    async fn usage(&self) -> Result<Usage, StoreError>;
}

/// A fragment being written. Dropping it abandons the fragment.
#[async_trait]
pub trait FragmentWriter: Send {
    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes it durable and visible, and answers its id and length.
    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError>;
}

/// An open fragment.
#[async_trait]
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait FragmentReader: Send + Sync {
    /// Its length in bytes. Never empty in practice, though stores must take empty fragments.
    fn len(&self) -> u64;

    /// The bytes of a range, all of them.
    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError>;
}
