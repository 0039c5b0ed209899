//! Large fragments as plain files.
//!
//! The folder is the truth: what is in `files/` under its name is stored, and a file only gets there by a
//! rename after its bytes are durable. All 256 shard folders are made, durably, when a store is made, so placing
//! a file syncs one directory and never has to think about parents.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hasher;
use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::{Condvar, Mutex};

use super::dir::{create_dir, sync_dir};
use super::health::Health;
use super::packed::Packed;
use super::sys::begin_writeback;
use crate::fragment::{FragmentStat, StoreError};

/// Ends the name of a file that is being written.
const PART: &str = ".part";
/// Characters before it: a number in hexadecimal.
const PART_DIGITS: usize = 16;

/// The kernel is told to begin writing a file to disk each time this much has gathered, so that the final sync finds
/// little left to do. Measured here: a stream of 32 MiB fragments is a fifth to a third faster.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// The files of a store. Everything here blocks.
pub(super) struct Files {
    shards: PathBuf,
    parts: PathBuf,
    next_part: AtomicU64,
    health: Arc<Health>,
    busy: Busy,
}

impl Files {
    /// Opens `dir/files` and `dir/tmp`, makes them where needed, and removes what a crash left half written.
    pub(super) fn open(dir: &Path, health: Arc<Health>) -> io::Result<Self> {
        let (shards, parts) = (dir.join("files"), dir.join("tmp"));
        create_dir(&shards)?;
        let mut made = false;
        for first in 0..=u8::MAX {
            match fs::create_dir(shards.join(shard_name(first))) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other?;
                    made = true;
                }
            }
        }
        if made {
            sync_dir(&shards)?;
        }
        create_dir(&parts)?;
        remove_parts(&parts)?;
        Ok(Self { shards, parts, next_part: AtomicU64::new(0), health, busy: Busy::default() })
    }

    fn path(&self, id: FragmentId) -> PathBuf {
        self.shards.join(shard_name(id.as_bytes()[0])).join(id.to_string())
    }

    /// Begins a file.
    pub(super) fn create(&self) -> Result<Part, StoreError> {
        self.health.check()?;
        let number = self.next_part.fetch_add(1, Ordering::Relaxed);
        let path = self.parts.join(format!("{number:0PART_DIGITS$x}{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(write_error)?;
        Ok(Part { file, path, placed: false, hasher: Hasher::new(), len: 0, begun: 0 })
    }

    /// Makes a written file durable and visible under its name.
    ///
    /// The announcement's sync runs while the file's own does. When this fails after the rename, the file may be
    /// there without having been acknowledged; the announcement stays, and the next opening counts it.
    pub(super) fn place(&self, part: Part, packed: &Packed) -> Result<FragmentStat, StoreError> {
        self.health.check()?;
        let id = FragmentId::from_bytes(*part.hasher.finalize().as_bytes());
        let len = part.len;
        let _claim = self.busy.claim(id);
        let path = self.path(id);
        // Renamed even when it is there: bytes that rotted are replaced by the ones just hashed.
        let counted = len_of(&path)?;
        let announced = packed.announce(id, counted)?;
        part.file.sync_all().map_err(|error| self.health.poison("fragment sync", &error))?;
        announced.wait()?;
        part.rename(&path)?;
        self.sync_shard(id)?;
        packed.conclude(id, counted, Some(len))?;
        Ok(FragmentStat { id, len })
    }

    /// Removes a file; `false` when there was none.
    ///
    /// Not synced, so the file may be back after power loss. Then its announcement is back too and it is counted
    /// again, on file systems that bring changes to disk in order (ext4, XFS); on others the counters may miss it.
    pub(super) fn remove(&self, id: FragmentId, packed: &Packed) -> Result<bool, StoreError> {
        self.health.check()?;
        let _claim = self.busy.claim(id);
        let path = self.path(id);
        let Some(len) = len_of(&path)? else {
            return Ok(false);
        };
        packed.announce(id, Some(len))?.wait()?;
        fs::remove_file(&path)?;
        packed.conclude(id, Some(len), None)?;
        Ok(true)
    }

    /// What became of a file whose placing or removal a crash cut short: its length, where there is one.
    pub(super) fn outcome(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        // Whatever is there now stays there: only then may it be counted.
        self.sync_shard(id)?;
        self.len(id)
    }

    /// Opens a file for reading, with its length.
    pub(super) fn open_file(&self, id: FragmentId) -> Result<Option<(File, u64)>, StoreError> {
        match File::open(self.path(id)) {
            Ok(file) => {
                let len = file.metadata()?.len();
                Ok(Some((file, len)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A fragment's length.
    pub(super) fn len(&self, id: FragmentId) -> Result<Option<u64>, StoreError> {
        Ok(len_of(&self.path(id))?)
    }

    /// Up to `limit` fragments in order of id, after the one given. Holds the names of one shard at a time.
    pub(super) fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let mut found = Vec::new();
        let first = after.map_or(0, |after| after.as_bytes()[0]);
        for shard in first..=u8::MAX {
            let dir = self.shards.join(shard_name(shard));
            for id in ids_in(&dir, after)? {
                if found.len() == limit {
                    return Ok(found);
                }
                // Deleted since the names were read: as good as never seen.
                if let Some(len) = len_of(&dir.join(id.to_string()))? {
                    found.push(FragmentStat { id, len });
                }
            }
        }
        Ok(found)
    }

    fn sync_shard(&self, id: FragmentId) -> Result<(), StoreError> {
        let dir = self.shards.join(shard_name(id.as_bytes()[0]));
        sync_dir(&dir).map_err(|error| self.sync_error("directory sync", error))
    }

    /// A file that did not fit is given up, and says nothing about the others.
    fn sync_error(&self, what: &str, error: io::Error) -> StoreError {
        match write_error(error) {
            StoreError::Io(error) => self.health.poison(what, &error),
            full => full,
        }
    }
}

/// Pieces below this are put together up to it: it fits the processor's cache.
const RUN_BYTES: usize = 128 << 10;

/// A file being written, hashed on the way. Dropped before it is placed, it is removed.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    placed: bool,
    hasher: Hasher,
    len: u64,
    /// How much the kernel was told to write to disk.
    begun: u64,
}

impl Part {
    /// Appends pieces. Small ones, as packets bring them, are put together first: one call to the kernel for many, and
    /// BLAKE3 is several times faster on long runs.
    pub(super) fn append(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        let mut run = Vec::new();
        for piece in pieces {
            if run.len() + piece.len() > RUN_BYTES {
                self.append_run(&run)?;
                run.clear();
            }
            if piece.len() >= RUN_BYTES {
                self.append_run(piece)?;
            } else {
                run.extend_from_slice(piece);
            }
        }
        self.append_run(&run)?;
        if self.len - self.begun >= WRITEBACK_BYTES {
            begin_writeback(&self.file, &(self.begun..self.len));
            self.begun = self.len;
        }
        Ok(())
    }

    /// The hash follows the write while the bytes are warm in the processor's cache.
    fn append_run(&mut self, run: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(run).map_err(write_error)?;
        self.hasher.update(run);
        self.len += run.len() as u64;
        Ok(())
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "temporary file stays until the store is opened again");
        }
    }
}

/// Reads a range of a file whole.
pub(super) fn read_range(file: &File, start: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(Bytes::from(bytes))
}

/// Fragments whose file is being placed or removed: one change at a time each, so that counting is exact.
#[derive(Default)]
struct Busy {
    ids: Mutex<HashSet<FragmentId>>,
    released: Condvar,
}

impl Busy {
    /// Waits until nobody else changes this fragment.
    fn claim(&self, id: FragmentId) -> Claim<'_> {
        let mut ids = self.ids.lock();
        while !ids.insert(id) {
            self.released.wait(&mut ids);
        }
        Claim { busy: self, id }
    }
}

struct Claim<'a> {
    busy: &'a Busy,
    id: FragmentId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.busy.ids.lock().remove(&self.id);
        self.busy.released.notify_all();
    }
}

/// The folder of all fragments whose id begins with this byte.
fn shard_name(first: u8) -> String {
    format!("{first:02x}")
}

fn len_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The fragments of a shard in order, after the one given. Names that are not ours are passed by.
fn ids_in(dir: &Path, after: Option<FragmentId>) -> io::Result<Vec<FragmentId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let id = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        ids.extend(id.filter(|&id| Some(id) > after));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Removes files that were being written when the process died; others are none of ours.
fn remove_parts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(PART)).unwrap_or_default();
        if digits.len() == PART_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(error),
    }
}
