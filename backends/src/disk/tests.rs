//! The disk backend through the suite, and what only it promises.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;
use tempfile::TempDir;

use super::crash::LoopDisk;
use super::*;
use crate::conformance::{self, Lifetime};
use crate::fragment::{FragmentStat, FragmentStore, StoreError};
use crate::index::{Durability, IndexStore, Space, Write};
use crate::open::OpenError;

/// No reserve: a nearly full development machine should not fail the tests.
const OPTIONS: DiskOptions = DiskOptions { max_bytes: u64::MAX, reserve_bytes: 0 };

fn open(dir: &Path) -> DiskFragments {
    DiskFragments::open(dir, OPTIONS).unwrap()
}

/// Bytes of some length that differ for each number.
fn bytes(number: u64, len: usize) -> Bytes {
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn file_of(dir: &Path, id: FragmentId) -> std::path::PathBuf {
    let name = id.to_string();
    dir.join("files").join(&name[..2]).join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_conform() {
    let dir = TempDir::new().unwrap();
    conformance::fragments(Lifetime::Persistent, async |name| Arc::new(open(&dir.path().join(name))) as _).await;
    let options = DiskOptions { max_bytes: 1 << 20, ..OPTIONS };
    let store = DiskFragments::open(&dir.path().join("full"), options).unwrap();
    conformance::fragments_when_full(Arc::new(store), options.max_bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_conforms() {
    let dir = TempDir::new().unwrap();
    let open = async |name: &str| Arc::new(DiskIndex::open(&dir.path().join(name)).unwrap()) as _;
    conformance::index(Lifetime::Persistent, open).await;
}

/// Scenario: an operator checks a disk with b3sum, without PALM. Danger: names or contents that only PALM understands.
/// Expectation: a large fragment is a file under its BLAKE3, a small one makes no file, and tmp is empty at rest.
#[tokio::test]
async fn large_fragments_are_plain_files() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let border = PACKED_BELOW as usize;
    let large = store.put(bytes(1, border)).await.unwrap();
    let small = store.put(bytes(2, border - 1)).await.unwrap();
    let file = std::fs::read(file_of(dir.path(), large.id)).unwrap();
    assert_eq!(blake3::hash(&file).to_hex().as_str(), large.id.to_string());
    assert!(!file_of(dir.path(), small.id).exists());
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

/// Scenario: a process dies while writing, and an operator keeps a note in tmp. Danger: space lost for ever, or a
/// stranger's file deleted. Expectation: our temporary file is gone after opening, the note is not.
#[tokio::test]
async fn opening_empties_tmp_of_our_files_only() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let (ours, note) = (dir.path().join("tmp/00000000000000ff.part"), dir.path().join("tmp/note.part"));
    std::fs::write(&ours, b"half").unwrap();
    std::fs::write(&note, b"keep").unwrap();
    let store = open(dir.path());
    assert!(!ours.exists() && note.exists());
    store.put(bytes(1, 100_000)).await.unwrap();
}

/// Scenario: two peers are started on one directory, or an index is opened as fragments. Danger: two writers ruin
/// both. Expectation: the second is refused and told why; when the first is gone it may open.
#[test]
fn a_directory_is_opened_once_and_as_what_it_is() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let second = DiskFragments::open(dir.path(), OPTIONS).map(drop).unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)) && second.to_string().contains("in use"), "{second}");
    drop(first);
    drop(open(dir.path()));
    let wrong = DiskIndex::open(dir.path()).map(drop).unwrap_err();
    assert!(wrong.to_string().contains("palm fragments, format 1"), "{wrong}");
}

