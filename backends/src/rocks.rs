//! All fragments in one `RocksDB`, their bytes in blob files (BlobDB): for machines where many small files are a burden, and
//! disks that like to be written in order.
//!
//! | family | key | value |
//! | --- | --- | --- |
//! | `chunks` | upload (u64 BE), number (u32 BE) | up to 128 KiB of a fragment |
//! | `fragments` | fragment id | upload (u64 BE), length (u64 BE) |
//! | `pending` | upload (u64 BE) | nothing: its chunks belong to no fragment yet |
//! | `usage` | `usage` | fragments and their bytes, each u64 BE |
//!
//! A fragment's name is known when its last byte has come, so its chunks lie under a number drawn at random; one batch
//! names them. What is pending when the store is opened was cut short, and goes.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use palm_core::id::FragmentId;
use parking_lot::Mutex;
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::disk::DiskOptions;
use crate::disk::commit::{Changes, Committer};
use crate::disk::db::{self, Shape, store_error};
use crate::disk::dir::DirLock;
use crate::disk::health::Health;
use crate::disk::room::{Promise, Room};
use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::index::Durability;
use crate::open::OpenError;
use crate::reader::check_range;

#[cfg(test)]
mod tests;

const FORMAT: &str = "palm fragments in rocksdb, format 1\n";
/// Part of the format: where a byte lies follows from it.
const CHUNK_BYTES: usize = 128 << 10;
const CHUNKS: &str = "chunks";
const FRAGMENTS: &str = "fragments";
const PENDING: &str = "pending";
const USAGE: &str = "usage";
const FAMILIES: [(&str, Shape); 4] =
    [(CHUNKS, Shape::BlobFiles), (FRAGMENTS, Shape::Records), (PENDING, Shape::Records), (USAGE, Shape::Records)];

/// Fragments in a `RocksDB`. The directory stays locked until the last handle and operation have ended.
#[derive(Clone)]
pub struct RocksFragments(Arc<Inner>);

/// Fields are dropped in this order: the lock goes last.
struct Inner {
    committer: Committer<Packing>,
    db: Arc<DB>,
    counters: Arc<Mutex<Counters>>,
    room: Arc<Room>,
    health: Arc<Health>,
    lock: DirLock,
}

/// Where a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    upload: u64,
    len: u64,
}

impl Place {
    fn encode(self) -> [u8; 16] {
        let mut record = [0; 16];
        record[..8].copy_from_slice(&self.upload.to_be_bytes());
        record[8..].copy_from_slice(&self.len.to_be_bytes());
        record
    }

    fn decode(record: &[u8]) -> Result<Self, StoreError> {
        match record.as_chunks::<8>() {
            (&[upload, len], []) => Ok(Self { upload: u64::from_be_bytes(upload), len: u64::from_be_bytes(len) }),
            _ => Err(StoreError::Corrupt("a fragment's place has the wrong length".to_owned())),
        }
    }
}

fn chunk_key(upload: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&upload.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

impl RocksFragments {
    /// Refuses when no store was made in `dir`.
    pub fn expect(dir: &Path) -> Result<(), OpenError> {
        if DirLock::is_in(dir) { Ok(()) } else { Err(OpenError::Absent(dir.to_owned())) }
    }

    /// Opens the store kept in `dir`, or makes it. Blocks while the log is read.
    pub fn open(dir: &Path, options: DiskOptions) -> Result<Self, OpenError> {
        let lock = DirLock::acquire(dir, FORMAT)?;
        let health = Arc::new(Health::default());
        let db = Arc::new(db::open(&dir.join("db"), &FAMILIES)?);
        let counted = recover(&db)?;
        let counters = Arc::new(Mutex::new(counted));
        let packing = Packing {
            db: Arc::clone(&db),
            published: Arc::clone(&counters),
            counters: counted,
            staged: HashMap::new(),
        };
        let committer = Committer::start("palm-rocks", Arc::clone(&db), Arc::clone(&health), packing)?;
        let room = Arc::new(Room::new(dir, options.max_bytes, options.reserve_bytes)?);
        Ok(Self(Arc::new(Inner { committer, db, counters, room, health, lock })))
    }

    /// Runs on a thread that may block. Once begun it runs to its end, whether or not the caller still waits.
    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let done = spawn_blocking(move || run(&inner)).await;
        done.unwrap_or_else(|error| Err(StoreError::Io(std::io::Error::other(error))))
    }

    async fn commit(&self, change: Change, durability: Durability) -> Result<bool, StoreError> {
        let done = self.0.committer.commit(change, durability).await?;
        // The log of a directory that was removed takes writes as if nothing had happened.
        self.0.lock.check()?;
        Ok(done)
    }
}

impl Inner {
    fn promise(&self, bytes: u64) -> Result<Promise, StoreError> {
        self.health.check()?;
        self.lock.check()?;
        self.room.promise(bytes, self.counters.lock().bytes)
    }

    fn place(&self, id: FragmentId) -> Result<Option<Place>, StoreError> {
        self.lock.check()?;
        place_of(&self.db, id)
    }

