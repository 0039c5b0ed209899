//! What survives SIGKILL: a child process, this test binary run again, writes and is killed at a random moment.
//!
//! The child notes what was acknowledged in a file, by plain writes: those survive the process, as an answer sent to a
//! client would.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
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

/// Tells the child where its store is.
const STORE: &str = "PALM_TEST_CRASH_STORE";
/// Tells it where to note what was acknowledged.
const NOTES: &str = "PALM_TEST_CRASH_NOTES";
/// Tells it what not to repeat.
const ROUND: &str = "PALM_TEST_CRASH_ROUND";
const ROUNDS: u64 = 8;
/// Writers at once in even rounds. In odd ones there is one, since nobody else's sync then hides that its own is missing.
const TASKS: u64 = 8;
/// Keys of one batch: all or none.
const BATCH_KEYS: u64 = 5;
/// Longest life of a child, once it has begun to write.
const LIFE_MS: u64 = 150;
const FRAGMENT_WRITER: &str = "disk::crash::fragment_writer";
const BATCH_WRITER: &str = "disk::crash::batch_writer";

#[test]
fn acknowledged_fragments_survive_sigkill() {
    // Scenario: a peer is killed while eight callers store and delete fragments of all sizes. Danger: an acknowledged
    // fragment lost or torn, a deleted one that reads as garbage, temporary files that pile up, counters that drift
    // over many crashes. Expectation: none of that, round after round on the same directory.
    let dir = TempDir::new().unwrap();
    let (store, notes) = (dir.path().join("store"), dir.path().join("notes"));
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..ROUNDS {
        drop(run_until_noted(FRAGMENT_WRITER, &store, &notes, round, &mut random));
        check_fragments(&store, &notes, round);
    }
}

#[test]
fn acknowledged_batches_survive_sigkill() {
    // Scenario: a voter is killed while eight callers commit, synced and buffered. Danger: an accept it answered is gone,
    // or half of a batch is there. Expectation: every acknowledged batch is whole, every other one whole or absent.
    let dir = TempDir::new().unwrap();
    let (store, notes) = (dir.path().join("store"), dir.path().join("notes"));
    let mut random = SmallRng::seed_from_u64(2);
    for round in 0..ROUNDS {
        drop(run_until_noted(BATCH_WRITER, &store, &notes, round, &mut random));
        check_batches(&store, &notes, round, |_task| true);
    }
}

#[test]
#[ignore = "needs root: makes, mounts and shuts down a file system in a file"]
fn acknowledged_writes_survive_power_loss() {
    // Scenario: the power fails. Danger: an answer given before the sync, a directory entry nobody synced: all that
    // SIGKILL cannot show, since the kernel lives on. Expectation: every fragment and every synced batch that was
    // acknowledged is there when the file system is mounted again, whatever its journal had not written is not, and
    // the counters are right all the same.
    let dir = TempDir::new().unwrap();
    let disk = LoopDisk::make(dir.path(), 2 << 30);
    let mut random = SmallRng::seed_from_u64(3);
    for round in 0..ROUNDS {
        for (writer, name) in [(FRAGMENT_WRITER, "fragments"), (BATCH_WRITER, "batches")] {
            let (store, notes) = (disk.mounted.join(name), dir.path().join(name));
            // Killed first, so that no sync is under way: one that ext4 is told to fail half-way may answer success.
            drop(run_until_noted(writer, &store, &notes, round, &mut random));
            disk.cut_power();
            disk.remount();
            if writer == FRAGMENT_WRITER {
                check_fragments(&store, &notes, round);
            } else {
                check_batches(&store, &notes, round, is_synced);
            }
        }
    }
}

/// Every fragment noted is there, every fragment there is whole, and the counters agree.
fn check_fragments(store: &Path, notes: &Path, round: u64) {
    let store_dir = store;
    let store = DiskFragments::open(store_dir, options()).unwrap();
    let parts = fs::read_dir(store_dir.join("tmp")).unwrap().count();
    assert_eq!(parts, 0, "round {round}: temporary files are left");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for id in fs::read(notes).unwrap().as_chunks().0 {
            let id = FragmentId::from_bytes(*id);
            assert!(store.stat(id).await.unwrap().is_some(), "round {round}: {id} is lost");
        }
        let listed = store.list(None, usize::MAX).await.unwrap();
        for stat in &listed {
            let bytes = store.get(stat.id).await.unwrap();
            assert_eq!(FragmentId::of(&bytes), stat.id, "round {round}: torn");
        }
        let usage = store.usage().await.unwrap();
        let bytes = listed.iter().map(|stat| stat.len).sum();
        assert_eq!((usage.fragments, usage.bytes), (listed.len() as u64, bytes), "round {round}: counters");
    });
}

