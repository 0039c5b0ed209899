//! The index in `RocksDB`, one column family per space.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIterator, IteratorMode, WriteBatch};

use super::commit::{Changes, Committer};
use super::db::{self, Shape, store_error};
use super::dir::DirLock;
use super::health::Health;
use crate::fragment::StoreError;
use crate::index::{Durability, IndexStore, Next, Space, Strain, Write};
use crate::open::OpenError;

/// What the lock file says.
const FORMAT: &str = "palm index, format 1\n";
/// So many keys are stepped over before a cursor seeks: a seek costs about as much as this many steps, and most folders
/// hold few keys.
const STEPS_BEFORE_SEEK: usize = 16;

/// Ordered keys in `RocksDB`. Commits of concurrent callers share one write and one sync.
pub struct DiskIndex {
    // Fields are dropped in this order: commits end before the database closes, and that before the lock goes.
    committer: Committer<Batches>,
    db: Arc<DB>,
    _lock: DirLock,
}

impl DiskIndex {
    /// Opens the index kept in `dir`, or makes it. Blocks while the log is read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let lock = DirLock::acquire(dir, FORMAT)?;
        let db = Arc::new(db::open(dir, &Space::ALL.map(|space| (space.name(), Shape::Records)))?);
        let batches = Batches { db: Arc::clone(&db), highest: Default::default() };
        let committer = Committer::start("palm-index", Arc::clone(&db), Arc::new(Health::default()), batches)?;
        Ok(Self { committer, db, _lock: lock })
    }

    fn family(&self, space: Space) -> Result<&ColumnFamily, StoreError> {
        db::family(&self.db, space.name())
    }
}

/// What tests do to an index from behind.
#[cfg(test)]
impl DiskIndex {
    pub(super) fn flush_for_test(&self) {
        for space in Space::ALL {
            self.db.flush_cf(self.family(space).unwrap()).unwrap();
        }
    }
}

#[async_trait]
impl IndexStore for DiskIndex {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(self.family(space)?, key).map_err(|error| store_error(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, space: Space, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Next) -> Result<(), StoreError> {
        // An iterator reads one snapshot, taken when it is made.
        let mut cursor = self.db.raw_iterator_cf(self.family(space)?);
        cursor.seek(from);
        while let Some((key, value)) = cursor.item() {
            match visit(key, value) {
                Next::Continue => cursor.next(),
                Next::Seek(to) => advance(&mut cursor, &to),
                Next::Stop => return Ok(()),
            }
        }
        cursor.status().map_err(|error| store_error(&error))
    }

    async fn commit(&self, batch: Vec<Write>, durability: Durability) -> Result<(), StoreError> {
        self.committer.commit(batch, durability).await
    }

    fn size(&self) -> u64 {
        Space::ALL.into_iter().filter_map(|space| self.family(space).ok()).map(|family| size_of(&self.db, family)).sum()
    }

    fn strain(&self) -> Strain {
        // The first two are of the whole database, whichever family is asked.
        let of = |property: &str| self.db.property_int_value(property).ok().flatten().unwrap_or(0);
        let families = Space::ALL.into_iter().filter_map(|space| self.family(space).ok());
        let pending = "rocksdb.estimate-pending-compaction-bytes";
        Strain {
            stopped: of("rocksdb.is-write-stopped") > 0,
            slowed_to: of("rocksdb.actual-delayed-write-rate"),
            pending_bytes: families
                .filter_map(|family| self.db.property_int_value_cf(family, pending).ok().flatten())
                .sum(),
        }
    }
}

/// Moves on to the first key at or after `to`.
fn advance(cursor: &mut DBRawIterator<'_>, to: &[u8]) {
    for _ in 0..STEPS_BEFORE_SEEK {
        cursor.next();
        if cursor.key().is_none_or(|key| key >= to) {
            return;
        }
    }
    cursor.seek(to);
}

/// Tables, and memtables for their share of the log.
fn size_of(db: &DB, family: &ColumnFamily) -> u64 {
    ["rocksdb.live-sst-files-size", "rocksdb.cur-size-active-mem-table"]
        .into_iter()
        .filter_map(|property| db.property_int_value_cf(family, property).ok().flatten())
        .sum()
}

/// Turns batches into changes of the database.
struct Batches {
    db: Arc<DB>,
    /// The highest key that a `Clear` in this group must reach, per space.
    highest: [Option<Bytes>; Space::ALL.len()],
}

impl Batches {
    fn reach(&mut self, space: Space, key: &[u8]) {
        let highest = &mut self.highest[space as usize];
        if highest.as_ref().is_none_or(|highest| &highest[..] < key) {
            *highest = Some(Bytes::copy_from_slice(key));
        }
    }
}

impl Changes for Batches {
    type Request = Vec<Write>;
    type Answer = ();

    fn stage(&mut self, request: Vec<Write>, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let db = Arc::clone(&self.db);
        let family = |space: Space| db::family(&db, space.name());
        // What can fail comes first, so that a request is staged whole or not at all.
        for write in &request {
            if let Write::Clear(space) = *write
                && let Some(last) = db.iterator_cf(family(space)?, IteratorMode::End).next()
            {
                self.reach(space, &last.map_err(|error| store_error(&error))?.0);
            }
        }
        for write in request {
            match write {
                Write::Put(space, key, value) => {
                    batch.put_cf(family(space)?, &key, &value);
                    self.reach(space, &key);
                }
                Write::Delete(space, key) => batch.delete_cf(family(space)?, &key),
                Write::Clear(space) => {
                    if let Some(highest) = &self.highest[space as usize] {
                        // The end is exclusive; the next possible key has one zero more.
                        batch.delete_range_cf(family(space)?, &[][..], &[highest, &[0][..]].concat());
                    }
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, _written: bool) {
        self.highest = Default::default();
    }
}
