//! Whether there is space for what is about to be written.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sys;
use crate::fragment::StoreError;

/// The space a store may use: what the file system has, less a reserve, and never beyond `max_bytes`.
#[derive(Debug)]
pub(crate) struct Room {
    path: CString,
    max_bytes: u64,
    reserve_bytes: u64,
    promised: AtomicU64,
}

impl Room {
    pub(crate) fn new(dir: &Path, max_bytes: u64, reserve_bytes: u64) -> io::Result<Self> {
        let path = CString::new(dir.as_os_str().as_bytes())?;
        Ok(Self { path, max_bytes, reserve_bytes, promised: AtomicU64::new(0) })
    }

    /// Bytes that could still be stored when `used` are, and all promises are kept.
    pub(crate) fn free(&self, used: u64) -> io::Result<u64> {
        Ok(self.limit(used)?.saturating_sub(self.promised.load(Ordering::Relaxed)))
    }

    /// Sets `bytes` aside for a fragment that is being written. What it has written already counts twice until
    /// the promise is dropped, and of two that race for the last space both may be refused: near the end a store is
    /// full a little early, never late.
    pub(crate) fn promise(self: &Arc<Self>, bytes: u64, used: u64) -> Result<Promise, StoreError> {
        let promised = self.promised.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let promise = Promise { room: Arc::clone(self), bytes };
        if promised > self.limit(used)? {
            return Err(StoreError::Full);
        }
        Ok(promise)
    }

    fn limit(&self, used: u64) -> io::Result<u64> {
        let on_disk = sys::available(&self.path)?.saturating_sub(self.reserve_bytes);
        Ok(on_disk.min(self.max_bytes.saturating_sub(used)))
    }
}

/// Space set aside, given back when dropped.
#[derive(Debug)]
pub(crate) struct Promise {
    room: Arc<Room>,
    bytes: u64,
}

impl Promise {
    /// Widens it to `bytes` in all.
    pub(crate) fn grow_to(&mut self, bytes: u64, used: u64) -> Result<(), StoreError> {
        if bytes > self.bytes {
            let mut more = self.room.promise(bytes - self.bytes, used)?;
            self.bytes += std::mem::take(&mut more.bytes);
        }
        Ok(())
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.room.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
