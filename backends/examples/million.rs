//! A million fragments of 4 KiB in one `disk` backend: what they take, how fast it opens, and what reading one costs.
//!
//! ```sh
//! cargo run -p palm-backends --example million -- /tmp/million             # 1,000,000 fragments, about 4.3 GiB
//! cargo run -p palm-backends --example million -- /tmp/million 100000      # fewer
//! ```
//!
//! Fills `DIR/store`, opens it again, reads some fragments in a process of its own under `strace` with nothing in the page
//! cache, and counts system calls. Ends with an error when a bound does not hold. What was filled stays: a second run begins with
//! opening.
#![expect(clippy::unwrap_used, reason = "a measurement reports by panicking")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use palm_backends::FragmentStore;
use palm_backends::disk::{DiskFragments, DiskOptions};
use palm_core::id::FragmentId;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;

const COUNT: u64 = 1_000_000;
const FRAGMENT_BYTES: usize = 4096;
const WRITERS: u64 = 64;
/// Fragments read under `strace`, after as many to bring the tables' indexes into memory.
const READS: u64 = 2_000;
const MOST_OVERHEAD: f64 = 1.15;
const LONGEST_OPENING: Duration = Duration::from_secs(2);
/// Calls that fetch bytes from a file, for each fragment: one, and what opening the tables takes.
const MOST_READS_EACH: f64 = 1.1;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", dir, count] => read(Path::new(dir), count.parse().unwrap()).await,
        [dir] => measure(Path::new(dir), COUNT).await,
        [dir, count] => measure(Path::new(dir), count.parse().unwrap()).await,
        _ => {
            eprintln!("usage: million DIR [COUNT]");
            ExitCode::from(2)
        }
    }
}

/// Random bytes that are the same for the same number: their id can be computed without asking the store.
fn fragment(number: u64) -> Bytes {
    let mut bytes = vec![0; FRAGMENT_BYTES];
    SmallRng::seed_from_u64(number).fill_bytes(&mut bytes);
    Bytes::from(bytes)
}

fn open(dir: &Path) -> Arc<DiskFragments> {
    Arc::new(DiskFragments::open(dir, DiskOptions::default()).unwrap())
}

async fn measure(dir: &Path, count: u64) -> ExitCode {
    let store_dir = dir.join("store");
    if !store_dir.exists() {
        let store = open(&store_dir);
        let begun = Instant::now();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for number in (writer..count).step_by(WRITERS as usize) {
                    store.put(fragment(number)).await.unwrap();
                }
            });
        }
        writers.join_all().await;
        let seconds = begun.elapsed().as_secs_f64();
        println!("stored      {count} in {seconds:.0} s: {:.0} a second, each synced", count as f64 / seconds);
    }
    let begun = Instant::now();
    let store = open(&store_dir);
    let opening = begun.elapsed();
    let kept = store.usage().await.unwrap();
    println!("opening     {:.0} ms", opening.as_secs_f64() * 1000.0);
    assert_eq!((kept.fragments, kept.bytes), (count, count * FRAGMENT_BYTES as u64), "what is kept");
    drop(store);
    let overhead = taken(&store_dir) as f64 / kept.bytes as f64;
    println!("on disk     {overhead:.3} of the payload");
    let reads = reads_each(dir, &store_dir, count);
    match reads {
        Ok(reads) => println!("reads       {reads:.3} accesses to the disk for each fragment"),
        Err(ref reason) => println!("reads       not measured: {reason}"),
    }
    let holds =
        opening <= LONGEST_OPENING && overhead <= MOST_OVERHEAD && reads.is_ok_and(|reads| reads <= MOST_READS_EACH);
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bytes that a directory takes, in blocks of the file system.
fn taken(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            found.blocks() * 512 + if found.is_dir() { taken(&entry.path()) } else { 0 }
        })
        .sum()
}

/// Reads random fragments: first some for the indexes, then, when it has said so, those that count.
async fn read(dir: &Path, count: u64) -> ExitCode {
    let store = open(dir);
    let mut random = SmallRng::seed_from_u64(1);
    for round in ["warm", "counted"] {
        // A call that the trace shows.
        let _absent = std::fs::metadata(format!("/palm-million-{round}"));
        for _ in 0..READS {
            let bytes = fragment(random.random_range(0..count));
            assert!(store.get(FragmentId::of(&bytes)).await.unwrap() == bytes, "other bytes");
        }
    }
    let _absent = std::fs::metadata("/palm-million-done");
    ExitCode::SUCCESS
}

/// How many system calls that read from a table each fragment took.
fn reads_each(dir: &Path, store: &Path, count: u64) -> Result<f64, String> {
    drop_from_page_cache(store);
    let trace = dir.join("trace");
    let program = std::env::current_exe().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=pread64,preadv,preadv2,stat,statx,newfstatat", "-o"]).arg(&trace);
    let ran = strace.arg(program).args([OsStr::new("read"), store.as_os_str()]).arg(count.to_string()).output();
    let ran = ran.map_err(|error| format!("strace cannot be started: {error}"))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    let text = std::fs::read_to_string(&trace).unwrap();
    let counted = text.split_once("/palm-million-counted").and_then(|(_, rest)| rest.split_once("/palm-million-done"));
    let (counted, _) = counted.ok_or("the trace has no marks")?;
    let calls = counted.lines().filter(|line| line.contains("pread") && !line.contains("resumed"));
    Ok(calls.count() as f64 / READS as f64)
}

/// Asks the kernel to forget the files of a directory.
fn drop_from_page_cache(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path: PathBuf = entry.path();
        if path.is_dir() {
            drop_from_page_cache(&path);
        } else {
            let _dropped = Command::new("dd")
                .arg(format!("of={}", path.display()))
                .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
                .status();
        }
    }
}
