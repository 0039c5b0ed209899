//! Ranges, and what is not there.

use std::ops::Range;

use palm_core::id::FragmentId;

use super::fragments::assert_counts;
use super::{Checks, Random};
use crate::fragment::{FragmentReader, FragmentStore, StoreError};

/// Where stores cut what they keep.
const BORDERS: [u64; 4] = [4096, 65_536, 131_072, 262_144];
/// Ranges at random, for each length.
const AT_RANDOM: u64 = 8;

pub(super) async fn check(checks: &mut Checks, store: &dyn FragmentStore) {
    missing(checks, store).await;
    let mut random = Random(4);
    for &len in checks.lengths() {
        let bytes = random.bytes(len);
        let stat = store.put(bytes.clone()).await.unwrap();
        let reader = store.open(stat.id).await.unwrap();
        assert_eq!(reader.len(), stat.len);
        for range in ranges(stat.len, &mut random) {
            let expected = bytes.slice(range.start as usize..range.end as usize);
            let read = async { assert!(reader.read(range.clone()).await.unwrap() == expected, "other bytes") };
            checks.run(format!("{range:?} of {len} bytes"), read).await;
        }
        let backwards = Range { start: stat.len + 1, end: stat.len };
        for range in [0..stat.len + 1, stat.len + 1..stat.len + 1, backwards, 0..u64::MAX, u64::MAX..u64::MAX] {
            let name = format!("{range:?} of {len} bytes is refused");
            checks.run(name, refused(&*reader, stat.id, range, stat.len)).await;
        }
    }
}

/// Scenario: clients read ranges. Danger: a short or shifted answer. Expectation: exactly those bytes.
fn ranges(len: u64, random: &mut Random) -> Vec<Range<u64>> {
    let mut ranges = vec![0..len, 0..0, len..len, 0..len.min(1), len.saturating_sub(1)..len];
    for border in BORDERS.into_iter().filter(|&border| border < len) {
        ranges.extend([0..border, border..len, border - 1..border + 1]);
    }
    for _ in 0..AT_RANDOM {
        let start = random.below(len + 1);
        ranges.push(start..start + random.below(len - start + 1));
    }
    ranges
}

/// Scenario: a range that cannot be. Danger: a panic, or bytes of something else. Expectation: an error that says the length.
async fn refused(reader: &dyn FragmentReader, id: FragmentId, range: Range<u64>, len: u64) {
    match reader.read(range.clone()).await {
        Err(StoreError::OutOfRange { id: of, range: asked, len: has }) => {
            assert_eq!((of, asked, has), (id, range, len))
        }
        other => panic!("answered {other:?}"),
    }
}

/// Scenario: a fragment that repair moved away is asked for. Danger: an i/o error, which would count against the disk.
/// Expectation: it is said plainly that there is none.
async fn missing(checks: &mut Checks, store: &dyn FragmentStore) {
    let id = FragmentId::of(b"never stored");
    let is_absent =
        |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::NotFound(which)) if which == id));
    checks.run("getting what is not there", async { is_absent(store.get(id).await.map(drop)) }).await;
    checks.run("opening what is not there", async { is_absent(store.open(id).await.map(drop)) }).await;
    checks.run("asking for its length", async { assert_eq!(store.stat(id).await.unwrap(), None) }).await;
    checks.run("deleting it", async { assert!(!store.delete(id).await.unwrap()) }).await;
    checks.run("counting nothing", assert_counts(store, &[])).await;
    let some = store.put(bytes::Bytes::from_static(b"some")).await.unwrap();
    let of_several = async {
        let asked = vec![id, some.id, id, some.id];
        assert_eq!(store.stats(asked).await.unwrap(), [None, Some(some), None, Some(some)]);
        assert_eq!(store.stats(Vec::new()).await.unwrap(), []);
    };
    checks.run("the lengths of several, in their order", of_several).await;
    assert!(store.delete(some.id).await.unwrap());
}