/// Scenario: the disk answers EIO to a sync. Danger: a retry that succeeds because the kernel dropped the pages, and an
/// acknowledgement of what is not there. Expectation: no write is taken any more, small or large, reads go on, and
/// opening again starts from what is on disk.
#[tokio::test]
async fn a_failed_sync_stops_writes_and_not_reads() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let kept = [store.put(bytes(1, 100)).await.unwrap(), store.put(bytes(2, 100_000)).await.unwrap()];
    let mut begun = store.writer(None).await.unwrap();
    begun.write(bytes(3, 300_000)).await.unwrap();
    store.poison_for_test();
    assert!(matches!(begun.finish().await, Err(StoreError::Poisoned(_))));
    for len in [10, 100_000] {
        assert!(matches!(store.put(bytes(4, len)).await, Err(StoreError::Poisoned(_))));
    }
    assert!(matches!(store.writer(None).await.map(drop), Err(StoreError::Poisoned(_))));
    for stat in kept {
        assert!(matches!(store.delete(stat.id).await, Err(StoreError::Poisoned(_))));
        assert_eq!(store.get(stat.id).await.unwrap().len() as u64, stat.len);
    }
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
    drop(store);
    let store = open(dir.path());
    store.put(bytes(4, 100_000)).await.unwrap();
    assert_eq!(store.usage().await.unwrap().fragments, 3);
}

/// Scenario: a disk runs full, first by the store alone, then for real because somebody else takes the reserve too.
/// Danger: a store that stops for good, loses what it has, or counts what it refused. Expectation: Full for small and
/// large, everything acknowledged reads back, deleting makes room; with no byte left still nothing but Full, and once
/// the other is gone writing goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: makes and mounts a small file system in a file"]
async fn a_full_disk_refuses_and_recovers() {
    let dir = TempDir::new().unwrap();
    let disk = LoopDisk::make(dir.path(), 128 << 20);
    let options = DiskOptions { reserve_bytes: 32 << 20, ..OPTIONS };
    let store = DiskFragments::open(&disk.mounted.join("store"), options).unwrap();
    let mut kept = Vec::new();
    // The large ones leave a rest that only smaller ones fit into.
    for len in [3 << 20, 100_000, 20_000] {
        fill(&store, &mut kept, 0, len).await;
    }
    for (stat, _) in kept.drain(..3) {
        assert!(store.delete(stat.id).await.unwrap());
    }
    fill(&store, &mut kept, 1000, 100_000).await;

    let other = disk.mounted.join("other");
    let mut taken = std::fs::File::create(&other).unwrap();
    while std::io::Write::write_all(&mut taken, &[7; 4096]).is_ok() {}
    drop(taken);
    fill(&store, &mut kept, 2000, 20_000).await;
    for (stat, content) in kept.split_off(kept.len() - 30) {
        match store.delete(stat.id).await {
            Ok(deleted) => assert!(deleted),
            Err(StoreError::Full) => kept.push((stat, content)),
            Err(error) => panic!("{error}"),
        }
    }
    let sum = kept.iter().map(|(stat, _)| stat.len).sum::<u64>();
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.fragments, usage.bytes), (kept.len() as u64, sum));
    for (stat, content) in &kept {
        assert_eq!(store.get(stat.id).await.unwrap(), content);
    }

    std::fs::remove_file(&other).unwrap();
    for (stat, _) in kept.drain(..3) {
        // RocksDB looks for space every few seconds before it takes writes again.
        while !matches!(store.delete(stat.id).await, Ok(true)) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    for len in [100_000, 10_000] {
        store.put(bytes(99_999, len)).await.unwrap();
    }
}

