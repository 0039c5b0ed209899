//! The contracts of [`FragmentStore`](crate::FragmentStore) and [`IndexStore`](crate::IndexStore) as tests. Every
//! backend runs them, those of other crates too (feature `conformance`):
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use palm_backends::{conformance::{self, Lifetime}, memory::MemoryFragments};
//! # async fn example() {
//! conformance::fragments(Lifetime::Handle, async |_name| Arc::new(MemoryFragments::default()) as _).await;
//! # }
//! ```
//!
//! A check fails by panicking and says what it expected. Run them on a tokio runtime of several threads.

#![expect(clippy::unwrap_used, reason = "a suite reports by panicking")]

mod cutting;
mod fragments;
mod index;
mod listing;
mod racing;
mod reading;
mod storing;

pub use fragments::{fragments, fragments_in_short, fragments_when_full, many_fragments};
pub use index::index;

/// How long a store keeps what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the handle: opening the same name again finds an empty store.
    Handle,
    /// Beyond it: opening the same name again finds what was stored. The suite drops the old handle first.
    Persistent,
}

/// Runs checks: counts those that passed, and names the one that fails.
#[derive(Debug, Default)]
struct Checks {
    done: u64,
    short: bool,
}

impl Checks {
    /// How many of something.
    fn some(&self, full: usize, short: usize) -> usize {
        if self.short { short } else { full }
    }

    async fn run(&mut self, name: impl Into<String>, check: impl Future<Output = ()>) {
        let _named = Named(name.into());
        check.await;
        self.done += 1;
    }

    /// Says how many there were.
    fn passed(self, of: &str) -> u64 {
        println!("conformance of {of}: {} checks passed", self.done);
        self.done
    }
}

/// Says its name when it is dropped by a panic.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("conformance check failed: {}", self.0);
        }
    }
}

/// Numbers that look random and are the same for the same seed (`SplitMix64`, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> bytes::Bytes {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(len).collect()
    }
}
