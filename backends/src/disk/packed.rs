//! Small fragments, packed in `RocksDB`, and the counters of the whole store.
//!
//! | family | key | value |
//! | --- | --- | --- |
//! | `values` | fragment id | its bytes |
//! | `sizes` | fragment id | its length, u32 big-endian |
//! | `usage` | `usage` | four u64 big-endian: packed fragments, their bytes, files, their bytes |
//! | `moving` | fragment id | the length counted for a file that is being placed or removed, u64 big-endian; empty: none |
//!
//! `sizes` lets a listing pass by the contents. `usage` changes in the same batch as what it counts. A file
//! cannot change in a batch, so each change of one is announced in `moving` first, durably, and taken back
//! together with its effect on `usage`. What is announced when the store is opened was cut short by a crash: there
//! are few, and the file system says how each ended. So the counters are exact and no start walks the tree.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::Mutex;
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, ReadTier, WriteBatch, WriteOptions};

use super::commit::{Changes, Committer, Pending};
use super::db::{self, Shape, store_error};
use super::health::Health;
use super::rescue;
use crate::fragment::{FragmentStat, StoreError};
use crate::index::Durability;

pub(super) const VALUES: &str = "values";
pub(super) const SIZES: &str = "sizes";
pub(super) const USAGE: &str = "usage";
pub(super) const MOVING: &str = "moving";
pub(super) const FAMILIES: [(&str, Shape); 4] =
    [(VALUES, Shape::Blobs), (SIZES, Shape::Records), (USAGE, Shape::Records), (MOVING, Shape::Records)];
/// The one key of its family.
pub(super) const USAGE_KEY: &[u8] = b"usage";

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) packed: u64,
    pub(super) packed_bytes: u64,
    pub(super) files: u64,
    pub(super) file_bytes: u64,
}

impl Counters {
    pub(super) fn encode(self) -> [u8; 32] {
        let mut record = [0; 32];
        let fields = [self.packed, self.packed_bytes, self.files, self.file_bytes];
        for (place, field) in record.as_chunks_mut().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        record
    }

    pub(super) fn decode(record: &[u8]) -> Result<Self, StoreError> {
        let (fields, []) = record.as_chunks::<8>() else {
            return Err(corrupt("usage record"));
        };
        let &[packed, packed_bytes, files, file_bytes] = fields else {
            return Err(corrupt("usage record"));
        };
        Ok(Self {
            packed: u64::from_be_bytes(packed),
            packed_bytes: u64::from_be_bytes(packed_bytes),
            files: u64::from_be_bytes(files),
            file_bytes: u64::from_be_bytes(file_bytes),
        })
    }

