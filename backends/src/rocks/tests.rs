//! The store through the suite, and what only it promises.

use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Lifetime};

const OPTIONS: DiskOptions = DiskOptions { max_bytes: u64::MAX, reserve_bytes: 0 };

fn open(dir: &Path) -> RocksFragments {
    RocksFragments::open(dir, OPTIONS).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_conform() {
    let dir = TempDir::new().unwrap();
    conformance::fragments(Lifetime::Persistent, async |name| Arc::new(open(&dir.path().join(name))) as _).await;
    let options = DiskOptions { max_bytes: 1 << 20, ..OPTIONS };
    let store = RocksFragments::open(&dir.path().join("full"), options).unwrap();
    conformance::fragments_when_full(Arc::new(store), options.max_bytes).await;
}

fn chunks(store: &RocksFragments) -> usize {
    store.0.db.iterator_cf(db::family(&store.0.db, CHUNKS).unwrap(), IteratorMode::Start).count()
}

/// Scenario: a peer dies in the middle of an upload, another upload is given up, and a fragment is stored again and deleted.
/// Danger: chunks that nothing names fill the disk for ever. Expectation: none is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_chunk_is_left_without_a_name() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let long = Bytes::from(vec![7; 5 * CHUNK_BYTES]);
    let mut cut_short = store.writer(None).await.unwrap();
    cut_short.write(long.clone()).await.unwrap();
    assert_eq!(chunks(&store), 4);
    // As a crash leaves it: nobody gives it up.
    std::mem::forget(cut_short);
    let stat = store.put(long.clone()).await.unwrap();
    store.put(long.clone()).await.unwrap();
    assert_eq!(chunks(&store), 4 + 5, "stored again, kept once");
    // Only this handle remains with the forgotten writer's; what it left is dropped by the next opening.
    let db = Arc::clone(&store.0.db);
    recover(&db).unwrap();
    assert_eq!(chunks(&store), 5);
    let mut given_up = store.writer(None).await.unwrap();
    given_up.write(long.clone()).await.unwrap();
    drop(given_up);
    // The next commit comes after the giving up, which was queued by a task: until it has run.
    while chunks(&store) > 5 {
        tokio::task::yield_now().await;
    }
    assert!(store.delete(stat.id).await.unwrap());
    assert_eq!(chunks(&store), 0);
}
