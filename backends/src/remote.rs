//! Fragments in a place that [OpenDAL](https://opendal.apache.org) reaches: a bucket of another S3 store, a `WebDAV` folder, a
//! mounted directory.
//!
//! ```text
//! PLACE/palm.store                what the place is; written first, by the one peer that it belongs to
//! PLACE/files/ab/<64 hex>         fragments: the name is the BLAKE3 of the object
//! PLACE/tmp/<16 hex>.part         fragments being written; emptied when the store is opened
//! ```
//!
//! How a fragment comes to be there whole or not at all depends on the service ([`service`]). Where storing an object is one act
//! (S3, GCS, Azure), one that is in memory goes straight to its name; a longer one, whose name is known when its last byte
//! has come, goes to a name of its own first and is copied there by the service. Elsewhere it is renamed.
//!
//! A bucket cannot be locked. A place is therefore opened by the peer that made it, and by another one only when it is told
//! that the first is gone (`adopt`): two that keep fragments in one place would collect each other's.
//!
//! What is kept is counted when the store is opened (S3 lists 1,000 fragments a request), and then by what is stored and deleted.
//! A change whose outcome the service did not tell is looked up; when that fails too, the counters are right again after the
//! next opening.

mod list;
mod service;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use opendal::{Buffer, ErrorKind, Operator};
use palm_core::id::FragmentId;
use parking_lot::Mutex;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::open::OpenError;
use crate::reader::check_range;
use list::Listed;
use service::Service;
use write::{Content, Writer};

pub use service::SCHEMES;

/// Says what the place is.
const MARK: &str = "palm.store";
const FORMAT: &str = "palm fragments in opendal, format 1\n";
const FILES: &str = "files/";
const PARTS: &str = "tmp/";
const PART: &str = ".part";
/// A request carries so much at most; a fragment up to it is held in memory and stored by one.
const CHUNK_BYTES: usize = 8 << 20;
/// Questions for lengths that are under way at once for one caller.
const STATS_AT_ONCE: usize = 16;
/// By the first byte of an id: its folder, and those changes that wait for each other.
const SHARDS: usize = 256;

/// What to do about what may be in the place already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A store has to be there: it was, at an earlier start.
    Expected,
    /// None may be there; one is made.
    Refused,
    /// Whatever is there becomes this one's.
    Adopted,
}

/// Fragments in a place that is not this machine's. Cheap to clone.
#[derive(Clone)]
pub struct RemoteFragments(Arc<Remote>);

struct Remote {
    operator: Operator,
    service: Service,
    /// By first byte of the id: a folder that holds nothing is not listed.
    counters: Mutex<Vec<Counters>>,
    /// The folder that a listing is in the middle of.
    listed: Mutex<Option<Listed>>,
    /// One change of a fragment at a time, so that counting is exact.
    claims: Vec<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    fragments: u64,
    bytes: u64,
    /// How often it was counted: while this stays, so does what is there.
    changes: u64,
}

