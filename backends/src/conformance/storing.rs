//! Storing, storing again, deleting, and long histories of all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;

use super::fragments::{LENGTHS, assert_counts, assert_holds, stat_of, stream};
use super::{Checks, Lifetime, Random};
use crate::fragment::{FragmentStore, StoreError};

/// How a fragment is handed over: as a whole, or in pieces of so many bytes with a length announced.
const WAYS: [Way; 6] = [
    Way::Whole,
    Way::Pieces(65_535, Announced::Wrong),
    Way::Pieces(1, Announced::Nothing),
    Way::Pieces(4099, Announced::Right),
    Way::Pieces(65_536, Announced::Right),
    Way::Pieces(300_000, Announced::Nothing),
];
/// More pieces than this teach nothing.
const MOST_PIECES: usize = 10_000;
const HISTORIES: usize = 3;
const STEPS: u32 = 150;

#[derive(Debug, Clone, Copy)]
enum Way {
    Whole,
    Pieces(usize, Announced),
}

/// The length is a hint; what counts is what is written.
#[derive(Debug, Clone, Copy)]
enum Announced {
    Nothing,
    Right,
    Wrong,
}

/// Leaves the store empty.
pub(super) async fn check(checks: &mut Checks, store: &dyn FragmentStore) {
    let mut random = Random(2);
    for &len in checks.lengths() {
        for &way in &WAYS[..checks.some(WAYS.len(), 2)] {
            if matches!(way, Way::Pieces(piece, _) if len / piece > MOST_PIECES) {
                continue;
            }
            let bytes = random.bytes(len);
            checks.run(format!("{len} bytes stored, {way:?}"), stored(store, &bytes, way)).await;
            checks.run(format!("{len} bytes stored again, {way:?}"), stored(store, &bytes, way)).await;
            checks.run(format!("{len} bytes deleted, {way:?}"), deleted(store, &bytes)).await;
        }
    }
}

/// Scenario: a fragment of any size comes in any pieces. Danger: a wrong name, a piece lost or hashed out of order where a writer
/// turns from memory to a file, counted twice. Expectation: the id is the BLAKE3, the bytes come back by every way
/// of reading, and the counters are exact.
async fn stored(store: &dyn FragmentStore, bytes: &Bytes, way: Way) {
    let expected = stat_of(FragmentId::of(bytes), bytes);
    let stat = match way {
        Way::Whole => store.put(bytes.clone()).await.unwrap(),
        Way::Pieces(piece, announced) => {
            let hint = match announced {
                Announced::Nothing => None,
                Announced::Right => Some(expected.len),
                Announced::Wrong => Some(10),
            };
            stream(store, hint, bytes, piece).await.unwrap()
        }
    };
    assert_eq!(stat, expected);
    assert_holds(store, bytes).await;
    assert_counts(store, &[stat]).await;
}

/// Scenario: a fragment is deleted, also under an open reader. Danger: other bytes for the reader, or counters that drift.
/// Expectation: gone at once, the reader reads on or says not found.
async fn deleted(store: &dyn FragmentStore, bytes: &Bytes) {
    let stat = stat_of(FragmentId::of(bytes), bytes);
    let reader = store.open(stat.id).await.unwrap();
    assert!(store.delete(stat.id).await.unwrap());
    assert!(!store.delete(stat.id).await.unwrap(), "deleted twice");
    assert!(matches!(store.get(stat.id).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.stat(stat.id).await.unwrap(), None);
    match reader.read(0..stat.len).await {
        Ok(read) => assert!(read == bytes, "other bytes"),
        Err(error) => assert!(matches!(error, StoreError::NotFound(_)), "{error}"),
    }
    assert_counts(store, &[]).await;
}

/// Scenario: long histories of everything, reopened now and then. Danger: whatever nobody thought of. Expectation: a map
/// from id to bytes says the same after every step.
pub(super) async fn like_a_map<O>(checks: &mut Checks, lifetime: Lifetime, open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    for seed in 0..checks.some(HISTORIES, 1) as u64 {
        let name = format!("like-a-map-{seed}");
        checks.run(format!("a history of {STEPS} steps, seed {seed}"), history(seed, lifetime, open, &name)).await;
    }
}

async fn history<O>(seed: u64, lifetime: Lifetime, open: &O, name: &str)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    let mut random = Random(1000 + seed);
    let mut model = BTreeMap::<FragmentId, Bytes>::new();
    let mut store = open(name).await;
    for step in 0..STEPS {
        let context = format!("seed {seed}, step {step}");
        let any = FragmentId::of(&random.bytes(8));
        let near = model.range(any..).next().map_or(any, |(&id, _)| id);
        match random.below(20) {
            0..8 => {
                let len = LENGTHS[random.below(11) as usize] as u64 + random.below(3);
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
                store = open(name).await;
            }
            _ => {
                let stats: Vec<_> = model.iter().map(|(&id, bytes)| stat_of(id, bytes)).collect();
                assert_counts(&*store, &stats).await;
            }
        }
    }
}
