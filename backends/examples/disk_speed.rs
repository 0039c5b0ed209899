//! How fast the disk backend is, on the directory given: `cargo run --release -p palm-backends --example disk_speed
//! -- DIR`. Every put is durable when it counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use palm_backends::disk::{DiskFragments, DiskIndex, DiskOptions};
use palm_backends::{Durability, FragmentStore, IndexStore, Space, StoreError, Write};
use palm_core::id::FragmentId;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;

const CALLERS: u64 = 64;
const SMALL_BYTES: usize = 400;
const LARGE_BYTES: usize = 32 << 20;
const STRIPE_BYTES: usize = 350 << 10;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: disk_speed DIR")?;
    let opening = Instant::now();
    let store = Arc::new(DiskFragments::open(&dir.join("fragments"), DiskOptions::default())?);
    let index = Arc::new(DiskIndex::open(&dir.join("index"))?);
    println!(
        "open                       {:>10.1} ms  {:?}",
        opening.elapsed().as_secs_f64() * 1e3,
        store.usage().await?
    );

    println!("memory                     {}", memory());

    for callers in [1, CALLERS] {
        let (puts, per_second) = small_puts(&store, callers, 200 * callers.max(16)).await?;
        println!("small puts, {callers:>2} callers     {per_second:>10.0} /s");
        let per_second = small_gets(&store, &puts, callers, 100_000).await?;
        println!("small gets, {callers:>2} callers     {per_second:>10.0} /s");
        let per_second = commits(&index, callers, 200 * callers.max(16)).await?;
        println!("index commits, {callers:>2} callers  {per_second:>10.0} /s");
    }
    for streams in [1, 4] {
        let (write, read) = large(&store, streams).await?;
        println!("large writes, {streams} streams    {write:>10.0} MB/s");
        println!("large reads, {streams} streams     {read:>10.0} MB/s");
    }
    for (kib, callers) in [(85, 16), (350, 16)] {
        let per_second = middling(&store, kib << 10, callers).await?;
        println!("{kib:>3} KiB puts, {callers} callers  {per_second:>10.0} /s");
    }
    let listing = Instant::now();
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = store.list(after, 1000).await?;
        listed += page.len();
        match page.last() {
            Some(last) => after = Some(last.id),
            None => break,
        }
    }
    println!("list                       {:>10.0} /s", listed as f64 / listing.elapsed().as_secs_f64());
    println!("usage                      {:?}", store.usage().await?);
    println!("memory                     {}", memory());
    Ok(())
}

/// Random bytes, so that nothing compresses.
fn random_bytes(random: &mut SmallRng, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

async fn small_puts(store: &Arc<DiskFragments>, callers: u64, count: u64) -> Result<(Vec<FragmentId>, f64), Failure> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, mut random) = (Arc::clone(store), SmallRng::from_os_rng());
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..count / callers {
                ids.push(store.put(random_bytes(&mut random, SMALL_BYTES)).await?.id);
            }
            Ok::<_, StoreError>(ids)
        });
    }
    let mut ids = Vec::new();
    for done in tasks.join_all().await {
        ids.extend(done?);
    }
    Ok((ids, count as f64 / begun.elapsed().as_secs_f64()))
}

async fn small_gets(store: &Arc<DiskFragments>, ids: &[FragmentId], callers: u64, count: u64) -> Result<f64, Failure> {
    let ids: Arc<[_]> = ids.into();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, ids, mut random) = (Arc::clone(store), Arc::clone(&ids), SmallRng::from_os_rng());
        tasks.spawn(async move {
            for _ in 0..count / callers {
                store.get(ids[random.random_range(0..ids.len())]).await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

async fn commits(index: &Arc<DiskIndex>, callers: u64, count: u64) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (index, mut random) = (Arc::clone(index), SmallRng::from_os_rng());
        tasks.spawn(async move {
            for _ in 0..count / callers {
                let (key, value) = (random_bytes(&mut random, 60), random_bytes(&mut random, 300));
                index.commit(vec![Write::Put(Space::Accepted, key, value)], Durability::Synced).await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Streams large fragments in stripes, reads them in stripes, deletes them: MB/s written and read.
async fn large(store: &Arc<DiskFragments>, streams: u64) -> Result<(f64, f64), Failure> {
    const EACH: u64 = 8;
    let megabytes = (streams * EACH) as f64 * LARGE_BYTES as f64 / 1e6;
    let stripe = random_bytes(&mut SmallRng::from_os_rng(), STRIPE_BYTES);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in 0..streams {
        let (store, stripe) = (Arc::clone(store), stripe.clone());
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for number in 0..EACH {
                let mut writer = store.writer(Some(LARGE_BYTES as u64)).await?;
                writer.write(Bytes::from(vec![stream as u8, number as u8])).await?;
                for start in (0..LARGE_BYTES).step_by(STRIPE_BYTES) {
                    writer.write(stripe.slice(..STRIPE_BYTES.min(LARGE_BYTES - start))).await?;
                }
                ids.push(writer.finish().await?.id);
            }
            Ok::<_, StoreError>(ids)
        });
    }
    let ids = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let write = megabytes / begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for ids in ids.clone() {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            for id in ids {
                let reader = store.open(id).await?;
                for start in (0..reader.len()).step_by(STRIPE_BYTES) {
                    reader.read(start..reader.len().min(start + STRIPE_BYTES as u64)).await?;
                }
            }
            Ok::<_, StoreError>(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
    let read = megabytes / begun.elapsed().as_secs_f64();
    for id in ids.into_iter().flatten() {
        store.delete(id).await?;
    }
    Ok((write, read))
}

async fn middling(store: &Arc<DiskFragments>, len: usize, callers: u64) -> Result<f64, Failure> {
    const EACH: u64 = 30;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, mut random) = (Arc::clone(store), SmallRng::from_os_rng());
        tasks.spawn(async move {
            for _ in 0..EACH {
                store.put(random_bytes(&mut random, len)).await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok((callers * EACH) as f64 / begun.elapsed().as_secs_f64())
}

/// What the kernel says this process holds in memory.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or("unknown").split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}
