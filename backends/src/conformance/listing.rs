//! Listings of many fragments.

use std::sync::Arc;

use palm_core::id::FragmentId;
use tokio::task::JoinSet;

use super::fragments::assert_counts;
use super::{Checks, Random};
use crate::fragment::{FragmentStat, FragmentStore};

/// Every so many is long enough to be kept another way.
const LONG_EVERY: usize = 40;
/// At most so many are long: they are to be many, not much.
const MOST_LONG: usize = 100;
/// Fragments stored at once.
const WRITERS: usize = 64;
/// Places to list from, and fragments to read.
const PROBES: usize = 50;

/// Scenario: a scrub walks all fragments page by page. Danger: one skipped or told twice where two kinds of storage are merged
/// or a page ends. Expectation: all, in order, from any id, present or not.
pub(super) async fn check(checks: &mut Checks, store: Arc<dyn FragmentStore>, count: usize) {
    let expected = fill(&store, count).await;
    checks.run(format!("counters of {count}"), assert_counts(&*store, &expected)).await;
    for page in [7, 100, count - 1, count, count + 1, 1_000_000, usize::MAX] {
        // A million in pages of seven would take a day of some stores.
        if count / page <= 10_000 {
            checks.run(format!("{count} in pages of {page}"), all_in_pages(&*store, page, &expected)).await;
        }
    }
    let mut random = Random(7);
    for probe in 0..PROBES {
        let absent = FragmentId::of(&random.bytes(8));
        let present = expected[random.below(count as u64) as usize];
        for after in [absent, present.id] {
            let from = expected.partition_point(|stat| stat.id <= after);
            let to = count.min(from + 10);
            let listed = async { assert_eq!(store.list(Some(after), 10).await.unwrap(), expected[from..to]) };
            checks.run(format!("ten after {after}"), listed).await;
        }
        let read = async {
            assert_eq!(store.stat(present.id).await.unwrap(), Some(present));
            assert_eq!(FragmentId::of(&store.get(present.id).await.unwrap()), present.id);
        };
        checks.run(format!("number {probe} of those that are read"), read).await;
    }
    for (after, limit) in [(None, 0), (Some(expected[0].id), 0), (expected.last().map(|last| last.id), 10)] {
        let none = async { assert_eq!(store.list(after, limit).await.unwrap(), []) };
        checks.run(format!("none: {limit} after {after:?}"), none).await;
    }
    for (id, found) in [([0; 32], &expected[..10]), ([0xff; 32], &[])] {
        let at_the_edge = async { assert_eq!(store.list(Some(FragmentId::from_bytes(id)), 10).await.unwrap(), *found) };
        checks.run(format!("ten after {:02x}…", id[0]), at_the_edge).await;
    }
}

/// Stores so many fragments; what they are, in order.
async fn fill(store: &Arc<dyn FragmentStore>, count: usize) -> Vec<FragmentStat> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(store);
        writers.spawn(async move {
            let mut stored = Vec::new();
            for number in (writer..count).step_by(WRITERS) {
                let is_long = number % LONG_EVERY == 0 && number / LONG_EVERY < MOST_LONG;
                let mut random = Random(number as u64);
                let len = if is_long { 65_536 + number } else { random.below(300) as usize + 8 };
                stored.push(store.put(random.bytes(len)).await.unwrap());
            }
            stored
        });
    }
    let mut stored = writers.join_all().await.concat();
    stored.sort_unstable_by_key(|stat| stat.id);
    stored
}

async fn all_in_pages(store: &dyn FragmentStore, page: usize, expected: &[FragmentStat]) {
    let mut found = Vec::<FragmentStat>::new();
    loop {
        let next = store.list(found.last().map(|stat| stat.id), page).await.unwrap();
        assert!(next.len() <= page, "more than a page");
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    assert!(found == expected, "{} listed of {}", found.len(), expected.len());
}
