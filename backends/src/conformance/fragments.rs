//! What every fragment store does: a table of checks, each by name.

use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;

use super::{Checks, Lifetime, Random, cutting, listing, racing, reading, storing};
use crate::fragment::{FragmentStat, FragmentStore, StoreError};

/// Lengths where stores change their ways: nothing, a little, around the border between packed fragments and files,
/// around the size of a write, more than one write, more than one request.
pub(super) const LENGTHS: [usize; 13] =
    [0, 1, 31, 4096, 65_535, 65_536, 65_537, 131_071, 131_073, 262_143, 262_145, 1_048_579, 9_437_185];
/// Those of the short suite.
const FEW_LENGTHS: [usize; 5] = [0, 4096, 65_536, 262_145, 9_437_185];

impl Checks {
    pub(super) fn lengths(&self) -> &'static [usize] {
        if self.short { &FEW_LENGTHS } else { &LENGTHS }
    }
}

/// Checks the whole contract, and answers how many checks that were. `open` opens the store kept under a name.
pub async fn fragments<O>(lifetime: Lifetime, open: O) -> u64
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    run(Checks::default(), lifetime, open).await
}

/// The same with fewer sizes, races and steps, for stores at the other end of a network.
pub async fn fragments_in_short<O>(lifetime: Lifetime, open: O) -> u64
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    run(Checks { short: true, ..Checks::default() }, lifetime, open).await
}

async fn run<O>(mut checks: Checks, lifetime: Lifetime, open: O) -> u64
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    let listed = checks.some(1000, 150);
    storing::check(&mut checks, &*open("storing").await).await;
    reading::check(&mut checks, &*open("reading").await).await;
    listing::check(&mut checks, open("listing").await, listed).await;
    racing::check(&mut checks, open("racing").await).await;
    cutting::check(&mut checks, open("cutting").await).await;
    storing::like_a_map(&mut checks, lifetime, &open).await;
    if lifetime == Lifetime::Persistent {
        cutting::reopened(&mut checks, &open).await;
    }
    checks.passed("fragments")
}

/// Checks a store that holds many: `count` small fragments are stored, listed, and some of them read. It is empty.
pub async fn many_fragments(store: Arc<dyn FragmentStore>, count: usize) -> u64 {
    let mut checks = Checks::default();
    listing::check(&mut checks, store, count).await;
    checks.passed("many fragments")
}

/// Checks what a store does at its bound. It is empty and takes at most `max_bytes`, at least 256 KiB.
pub async fn fragments_when_full(store: Arc<dyn FragmentStore>, max_bytes: u64) -> u64 {
    // Scenario: uploads until nothing fits. Danger: a fragment half stored, or a store so full that even deleting
    // fails. Expectation: Full early, nothing kept of it, reads and deletes work, and space freed can be used.
    let mut checks = Checks::default();
    let mut random = Random(1);
    let half = random.bytes(max_bytes as usize / 2);
    let small = random.bytes(1000);
    let kept = store.put(half.clone()).await.unwrap();
    let too_much = random.bytes(max_bytes as usize / 2 + 1);
    let is_full = |result: Result<_, StoreError>| assert!(matches!(result, Err(StoreError::Full)), "not full");
    checks.run("put beyond the bound", async { is_full(store.put(too_much.clone()).await.map(drop)) }).await;
    checks.run("announced beyond it", async { is_full(store.writer(Some(max_bytes)).await.map(drop)) }).await;
    for piece in [1000, 65_536, 1 << 20] {
        let streamed = async { is_full(stream(&*store, None, &too_much, piece).await.map(drop)) };
        checks.run(format!("streamed beyond it in pieces of {piece}"), streamed).await;
    }
    checks.run("nothing of those is kept", assert_counts(&*store, &[kept])).await;
    let free = async { assert_eq!(store.usage().await.unwrap().free, max_bytes - kept.len) };
    checks.run("what is free", free).await;
    checks.run("reading goes on", assert_holds(&*store, &half)).await;

    let one = store.writer(Some(max_bytes / 2)).await.unwrap();
    drop(one);
    let second = store.put(random.bytes(max_bytes as usize / 2)).await.unwrap();
    checks.run("a small one beyond the bound", async { is_full(store.put(small.clone()).await.map(drop)) }).await;
    checks.run("deleting goes on", async { assert!(store.delete(kept.id).await.unwrap()) }).await;
    let third = store.put(small).await.unwrap();
    checks.run("room is used again", assert_counts(&*store, &[second, third])).await;
    checks.passed("a full store")
}

pub(super) fn stat_of(id: FragmentId, bytes: &Bytes) -> FragmentStat {
    FragmentStat { id, len: bytes.len() as u64 }
}

/// Stores by a writer, in pieces.
pub(super) async fn stream(
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
pub(super) async fn assert_holds(store: &dyn FragmentStore, bytes: &Bytes) {
    let stat = stat_of(FragmentId::of(bytes), bytes);
    assert_eq!(store.stat(stat.id).await.unwrap(), Some(stat));
    assert!(store.get(stat.id).await.unwrap() == bytes, "get of {} bytes", stat.len);
    let reader = store.open(stat.id).await.unwrap();
    assert_eq!(reader.len(), stat.len);
    assert!(reader.read(0..stat.len).await.unwrap() == bytes, "read of {} bytes", stat.len);
}

/// The counters say exactly these fragments.
pub(super) async fn assert_counts(store: &dyn FragmentStore, stats: &[FragmentStat]) {
    let usage = store.usage().await.unwrap();
    let bytes = stats.iter().map(|stat| stat.len).sum();
    assert_eq!((usage.fragments, usage.bytes), (stats.len() as u64, bytes), "counters");
}

/// The counters say what the listing says, and what is listed reads back as one of `possible`.
pub(super) async fn assert_consistent(store: &dyn FragmentStore, possible: &[Bytes]) {
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