    fn read(&self, id: FragmentId, place: Place, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let chunks = db::family(&self.db, CHUNKS)?;
        let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let (number, skip) = (at / CHUNK_BYTES as u64, (at % CHUNK_BYTES as u64) as usize);
            let number = u32::try_from(number).map_err(|_| StoreError::Corrupt("a fragment is too long".to_owned()))?;
            let found = self.db.get_pinned_cf(chunks, chunk_key(place.upload, number));
            let chunk = found.map_err(|error| store_error(&error))?.ok_or(StoreError::NotFound(id))?;
            let take = ((range.end - at) as usize).min(CHUNK_BYTES - skip);
            let bytes = chunk.get(skip..skip + take);
            all.extend_from_slice(bytes.ok_or_else(|| StoreError::Corrupt(format!("a chunk of {id} is too short")))?);
            at += take as u64;
        }
        Ok(all.freeze())
    }

    fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.lock.check()?;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut cursor = self.db.raw_iterator_cf_opt(db::family(&self.db, FRAGMENTS)?, options);
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
            let id =
                key.try_into().map_err(|_| StoreError::Corrupt("a fragment id has the wrong length".to_owned()))?;
            found.push(FragmentStat { id: FragmentId::from_bytes(id), len: Place::decode(value)?.len });
            cursor.next();
        }
        cursor.status().map_err(|error| store_error(&error))?;
        Ok(found)
    }
}

fn place_of(db: &DB, id: FragmentId) -> Result<Option<Place>, StoreError> {
    let found = db.get_pinned_cf(db::family(db, FRAGMENTS)?, id.as_bytes()).map_err(|error| store_error(&error))?;
    found.map(|record| Place::decode(&record)).transpose()
}

#[async_trait]
impl FragmentStore for RocksFragments {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let promise = self.0.promise(len.unwrap_or(0))?;
        Ok(Box::new(Writer {
            store: self.clone(),
            promise,
            upload: rand::random(),
            hasher: Hasher::new(),
            len: 0,
            gathered: BytesMut::new(),
            chunks: 0,
            under_way: false,
        }))
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let place = self.blocking(move |inner| inner.place(id)).await?.ok_or(StoreError::NotFound(id))?;
        Ok(Box::new(Reader { store: self.clone(), id, place }))
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let read = move |inner: &Inner| {
            let place = inner.place(id)?.ok_or(StoreError::NotFound(id))?;
            inner.read(id, place, &(0..place.len))
        };
        self.blocking(read).await
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        let place = self.blocking(move |inner| inner.place(id)).await?;
        Ok(place.map(|place| FragmentStat { id, len: place.len }))
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        let stat = move |inner: &Inner| {
            let stats = ids.into_iter().map(|id| Ok(inner.place(id)?.map(|place| FragmentStat { id, len: place.len })));
            stats.collect()
        };
        self.blocking(stat).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.commit(Change::Delete(id), Durability::Buffered).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.blocking(move |inner| inner.list(after, limit)).await
    }

    fn forget_cached(&self) {
        db::forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.lock.check()?;
        let Counters { fragments, bytes } = *self.0.counters.lock();
        Ok(Usage { fragments, bytes, free: self.0.room.free(bytes)? })
    }
}

struct Writer {
    store: RocksFragments,
    promise: Promise,
    upload: u64,
    hasher: Hasher,
    len: u64,
    gathered: BytesMut,
    chunks: u32,
    /// Chunks are stored, and named by nothing.
    under_way: bool,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.hasher.update(&bytes);
        self.len += bytes.len() as u64;
        let used = self.store.0.counters.lock().bytes;
        self.promise.grow_to(self.len, used)?;
        self.gathered.extend_from_slice(&bytes);
        // The last chunk goes with the name, so one is always left.
        while self.gathered.len() > CHUNK_BYTES {
            let (upload, number) = (self.upload, self.chunks);
            let bytes = self.gathered.split_to(CHUNK_BYTES).freeze();
            self.under_way = true;
            self.store.commit(Change::Chunk { upload, number, bytes }, Durability::Buffered).await?;
            self.chunks += 1;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let stat = FragmentStat { id: FragmentId::from_bytes(*self.hasher.finalize().as_bytes()), len: self.len };
        let place = Place { upload: self.upload, len: self.len };
        let last = self.gathered.split().freeze();
        // From here on the store itself sees to it, whatever becomes of the caller: named or not at all.
        let change = Change::Name { id: stat.id, place, number: self.chunks, last };
        self.store.commit(change, Durability::Synced).await?;
        self.under_way = false;
        Ok(stat)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.under_way
            && let Ok(runtime) = Handle::try_current()
        {
            let (store, upload) = (self.store.clone(), self.upload);
            runtime.spawn(async move { store.commit(Change::Abandon(upload), Durability::Buffered).await });
        }
    }
}

struct Reader {
    store: RocksFragments,
    id: FragmentId,
    place: Place,
}

