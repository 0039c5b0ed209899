//! The bytes of every format kept in a directory, as `docs/format.md` has them, and directories as earlier builds left them.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use palm_core::id::FragmentId;
use rocksdb::{DB, IteratorMode};
use tempfile::TempDir;

use super::db::{self, Shape};
use super::{DiskFragments, DiskIndex, DiskOptions, PACKED_BELOW, packed};
use crate::fragment::FragmentStore;
use crate::index::{Durability, IndexStore, Space, Write};

const OPTIONS: DiskOptions = DiskOptions { max_bytes: u64::MAX, reserve_bytes: 0 };
const SMALL: &[u8] = b"palm";
/// BLAKE3 of `SMALL`.
const SMALL_ID: &str = "9183fd5e7ff1abcaabaf2b4b45b98935cf858b5c5c980db5feafe013e25dcf8b";
/// BLAKE3 of 65,536 bytes 7.
const LARGE_ID: &str = "7dc416a3b30cfde6d0d1c8e09a82d99961abe5dd831c636117627437072ace6e";

fn large() -> Bytes {
    Bytes::from(vec![7; PACKED_BELOW as usize])
}

/// All that a database holds: family, key and value, in hexadecimal.
fn dump(dir: &Path, families: &[(&str, Shape)]) -> Vec<String> {
    let db: DB = db::open(dir, families).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let all = families.iter().flat_map(|(name, _)| {
        let entries = db.iterator_cf(db::family(&db, name).unwrap(), IteratorMode::Start).map(Result::unwrap);
        entries.map(|(key, value)| format!("{name} {} {}", hex(&key), hex(&value))).collect::<Vec<_>>()
    });
    all.collect()
}

/// Scenario: a build writes what an earlier one cannot read, or the other way round. Danger: a store that looks empty, or counters that
/// are numbers of something else. Expectation: these bytes, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_are_laid_out_as_format_1_says() {
    let dir = TempDir::new().unwrap();
    let store = DiskFragments::open(dir.path(), OPTIONS).unwrap();
    store.put(Bytes::from_static(SMALL)).await.unwrap();
    store.put(large()).await.unwrap();
    store.announce_for_test(FragmentId::of(b"placed"), None).await;
    store.announce_for_test(FragmentId::of(b"removed"), Some(65_537)).await;
    drop(store);
    assert_eq!(fs::read_to_string(dir.path().join("palm.lock")).unwrap(), "palm fragments, format 1\n");
    let file = dir.path().join("files").join(&LARGE_ID[..2]).join(LARGE_ID);
    assert_eq!(fs::read(file).unwrap(), large());
    let placed = FragmentId::of(b"placed");
    let removed = FragmentId::of(b"removed");
    let mut moving = [format!("moving {placed} "), format!("moving {removed} 0000000000010001")];
    moving.sort();
    let expected = [
        format!("values {SMALL_ID} 70616c6d"),
        format!("sizes {SMALL_ID} 00000004"),
        "usage 7573616765 0000000000000001000000000000000400000000000000010000000000010000".to_owned(),
    ];
    assert_eq!(dump(&dir.path().join("packed"), &packed::FAMILIES), [&expected[..], &moving].concat());
}

#[tokio::test]
async fn the_index_is_laid_out_as_format_1_says() {
    let dir = TempDir::new().unwrap();
    let index = DiskIndex::open(dir.path()).unwrap();
    let put = |space: Space| Write::Put(space, Bytes::from_static(b"key"), Bytes::from(space.name()));
    index.commit(Space::ALL.map(put).into(), Durability::Synced).await.unwrap();
    drop(index);
    assert_eq!(fs::read_to_string(dir.path().join("palm.lock")).unwrap(), "palm index, format 1\n");
    let families = ["meta", "accepted", "followed", "fragments", "local"].map(|name| (name, Shape::Records));
    let expected = ["6d657461", "6163636570746564", "666f6c6c6f776564", "667261676d656e7473", "6c6f63616c"];
    let expected: Vec<_> =
        families.iter().zip(expected).map(|((name, _), value)| format!("{name} 6b6579 {value}")).collect();
    assert_eq!(dump(dir.path(), &families), expected);
}

/// A copy of a directory that an earlier build left, without what it logs for people.
fn fixture(name: &str, to: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let to = to.join(name);
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name), &to);
    to
}

/// What every fixture holds.
async fn assert_holds(store: &dyn FragmentStore) {
    for (id, content) in [(SMALL_ID, Bytes::from_static(SMALL)), (LARGE_ID, large())] {
        assert_eq!(store.get(id.parse().unwrap()).await.unwrap(), content);
    }
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.fragments, usage.bytes), (2, SMALL.len() as u64 + PACKED_BELOW));
    store.put(Bytes::from_static(b"and takes more")).await.unwrap();
}

/// Scenario: PALM is upgraded. Danger: the directories of the build before do not open, or are read as something else. Expectation: those
/// that a build of November 2026 left, killed with its log unmerged, open with all they hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_of_earlier_builds_open() {
    let dir = TempDir::new().unwrap();
    assert_holds(&DiskFragments::open(&fixture("disk-1", dir.path()), OPTIONS).unwrap()).await;
    #[cfg(feature = "rocksdb")]
    assert_holds(&crate::rocks::RocksFragments::open(&fixture("rocksdb-1", dir.path()), OPTIONS).unwrap()).await;
    let index = DiskIndex::open(&fixture("index-1", dir.path())).unwrap();
    for space in Space::ALL {
        assert_eq!(index.get(space, b"key").unwrap().unwrap(), space.name());
    }
}

/// Makes the fixtures: `PALM_FIXTURES=backends/fixtures cargo test -p palm-backends makes_fixtures -- --ignored`. Only ever for a new
/// format, in new directories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes into the work tree"]
async fn makes_fixtures() {
    let Some(to) = std::env::var_os("PALM_FIXTURES").map(PathBuf::from) else { return };
    let store = DiskFragments::open(&to.join("disk-1"), OPTIONS).unwrap();
    store.put(Bytes::from_static(SMALL)).await.unwrap();
    store.put(large()).await.unwrap();
    #[cfg(feature = "rocksdb")]
    {
        let store = crate::rocks::RocksFragments::open(&to.join("rocksdb-1"), OPTIONS).unwrap();
        store.put(Bytes::from_static(SMALL)).await.unwrap();
        store.put(large()).await.unwrap();
    }
    let index = DiskIndex::open(&to.join("index-1")).unwrap();
    let put = |space: Space| Write::Put(space, Bytes::from_static(b"key"), Bytes::from(space.name()));
    index.commit(Space::ALL.map(put).into(), Durability::Synced).await.unwrap();
}
