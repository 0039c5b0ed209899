//! What every fragment store does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::task::{JoinSet, yield_now};

use super::{Lifetime, Random};
use crate::fragment::{FragmentStat, FragmentStore, StoreError};

/// Lengths where stores change their ways: nothing, a little, around the border between packed fragments and files,
/// around the size of a write, more than one write.
const LENGTHS: &[usize] = &[0, 1, 31, 4096, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1_048_579];

/// Checks the whole contract. `open` opens the store kept under a name.
pub async fn fragments<O>(lifetime: Lifetime, open: O)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    content_addressed(&*open("content-addressed").await).await;
    streamed_as_whole(&*open("streamed-as-whole").await).await;
    ranges(&*open("ranges").await).await;
    missing(&*open("missing").await).await;
    deleted(&*open("deleted").await).await;
    listed_in_order(open("listed-in-order").await).await;
    abandoned_leaves_nothing(&*open("abandoned").await).await;
    same_bytes_at_once(open("same-bytes-at-once").await).await;
    put_and_deleted_at_once(open("put-and-deleted").await).await;
    cancelled(open("cancelled").await).await;
    like_a_map(lifetime, &open).await;
    if lifetime == Lifetime::Persistent {
        kept_when_reopened(&open).await;
    }
}

/// Checks what a store does at its bound. It is empty and takes at most `max_bytes`, at least 256 KiB.
pub async fn fragments_when_full(store: Arc<dyn FragmentStore>, max_bytes: u64) {
    // Scenario: uploads until nothing fits. Danger: a fragment half stored, or a store so full that even deleting
    // fails. Expectation: Full early, nothing kept of it, reads and deletes work, and space freed can be used.
    let mut random = Random(1);
    let half = random.bytes(max_bytes as usize / 2);
    let small = random.bytes(1000);
    let kept = store.put(half.clone()).await.unwrap();
    let too_much = random.bytes(max_bytes as usize / 2 + 1);
    assert!(matches!(store.put(too_much.clone()).await, Err(StoreError::Full)), "put beyond the bound");
    assert!(matches!(store.writer(Some(max_bytes)).await, Err(StoreError::Full)), "announced beyond the bound");
    assert!(matches!(stream(&*store, None, &too_much, 1000).await, Err(StoreError::Full)), "streamed beyond the bound");
    assert_counts(&*store, &[kept]).await;
    assert_eq!(store.usage().await.unwrap().free, max_bytes - kept.len);
    assert_eq!(store.get(kept.id).await.unwrap(), half);

    let one = store.writer(Some(max_bytes / 2)).await.unwrap();
    drop(one);
    let second = store.put(random.bytes(max_bytes as usize / 2)).await.unwrap();
    assert!(matches!(store.put(small.clone()).await, Err(StoreError::Full)), "a small one beyond the bound");
    assert!(store.delete(kept.id).await.unwrap());
    let third = store.put(small).await.unwrap();
    assert_counts(&*store, &[second, third]).await;
}

/// Scenario: fragments of every size. Danger: a wrong name, a byte lost at a border. Expectation: the id is the BLAKE3,
/// the bytes come back by every way of reading, counters are exact, and storing again keeps one.
async fn content_addressed(store: &dyn FragmentStore) {
    let mut random = Random(2);
    let mut stats = Vec::new();
    for &len in LENGTHS {
        let bytes = random.bytes(len);
        let stat = store.put(bytes.clone()).await.unwrap();
        assert_eq!(stat, FragmentStat { id: FragmentId::of(&bytes), len: len as u64 });
        stats.push(stat);
        for _again in 0..2 {
            assert_holds(store, &bytes).await;
            assert_counts(store, &stats).await;
            assert_eq!(store.put(bytes.clone()).await.unwrap(), stat, "stored again");
        }
    }
}

/// Scenario: bodies arrive in pieces of any size, of known and unknown length. Danger: a piece lost or hashed out of
/// order where a writer switches from memory to a file. Expectation: as if stored whole.
async fn streamed_as_whole(store: &dyn FragmentStore) {
    let mut random = Random(3);
    for &len in LENGTHS {
        for piece in [1, 7, 4099, 65_535, 65_536, 300_000] {
            if len / piece > 10_000 {
                continue;
            }
            // What is announced is no more than a hint.
            let hint = [None, Some(len as u64), Some(10)][random.below(3) as usize];
            let bytes = random.bytes(len);
            let stat = stream(store, hint, &bytes, piece).await.unwrap();
            assert_eq!(stat, FragmentStat { id: FragmentId::of(&bytes), len: len as u64 });
            assert_holds(store, &bytes).await;
        }
    }
}