    /// Counts a file's change from one length to another; `None` is no file. Saturates, because people may put
    /// files into the folder and take them out.
    fn count_file(&mut self, before: Option<u64>, after: Option<u64>) {
        self.files = (self.files + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
        self.file_bytes = (self.file_bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
    }
}

/// What a quick look finds.
pub(super) enum Glance<T> {
    Found(T),
    Absent,
    /// Only the disk knows.
    Unknown,
}

/// The packed fragments of a store.
pub(super) struct Packed {
    committer: Committer<Packing>,
    db: Arc<DB>,
    counters: Arc<Mutex<Counters>>,
}

impl Packed {
    /// Opens the database in `dir`, or makes it. `outcome` says what became of a file whose change was cut short.
    pub(super) fn open(
        dir: &Path,
        health: Arc<Health>,
        outcome: impl Fn(FragmentId) -> Result<Option<u64>, StoreError>,
    ) -> Result<Self, StoreError> {
        rescue::if_marked(dir)?;
        let db = Arc::new(db::open(dir, &FAMILIES)?);
        let counted = recover(&db, outcome)?;
        let counters = Arc::new(Mutex::new(counted));
        let packing = Packing {
            dir: dir.to_owned(),
            db: Arc::clone(&db),
            published: Arc::clone(&counters),
            counters: counted,
            staged: HashMap::new(),
        };
        let committer = Committer::start("palm-packed", Arc::clone(&db), health, packing)?;
        Ok(Self { committer, db, counters })
    }

    pub(super) fn counters(&self) -> Counters {
        *self.counters.lock()
    }

    /// Stores a fragment durably.
    pub(super) async fn put(&self, id: FragmentId, bytes: Bytes) -> Result<(), StoreError> {
        self.committer.commit(Change::Put(id, bytes), Durability::Synced).await.map(drop)
    }

    /// Deletes a fragment; `false` when there was none.
    pub(super) async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.committer.commit(Change::Delete(id), Durability::Buffered).await
    }

    /// A fragment's bytes if memory has them; never waits for the disk.
    pub(super) fn glance(&self, id: FragmentId) -> Result<Glance<Bytes>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        match self.db.get_cf_opt(db::family(&self.db, VALUES)?, id.as_bytes(), &options) {
            Ok(Some(value)) => Ok(Glance::Found(Bytes::from(value))),
            Ok(None) => Ok(Glance::Absent),
            Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => Ok(Glance::Unknown),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// A fragment's bytes.
    pub(super) fn get(&self, id: FragmentId) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(db::family(&self.db, VALUES)?, id.as_bytes());
        Ok(value.map_err(|error| store_error(&error))?.map(Bytes::from))
    }

    /// A fragment's length.
    pub(super) fn len(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        len_of(&self.db, id)
    }

    /// Up to `limit` fragments in order of id, after the one given.
    pub(super) fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut cursor = self.db.raw_iterator_cf_opt(db::family(&self.db, SIZES)?, options);
        match after {
            None => cursor.seek_to_first(),
            Some(after) => {
                cursor.seek(after.as_bytes());
                if cursor.key() == Some(&after.as_bytes()[..]) {
                    cursor.next();
                }
            }
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((key, value)) = cursor.item()
        {
            found.push(FragmentStat { id: decode_id(key)?, len: decode_len(value)? });
            cursor.next();
        }
        cursor.status().map_err(|error| store_error(&error))?;
        Ok(found)
    }

    /// Announces, durably, that the file of a fragment is about to be placed or removed, while its length counts as
    /// `counted`. For threads that may block; one announcement at a time for a fragment.
    pub(super) fn announce(&self, id: FragmentId, counted: Option<u64>) -> Result<Pending<bool>, StoreError> {
        self.committer.submit(Change::Announce(id, counted), Durability::Synced)
    }

    /// Takes an announcement back and counts what became of the file.
    pub(super) fn conclude(&self, id: FragmentId, counted: Option<u64>, became: Option<u64>) -> Result<(), StoreError> {
        let change = Change::Conclude { id, counted, became };
        self.committer.submit(change, Durability::Buffered)?.wait().map(drop)
    }
}

#[cfg(test)]
impl Packed {
    /// Merges all tables.
    pub(super) fn compact_for_test(&self) {
        self.flush_for_test();
        self.db.compact_range_cf(db::family(&self.db, VALUES).unwrap(), None::<&[u8]>, None::<&[u8]>);
    }

    /// Writes what is in memory to tables.
    pub(super) fn flush_for_test(&self) {
        for name in [VALUES, SIZES] {
            self.db.flush_cf(db::family(&self.db, name).unwrap()).unwrap();
        }
    }
}

/// One change of the packed database.
enum Change {
    Put(FragmentId, Bytes),
    Delete(FragmentId),
    Announce(FragmentId, Option<u64>),
    Conclude { id: FragmentId, counted: Option<u64>, became: Option<u64> },
}

/// Turns changes into batches and keeps count. Lives on the commit thread.
struct Packing {
    dir: PathBuf,
    db: Arc<DB>,
    /// The counters as everybody sees them: those of the last group written.
    published: Arc<Mutex<Counters>>,
    /// The counters with the group being staged.
    counters: Counters,
    /// Lengths that the group being staged sets or removes.
    staged: HashMap<FragmentId, Option<u64>>,
}

impl Packing {
    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        db::family(&self.db, name)
    }

    /// A fragment's length as of everything staged.
    fn current(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        match self.staged.get(&id) {
            Some(&len) => Ok(len),
            None => len_of(&self.db, id),
        }
    }

