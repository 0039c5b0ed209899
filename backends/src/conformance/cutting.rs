//! What is cut short: uploads given up, futures dropped at any await, processes that end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::fragments::{assert_consistent, assert_counts, assert_holds, stat_of, stream};
use super::{Checks, Random};
use crate::fragment::{FragmentStore, StoreError};

/// A future is dropped after it was polled so often.
const POLLS: [u32; 8] = [0, 1, 2, 3, 4, 6, 8, 12];
/// Work that goes on without its caller has ended by then.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn check(checks: &mut Checks, store: Arc<dyn FragmentStore>) {
    let mut random = Random(9);
    for &len in checks.lengths() {
        for written in [0, len / 2, len] {
            let bytes = random.bytes(len);
            checks.run(format!("given up after {written} of {len} bytes"), given_up(&*store, &bytes, written)).await;
        }
    }
    let mut touched = Vec::new();
    for &len in &[900, 150_000, 65_536, 600_000][..checks.some(4, 2)] {
        for &polls in &POLLS[..checks.some(POLLS.len(), 4)] {
            for operation in ["put", "finish", "delete"] {
                let bytes = random.bytes(len);
                touched.push(bytes.clone());
                let name = format!("{operation} of {len} bytes dropped after {polls} polls");
                checks.run(name, dropped(&*store, operation, &bytes, polls)).await;
            }
        }
    }
    checks.run("counters once all is quiet", quiet(&*store)).await;
    checks.run("contents once all is quiet", assert_consistent(&*store, &touched)).await;
    for bytes in &touched {
        store.delete(FragmentId::of(bytes)).await.unwrap();
    }
    checks.run("callers aborted at any moment", aborted(store)).await;
}

/// Scenario: a client disconnects in the middle of its upload. Danger: a visible half, space that never comes back.
/// Expectation: nothing is there.
async fn given_up(store: &dyn FragmentStore, bytes: &Bytes, written: usize) {
    let mut writer = store.writer(Some(bytes.len() as u64)).await.unwrap();
    for piece in bytes[..written].chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    drop(writer);
    assert_eq!(store.stat(FragmentId::of(bytes)).await.unwrap(), None);
    assert_counts(store, &[]).await;
}

/// Scenario: the caller of an operation goes away at one of its awaits. Danger: half a fragment; a claim held for ever.
/// Expectation: all of it is there or nothing, and the store still takes others.
async fn dropped(store: &dyn FragmentStore, operation: &str, bytes: &Bytes, polls: u32) {
    let id = FragmentId::of(bytes);
    match operation {
        "put" => drop(poll_times(polls, store.put(bytes.clone())).await),
        "finish" => drop(poll_times(polls, stream(store, None, bytes, 50_000)).await),
        _ => {
            store.put(bytes.clone()).await.unwrap();
            drop(poll_times(polls, store.delete(id)).await);
        }
    }
    match store.get(id).await {
        Ok(found) => assert!(found == bytes, "other bytes"),
        Err(error) => assert!(matches!(error, StoreError::NotFound(_)), "{error}"),
    }
}

/// Polls a future a number of times, whether it was woken or not, and drops it.
async fn poll_times<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        yield_now().await;
    }
    None
}

/// Until the counters say what the listing says, several times in a row.
async fn quiet(store: &dyn FragmentStore) {
    let agree = async {
        let mut agreed = 0;
        while agreed < 3 {
            let (before, listed, after) = (
                store.usage().await.unwrap(),
                store.list(None, usize::MAX).await.unwrap(),
                store.usage().await.unwrap(),
            );
            let bytes = listed.iter().map(|stat| stat.len).sum::<u64>();
            let agrees = before == after && (after.fragments, after.bytes) == (listed.len() as u64, bytes);
            agreed = if agrees { agreed + 1 } else { 0 };
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(QUIET_WITHIN, agree).await.expect("counters never say what is listed");
}

/// Scenario: requests are cancelled at any await, as dropped connections do. Danger: a claim held for ever, counters
/// that miss what went on without its caller. Expectation: once quiet everything agrees and everything still works.
async fn aborted(store: Arc<dyn FragmentStore>) {
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
    quiet(&*store).await;
    for bytes in &some {
        store.put(bytes.clone()).await.unwrap();
    }
    assert_consistent(&*store, &some).await;
    assert_eq!(store.usage().await.unwrap().fragments, some.len() as u64);
}

/// Scenario: a peer is stopped and started, with uploads given up before. Danger: something acknowledged lived in memory only;
/// something given up comes back. Expectation: all that was acknowledged is there, nothing else is, and the counters did not
/// move.
pub(super) async fn reopened<O>(checks: &mut Checks, open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn FragmentStore>,
{
    const NAME: &str = "reopened";
    let mut random = Random(12);
    let some: Vec<_> = checks.lengths().iter().map(|&len| random.bytes(len)).collect();
    let store = open(NAME).await;
    for bytes in &some {
        store.put(bytes.clone()).await.unwrap();
    }
    let gone = store.put(random.bytes(2000)).await.unwrap();
    assert!(store.delete(gone.id).await.unwrap());
    let usage = store.usage().await.unwrap();
    drop(store);
    for round in 0..checks.some(3, 1) {
        let store = open(NAME).await;
        for bytes in &some {
            checks.run(format!("{} bytes after opening {round}", bytes.len()), assert_holds(&*store, bytes)).await;
        }
        let deleted = async { assert_eq!(store.stat(gone.id).await.unwrap(), None) };
        checks.run(format!("deleted before opening {round}"), deleted).await;
        let stats: Vec<_> = some.iter().map(|bytes| stat_of(FragmentId::of(bytes), bytes)).collect();
        checks.run(format!("counters after opening {round}"), assert_counts(&*store, &stats)).await;
        let again = store.usage().await.unwrap();
        assert_eq!((again.fragments, again.bytes), (usage.fragments, usage.bytes));
        checks.run(format!("listing after opening {round}"), assert_consistent(&*store, &some)).await;
        for bytes in &some {
            let name = format!("{} bytes stored again after opening {round}", bytes.len());
            checks
                .run(name, async { assert_eq!(store.put(bytes.clone()).await.unwrap().len, bytes.len() as u64) })
                .await;
        }
        checks.run(format!("kept once after opening {round}"), assert_counts(&*store, &stats)).await;
    }
}
