//! Every decorator through the suite, and what it adds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::time::Instant;

use super::*;
use crate::conformance::{self, Lifetime};
use crate::fragment::{FragmentStore, StoreError};
use crate::memory::MemoryFragments;

fn memory() -> Arc<dyn FragmentStore> {
    Arc::new(MemoryFragments::default())
}

fn noon() -> u16 {
    12 * 60
}

fn unbound() -> Bandwidth {
    Bandwidth { bytes_per_second: None, quiet: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decorated_stores_conform() {
    let lifetime = Lifetime::Handle;
    conformance::fragments(lifetime, async |_| Arc::new(Quota::new(memory(), u64::MAX, 0)) as _).await;
    conformance::fragments(lifetime, async |_| Arc::new(Throttle::new(memory(), unbound(), noon)) as _).await;
    conformance::fragments(lifetime, async |_| Arc::new(Cached::new(memory(), 1 << 20)) as _).await;
    conformance::fragments(lifetime, async |_| Arc::new(Metered::new(Arc::new(MemoryFragments::default()))) as _).await;
    conformance::fragments(lifetime, async |_| Arc::new(Faulty::new(memory(), Faults::default(), 1)) as _).await;
    conformance::fragments_when_full(Arc::new(Quota::new(memory(), 1 << 20, 0)), 1 << 20).await;
}

/// Scenario: a disk of 100,000 bytes is shared with others, who are to have 30,000 of them. Danger: it is filled to the brim.
/// Expectation: full at the reserve, and at the quota where that is less.
#[tokio::test]
async fn a_quota_leaves_its_reserve() {
    let store = Quota::new(Arc::new(MemoryFragments::new(100_000)), u64::MAX, 30_000);
    assert_eq!(store.usage().await.unwrap().free, 70_000);
    store.put(Bytes::from(vec![1; 70_000])).await.unwrap();
    assert!(matches!(store.put(Bytes::from_static(b"x")).await, Err(StoreError::Full)));
    let both = Quota::new(Arc::new(MemoryFragments::new(100_000)), 50_000, 30_000);
    assert_eq!(both.usage().await.unwrap().free, 50_000);
}

/// Scenario: 1 MB a second by day, a tenth of it by night, and a megabyte is stored and read. Danger: no bound, or one that
/// holds for each caller alone. Expectation: two megabytes by two callers take two seconds by day, less the burst.
#[tokio::test(start_paused = true)]
async fn a_throttled_store_keeps_its_pace() {
    let quiet = QuietHours { from: 22 * 60, until: 6 * 60, bytes_per_second: 100_000 };
    let bandwidth = Bandwidth { bytes_per_second: Some(1_000_000), quiet: Some(quiet) };
    for (clock, seconds) in [(noon as fn() -> u16, 2), (|| 23 * 60, 20), (|| 60, 20)] {
        let store = Throttle::new(memory(), bandwidth, clock);
        let begun = Instant::now();
        let one = async { store.put(Bytes::from(vec![1; 1_000_000])).await.unwrap() };
        let other = async { store.put(Bytes::from(vec![2; 1_000_000])).await.unwrap() };
        let (stat, _) = tokio::join!(one, other);
        // What was let through is paid for by who comes next.
        store.get(stat.id).await.unwrap();
        let took = begun.elapsed();
        let expected = Duration::from_secs(seconds);
        assert!(took <= expected && took + Duration::from_secs(1) > expected, "{took:?} instead of {expected:?}");
    }
    let always = QuietHours { from: 60, until: 120, bytes_per_second: 1 };
    assert!(!always.hold_at(59) && always.hold_at(60) && !always.hold_at(120));
}

/// Scenario: a fragment is read twice, deleted and read again, and more are read than fit. Danger: what is deleted is
/// answered from memory, or the memory grows. Expectation: the second read does not reach the store, the deleted one is
/// gone, and what was used longest ago goes first.
#[tokio::test]
async fn a_cache_answers_what_was_read() {
    let metered = Arc::new(Metered::new(Arc::new(MemoryFragments::default())));
    let meters = metered.meters();
    let reads = || meters.of(Operation::Read).operations.load(Ordering::Relaxed);
    let store = Cached::new(metered, 100_000);
    let first = store.put(Bytes::from(vec![1; 60_000])).await.unwrap().id;
    store.get(first).await.unwrap();
    assert_eq!(reads(), 0, "what was stored is kept");
    let second = store.put(Bytes::from(vec![2; 60_000])).await.unwrap().id;
    store.get(first).await.unwrap();
    assert_eq!(reads(), 1, "two do not fit");
    store.get(first).await.unwrap();
    assert_eq!(reads(), 1);
    store.forget_cached();
    store.get(first).await.unwrap();
    assert_eq!(reads(), 2, "forgotten");
    assert!(store.delete(first).await.unwrap());
    assert!(matches!(store.get(first).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.get(second).await.unwrap().len(), 60_000);
}

#[tokio::test]
async fn what_is_metered_is_counted() {
    let store = Metered::new(Arc::new(MemoryFragments::new(10_000)));
    let stat = store.put(Bytes::from(vec![1; 4_000])).await.unwrap();
    let mut writer = store.writer(None).await.unwrap();
    writer.write(Bytes::from(vec![2; 3_000])).await.unwrap();
    writer.finish().await.unwrap();
    assert!(store.put(Bytes::from(vec![3; 9_000])).await.is_err());
    store.open(stat.id).await.unwrap().read(0..1_000).await.unwrap();
    assert!(store.get(FragmentId::of(b"none")).await.is_err());
    let meters = store.meters();
    let figures = |operation| {
        let meter = meters.of(operation);
        [&meter.operations, &meter.failures, &meter.bytes].map(|figure| figure.load(Ordering::Relaxed))
    };
    assert_eq!(figures(Operation::Put), [3, 1, 7_000]);
    assert_eq!(figures(Operation::Read), [2, 0, 1_000], "what is not there is no failure");
}

/// Scenario: a test fails once in a hundred runs. Danger: nobody can make it fail again. Expectation: the same seed fails in
/// the same places, every kind of failure comes, and nothing that failed is stored.
#[tokio::test]
async fn the_same_seed_fails_alike() {
    let faults = Faults { read_errors: 100, flipped_bits: 100, write_errors: 100, full: 100, missing: 100 };
    let history = async |seed| {
        let store = Faulty::new(memory(), faults, seed);
        let mut said = Vec::new();
        for number in 0..300_u32 {
            let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
            let id = FragmentId::of(&bytes);
            let put = store.put(bytes.clone()).await;
            let there = store.stat(id).await.unwrap().is_some();
            assert_eq!(put.is_ok(), there);
            let read = store.get(id).await;
            said.push(match (put, read) {
                (Err(StoreError::Full), _) => "full",
                (Err(_), _) => "refused",
                (_, Err(StoreError::NotFound(_))) => "missing",
                (_, Err(_)) => "unreadable",
                (_, Ok(read)) if read != bytes => "flipped",
                _ => "fine",
            });
        }
        said
    };
    let first = history(7).await;
    assert_eq!(first, history(7).await);
    assert_ne!(first, history(8).await);
    for kind in ["full", "refused", "missing", "unreadable", "flipped", "fine"] {
        assert!(first.contains(&kind), "{kind} never came");
    }
}
