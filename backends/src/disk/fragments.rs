//! The fragment store on disk: small fragments go to `packed.rs`, large ones to `files.rs`.

use std::fs::File;
use std::io::Write;
use std::mem;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::PACKED_BELOW;
use super::dir::DirLock;
use super::files::{Files, Part, read_range};
use super::health::Health;
use super::packed::{Glance, Packed};
use super::room::{Promise, Room};
use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::open::OpenError;
use crate::reader::{BytesReader, check_range};

/// What the lock file says.
const FORMAT: &str = "palm fragments, format 1\n";
/// A writer collects this much before it crosses to a blocking thread: a crossing costs about as much as
/// writing 32 KiB.
const WRITE_BYTES: u64 = 256 * 1024;
/// Left free on the file system unless told otherwise: room for the index and for compaction.
const RESERVE_BYTES: u64 = 256 << 20;

/// How much a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// Payload bytes kept at most; `u64::MAX` for no bound but the disk.
    pub max_bytes: u64,
    /// Bytes left free on the file system. With much less than the default, a disk that fills up may stop `RocksDB` for
    /// want of room for its log, and with it deleting, until somebody makes space.
    pub reserve_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, reserve_bytes: RESERVE_BYTES }
    }
}

/// Fragments in a directory of a local file system. See the [module](super) for the layout.
///
/// Usage counters are exact, after a crash too. What a crash cuts short is settled on opening, which takes time
/// for the log and the changes under way, not for the fragments kept. The directory stays locked until the last
/// operation has ended, also when the handle and its caller are gone.
pub struct DiskFragments {
    store: Arc<Store>,
}

/// What operations on blocking threads share. Fields are dropped in this order: the lock goes last.
struct Store {
    packed: Packed,
    files: Files,
    room: Arc<Room>,
    health: Arc<Health>,
    lock: DirLock,
}

impl DiskFragments {
    /// Refuses when no store was made in `dir`.
    pub fn expect(dir: &Path) -> Result<(), OpenError> {
        if DirLock::is_in(dir) { Ok(()) } else { Err(OpenError::Absent(dir.to_owned())) }
    }

    /// Writes and removes a file beside the store made in `dir`.
    pub fn try_writing(dir: &Path) -> Result<(), OpenError> {
        Self::expect(dir)?;
        let trial = dir.join("tmp/trial");
        let mut file = File::create(&trial)?;
        file.write_all(b"does this disk take writes?")?;
        file.sync_all()?;
        Ok(std::fs::remove_file(&trial)?)
    }

    /// Opens the store kept in `dir`, or makes it. Blocks while the log is read.
    pub fn open(dir: &Path, options: DiskOptions) -> Result<Self, OpenError> {
        let lock = DirLock::acquire(dir, FORMAT)?;
        let health = Arc::new(Health::default());
        let files = Files::open(dir, Arc::clone(&health))?;
        let packed = Packed::open(&dir.join("packed"), Arc::clone(&health), |id| files.outcome(id))?;
        let room = Arc::new(Room::new(dir, options.max_bytes, options.reserve_bytes)?);
        Ok(Self { store: Arc::new(Store { packed, files, room, health, lock }) })
    }

    /// Runs on a thread that may block. Once begun it runs to its end, whether or not the caller still waits.
    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        join(spawn_blocking(move || run(&store))).await
    }
}

/// What tests do to a store from behind.
#[cfg(test)]
impl DiskFragments {
    pub(super) fn poison_for_test(&self) {
        self.store.health.poison("test", &"told to");
    }

    pub(super) fn compact_for_test(&self) {
        self.store.packed.compact_for_test();
    }

    pub(super) fn flush_for_test(&self) {
        self.store.packed.flush_for_test();
    }

    pub(super) async fn announce_for_test(&self, id: FragmentId, counted: Option<u64>) {
        let announce = move |store: &Store| store.packed.announce(id, counted)?.wait();
        self.blocking(announce).await.unwrap();
    }
}

impl Store {
    fn used(&self) -> u64 {
        let counters = self.packed.counters();
        counters.packed_bytes + counters.file_bytes
    }

    fn promise(&self, bytes: u64) -> Result<Promise, StoreError> {
        self.health.check()?;
        self.lock.check()?;
        self.room.promise(bytes, self.used())
    }

    async fn pack(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let stat = FragmentStat { id: FragmentId::of(&bytes), len: bytes.len() as u64 };
        self.packed.put(stat.id, bytes).await?;
        // The log of a directory that was removed takes writes as if nothing had happened.
        self.lock.check()?;
        Ok(stat)
    }

    fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        let len = match self.packed.len(id)? {
            Some(len) => Some(len),
            None => self.files.len(id)?,
        };
        Ok(len.map(|len| FragmentStat { id, len }))
    }

    fn open_file(&self, id: FragmentId) -> Result<(File, u64), StoreError> {
        self.files.open_file(id)?.ok_or(StoreError::NotFound(id))
    }
}