/// Stores fragments of a length, numbered from `first`, until three were refused.
async fn fill(store: &DiskFragments, kept: &mut Vec<(FragmentStat, Bytes)>, first: u64, len: usize) {
    let mut refused = 0;
    for number in first..u64::MAX {
        if refused == 3 {
            break;
        }
        let content = bytes(number, len);
        match store.put(content.clone()).await {
            Ok(stat) => kept.push((stat, content)),
            Err(StoreError::Full) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Scenario: a crash between a file's rename or removal and its counting. Danger: counters that drift with every crash.
/// Expectation: opening again counts what is there, in each of the four ways it can have ended.
#[tokio::test(flavor = "multi_thread")]
async fn changes_cut_short_are_counted_when_opened() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let [placed, removed, kept] = [1, 2, 3].map(|number| bytes(number, 70_000 + number as usize));
    let removed = store.put(removed).await.unwrap();
    let kept = store.put(kept).await.unwrap();
    let placed_id = FragmentId::of(&placed);
    store.announce_for_test(placed_id, None).await;
    store.announce_for_test(FragmentId::of(b"never placed"), None).await;
    store.announce_for_test(removed.id, Some(removed.len)).await;
    store.announce_for_test(kept.id, Some(kept.len)).await;
    drop(store);
    std::fs::write(file_of(dir.path(), placed_id), &placed).unwrap();
    std::fs::remove_file(file_of(dir.path(), removed.id)).unwrap();

    for _opening in 0..2 {
        let usage = open(dir.path()).usage().await.unwrap();
        assert_eq!((usage.fragments, usage.bytes), (2, kept.len + placed.len() as u64));
    }
}

/// Scenario: a fragment rotted on disk and repair stores it again. Danger: "already there" keeps the bad bytes.
/// Expectation: the good bytes replace them.
#[tokio::test]
async fn storing_again_heals() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let good = bytes(1, 100_000);
    let stat = store.put(good.clone()).await.unwrap();
    std::fs::write(file_of(dir.path(), stat.id), b"rotten").unwrap();
    store.put(good.clone()).await.unwrap();
    assert_eq!(store.get(stat.id).await.unwrap(), good);
}

/// Which of them.
const ROTTEN: usize = 20;

/// Stores forty small fragments and flips a bit of one in its table; answers all.
async fn rotten_table(dir: &Path) -> Vec<Bytes> {
    let store = open(dir);
    let contents: Vec<Bytes> = (0..40).map(|number| Bytes::from(vec![number; 40_000])).collect();
    for content in &contents {
        store.put(content.clone()).await.unwrap();
    }
    store.flush_for_test();
    drop(store);
    flip_in_table(dir, &contents[ROTTEN]);
    contents
}

/// Flips a bit of a small fragment in its table.
fn flip_in_table(dir: &Path, rotten: &[u8]) {
    let mut flipped = 0;
    for entry in std::fs::read_dir(dir.join("packed")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "sst") {
            continue;
        }
        let mut table = std::fs::read(&path).unwrap();
        if let Some(at) = table.windows(1000).position(|window| window == &rotten[..1000]) {
            table[at + 500] ^= 1;
            std::fs::write(&path, table).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "the fragment lies in one table");
}

/// Scenario: a bit flips under a running peer, in a block that was read a moment ago. Danger: scrubbing is answered from
/// memory, finds it right, and all copies rot while they are read. Expectation: once what is cached is forgotten, the next read
/// finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrubbing_sees_the_medium_and_not_the_cache() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let content = Bytes::from(vec![7; 40_000]);
    let id = store.put(content.clone()).await.unwrap().id;
    store.flush_for_test();
    assert_eq!(store.get(id).await.unwrap(), content);
    flip_in_table(dir.path(), &content);
    store.forget_cached();
    assert!(matches!(store.get(id).await, Err(StoreError::Corrupt(_))));
}

/// Scenario: a bit flips in the table that a small fragment is packed in, and repair stores the fragment again. Danger: the wrong
/// bytes are served; or the good ones lie behind the bad ones and the fragment stays unreadable. Expectation: reading it is an
/// error, its neighbours read, storing it again heals it, also after it has gone to a table of its own and after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storing_again_heals_packed_fragments() {
    let dir = TempDir::new().unwrap();
    let contents = rotten_table(dir.path()).await;
    let rotten = &contents[ROTTEN];

    let store = open(dir.path());
    let id = FragmentId::of(rotten);
    assert!(matches!(store.get(id).await, Err(StoreError::Corrupt(_))));
    assert!(store.stat(id).await.unwrap().is_some());
    assert_eq!(store.get(FragmentId::of(&contents[30])).await.unwrap(), contents[30]);
    store.put(rotten.clone()).await.unwrap();
    assert_eq!(store.get(id).await.unwrap(), *rotten);
    store.flush_for_test();
    assert_eq!(store.get(id).await.unwrap(), *rotten);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.get(id).await.unwrap(), *rotten);
    assert_eq!(store.usage().await.unwrap().fragments, 40);
}