/// Scenario: clients read ranges. Danger: a short or shifted answer, or a panic on a wrong range. Expectation: exactly
/// those bytes; beyond the end an error that names the length.
async fn ranges(store: &dyn FragmentStore) {
    let mut random = Random(4);
    for &len in LENGTHS {
        let bytes = random.bytes(len);
        let stat = store.put(bytes.clone()).await.unwrap();
        let reader = store.open(stat.id).await.unwrap();
        assert_eq!(reader.len(), stat.len);
        for _ in 0..20 {
            let start = random.below(stat.len + 1);
            let end = start + random.below(stat.len - start + 1);
            let expected = bytes.slice(start as usize..end as usize);
            assert_eq!(reader.read(start..end).await.unwrap(), expected, "{start}..{end} of {len}");
        }
        let backwards = std::ops::Range { start: stat.len + 1, end: stat.len };
        for range in [0..stat.len + 1, stat.len + 1..stat.len + 1, backwards, 0..u64::MAX] {
            match reader.read(range.clone()).await {
                Err(StoreError::OutOfRange { id, range: asked, len }) => {
                    assert_eq!((id, asked, len), (stat.id, range, stat.len));
                }
                other => panic!("range {range:?} of {len} bytes: {other:?}"),
            }
        }
    }
}

/// Scenario: a fragment that repair moved away is asked for. Danger: an i/o error, which would count against the disk.
/// Expectation: it is said plainly that there is none.
async fn missing(store: &dyn FragmentStore) {
    let id = FragmentId::of(b"never stored");
    assert!(matches!(store.get(id).await, Err(StoreError::NotFound(which)) if which == id));
    assert!(matches!(store.open(id).await.map(drop), Err(StoreError::NotFound(which)) if which == id));
    assert_eq!(store.stat(id).await.unwrap(), None);
    assert!(!store.delete(id).await.unwrap());
    assert_counts(store, &[]).await;
}

/// Scenario: fragments are deleted, also under an open reader, and stored again. Danger: other bytes for the reader, or
/// counters that drift. Expectation: gone at once, the reader reads on or says not found, and storing again works.
async fn deleted(store: &dyn FragmentStore) {
    let mut random = Random(5);
    for &len in LENGTHS {
        let bytes = random.bytes(len);
        let stat = store.put(bytes.clone()).await.unwrap();
        let reader = store.open(stat.id).await.unwrap();
        assert!(store.delete(stat.id).await.unwrap());
        assert!(!store.delete(stat.id).await.unwrap(), "deleted twice");
        assert!(matches!(store.get(stat.id).await, Err(StoreError::NotFound(_))));
        assert_eq!(store.stat(stat.id).await.unwrap(), None);
        match reader.read(0..stat.len).await {
            Ok(read) => assert_eq!(read, bytes),
            Err(error) => assert!(matches!(error, StoreError::NotFound(_)), "{error}"),
        }
        assert_counts(store, &[]).await;
        store.put(bytes.clone()).await.unwrap();
        assert_holds(store, &bytes).await;
        assert!(store.delete(stat.id).await.unwrap());
    }
}

/// Scenario: a scrub walks some thousand fragments page by page. Danger: one skipped or told twice where two kinds of
/// storage are merged or a page ends. Expectation: all, in order, from any id, present or not.
async fn listed_in_order(store: Arc<dyn FragmentStore>) {
    let mut random = Random(6);
    let mut expected = Vec::new();
    for number in 0..2000 {
        let len = if number % 40 == 0 { 65_536 + number } else { random.below(300) as usize + 8 };
        expected.push(random.bytes(len));
    }
    for group in expected.chunks(50) {
        let puts = group.iter().cloned().map(|bytes| {
            let store = Arc::clone(&store);
            async move { store.put(bytes).await.unwrap() }
        });
        puts.collect::<JoinSet<_>>().join_all().await;
    }
    let mut expected: Vec<_> =
        expected.iter().map(|bytes| FragmentStat { id: FragmentId::of(bytes), len: bytes.len() as u64 }).collect();
    expected.sort_by_key(|stat| stat.id);
    for page in [7, 100, 1999, 2000, 2001, 1_000_000] {
        let mut found = Vec::new();
        loop {
            let next = store.list(found.last().map(|stat: &FragmentStat| stat.id), page).await.unwrap();
            assert!(next.len() <= page);
            if next.is_empty() {
                break;
            }
            found.extend(next);
        }
        assert_eq!(found, expected, "in pages of {page}");
    }
    for _ in 0..50 {
        let after = FragmentId::of(&random.bytes(8));
        let from = expected.partition_point(|stat| stat.id <= after);
        let to = expected.len().min(from + 10);
        assert_eq!(store.list(Some(after), 10).await.unwrap(), expected[from..to]);
    }
    assert_eq!(store.list(None, 0).await.unwrap(), []);
    assert_counts(&*store, &expected).await;
}