/// Every batch noted by a task that `lasts` is there, and every batch there is whole.
fn check_batches(store: &Path, notes: &Path, round: u64, lasts: impl Fn(u64) -> bool) {
    let index = DiskIndex::open(store).unwrap();
    for batch in fs::read(notes).unwrap().as_chunks().0 {
        let batch = u64::from_be_bytes(*batch);
        for number in 0..BATCH_KEYS {
            let found = index.get(Space::Accepted, &batch_key(batch, number)).unwrap();
            assert!(found.is_some() || !lasts(batch >> 40 & 0xff), "round {round}: {batch:x} misses key {number}");
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

/// Runs one of the writers below in a process of its own, until some time after it noted its first acknowledgement.
/// The process is killed when the answer is dropped.
fn run_until_noted(writer: &str, store: &Path, notes: &Path, round: u64, random: &mut SmallRng) -> KillOnDrop {
    File::options().create(true).append(true).open(notes).unwrap();
    let before = fs::metadata(notes).unwrap().len();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--test-threads=1", writer])
        .env(STORE, store)
        .env(NOTES, notes)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .spawn();
    let mut child = KillOnDrop(child.unwrap());
    while fs::metadata(notes).unwrap().len() == before {
        assert!(child.0.try_wait().unwrap().is_none(), "the writer ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..LIFE_MS)));
    child
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn options() -> DiskOptions {
    DiskOptions { reserve_bytes: 0, ..DiskOptions::default() }
}

/// An ext4 in a file, whose power can be cut. Needs root.
pub(super) struct LoopDisk {
    image: PathBuf,
    pub(super) mounted: PathBuf,
}

impl LoopDisk {
    pub(super) fn make(dir: &Path, bytes: u64) -> Self {
        let disk = Self { image: dir.join("disk.img"), mounted: dir.join("disk") };
        File::create(&disk.image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&disk.mounted).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), &disk.image]);
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image, &self.mounted]);
    }

    /// From here on nothing reaches the disk, not even what the journal holds in memory.
    #[expect(unsafe_code, reason = "the standard library has no ioctl")]
    fn cut_power(&self) {
        /// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
        const SHUTDOWN: libc::Ioctl = 0x8004_587d;
        /// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
        static NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.mounted).unwrap();
        // SAFETY: the request reads one u32, which lives for the whole call.
        let answer = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const NO_LOG_FLUSH) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }

    fn remount(&self) {
        run("umount", &[&self.mounted]);
        self.mount();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run("umount", &[&self.mounted]);
    }
}

fn run(program: &str, args: &[&Path]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}

/// Where a child's store is, which round it is, and where it notes what was acknowledged.
fn child() -> Option<(PathBuf, u64, Arc<Mutex<File>>)> {
    let store = PathBuf::from(std::env::var_os(STORE)?);
    let round = std::env::var(ROUND).ok()?.parse().ok()?;
    let notes = File::options().append(true).open(std::env::var_os(NOTES)?).unwrap();
    Some((store, round, Arc::new(Mutex::new(notes))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, to be killed"]
async fn fragment_writer() {
    let Some((dir, round, notes)) = child() else {
        return;
    };
    let store = Arc::new(DiskFragments::open(&dir, options()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..tasks_in(round) {
        let (store, notes) = (Arc::clone(&store), Arc::clone(&notes));
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
                    notes.lock().unwrap().write_all(id.as_bytes()).unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, to be killed"]
async fn batch_writer() {
    let Some((dir, round, notes)) = child() else {
        return;
    };
    let index = Arc::new(DiskIndex::open(&dir).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..tasks_in(round) {
        let (index, notes) = (Arc::clone(&index), Arc::clone(&notes));
        tasks.spawn(async move {
            let durability = if is_synced(task) { Durability::Synced } else { Durability::Buffered };
            for step in 0..1 << 40 {
                let batch = (round << 48) | (task << 40) | step;
                let put = |number| Write::Put(Space::Accepted, batch_key(batch, number), Bytes::from(vec![7; 500]));
                index.commit((0..BATCH_KEYS).map(put).collect(), durability).await.unwrap();
                notes.lock().unwrap().write_all(&batch.to_be_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

/// How many write at once.
fn tasks_in(round: u64) -> u64 {
    if round.is_multiple_of(2) { TASKS } else { 1 }
}

/// Which tasks commit synced.
fn is_synced(task: u64) -> bool {
    task.is_multiple_of(2)
}

fn batch_key(batch: u64, number: u64) -> Bytes {
    // The batch comes last, so that the keys of one are far apart.
    [number.to_be_bytes(), batch.to_be_bytes()].concat().into()
}
