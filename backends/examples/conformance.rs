//! The conformance suite, and what it needs to be killed in the middle, for the store of a URL.
//!
//! ```sh
//! conformance suite 'disk:///tmp/suite/{name}?reserve=0'       # every check; {name} becomes the name of each store it asks for
//! conformance short 'opendal+s3://scratch/{name}?endpoint=…'  # fewer of each, for stores at the other end of a network
//! conformance many 1000000 'rocksdb:///tmp/many?reserve=0'     # listings of so many fragments
//! conformance write 'exec:///my/backend?dir=/tmp/d' > notes    # stores and deletes, and notes what was acknowledged
//! conformance check 'exec:///my/backend?dir=/tmp/d' < notes    # after a crash: is what was acknowledged there, and all of it whole?
//! ```
//!
//! `suite`, `short` and `many` want an empty place.
#![expect(clippy::unwrap_used, reason = "a suite reports by panicking")]

use std::collections::HashSet;
use std::io::{self, BufRead as _, Write as _};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use palm_backends::conformance::{self, Lifetime};
use palm_backends::{FragmentStore, StoreError, open};
use palm_core::id::FragmentId;

/// What `write` stores: small and large, and around the border between.
const LENGTHS: [usize; 6] = [10, 3000, 65_535, 65_536, 100_000, 600_000];
/// Every so many of those stored is deleted.
const DELETED_EVERY: usize = 3;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["suite", url] => suite(url, false).await,
        ["short", url] => suite(url, true).await,
        ["many", count, url] => {
            conformance::many_fragments(store(url, false), count.parse().unwrap()).await;
        }
        ["write", url] => write(url).await,
        ["check", url] => check(url).await,
        _ => {
            eprintln!("usage: conformance suite URL | short URL | many COUNT URL | write URL | check URL");
            std::process::exit(2);
        }
    }
}

fn store(url: &str, known: bool) -> Arc<dyn FragmentStore> {
    let store = if known { open::known_fragments(url) } else { open::fragments(url) };
    store.unwrap_or_else(|error| panic!("{error}"))
}

async fn suite(url: &str, short: bool) {
    let lifetime = if url.starts_with("memory:") { Lifetime::Handle } else { Lifetime::Persistent };
    let opened = Mutex::new(HashSet::new());
    let open = async |name: &str| {
        let known = !opened.lock().unwrap().insert(name.to_owned());
        store(&url.replace("{name}", name), known)
    };
    if short {
        conformance::fragments_in_short(lifetime, open).await;
    } else {
        conformance::fragments(lifetime, open).await;
    }
}

/// Says so when the store is made, and then notes each fragment on a line of its own: `+` it is acknowledged, `-` its deletion was
/// begun, `!` an operation failed.
async fn write(url: &str) {
    let store = store(url, false);
    note('*', "made");
    for (number, len) in LENGTHS.into_iter().cycle().take(2 * LENGTHS.len()).enumerate() {
        let bytes = Bytes::from(vec![number as u8; len]);
        let stored = if number < LENGTHS.len() { store.put(bytes).await } else { stream(&*store, &bytes).await };
        match stored {
            Ok(stat) if number % DELETED_EVERY == 0 => {
                note('-', &stat.id.to_string());
                store.delete(stat.id).await.map_or_else(|error| note('!', &error.to_string()), |_| ());
            }
            Ok(stat) => note('+', &stat.id.to_string()),
            Err(error) => note('!', &error.to_string()),
        }
    }
}

async fn stream(store: &dyn FragmentStore, bytes: &Bytes) -> Result<palm_backends::FragmentStat, StoreError> {
    let mut writer = store.writer(None).await?;
    for start in (0..bytes.len()).step_by(70_000) {
        writer.write(bytes.slice(start..bytes.len().min(start + 70_000))).await?;
    }
    writer.finish().await
}

fn note(kind: char, text: &str) {
    // Survives the process as soon as the pipe has it, as an answer to a client would.
    println!("{kind}{text}");
    io::stdout().flush().unwrap();
}

async fn check(url: &str) {
    let notes: Vec<String> = io::stdin().lock().lines().map(Result::unwrap).collect();
    let store = store(url, notes.iter().any(|note| note.starts_with('*')));
    for id in notes.iter().filter_map(|note| note.strip_prefix('+')) {
        let id: FragmentId = id.parse().unwrap();
        assert!(store.stat(id).await.unwrap().is_some(), "{id} was acknowledged and is not there");
    }
    let listed = store.list(None, usize::MAX).await.unwrap();
    for stat in &listed {
        let bytes = store.get(stat.id).await.unwrap();
        assert_eq!((FragmentId::of(&bytes), bytes.len() as u64), (stat.id, stat.len), "torn");
    }
    let usage = store.usage().await.unwrap();
    let bytes = listed.iter().map(|stat| stat.len).sum::<u64>();
    assert_eq!((usage.fragments, usage.bytes), (listed.len() as u64, bytes), "counters");
    store.put(Bytes::from_static(b"and takes more")).await.unwrap();
}