#[async_trait]
impl FragmentReader for Reader {
    fn len(&self) -> u64 {
        self.place.len
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(self.id, &range, self.place.len)?;
        let (id, place) = (self.id, self.place);
        self.store.blocking(move |inner| inner.read(id, place, &range)).await
    }
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    fragments: u64,
    bytes: u64,
}

enum Change {
    Chunk { upload: u64, number: u32, bytes: Bytes },
    Name { id: FragmentId, place: Place, number: u32, last: Bytes },
    Abandon(u64),
    Delete(FragmentId),
}

/// Turns changes into batches and keeps count. Lives on the commit thread.
struct Packing {
    db: Arc<DB>,
    /// The counters as everybody sees them: those of the last group written.
    published: Arc<Mutex<Counters>>,
    /// The counters with the group being staged.
    counters: Counters,
    /// Places that the group being staged sets or removes.
    staged: HashMap<FragmentId, Option<Place>>,
}

impl Packing {
    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        db::family(&self.db, name)
    }

    fn current(&self, id: FragmentId) -> Result<Option<Place>, StoreError> {
        match self.staged.get(&id) {
            Some(&place) => Ok(place),
            None => place_of(&self.db, id),
        }
    }

    fn drop_chunks(&self, upload: u64, batch: &mut WriteBatch) -> Result<(), StoreError> {
        batch.delete_range_cf(self.family(CHUNKS)?, chunk_key(upload, 0), chunk_key(upload, u32::MAX));
        Ok(())
    }

    fn is_pending(&self, upload: u64) -> Result<bool, StoreError> {
        let found = self.db.get_pinned_cf(self.family(PENDING)?, upload.to_be_bytes());
        Ok(found.map_err(|error| store_error(&error))?.is_some())
    }
}

impl Changes for Packing {
    type Request = Change;
    type Answer = bool;

    fn stage(&mut self, request: Change, batch: &mut WriteBatch) -> Result<bool, StoreError> {
        match request {
            Change::Chunk { upload, number, bytes } => {
                if number == 0 {
                    batch.put_cf(self.family(PENDING)?, upload.to_be_bytes(), []);
                }
                batch.put_cf(self.family(CHUNKS)?, chunk_key(upload, number), bytes);
                Ok(true)
            }
            Change::Name { id, place, number, last } => {
                let known = self.current(id)?;
                // Named anew even when it is there: bytes that rotted are replaced by the ones just hashed.
                batch.put_cf(self.family(CHUNKS)?, chunk_key(place.upload, number), last);
                batch.put_cf(self.family(FRAGMENTS)?, id.as_bytes(), place.encode());
                batch.delete_cf(self.family(PENDING)?, place.upload.to_be_bytes());
                if let Some(known) = known {
                    self.drop_chunks(known.upload, batch)?;
                } else {
                    self.counters.fragments += 1;
                    self.counters.bytes += place.len;
                }
                self.staged.insert(id, Some(place));
                Ok(known.is_none())
            }
            Change::Abandon(upload) => {
                // Its name may have been committed although its caller went away.
                let pending = self.is_pending(upload)?;
                if pending && !self.staged.values().flatten().any(|place| place.upload == upload) {
                    self.drop_chunks(upload, batch)?;
                    batch.delete_cf(self.family(PENDING)?, upload.to_be_bytes());
                }
                Ok(pending)
            }
            Change::Delete(id) => {
                let Some(place) = self.current(id)? else { return Ok(false) };
                batch.delete_cf(self.family(FRAGMENTS)?, id.as_bytes());
                self.drop_chunks(place.upload, batch)?;
                self.counters.fragments -= 1;
                self.counters.bytes -= place.len;
                self.staged.insert(id, None);
                Ok(true)
            }
        }
    }

    fn seal(&mut self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let Counters { fragments, bytes } = self.counters;
        batch.put_cf(self.family(USAGE)?, USAGE, Place { upload: fragments, len: bytes }.encode());
        Ok(())
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

/// Reads the counters, and drops what uploads left that were cut short.
fn recover(db: &DB) -> Result<Counters, StoreError> {
    let (chunks, pending) = (db::family(db, CHUNKS)?, db::family(db, PENDING)?);
    let mut batch = WriteBatch::default();
    for entry in db.iterator_cf(pending, IteratorMode::Start) {
        let (key, _) = entry.map_err(|error| store_error(&error))?;
        let upload =
            key[..].try_into().map_err(|_| StoreError::Corrupt("an upload's number is too long".to_owned()))?;
        let upload = u64::from_be_bytes(upload);
        batch.delete_range_cf(chunks, chunk_key(upload, 0), chunk_key(upload, u32::MAX));
        batch.delete_cf(pending, key);
    }
    if !batch.is_empty() {
        db.write(batch).map_err(|error| store_error(&error))?;
    }
    let record = db.get_cf(db::family(db, USAGE)?, USAGE).map_err(|error| store_error(&error))?;
    Ok(match record {
        None => Counters::default(),
        Some(record) => {
            let Place { upload, len } = Place::decode(&record)?;
            Counters { fragments: upload, bytes: len }
        }
    })
}
