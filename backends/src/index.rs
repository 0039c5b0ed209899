//! The contract of the index: a small ordered key-value store with durable, atomic batches.

use async_trait::async_trait;
use bytes::Bytes;

use crate::fragment::StoreError;

/// A key space of the index. The byte is what is stored; never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Few, small, rarely written: identity of the pool, clock ceiling, epoch, configuration.
    Meta,
    /// What this peer accepted as a voter: register key to accepted record.
    Accepted,
    /// What this peer follows as a learner: register key to accepted record.
    Followed,
    /// What is known of each fragment kept here.
    Fragments,
    /// This peer's copy of a local pool's data: register key to record.
    Local,
}

impl Space {
    /// All of them, for stores that open each by name.
    pub const ALL: [Self; 5] = [Self::Meta, Self::Accepted, Self::Followed, Self::Fragments, Self::Local];

    /// Its stored name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Accepted => "accepted",
            Self::Followed => "followed",
            Self::Fragments => "fragments",
            Self::Local => "local",
        }
    }
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Space, Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Space, Bytes),
    /// Removes every key of a space.
    Clear(Space),
}

/// How long a batch must last when its commit answers `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Through power loss. Concurrent commits share one sync.
    Synced,
    /// Through a crash of this process; power loss may take it back, in order, with all later batches.
    Buffered,
}

/// Ordered keys, atomic batches, consistent scans.
///
/// Reads are plain calls: they answer from memory or with one short disk access. Long scans belong on a
/// blocking thread.
///
/// Contract, checked by the feature `conformance`: a batch is applied whole or not at all; a batch that
/// answered `Ok` is visible to every later read, and lasts as its [`Durability`] says; a batch that answered an
/// error may or may not be there after a restart, and after a failed sync the store takes no more writes
/// ([`StoreError::Poisoned`]); batches of one caller that awaited each in turn are never reordered.
#[async_trait]
pub trait IndexStore: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits keys from `from` (inclusive) in order, on one consistent snapshot, until `visit` says stop.
    /// `visit` sees key and value and answers where to go next.
    fn scan(&self, space: Space, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Next) -> Result<(), StoreError>;

    /// Applies a batch.
    async fn commit(&self, batch: Vec<Write>, durability: Durability) -> Result<(), StoreError>;

    /// Approximate bytes on disk; 0 for a store without one.
    fn size(&self) -> u64;

    /// How it copes with what is written to it.
    fn strain(&self) -> Strain {
        Strain::default()
    }
}

/// How an index copes with what is written to it: merging goes on behind, and writers wait where it does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strain {
    /// Writers wait until some of it is merged.
    pub stopped: bool,
    /// Bytes per second that writers are slowed to; 0: they are not.
    pub slowed_to: u64,
    /// Bytes that are still to be merged.
    pub pending_bytes: u64,
}

/// Where a scan goes after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// To the following key.
    Continue,
    /// To the first key at or after this one (which is after the current one): how delimiter listing
    /// skips a folder in one seek.
    Seek(Bytes),
    /// Nowhere.
    Stop,
}