    fn put(&mut self, id: FragmentId, bytes: &Bytes, batch: &mut WriteBatch) -> Result<bool, StoreError> {
        let new = self.current(id)?.is_none();
        // Written even when it is there: bytes that rotted are replaced by the ones just hashed.
        batch.put_cf(self.family(VALUES)?, id.as_bytes(), bytes);
        batch.put_cf(self.family(SIZES)?, id.as_bytes(), (bytes.len() as u32).to_be_bytes());
        if new {
            let len = bytes.len() as u64;
            self.counters.packed += 1;
            self.counters.packed_bytes += len;
            self.staged.insert(id, Some(len));
        }
        Ok(new)
    }

    fn delete(&mut self, id: FragmentId, batch: &mut WriteBatch) -> Result<bool, StoreError> {
        let Some(len) = self.current(id)? else {
            return Ok(false);
        };
        batch.delete_cf(self.family(VALUES)?, id.as_bytes());
        batch.delete_cf(self.family(SIZES)?, id.as_bytes());
        self.counters.packed -= 1;
        self.counters.packed_bytes -= len;
        self.staged.insert(id, None);
        Ok(true)
    }
}

impl Changes for Packing {
    type Request = Change;
    type Answer = bool;

    fn stage(&mut self, request: Change, batch: &mut WriteBatch) -> Result<bool, StoreError> {
        match request {
            Change::Put(id, bytes) => self.put(id, &bytes, batch),
            Change::Delete(id) => self.delete(id, batch),
            Change::Announce(id, counted) => {
                let value = counted.map(u64::to_be_bytes);
                batch.put_cf(self.family(MOVING)?, id.as_bytes(), value.as_ref().map_or(&[][..], |len| &len[..]));
                Ok(true)
            }
            Change::Conclude { id, counted, became } => {
                batch.delete_cf(self.family(MOVING)?, id.as_bytes());
                self.counters.count_file(counted, became);
                Ok(true)
            }
        }
    }

    fn seal(&mut self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        batch.put_cf(self.family(USAGE)?, USAGE_KEY, self.counters.encode());
        Ok(())
    }

    fn corrupted(&self) {
        rescue::mark(&self.dir);
    }

    fn settle(&mut self, written: bool) {
        self.staged.clear();
        let mut published = self.published.lock();
        if written {
            *published = self.counters;
        } else {
            self.counters = *published;
        }
    }
}

/// Reads the counters, and settles what was announced and never concluded.
fn recover(db: &DB, outcome: impl Fn(FragmentId) -> Result<Option<u64>, StoreError>) -> Result<Counters, StoreError> {
    let (usage, moving) = (db::family(db, USAGE)?, db::family(db, MOVING)?);
    let record = db.get_cf(usage, USAGE_KEY).map_err(|error| store_error(&error))?;
    let mut counters = record.map_or(Ok(Counters::default()), |record| Counters::decode(&record))?;
    let mut batch = WriteBatch::default();
    for entry in db.iterator_cf(moving, IteratorMode::Start) {
        let (key, value) = entry.map_err(|error| store_error(&error))?;
        let id = decode_id(&key)?;
        let counted = match value.len() {
            0 => None,
            _ => Some(u64::from_be_bytes(value[..].try_into().map_err(|_| corrupt("announced length"))?)),
        };
        let became = outcome(id)?;
        tracing::info!(fragment = %id, ?counted, ?became, "settled a change that was cut short");
        counters.count_file(counted, became);
        batch.delete_cf(moving, key);
    }
    if !batch.is_empty() {
        batch.put_cf(usage, USAGE_KEY, counters.encode());
        let mut options = WriteOptions::default();
        options.set_sync(true);
        db.write_opt(batch, &options).map_err(|error| store_error(&error))?;
    }
    Ok(counters)
}

fn len_of(db: &DB, id: FragmentId) -> Result<Option<u64>, StoreError> {
    let value = db.get_pinned_cf(db::family(db, SIZES)?, id.as_bytes()).map_err(|error| store_error(&error))?;
    value.map(|value| decode_len(&value)).transpose()
}

fn decode_len(value: &[u8]) -> Result<u64, StoreError> {
    let value = value.try_into().map_err(|_| corrupt("fragment length"))?;
    Ok(u64::from(u32::from_be_bytes(value)))
}

fn decode_id(key: &[u8]) -> Result<FragmentId, StoreError> {
    Ok(FragmentId::from_bytes(key.try_into().map_err(|_| corrupt("fragment id"))?))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a {what} of the packed store has the wrong length"))
}
