//! What survives SIGKILL: a child process, this test binary run again, writes and is killed at a random moment.
//!
//! The child notes what was acknowledged in a file, by plain writes: those survive the process, as an answer sent to a
//! client would.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use palm_core::id::FragmentId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::{DiskFragments, DiskIndex, DiskOptions};
use crate::fragment::FragmentStore;
use crate::index::{Durability, IndexStore, Next, Space, Write};

/// Tells the child where to write.
const DIR: &str = "PALM_TEST_CRASH_DIR";
/// Tells it what not to repeat.
const ROUND: &str = "PALM_TEST_CRASH_ROUND";
const ROUNDS: u64 = 8;
const TASKS: u64 = 8;
/// Keys of one batch: all or none.
const BATCH_KEYS: u64 = 5;
/// Longest life of a child, once it has begun to write.
const LIFE_MS: u64 = 150;

#[test]
fn acknowledged_fragments_survive_sigkill() {
    // Scenario: a peer is killed while eight callers store and delete fragments of all sizes. Danger: an acknowledged
    // fragment lost or torn, a deleted one that reads as garbage, temporary files that pile up, counters that drift
    // over many crashes. Expectation: none of that, round after round on the same directory.
    let dir = TempDir::new().unwrap();
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..ROUNDS {
        run_and_kill(
            "disk::crash::fragment_writer",
            dir.path(),
            round,
            &mut random,
        );
        let store = DiskFragments::open(&dir.path().join("store"), options()).unwrap();
        let parts = fs::read_dir(dir.path().join("store/tmp")).unwrap().count();
        assert_eq!(parts, 0, "round {round}: temporary files are left");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let acknowledged = fs::read(dir.path().join("acknowledged")).unwrap();
            for id in acknowledged.as_chunks().0 {
                let id = FragmentId::from_bytes(*id);
                let bytes = store.get(id).await.unwrap();
                assert_eq!(FragmentId::of(&bytes), id, "round {round}: torn");
            }
            let listed = store.list(None, usize::MAX).await.unwrap();
            for stat in &listed {
                assert_eq!(
                    FragmentId::of(&store.get(stat.id).await.unwrap()),
                    stat.id,
                    "round {round}: torn"
                );
            }
            let usage = store.usage().await.unwrap();
            let bytes = listed.iter().map(|stat| stat.len).sum();
            assert_eq!(
                (usage.fragments, usage.bytes),
                (listed.len() as u64, bytes),
                "round {round}: counters"
            );
        });
    }
}

#[test]
fn acknowledged_batches_survive_sigkill() {
    // Scenario: a voter is killed while eight callers commit, synced and buffered. Danger: an accept it answered is gone,
    // or half of a batch is there. Expectation: every acknowledged batch is whole, every other one whole or absent.
    let dir = TempDir::new().unwrap();
    let mut random = SmallRng::seed_from_u64(2);
    for round in 0..ROUNDS {
        run_and_kill("disk::crash::batch_writer", dir.path(), round, &mut random);
        let index = DiskIndex::open(&dir.path().join("store")).unwrap();
        for batch in fs::read(dir.path().join("acknowledged"))
            .unwrap()
            .as_chunks()
            .0
        {
            for number in 0..BATCH_KEYS {
                let found = index
                    .get(
                        Space::Accepted,
                        &batch_key(u64::from_be_bytes(*batch), number),
                    )
                    .unwrap();
                assert!(
                    found.is_some(),
                    "round {round}: an acknowledged batch misses key {number}"
                );
            }
        }
        let mut keys = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            keys += 1;
            Next::Continue
        };
        index.scan(Space::Accepted, b"", count).unwrap();
        assert_eq!(keys % BATCH_KEYS, 0, "round {round}: half a batch");
    }
}

/// Runs one of the writers below in a process of its own, and kills it some time after its first acknowledgement.
fn run_and_kill(writer: &str, dir: &Path, round: u64, random: &mut SmallRng) {
    let acknowledged = dir.join("acknowledged");
    File::options()
        .create(true)
        .append(true)
        .open(&acknowledged)
        .unwrap();
    let before = fs::metadata(&acknowledged).unwrap().len();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--test-threads=1", writer])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .spawn();
    let mut child = KillOnDrop(child.unwrap());
    while fs::metadata(&acknowledged).unwrap().len() == before {
        assert!(
            child.0.try_wait().unwrap().is_none(),
            "the writer ended by itself"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..LIFE_MS)));
    drop(child);
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn options() -> DiskOptions {
    DiskOptions {
        reserve_bytes: 0,
        ..DiskOptions::default()
    }
}

/// Where a child writes, which round it is, and where it notes what was acknowledged.
fn child() -> Option<(std::path::PathBuf, u64, Arc<Mutex<File>>)> {
    let dir = std::path::PathBuf::from(std::env::var_os(DIR)?);
    let round = std::env::var(ROUND).ok()?.parse().ok()?;
    let acknowledged = File::options()
        .append(true)
        .open(dir.join("acknowledged"))
        .unwrap();
    Some((dir.join("store"), round, Arc::new(Mutex::new(acknowledged))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, to be killed"]
async fn fragment_writer() {
    let Some((dir, round, acknowledged)) = child() else {
        return;
    };
    let store = Arc::new(DiskFragments::open(&dir, options()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        let mut random = SmallRng::seed_from_u64(round * TASKS + task);
        tasks.spawn(async move {
            loop {
                let len = [10, 3000, 65_535, 65_536, 100_000, 600_000][random.random_range(0..6)];
                let mut bytes = vec![0; len];
                random.fill(&mut bytes[..]);
                let bytes = Bytes::from(bytes);
                if random.random_bool(0.3) {
                    let mut writer = store.writer(None).await.unwrap();
                    for piece in bytes.chunks(70_000) {
                        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
                    }
                    if random.random_bool(0.3) {
                        continue;
                    }
                    writer.finish().await.unwrap();
                } else {
                    store.put(bytes.clone()).await.unwrap();
                }
                let id = FragmentId::of(&bytes);
                if random.random_bool(0.3) {
                    assert!(store.delete(id).await.unwrap());
                } else {
                    acknowledged
                        .lock()
                        .unwrap()
                        .write_all(id.as_bytes())
                        .unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, to be killed"]
async fn batch_writer() {
    let Some((dir, round, acknowledged)) = child() else {
        return;
    };
    let index = Arc::new(DiskIndex::open(&dir).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (index, acknowledged) = (Arc::clone(&index), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            let durability = if task % 2 == 0 {
                Durability::Synced
            } else {
                Durability::Buffered
            };
            for step in 0..1 << 40 {
                let batch = (round << 48) | (task << 40) | step;
                let put = |number| {
                    Write::Put(
                        Space::Accepted,
                        batch_key(batch, number),
                        Bytes::from(vec![7; 500]),
                    )
                };
                index
                    .commit((0..BATCH_KEYS).map(put).collect(), durability)
                    .await
                    .unwrap();
                acknowledged
                    .lock()
                    .unwrap()
                    .write_all(&batch.to_be_bytes())
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
}

fn batch_key(batch: u64, number: u64) -> Bytes {
    // The batch comes last, so that the keys of one are far apart.
    [number.to_be_bytes(), batch.to_be_bytes()].concat().into()
}