impl Counters {
    /// Saturates: others may take fragments out of the place, and put some in.
    fn count(&mut self, before: Option<u64>, after: Option<u64>) {
        self.fragments = (self.fragments + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
        self.bytes = (self.bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
        self.changes += 1;
    }
}

impl RemoteFragments {
    /// Opens the store at `place` (`s3://bucket/prefix`), with the options of its service; makes it where `found` allows.
    /// Blocks while what is there is counted, also on a thread of an async runtime.
    pub fn open_blocking(place: &str, options: Vec<(String, String)>, found: Found) -> Result<Self, OpenError> {
        let place = place.to_owned();
        let opening = std::thread::Builder::new().name("palm-remote".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(Self::open(&place, options, found))
        })?;
        opening.join().unwrap_or_else(|_| Err(std::io::Error::other("opening panicked").into()))
    }

    /// The same on the caller's runtime.
    pub async fn open(place: &str, options: Vec<(String, String)>, found: Found) -> Result<Self, OpenError> {
        let (operator, service) = service::open(place, options)?;
        let claims = std::iter::repeat_with(tokio::sync::Mutex::default).take(SHARDS).collect();
        let remote = Remote { operator, service, counters: Mutex::new(Vec::new()), listed: Mutex::default(), claims };
        remote.take_possession(place, found).await?;
        remote.remove_parts().await?;
        let counted = remote.count_all().await?;
        *remote.counters.lock() = counted;
        Ok(Self(Arc::new(remote)))
    }

    /// Takes the mark away from a place that is empty and not used any more, so that another peer may have it.
    pub async fn give_up(place: &str, options: Vec<(String, String)>) -> Result<(), OpenError> {
        let (operator, service) = service::open(place, options)?;
        operator.delete(MARK).await.map_err(|error| store_error(&error))?;
        match service.local {
            Some(root) => Ok(sync_dir(root).await?),
            None => Ok(()),
        }
    }
}

impl Remote {
    async fn take_possession(&self, place: &str, found: Found) -> Result<(), OpenError> {
        let mark = match self.operator.read(MARK).await {
            Ok(text) => Some(text.to_bytes()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(store_error(&error).into()),
        };
        match (mark, found) {
            (None, Found::Expected) => return Err(OpenError::Absent(PathBuf::from(place))),
            (None, _) => {}
            (Some(mark), _) if mark != FORMAT => {
                let found = String::from_utf8_lossy(&mark[..mark.len().min(FORMAT.len())]).trim().to_owned();
                let expected = FORMAT.trim().to_owned();
                return Err(OpenError::Format { dir: PathBuf::from(place), found, expected });
            }
            (Some(_), Found::Refused) => {
                let reason = "holds the fragments of another peer; if that one is gone for good, add adopt=true";
                return Err(OpenError::BadUrl { url: format!("opendal+{place}"), reason: reason.to_owned() });
            }
            (Some(_), _) => return Ok(()),
        }
        if let Some(root) = &self.service.local {
            for first in 0..SHARDS {
                self.operator.create_dir(&format!("{FILES}{first:02x}/")).await.map_err(|error| store_error(&error))?;
            }
            sync_dir(root.join(FILES)).await?;
        }
        self.operator.write(MARK, FORMAT).await.map_err(|error| store_error(&error))?;
        if let Some(root) = &self.service.local {
            sync_dir(root.clone()).await?;
            sync_dir(root.parent().unwrap_or(root).to_owned()).await?;
        }
        Ok(())
    }

    async fn len(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        match self.operator.stat(&path(id)).await {
            Ok(found) => Ok(Some(found.content_length())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(store_error(&error)),
        }
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        Ok(self.len(id).await?.map(|len| FragmentStat { id, len }))
    }

    async fn claim(&self, id: FragmentId) -> tokio::sync::MutexGuard<'_, ()> {
        self.claims[usize::from(id.as_bytes()[0])].lock().await
    }

    /// Stores a fragment under its name, whatever lies there: bytes that rotted are replaced by the ones just hashed.
    async fn place(&self, stat: FragmentStat, content: Content) -> Result<FragmentStat, StoreError> {
        let _claim = self.claim(stat.id).await;
        let before = self.len(stat.id).await?;
        let placed = content.place(self, &path(stat.id)).await;
        self.conclude(stat.id, before, placed, Some(stat.len)).await?;
        Ok(stat)
    }

    async fn remove(&self, id: FragmentId) -> Result<bool, StoreError> {
        let _claim = self.claim(id).await;
        let before = self.len(id).await?;
        if before.is_some() {
            let deleted = self.operator.delete(&path(id)).await.map_err(|error| store_error(&error));
            self.conclude(id, before, deleted, None).await?;
        }
        Ok(before.is_some())
    }

    /// Counts what became of a change. After an error only the service can say.
    async fn conclude(
        &self,
        id: FragmentId,
        before: Option<u64>,
        done: Result<(), StoreError>,
        after: Option<u64>,
    ) -> Result<(), StoreError> {
        let after = match &done {
            Ok(()) => after,
            Err(_) => self.len(id).await.unwrap_or(before),
        };
        self.counters.lock()[usize::from(id.as_bytes()[0])].count(before, after);
        done
    }

    /// The bytes of a range, or of the whole.
    async fn read(&self, id: FragmentId, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        let len = range.end - range.start;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let found =
            self.operator.read_with(&path(id)).range(range).await.map_err(|error| fragment_error(id, &error))?;
        if found.len() as u64 != len {
            return Err(StoreError::Corrupt(format!("{} bytes of {id} instead of {len}", found.len())));
        }
        Ok(found.to_bytes())
    }
}

#[async_trait]
impl FragmentStore for RemoteFragments {
    async fn writer(&self, _len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        Ok(Box::new(Writer::new(Arc::clone(&self.0))))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let stat = FragmentStat { id: FragmentId::of(&bytes), len: bytes.len() as u64 };
        let remote = Arc::clone(&self.0);
        to_its_end(async move { remote.place(stat, Content::Memory(Buffer::from(bytes))).await }).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let len = self.0.len(id).await?.ok_or(StoreError::NotFound(id))?;
        Ok(Box::new(Reader { remote: Arc::clone(&self.0), id, len }))
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let found = self.0.operator.read(&path(id)).await.map_err(|error| fragment_error(id, &error))?;
        Ok(found.to_bytes())
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.0.stat(id).await
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        let asked = stream::iter(ids.into_iter().map(|id| self.0.stat(id)));
        asked.buffered(STATS_AT_ONCE).try_collect().await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        let remote = Arc::clone(&self.0);
        to_its_end(async move { remote.remove(id).await }).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.0.list(after, limit).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let counters = self.0.counters.lock();
        let fragments = counters.iter().map(|shard| shard.fragments).sum();
        Ok(Usage { fragments, bytes: counters.iter().map(|shard| shard.bytes).sum(), free: u64::MAX })
    }
}

struct Reader {
    remote: Arc<Remote>,
    id: FragmentId,
    len: u64,
}

#[async_trait]
impl FragmentReader for Reader {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        check_range(self.id, &range, self.len)?;
        self.remote.read(self.id, range).await
    }
}

/// Where a fragment lies, below the place of the store.
fn path(id: FragmentId) -> String {
    format!("{FILES}{:02x}/{id}", id.as_bytes()[0])
}

/// Goes on when its caller goes away, so that what is counted is what is there.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|error| Err(StoreError::Io(std::io::Error::other(error))))
}

async fn sync_dir(dir: PathBuf) -> Result<(), StoreError> {
    let synced = tokio::task::spawn_blocking(move || std::fs::File::open(Path::new(&dir))?.sync_all()).await;
    Ok(synced.map_err(std::io::Error::other)??)
}

fn fragment_error(id: FragmentId, error: &opendal::Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotFound(id),
        _ => store_error(error),
    }
}

/// A service's error by what the caller can do about it.
fn store_error(error: &opendal::Error) -> StoreError {
    /// How services say that there is no room; `OpenDAL` has no word for it.
    const FULL: [&str; 4] = ["QuotaExceeded", "StorageFull", "InsufficientStorage", "507 Insufficient Storage"];
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return StoreError::Full;
        }
        cause = inner.source();
    }
    let text = error.to_string();
    if FULL.iter().any(|word| text.contains(word)) {
        return StoreError::Full;
    }
    let kind = match error.kind() {
        ErrorKind::PermissionDenied => std::io::ErrorKind::PermissionDenied,
        ErrorKind::NotFound => std::io::ErrorKind::NotFound,
        _ => std::io::ErrorKind::Other,
    };
    StoreError::Io(std::io::Error::new(kind, text))
}
