//! How `RocksDB` is set up: durable, small, quiet.

use std::path::Path;
use std::sync::OnceLock;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, ErrorKind, LogLevel,
    Options, WriteBufferManager,
};

use crate::fragment::StoreError;

/// All memory that the databases of a process may use: blocks, indexes, filters and memtables together.
const MEMORY_BYTES: usize = 32 << 20;
/// The part of it that may hold writes not yet in tables.
const WRITE_BYTES: usize = 16 << 20;
/// Log that may have to be read at start; beyond it the oldest memtable is written out.
const MAX_WAL_BYTES: u64 = 24 << 20;
/// Table files held open by one database.
const MAX_OPEN_FILES: i32 = 256;
/// Threads that flush and compact, shared by all databases of a process.
const BACKGROUND_JOBS: i32 = 2;
/// A table of which half of this many neighbouring entries are deletions is merged soon: what was deleted takes space no
/// longer.
const DELETION_WINDOW: usize = 1_024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const MAX_INFO_LOG_BYTES: usize = 1 << 20;

/// What a column family keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Small text-like records, read by key and in order.
    Records,
    /// Ciphertext of up to 64 KiB, read by key: not worth compressing.
    Blobs,
}

/// One memory budget for all databases of this process, however many peers or backends it runs.
fn memory() -> &'static (Cache, WriteBufferManager) {
    static MEMORY: OnceLock<(Cache, WriteBufferManager)> = OnceLock::new();
    MEMORY.get_or_init(|| {
        let cache = Cache::new_lru_cache(MEMORY_BYTES);
        let writes = WriteBufferManager::new_write_buffer_manager_with_cache(WRITE_BYTES, false, cache.clone());
        (cache, writes)
    })
}

/// Forgets all blocks in memory, of all databases of this process: the next read of each comes from its table, and is
/// verified.
pub(super) fn forget_cached() {
    let mut cache = memory().0.clone();
    cache.set_capacity(0);
    cache.set_capacity(MEMORY_BYTES);
}

/// Opens a database with these column families, made where missing.
pub(super) fn open(dir: &Path, families: &[(&str, Shape)]) -> Result<DB, StoreError> {
    open_with(dir, families, |_| {})
}

/// The same for a last look: its tables are left as they are, never merged. (Opened for reading only, a database that
/// verifies its logs by the manifest crashes the process, `RocksDB` 11.8.)
pub(super) fn open_unmerged(dir: &Path, families: &[(&str, Shape)]) -> Result<DB, StoreError> {
    open_with(dir, families, |options| options.set_disable_auto_compactions(true))
}

fn open_with(dir: &Path, families: &[(&str, Shape)], adjust: impl Fn(&mut Options)) -> Result<DB, StoreError> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The default recovery mode (to the last point in time that is whole) stays: unsynced writes at the end may
    // be torn by power loss, synced ones may not. Whole logs that vanish are noticed.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_manager(&memory().1);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    // Idle means idle: no periodic statistics, and a short log of warnings.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(MAX_INFO_LOG_BYTES);
    options.set_keep_log_file_num(2);
    let families = families.iter().map(|&(name, shape)| {
        let mut options = family_options(shape);
        adjust(&mut options);
        ColumnFamilyDescriptor::new(name, options)
    });
    DB::open_cf_descriptors(&options, dir, families).map_err(|error| store_error(&error))
}

fn family_options(shape: Shape) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory().0);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_format_version(5);
    // Indexes and filters live in the cache, so that the budget holds however many keys there are.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_write_buffer_size(WRITE_BYTES);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_WINDOW / 2, 0.5);
    match shape {
        Shape::Records => {
            options.set_compression_type(DBCompressionType::Lz4);
            table.set_block_size(8 << 10);
        }
        Shape::Blobs => {
            options.set_compression_type(DBCompressionType::None);
            table.set_block_size(16 << 10);
        }
    }
    options.set_block_based_table_factory(&table);
    options
}

/// The handle of a family that [`open`] was told of.
pub(super) fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, StoreError> {
    db.cf_handle(name).ok_or_else(|| StoreError::Corrupt(format!("column family {name:?} is missing")))
}

/// A database's error by what the caller can do about it.
pub(super) fn store_error(error: &rocksdb::Error) -> StoreError {
    // RocksDB tells a full disk only by its words.
    let full = ["No space left on device", "Space limit reached"];
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corrupt(error.to_string()),
        _ if full.iter().any(|words| error.as_ref().contains(words)) => StoreError::Full,
        _ => StoreError::Io(std::io::Error::other(error.to_string())),
    }
}