#[async_trait]
impl FragmentStore for DiskFragments {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let promise = self.store.promise(len.unwrap_or(0))?;
        Ok(Box::new(DiskWriter {
            store: Arc::clone(&self.store),
            promise,
            len: 0,
            gathered: Vec::new(),
            gathered_bytes: 0,
            file: Destination::Undecided,
        }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let len = bytes.len() as u64;
        let promise = self.store.promise(len)?;
        if len < PACKED_BELOW {
            return self.store.pack(bytes).await;
        }
        let place = move |store: &Store| {
            let _promise = promise;
            let mut part = store.files.create()?;
            part.append(&[bytes])?;
            store.files.place(part, &store.packed)
        };
        self.blocking(place).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let packed = match self.store.packed.glance(id)? {
            Glance::Found(bytes) => Some(bytes),
            Glance::Absent => None,
            Glance::Unknown => self.blocking(move |store| store.packed.get(id)).await?,
        };
        if let Some(bytes) = packed {
            return Ok(Box::new(BytesReader { id, bytes }));
        }
        let (file, len) = self.blocking(move |store| store.open_file(id)).await?;
        Ok(Box::new(FileReader { id, len, file: Arc::new(file) }))
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let known_large = match self.store.packed.glance(id)? {
            Glance::Found(bytes) => return Ok(bytes),
            Glance::Absent => true,
            Glance::Unknown => false,
        };
        let read = move |store: &Store| {
            if !known_large && let Some(bytes) = store.packed.get(id)? {
                return Ok(bytes);
            }
            let (file, len) = store.open_file(id)?;
            Ok(read_range(&file, 0, len)?)
        };
        self.blocking(read).await
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.blocking(move |store| {
            store.lock.check()?;
            store.stat(id)
        })
        .await
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        self.blocking(move |store| {
            store.lock.check()?;
            ids.into_iter().map(|id| store.stat(id)).collect()
        })
        .await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        if self.store.packed.delete(id).await? {
            return Ok(true);
        }
        self.blocking(move |store| store.files.remove(id, &store.packed)).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let list = move |store: &Store| {
            store.lock.check()?;
            let mut found = store.packed.list(after, limit)?;
            found.extend(store.files.list(after, limit)?);
            found.sort_unstable_by_key(|stat| stat.id);
            found.truncate(limit);
            Ok(found)
        };
        self.blocking(list).await
    }

    fn forget_cached(&self) {
        super::db::forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.store.lock.check()?;
        let counters = self.store.packed.counters();
        let bytes = counters.packed_bytes + counters.file_bytes;
        let free = self.store.room.free(bytes)?;
        Ok(Usage { fragments: counters.packed + counters.files, bytes, free })
    }
}

/// Where the bytes of a writer go.
enum Destination {
    /// Not yet enough of them to know.
    Undecided,
    /// To a file that a blocking thread appends to, or has.
    Appending(JoinHandle<Result<Part, StoreError>>),
    /// Nowhere: an append failed.
    Failed,
}

/// Gathers bytes and writes them while the next ones arrive. At most two batches are in memory.
struct DiskWriter {
    store: Arc<Store>,
    promise: Promise,
    len: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: u64,
    file: Destination,
}

impl DiskWriter {
    /// Waits for the append under way, and takes the file out; `None` when there is none yet.
    async fn take_file(&mut self) -> Result<Option<Part>, StoreError> {
        match mem::replace(&mut self.file, Destination::Failed) {
            Destination::Undecided => Ok(None),
            Destination::Appending(append) => join(append).await.map(Some),
            Destination::Failed => Err(StoreError::Io(std::io::Error::other("an earlier write failed"))),
        }
    }
}

#[async_trait]
impl FragmentWriter for DiskWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.len += bytes.len() as u64;
        self.gathered_bytes += bytes.len() as u64;
        self.promise.grow_to(self.len, self.store.used())?;
        self.gathered.push(bytes);
        if self.gathered_bytes < WRITE_BYTES {
            return Ok(());
        }
        let part = self.take_file().await?;
        let pieces = mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let store = Arc::clone(&self.store);
        self.file = Destination::Appending(spawn_blocking(move || {
            let mut part = part.map_or_else(|| store.files.create(), Ok)?;
            part.append(&pieces)?;
            Ok(part)
        }));
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.store.health.check()?;
        let part = self.take_file().await?;
        let pieces = mem::take(&mut self.gathered);
        if part.is_none() && self.len < PACKED_BELOW {
            return self.store.pack(concat(pieces)).await;
        }
        let store = Arc::clone(&self.store);
        join(spawn_blocking(move || {
            let mut part = part.map_or_else(|| store.files.create(), Ok)?;
            part.append(&pieces)?;
            store.files.place(part, &store.packed)
        }))
        .await
    }
}

impl Drop for DiskWriter {
    /// Removing a large file takes a while, so an abandoned one is dropped on a thread that may block.
    fn drop(&mut self) {
        if let Destination::Appending(append) = mem::replace(&mut self.file, Destination::Failed)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(append));
        }
    }
}

/// A large fragment, open. The file stays readable when it is deleted.
struct FileReader {
    id: FragmentId,
    len: u64,
    file: Arc<File>,
}

#[async_trait]
impl FragmentReader for FileReader {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(self.id, &range, self.len)?;
        let file = Arc::clone(&self.file);
        join(spawn_blocking(move || Ok(read_range(&file, range.start, range.end - range.start)?))).await
    }
}

/// The pieces as one; a lone piece is not copied.
fn concat(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => Bytes::from(pieces.concat()),
    }
}

async fn join<T>(task: JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    task.await.unwrap_or_else(|error| Err(StoreError::Io(std::io::Error::other(error))))
}
