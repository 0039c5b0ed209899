//! A storage backend of one's own: fragments appended to one file, with their places in memory.
//!
//! It is complete by the contract of [`FragmentStore`] except that it never gives space back, and it passes the conformance suite:
//! `cargo test -p custom-backend`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use palm_backends::reader::BytesReader;
use palm_backends::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use palm_core::id::FragmentId;
use parking_lot::Mutex;

/// A record of the file: what it says, the length of the bytes, the id, and the bytes.
const STORED: u8 = b'S';
/// The same without bytes.
const DELETED: u8 = b'D';
const HEADER_BYTES: usize = 1 + 8 + FragmentId::LEN;

/// Fragments in one file.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    file: File,
    end: u64,
    places: BTreeMap<FragmentId, Range<u64>>,
}

impl Journal {
    /// Opens the file, or makes it, and reads where what is. A record cut short by a crash is cut off.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()?;
        let (mut inner, mut reader, len) =
            (Inner { file, end: 0, places: BTreeMap::new() }, File::open(path)?, path.metadata()?.len());
        let mut header = [0; HEADER_BYTES];
        while reader.read_exact(&mut header).is_ok() {
            let (bytes, id) = (u64::from_be_bytes(header[1..9].try_into().unwrap_or_default()), &header[9..]);
            let id = FragmentId::from_bytes(id.try_into().unwrap_or([0; FragmentId::LEN]));
            let start = inner.end + HEADER_BYTES as u64;
            if start + bytes > len {
                break;
            }
            inner.end = start + bytes;
            if header[0] == STORED {
                inner.places.insert(id, start..inner.end);
            } else {
                inner.places.remove(&id);
            }
            io::copy(&mut (&mut reader).take(bytes), &mut io::sink())?;
        }
        inner.file.set_len(inner.end)?;
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// Appends one record and syncs. (A real store would do this on a thread that may block, for several callers at once.)
    fn append(&self, kind: u8, id: FragmentId, bytes: &[u8]) -> Result<bool, StoreError> {
        let mut inner = self.0.lock();
        let known = inner.places.contains_key(&id);
        if kind == DELETED && !known {
            return Ok(false);
        }
        let mut record = vec![kind];
        record.extend((bytes.len() as u64).to_be_bytes());
        record.extend(id.as_bytes());
        record.extend(bytes);
        let start = inner.end;
        inner.file.write_all_at(&record, start)?;
        inner.file.flush().and_then(|()| inner.file.sync_data())?;
        inner.end += record.len() as u64;
        let place = start + HEADER_BYTES as u64..inner.end;
        if kind == STORED {
            inner.places.insert(id, place);
        } else {
            inner.places.remove(&id);
        }
        Ok(known)
    }
}

#[async_trait]
impl FragmentStore for Journal {
    async fn writer(&self, _len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        Ok(Box::new(Writer { journal: self.clone(), bytes: BytesMut::new() }))
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let inner = self.0.lock();
        let place = inner.places.get(&id).ok_or(StoreError::NotFound(id))?;
        let mut bytes = BytesMut::zeroed((place.end - place.start) as usize);
        inner.file.read_exact_at(&mut bytes, place.start)?;
        Ok(Box::new(BytesReader { id, bytes: bytes.freeze() }))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        Ok(self.0.lock().places.get(&id).map(|place| FragmentStat { id, len: place.end - place.start }))
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.append(DELETED, id, &[])
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let inner = self.0.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some = inner.places.range((from, Bound::Unbounded)).take(limit);
        Ok(some.map(|(&id, place)| FragmentStat { id, len: place.end - place.start }).collect())
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let inner = self.0.lock();
        let bytes = inner.places.values().map(|place| place.end - place.start).sum();
        Ok(Usage { fragments: inner.places.len() as u64, bytes, free: u64::MAX })
    }
}

struct Writer {
    journal: Journal,
    bytes: BytesMut,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let stat = FragmentStat { id: FragmentId::of(&self.bytes), len: self.bytes.len() as u64 };
        self.journal.append(STORED, stat.id, &self.bytes)?;
        Ok(stat)
    }
}
