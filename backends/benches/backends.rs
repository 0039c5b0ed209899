//! What storing, reading and listing cost, for each backend: `make bench-backends`.
//!
//! One iteration is as many operations as callers; every fragment stored is a new one, and every `put` is acknowledged durable. Reads
//! come from the page cache: what the backend adds to the disk's own time is what is compared here. Stores are made in
//! `PALM_BENCH_DIR`, or the temporary directory.
#![expect(clippy::unwrap_used, reason = "a measurement reports by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use palm_backends::{FragmentStore, open};
use palm_core::id::FragmentId;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const SIZES: [(&str, usize); 3] = [("4KiB", 4 << 10), ("1MiB", 1 << 20), ("8MiB", 8 << 20)];
const CALLERS: [usize; 2] = [1, 32];
/// Fragments that are listed, in pages of 1,000.
const LISTED: usize = 10_000;
const PAGE: usize = 1000;

fn urls(dir: &Path) -> Vec<(&'static str, String)> {
    let dir = dir.display();
    let plug_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/backend-plugin/palm-backend-dir");
    vec![
        ("memory", "memory:".to_owned()),
        ("disk", format!("disk://{dir}/disk")),
        ("rocksdb", format!("rocksdb://{dir}/rocksdb")),
        ("exec", format!("exec://{plug_in}?dir={dir}/exec")),
        #[cfg(feature = "opendal-fs")]
        ("opendal-fs", format!("opendal+fs://{dir}/opendal")),
    ]
}

/// New content each time, at the price of a copy.
fn fragment(len: usize) -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = BytesMut::zeroed(len);
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes.freeze()
}

/// Stores one fragment for each; what it took and what they are.
async fn put(store: &Arc<dyn FragmentStore>, fragments: Vec<Bytes>) -> (Duration, Vec<FragmentId>) {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for bytes in fragments {
        let store = Arc::clone(store);
        callers.spawn(async move { store.put(bytes).await.unwrap().id });
    }
    let ids = callers.join_all().await;
    (begun.elapsed(), ids)
}

async fn get(store: &Arc<dyn FragmentStore>, ids: &[FragmentId]) -> Duration {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for &id in ids {
        let store = Arc::clone(store);
        callers.spawn(async move { store.get(id).await.unwrap() });
    }
    callers.join_all().await;
    begun.elapsed()
}

async fn delete(store: &Arc<dyn FragmentStore>, ids: Vec<FragmentId>) {
    for id in ids {
        assert!(store.delete(id).await.unwrap());
    }
}

fn of_size(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    store: &Arc<dyn FragmentStore>,
    size: (&str, usize),
) {
    let (name, len) = size;
    for callers in CALLERS {
        group.throughput(Throughput::Bytes((len * callers) as u64));
        group.bench_function(format!("put/{name}/{callers}"), |bench| {
            bench.to_async(runtime).iter_custom(|rounds| async move {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let (took, ids) = put(store, (0..callers).map(|_| fragment(len)).collect()).await;
                    sum += took;
                    delete(store, ids).await;
                }
                sum
            });
        });
        let (_, ids) = runtime.block_on(put(store, (0..callers).map(|_| fragment(len)).collect()));
        let some = &ids[..];
        group.bench_function(format!("get/{name}/{callers}"), |bench| {
            bench.to_async(runtime).iter_custom(|rounds| async move {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    sum += get(store, some).await;
                }
                sum
            });
        });
        runtime.block_on(delete(store, ids));
    }
}

async fn list(store: &Arc<dyn FragmentStore>) {
    let mut last = None;
    loop {
        let page = store.list(last, PAGE).await.unwrap();
        match page.last() {
            Some(stat) => last = Some(stat.id),
            None => break,
        }
    }
}

fn backends(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = match std::env::var_os("PALM_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    for (name, url) in urls(dir.path()) {
        let store = runtime.block_on(async { open::fragments(&url).unwrap() });
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        for size in SIZES {
            of_size(&mut group, &runtime, &store, size);
        }
        let mut left = LISTED;
        while left > 0 {
            let some = left.min(100);
            runtime.block_on(put(&store, (0..some).map(|_| fragment(100)).collect()));
            left -= some;
        }
        group.throughput(Throughput::Elements(LISTED as u64));
        group.bench_function(format!("list/{LISTED}"), |bench| bench.to_async(&runtime).iter(|| list(&store)));
        group.finish();
    }
}

criterion_group!(benches, backends);
criterion_main!(benches);