/// Scenario: the same, and then RocksDB comes to merge that table with others, which it cannot. Danger: the store takes no writes, and
/// none after any restart, for one bit. Expectation: it says so; opened again it has all but what was in the rotten block,
/// counts right, takes writes, and merges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_table_is_left_behind() {
    let dir = TempDir::new().unwrap();
    let contents = rotten_table(dir.path()).await;
    let store = open(dir.path());
    let large = store.put(bytes(1, 100_000)).await.unwrap();
    for content in [&contents[0], &contents[39]] {
        // Makes a second table, without which there is nothing to merge.
        store.put(content.clone()).await.unwrap();
    }
    store.compact_for_test();
    let refused = store.put(Bytes::from_static(b"refused")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Poisoned(reason) if reason.contains("checksum")), "{refused}");
    assert_eq!(store.get(FragmentId::of(&contents[30])).await.unwrap(), contents[30]);
    drop(store);

    for _opening in 0..2 {
        let store = open(dir.path());
        for (content, number) in contents.iter().zip(0..) {
            let found = store.get(FragmentId::of(content)).await;
            match number {
                ROTTEN => assert!(matches!(found, Err(StoreError::NotFound(_)))),
                _ => assert_eq!(found.unwrap(), *content),
            }
        }
        let sum = large.len + contents[0].len() as u64 * 39;
        let usage = store.usage().await.unwrap();
        assert_eq!((usage.fragments, usage.bytes), (40, sum));
        assert_eq!(store.list(None, 100).await.unwrap().len(), 40);
        store.compact_for_test();
        let stat = store.put(Bytes::from_static(b"taken")).await.unwrap();
        store.delete(stat.id).await.unwrap();
    }
    assert!(!dir.path().join("packed.old").exists() && !dir.path().join("packed.corrupt").exists());
}

/// Scenario: a file is shortened under the store. Danger: a short answer taken for the whole. Expectation: an error for
/// a reader that knew the length.
#[tokio::test]
async fn a_file_cut_short_is_an_error() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let stat = store.put(bytes(1, 100_000)).await.unwrap();
    let reader = store.open(stat.id).await.unwrap();
    std::fs::File::options().write(true).open(file_of(dir.path(), stat.id)).unwrap().set_len(50_000).unwrap();
    assert!(matches!(reader.read(0..stat.len).await, Err(StoreError::Io(_))));
}

/// Scenario: a byte of the index flips on disk. Danger: a wrong record served as an accepted one. Expectation: an error,
/// when opened or when read.
#[tokio::test]
async fn a_flipped_table_byte_is_an_error() {
    let dir = TempDir::new().unwrap();
    let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let index = DiskIndex::open(dir.path()).unwrap();
    let puts = (0..5000).map(|number| Write::Put(Space::Accepted, key(number), bytes(u64::from(number), 100)));
    index.commit(puts.collect(), Durability::Synced).await.unwrap();
    index.flush_for_test();
    drop(index);
    let tables = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let table = tables.filter(|path| path.extension().is_some_and(|kind| kind == "sst")).max().unwrap();
    let mut content = std::fs::read(&table).unwrap();
    let middle = content.len() / 3;
    content[middle] ^= 0x10;
    std::fs::write(&table, content).unwrap();

    let failed = match DiskIndex::open(dir.path()) {
        Err(_) => true,
        Ok(index) => (0..5000).any(|number| index.get(Space::Accepted, &key(number)).is_err()),
    };
    assert!(failed, "a flipped byte went unnoticed");
}
