//! A body that is being uploaded and is not yet part of any record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use palm_core::id::{BodyId, FragmentId, PeerId, SegmentId};
use palm_core::wire::{FragmentOrigin, Request};
use parking_lot::Mutex;
use tracing::debug;

use super::Store;
use super::home::MAX_DELETE_IDS;
use super::store::InFlightGuard;

/// A home that does not answer leaves its fragments to collection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// The fragments stored so far of one request's body. While it lives, the body counts as in flight, so no
/// home collects it. Dropped without [`keep`](Self::keep) (the client hung up, a check failed) it has its
/// fragments deleted, as well as that goes at once; collection gets the rest.
pub(super) struct Draft {
    pub(super) store: Store,
    pub(super) body: BodyId,
    /// Register key of the object or version it is uploaded for.
    pub(super) object: Bytes,
    /// Storage class of that object; `None`: standard.
    pub(super) class: Option<String>,
    stored: Mutex<Vec<(PeerId, FragmentId)>>,
    kept: AtomicBool,
    _in_flight: InFlightGuard,
}

impl Draft {
    pub(super) fn new(store: &Store, body: BodyId, object: Bytes, class: Option<String>) -> Self {
        Self {
            _in_flight: store.in_flight.enter(body),
            store: store.clone(),
            body,
            object,
            class,
            stored: Mutex::default(),
            kept: AtomicBool::new(false),
        }
    }

    /// What a home is told of a fragment.
    pub(super) fn origin(&self, segment: SegmentId, index: u8) -> FragmentOrigin {
        FragmentOrigin { segment, index, body: self.body, object: self.object.clone() }
    }

    /// A home has stored a fragment.
    pub(super) fn add(&self, home: PeerId, id: FragmentId) {
        self.stored.lock().push((home, id));
    }

    /// A record refers to the fragments now, or may.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let stored = std::mem::take(self.stored.get_mut());
        if *self.kept.get_mut() || stored.is_empty() {
            return;
        }
        // Outside a runtime the process is ending; collection finds the fragments.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        debug!(body = %self.body, fragments = stored.len(), "upload failed; its fragments are deleted");
        let store = self.store.clone();
        runtime.spawn(async move { discard(&store, stored).await });
    }
}

/// Has fragments deleted that no record refers to.
async fn discard(store: &Store, fragments: Vec<(PeerId, FragmentId)>) {
    let mut homes: BTreeMap<PeerId, Vec<FragmentId>> = BTreeMap::new();
    for (home, id) in fragments {
        homes.entry(home).or_default().push(id);
    }
    let calls = homes.iter().flat_map(|(&home, ids)| {
        ids.chunks(MAX_DELETE_IDS)
            .map(move |ids| store.ask(home, Request::DeleteFragments { ids: ids.to_vec() }, DISCARD_TIMEOUT))
    });
    for result in futures::future::join_all(calls).await {
        if let Err(error) = result {
            debug!(%error, "fragments of a failed upload are left to collection");
        }
    }
}
