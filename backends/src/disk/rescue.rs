//! Rescue of packed fragments from a database that cannot go on.
//!
//! A bit that flips in a table of `RocksDB` makes a few fragments unreadable, which repair would mend. But `RocksDB` cannot
//! merge such a table with others any more, and after it has tried it takes no writes, now and after every restart. So the
//! store then leaves a mark, and when it is opened next all fragments that still read, each held against its name, are copied
//! to a new database that takes the place of the old one. The others are missing then, as a lost file is.
//!
//! Cut short at any point it begins anew or goes on: the old database is there until the new one stands in its place.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use palm_core::id::FragmentId;
use rocksdb::{DB, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::db::{self, store_error};
use super::dir::sync_dir;
use super::packed::{Counters, FAMILIES, MOVING, SIZES, USAGE, USAGE_KEY, VALUES};
use crate::fragment::StoreError;

/// Fragments are copied in batches of about this.
const BATCH_BYTES: usize = 4 << 20;

/// Has the database in `packed` rescued when it is opened next.
pub(super) fn mark(packed: &Path) {
    let mark = packed.with_extension("corrupt");
    if let Err(error) = File::create(&mark).and_then(|file| file.sync_all()) {
        tracing::error!(mark = %mark.display(), %error, "packed fragments cannot be marked for rescue");
    }
}

/// Rescues the database in `packed`, if it is marked.
pub(super) fn if_marked(packed: &Path) -> Result<(), StoreError> {
    let [mark, new, old] = ["corrupt", "new", "old"].map(|ending| packed.with_extension(ending));
    if !mark.exists() {
        return Ok(());
    }
    // It goes only when the new one is whole.
    if packed.exists() {
        remove_if_there(&new)?;
        remove_if_there(&old)?;
        copy(packed, &new)?;
        fs::rename(packed, &old)?;
    }
    fs::rename(&new, packed)?;
    if let Some(dir) = packed.parent() {
        sync_dir(dir)?;
    }
    remove_if_there(&old)?;
    Ok(fs::remove_file(&mark)?)
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Copies what reads.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (old, new) = (db::open_unmerged(from, &FAMILIES)?, db::open(to, &FAMILIES)?);
    let (values, sizes, usage, moving) =
        (db::family(&new, VALUES)?, db::family(&new, SIZES)?, db::family(&new, USAGE)?, db::family(&new, MOVING)?);
    let kept = old.get_cf(db::family(&old, USAGE)?, USAGE_KEY).ok().flatten();
    let before = kept.and_then(|kept| Counters::decode(&kept).ok()).unwrap_or_default();
    let mut counters = Counters { packed: 0, packed_bytes: 0, ..before };

    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let mut cursor = old.raw_iterator_cf_opt(db::family(&old, VALUES)?, options);
    let mut batch = WriteBatch::default();
    let mut bucket = 0_u16;
    loop {
        cursor.seek(bucket.to_be_bytes());
        while let Some((key, value)) = cursor.item() {
            if key == FragmentId::of(value).as_bytes() {
                batch.put_cf(values, key, value);
                batch.put_cf(sizes, key, (value.len() as u32).to_be_bytes());
                counters.packed += 1;
                counters.packed_bytes += value.len() as u64;
            }
            bucket = key.first_chunk().map_or(bucket, |first| u16::from_be_bytes(*first));
            if batch.size_in_bytes() > BATCH_BYTES {
                write(&new, std::mem::take(&mut batch), false)?;
            }
            cursor.next();
        }
        // Past what does not read: how far it goes cannot be told, so it is felt for.
        match (cursor.status(), bucket.checked_add(1)) {
            (Err(_), Some(next)) => bucket = next,
            _ => break,
        }
    }
    for entry in old.iterator_cf(db::family(&old, MOVING)?, IteratorMode::Start).flatten() {
        batch.put_cf(moving, entry.0, entry.1);
    }
    batch.put_cf(usage, USAGE_KEY, counters.encode());
    write(&new, batch, true)?;
    let lost = before.packed.saturating_sub(counters.packed);
    tracing::warn!(dir = %from.display(), kept = counters.packed, lost, "packed fragments rescued from a corrupt database");
    Ok(())
}

fn write(db: &DB, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    db.write_opt(batch, &options).map_err(|error| store_error(&error))
}