/// Scenario: clients disconnect in the middle of their uploads. Danger: visible halves, space that never comes back.
/// Expectation: nothing is there, and the free space is what it was.
async fn abandoned_leaves_nothing(store: &dyn FragmentStore) {
    let mut random = Random(7);
    for &len in LENGTHS {
        let mut writer = store.writer(Some(len as u64)).await.unwrap();
        for piece in random.bytes(len).chunks(100_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(writer);
        assert_counts(store, &[]).await;
    }
}

/// Scenario: two uploads and a repair store the same fragment at the same time. Danger: counted twice, or one of them
/// told it failed. Expectation: all succeed and one is kept.
async fn same_bytes_at_once(store: Arc<dyn FragmentStore>) {
    let mut random = Random(8);
    for len in [0, 1000, 65_535, 65_536, 400_000] {
        let bytes = random.bytes(len);
        let mut tasks = JoinSet::new();
        for number in 0..16 {
            let (store, bytes) = (Arc::clone(&store), bytes.clone());
            tasks.spawn(async move {
                match number % 2 {
                    0 => store.put(bytes).await.unwrap(),
                    _ => stream(&*store, None, &bytes, 50_000).await.unwrap(),
                }
            });
        }
        let expected = FragmentStat { id: FragmentId::of(&bytes), len: len as u64 };
        assert!(tasks.join_all().await.iter().all(|stat| *stat == expected));
        assert_holds(&*store, &bytes).await;
        assert_counts(&*store, &[expected]).await;
        assert!(store.delete(expected.id).await.unwrap());
    }
}

/// Scenario: collection deletes while uploads store, the same few fragments over and over. Danger: counters that drift,
/// a listed fragment that cannot be read. Expectation: once quiet, counters, listing and contents agree.
async fn put_and_deleted_at_once(store: Arc<dyn FragmentStore>) {
    let mut random = Random(9);
    let few: Vec<_> = [500, 501, 70_000, 70_001].map(|len| random.bytes(len)).into();
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (store, few, mut random) = (Arc::clone(&store), few.clone(), Random(number));
        tasks.spawn(async move {
            for _ in 0..30 {
                let bytes = few[random.below(few.len() as u64) as usize].clone();
                if random.below(2) == 0 {
                    store.put(bytes).await.unwrap();
                } else {
                    store.delete(FragmentId::of(&bytes)).await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    assert_consistent(&*store, &few).await;
}

/// Scenario: requests are cancelled at any await, as dropped connections do. Danger: a claim held for ever, counters
/// that miss what went on without its caller. Expectation: once quiet everything agrees and everything still works.
async fn cancelled(store: Arc<dyn FragmentStore>) {
    let mut random = Random(10);
    let some: Vec<_> = (0..60).map(|number| random.bytes(if number % 3 == 0 { 150_000 } else { 900 })).collect();
    let mut tasks = JoinSet::new();
    for bytes in &some {
        let (other, bytes) = (Arc::clone(&store), bytes.clone());
        tasks.spawn(async move {
            let stat = other.put(bytes.clone()).await.unwrap();
            stream(&*other, None, &bytes, 10_000).await.unwrap();
            other.delete(stat.id).await.unwrap();
            other.put(bytes).await.unwrap();
        });
        for _ in 0..random.below(6) {
            yield_now().await;
        }
        if random.below(2) == 0 {
            tasks.abort_all();
        }
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    // What was cancelled may still be running; storing each again waits for it.
    for bytes in &some {
        store.put(bytes.clone()).await.unwrap();
    }
    assert_consistent(&*store, &some).await;
    assert_eq!(store.usage().await.unwrap().fragments, some.len() as u64);
}

/// Scenario: a long history of everything, reopened now and then. Danger: whatever nobody thought of. Expectation: a map
/// from id to bytes says the same after every step.
async fn like_a_map<O>(lifetime: Lifetime, open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    const NAME: &str = "like-a-map";
    const SEED: u64 = 11;
    let mut random = Random(SEED);
    let mut model = BTreeMap::<FragmentId, Bytes>::new();
    let mut store = open(NAME).await;
    for step in 0..400 {
        let context = format!("seed {SEED}, step {step}");
        let any = FragmentId::of(&random.bytes(8));
        let near = model.range(any..).next().map_or(any, |(&id, _)| id);
        match random.below(20) {
            0..8 => {
                let len = LENGTHS[random.below(9) as usize] as u64 + random.below(3);
                let bytes = random.bytes(len as usize);
                let stat = match random.below(2) {
                    0 => store.put(bytes.clone()).await,
                    _ => stream(&*store, None, &bytes, 1 + random.below(100_000) as usize + bytes.len() / 50).await,
                };
                assert_eq!(stat.expect(&context).id, FragmentId::of(&bytes), "{context}");
                model.insert(FragmentId::of(&bytes), bytes);
            }
            8..12 => {
                assert_eq!(store.delete(near).await.expect(&context), model.remove(&near).is_some(), "{context}");
            }
            12..15 => match (store.get(near).await, model.get(&near)) {
                (Ok(bytes), Some(expected)) => assert_eq!(bytes, expected, "{context}"),
                (Err(StoreError::NotFound(id)), None) => assert_eq!(id, near, "{context}"),
                (found, expected) => panic!("{context}: {found:?} instead of {expected:?}"),
            },
            15..17 => {
                let expected: Vec<_> = model.range(any..).take(9).map(|(&id, bytes)| stat_of(id, bytes)).collect();
                assert_eq!(store.list(Some(any), 9).await.expect(&context), expected, "{context}");
            }
            17 if lifetime == Lifetime::Persistent => {
                drop(store);
                store = open(NAME).await;
            }
            _ => {
                let stats: Vec<_> = model.iter().map(|(&id, bytes)| stat_of(id, bytes)).collect();
                assert_counts(&*store, &stats).await;
            }
        }
    }
}

/// Scenario: a peer is stopped and started. Danger: something acknowledged lived in memory only. Expectation: all of it
/// is there, what was deleted is not, and the counters did not move.
async fn kept_when_reopened<O>(open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    const NAME: &str = "kept-when-reopened";
    let mut random = Random(12);
    let some: Vec<_> = LENGTHS.iter().map(|&len| random.bytes(len)).collect();
    let store = open(NAME).await;
    for bytes in &some {
        store.put(bytes.clone()).await.unwrap();
    }
    let gone = store.put(random.bytes(2000)).await.unwrap();
    assert!(store.delete(gone.id).await.unwrap());
    let usage = store.usage().await.unwrap();
    drop(store);

    let store = open(NAME).await;
    for bytes in &some {
        assert_holds(&*store, bytes).await;
    }
    assert_eq!(store.stat(gone.id).await.unwrap(), None);
    let again = store.usage().await.unwrap();
    assert_eq!((again.fragments, again.bytes), (usage.fragments, usage.bytes));
    assert_consistent(&*store, &some).await;
}

fn stat_of(id: FragmentId, bytes: &Bytes) -> FragmentStat {
    FragmentStat { id, len: bytes.len() as u64 }
}

/// Stores by a writer, in pieces.
async fn stream(
    store: &dyn FragmentStore,
    hint: Option<u64>,
    bytes: &Bytes,
    piece: usize,
) -> Result<FragmentStat, StoreError> {
    let mut writer = store.writer(hint).await?;
    writer.write(Bytes::new()).await?;
    for start in (0..bytes.len()).step_by(piece) {
        writer.write(bytes.slice(start..bytes.len().min(start + piece))).await?;
    }
    writer.finish().await
}

/// Every way of reading answers these bytes.
async fn assert_holds(store: &dyn FragmentStore, bytes: &Bytes) {
    let stat = stat_of(FragmentId::of(bytes), bytes);
    assert_eq!(store.stat(stat.id).await.unwrap(), Some(stat));
    assert!(store.get(stat.id).await.unwrap() == bytes, "get of {} bytes", stat.len);
    let reader = store.open(stat.id).await.unwrap();
    assert_eq!(reader.len(), stat.len);
    assert!(reader.read(0..stat.len).await.unwrap() == bytes, "read of {} bytes", stat.len);
}

/// The counters say exactly these fragments.
async fn assert_counts(store: &dyn FragmentStore, stats: &[FragmentStat]) {
    let usage = store.usage().await.unwrap();
    let bytes = stats.iter().map(|stat| stat.len).sum();
    assert_eq!((usage.fragments, usage.bytes), (stats.len() as u64, bytes), "counters");
}

/// The counters say what the listing says, and what is listed reads back as one of `possible`.
async fn assert_consistent(store: &dyn FragmentStore, possible: &[Bytes]) {
    let listed = store.list(None, usize::MAX).await.unwrap();
    assert_counts(store, &listed).await;
    for bytes in possible {
        let stat = stat_of(FragmentId::of(bytes), bytes);
        if listed.contains(&stat) {
            assert_holds(store, bytes).await;
        } else {
            assert_eq!(store.stat(stat.id).await.unwrap(), None);
        }
    }
    assert!(listed.iter().all(|stat| { possible.iter().any(|bytes| FragmentId::of(bytes) == stat.id) }));
}
