//! Backends that are to be removed: emptied into the others of this peer, and where those have no room into other peers; then
//! detached. It goes on after a restart: which backends leave is kept in the index.

use std::collections::BTreeMap;
use std::time::Duration;

use palm_backends::Backend;
use palm_core::record::FragmentRecord;
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Store;
use super::home::{Damaged, Pass};
use super::repair::Job;

/// A backend from which nothing could be moved is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

/// What holds up the emptying of which backend.
#[derive(Debug, Default)]
pub(super) struct Emptying(Mutex<BTreeMap<u16, Stuck>>);

/// What holds up the emptying of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Passes in a row that moved nothing.
    pub passes: u32,
    /// Fragments that stay.
    pub fragments: u64,
    /// Why one of them does, in words.
    pub why: String,
}

impl Store {
    /// Empties what is to be removed, for as long as it is polled.
    pub async fn keep_emptying(&self) {
        let backends = &self.home.0.backends;
        let mut changes = backends.changes();
        loop {
            changes.mark_unchanged();
            let leaving: Vec<Backend> = backends.iter().filter(Backend::is_leaving).collect();
            let mut has_moved = false;
            for backend in &leaving {
                has_moved |= self.empty(backend).await;
            }
            if has_moved {
                continue;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(RETRY), if !leaving.is_empty() => {}
            }
        }
    }

    /// What holds up the emptying of a backend, if anything does.
    pub fn stuck(&self, number: u16) -> Option<Stuck> {
        self.emptying.0.lock().get(&number).cloned()
    }

    /// One pass over a backend; whether any of its fragments went, or it did.
    async fn empty(&self, backend: &Backend) -> bool {
        let pass = match self.home.move_away(backend, || self.view.any_busy()).await {
            Ok(pass) if pass.stayed == 0 && pass.moved == 0 => return self.detach(backend).await,
            Ok(pass) => pass,
            Err(error) => {
                warn!(backend = %backend.place(), %error, "a backend that is to be removed cannot be emptied for now");
                Pass { stayed: 1, why: error.to_string(), ..Pass::default() }
            }
        };
        // Other peers may have room where this one has none.
        let leaving = |note: FragmentRecord| {
            let damaged = Damaged { segment: note.segment, body: note.body, object: note.object };
            Job { leaving: true, verify: false, ..Job::from(damaged) }
        };
        self.enqueue(pass.homeless.into_iter().map(leaving).collect()).await;
        let mut stuck = self.emptying.0.lock();
        if pass.stayed == 0 {
            stuck.remove(&backend.number());
        } else {
            let passes = stuck.get(&backend.number()).map_or(0, |before| before.passes);
            let passes = if pass.moved == 0 { passes + 1 } else { 0 };
            stuck.insert(backend.number(), Stuck { passes, fragments: pass.stayed, why: pass.why });
        }
        pass.moved > 0
    }

    async fn detach(&self, backend: &Backend) -> bool {
        match self.home.0.backends.detach(backend).await {
            Ok(is_gone) => {
                self.emptying.0.lock().remove(&backend.number());
                is_gone
            }
            Err(error) => {
                debug!(backend = %backend.place(), %error, "an empty backend cannot be removed for now");
                false
            }
        }
    }
}
