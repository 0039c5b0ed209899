//! Several callers at once.

use std::sync::Arc;

use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::task::JoinSet;

use super::fragments::{assert_consistent, assert_counts, assert_holds, stat_of, stream};
use super::{Checks, Random};
use crate::fragment::FragmentStore;

pub(super) async fn check(checks: &mut Checks, store: Arc<dyn FragmentStore>) {
    let mut random = Random(8);
    for len in [0, 1000, 65_535, 65_536, 400_000] {
        for &callers in &[16, 3, 2][..checks.some(3, 1)] {
            let bytes = random.bytes(len);
            let name = format!("{callers} callers store the same {len} bytes");
            checks.run(name, same_bytes_at_once(&store, &bytes, callers)).await;
        }
    }
    for &callers in &[4, 16, 2][..checks.some(3, 1)] {
        let few = [500, 501, 70_000, 70_001].map(|len| random.bytes(len));
        checks.run(format!("{callers} callers store and delete"), put_and_deleted_at_once(&store, &few, callers)).await;
        for bytes in &few {
            store.delete(FragmentId::of(bytes)).await.unwrap();
        }
    }
    for len in [900, 150_000] {
        let bytes = random.bytes(len);
        checks
            .run(format!("{len} bytes read while they are stored and deleted"), read_while_changed(&store, &bytes))
            .await;
    }
}

/// Scenario: uploads and a repair store the same fragment at the same time. Danger: counted twice, or one of them
/// told it failed. Expectation: all succeed and one is kept.
async fn same_bytes_at_once(store: &Arc<dyn FragmentStore>, bytes: &Bytes, callers: u32) {
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let (store, bytes) = (Arc::clone(store), bytes.clone());
        tasks.spawn(async move {
            match number % 2 {
                0 => store.put(bytes).await.unwrap(),
                _ => stream(&*store, None, &bytes, 50_000).await.unwrap(),
            }
        });
    }
    let expected = stat_of(FragmentId::of(bytes), bytes);
    assert!(tasks.join_all().await.iter().all(|stat| *stat == expected));
    assert_holds(&**store, bytes).await;
    assert_counts(&**store, &[expected]).await;
    assert!(store.delete(expected.id).await.unwrap());
}

/// Scenario: collection deletes while uploads store, the same few fragments over and over. Danger: counters that drift,
/// a listed fragment that cannot be read. Expectation: once quiet, counters, listing and contents agree.
async fn put_and_deleted_at_once(store: &Arc<dyn FragmentStore>, few: &[Bytes], callers: u64) {
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let (store, few, mut random) = (Arc::clone(store), few.to_vec(), Random(number));
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
    assert_consistent(&**store, few).await;
}

/// Scenario: a client reads what repair stores and collection deletes. Danger: half of it, or other bytes. Expectation: the whole
/// fragment or that there is none, each time.
async fn read_while_changed(store: &Arc<dyn FragmentStore>, bytes: &Bytes) {
    let id = FragmentId::of(bytes);
    let mut tasks = JoinSet::new();
    for number in 0..4_u64 {
        let (store, bytes) = (Arc::clone(store), bytes.clone());
        tasks.spawn(async move {
            for round in 0..30 {
                match (number, round % 2) {
                    (0, 0) => assert_eq!(store.put(bytes.clone()).await.unwrap().id, id),
                    (0, _) => assert!(store.delete(id).await.unwrap()),
                    _ => match store.get(id).await {
                        Ok(found) => assert!(found == bytes, "other bytes"),
                        Err(error) => assert!(matches!(error, crate::StoreError::NotFound(_)), "{error}"),
                    },
                }
            }
        });
    }
    tasks.join_all().await;
    store.delete(id).await.unwrap();
}
