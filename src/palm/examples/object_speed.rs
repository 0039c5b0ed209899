//! How fast a pool stores and reads objects, without the S3 front end:
//! `cargo run --release -p palm --example object_speed [PEERS] [memory|disk]`.
//!
//! All peers in one process over loopback, sharing its cores: small objects with 64 clients, and large ones with one
//! stream and several. What the peers of a real pool do at once, each on its own machine, is added up here.

#![expect(clippy::unwrap_used, reason = "an example that fails may say so by failing")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm::net::{Identity, Net};
use palm::object::{CollectSettings, Incoming, NewObject, Object, RepairSettings, Store, StoreParts, WriteConditions};
use palm::pool::join::Coordinator;
use palm::pool::{Discovery, JoinWish, NewPool, Parts, Pool, Services};
use palm_backends::disk::{DiskFragments, DiskIndex, DiskOptions};
use palm_backends::memory::{MemoryFragments, MemoryIndex};
use palm_backends::{Backends, IndexStore};
use palm_core::record::{BucketConfig, Consistency, WhenMinority};

const CLIENTS: usize = 64;
const SMALL_OBJECTS: usize = 4_000;
const SMALL_BYTES: usize = 1 << 10;
const LARGE_BYTES: usize = 64 << 20;
const STREAMS: usize = 4;

struct Peer {
    pool: Pool,
    store: Store,
}

async fn start(tag: u8, first: Option<&Peer>, dir: Option<&std::path::Path>) -> Peer {
    let net = Net::bind(&Identity::from_seed(&[tag; 32]).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let (fragments, index): (Arc<Backends>, Arc<dyn IndexStore>) = match dir {
        None => (Backends::single(Arc::new(MemoryFragments::default())), Arc::new(MemoryIndex::new())),
        Some(dir) => {
            let at = |name: &str| dir.join(format!("{tag}-{name}"));
            let fragments = DiskFragments::open(&at("fragments"), DiskOptions::default()).unwrap();
            (Backends::single(Arc::new(fragments)), Arc::new(DiskIndex::open(&at("index")).unwrap()))
        }
    };
    let name = format!("peer-{tag}");
    let parts = Parts {
        net,
        index: Arc::clone(&index),
        fragments: Arc::clone(&fragments),
        name: name.clone(),
        domain: String::new(),
        is_gateway: false,
        grace: std::time::Duration::from_mins(15),
    };
    let pool = match first {
        None => {
            let new = NewPool {
                name: "speed".to_owned(),
                max_members: 10,
                policy: None,
                open: true,
                consistency: Consistency::Strong,
                when_minority: WhenMinority::Refuse,
                classes: Vec::new(),
            };
            Pool::create(parts, new, None).await.unwrap().0
        }
        Some(first) => {
            let coordinators = vec![Coordinator::Found(first.pool.net().local_addr())];
            let wish = JoinWish { pool: first.pool.id(), coordinators, token: None, name };
            Pool::join(parts, &wish, |_| {}).await.unwrap()
        }
    };
    let store = Store::new(StoreParts {
        ledger: pool.ledger().clone(),
        net: pool.net().clone(),
        view: pool.view().clone(),
        fragments,
        index,
        sealing_key: pool.sealing_key().clone(),
        collect: CollectSettings::default(),
        repair: RepairSettings::default(),
        chores: palm::object::ChoreSettings::default(),
        traffic: palm_backends::decorate::Bandwidth::UNBOUNDED,
    });
    pool.serve(Arc::new(store.home().clone()), Services::default(), Discovery::default()).await.unwrap();
    Peer { pool, store }
}

async fn put(store: &Store, key: &str, bytes: &Bytes) -> Object {
    let pieces: Vec<_> =
        (0..bytes.len()).step_by(256 << 10).map(|at| Ok(bytes.slice(at..bytes.len().min(at + (256 << 10))))).collect();
    let body = Incoming {
        stream: stream::iter(pieces).boxed(),
        length: Some(bytes.len() as u64),
        algorithms: Vec::new(),
        verify: Box::new(|_| Ok(None)),
        cipher: None,
    };
    store.put("bucket", key, NewObject::default(), WriteConditions::default(), body).await.unwrap()
}

async fn get(store: &Store, key: &str) -> u64 {
    let object = store.head("bucket", key, None).await.unwrap();
    let mut body = store.read(&object, 0..object.record.size).await.unwrap();
    let mut read = 0;
    while let Some(chunk) = body.next().await {
        read += chunk.unwrap().len() as u64;
    }
    read
}

/// Runs `count` jobs, `width` at a time, and prints how fast they went.
async fn measure<F: Future<Output = ()> + Send>(
    what: &str,
    count: usize,
    width: usize,
    bytes: usize,
    job: impl Fn(usize) -> F,
) {
    let begun = Instant::now();
    stream::iter(0..count).map(&job).buffer_unordered(width).collect::<Vec<()>>().await;
    let seconds = begun.elapsed().as_secs_f64();
    let (each, rate) = (count as f64 / seconds, (count * bytes) as f64 / seconds / 1e6);
    println!("{what:<32} {each:>9.0} /s {rate:>9.0} MB/s");
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let count: u8 = arguments.next().map_or(5, |peers| peers.parse().unwrap());
    let disk = arguments.next().is_some_and(|kind| kind == "disk");
    let dir = disk.then(|| tempfile::tempdir().unwrap());
    let mut peers = vec![start(1, None, dir.as_ref().map(tempfile::TempDir::path)).await];
    for tag in 2..=count {
        peers.push(start(tag, peers.first(), dir.as_ref().map(tempfile::TempDir::path)).await);
    }
    let voters = usize::from(if count.is_multiple_of(2) { count - 1 } else { count });
    while peers.iter().any(|peer| {
        peer.pool.view().candidates().len() < usize::from(count) || peer.pool.ledger().config().voters.len() < voters
    }) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();

    let store = |at: usize| peers[at % peers.len()].store.clone();
    let small = Bytes::from(vec![7; SMALL_BYTES]);
    let large = Bytes::from(vec![9; LARGE_BYTES]);
    put(&store(0), "warm", &small).await;
    measure("put 1 KiB, 64 clients", SMALL_OBJECTS, CLIENTS, SMALL_BYTES, |at| {
        let (store, small) = (store(at), small.clone());
        async move { drop(put(&store, &format!("small/{at}"), &small).await) }
    })
    .await;
    measure("get 1 KiB, 64 clients", SMALL_OBJECTS, CLIENTS, SMALL_BYTES, |at| {
        let store = store(at + 1);
        async move { assert_eq!(get(&store, &format!("small/{at}")).await, SMALL_BYTES as u64) }
    })
    .await;
    for (width, name) in [(1, "one stream"), (STREAMS, "four streams")] {
        measure(&format!("put 64 MiB, {name}"), 2 * width, width, LARGE_BYTES, |at| {
            let (store, large) = (store(at), large.clone());
            async move { drop(put(&store, &format!("large/{at}"), &large).await) }
        })
        .await;
        measure(&format!("get 64 MiB, {name}"), 2 * width, width, LARGE_BYTES, |at| {
            let store = store(at + 1);
            async move { assert_eq!(get(&store, &format!("large/{at}")).await, LARGE_BYTES as u64) }
        })
        .await;
    }
    let counters =
        peers.iter().map(|peer| peer.store.counters().hedged_reads.load(std::sync::atomic::Ordering::Relaxed));
    println!("hedged reads: {}", counters.sum::<u64>());
}
